"""The two loops over pixels of a conversion: halve sums, and turn sums into means. Arrays and numbers only."""

import numpy as np

from hiresattn.pyramid.kernel import kernel


@kernel
def halve(total: np.ndarray, out: np.ndarray) -> None:
    """Sums over 2 x 2 px, fewer at the lower and right edge.

    Args:
        total: ``[c h w]``; values of px, or sums of them. What isn't measured is 0.
        out: ``[c ceil(h/2) ceil(w/2)]``, filled; of a type in which the sums are exact.
    """
    channels, height, width = total.shape
    for channel in range(channels):
        for row in range(height // 2):
            upper, lower = total[channel, 2 * row], total[channel, 2 * row + 1]
            sums = out[channel, row]
            for x in range(width // 2):
                sums[x] = upper[2 * x]
                sums[x] += upper[2 * x + 1]
                sums[x] += lower[2 * x]
                sums[x] += lower[2 * x + 1]
            if width % 2:
                sums[width // 2] = upper[width - 1]
                sums[width // 2] += lower[width - 1]
        if height % 2:
            last, sums = total[channel, height - 1], out[channel, height // 2]
            for x in range(width // 2):
                sums[x] = last[2 * x]
                sums[x] += last[2 * x + 1]
            if width % 2:
                sums[width // 2] = last[width - 1]


@kernel
def means(total: np.ndarray, weight: np.ndarray, offset: float, out: np.ndarray) -> None:
    """Area averages from sums, each rounded once.

    Args:
        total: ``[c h w]`` sums.
        weight: ``[c h w]`` or, of all bands, ``[1 h w]``: how many measured px are in each; where it is 0, the mean
            becomes 0.
        offset: 0.5 for whole numbers (the mean is rounded to the nearest, halves up), else 0.
        out: ``[c h w]``, filled.
    """
    channels, height, width = total.shape
    share = np.empty(width, np.float64)
    for y in range(height):
        for channel in range(channels):
            if channel < weight.shape[0]:
                for x in range(width):
                    share[x] = 1.0 / weight[channel, y, x] if weight[channel, y, x] > 0 else 0.0
            sums, row = total[channel, y], out[channel, y]
            if offset > 0:
                for x in range(width):
                    row[x] = np.floor(sums[x] * share[x] + offset)
            else:
                for x in range(width):
                    row[x] = sums[x] * share[x]
