"""A search as one would first write it: everything from the start at every step. What the real one is compared with."""

from dataclasses import dataclass
from itertools import count

import numpy as np

from hiresattn.geometry import cell_regions, expandable, overlaps, root_regions
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
        appearance = rng.standard_normal((cells, 3))
        own = rng.standard_normal(self.classes)
        return {
            "features": rng.standard_normal(4),
            "cell_logits": logits,
            "value": np.array(2 * rng.standard_normal()),
            "class_logits": rng.standard_normal(self.classes),
            "weight_logits": np.array(0.0 if self.facts.aggregator == "mean" else rng.standard_normal()),
            "class_log_prob": own - np.logaddexp.reduce(own),
            "appearance": appearance / np.linalg.norm(appearance, axis=1, keepdims=True),
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
    appearance: np.ndarray | None


def plain_search(engine, roots, frame, *, glimpses, policy):
    """One image with a budget of glimpses: rows, logits, weights and the reason."""
    facts, order = engine.facts, count()
    rng = np.random.default_rng(policy.seed) if policy.random else None
    rows, cells, put_off, background = [], [], [], []
    unseen, needed = np.ones(frame[2:], bool), len(root_regions(*frame[2:].tolist(), root_size=facts.finest))

    def unseen_in(region):
        if sum(row["finest"] for row in rows) < needed:
            return None
        return int(unseen[_within(region, frame)].sum())

    def visit(cell):
        _visit(engine, rows, cell, rng)
        if rows[-1]["finest"]:
            unseen[_within(cell.region, frame)] = False

    for region in roots:
        visit(Cell(0.0, 0, -1, -1, 0, region, 0.0, None))
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
        first = len(rows)
        width = min(policy.width, glimpses - first)
        for cell in _chosen(cells, put_off, rows, width, background, policy, unseen_in):
            visit(cell)
        if len(rows) == first:
            return rows, logits, weights, "exhausted"
        for number in range(first, len(rows)):
            background += _background(facts, rows[number], policy)
            cells += _cells(engine, rows, number, order, 0.0)


def _background(facts, row, policy):
    if row["finest"] and row["looked_like"] is not None and policy.suppression:
        shares = np.exp(row["class_logits"])
        yield row["looked_like"], policy.suppression * shares[facts.background] / shares.sum()


def _chosen(cells, put_off, rows, width, background, policy, unseen_in):
    """The best cells of all, each visited before the next is chosen; their own cells open after the last."""
    found = 0
    while (cells or put_off) and found < width:
        if cells:
            costs = [
                cell.cost + max((put_back(cell.appearance, *known) for known in background), default=0)
                for cell in cells
            ]
            cell = cells.pop(min(range(len(cells)), key=lambda n: (costs[n], cells[n].order)))
            new = unseen_in(cell.region)
            if new is not None and 2 * new <= cell.region[2] * cell.region[3]:
                put_off.append(cell)
                continue
        elif not unseen_in((cell := put_off.pop(0)).region):
            continue
        seen = [row["region"] for row in rows if row["depth"] == cell.depth]
        if not seen or overlaps(cell.region[None], np.stack(seen)).max() <= policy.max_overlap:
            found += 1
            yield cell


def _within(region, frame):
    y, x, height, width = region - [*frame[:2], 0, 0]
    return slice(max(y, 0), y + height), slice(max(x, 0), x + width)


def put_back(appearance, known, penalty):
    return float(np.clip(appearance @ known, 0, 1) ** 16 * penalty)


def _visit(engine, rows, cell, rng):
    asked = engine.facts.background is not None and rng is None
    found = engine.look(None, None, cell.region[None], None, None, appearance=asked)
    row = {name: value[0] for name, value in vars(found).items() if value is not None}
    row |= {"region": cell.region, "depth": cell.depth, "parent": cell.parent, "cell": cell.cell}
    row["finest"] = not expandable(cell.region[None], engine.facts.finest)[0]
    row["log_prob"], row["looked_like"] = cell.log_prob, cell.appearance
    row["noise"] = None if rng is None else np.log(rng.exponential(size=engine.facts.grid.size**2))
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
    if row["noise"] is not None:
        log_prob = np.full(len(logits), -np.log(np.isfinite(logits).sum()))
    regions = cell_regions(row["region"][None], facts.grid, facts.finest)[0]
    for cell in range(len(logits)):
        shut = facts.gate is not None and logits[cell] <= facts.gate and cell != logits.argmax()
        if np.isfinite(logits[cell]) and (row["noise"] is not None or not shut):
            cost = best_root - _log_sigmoid(row["value"]) - log_prob[cell]
            if row["noise"] is not None:
                cost = row["noise"][cell]
            likeness = row["appearance"][cell] if "appearance" in row else None
            yield Cell(
                cost, next(order), number, cell, row["depth"] + 1, regions[cell], log_prob[cell], likeness
            )


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
