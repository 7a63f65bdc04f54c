"""The one resampling filter: area averages of measured px.

A px of the result is the mean of what it covers, each source px counting with the area covered, whatever the ratio;
px that were not measured don't count.
"""

import math
from collections.abc import Iterator

import numpy as np

from hiresattn.pyramid.kernel import kernel_or

#: Overlaps up to this many source px are rounding noise.
NOISE = 1e-6
#: Stands for "all of it is valid" in ``accumulate``.
ALL_VALID = np.ones((0, 0), np.bool_)


def area_means(
    data: np.ndarray, valid: np.ndarray | None, rows: np.ndarray, columns: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """Area averages of an array over a grid of rectangles.

    Args:
        data: Px ``[h w c]``, any number type.
        valid: Bool ``[h w]``, True = measured; None = all.
        rows: Edges of the rectangles ``[m + 1]``, px of ``data``, ascending.
        columns: Edges of the rectangles ``[n + 1]``.

    Returns:
        Means float64 ``[m n c]``, 0 where nothing was measured, and the measured areas float64 ``[m n]``, px of
        ``data``.
    """
    data = np.require(data, computable(data.dtype), ["C"])
    total = np.zeros((len(rows) - 1, len(columns) - 1, data.shape[2]))
    weight = np.zeros(total.shape[:2])
    mask = ALL_VALID if valid is None else np.require(valid, np.bool_, ["C"])
    accumulate(data, mask, 0, 0, rows.astype(np.float64), columns.astype(np.float64), total, weight)
    return np.divide(total, weight[..., None], out=np.zeros_like(total), where=weight[..., None] > 0), weight


def area_means_by_band(
    data: np.ndarray, valid: np.ndarray | None, rows: np.ndarray, columns: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """As ``area_means``, of each band over what was measured of it: the mask may be ``[h w c]``.

    Returns:
        Means and measured areas, both float64 ``[m n c]``.
    """
    if valid is None or valid.ndim == 2:
        mean, weight = area_means(data, valid, rows, columns)
        return mean, np.repeat(weight[:, :, None], data.shape[2], axis=2)
    parts = [
        area_means(data[:, :, band : band + 1], valid[:, :, band], rows, columns)
        for band in range(data.shape[2])
    ]
    return np.concatenate([mean for mean, _ in parts], axis=2), np.stack(
        [weight for _, weight in parts], axis=2
    )


def computable(dtype: np.dtype) -> np.dtype:
    """The type itself in this machine's byte order; float32 for float16, which ``accumulate`` doesn't know."""
    return np.dtype(np.float32) if dtype == np.float16 else dtype.newbyteorder("=")


def _accumulate_numpy(
    data: np.ndarray,
    valid: np.ndarray,
    tile_y: int,
    tile_x: int,
    rows: np.ndarray,
    columns: np.ndarray,
    total: np.ndarray,
    weight: np.ndarray,
) -> None:
    """As ``accumulate``: the same sums in the same order."""
    height, width, channels = data.shape
    left, right = (
        max(math.floor(columns[0] - tile_x), 0),
        min(math.ceil(columns[-1] - tile_x), width),
    )
    if right <= left:
        return
    part = data[:, left:right]
    known = valid[:, left:right] if valid.size else None
    summed = np.zeros((len(rows) - 1, right - left, channels))
    covered = np.zeros(summed.shape[:2])
    for at, share in _pieces(rows - tile_y, height):
        here = at >= 0
        lines, shares = part[at[here]], share[here, None]
        if known is not None:
            lines = np.where(known[at[here]][:, :, None], lines, 0)
            shares = shares * known[at[here]]
        summed[here] += share[here, None, None] * lines.astype(np.float64)
        covered[here] += shares
    for at, share in _pieces(columns - tile_x, width):
        here = at >= 0
        weight[:, here] += share[here] * covered[:, at[here] - left]
        total[:, here] += share[here, None] * summed[:, at[here] - left]


def _pieces(edges: np.ndarray, size: int) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """Where intervals of a grid and px of a tile meet: of each interval its first px, then its second, and so on.

    Yields the px, int ``[m]`` (-1 = no more), and the lengths, float64 ``[m]``.
    """
    first, last = np.maximum(edges[:-1], 0.0), np.minimum(edges[1:], float(size))
    start = first.astype(np.int64)
    start += (
        np.minimum(last, start + 1.0) - np.maximum(first, start) <= NOISE
    )  # rounding noise: the next is the first
    for at in start + np.arange(int(np.ceil(last - start).max(initial=0)))[:, None]:
        share = np.minimum(last, at + 1.0) - np.maximum(first, at)
        yield np.where((share > NOISE) & (at < size), at, -1), share


@kernel_or(_accumulate_numpy)
def accumulate(  # noqa: PLR0912 - one loop nest: numbers in, and all of the specification
    data: np.ndarray,
    valid: np.ndarray,
    tile_y: int,
    tile_x: int,
    rows: np.ndarray,
    columns: np.ndarray,
    total: np.ndarray,
    weight: np.ndarray,
) -> None:
    """Add what a tile contributes to averages over a grid of rectangles.

    Rectangle ``(i, j)`` is what lies between rows ``rows[i], rows[i + 1]`` and columns ``columns[j], columns[j + 1]``.
    All positions are px of the tile's level. Sums are float64: exact for up to 2**29 px of 24-bit values, so
    whole ratios give exact means and the order of tiles matters only below float32's precision.

    Args:
        data: The tile, ``[h w c]``, any number type, C order.
        valid: Bool ``[h w]``, True = measured; ``[0 0]`` = all of it. Other values are never looked at.
        tile_y: Row of the level that the tile starts at.
        tile_x: Column of the level that the tile starts at.
        rows: Float64 ``[m + 1]``, ascending.
        columns: Float64 ``[n + 1]``, ascending.
        total: Float64 ``[m n c]``; sums of value times area are added to it.
        weight: Float64 ``[m n]``; areas of measured px are added to it.
    """
    height, width, channels = data.shape
    masked = valid.shape[0] > 0
    left = max(math.floor(columns[0] - tile_x), 0)
    right = min(math.ceil(columns[-1] - tile_x), width)
    lines = data.reshape(height, width * channels)[:, left * channels : right * channels]
    summed = np.empty(max(right - left, 0) * channels, np.float64)  # one row of rectangles, at full width
    covered = np.empty(max(right - left, 0), np.float64)

    most = covered.size + columns.size
    pieces = 0  # where columns of the tile and of the grid meet: the same for every row
    piece_x, piece_j, piece_share = (
        np.empty(most, np.int64),
        np.empty(most, np.int64),
        np.empty(most, np.float64),
    )
    for j in range(columns.size - 1):
        start = max(columns[j] - tile_x, 0.0)
        stop = min(columns[j + 1] - tile_x, float(width))
        for x in range(int(start), min(math.ceil(stop), width)):
            share = min(stop, x + 1.0) - max(start, float(x))
            if share > NOISE:
                piece_x[pieces], piece_j[pieces], piece_share[pieces] = x - left, j, share
                pieces += 1

    for i in range(rows.size - 1):
        top = max(rows[i] - tile_y, 0.0)
        bottom = min(rows[i + 1] - tile_y, float(height))
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
