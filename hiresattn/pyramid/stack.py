"""Several files as one image: the bands of each, in order."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace

from hiresattn.errors import ConfigError, OpenError
from hiresattn.pyramid.storage.signing import Address


@dataclass(frozen=True)
class Layer:
    """A file of a stack, and what is known of it from elsewhere, such as a STAC item."""

    path: str
    """Path or address."""
    name: str | None = None
    """What it is called: the key of an asset, a band. None = as the file says."""
    bands: tuple[int, ...] | None = None
    """Which of its bands, from 1; None = all that aren't alpha."""
    names: tuple[str, ...] | None = None
    """Name of each band of the file."""
    colors: tuple[str, ...] | None = None
    """What each band of the file shows, as STAC's common names: ``red``, ``nir08`` …"""
    nodata: float | None = None
    """Value that stands for "nothing measured here", in place of what the file says."""
    scales: tuple[float, ...] | None = None
    """Scale of each band of the file's values (see ``Metadata.scales``), in place of what the file says."""
    offsets: tuple[float, ...] | None = None
    """Offset of each band's values, likewise."""


@dataclass(frozen=True)
class Stack:
    """Files that show one place, whose bands are those of one image.

    Its px are those of the finest file; coarser ones are laid over them. All are in one CRS, and each shows all of the
    finest one's rectangle to a px of its own.
    """

    layers: tuple[Layer, ...]
    """The files."""
    name: str | None = None
    """Used in messages and records; None = the names and paths of the files."""
    acquired: str | None = None
    """When it was taken, ISO 8601."""
    sign: Callable[[str], str] | None = field(default=None, compare=False, repr=False)
    """Called with each address when it is opened, and again when a server refuses what it gave; None = with none."""
    choose: bool = False
    """Whether these are files to choose from, by name, rather than one image."""

    def __str__(self) -> str:
        if self.name is not None:
            return self.name
        return ",".join(f"{one.name}={one.path}" if one.name else one.path for one in self.layers)

    def knows(self, name: str) -> bool:
        """Whether a file or band is called so."""
        return bool(self._found(name))

    def chosen(self, names: Sequence[str]) -> "Stack":
        """The files and bands that are called so, in this order: by name of a file, a band, or its common name.

        Raises:
            ConfigError: If none, or several, are.
        """
        layers: list[Layer] = []
        for name in names:
            found = self._found(name)
            if len(found) != 1:
                what = (
                    "none of its files and bands is"
                    if not found
                    else f"{len(found)} of its files and bands are"
                )
                raise ConfigError(f"{self}: {what} called {name!r}; it has {', '.join(self._names())}")
            (layer,) = found
            last = layers[-1] if layers else None
            if last is not None and last.bands and layer.bands and replace(last, bands=layer.bands) == layer:
                layers[-1] = replace(last, bands=last.bands + layer.bands)
            else:
                layers.append(layer)
        return replace(self, layers=tuple(map(_whole, layers)), name=str(self), choose=False)

    def _found(self, name: str) -> list[Layer]:
        """The file that is called so, else the bands, each as a file of one band."""
        whole = [one for one in self.layers if _same(one.name, name)]
        if whole:
            return whole
        for kind in ("names", "colors"):
            bands = [
                replace(one, bands=(at,))
                for one in self.layers
                for at, own in enumerate(getattr(one, kind) or (), start=1)
                if _same(own, name)
            ]
            if bands:
                return bands
        return []

    def _names(self) -> list[str]:
        found = []
        for one in self.layers:
            bands = [own for own in (*(one.names or ()), *(one.colors or ())) if own and own != "undefined"]
            others = [own for own in dict.fromkeys(bands) if not _same(own, str(one.name))]
            found.append(f"{one.name or one.path} ({', '.join(others)})" if others else one.name or one.path)
        return found

    def ready(self) -> tuple[Address, ...]:
        """The addresses of its files, signed, to be opened now.

        Raises:
            OpenError: If it is to be chosen first, or the signer fails.
        """
        if self.choose:
            has = ", ".join(self._names())
            raise OpenError(
                f"{self}: several files: {has}; name those that are the image, as with assets or bands"
            )
        return tuple(Address(one.path, self.sign) for one in self.layers)


def parse_stack(text: str) -> Stack:
    """A stack as it is written on a command line: ``B04=red.tif,B03=green.tif``, or paths alone.

    Raises:
        OpenError: If it names no file.
    """
    layers = []
    for part in text.split(","):
        name, equals, path = part.partition("=")
        named = bool(equals) and not any(mark in name for mark in "/?:")
        layers.append(Layer(path.strip(), name.strip()) if named else Layer(part.strip()))
    if not all(layer.path for layer in layers):
        raise OpenError(f"{text!r}: names no file; write NAME=FILE,NAME=FILE")
    return Stack(tuple(layers))


def _same(own: str | None, name: str) -> bool:
    return own is not None and own.lower() == name.lower()


def _whole(layer: Layer) -> Layer:
    """A file of which all bands are taken, in order, as one without a choice."""
    count = len(layer.names or layer.colors or ())
    return replace(layer, bands=None) if layer.bands == tuple(range(1, count + 1)) else layer
