"""From a plan to reads: tile by tile, or window by window in blocks of bounded size."""

from collections.abc import Iterator, Sequence
from itertools import pairwise
from typing import NamedTuple

import numpy as np

from hiresattn.geometry import Level
from hiresattn.reading.plan import NOISE, ReadPlan

#: Most px read at once from a backend that is read window by window.
BLOCK_PX = 1 << 20

Window = tuple[int, int, int, int]


class Read(NamedTuple):
    """One tile, or one block of a window, and the crops it feeds."""

    image: int
    """Index of the image."""
    level: int
    """Level read from."""
    tile: tuple[int, int] | None
    """Row and column of the tile; None = a block of a window."""
    window: Window
    """``(y, x, height, width)``, px of the level."""
    crops: Sequence[int]
    """Crops fed, as numbered by the caller."""


def tile_reads(image: int, levels: Sequence[Level], plan: ReadPlan, crops: np.ndarray) -> Iterator[Read]:
    """One read per tile, in the plan's order.

    Args:
        image: Index of the image, passed on.
        levels: Its levels.
        plan: Its plan.
        crops: The caller's number of each crop of the plan, int64 ``[n]``.

    Yields:
        The reads.
    """
    fed = crops[plan.feed_crop].tolist()
    start = plan.feed_start.tolist()
    for nth, (number, row, column) in enumerate(plan.tiles.tolist()):
        level = levels[number]
        y, x = row * level.tile_height, column * level.tile_width
        window = (y, x, min(level.tile_height, level.height - y), min(level.tile_width, level.width - x))
        yield Read(image, number, (row, column), window, fed[start[nth] : start[nth + 1]])


def block_reads(image: int, levels: Sequence[Level], plan: ReadPlan, crops: np.ndarray) -> Iterator[Read]:
    """The whole px around each window, in the order of the tiles; equal windows are read once.

    Args and yields as ``tile_reads``; a read has at most ``BLOCK_PX`` px.
    """
    _, first = np.unique(plan.feed_crop, return_index=True)
    start = np.floor(plan.windows[:, :2] + NOISE).astype(np.int64)
    stop = np.ceil(plan.windows[:, :2] + plan.windows[:, 2:] - NOISE).astype(np.int64)
    groups: dict[tuple[int, Window], list[int]] = {}
    for crop in np.argsort(first, kind="stable").tolist():
        (y, x), (y_stop, x_stop) = start[crop].tolist(), stop[crop].tolist()
        group = groups.setdefault((int(plan.level[crop]), (y, x, y_stop - y, x_stop - x)), [])
        group.append(int(crops[crop]))
    for (level, window), fed in groups.items():
        for block in _blocks(window, levels[level]):
            yield Read(image, level, None, block, fed)


def _blocks(window: Window, level: Level) -> Iterator[Window]:
    """Cut a window into blocks of at most ``BLOCK_PX``, along tiles unless a tile is larger than that."""
    y, x, height, width = window
    rows, columns = level.tile_height, level.tile_width
    if rows * columns > BLOCK_PX:
        columns = min(columns, width, BLOCK_PX)
        rows = min(rows, BLOCK_PX // columns)
    columns *= max(BLOCK_PX // (rows * columns), 1)
    rows *= max(BLOCK_PX // (rows * min(columns, width)), 1)
    for top, bottom in pairwise(_edges(y, y + height, rows)):
        for left, right in pairwise(_edges(x, x + width, columns)):
            yield top, left, bottom - top, right - left


def _edges(start: int, stop: int, step: int) -> list[int]:
    """The ends of a span and the multiples of ``step`` between them."""
    return [start, *range((start // step + 1) * step, stop, step), stop]
