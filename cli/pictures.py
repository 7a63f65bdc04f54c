"""What ``classify`` draws of records: overlays, and rasters of the attention."""

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from hiresattn.errors import ConfigError, HiresattnError
from hiresattn.files import is_remote, make_folder
from hiresattn_cli.output import one_line

if TYPE_CHECKING:
    from hiresattn.cluster.shards import Shard
    from hiresattn.inference.record import Record
    from hiresattn.inference.records_file import RecordsFile

#: Most images of a run whose overlays are drawn without being asked for.
MOST_OVERLAYS = 50


class Overlays:
    """Draws overlays into a folder, each under a name of its own.

    Args:
        folder: The folder.
        values: Pixel values to show as black and as white.
        own: Whether the folder is that of the results: images on servers aren't read again for it, and what is of no
            record goes.
    """

    suffix = ".png"

    def __init__(self, folder: Path, values: tuple[float, float] | None, *, own: bool = False) -> None:
        self._folder, self._values, self._own = folder, values, own
        self._images: Mapping[str, str] = {}
        self._names: dict[str, str] = {}

    def take(self, images: Mapping[str, str]) -> None:
        """Take note of the images that there will be records of: names in the records, and paths or addresses."""
        from hiresattn.report.names import unique_names

        self._images = {name: "" if self._own and is_remote(path) else path for name, path in images.items()}
        self._names = dict(zip(images, unique_names(list(images)), strict=True))

    def complete(self, records: "Iterable[Record]") -> None:
        """Draw those of an earlier run's records that aren't there: it was ended before, or drew none."""
        known = set()
        for record in records:
            for own, path in self._paths(record):
                known.add(path)
                if self._images[own.source] and not path.exists():
                    self._draw(own, path)
        if self._own:
            for left in set(self._folder.glob(f"*{self.suffix}")).difference(known):
                left.unlink()

    def draw(self, record: "Record") -> None:
        """Draw the overlay of each image of a record; if one fails there is a warning, and the record stays."""
        for own, path in self._paths(record):
            if self._images[own.source]:
                self._draw(own, path)

    def _paths(self, record: "Record") -> "list[tuple[Record, Path]]":
        """The record image by image, each with its file; none of what has no answer or isn't to be drawn."""
        found = (
            []
            if record.status == "error"
            else [one for one in record.by_source() if one.source in self._names]
        )
        return [(own, self._folder / self._name(own.source, own.region)) for own in found]

    def _name(self, source: str, region: Sequence[int] | None) -> str:
        window = "".join(f"_{value}" for value in region or ())
        return f"{self._names[source]}{window}{self.suffix}"

    def _draw(self, own: "Record", path: Path) -> None:
        from hiresattn.pyramid import open_pyramid
        from hiresattn.report.changed import why_changed
        from hiresattn.report.overlay import draw_overlay

        try:
            if own.sources and (why := why_changed(own.sources[0])):
                raise ConfigError(why)
            with open_pyramid(self._images[own.source]) as pyramid:
                draw_overlay(pyramid, own, path, values=self._values)
        except (HiresattnError, OSError) as error:
            click.echo(f"Warning: {path}: overlay not drawn: {one_line(error)}", err=True)


class AttentionRasters(Overlays):
    """Writes where the model looked into a folder, a GeoTIFF per image."""

    suffix = ".attention.tif"

    def _draw(self, own: "Record", path: Path) -> None:
        from hiresattn.geo.attention import write_attention

        try:
            write_attention(own, path)
        except (HiresattnError, OSError) as error:
            click.echo(f"Warning: attention not written: {one_line(error)}", err=True)


def pictures_of(
    *,
    overlay: str | None,
    attention: str | None,
    values: tuple[float, float] | None,
    shard: "Shard | None",
) -> list[Overlays]:
    """What is drawn of each record, as asked for; of a shard in a folder of its own, for its names are its own."""
    asked = [(Overlays, overlay), (AttentionRasters, attention)]
    named = [(drawn, shard.folder(folder) if shard else folder) for drawn, folder in asked if folder]
    return [drawn(make_folder(folder), values) for drawn, folder in named]


def default_overlays(
    folder: str, images: Mapping[str, str], values: tuple[float, float] | None, verbosity: int
) -> list[Overlays]:
    """The overlays of a results folder, where there are few enough; images on servers aren't read again for them."""
    from hiresattn.report.results import OVERLAYS

    images = {name: image for name, image in images.items() if not is_remote(image)}
    if len(images) > MOST_OVERLAYS:
        if verbosity >= 0:
            asked = Path(folder) / OVERLAYS
            click.echo(
                f"No overlays of {len(images):,} images, which are more than {MOST_OVERLAYS}; --overlay {asked} draws "
                "them",
                err=True,
            )
        return []
    return [Overlays(make_folder(Path(folder) / OVERLAYS), values, own=True)] if images else []


def take(pictures: Iterable[Overlays], images: Mapping[str, str]) -> None:
    """Tell what the images are: see ``images_of``."""
    for one in pictures:
        one.take(images)


def complete(pictures: Iterable[Overlays], records: Path) -> None:
    """Draw what an earlier run left out of the records in a file."""
    from hiresattn.inference.read_records import read_records

    for one in pictures:
        one.complete(read_records(records))


def images_of(sources: Iterable[Any], file: "RecordsFile | None") -> dict[str, str]:
    """The paths and addresses of the images, by the names that records have for them."""
    from hiresattn.datasets.cases import examples_of

    found = {} if file is None else file.others()
    for source in sources:
        paths = [str(getattr(example, "source", example)) for example in examples_of(source)]
        shown = paths if file is None else file.names(source) or paths
        found |= dict(zip(shown, paths, strict=True))
    return found
