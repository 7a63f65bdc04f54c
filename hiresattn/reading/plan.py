"""From regions to reads: which level and windows, which tiles, which tile feeds which crop, and in what order."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import NamedTuple

import numpy as np

from hiresattn.errors import RegionError
from hiresattn.geometry import Level, check_region, extent
from hiresattn.shapes import Float64, Int64

#: How far a level's downsample may exceed what a crop needs: 4.016 still serves a crop that wants 4.
SLACK = 0.01
#: Of a rescaled image whose levels aren't 1, 2, 4 … times the scale, so many px of a level per px of a crop, along a
#: side, are read at least: a px that averages one and a part of another shows the scene more blurred than it is.
UNEVEN = 2.0
#: A window's edge this close to a whole px lies on it; what is left over is rounding noise. Px of a level.
NOISE = 1e-6
#: Most px read at once from a backend that is read window by window.
BLOCK_PX = 1 << 20

Window = tuple[int, int, int, int]


@dataclass(frozen=True, slots=True)
class ReadPlan:
    """The reads of ``n`` crops of one image: ``t`` tiles, each listed once however many crops use it."""

    level: Int64[np.ndarray, " n"]
    """Level that each crop is read from."""
    windows: Float64[np.ndarray, "n 4"]
    """What each crop shows: ``(y, x, height, width)`` in px of its level."""
    tiles: Int64[np.ndarray, "t 3"]
    """``(level, row, column)``, ascending: the order in which files store them."""
    feed_start: Int64[np.ndarray, " t_plus_1"]
    """Tile ``i`` feeds the crops ``feed_crop[feed_start[i]:feed_start[i + 1]]``."""
    feed_crop: Int64[np.ndarray, " m"]
    """Crops by tile, ascending within a tile."""


def plan_reads(
    regions: Int64[np.ndarray, "n 4"], levels: Sequence[Level], size: int, what: str = "the image"
) -> ReadPlan:
    """Plan the reads of one image so that no tile is listed twice.

    Each crop is read from the coarsest level that does not have to be enlarged (within ``SLACK``), or from
    level 0; of a rescaled image see ``UNEVEN``. Pure; reads nothing.

    Args:
        regions: ``(y, x, height, width)`` in level-0 px (of a rescaled image: px of its scale), inside the image.
        levels: Stored resolutions, level 0 first.
        size: Px of a level across a region, at least: the side of a crop, px, times the oversampling.
        what: Name of the image, for messages.

    Returns:
        The plan.

    Raises:
        RegionError: If a region is empty or leaves the image.
    """
    _check(regions, *extent(levels), what)
    extents = np.array([(level.height, level.width) for level in levels], np.float64)
    downsamples = np.array([level.downsample for level in levels], np.float64)

    wanted = regions[:, 2:].min(axis=1) / (size * _least(downsamples))
    serves = downsamples[None] <= wanted[:, None] * (1 + SLACK)
    level = np.where(serves, downsamples, -np.inf).argmax(axis=1)

    return plan_windows(_windows(regions / downsamples[level, None], extents[level]), level, levels)


def plan_windows(
    windows: Float64[np.ndarray, "n 4"], level: Int64[np.ndarray, " n"], levels: Sequence[Level]
) -> ReadPlan:
    """Plan the reads of windows of named levels so that no tile is listed twice. Pure; reads nothing.

    Args:
        windows: ``(y, x, height, width)`` in px of each one's level, inside it.
        level: Level of each.
        levels: Stored resolutions, level 0 first.

    Returns:
        The plan.
    """
    extents = np.array([(level.height, level.width) for level in levels], np.int64)
    blocks = np.array([(level.tile_height, level.tile_width) for level in levels], np.int64)
    first = np.floor((windows[:, :2] + NOISE) / blocks[level]).astype(np.int64)
    last = np.ceil((windows[:, :2] + windows[:, 2:] - NOISE) / blocks[level]).astype(np.int64) - 1
    grid = -(-extents // blocks)  # tile rows and columns per level
    offset = np.concatenate([[0], np.cumsum(grid.prod(axis=1))])  # a level's first tile in storage order

    spans = last - first + 1
    count = spans.prod(axis=1)
    crop = np.repeat(np.arange(len(windows)), count)
    nth = np.arange(len(crop)) - np.repeat(np.cumsum(count) - count, count)
    row = first[crop, 0] + nth // spans[crop, 1]
    column = first[crop, 1] + nth % spans[crop, 1]
    key = offset[level[crop]] + row * grid[level[crop], 1] + column

    order = np.argsort(key, kind="stable")
    unique, start = np.unique(key[order], return_index=True)
    tile_level = np.searchsorted(offset, unique, side="right") - 1
    inside = unique - offset[tile_level]
    columns = grid[tile_level, 1]
    return ReadPlan(
        level=level,
        windows=windows,
        tiles=np.stack([tile_level, inside // columns, inside % columns], axis=1),
        feed_start=np.append(start, len(key)).astype(np.int64),
        feed_crop=crop[order],
    )


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


def _least(downsamples: Float64[np.ndarray, " l"]) -> float:
    """Px of a level that a px of a crop needs along a side, at least; see ``UNEVEN``."""
    steps = np.log2(downsamples)
    uneven = np.abs(steps - np.rint(steps)).max() > np.log2(1 + SLACK)
    return UNEVEN if downsamples[0] != 1 and uneven else 1.0


def _check(regions: np.ndarray, rows: int, columns: int, what: str) -> None:
    """Refuse the first region that is empty or leaves the image."""
    if regions.ndim != 2 or regions.shape[1] != 4 or regions.dtype != np.int64:
        raise RegionError(
            f"{what}: regions are int64 [n 4] (y, x, height, width); got {regions.dtype} {regions.shape}"
        )
    stop = regions[:, :2] + regions[:, 2:]
    bad = (regions[:, :2] < 0) | (regions[:, 2:] < 1) | (stop > (rows, columns))
    if bad.any():
        y, x, height, width = regions[bad.any(axis=1)][0].tolist()
        check_region((y, x, height, width), rows, columns, what)


def _windows(windows: np.ndarray, extents: np.ndarray) -> np.ndarray:
    """Put edges that are whole but for rounding on whole px, and cut to the level (float64 ``[n 4]``).

    A level may end up to a px before level 0 does (2967 px are stored as 1483), so a window at the edge
    loses that much, but always keeps a px or its own side.
    """
    start, stop = windows[:, :2], windows[:, :2] + windows[:, 2:]
    least = np.minimum(windows[:, 2:], 1.0)
    start, stop = (
        np.where(np.abs(edge - np.rint(edge)) < NOISE, np.rint(edge), edge) for edge in (start, stop)
    )
    stop = np.minimum(stop, extents)
    start = np.minimum(start, extents - least)
    return np.concatenate([start, stop - start], axis=1)


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
