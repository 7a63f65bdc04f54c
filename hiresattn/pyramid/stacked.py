"""Several images of one place as one: their bands side by side."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any, ClassVar

import numpy as np

from hiresattn.errors import OpenError
from hiresattn.geometry import Level
from hiresattn.pyramid.base import Pyramid
from hiresattn.pyramid.metadata import Metadata
from hiresattn.pyramid.pixels import Pixels
from hiresattn.pyramid.placed import crs_name
from hiresattn.pyramid.stack import Layer, Stack
from hiresattn.pyramid.storage.ranges import RequestStats

#: By how much the edges of images may lie apart and still be the same, px of the finer one.
_SAME = 0.01


@dataclass(frozen=True)
class _Part:
    """An image of a stack."""

    layer: Layer
    image: Pyramid
    bands: tuple[int, ...]
    """Those taken, from 0."""
    scale: tuple[float, float]
    """Rows and columns of its level 0 per row and column of the finest image's."""
    shift: tuple[float, float]
    """Where the finest image's corner lies (y, x), px of its level 0."""

    @property
    def aligned(self) -> bool:
        """Whether its px are those of the finest image."""
        return self.scale == (1.0, 1.0) and self.shift == (0.0, 0.0)


class StackedPyramid(Pyramid):
    """Images of one place, whose bands are those of one image: ``[h w bands]``.

    Its px are those of the finest image. A px of a coarser one is repeated for all that have their middle in it; none
    is interpolated. What is valid in a band is what its image says.

    Args:
        stack: What they are.
        images: The open images, one per layer; closed with this one.

    Raises:
        OpenError: If they aren't of one place, CRS and type.
    """

    backend: ClassVar[str] = "stack"

    def __init__(self, stack: Stack, images: Sequence[Pyramid]) -> None:
        self._stack, self._images = stack, tuple(images)
        if not images:
            raise OpenError(f"{stack}: no files")
        frame = min(images, key=_area)
        self._parts = [
            _part(layer, image, frame, stack) for layer, image in zip(stack.layers, images, strict=True)
        ]
        levels = [
            level for level in frame.levels if None not in [_level(part, level) for part in self._parts]
        ]
        nodata = {repr(part.image.nodata) for part in self._parts}
        super().__init__(
            str(stack), _metadata(stack, self._parts, frame, tuple(levels), same=len(nodata) == 1)
        )
        self._sources = [[_level(part, level) for part in self._parts] for level in levels]
        tiles = {
            (level.tile_height, level.tile_width) for part in self._parts for level in part.image.levels[:1]
        }
        self.exact_bytes = (
            all(part.aligned and part.image.exact_bytes for part in self._parts) and len(tiles) == 1
        )

    def _read(self, level: int, y: int, x: int, height: int, width: int) -> Pixels:
        data, valid, lost = [], [], []
        for part, source in zip(self._parts, self._sources[level], strict=True):
            assert source is not None  # noqa: S101 - levels without one were left out
            pixels = self._of(part, source, level, (y, x, height, width))
            bands = list(part.bands)
            data.append(pixels.data[:, :, bands])
            own = np.ones((1, 1), bool) if pixels.valid is None else pixels.valid
            own = own[:, :, bands] if own.ndim == 3 else own[:, :, None]
            valid.append(np.broadcast_to(own, data[-1].shape))
            by_band = pixels.missing_by_band
            lost += [pixels.missing_tiles if by_band is None else int(by_band[band]) for band in bands]
        known = np.concatenate(valid, axis=2)
        return Pixels(
            np.concatenate(data, axis=2),
            None if known.all() else known,
            max(lost),
            np.array(lost) if any(lost) else None,
        )

    def _of(self, part: _Part, source: int, level: int, window: tuple[int, int, int, int]) -> Pixels:
        """A window of a level, of one image."""
        if part.aligned:
            return part.image.read_by_band(source, *window)
        y, x, height, width = window
        has, step = part.image.levels[source], self.levels[level].downsample
        at = []
        for start, count, ratio, shift, side in zip(
            (y, x), (height, width), part.scale, part.shift, (has.height, has.width), strict=True
        ):
            middles = (np.arange(start, start + count) + 0.5) * step * ratio + shift
            at.append(np.clip(np.floor(middles / has.downsample).astype(int), 0, side - 1))
        rows, columns = at
        top, left = int(rows[0]), int(columns[0])
        pixels = part.image.read_by_band(
            source, top, left, int(rows[-1]) - top + 1, int(columns[-1]) - left + 1
        )
        rows, columns = (rows - top)[:, None], columns - left
        valid = None if pixels.valid is None else pixels.valid[rows, columns]
        return replace(pixels, data=pixels.data[rows, columns], valid=valid)

    @property
    def requests(self) -> RequestStats | None:  # type: ignore[override]
        """What was asked of servers, where that is counted for all files that lie on one."""
        asked = [image.requests for image in self._images if image.requests is not None]
        return (
            RequestStats(sum(one.count for one in asked), sum(one.bytes for one in asked)) if asked else None
        )

    def tile_bytes(self, level: int, row: int, column: int) -> int:
        """Stored bytes of a tile, of all images; see ``exact_bytes``."""
        if self.exact_bytes:
            sources = zip(self._parts, self._sources[level], strict=True)
            return sum(part.image.tile_bytes(source or 0, row, column) for part, source in sources)
        return super().tile_bytes(level, row, column)

    def close(self) -> None:
        """Let go of the files. A later read opens them again."""
        for image in self._images:
            image.close()

    def __reduce__(self) -> tuple[Any, ...]:
        return type(self), (replace(self._stack, sign=None), self._images)


