"""Holes in coarse levels, filled from the finer ones that they were made of."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace

import numpy as np

from hiresattn.geometry import Level
from hiresattn.pyramid.area import area_means_by_band
from hiresattn.pyramid.pixels import Pixels

#: Most px that are read of a finer level for one hole.
_MOST = 1 << 22


def filled(
    pixels: Pixels,
    at: tuple[int, int, int],
    levels: Sequence[Level],
    read: Callable[[int, int, int, int, int], Pixels | None],
) -> Pixels:
    """A window of a coarse level whose missing tiles hold area averages of a finer level, where that has them.

    The tiles still count as missing: the file lacks them.

    Args:
        pixels: What was read; with missing tiles.
        at: Its level, first row and first column, px of that level.
        levels: All levels, finest first.
        read: ``read(level, y, x, height, width)`` with the mask of each band; None where there is nothing.
    """
    level, y, x = at
    data, has = pixels.data.copy(), levels[level]
    valid = np.ones(data.shape, bool)
    if pixels.valid is not None:
        valid &= pixels.valid if pixels.valid.ndim == 3 else pixels.valid[:, :, None]
    for rows, columns in _tiles(has, y, x, *data.shape[:2]):
        lost = ~valid[rows, columns].any(axis=(0, 1))
        if not lost.any():
            continue
        edges = [np.arange(part.start, part.stop + 1) + start for part, start in ((rows, y), (columns, x))]
        for finer in range(level - 1, -1, -1):
            found = _averaged(finer, edges, has.downsample / levels[finer].downsample, levels[finer], read)
            if found is None:
                continue
            means, measured = found
            means = means if data.dtype.kind == "f" else np.rint(means)
            measured &= lost
            np.copyto(data[rows, columns], means.astype(data.dtype), where=measured)
            valid[rows, columns] |= measured
            break
    return replace(pixels, data=data, valid=None if valid.all() else valid)


def _tiles(has: Level, y: int, x: int, height: int, width: int) -> Iterator[tuple[slice, slice]]:
    """What of each tile lies in a window, px of the window."""
    for row in range(y // has.tile_height, -(-(y + height) // has.tile_height)):
        for column in range(x // has.tile_width, -(-(x + width) // has.tile_width)):
            top, left = row * has.tile_height - y, column * has.tile_width - x
            yield (
                slice(max(top, 0), min(top + has.tile_height, height)),
                slice(max(left, 0), min(left + has.tile_width, width)),
            )


def _averaged(
    level: int,
    edges: list[np.ndarray],
    ratio: float,
    has: Level,
    read: Callable[[int, int, int, int, int], Pixels | None],
) -> tuple[np.ndarray, np.ndarray] | None:
    """Means between edges (px of the coarse level), and where there are any; None if nothing was read or is valid."""
    rows, columns = (
        np.clip(line * ratio, 0, side) for line, side in zip(edges, (has.height, has.width), strict=True)
    )
    (top, bottom), (left, right) = ((int(line[0]), int(np.ceil(line[-1]))) for line in (rows, columns))
    if bottom <= top or right <= left or (bottom - top) * (right - left) > _MOST:
        return None
    pixels = read(level, top, left, bottom - top, right - left)
    if pixels is None:
        return None
    means, weight = area_means_by_band(pixels.data, pixels.valid, rows - top, columns - left)
    return (means, weight > 0) if (weight > 0).any() else None
