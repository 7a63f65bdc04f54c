"""Estimates what a run would read of an image, without reading a pixel; and what to do where that is too much."""

import shlex
from dataclasses import asdict, dataclass
from pathlib import PurePath
from typing import Any

import numpy as np

from hiresattn.config import InputConfig
from hiresattn.errors import OpenError
from hiresattn.geometry import Grid, cell_regions, depth_count, expandable, root_regions
from hiresattn.pyramid.base import Pyramid
from hiresattn.reading.plan import plan_reads

#: The coarsest level may have this many px a side before it counts as missing overviews.
COARSEST = 4096
#: An image stored as rows, or all in one piece, counts as untiled from this side on, px.
_UNTILED = 2048
#: Bytes decoded for the first look that are always fine, and how many times the stored ones may be more than that.
MOST_DECODED, MOST_TIMES = 2 << 30, 300


@dataclass(frozen=True)
class Preview:
    """About what a run would read: glimpses shared evenly over the depths, spread evenly in each."""

    budget: int
    """Glimpses assumed."""
    tiles: int
    """Different tiles under them."""
    bytes: int
    """Stored bytes of those."""
    fraction: float
    """Px decoded over px of level 0."""
    requests: int
    """Reads of the file, or requests to its server: tiles of one glimpse that lie side by side come in one."""

    def to_json(self) -> dict[str, Any]:
        """The values as JSON types."""
        return asdict(self)


def preview(
    pyramid: Pyramid,
    *,
    budget: int = 64,
    config: InputConfig | None = None,
    grid: Grid | None = None,
    finest: int | None = None,
    root_size: int | None = None,
    overlap: float = 0.0,
    region: tuple[int, int, int, int] | None = None,
) -> Preview:
    """Estimate what a search would read. Reads no pixel.

    Args:
        pyramid: The image.
        budget: Glimpses.
        config: How pixels become crops; default: crops of 64 px.
        grid: How a region is divided.
        finest: Side of the smallest region, level-0 px; None = a crop's side.
        root_size: Largest side of a root region, level-0 px.
        overlap: Least share of its side that a root region has in common with the next.
        region: ``(y, x, height, width)`` searched, level-0 px; None = all of the image.

    Returns:
        The estimate.
    """
    config, grid = config or InputConfig(), grid or Grid()
    y, x, height, width = region or (0, 0, pyramid.height, pyramid.width)
    least = finest or config.size
    glimpses = [root_regions(height, width, y, x, root_size=root_size, overlap=overlap)[:budget]]
    depths = depth_count(glimpses[0], grid, least)
    left = budget - len(glimpses[0])
    for depth in range(1, depths):
        parents = glimpses[-1][expandable(glimpses[-1], least)]
        cells = np.unique(cell_regions(parents, grid, least).reshape(-1, 4), axis=0)
        share = min(left // (depths - depth), len(cells))
        glimpses.append(cells[np.linspace(0, len(cells) - 1, share).astype(np.int64)])
        left -= share
    regions = np.concatenate(glimpses)
    px_per_side = round(config.size * config.oversample)
    plan = plan_reads(regions, pyramid.levels, px_per_side, pyramid.source)
    tiles = plan.tiles.tolist()
    if pyramid.by_tile:
        shown = [pyramid.tile_window(*tile)[2:] for tile in tiles]
    else:
        shown = [(rows, columns) for _, _, rows, columns in plan.windows.tolist()]
    return Preview(
        budget=len(regions),
        tiles=len(tiles),
        bytes=sum(pyramid.tile_bytes(*tile) for tile in tiles),
        fraction=sum(rows * columns for rows, columns in shown)
        / (height * width / pyramid.levels[0].downsample ** 2),
        requests=_requests(pyramid, glimpses, px_per_side),
    )


def check_first_look(pyramid: Pyramid, roots: np.ndarray, config: InputConfig) -> None:
    """Refuse an image whose first crops cost far more than its size says. Reads no pixel.

    Args:
        pyramid: The image.
        roots: Root regions ``[r 4]``, level-0 px.
        config: How pixels become crops.

    Raises:
        OpenError: If more than ``MOST_DECODED`` bytes would be decoded, of stored ones that are a tiny part of that.
    """
    px = pyramid.dtype.itemsize * pyramid.channels
    if pyramid.backend == "array" or pyramid.height * pyramid.width * px <= MOST_DECODED:
        return
    plan = plan_reads(roots, pyramid.levels, round(config.size * config.oversample), pyramid.source)
    decoded = stored = 0
    for tile in plan.tiles.tolist():
        count = pyramid.tile_bytes(*tile)
        _, _, height, width = pyramid.tile_window(*tile)
        stored += count
        decoded += height * width * px * (count > 0)
    if decoded > max(MOST_DECODED, MOST_TIMES * stored):
        raise OpenError(
            f"{pyramid.source}: the first look would decode {decoded / 1e9:.1f} GB of {stored / 1e6:.1f} MB stored, "
            f"which is out of proportion (at most {MOST_TIMES} times); write it with overviews: hiresattn convert"
        )


def advice(pyramid: Pyramid) -> str | None:
    """Why an image is slow to read in crops, and the command that converts it; None where it isn't."""
    first, last = pyramid.levels[0], pyramid.levels[-1]
    wrong = None
    side = max(pyramid.height, pyramid.width)
    if pyramid.backend == "image" and side > _UNTILED:
        wrong = "it isn't tiled, so it is decoded whole"
    elif first.tile_width >= pyramid.width > _UNTILED:
        wrong = "it is stored in strips, so every crop decodes rows from edge to edge"
    elif max(last.height, last.width) > COARSEST:
        wrong = (
            f"it has no overviews (its coarsest level is {last.width} x {last.height} px), so the root regions read "
            "all of that"
        )
    if wrong is None or pyramid.backend == "array":
        return None
    name = PurePath(pyramid.source.split("?")[0].rstrip("/")).name.split(".")[0] or "image"
    return (
        f"{pyramid.source}: {wrong}; once: hiresattn convert {shlex.quote(pyramid.source)} "
        f"{shlex.quote(name + '.zarr')}"
    )


def _requests(pyramid: Pyramid, glimpses: list[np.ndarray], px_per_side: int) -> int:
    """Reads, one glimpse after another; the root regions at once."""
    read: set[tuple[int, ...]] = set()
    count = 0
    for regions in [glimpses[0], *(region[None] for depth in glimpses[1:] for region in depth)]:
        plan = plan_reads(regions, pyramid.levels, px_per_side, pyramid.source)
        new = [tile for tile in map(tuple, plan.tiles.tolist()) if tile not in read]
        read.update(new)
        count += len(new) if pyramid.native_tiles is None else pyramid.native_tiles.requests(new)
    return count