def _area(image: Pyramid) -> float:
    """The size of a px, in units of the CRS; of an image without a transform 1 over its own number of px."""
    if image.transform is None:
        return 1 / (image.height * image.width)
    a, b, _, d, e, _ = image.transform
    return abs(a * e - b * d)


def _part(layer: Layer, image: Pyramid, frame: Pyramid, stack: Stack) -> _Part:
    """An image, placed on the finest one; refuses what isn't of its place, CRS and type."""
    bands = tuple(range(image.channels)) if layer.bands is None else tuple(n - 1 for n in layer.bands)
    if not bands or min(bands) < 0 or max(bands) >= image.channels:
        raise OpenError(
            f"{stack}: {layer.path} has bands 1 to {image.channels}, and {layer.bands} are asked for"
        )
    if image.palette is not None:
        raise OpenError(f"{stack}: {layer.path} has colours from a palette; convert it to RGB")
    if image.dtype != frame.dtype:
        raise OpenError(
            f"{stack}: {layer.path} has values of {image.dtype} and {frame.source} of {frame.dtype}; convert one of "
            "them, as with gdal_translate -ot"
        )
    if image.crs != frame.crs:
        raise OpenError(
            f"{stack}: {layer.path} is in {_crs(image)} and {frame.source} in {_crs(frame)}; warp one of them, as with "
            "gdalwarp -t_srs"
        )
    first, last = ((0.0, 0.0), (float(image.height), float(image.width)))
    if frame.transform is not None and image.transform is not None:
        first, last = (image.rowcol(*frame.xy(*end)) for end in ((0, 0), (frame.height, frame.width)))
    sides = (image.height, image.width)
    scale = tuple((b - a) / side for a, b, side in zip(first, last, (frame.height, frame.width), strict=True))
    apart = [abs(first[n]) + abs(last[n] - sides[n]) for n in (0, 1)]
    if min(scale) <= 0 or any(
        min(a, side - b) < -1 - _SAME for a, b, side in zip(first, last, sides, strict=True)
    ):
        raise OpenError(
            f"{stack}: {layer.path} shows another place than {frame.source}; cut both to one, as with gdalwarp -te"
        )
    if max(apart) <= _SAME and sides == (frame.height, frame.width):
        return _Part(layer, image, bands, (1.0, 1.0), (0.0, 0.0))
    return _Part(layer, image, bands, (scale[0], scale[1]), first)


def _crs(image: Pyramid) -> str:
    return "no coordinate system" if image.crs is None else crs_name(image.crs)


def _level(part: _Part, level: Level) -> int | None:
    """Which level of an image has the px that one of the finest image needs; None = none is as coarse."""
    if part.aligned:
        sizes = [(one.height, one.width) for one in part.image.levels]
        return sizes.index((level.height, level.width)) if (level.height, level.width) in sizes else None
    wanted = level.downsample * max(part.scale)
    if wanted <= 1 + _SAME:
        return 0
    close = [abs(one.downsample / wanted - 1) <= _SAME for one in part.image.levels]
    return close.index(True) if any(close) else None


def known_of(layer: Layer, image: Pyramid) -> dict[str, Any]:
    """What is known of all bands of a file, by the names of the fields of ``Metadata``, those that are known only.

    ``scales`` and ``offsets`` come together, of the stack or else of the file.
    """
    known: dict[str, Any] = {"channel_names": layer.names, "colors": layer.colors}
    if layer.name and image.channels == 1:
        known["channel_names"] = (layer.name,)
    for said in (layer, image.meta):
        scaling = [tuple(values or ()) for values in (said.scales, said.offsets)]
        scaling = [values * image.channels if len(values) == 1 else values for values in scaling]
        if all(len(values) == image.channels for values in scaling):
            known["scales"], known["offsets"] = scaling
            break
    return {name: values for name, values in known.items() if values}


def _metadata(
    stack: Stack, parts: Sequence[_Part], frame: Pyramid, levels: tuple[Level, ...], *, same: bool
) -> Metadata:
    found: dict[str, list[Any]] = {"channel_names": [], "colors": [], "scales": [], "offsets": []}
    for part in parts:
        meta, count = part.image.meta, part.image.channels
        known = {
            "channel_names": meta.channel_names or ("",) * count,
            "colors": meta.colors or ("undefined",) * count,
        }
        known |= known_of(part.layer, part.image)
        for name, values in known.items():
            found[name] += [values[band] for band in part.bands]
    sizes = [part.image.meta.nbytes for part in parts]
    names, scaled = found["channel_names"], len(found["scales"]) == len(found["colors"])
    return replace(
        frame.meta,
        levels=levels,
        channels=sum(len(part.bands) for part in parts),
        nodata=frame.nodata if same else None,
        nbytes=sum(sizes) if all(sizes) else 0,
        channel_names=tuple(names) if any(names) else None,
        colors=tuple(found["colors"]),
        scales=tuple(found["scales"]) if scaled else None,
        offsets=tuple(found["offsets"]) if scaled else None,
        acquired=stack.acquired,
        notes=tuple(note for part in parts for note in part.image.meta.notes),
    )
