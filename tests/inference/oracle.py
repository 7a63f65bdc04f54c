"""A search as one would first write it: everything from the start at every step. What the real one is compared with."""

from dataclasses import dataclass
from itertools import count

import numpy as np

from hiresattn.geometry import cell_regions, expandable, overlaps
from hiresattn.inference.engine import Outputs


class HashedEngine:
    """Outputs that depend on the region alone, and on nothing else."""

    def __init__(self, facts, classes, seed, *, appearance=False):
        self.facts, self.classes, self.seed, self.gives_appearance = facts, classes, seed, appearance

    def look(self, pixels, coverage, regions, frames, paths, *, appearance=False):
        rows = [self._row(region) for region in regions.tolist()]
        columns = {name: np.stack([row[name] for row in rows]).astype(np.float32) for name in rows[0]}
        if not (appearance and self.gives_appearance):
            del columns["appearance"]
        if self.facts.head != "scorer":
            del columns["class_log_prob"]
        return Outputs(**columns)

    def _row(self, region):
        rng, cells = np.random.default_rng([self.seed, *region]), self.facts.grid.size**2
        logits = np.where(rng.random(cells) < 0.1, -np.inf, 2 * rng.standard_normal(cells))
        looks = rng.standard_normal((cells, 3))
        own = rng.standard_normal(self.classes)
        return {
            "features": rng.standard_normal(4),
            "cell_logits": logits,
            "value": np.array(2 * rng.standard_normal()),
            "class_logits": rng.standard_normal(self.classes),
            "weight_logits": np.array(0.0 if self.facts.aggregator == "mean" else rng.standard_normal()),
            "class_log_prob": own - np.logaddexp.reduce(own),
            "appearance": looks / np.linalg.norm(looks, axis=1, keepdims=True),
        }


@dataclass
class Cell:
    cost: float
    order: int
    parent: int
    cell: int
    depth: int
    region: np.ndarray
    log_prob: float
    looks: np.ndarray | None


def plain_search(engine, roots, *, glimpses, policy):
    """One image with a budget of glimpses, width 1: rows, logits, weights and the reason."""
    facts, order = engine.facts, count()
    rows, cells, background = [], [], []
    for region in roots:
        _visit(engine, rows, Cell(0.0, 0, -1, -1, 0, region, 0.0, None))
    best_root = max(_log_sigmoid(row["value"]) for row in rows)
    for number in range(len(rows)):
        cells += _cells(engine, rows, number, order, best_root)
    while True:
        logits, weights = pooled(facts, rows)
        shares = np.exp(logits / policy.temperature)
        shares /= shares.sum()
        if facts.background is not None:
            shares[facts.background] = 0
        sure = shares.max()
        if facts.multi_label:
            sure = 1 / (1 + np.exp(-np.abs(logits / policy.temperature).min()))
        if policy.stop is not None and sure >= policy.stop:
            return rows, logits, weights, "confidence"
        if len(rows) >= glimpses:
            return rows, logits, weights, "budget"
        while cells:
            costs = [
                cell.cost + max((put_back(cell.looks, *known) for known in background), default=0)
                for cell in cells
            ]
            cell = cells.pop(min(range(len(cells)), key=lambda n: (costs[n], cells[n].order)))
            seen = [row["region"] for row in rows if row["depth"] == cell.depth]
            if not seen or overlaps(cell.region[None], np.stack(seen)).max() <= policy.max_overlap:
                break
        else:
            return rows, logits, weights, "exhausted"
        _visit(engine, rows, cell)
        if rows[-1]["finest"] and cell.looks is not None and policy.suppression:
            shares = np.exp(rows[-1]["class_logits"])
            background.append((cell.looks, policy.suppression * shares[facts.background] / shares.sum()))
        cells += _cells(engine, rows, len(rows) - 1, order, 0.0)


def put_back(looks, known, penalty):
    return float(np.clip(looks @ known, 0, 1) ** 16 * penalty)


def _visit(engine, rows, cell):
    asked = engine.facts.background is not None
    found = engine.look(None, None, cell.region[None], None, None, appearance=asked)
    row = {name: value[0] for name, value in vars(found).items() if value is not None}
    row |= {"region": cell.region, "depth": cell.depth, "parent": cell.parent, "cell": cell.cell}
    row["finest"] = not expandable(cell.region[None], engine.facts.finest)[0]
    row["log_prob"] = cell.log_prob
    row["prior"] = 0.0
    if cell.parent >= 0:
        parent = rows[cell.parent]
        row["prior"] = parent["prior"] + _log_sigmoid(parent["value"]) + cell.log_prob
    rows.append(row)


def _cells(engine, rows, number, order, best_root):
    row, facts = rows[number], engine.facts
    logits = row["cell_logits"].astype(float)
    if row["finest"] or not np.isfinite(logits).any():
        return
    log_prob = logits - np.logaddexp.reduce(logits)
    places = cell_regions(row["region"][None], facts.grid, facts.finest)[0]
    for cell in range(len(logits)):
        shut = facts.gate is not None and logits[cell] <= facts.gate and cell != logits.argmax()
        if np.isfinite(logits[cell]) and not shut:
            cost = best_root - _log_sigmoid(row["value"]) - log_prob[cell]
            looks = row["appearance"][cell] if "appearance" in row else None
            yield Cell(cost, next(order), number, cell, row["depth"] + 1, places[cell], log_prob[cell], looks)


def pooled(facts, rows):
    """Logits of the image and weights of its glimpses, from all of them."""
    if facts.background is None:
        weights = np.exp([row["weight_logits"] for row in rows])
        weights /= weights.sum()
        if facts.head == "scorer":
            return np.log(weights @ np.exp([row["class_log_prob"] for row in rows])), weights
        return weights @ np.stack([row["class_logits"] for row in rows]), weights
    counts = np.array([row["finest"] for row in rows])
    counts |= not counts.any()
    ratio = np.stack(
        [
            r["class_logits"] - r["class_logits"][facts.background] + facts.prior_weight * r["prior"]
            for r in rows
        ]
    )
    logits = np.logaddexp.reduce(ratio[counts], axis=0)
    best = max((c for c in range(len(logits)) if c != facts.background), key=lambda c: logits[c])
    weights = np.where(counts, np.exp(ratio[:, best] - logits[best]), 0)
    logits[facts.background] = 0
    return logits, weights


def _log_sigmoid(value):
    return -float(np.logaddexp(0, -float(value)))
