"""From decoded reads to crops."""

from collections.abc import Iterable, Mapping, Sequence
from typing import NamedTuple, Self

import numpy as np

from hiresattn.config import InputConfig
from hiresattn.pyramid.area import accumulate
from hiresattn.reading.kernels import copy_planes, copy_scaled, copy_uint8, finish
from hiresattn.reading.plan import Read
from hiresattn.shapes import Float32, Float64


class Scale(NamedTuple):
    """How the values of an image's bands become those of a crop, linearly."""

    low: Float64[np.ndarray, " c"]
    """What becomes -1."""
    high: Float64[np.ndarray, " c"]
    """What becomes +1."""
    table: Float32[np.ndarray, "c 256"]
    """What each value of uint8 becomes."""

    @classmethod
    def of(cls, config: InputConfig) -> Self:
        """The scale that a model's input rule says."""
        low, high = np.array(config.low, np.float64), np.array(config.high, np.float64)
        table = 2 * (np.arange(256.0) - low[:, None]) / (high - low)[:, None] - 1
        return cls(low, high, table.astype(np.float32))


def scatter(
    reads: Sequence[Read],
    decoded: Iterable[tuple[np.ndarray, np.ndarray]],
    windows: Float64[np.ndarray, "n 4"],
    scales: Mapping[int, Scale],
    pixels: Float32[np.ndarray, "n c s s"],
    coverage: Float32[np.ndarray, "n s s"],
) -> None:
    """Add every read to the crops it feeds; the last read of a crop finishes it and lets go of its sums.

    A crop whose px are the level's own has no sums: they are scaled on the way from the tile to the crop.

    Args:
        reads: What was read, in the order in which it is added.
        decoded: For each, its px ``[h w c]``, in C order or a view of planes ``[c h w]``, and which of them are valid
            ``[h w]`` (``[0 0]`` = all).
        windows: ``(y, x, height, width)`` that each of the ``n`` crops shows, px of its level.
        scales: How the values of each image are scaled, by its index.
        pixels: Filled: the crops' px.
        coverage: Filled: the share of each px that was measured.
    """
    size = coverage.shape[1]
    native = (windows[:, 2:] == size).all(axis=1) & (windows == np.floor(windows)).all(axis=1)
    corners = windows[:, :2].astype(np.int64)
    shown, is_native = windows.tolist(), native.tolist()
    last = {crop: number for number, read in enumerate(reads) for crop in read.crops if not is_native[crop]}
    sums: dict[int, tuple[np.ndarray, ...]] = {}
    for number, (read, (data, valid)) in enumerate(zip(reads, decoded, strict=True)):
        tile_y, tile_x = read.window[:2]
        low, high, table = scales[read.image]
        own = [crop for crop in read.crops if is_native[crop]]
        if own:
            fed = np.array(own, np.int64)
            if data.dtype == np.uint8 and not data.flags.c_contiguous:
                planes = data.transpose(2, 0, 1)
                copy_planes(planes, valid, tile_y, tile_x, corners, fed, table, pixels, coverage)
            elif data.dtype == np.uint8:
                copy_uint8(data, valid, tile_y, tile_x, corners, fed, table, pixels, coverage)
            else:
                copy_scaled(data, valid, tile_y, tile_x, corners, fed, low, high, pixels, coverage)
        if len(own) < len(read.crops):
            data = np.ascontiguousarray(data)  # noqa: PLW2901 - the same px
        for crop in read.crops:
            if is_native[crop]:
                continue
            y, x, height, width = shown[crop]
            if crop not in sums:
                edges = np.arange(size + 1.0)
                rows, columns = y + edges * (height / size), x + edges * (width / size)
                sums[crop] = rows, columns, np.zeros((size, size, len(low))), np.zeros((size, size))
            rows, columns, total, weight = sums[crop]
            accumulate(data, valid, tile_y, tile_x, rows, columns, total, weight)
            if last[crop] == number:
                area = (height / size) * (width / size)
                finish(total, weight, area, low, high, pixels[crop], coverage[crop])
                del sums[crop]
