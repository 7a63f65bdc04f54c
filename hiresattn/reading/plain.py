"""The kernels of ``reading.kernels`` in NumPy, the same to the last bit: for work that isn't worth loading Numba."""

from collections.abc import Iterator

import numpy as np


def finish(
    total: np.ndarray,
    weight: np.ndarray,
    area: float,
    low: np.ndarray,
    high: np.ndarray,
    pixels: np.ndarray,
    coverage: np.ndarray,
) -> None:
    """See ``kernels.finish``."""
    coverage[:] = np.minimum(weight / area, 1.0)
    measured = weight[:, :, None] > 0
    mean = np.divide(total, weight[:, :, None], out=np.zeros_like(total), where=measured)
    scaled = (mean - low) * (2 / (high - low)) - 1
    pixels[:] = np.where(measured, scaled, 0).transpose(2, 0, 1)


def copy_uint8(
    data: np.ndarray,
    valid: np.ndarray,
    tile_y: int,
    tile_x: int,
    corners: np.ndarray,
    crops: np.ndarray,
    table: np.ndarray,
    pixels: np.ndarray,
    coverage: np.ndarray,
) -> None:
    """See ``kernels.copy_uint8``."""
    for crop, there, here in _overlaps(data.shape[:2], coverage.shape[1], (tile_y, tile_x), corners, crops):
        part = data[there]
        known = valid[there] if valid.size else np.ones(part.shape[:2], bool)
        coverage[crop][here] = known
        for band, values in enumerate(table):
            scaled = values[part[:, :, min(band, part.shape[2] - 1)]]
            pixels[crop, band][here] = np.where(known, scaled, 0)


def copy_scaled(
    data: np.ndarray,
    valid: np.ndarray,
    tile_y: int,
    tile_x: int,
    corners: np.ndarray,
    crops: np.ndarray,
    low: np.ndarray,
    high: np.ndarray,
    pixels: np.ndarray,
    coverage: np.ndarray,
) -> None:
    """See ``kernels.copy_scaled``."""
    for crop, there, here in _overlaps(data.shape[:2], coverage.shape[1], (tile_y, tile_x), corners, crops):
        part = data[there]
        known = valid[there] if valid.size else np.ones(part.shape[:2], bool)
        coverage[crop][here] = known
        values = np.where(known[:, :, None], part, 0).astype(np.float64)
        scaled = (values - low) * (2 / (high - low)) - 1
        pixels[crop][:, *here] = np.where(known[:, :, None], scaled, 0).transpose(2, 0, 1)


def _overlaps(
    shape: tuple[int, ...], size: int, at: tuple[int, int], corners: np.ndarray, crops: np.ndarray
) -> Iterator[tuple[int, tuple[slice, slice], tuple[slice, slice]]]:
    """Each crop, and what it shares with a tile ``at`` a place: slices of the tile, and of the crop."""
    for crop in crops.tolist():
        starts = [int(corner) - start for corner, start in zip(corners[crop], at, strict=True)]
        first = [max(-start, 0) for start in starts]
        last = [min(side - start, size) for side, start in zip(shape, starts, strict=True)]
        if first[0] < last[0] and first[1] < last[1]:
            here = slice(first[0], last[0]), slice(first[1], last[1])
            there = tuple(slice(s + f, s + to) for s, f, to in zip(starts, first, last, strict=True))
            yield crop, (there[0], there[1]), here
