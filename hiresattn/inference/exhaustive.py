"""Look at every finest region of an image: what a search is compared with. NumPy only."""

import numpy as np

from hiresattn.errors import ConfigError
from hiresattn.geometry import frames_of, root_regions
from hiresattn.inference.cover import finest_count
from hiresattn.inference.engine import Engine
from hiresattn.inference.image_search import Holds
from hiresattn.inference.pooling import pool_for
from hiresattn.inference.roots import MOST_AT_ONCE
from hiresattn.inference.search import Fetch
from hiresattn.inference.table import GlimpseTable, traversal_of
from hiresattn.model.traversal import Traversal

#: Most finest regions of one image that are looked at exhaustively; 16,384 x 16,384 px are 65,536 of 64 px.
MOST_FINEST = 100_000


def finest_regions(
    frames: np.ndarray, finest: int, *, overlap: float = 0.0, holds: Holds | None = None
) -> np.ndarray:
    """The finest regions of one or several rectangles that hold foreground.

    Args:
        frames: The rectangles ``[m 4]``, level-0 px.
        finest: Side of a region, level-0 px.
        overlap: Least share of its side that a region has in common with the next.
        holds: Which regions hold foreground; where none does, the first is kept. None = all.

    Returns:
        Of each ``(y, x, height, width)``, level-0 px: int64 ``[n 4]``.

    Raises:
        ConfigError: If there are more than ``MOST_FINEST``.
    """
    count = sum(finest_count(h, w, finest, overlap) for _, _, h, w in frames.tolist())
    if count > MOST_FINEST:
        raise ConfigError(
            f"{count:,} regions of {finest} px to look at exhaustively, and at most {MOST_FINEST:,} are; "
            "name a window of the image, or leave exhaustive out"
        )
    regions = np.concatenate(
        [
            root_regions(height, width, y, x, root_size=finest, overlap=overlap)
            for y, x, height, width in frames.tolist()
        ]
    )
    if holds is None:
        return regions
    held = holds(regions)
    return regions[held] if held.any() else regions[:1]


def everywhere(
    engine: Engine, fetch: Fetch, frames: np.ndarray, *, overlap: float = 0.0, holds: Holds | None = None
) -> Traversal:
    """Look at every finest region of one or several rectangles that holds foreground, and predict from all of them.

    Args:
        engine: The network.
        fetch: Where crops come from.
        frames: The rectangles classified ``[m 4]``, level-0 px, side by side.
        overlap: Least share of its side that a region has in common with the next.
        holds: Which regions hold foreground; where none does, the first is looked at. None = all.

    Returns:
        The traversal of one image, all of depth 0.

    Raises:
        ConfigError: If that is more than ``MOST_FINEST`` regions.
    """
    facts = engine.facts
    regions = finest_regions(frames, facts.finest, overlap=overlap, holds=holds)
    table, pool = GlimpseTable(), pool_for(facts, len(frames))
    for start in range(0, len(regions), MOST_AT_ONCE):
        part = regions[start : start + MOST_AT_ONCE]
        at = np.zeros(len(part), np.int64)
        crops = fetch(at, part)
        within = frames_of(part, frames)
        found = engine.look(crops.pixels, crops.coverage, part, within, np.zeros((len(part), 3), np.int64))
        for row in range(len(part)):
            pool.add(found, row, log_prior=0.0, finest=True)
        table.append(
            {
                "region": part,
                "depth": at,
                "parent": at - 1,
                "cell": at - 1,
                "log_prob": np.zeros(len(part), np.float32),
                "log_prior": np.zeros(len(part)),
                "coverage": crops.coverage.mean((1, 2)),
                "finest": at == 0,
                "value": found.value,
                "cell_logits": found.cell_logits,
                "features": found.features,
                "class_logits": found.class_logits,
                "weight_logit": found.weight_logits,
            }
        )
    return traversal_of(table, pool.weights(table), pool.logits(), pool.running())
