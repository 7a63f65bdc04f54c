"""Levels of an image in one pass over its pixels, in memory that doesn't grow with the image.

The image is read once, in squares. Each square gives its part of every level, from exact sums: a px of level
``k`` is the mean of the measured px among its 2**k x 2**k, rounded once. Parts are put together to squares of
their level, and handed on when they are whole.
"""

from collections import deque
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any

import numpy as np

from hiresattn.conversion.image import Image
from hiresattn.conversion.kernels import halve, means


@dataclass(frozen=True, slots=True)
class Block:
    """A finished square of a level, cut at the level's edges."""

    level: int
    """Level; 0 is the finest."""
    y: int
    """First row, px of the level."""
    x: int
    """First column, px of the level."""
    data: np.ndarray
    """``[c h w]`` in the image's dtype; what isn't measured holds ``Image.empty``."""
    valid: np.ndarray | None
    """``[h w]`` bool, True = measured, where the data themselves don't say so; None = they do."""


def level_sizes(height: int, width: int, count: int) -> list[tuple[int, int]]:
    """Rows and columns of levels that halve, rounded up."""
    return [(-(-height >> k), -(-width >> k)) for k in range(count)]


def make_levels(image: Image, count: int, side: int, threads: int = 1) -> Iterator[Block]:
    """Read an image once and make its levels.

    Args:
        image: What to read.
        count: Levels, the first included.
        side: Of a block, px; a power of two.
        threads: Blocks read ahead, each in a thread of its own.

    Yields:
        Every block of every level once, in the order in which they are finished. At any time about one
        unfinished block per level is in memory (where the file is stored in rows as wide as the image: one row
        of blocks per level).

    Raises:
        ReadError: If a tile of the source can't be decoded.
    """
    sizes = level_sizes(image.height, image.width, count)
    inside = min(count - 1, side.bit_length() - 1)
    parts = _Parts(image, sizes, side)
    rest = _Rest(image, sizes, side) if count - 1 > inside else None
    for (y, x), (data, valid) in _read_ahead(image, _order(image, side), side, threads):
        yield Block(0, y, x, *image.marked(data, valid))
        total, weight = _sums(data, valid)
        for level in range(1, inside + 1):
            total, weight = _halved(total, image.sum_dtype), _halved(weight, np.dtype(np.uint32))
            under = data[:, :: 1 << level, :: 1 << level]
            done = parts.put(level, y >> level, x >> level, *_pixels(image, total, weight, under))
            if done is not None:
                yield done
        if rest is not None:
            rest.put(y // side, x // side, total, weight, data[:, :1, :1])
    if rest is not None:
        yield from rest.levels(inside + 1)


class _Parts:
    """Blocks that wait for some of their parts."""

    def __init__(self, image: Image, sizes: list[tuple[int, int]], side: int) -> None:
        self._image = image
        self._sizes = sizes
        self._side = side
        self._open: dict[tuple[int, int, int], tuple[np.ndarray, np.ndarray, list[int]]] = {}

    def put(self, level: int, y: int, x: int, data: np.ndarray, valid: np.ndarray | None) -> Block | None:
        """Add a part; the block, if that was its last."""
        side = self._side
        row, column = y // side, x // side
        top, left = row * side, column * side
        height, width = (
            min(side, size - at) for size, at in zip(self._sizes[level], (top, left), strict=True)
        )
        if (level, row, column) not in self._open:
            self._open[level, row, column] = (
                np.empty((len(data), height, width), data.dtype),
                np.ones((len(data) if self._image.by_band else 1, height, width), bool),
                [height * width],
            )
        whole, measured, left_over = self._open[level, row, column]
        rows, columns = slice(y - top, y - top + data.shape[1]), slice(x - left, x - left + data.shape[2])
        whole[:, rows, columns] = data
        if valid is not None:
            measured[:, rows, columns] = valid
        left_over[0] -= data.shape[1] * data.shape[2]
        if left_over[0]:
            return None
        del self._open[level, row, column]
        return Block(level, top, left, *self._image.marked(whole, None if measured.all() else measured))


class _Rest:
    """Levels on which a square of level 0 is less than one px: made at the end, from one px of sums each."""

    def __init__(self, image: Image, sizes: list[tuple[int, int]], side: int) -> None:
        self._image = image
        self._sizes = sizes
        self._side = side
        rows, columns = -(-image.height // side), -(-image.width // side)
        self._total = np.zeros((image.channels, rows, columns), np.float64)
        self._under = np.zeros((image.channels, rows, columns), image.dtype)
        self._weight = np.zeros((image.channels if image.by_band else 1, rows, columns), np.float64)

    def put(self, row: int, column: int, total: np.ndarray, weight: np.ndarray, under: np.ndarray) -> None:
        """Keep the sums of one square, and its first px, ``[c 1 1]``."""
        self._under[:, row, column] = under[:, 0, 0]
        self._total[:, row, column] = total[:, 0, 0]
        self._weight[:, row, column] = weight[:, 0, 0]  # one of all bands, perhaps

    def levels(self, first: int) -> Iterator[Block]:
        """The blocks of all levels from ``first`` on."""
        total, weight, under = self._total, self._weight, self._under
        for level in range(first, len(self._sizes)):
            total, weight = _halved(total, total.dtype), _halved(weight, weight.dtype)
            under = under[:, ::2, ::2]
            data, valid = self._image.marked(*_pixels(self._image, total, weight, under))
            for y in range(0, data.shape[1], self._side):
                for x in range(0, data.shape[2], self._side):
                    part = slice(y, y + self._side), slice(x, x + self._side)
                    measured = None if valid is None else valid[part]
                    yield Block(level, y, x, np.ascontiguousarray(data[:, *part]), measured)


def _sums(data: np.ndarray, valid: np.ndarray | None) -> tuple[np.ndarray, np.ndarray]:
    """What the first halving takes: values with 0 where nothing is measured, and 1 where something is."""
    if data.dtype == np.float16:  # not known to the kernels
        data = data.astype(np.float32)
    if valid is None:
        return data, np.ones((1, *data.shape[1:]), np.uint8)
    return np.where(valid, data, data.dtype.type(0)), valid.astype(np.uint8)


def _halved(total: np.ndarray, dtype: np.dtype[Any]) -> np.ndarray:
    channels, height, width = total.shape
    out = np.empty((channels, -(-height // 2), -(-width // 2)), dtype)
    halve(total, out)
    return out


def _pixels(
    image: Image, total: np.ndarray, weight: np.ndarray, under: np.ndarray
) -> tuple[np.ndarray, np.ndarray | None]:
    """Means ``[c h w]`` of sums, and where there are any, as ``Image.read`` returns it.

    Where there are none and only a mask will say so, the px hold what level 0 has there (``under``): a viewer that
    knows no masks shows a slide's background.
    """
    out = np.empty(total.shape, np.float32 if image.dtype == np.float16 else image.dtype)
    means(total, weight, 0.0 if image.dtype.kind == "f" else 0.5, out)
    out = out.astype(image.dtype, copy=False)
    measured = weight > 0
    valid = None if measured.all() else measured
    if valid is not None and not image.by_band:
        np.copyto(out, under, where=~valid)
    return image.kept_apart(out, valid), valid


def _order(image: Image, side: int) -> list[tuple[int, int]]:
    """First row and column of each square, so that blocks of all levels are whole as early as may be."""
    rows, columns = -(-image.height // side), -(-image.width // side)
    corners = [(row, column) for row in range(rows) for column in range(columns)]
    if not image.in_strips:
        corners.sort(key=_along_the_curve)
    return [(row * side, column * side) for row, column in corners]


def _along_the_curve(corner: tuple[int, int]) -> int:
    """Position on the Z-order curve: the bits of row and column in turn."""
    row, column = corner
    return sum(((row >> bit & 1) * 2 + (column >> bit & 1)) << 2 * bit for bit in range(32))


def _read_ahead(
    image: Image, corners: list[tuple[int, int]], side: int, threads: int
) -> Iterator[tuple[tuple[int, int], tuple[np.ndarray, np.ndarray | None]]]:
    """The squares in order, ``threads`` of them read while the caller works."""
    waiting: deque[tuple[tuple[int, int], Future[tuple[np.ndarray, np.ndarray | None]]]] = deque()
    with ThreadPoolExecutor(threads) as pool:
        try:
            for y, x in corners:
                size = min(side, image.height - y), min(side, image.width - x)
                waiting.append(((y, x), pool.submit(image.read, y, x, *size)))
                if len(waiting) > threads:
                    corner, read = waiting.popleft()
                    yield corner, read.result()
            while waiting:
                corner, read = waiting.popleft()
                yield corner, read.result()
        finally:
            for _, read in waiting:
                read.cancel()
