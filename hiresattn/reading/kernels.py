"""The loops over pixels. Arrays and numbers only, no randomness; ``.py_func`` is the specification.

One resampling filter: the area average. A crop's px shows the mean of what it covers, each source px
counting with the area covered, whatever the ratio; px that were not measured don't count.
"""

import math

import numpy as np

from hiresattn.reading.compiled import compiled

#: Overlaps up to this many source px are rounding noise.
NOISE = 1e-6


@compiled
def accumulate(  # noqa: PLR0912 - one loop nest: numbers in, and all of the specification
    data: np.ndarray,
    valid: np.ndarray,
    tile_y: int,
    tile_x: int,
    window_y: float,
    window_x: float,
    window_h: float,
    window_w: float,
    total: np.ndarray,
    weight: np.ndarray,
) -> None:
    """Add what a tile contributes to a crop.

    Px ``(i, j)`` of the crop covers rows ``window_y + [i, i + 1) * window_h / s`` and columns likewise. All
    positions are px of the tile's level. Sums are float64: exact for up to 2**29 px of 24-bit values, so
    whole ratios give exact means and the order of tiles matters only below float32's precision.

    Args:
        data: The tile, ``[h w c]``, any number type, C order.
        valid: Bool ``[h w]``, True = measured; ``[0 0]`` = all of it. Other values are never looked at.
        tile_y: Row of the level that the tile starts at.
        tile_x: Column of the level that the tile starts at.
        window_y: First row shown by the crop.
        window_x: First column shown by the crop.
        window_h: Rows shown.
        window_w: Columns shown.
        total: Float64 ``[s s c]``; sums of value times area are added to it.
        weight: Float64 ``[s s]``; areas of measured px are added to it.
    """
    height, width, channels = data.shape
    size = weight.shape[0]
    masked = valid.shape[0] > 0
    step_y = window_h / size
    step_x = window_w / size
    left = max(math.floor(window_x - tile_x), 0)
    right = min(math.ceil(window_x - tile_x + window_w), width)
    lines = data.reshape(height, width * channels)[:, left * channels : right * channels]
    summed = np.empty(max(right - left, 0) * channels, np.float64)  # one row of the crop, at full width
    covered = np.empty(max(right - left, 0), np.float64)

    most = covered.size + size + 1
    pieces = 0  # where columns of the tile and of the crop meet: the same for every row
    piece_x, piece_j, piece_share = (
        np.empty(most, np.int64),
        np.empty(most, np.int64),
        np.empty(most, np.float64),
    )
    for j in range(size):
        start = max(window_x + j * step_x - tile_x, 0.0)
        stop = min(window_x + (j + 1) * step_x - tile_x, float(width))
        for x in range(int(start), min(math.ceil(stop), width)):
            share = min(stop, x + 1.0) - max(start, float(x))
            if share > NOISE:
                piece_x[pieces], piece_j[pieces], piece_share[pieces] = x - left, j, share
                pieces += 1

    for i in range(size):
        top = max(window_y + i * step_y - tile_y, 0.0)
        bottom = min(window_y + (i + 1) * step_y - tile_y, float(height))
        if bottom - top <= NOISE:
            continue
        summed[:] = 0.0
        covered[:] = 0.0
        for y in range(int(top), min(math.ceil(bottom), height)):
            share = min(bottom, y + 1.0) - max(top, float(y))
            if share <= NOISE:
                continue
            line = lines[y]
            x = 0
            while x < covered.size:  # runs of measured px: loops without a branch inside are fast
                end = covered.size
                if masked:
                    end = x
                    while end < covered.size and valid[y, left + end]:
                        end += 1
                covered[x:end] += share
                run, values = summed[x * channels : end * channels], line[x * channels : end * channels]
                for k in range(run.size):
                    run[k] += share * values[k]
                x = end + 1

        for piece in range(pieces):
            x, j, share = piece_x[piece], piece_j[piece], piece_share[piece]
            weight[i, j] += share * covered[x]
            for channel in range(channels):
                total[i, j, channel] += share * summed[x * channels + channel]


