"""Rectangles and frames: levels, regions, the grid of cells, positions. NumPy only.

A *region* is ``(y, x, height, width)`` in level-0 px, int64, y before x. A *window* is the same in px of a
named level. A *path* is the sequence of cells that leads from a root region to a region, as TNet's (row, column,
depth). Regions of this module always lie inside the image they are made for.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import pairwise

import numpy as np

from hiresattn.errors import ConfigError, RegionError
from hiresattn.shapes import Float, Int64

#: A region whose side is below this many times the finest side is as good as finest: not divided.
EXPAND_FROM = 1.5

#: A cell may be this much smaller than ``fraction`` asks, rather than a whole rung larger.
_LADDER_SLACK = 0.8
#: Most cells along a side of a grid, and root regions of an image: what memory holds.
_MOST_SIZE, _MOST_ROOT_REGIONS = 256, 10_000_000

Regions = Int64[np.ndarray, "n 4"]


@dataclass(frozen=True, slots=True)
class Level:
    """One stored resolution of an image."""

    width: int
    """Columns, px of this level."""
    height: int
    """Rows, px of this level."""
    downsample: float
    """Level-0 px per px of this level, at least 1. Of a rescaled image: px of its scale, any number above 0."""
    tile_width: int
    """Columns of a storage block, px of this level."""
    tile_height: int
    """Rows of a storage block, px of this level."""

    @property
    def tile_rows(self) -> int:
        """Number of tile rows."""
        return -(-self.height // self.tile_height)

    @property
    def tile_columns(self) -> int:
        """Number of tile columns."""
        return -(-self.width // self.tile_width)


def extent(levels: Sequence[Level]) -> tuple[int, int]:
    """Rows and columns of an image in the px that its regions are counted in: those of level 0, or of its scale."""
    first = levels[0]
    return max(round(first.height * first.downsample), 1), max(round(first.width * first.downsample), 1)


def snapped_downsample(width: int, height: int, level_width: int, level_height: int) -> float:
    """The downsample of a level from its size: the whole factor that explains the rounding, else the ratio.

    A 2967 px side halved is stored as 1483 or 1484 px; the factor meant is 2, not 2.0007. The longer side
    decides: rounding changes its ratio least.

    Args:
        width: Columns of level 0.
        height: Rows of level 0.
        level_width: Columns of the level.
        level_height: Rows of the level.

    Returns:
        Level-0 px per px of the level.
    """
    ratio = width / level_width if width >= height else height / level_height
    whole = round(ratio)
    if whole >= 1 and _explains(whole, ((width, level_width), (height, level_height))):
        return float(whole)
    return max(ratio, 1.0)


def level_downsamples(sizes: Sequence[tuple[int, int]]) -> list[float]:
    """The downsamples of all levels from their sizes: whole factors that explain them together, where there are such.

    A 2399 x 3001 px image halved six times is 37 x 46 px: both 64 and 65 explain that size, but only 64 is two times
    the level before.

    Args:
        sizes: Rows and columns of each level, finest first.

    Returns:
        Level-0 px per px of each level; the first is 1.
    """
    (height, width), *_ = sizes
    found, step = [1.0], 0
    for (big_height, big_width), (rows, columns) in pairwise(sizes):
        sides = ((big_height, rows), (big_width, columns))
        ratio = big_width / columns if big_width >= big_height else big_height / rows
        steps = [whole for whole in (step, round(ratio)) if whole > 1 and _explains(whole, sides)]
        step = steps[0] if steps else 0
        if step:
            found.append(found[-1] * step)
        else:
            found.append(snapped_downsample(width, height, columns, rows))
    return found


def _explains(whole: int, sides: Iterable[tuple[int, int]]) -> bool:
    """Whether each side of a level is the bigger level's, divided by a whole factor and rounded."""
    return all(small in (max(big // whole, 1), -(-big // whole)) for big, small in sides)


@dataclass(frozen=True, slots=True)
class Grid:
    """The ``size * size`` candidate cells of a region; neighbours overlap."""

    size: int = 7
    """Cells along a side."""
    fraction: float = 0.25
    """Side of a cell over the side of its region."""
    layout: str = "ladder"
    """``ladder``: from edge to edge, sides on one ladder of scales. ``tnet``: the paper's, a whole stride and
    sides of exactly ``fraction``; outer cells may overhang their region."""

    def __post_init__(self) -> None:
        if self.layout not in ("ladder", "tnet"):
            raise ConfigError(f"a grid's layout is 'ladder' or 'tnet'; got {self.layout!r}")
        numbers = isinstance(self.size, int) and isinstance(self.fraction, (int, float))
        if not numbers or not 1 <= self.size <= _MOST_SIZE or not 0 < self.fraction < 1:
            needs = f"a whole size of 1 to {_MOST_SIZE} and 0 < fraction < 1"
            raise ConfigError(f"a grid needs {needs}; got size={self.size}, fraction={self.fraction}")


def root_regions(
    height: int, width: int, y: int = 0, x: int = 0, *, root_size: int | None = None, overlap: float = 0.0
) -> Regions:
    """Cover a rectangle with the fewest square regions, evenly spread.

    Args:
        height: Rows of the rectangle, level-0 px.
        width: Columns of the rectangle, level-0 px.
        y: Its first row.
        x: Its first column.
        root_size: Largest side of a region, level-0 px; None = the rectangle's short side.
        overlap: Least share of its side that a region has in common with the next.

    Returns:
        The regions of depth 0, row by row. Without ``root_size`` a square is one region and any other rectangle
        one row or one column of them. They overlap where they must.

    Raises:
        RegionError: If the rectangle is empty, or more regions would cover it than can be held.
    """
    if height < 1 or width < 1:
        raise RegionError(f"an image region needs at least one pixel; got height={height}, width={width}")
    side = min(height, width, root_size or height)
    step = max(round(side * (1 - overlap)), 1)
    counts = [-(-(length - side) // step) + 1 for length in (height, width)]
    if counts[0] * counts[1] > _MOST_ROOT_REGIONS:
        raise RegionError(
            f"root regions of {side} px with an overlap of {overlap:g} would be more than {_MOST_ROOT_REGIONS:,} on "
            f"{height:,} x {width:,} px; give a larger root_size or less overlap"
        )
    rows, columns = (_spread(length - side, n) for length, n in zip((height, width), counts, strict=True))
    regions = np.empty((len(rows), len(columns), 4), np.int64)
    regions[..., 0] = y + rows[:, None]
    regions[..., 1] = x + columns
    regions[..., 2:] = side
    return regions.reshape(-1, 4)


def cell_regions(regions: Regions, grid: Grid, finest: int) -> Int64[np.ndarray, "n cells 4"]:
    """The candidate sub-regions of square regions: row by row, evenly spread from edge to edge.

    Cells lie on a ladder of scales, ``finest``, ``finest / fraction``, ``finest / fraction**2`` … px: below
    depth 0 every image is read at the same few downsamples, whatever its size. A cell's side is the smallest on
    the ladder that is at least 0.8 ``grid.fraction`` of its region's; exactly ``fraction`` where the region is
    on the ladder itself. No cell is smaller than ``finest``.

    Args:
        regions: Parents.
        grid: How a parent is divided.
        finest: Side of the smallest region, level-0 px; a crop's side = down to native resolution.

    Returns:
        Level-0 regions; cell ``i`` lies in row ``i // grid.size`` and column ``i % grid.size``. Every cell
        lies inside its parent, but for the layout ``tnet``, which may overhang it by a few px.

    Source:
        Layout ``tnet``: TNet's candidate regions, without the ladder and without ``finest``.
    """
    cells = np.empty((len(regions), grid.size, grid.size, 4), np.int64)
    parent, side = regions[:, 2:], cell_sides(regions, grid, finest)
    if grid.layout == "tnet":
        stride = -(-(parent - side) // max(grid.size - 1, 1))
        before = -(-((grid.size - 1) * stride + side - parent) // 2)  # an odd px of overhang goes before
        offsets = stride[..., None] * np.arange(grid.size) - before[..., None]
    else:
        steps = np.arange(grid.size) / max(grid.size - 1, 1)
        offsets = np.rint((parent - side)[..., None] * steps).astype(np.int64)
    start = regions[:, :2, None] + offsets
    cells[..., 0], cells[..., 1] = start[:, 0, :, None], start[:, 1, None, :]
    cells[..., 2:] = side[:, None, None]
    return cells.reshape(len(regions), grid.size**2, 4)


def cell_sides(regions: Regions, grid: Grid, finest: int) -> Int64[np.ndarray, "n 2"]:
    """Height and width of the cells of each region; see ``cell_regions``."""
    parent = regions[:, 2:]
    if grid.layout == "tnet":
        return np.rint(parent * grid.fraction).astype(np.int64)
    return np.minimum(_ladder(parent, grid, finest), parent)


def _ladder(parent: np.ndarray, grid: Grid, finest: int) -> np.ndarray:
    """The side of a cell for each side of a parent, px."""
    rung = np.ceil(
        np.log(np.maximum(_LADDER_SLACK * grid.fraction * parent / finest, 1)) / -np.log(grid.fraction) - 1e-9
    )
    return np.rint(finest / grid.fraction**rung).astype(np.int64)


def expandable(regions: Regions, finest: int) -> np.ndarray:
    """Which regions are divided further: those of at least 1.5 ``finest`` px (bool per region)."""
    return np.minimum(regions[:, 2], regions[:, 3]) >= EXPAND_FROM * finest


def depth_count(roots: Regions, grid: Grid, finest: int) -> int:
    """Number of depths from these regions down to the finest (at least 1)."""
    region = roots[:1]
    count = 1
    while expandable(region, finest)[0]:
        region = cell_regions(region, grid, finest)[:, 0]
        count += 1
    return count


def locations(regions: Regions, frame: Regions) -> Float[np.ndarray, "n 3"]:
    """Positions of regions in their frame: the continuous counterpart of TNet's (y, x, s) triplet.

    Args:
        regions: Regions.
        frame: For each, the rectangle that is classified (the image or a window of it).

    Returns:
        Centre y and x as shares of the frame (0 to 1), and log2 of the frame's short side over the
        region's (0 = the whole).

    Source:
        TNet, positional encoding module; differs: shares of the frame in place of path indices, so that
        overlapping paths to the same pixels get the same location and any depth can follow.
    """
    out = np.empty((len(regions), 3), np.float64)
    out[:, :2] = (regions[:, :2] - frame[:, :2] + regions[:, 2:] / 2) / frame[:, 2:]
    out[:, 2] = np.log2(frame[:, 2:].min(axis=1) / regions[:, 2:].min(axis=1))
    return out


def frame_numbers(regions: Regions, frames: Int64[np.ndarray, "m 4"]) -> Int64[np.ndarray, " n"]:
    """Which frame each region lies in, of frames side by side; columns grow from one to the next."""
    return np.maximum(np.searchsorted(frames[:, 1], regions[:, 1], side="right") - 1, 0)


def frames_of(regions: Regions, frames: Int64[np.ndarray, "m 4"]) -> Int64[np.ndarray, "n 4"]:
    """The frame that each region lies in; see ``frame_numbers``."""
    if len(frames) == 1:
        return frames.repeat(len(regions), axis=0)
    return frames[frame_numbers(regions, frames)]


def child_paths(paths: Int64[np.ndarray, "n 3"], cell: Int64[np.ndarray, " n"], grid: Grid) -> np.ndarray:
    """Extend paths of cells by one cell: TNet's triplets.

    Args:
        paths: Of the parents: (row, column, depth); (0, 0, 0) is a root region.
        cell: Which cell of each parent, 0 to ``size**2`` - 1.
        grid: How a parent is divided.

    Returns:
        (row, column, depth) of the cells ``[n 3]``: ``size`` times the parent's row, plus the cell's own. Two
        paths to the same px have different triplets.

    Source:
        TNet, positional encoding module.
    """
    row, column = np.divmod(cell, grid.size)
    return np.stack([paths[:, 0] * grid.size + row, paths[:, 1] * grid.size + column, paths[:, 2] + 1], 1)


def overlaps(regions: Regions, others: Int64[np.ndarray, "m 4"]) -> Float[np.ndarray, "n m"]:
    """Intersection over union of every region with every other (0 to 1)."""
    start = np.maximum(regions[:, None, :2], others[None, :, :2])
    stop = np.minimum((regions[:, :2] + regions[:, 2:])[:, None], (others[:, :2] + others[:, 2:])[None])
    common = np.clip(stop - start, 0, None).astype(np.float64).prod(axis=2)
    areas = regions[:, 2:].astype(np.float64).prod(axis=1)[:, None] + others[:, 2:].astype(np.float64).prod(
        axis=1
    )
    return common / (areas - common)


def cells_on_target(cells: Int64[np.ndarray, "n cells 4"], boxes: Int64[np.ndarray, "m 4"]) -> np.ndarray:
    """Which cells show a box at least as well as all other cells of their region.

    Args:
        cells: Candidate cells of ``n`` regions.
        boxes: The targets, in the same frame.

    Returns:
        Bool ``[n cells]``: for at least one box, the cell holds (nearly) the largest share of it that a cell
        of the region holds. All False where no cell touches a box.
    """
    return np.asarray(cells_on_boxes(cells, boxes).any(axis=2))


def cells_on_boxes(cells: Int64[np.ndarray, "n cells 4"], boxes: Int64[np.ndarray, "m 4"]) -> np.ndarray:
    """Which cells show which box at least as well as all other cells of their region: bool ``[n cells m]``."""
    if not len(boxes):
        return np.zeros((*cells.shape[:2], 0), bool)
    start = np.maximum(cells[:, :, None, :2], boxes[None, None, :, :2])
    stop = np.minimum(
        (cells[..., :2] + cells[..., 2:])[:, :, None], (boxes[:, :2] + boxes[:, 2:])[None, None]
    )
    held = np.clip(stop - start, 0, None).prod(axis=3) / boxes[:, 2:].prod(axis=1)
    best = held.max(axis=1, keepdims=True)
    return np.asarray((held >= 0.99 * best) & (best > 0))


def check_region(region: tuple[int, int, int, int], height: int, width: int, what: str) -> None:
    """Check that a region is not empty and inside its image.

    Args:
        region: ``(y, x, height, width)``.
        height: Rows available.
        width: Columns available.
        what: The image and level, for the message.

    Raises:
        RegionError: If it is not inside.
    """
    y, x, h, w = region
    if h < 1 or w < 1 or y < 0 or x < 0 or y + h > height or x + w > width:
        raise RegionError(
            f"{what}: asked for rows {y} to {y + h} and columns {x} to {x + w}, "
            f"but it has rows 0 to {height} and columns 0 to {width}; ask for a region inside"
        )


def _spread(room: int, count: int) -> np.ndarray:
    """``count`` offsets from 0 to ``room``, evenly spread and rounded to whole px."""
    return np.rint(np.arange(count) * (room / max(count - 1, 1))).astype(np.int64)
