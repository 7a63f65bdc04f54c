"""How many finest regions an image has, and which parts of it none has shown yet. NumPy only."""

from bisect import bisect_right
from collections.abc import Iterator
from itertools import product

import numpy as np

from hiresattn.inference.visited import Region

#: First row, first column, and the row and column after the last, level-0 px.
_Box = tuple[int, int, int, int]


def finest_count(height: int, width: int, finest: int, overlap: float = 0.0) -> int:
    """How many finest regions cover a rectangle, spread evenly, without listing them."""
    side = min(height, width, finest)
    step = max(round(side * (1 - overlap)), 1)
    return (-(-(height - side) // step) + 1) * (-(-(width - side) // step) + 1)


class Unseen:
    """The parts of one or several frames that no region shows yet, exact to the px.

    They are kept by squares of ``side`` px, and only of squares that a region touched: the time to add a region, or
    to look one of that size up, doesn't depend on how many there are.

    Args:
        frames: What is to be seen ``[m 4]``, level-0 px, side by side; columns grow from one to the next.
        side: Of a square, px; best the side of most regions.
    """

    def __init__(self, frames: np.ndarray, side: int) -> None:
        self._frames: list[_Box] = [_box(tuple(frame)) for frame in frames.tolist()]
        self._starts = [left for _, left, _, _ in self._frames]
        self._side = side
        self._parts: dict[tuple[int, int, int], list[_Box]] = {}
        self.px = sum(map(_area, self._frames))
        """How many px no region shows yet."""

    def add(self, region: Region) -> None:
        """Note that a region was seen."""
        box = _box(region)
        for square, parts in self._parts_near(box):
            left = [piece for part in parts for piece in _without(part, box)]
            self._parts[square] = left
            self.px -= sum(map(_area, parts)) - sum(map(_area, left))

    def px_in(self, region: Region) -> int:
        """How many px of a region no region shows yet."""
        if not self.px:
            return 0
        box = _box(region)
        return sum(_area(_common(part, box)) for _, parts in self._parts_near(box) for part in parts)

    def _parts_near(self, box: _Box) -> Iterator[tuple[tuple[int, int, int], list[_Box]]]:
        """The squares of a frame that a box touches, and what is unseen of each."""
        number = max(bisect_right(self._starts, box[1]) - 1, 0)
        frame = self._frames[number]
        y, x, _, _ = frame
        top, left, bottom, right = _common(box, frame)
        rows = range((top - y) // self._side, -(-(bottom - y) // self._side))
        columns = range((left - x) // self._side, -(-(right - x) // self._side))
        for row, column in product(rows, columns):
            parts = self._parts.get((number, row, column))
            if parts is None:
                square = (y + row * self._side, x + column * self._side, self._side, self._side)
                parts = [_common(_box(square), frame)]
            yield (number, row, column), parts


def _box(region: Region) -> _Box:
    y, x, height, width = region
    return y, x, y + height, x + width


def _area(box: _Box) -> int:
    return max(box[2] - box[0], 0) * max(box[3] - box[1], 0)


def _common(one: _Box, other: _Box) -> _Box:
    """What two boxes have in common; of no area where that is nothing."""
    return max(one[0], other[0]), max(one[1], other[1]), min(one[2], other[2]), min(one[3], other[3])


def _without(box: _Box, cut: _Box) -> list[_Box]:
    """What is left of a box without another, in at most four pieces."""
    top, left, bottom, right = common = _common(box, cut)
    if _area(common) == 0:
        return [box]
    pieces = [
        (box[0], box[1], top, box[3]),
        (bottom, box[1], box[2], box[3]),
        (top, box[1], bottom, left),
        (top, right, bottom, box[3]),
    ]
    return [piece for piece in pieces if _area(piece) > 0]