@compiled
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
        total: Float64 ``[s s c]``, from ``accumulate``.
        weight: Float64 ``[s s]``, from ``accumulate``.
        area: Area of a px of the crop, in px of the level it was read from.
        low: Float64 ``[c]``, what becomes -1.
        high: Float64 ``[c]``, what becomes +1.
        pixels: Float32 ``[c s s]``, filled.
        coverage: Float32 ``[s s]``, filled: the share of each px that was measured, 0 to 1.
    """
    size, _, channels = total.shape
    for i in range(size):
        for j in range(size):
            measured = weight[i, j]
            coverage[i, j] = min(measured / area, 1.0)
            for channel in range(channels):
                if measured > 0:
                    mean = total[i, j, channel] / measured
                    scaled = 2 * (mean - low[channel]) / (high[channel] - low[channel]) - 1
                    pixels[channel, i, j] = scaled
                else:
                    pixels[channel, i, j] = 0


@compiled
def place_coded(
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

    Gives what ``accumulate`` and ``finish`` give where a crop's px are the level's: every px of a crop is
    written once, by the tile that holds it.

    Args:
        data: The tile, uint8 ``[h w c]``, C order.
        valid: Bool ``[h w]``, True = measured; ``[0 0]`` = all of it.
        tile_y: Row of the level that the tile starts at.
        tile_x: Column of the level that the tile starts at.
        corners: Int64 ``[n 2]``, first row and column of each crop, px of the level.
        crops: Int64 ``[k]``, the crops that this tile feeds.
        table: Float32 ``[c 256]``, what each value becomes.
        pixels: Float32 ``[n c s s]``, written where the tile is.
        coverage: Float32 ``[n s s]``, written there: 1, or 0 where nothing was measured.
    """
    height, width, channels = data.shape
    size = coverage.shape[1]
    masked = valid.shape[0] > 0
    lines = data.reshape(height, width * channels)
    for crop in crops:
        top, left = corners[crop, 0] - tile_y, corners[crop, 1] - tile_x
        first, last = max(-left, 0), min(width - left, size)
        for y in range(max(-top, 0), min(height - top, size)):
            line = lines[top + y, (left + first) * channels : (left + last) * channels]
            for channel in range(channels):
                row, scaled = pixels[crop, channel, y, first:last], table[channel]
                for x in range(row.size):
                    row[x] = scaled[line[x * channels + channel]]
            cover = coverage[crop, y, first:last]
            for x in range(cover.size):
                cover[x] = 1.0
            if masked:
                for x in range(first, last):
                    if not valid[top + y, left + x]:
                        coverage[crop, y, x] = 0.0
                        for channel in range(channels):
                            pixels[crop, channel, y, x] = 0.0


@compiled
def place(
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
    """As ``place_coded``, for any number type: a value ``v`` becomes ``2 * (v - low) / (high - low) - 1``.

    Args are its own, but for ``low`` and ``high`` (float64 ``[c]``), which become -1 and +1.
    """
    height, width, channels = data.shape
    size = coverage.shape[1]
    masked = valid.shape[0] > 0
    for crop in crops:
        top, left = corners[crop, 0] - tile_y, corners[crop, 1] - tile_x
        first, last = max(-left, 0), min(width - left, size)
        for y in range(max(-top, 0), min(height - top, size)):
            for x in range(first, last):
                measured = not masked or valid[top + y, left + x]
                coverage[crop, y, x] = measured
                for channel in range(channels):
                    value = float(data[top + y, left + x, channel]) if measured else 0.0
                    scaled = 2 * (value - low[channel]) / (high[channel] - low[channel]) - 1
                    pixels[crop, channel, y, x] = scaled if measured else 0.0
