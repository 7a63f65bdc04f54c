"""From regions to reads: which level and windows, which tiles, which tile feeds which crop, and in what order."""

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import lru_cache
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
    stored = _stored(tuple(levels))
    wanted = regions[:, 2:].min(axis=1) / (size * stored.least)
    serves = stored.downsamples <= wanted[:, None] * (1 + SLACK)
    level = np.where(serves, stored.downsamples, -np.inf).argmax(axis=1)
    windows = _windows(regions / stored.downsamples[level, None], stored.extents[level])
    return plan_windows(windows, level, levels)


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
    if len(windows) == 1:
        return _plan_one(windows, level, levels[int(level[0])])
    stored = _stored(tuple(levels))
    blocks, start = stored.blocks[level], windows[:, :2]
    first = np.floor((start + NOISE) / blocks).astype(np.int64)
    spans = np.ceil((start + windows[:, 2:] - NOISE) / blocks).astype(np.int64) - first
    count = spans[:, 0] * spans[:, 1]
    crop = np.repeat(np.arange(len(windows)), count)
    nth = np.arange(len(crop)) - np.repeat(np.cumsum(count) - count, count)
    at, columns = level[crop], spans[crop, 1]
    down, right = np.divmod(nth, columns)
    row, column = first[crop, 0] + down, first[crop, 1] + right
    key = stored.offset[at] + row * stored.columns[at] + column

    order = np.argsort(key, kind="stable")
    key = key[order]
    new = np.flatnonzero(np.diff(key, prepend=-1))  # where the next tile begins
    of = order[new]
    tiles = np.empty((len(of), 3), np.int64)
    tiles[:, 0], tiles[:, 1], tiles[:, 2] = at[of], row[of], column[of]
    return ReadPlan(
        level=level,
        windows=windows,
        tiles=tiles,
        feed_start=np.append(new, len(key)),
        feed_crop=crop[order],
    )


def _plan_one(windows: np.ndarray, level: np.ndarray, has: Level) -> ReadPlan:
    """As ``plan_windows``, of one window ``[1 4]``: what most steps of a search ask for."""
    ((y, x, height, width),) = windows.tolist()
    rows, columns = (
        range(math.floor((start + NOISE) / block), math.ceil((start + side - NOISE) / block))
        for start, side, block in ((y, height, has.tile_height), (x, width, has.tile_width))
    )
    number = int(level[0])
    tiles = np.array([(number, row, column) for row in rows for column in columns], np.int64)
    return ReadPlan(level, windows, tiles, np.arange(len(tiles) + 1), np.zeros(len(tiles), np.int64))


class _Stored(NamedTuple):
    """Levels as arrays."""

    extents: np.ndarray
    """Rows and columns, float64 ``[l 2]``."""
    downsamples: np.ndarray
    """Float64 ``[l]``."""
    blocks: np.ndarray
    """Rows and columns of a tile ``[l 2]``."""
    columns: np.ndarray
    """Columns of tiles ``[l]``."""
    offset: np.ndarray
    """Each level's first tile in storage order ``[l]``."""
    least: float
    """See ``_least``."""


@lru_cache(maxsize=128)
def _stored(levels: tuple[Level, ...]) -> _Stored:
    """The same for every call of a search."""
    downsamples = np.array([level.downsample for level in levels], np.float64)
    tiles = [level.tile_rows * level.tile_columns for level in levels]
    return _Stored(
        np.array([(level.height, level.width) for level in levels], np.float64),
        downsamples,
        np.array([(level.tile_height, level.tile_width) for level in levels], np.int64),
        np.array([level.tile_columns for level in levels], np.int64),
        np.cumsum([0, *tiles[:-1]]),
        _least(downsamples),
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
    start, sides = regions[:, :2], regions[:, 2:]
    bad = (start < 0) | (sides < 1) | (start + sides > (rows, columns))
    if bad.any():
        y, x, height, width = regions[bad.any(axis=1)][0].tolist()
        check_region((y, x, height, width), rows, columns, what)


def _windows(windows: np.ndarray, extents: np.ndarray) -> np.ndarray:
    """Put edges that are whole but for rounding on whole px, and cut to the level (float64 ``[n 4]``).

    A level may end up to a px before level 0 does (2967 px are stored as 1483), so a window at the edge
    loses that much, but always keeps a px or its own side.
    """
    least = np.minimum(windows[:, 2:], 1.0)
    edges = np.concatenate([windows[:, :2], windows[:, :2] + windows[:, 2:]], axis=1)
    whole = np.rint(edges)
    edges = np.where(np.abs(edges - whole) < NOISE, whole, edges)
    stop = np.minimum(edges[:, 2:], extents)
    start = np.minimum(edges[:, :2], extents - least)
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
