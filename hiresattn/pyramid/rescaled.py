"""An image seen at another scale: its regions are counted in px of a chosen size, its levels stay as they are stored.

A model that was trained at 0.5 µm/px counts regions in px of 0.5 µm, whatever an image's level-0 px are: these are
*scaled px*. Nothing is resampled here: ``reading.plan`` picks the stored level that serves a region as for any image.
"""

from dataclasses import replace
from typing import Any, ClassVar, NamedTuple

import numpy as np

from hiresattn.errors import DomainError
from hiresattn.geometry import check_region, extent
from hiresattn.pyramid.base import Pyramid
from hiresattn.pyramid.mpp import ground_mpp, implausible, scale_words
from hiresattn.pyramid.pixels import Pixels
from hiresattn.pyramid.storage.ranges import RequestStats
from hiresattn.shapes import Int64

#: Scales that differ by less than this factor are the same: scanners write 0.2520 and 0.2528 for 0.25.
SAME = 1.02


class Scale(NamedTuple):
    """The scale of an image."""

    mpp: float | None
    """Micrometres per level-0 px; None = not known."""
    source: str | None
    """Where that is from, or why it wasn't taken."""


UNKNOWN = Scale(None, None)


class Rescaled(Pyramid):
    """An image whose regions are counted in px of ``at`` micrometres; the image stays the caller's.

    ``height``, ``width`` and ``bounds`` are in such px; ``levels`` are the stored ones, with downsamples relative to
    them: level 0 of a finer image has one below 1, that of a coarser image one above 1. A level whose px are of this
    size within 2 % is taken to have exactly that. Px are read as they are stored. ``to_stored`` gives a region's
    level-0 px.

    Args:
        image: The image.
        at: Micrometres per px that regions are counted in.
        scale: The image's; None = as it says, see ``known_scale``.

    Raises:
        DomainError: If the image's scale isn't known, or can't be meant.
    """

    backend: ClassVar[str] = "rescaled"

    def __init__(self, image: Pyramid, at: float, scale: Scale | None = None) -> None:
        scale = known_scale(image) if scale is None or scale.mpp is None else scale
        if scale.mpp is None or implausible(scale.mpp, at):
            why = implausible(scale.mpp, at) if scale.mpp else scale.source or "the image doesn't say it"
            raise DomainError(
                f"{image.source}: its scale isn't known ({why}), and the model works at {scale_words(at)}; give it in "
                "a column mpp, with mpp=0.5, or with assume_mpp=0.5 for all images without"
            )
        ratio = scale.mpp / at
        near = min((ratio * level.downsample for level in image.levels), key=lambda px: abs(np.log(px)))
        if 1 / SAME < near < SAME:
            ratio /= near
        levels = tuple(replace(level, downsample=level.downsample * ratio) for level in image.levels)
        transform: Any = image.transform
        if transform is not None:
            a, b, c, d, e, f = transform
            transform = (a / ratio, b / ratio, c, d / ratio, e / ratio, f)
        meta = replace(image.meta, levels=levels, mpp=at, mpp_source=scale.source, transform=transform)
        if meta.control is not None:
            meta = replace(meta, control=meta.control.moved(0, 0, ratio))
        if image.bounds is not None:
            (bounds,) = _converted(np.array([image.bounds]), ratio, extent(levels)).tolist()
            meta = replace(meta, bounds=tuple(bounds))
        super().__init__(image.source, meta)
        self.by_tile, self.by_window = image.by_tile, image.by_window
        self.native_tiles, self.exact_bytes = image.native_tiles, image.exact_bytes
        self._image, self._at, self._scale = image, at, scale

    @property
    def stored(self) -> Pyramid:
        """The image, with regions in its own level-0 px."""
        return self._image

    def read_masked(self, *window: Any, **how: Any) -> Pixels:
        """As the image's own."""
        return self._image.read_masked(*window, **how)

    def read_by_band(self, level: int, y: int, x: int, height: int, width: int) -> Pixels:
        """As the image's own."""
        return self._image.read_by_band(level, y, x, height, width)

    def read_tile(self, *tile: Any, **how: Any) -> Pixels:
        """As the image's own."""
        return self._image.read_tile(*tile, **how)

    @property
    def requests(self) -> RequestStats | None:  # type: ignore[override]
        """As the image's own."""
        return self._image.requests

    def tile_bytes(self, level: int, row: int, column: int) -> int:
        """As the image's own."""
        return self._image.tile_bytes(level, row, column)

    def close(self) -> None:
        """Close the image."""
        self._image.close()

    def _read(self, level: int, y: int, x: int, height: int, width: int) -> Pixels:
        return self._image.read_by_band(level, y, x, height, width)

    def __reduce__(self) -> tuple[Any, ...]:
        return Rescaled, (self._image, self._at, self._scale)


def at_scale(image: Pyramid, at: float | None, scale: Scale | None = None) -> Pyramid:
    """An image with regions in px of ``at`` micrometres: itself where its level-0 px are that, or ``at`` is None.

    Args:
        image: The image.
        at: Micrometres per px; None = regions are in its own level-0 px.
        scale: The image's; None = as it says.

    Raises:
        DomainError: If the image's scale isn't known, or can't be meant.
    """
    if at is None:
        return image
    rescaled = Rescaled(image, at, scale)
    return image if rescaled.levels == image.levels else rescaled


def known_scale(image: Pyramid) -> Scale:
    """The scale of an image: what its header says, else the ground size of a px by its CRS."""
    if image.mpp is None and image.crs is not None and image.transform is not None:
        return Scale(
            ground_mpp(image.crs, image.transform, image.height, image.width), f"CRS {image.crs[:40]}"
        )
    return Scale(image.mpp, image.meta.mpp_source)


def stored_image(image: Pyramid) -> Pyramid:
    """The image whose regions are in its own level-0 px: itself, or what was rescaled."""
    return image.stored if isinstance(image, Rescaled) else image


def window_of(image: Pyramid, region: tuple[int, int, int, int] | None) -> tuple[int, int, int, int]:
    """A region in level-0 px of the file (None = all of it), in the px that the image counts in.

    Raises:
        RegionError: If it leaves the image.
    """
    if region is None:
        return 0, 0, image.height, image.width
    first = image.levels[0]
    check_region(region, first.height, first.width, image.source)
    y, x, height, width = to_scaled(image, np.array([region], np.int64))[0].tolist()
    return y, x, height, width


def to_stored(image: Pyramid, regions: Int64[np.ndarray, "n 4"]) -> Int64[np.ndarray, "n 4"]:
    """Regions in level-0 px of the file, from those in the px that the image counts in.

    Edges are rounded to whole px. A region is at least a px high and wide, and inside the image.
    """
    first = image.levels[0]
    return _converted(regions, 1 / first.downsample, (first.height, first.width))


def to_scaled(image: Pyramid, regions: Int64[np.ndarray, "n 4"]) -> Int64[np.ndarray, "n 4"]:
    """Regions in the px that the image counts in, from those in level-0 px of the file; rounded as by ``to_stored``."""
    return _converted(regions, image.levels[0].downsample, extent(image.levels))


def _converted(regions: np.ndarray, factor: float, sides: tuple[int, int]) -> np.ndarray:
    if factor == 1:
        return regions
    start, stop = regions[:, :2], regions[:, :2] + regions[:, 2:]
    first = np.clip(np.rint(start * factor).astype(np.int64), 0, np.array(sides) - 1)
    last = np.clip(np.rint(stop * factor).astype(np.int64), first + 1, sides)
    return np.concatenate([first, last - first], axis=1)
