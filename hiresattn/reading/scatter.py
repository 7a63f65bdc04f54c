"""From decoded reads to crops."""

from collections.abc import Iterable, Mapping, Sequence
from typing import NamedTuple, Self

import numpy as np

from hiresattn.config import InputConfig
from hiresattn.pyramid.area import accumulate
from hiresattn.reading.kernels import copy_scaled, copy_uint8, finish
from hiresattn.reading.plan import Read
from hiresattn.shapes import Float32, Float64, UInt8


class Scale(NamedTuple):
    """How the values of an image's bands become those of a crop, linearly."""

    low: Float64[np.ndarray, " c"]
    """What becomes -1."""
    high: Float64[np.ndarray, " c"]
    """What becomes +1."""
    table: Float32[np.ndarray, "c 256"]
    """What each value of uint8 becomes; of a palette image, each index."""
    palette: UInt8[np.ndarray, "256 c"] | None = None
    """The colour of each index, where reads are ``[h w 1]`` indices of uint8."""

    @classmethod
    def of(cls, config: InputConfig, palette: UInt8[np.ndarray, "e c"] | None = None) -> Self:
        """The scale that a model's input rule says, of an image with a palette if it is one."""
        low, high = np.array(config.low, np.float64), np.array(config.high, np.float64)
        values = np.broadcast_to(np.arange(256), (len(low), 256))
        if palette is not None:
            palette = np.take(palette, np.arange(256), 0, mode="clip")
            values = palette.T
        table = (values - low[:, None]) * (2 / (high - low))[:, None] - 1
        return cls(low, high, table.astype(np.float32), palette)


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
        decoded: For each, its px ``[h w c]``, in C order or a view of planes ``[c h w]``, or indices ``[h w 1]``, and
            which of them are valid ``[h w]`` (``[0 0]`` = all).
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
        low, high, table, palette = scales[read.image]
        own = [crop for crop in read.crops if is_native[crop]]
        if own:
            fed = np.array(own, np.int64)
            if data.dtype == np.uint8:
                copy_uint8(data, valid, tile_y, tile_x, corners, fed, table, pixels, coverage)
            else:
                copy_scaled(data, valid, tile_y, tile_x, corners, fed, low, high, pixels, coverage)
        if len(own) < len(read.crops):  # the same px, as ``accumulate`` takes them
            data = np.ascontiguousarray(data) if palette is None else np.take(palette, data[:, :, 0], 0)  # noqa: PLW2901
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
