"""From decoded reads to crops."""

from collections.abc import Iterable, Sequence

import numpy as np
from jaxtyping import Float32, Float64

from hiresattn.schedule.kernels import accumulate, finish
from hiresattn.schedule.reads import Read


def scatter(
    reads: Sequence[Read],
    decoded: Iterable[tuple[np.ndarray, np.ndarray]],
    windows: Sequence[Sequence[float]],
    size: int,
    low: Float64[np.ndarray, " c"],
    high: Float64[np.ndarray, " c"],
) -> tuple[Float32[np.ndarray, "n c s s"], Float32[np.ndarray, "n s s"]]:
    """Add every read to the crops it feeds; the last read of a crop finishes it and lets go of its sums.

    Args:
        reads: What was read, in the order in which it is added.
        decoded: For each, its px ``[h w c]`` and which of them are valid ``[h w]`` (``[0 0]`` = all).
        windows: ``(y, x, height, width)`` that each of the ``n`` crops shows, px of its level.
        size: Side of a crop, px.
        low: What becomes -1, per band.
        high: What becomes +1, per band.

    Returns:
        The crops' px, and the share of each that was measured.
    """
    pixels = np.empty((len(windows), len(low), size, size), np.float32)
    coverage = np.empty((len(windows), size, size), np.float32)
    last = {crop: number for number, read in enumerate(reads) for crop in read.crops}
    sums: dict[int, tuple[np.ndarray, np.ndarray]] = {}
    for number, (read, (data, valid)) in enumerate(zip(reads, decoded, strict=True)):
        tile_y, tile_x = read.window[:2]
        for crop in read.crops:
            y, x, height, width = windows[crop]
            if crop not in sums:
                sums[crop] = np.zeros((size, size, len(low))), np.zeros((size, size))
            total, weight = sums[crop]
            accumulate(data, valid, tile_y, tile_x, y, x, height, width, total, weight)
            if last[crop] == number:
                area = (height / size) * (width / size)
                finish(total, weight, area, low, high, pixels[crop], coverage[crop])
                del sums[crop]
    return pixels, coverage
