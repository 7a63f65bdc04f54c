"""A rectangle of one image pasted into another: read lazily, the same mix at every level."""

from dataclasses import replace
from itertools import product
from typing import Any, ClassVar

import numpy as np

from hiresattn.errors import DomainError, counted
from hiresattn.geometry import check_region
from hiresattn.pyramid.area import NOISE, area_means_by_band
from hiresattn.pyramid.base import Pyramid
from hiresattn.pyramid.pixels import Pixels

#: How far a donor's downsample may exceed that of the level it is pasted into.
_SLACK = 0.01
#: Most px along a side that are read of a donor at once, where its px must be averaged.
_BLOCK = 2048


class Pasted(Pyramid):
    """One image with a rectangle of another in it, as if it were a file of its own; neither is changed.

    It has the levels, tiles and scale of ``host``. On each level the box is rounded to whole px: where its
    edges lie on them already, the level is exactly that of the mixed image. The donor's px come as stored where it
    has a level of this downsample and px boundaries coincide, else as area averages of its finer px. A window wholly
    inside the box, or wholly outside, is read from one of the two. The two images stay the caller's.

    Args:
        host: The image that is pasted into.
        donor: The image that is shown inside the box; of the same bands and data type.
        box: ``(y, x, height, width)``, level-0 px of the host, inside it.
        at: First row and column of what is shown, level-0 px of the donor.

    Raises:
        DomainError: If the two have other bands, data types or palettes, or values of another scale and offset.
        RegionError: If the box leaves the host, or what it shows leaves the donor.
    """

    backend: ClassVar[str] = "pasted"

    def __init__(
        self, host: Pyramid, donor: Pyramid, box: tuple[int, int, int, int], at: tuple[int, int]
    ) -> None:
        formats = [
            (image.channels, image.dtype, _colours(image), image.meta.scales, image.meta.offsets)
            for image in (host, donor)
        ]
        if formats[0] != formats[1]:
            theirs, ours = (f"{counted(image.channels, 'band')} {image.dtype}" for image in (donor, host))
            raise DomainError(
                f"{donor.source} can't be pasted into {host.source}: {theirs} and {ours}, or other palettes, or "
                "values of another scale; convert one to the other's"
            )
        check_region(box, host.height, host.width, host.source)
        check_region((*at, *box[2:]), donor.height, donor.width, donor.source)
        super().__init__(host.source, replace(host.meta, nodata=None))
        self.by_tile = host.by_tile
        self._host = host
        self._donor = donor
        self._box = box
        self._at = at

    def tile_bytes(self, level: int, row: int, column: int) -> int:
        """Stored bytes of the host's tile."""
        return self._host.tile_bytes(level, row, column)

    def _read(self, level: int, y: int, x: int, height: int, width: int) -> Pixels:
        top, left, bottom, right = self._on(level)
        y0, x0 = max(y, top), max(x, left)
        y1, x1 = min(y + height, bottom), min(x + width, right)
        if y0 >= y1 or x0 >= x1:
            return self._host.read_by_band(level, y, x, height, width)
        donor = self._shown(level, y0, x0, y1 - y0, x1 - x0)
        if (y1 - y0, x1 - x0) == (height, width):
            return donor
        host = self._host.read_by_band(level, y, x, height, width)
        inside = np.s_[y0 - y : y1 - y, x0 - x : x1 - x]
        data = host.data.copy()
        data[inside] = donor.data
        valid = self._by_band(host)
        valid[inside] = self._by_band(donor)
        return Pixels(data, valid, host.missing_tiles + donor.missing_tiles)

    def _by_band(self, pixels: Pixels) -> np.ndarray:
        """Which px were measured, ``[h w c]``."""
        if pixels.valid is None:
            return np.ones(pixels.data.shape, bool)
        valid = pixels.valid if pixels.valid.ndim == 3 else pixels.valid[:, :, None]
        return np.broadcast_to(valid, pixels.data.shape).copy()

    def _on(self, level: int) -> tuple[int, int, int, int]:
        """The box on a level: its first row and column, and those behind its last."""
        has = self.levels[level]
        edges = []
        for start, length, whole, side in zip(
            self._box[:2], self._box[2:], (self.height, self.width), (has.height, has.width), strict=True
        ):
            stop = start + length
            edges.append((round(start / has.downsample), round(stop / has.downsample), stop == whole, side))
        (top, bottom, low, height), (left, right, far, width) = edges
        return top, left, height if low else min(bottom, height), width if far else min(right, width)

    def _shown(self, level: int, y: int, x: int, height: int, width: int) -> Pixels:
        """The donor's px for a window of a level."""
        downsample = self.levels[level].downsample
        stored = [
            i for i, has in enumerate(self._donor.levels) if has.downsample <= downsample * (1 + _SLACK)
        ]
        number = stored[-1] if stored else 0  # a donor of coarser px is enlarged
        has = self._donor.levels[number]
        shift = [at - box for at, box in zip(self._at, self._box[:2], strict=True)]
        extents = (has.height, has.width)
        # edges of each px of the window, px of the donor's level
        edges = [
            np.clip((np.arange(start, start + side + 1) * downsample + move) / has.downsample, 0, extent)
            for start, side, move, extent in zip((y, x), (height, width), shift, extents, strict=True)
        ]
        rows, columns = (_settled(line, extent) for line, extent in zip(edges, extents, strict=True))
        if _is_whole(rows) and _is_whole(columns):
            return self._donor.read_by_band(number, int(rows[0]), int(columns[0]), height, width)
        data = np.zeros((height, width, self.channels), self.dtype)
        valid = np.zeros(data.shape, bool)
        missing = 0
        step = max(int(_BLOCK * has.downsample / downsample), 1)
        for top, left in product(range(0, height, step), range(0, width, step)):
            part = np.s_[top : top + step, left : left + step]
            below, right = rows[top : top + step + 1], columns[left : left + step + 1]
            data[part], valid[part], lost = self._averaged(number, below, right)
            missing += lost
        return Pixels(data, valid, missing)

    def _averaged(
        self, level: int, rows: np.ndarray, columns: np.ndarray
    ) -> tuple[np.ndarray, np.ndarray, int]:
        """Area averages of the donor's measured px between lines, px of one of its levels."""
        (y, y1), (x, x1) = ((int(line[0]), int(np.ceil(line[-1]))) for line in (rows, columns))
        pixels = self._donor.read_by_band(level, y, x, y1 - y, x1 - x)
        mean, weight = area_means_by_band(pixels.data, pixels.valid, rows - y, columns - x)
        mean = mean if self.dtype.kind == "f" else np.rint(mean)
        return mean.astype(self.dtype), weight > 0, pixels.missing_tiles

    def __reduce__(self) -> tuple[Any, ...]:
        return Pasted, (self._host, self._donor, self._box, self._at)


def _colours(image: Pyramid) -> bytes | None:
    return None if image.palette is None else image.palette.tobytes()


def _settled(line: np.ndarray, extent: int) -> np.ndarray:
    """Lines on whole px where they are but for rounding noise; at least a px apart at the level's end.

    A level may end up to a px before level 0 does.
    """
    line = np.where(np.abs(line - np.rint(line)) < NOISE, np.rint(line), line)
    empty = np.flatnonzero(np.diff(line) <= 0)
    if len(empty):
        line = line.copy()
        line[empty] = np.minimum(line[empty], extent - 1)
    return line


def _is_whole(line: np.ndarray) -> bool:
    """Whether lines are one px apart, on whole px."""
    return bool((line == np.floor(line)).all() and (np.diff(line) == 1).all())
