"""The loops that turn averages, or px as they are stored, into crops. ``.py_func`` is the specification."""

import numpy as np

from hiresattn.pyramid.kernel import kernel_or
from hiresattn.reading import plain


@kernel_or(plain.finish)
def finish(
    total: np.ndarray,
    weight: np.ndarray,
    area: float,
    low: np.ndarray,
    high: np.ndarray,
    pixels: np.ndarray,
    coverage: np.ndarray,
) -> None:
    """Turn the sums of a crop into what the network takes.

    A mean ``v`` becomes ``2 * (v - low) / (high - low) - 1``; a px with nothing measured becomes 0.

    Args:
        total: Float64 ``[s s c]``, from ``area.accumulate``.
        weight: Float64 ``[s s]``, from ``area.accumulate``.
        area: Area of a px of the crop, in px of the level it was read from.
        low: Float64 ``[c]``, what becomes -1.
        high: Float64 ``[c]``, what becomes +1.
        pixels: Float32 ``[c s s]``, filled.
        coverage: Float32 ``[s s]``, filled: the share of each px that was measured, 0 to 1.
    """
    size, _, channels = total.shape
    for i in range(size):
        for j in range(size):
            coverage[i, j] = min(weight[i, j] / area, 1.0)
        for channel in range(channels):
            row, least, gain = pixels[channel, i], low[channel], 2 / (high[channel] - low[channel])
            for j in range(size):  # no branch inside
                known = weight[i, j] > 0
                mean = total[i, j, channel] / (weight[i, j] if known else 1.0)
                row[j] = (mean - least) * gain - 1 if known else 0.0


@kernel_or(plain.copy_uint8)
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
    """Scale the px of a tile of uint8 straight into the crops that show it px for px.

    Gives what ``area.accumulate`` and ``finish`` give where a crop's px are the level's: every px of a crop is written
    once, by the tile that holds it.

    Args:
        data: The tile, uint8 ``[h w c]``, C order or a view of planes; or ``[h w 1]`` of which every band is made.
        valid: Bool ``[h w]``, True = measured; ``[0 0]`` = all of it.
        tile_y: Row of the level that the tile starts at.
        tile_x: Column of the level that the tile starts at.
        corners: Int64 ``[n 2]``, first row and column of each crop, px of the level.
        crops: Int64 ``[k]``, the crops that this tile feeds.
        table: Float32 ``[c 256]``, what each value becomes.
        pixels: Float32 ``[n c s s]``, written where the tile is; 0 where nothing was measured.
        coverage: Float32 ``[n s s]``, written there: 1 where it was measured, else 0.
    """
    height, width, step = data.shape
    size, channels = coverage.shape[1], table.shape[0]
    masked = valid.shape[0] > 0
    for crop in crops:
        top, left = corners[crop, 0] - tile_y, corners[crop, 1] - tile_x
        first, last = max(-left, 0), min(width - left, size)
        for y in range(max(-top, 0), min(height - top, size)):
            cover = coverage[crop, y, first:last]
            if masked:
                known = valid[top + y, left + first : left + last]
                for x in range(cover.size):
                    cover[x] = known[x]
            else:
                for x in range(cover.size):
                    cover[x] = 1.0
            for channel in range(channels):
                row, scaled = pixels[crop, channel, y, first:last], table[channel]
                line, band = data[top + y, left + first : left + last], min(channel, step - 1)
                for x in range(row.size):
                    row[x] = scaled[line[x, band]]
                if masked:  # a loop of its own: without a branch inside it is fast
                    for x in range(row.size):
                        row[x] = row[x] if cover[x] > 0 else 0.0


@kernel_or(plain.copy_scaled)
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
    """As ``copy_uint8``, for any number type: ``v`` becomes ``2 * (v - low) / (high - low) - 1``.

    Args are the same, but for ``low`` and ``high`` (float64 ``[c]``), which become -1 and +1; ``data`` is in C order.
    """
    height, width, channels = data.shape
    size = coverage.shape[1]
    masked = valid.shape[0] > 0
    for crop in crops:
        top, left = corners[crop, 0] - tile_y, corners[crop, 1] - tile_x
        first, last = max(-left, 0), min(width - left, size)
        for y in range(max(-top, 0), min(height - top, size)):
            cover = coverage[crop, y, first:last]
            for x in range(cover.size):
                cover[x] = 1.0
            if masked:
                known = valid[top + y, left + first : left + last]
                for x in range(cover.size):
                    cover[x] = known[x]
            line = data[top + y, left + first : left + last]
            for channel in range(channels):
                row, least, gain = (
                    pixels[crop, channel, y, first:last],
                    low[channel],
                    2 / (high[channel] - low[channel]),
                )
                for x in range(row.size):
                    row[x] = (float(line[x, channel]) - least) * gain - 1
                if masked:
                    for x in range(row.size):
                        row[x] = row[x] if cover[x] > 0 else 0.0
