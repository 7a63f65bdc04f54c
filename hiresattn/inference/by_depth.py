"""Look depth by depth: the root regions, then the best cells of each region, as training does. NumPy only."""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from hiresattn.geometry import cell_regions, child_paths, expandable, frames_of
from hiresattn.inference.engine import Engine, NetFacts, Outputs
from hiresattn.inference.image_search import Holds
from hiresattn.inference.pooling import pool_for
from hiresattn.inference.roots import MOST_AT_ONCE
from hiresattn.inference.search import Fetch
from hiresattn.inference.table import GlimpseTable, traversal_of
from hiresattn.model.traversal import Traversal
from hiresattn.shapes import Float, Int64


class _Front(NamedTuple):
    """The ``n`` regions of one depth."""

    region: np.ndarray
    path: np.ndarray
    parent: np.ndarray
    cell: np.ndarray
    log_prob: np.ndarray
    log_prior: np.ndarray


def by_depth(
    engine: Engine,
    fetch: Fetch,
    roots: np.ndarray,
    frames: np.ndarray,
    *,
    k: Sequence[int],
    nms: float = 1.0,
    holds: Holds | None = None,
) -> Traversal:
    """Look at the root regions of a case, then depth by depth at the best cells of every region.

    Args:
        engine: The network.
        fetch: Where crops come from.
        roots: Root regions ``[r 4]``.
        frames: The rectangles classified ``[m 4]``, level-0 px, side by side.
        k: Cells per region, per depth; the last one repeats.
        nms: Largest intersection over union of two chosen cells of one region; 1 = any.
        holds: Which regions hold foreground, asked once the root regions were fetched; cells that don't are not
            looked at. None = all.

    Returns:
        The traversal of one image.
    """
    facts, table, pool = engine.facts, GlimpseTable(), pool_for(engine.facts, len(frames))
    none, zero = np.full(len(roots), -1), np.zeros(len(roots))
    front = _Front(roots, np.zeros((len(roots), 3), np.int64), none, none, zero.astype(np.float32), zero)
    depth = 0
    while len(front.region):
        first, logits = len(table), []
        finest = ~expandable(front.region, facts.finest)
        for start in range(0, len(front.region), MOST_AT_ONCE):
            part = _Front(*(column[start : start + MOST_AT_ONCE] for column in front))
            last = finest[start : start + MOST_AT_ONCE]
            crops = fetch(np.zeros(len(part.region), np.int64), part.region)
            within = frames_of(part.region, frames)
            found = engine.look(crops.pixels, crops.coverage, part.region, within, part.path)
            for row in range(len(last)):
                pool.add(found, row, log_prior=float(part.log_prior[row]), finest=bool(last[row]))
            table.append(_rows(part, depth, last, found, crops.coverage.mean((1, 2))))
            logits.append(found.cell_logits)
        scores, most = np.concatenate(logits), k[min(depth, len(k) - 1)]
        front = _divided(
            front, scores, table["value"][first:], facts, most, first=first, nms=nms, holds=holds
        )
        depth += 1
    return traversal_of(table, pool.weights(table), pool.logits(), pool.running())


def _rows(
    part: _Front, depth: int, finest: np.ndarray, found: Outputs, coverage: np.ndarray
) -> dict[str, np.ndarray]:
    """Rows of the table."""
    return {
        "region": part.region,
        "depth": np.full(len(finest), depth),
        "parent": part.parent,
        "cell": part.cell,
        "log_prob": part.log_prob,
        "log_prior": part.log_prior,
        "coverage": coverage,
        "finest": finest,
        "value": found.value,
        "cell_logits": found.cell_logits,
        "features": found.features,
        "class_logits": found.class_logits,
        "weight_logit": found.weight_logits,
    }


def _divided(
    front: _Front,
    logits: np.ndarray,
    value: np.ndarray,
    facts: NetFacts,
    k: int,
    *,
    first: int,
    nms: float,
    holds: Holds | None,
) -> _Front:
    """The chosen cells of those regions that can be divided."""
    wide = np.flatnonzero(expandable(front.region, facts.finest))
    logits, cells = (
        logits[wide].astype(np.float64),
        cell_regions(front.region[wide], facts.grid, facts.finest),
    )
    if holds is not None and len(wide):
        logits = np.where(holds(cells.reshape(-1, 4)).reshape(logits.shape), logits, -np.inf)
    row, cell = best_cells(logits, k, cells, gate=facts.gate, nms=nms)
    top = logits.max(1, keepdims=True, initial=-np.inf)
    with np.errstate(invalid="ignore"):  # regions without any cell, of which none is chosen
        log_prob = logits - top - np.log(np.exp(logits - top).sum(1, keepdims=True))
    chosen, parent = log_prob[row, cell], wide[row]
    return _Front(
        region=cells[row, cell],
        path=child_paths(front.path[parent], cell, facts.grid),
        parent=first + parent,
        cell=cell,
        log_prob=chosen.astype(np.float32),
        log_prior=front.log_prior[parent] - np.logaddexp(0, -value[parent].astype(np.float64)) + chosen,
    )


def best_cells(
    logits: Float[np.ndarray, "n cells"],
    k: int,
    cells: Int64[np.ndarray, "n cells 4"],
    *,
    gate: float | None = None,
    nms: float = 1.0,
) -> tuple[Int64[np.ndarray, " m"], Int64[np.ndarray, " m"]]:
    """The cells of most promise of every region, best first.

    Args:
        logits: Minus infinity where nothing was measured.
        k: Most cells of a region.
        cells: Their regions, level-0 px.
        gate: Logit above which a cell is chosen at all, but for the best one; None = any is.
        nms: Largest intersection over union with a better one; 1 = any.

    Returns:
        Rows and cells.
    """
    left = logits.copy()
    chosen, every = [], np.arange(len(logits))
    for nth in range(min(k, logits.shape[1])):
        best = left.argmax(1)
        fine = np.isfinite(left[every, best])
        if gate is not None and nth:
            fine &= logits[every, best] > gate
        chosen.append(np.where(fine, best, -1))
        left[every, best] = -np.inf
        if nms < 1:
            left[_overlap(cells, best) > nms] = -np.inf
    if not chosen:
        return np.zeros(0, np.int64), np.zeros(0, np.int64)
    ranked = np.stack(chosen, 1)
    row, rank = np.nonzero(ranked >= 0)
    return row, ranked[row, rank]


def _overlap(cells: np.ndarray, chosen: np.ndarray) -> np.ndarray:
    """Intersection over union of each region's cells with its chosen one: ``[n cells]``."""
    one = np.take_along_axis(cells, chosen[:, None, None], 1)
    start = np.maximum(cells[..., :2], one[..., :2])
    stop = np.minimum(cells[..., :2] + cells[..., 2:], one[..., :2] + one[..., 2:])
    common = np.maximum(stop - start, 0).astype(np.float64).prod(2)
    areas = cells[..., 2:].astype(np.float64).prod(2) + one[..., 2:].astype(np.float64).prod(2)
    return np.asarray(common / (areas - common))
