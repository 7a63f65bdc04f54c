"""The growing search against one that does everything from the start at every step."""

import numpy as np
import pytest

from hiresattn.geometry import Grid, root_regions
from hiresattn.inference.budget import Budget
from hiresattn.inference.engine import NetFacts
from hiresattn.inference.image_search import Policy
from hiresattn.inference.search import search
from hiresattn.reading.fetch import Crops
from tests.inference.oracle import HashedEngine, plain_search


def _fetch(image, regions):
    return Crops(np.zeros((len(image), 1, 2, 2), np.float32), np.ones((len(image), 2, 2), np.float32))


def _case(seed):
    rng = np.random.default_rng(seed)
    classes = int(rng.integers(2, 5))
    background = int(rng.integers(classes)) if rng.random() < 0.5 else None
    facts = NetFacts(
        Grid(int(rng.integers(2, 6)), 0.25),
        16,
        gate=[None, 0.5, 9.0][int(rng.integers(3))],
        background=background,
        prior_weight=float(rng.random()),
        multi_label=background is None and rng.random() < 0.3,
        head="scorer" if background is None and rng.random() < 0.3 else "classifier",
        aggregator=str(rng.choice(["attention", "mean"])),
    )
    policy = Policy(
        stop=[None, 0.7, 0.99][int(rng.integers(3))],
        max_overlap=[0.0, 0.2, 0.5][int(rng.integers(3))],
        suppression=[0.0, 5.0][int(rng.integers(2))],
        temperature=float(rng.choice([0.5, 2.0])),
        width=int(rng.choice([1, 1, 3])),
        random=bool(rng.random() < 0.2),
        seed=seed,
    )
    frames = [np.array([*rng.integers(0, 9, 2), *rng.integers(20, 400, 2)]) for _ in range(3)]
    sides = [frame.tolist() for frame in frames]
    roots = [root_regions(height, width, y, x, root_size=150) for y, x, height, width in sides]
    return HashedEngine(facts, classes, seed, appearance=rng.random() < 0.7), policy, frames, roots, rng


@pytest.mark.parametrize("seed", range(60))
def test_a_growing_search_gives_what_a_plain_one_gives(seed):
    engine, policy, frames, roots, rng = _case(seed)
    glimpses = max(map(len, roots)) + int(rng.integers(1, 40)) * int(rng.choice([1, 1, 10]))
    _check(engine, policy, frames, roots, glimpses)


@pytest.mark.parametrize("width", [1, 3])
def test_so_it_does_with_more_root_regions_than_are_looked_at_at_once(width):
    facts = NetFacts(Grid(3, 0.25), 8, background=1, prior_weight=0.3)
    policy = Policy(stop=None, suppression=4.0, width=width)
    frames = [np.array([3, 5, 32 * 10, 32 * 30])]
    roots = [root_regions(32 * 10, 32 * 30, 3, 5, root_size=32)]
    assert len(roots[0]) == 300
    _check(HashedEngine(facts, 3, 7, appearance=True), policy, frames, roots, 312)


def _check(engine, policy, frames, roots, glimpses):
    found, reasons = search(
        engine, _fetch, roots, np.stack(frames), budget=Budget(glimpses=glimpses), policy=policy
    )
    for image, of_image in enumerate(roots):
        rows, logits, weights, reason = plain_search(
            engine, of_image, frames[image], glimpses=glimpses, policy=policy
        )
        mine = np.flatnonzero(found.image == image)
        assert reasons[image] == reason
        assert found.logits[image] == pytest.approx(logits, rel=1e-5, abs=1e-5)
        assert found.weight[mine] == pytest.approx(np.array(weights), abs=1e-6)
        assert np.array_equal(found.region[mine], np.stack([row["region"] for row in rows]))
        assert found.cell[mine].tolist() == [row["cell"] for row in rows]
        parents = [row["parent"] + mine[0] if row["parent"] >= 0 else -1 for row in rows]
        assert found.parent[mine].tolist() == parents
        assert found.log_prob[mine] == pytest.approx([row["log_prob"] for row in rows], abs=1e-5)
