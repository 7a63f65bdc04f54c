"""Best-first search, on an image whose only bright spot is the target."""

from dataclasses import replace
from typing import NamedTuple

import numpy as np
import pytest
import torch
from torch import nn

from hiresattn.errors import ConfigError
from hiresattn.geometry import Grid, overlaps, root_regions
from hiresattn.inference.budget import Budget
from hiresattn.inference.cover import Unseen
from hiresattn.inference.engine import NetFacts, Outputs
from hiresattn.inference.image_search import Policy
from hiresattn.inference.pooling import confidence
from hiresattn.inference.search import Search, search
from hiresattn.inference.suppression import KnownBackground
from hiresattn.inference.torch_engine import TorchEngine
from hiresattn.inference.visited import Visited
from hiresattn.model.aggregators import MeanPooling
from hiresattn.model.encoders import Encoded
from hiresattn.model.net import GlimpseNet, Parts
from hiresattn.model.scorers import Scored, Scorer, ScorerInput, pool_cells

SIZE = 16


class Crops(NamedTuple):
    pixels: np.ndarray
    coverage: np.ndarray


class BrightFetch:
    """Crops of images that are dark but for one square; counts what it was asked for."""

    def __init__(self, *targets, side=16, covered=True):
        self.targets, self.side, self.covered = targets, side, covered
        self.asked = []

    def __call__(self, image, regions):
        pixels = np.zeros((len(image), 1, SIZE, SIZE), np.float32)
        for row, (index, region) in enumerate(zip(image, regions, strict=True)):
            self.asked.append((int(index), *region.tolist()))
            y, x = self.targets[index]
            step = region[2] / SIZE
            rows = region[0] + np.arange(SIZE) * step
            columns = region[1] + np.arange(SIZE) * step
            inside_y = np.clip(np.minimum(rows + step, y + self.side) - np.maximum(rows, y), 0, None) / step
            inside_x = (
                np.clip(np.minimum(columns + step, x + self.side) - np.maximum(columns, x), 0, None) / step
            )
            pixels[row, 0] = inside_y[:, None] * inside_x
        return Crops(pixels, np.full((len(image), SIZE, SIZE), float(self.covered), np.float32))


class PixelEncoder(nn.Module):
    def __init__(self):
        super().__init__()
        self.unused = nn.Parameter(torch.zeros(1))

    def forward(self, crops):
        return Encoded((crops,), torch.stack([crops.mean((1, 2, 3)), crops.amax((1, 2, 3))], 1))


class BrightValue(nn.Module):
    def forward(self, features):
        return 1e6 * features[:, 1:] - 20  # whether anything in the crop is bright


class BrightScorer(Scorer):
    def forward(self, view: ScorerInput) -> Scored:
        return Scored(40 * pool_cells(view.stages[0], 7, view.fraction)[:, 0] ** 0.25)


def _net(confident_from: float = 2.0) -> GlimpseNet:
    """Answers 'yes' once the mean brightness of the glimpses passes a threshold."""
    classifier = nn.Linear(2, 2)
    with torch.no_grad():
        classifier.weight.copy_(torch.tensor([[0.0, 0.0], [1000.0, 0.0]]))
        classifier.bias.copy_(torch.tensor([0.0, -1000.0 * confident_from]))
    parts = Parts(
        encoder=PixelEncoder(),
        scorer=BrightScorer(),
        aggregator=MeanPooling(width=2),
        classifier=classifier,
        value=BrightValue(),
    )
    net = GlimpseNet(
        parts,
        grid=Grid(7, 0.25),
        finest=SIZE,
    )
    return net.eval()


def _search(fetch, *, side=4096, count=1, budget=None, net=None, **policy):
    roots = [root_regions(side, side)] * count
    frames = np.array([[0, 0, side, side]] * count)
    with torch.inference_mode():
        return search(
            TorchEngine(net or _net()),
            fetch,
            roots,
            frames,
            budget=budget or Budget(glimpses=40),
            policy=Policy(**({"stop": None} | policy)),
        )


def test_search_goes_straight_down_to_the_target():
    found, (reason,) = _search(BrightFetch((1500, 2900)), budget=Budget(glimpses=14))
    assert reason == "budget"
    assert found.depth.max() == 4
    target = np.array([[1500, 2900, 16, 16]])
    assert (overlaps(found.region, target) > 0).all()
    assert found.region[:, 2].min() == SIZE


def test_priority_is_the_regions_value_times_the_cells_probability():
    found, _ = _search(BrightFetch((1500, 2900)), budget=Budget(glimpses=30))
    worth = -np.logaddexp(0, -found.value)
    worth[0] = 0.0  # the root region
    priority = worth[found.parent] + found.log_prob
    for row in range(1, len(priority)):
        # what was open when this row was chosen had no higher priority
        later = [r for r in range(row + 1, len(priority)) if found.parent[r] < row]
        assert all(priority[r] <= priority[row] + 1e-5 for r in later)


def test_a_promising_region_that_turns_out_to_be_empty_is_left():
    """The scorer is drawn to a quarter where nothing is; the value says so, and the search goes elsewhere."""

    class Lured(BrightScorer):
        def forward(self, view):
            logits = super().forward(view).logits.clone()
            logits[:, :4, :4] += 12.0
            return Scored(logits)

    net = _net()
    net.scorer = Lured()
    found, _ = _search(BrightFetch((3000, 3000)), net=net, budget=Budget(glimpses=60))
    target = np.array([[3000, 3000, 16, 16]])
    assert (overlaps(found.region[found.depth == 4], target) > 0).any()
    net.value = nn.Linear(2, 1)
    nn.init.zeros_(net.value.weight)
    nn.init.constant_(net.value.bias, 9.0)  # every region looks worth it
    lost, _ = _search(BrightFetch((3000, 3000)), net=net, budget=Budget(glimpses=60))
    assert not (overlaps(lost.region[lost.depth == 4], target) > 0).any()


class TableScorer(Scorer):
    """Draws the search to twenty cells that look alike; the target is in the last cell, which looks different."""

    def forward(self, view: ScorerInput) -> Scored:
        logits = torch.zeros(1, 49)
        logits[0, :20] = 5 - torch.arange(20) / 100
        logits[0, 48] = 1.0
        looks = torch.zeros(1, 2, 49)
        looks[0, 0, :48] = 3.0
        looks[0, 1, 48] = 0.5
        count = len(view.features)
        return Scored(logits.expand(count, -1).view(-1, 7, 7), looks.expand(count, -1, -1).view(-1, 2, 7, 7))


def test_cells_that_resemble_a_background_region_are_put_back():
    net = _net()
    net.scorer, net.value = TableScorer(), None
    net.background, net.prior_weight = 0, nn.Parameter(torch.zeros(()))
    with torch.no_grad():  # bright: the target
        net.classifier.weight.copy_(torch.tensor([[0.0, 0.0], [0.0, 20.0]]))
        net.classifier.bias.copy_(torch.tensor([0.0, -10.0]))

    def glimpses_until_found(**policy):
        found, _ = _search(BrightFetch((48, 48)), side=64, net=net, **policy)
        return int(np.flatnonzero((found.region[:, :2] == 48).all(1))[0])

    assert glimpses_until_found(suppression=8.0) == 2  # the whole, one of the twenty, the target
    assert glimpses_until_found(suppression=3.0) > 15  # not put back far enough
    assert glimpses_until_found(suppression=0.0) > 15
    net.background = None  # nothing says that a region was background
    assert glimpses_until_found(suppression=8.0) > 15


def test_no_region_is_visited_twice_at_a_depth():
    fetch = BrightFetch((1000, 1000))
    found, _ = _search(fetch, budget=Budget(glimpses=60))
    for depth in range(1, found.depth.max() + 1):
        regions = found.region[found.depth == depth]
        iou = overlaps(regions, regions)
        assert (iou[~np.eye(len(regions), dtype=bool)] <= 0.5).all()
    assert len(set(fetch.asked)) == len(fetch.asked)


def test_search_never_spends_more_glimpses_than_the_budget():
    for budget in (1, 2, 7, 33):
        found, (reason,) = _search(BrightFetch((100, 100)), budget=Budget(glimpses=budget), width=4)
        assert len(found.image) == budget
        assert reason == "budget"


def test_search_stops_when_it_is_confident():
    found, (reason,) = _search(BrightFetch((1500, 2900)), net=_net(confident_from=0.1), stop=0.95)
    assert reason == "confidence"
    assert len(found.image) <= 6


def test_many_root_regions_come_in_parts_and_before_all_others(monkeypatch):
    monkeypatch.setattr("hiresattn.inference.roots.MOST_AT_ONCE", 10)
    asked = []

    class Watching(BrightFetch):
        def __call__(self, image, regions):
            asked.append(len(image))
            return super().__call__(image, regions)

    roots = [root_regions(512, 512, root_size=64)]
    with torch.inference_mode():
        found, (reason,) = search(
            TorchEngine(_net()), Watching((99, 99)), roots, np.array([[0, 0, 512, 512]]),
            budget=Budget(seconds=100.0), policy=Policy(stop=0.5),
        )  # fmt: skip
    assert max(asked) == 10
    assert (found.depth[:64] == 0).all()
    assert (found.depth == 0).sum() == 64
    assert reason in ("confidence", "exhausted")
    kept, (reason,) = _search(BrightFetch((99, 99)), budget=Budget(glimpses=3))
    assert (len(kept.image), reason) == (3, "budget")


def test_a_search_with_nothing_left_to_look_at_is_exhausted():
    found, (reason,) = _search(BrightFetch((5, 5)), side=64, budget=Budget(glimpses=10_000))
    assert reason == "exhausted"
    covered = np.zeros((64, 64), bool)
    for y, x, height, width in found.region[found.depth == found.depth.max()]:
        covered[y : y + height, x : x + width] = True
    assert covered.all()


def test_a_budget_in_bytes_counts_what_was_read():
    spent = iter(range(0, 100_000, 100))
    roots = [root_regions(4096, 4096)]
    with torch.inference_mode():
        found, (reason,) = search(
            TorchEngine(_net()), BrightFetch((9, 9)), roots, np.array([[0, 0, 4096, 4096]]),
            budget=Budget(bytes=1000), policy=Policy(stop=None), bytes_read=lambda _: next(spent),
        )  # fmt: skip
    assert reason == "budget"
    assert len(found.image) == 10


def test_a_budget_in_seconds_ends_the_search():
    _, (reason,) = _search(BrightFetch((9, 9)), budget=Budget(seconds=0.05))
    assert reason == "budget"


def test_images_searched_side_by_side_get_what_they_get_alone():
    targets = [(1500, 2900), (40, 77), (3000, 100)]
    together, _ = _search(BrightFetch(*targets), count=3, budget=Budget(glimpses=12))
    for number, target in enumerate(targets):
        alone, _ = _search(BrightFetch(target), budget=Budget(glimpses=12))
        assert (together.region[together.image == number] == alone.region).all()
        assert np.allclose(together.logits[number], alone.logits[0], atol=1e-4)


def test_nothing_measured_ends_the_search_without_an_answer():
    found, (reason,) = _search(BrightFetch((5, 5), covered=False))
    assert reason == "no_valid_pixels"
    assert len(found.image) == 1


def test_random_search_does_not_follow_the_scores():
    firsts = [
        _search(BrightFetch((0, 0)), budget=Budget(glimpses=2), random=True, seed=s)[0].cell[1]
        for s in range(300)
    ]
    counts = np.bincount(firsts, minlength=49)
    assert counts.max() < 20  # 6 expected; the scores would give 300 to one cell
    assert (counts > 0).sum() > 40


def test_the_same_seed_gives_the_same_random_search():
    first, _ = _search(BrightFetch((0, 0)), random=True, seed=3)
    second, _ = _search(BrightFetch((0, 0)), random=True, seed=3)
    assert (first.region == second.region).all()


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        (64, Budget(glimpses=64)),
        ("64", Budget(glimpses=64)),
        ("50MB", Budget(bytes=50_000_000)),
        ("1.5 kB", Budget(bytes=1500)),
        ("2s", Budget(seconds=2.0)),
        ("0.5s", Budget(seconds=0.5)),
    ],
)
def test_a_budget_is_glimpses_bytes_or_seconds(text, expected):
    assert Budget.parse(text) == expected


@pytest.mark.parametrize("text", ["", "many", "-3", "0", "2.5", "3 minutes", "1e3", "0.2B"])
def test_a_budget_that_is_none_of_these_is_a_config_error(text):
    with pytest.raises(ConfigError, match="budget"):
        Budget.parse(text)


def test_the_most_alike_background_decides_how_far_a_cell_is_put_back():
    known = KnownBackground()
    known.add(np.array([1.0, 0.0], np.float32), 4.0)
    known.add(np.array([0.0, 1.0], np.float32), 2.0)
    assert known.penalty(np.array([1.0, 0.0], np.float32)) == pytest.approx(4.0)
    assert known.penalty(np.array([0.0, 1.0], np.float32)) == pytest.approx(2.0)
    half = np.sqrt(np.array([0.5, 0.5], np.float32))
    assert known.penalty(half) == pytest.approx(4.0 * 0.5**8, rel=1e-4)
    assert known.penalty(np.array([1.0, 0.0], np.float32), since=1) == pytest.approx(0.0, abs=1e-6)


def test_a_background_class_is_never_what_a_search_is_sure_of():
    facts = NetFacts(Grid(), 16, background=1)
    assert confidence(np.array([-50.0, 0.0, -50.0]), facts) < 1e-6
    assert confidence(np.array([50.0, 0.0, -50.0]), facts) > 0.99
    assert confidence(np.array([-50.0, 0.0, -50.0]), replace(facts, background=None)) > 0.99


def test_visited_regions_are_found_again_whatever_the_overlap_allowed():
    rng = np.random.default_rng(0)
    for most in (0.0, 0.1, 1 / 3, 0.5, 0.9, 1.0):
        visited, seen = Visited(most), []
        sizes = [(16, 16), (16, 16), (20, 16), (40, 40)]
        for _ in range(300):
            size = sizes[int(rng.integers(len(sizes)))]
            region = (*rng.integers(-40, 120, 2).tolist(), *size)
            iou = overlaps(np.array([region]), np.array(seen)).max() if seen else 0.0
            assert visited.shows(1, region) == (iou > most)
            assert not visited.shows(2, region)
            if rng.random() < 0.5:
                visited.add(1, region)
                seen.append(region)


def test_the_best_of_all_root_regions_counts_also_when_they_come_in_parts():
    """Of 512 root regions, seen 256 at a time, one in the second part is worth a closer look, and so are its cells:

    they compete with the cells of the other root regions, which are not.
    """
    roots = root_regions(256 * 2, 256 * 256, root_size=256)
    y, x, height, width = roots[300].tolist()

    class Engine:
        facts = NetFacts(Grid(3, 0.25), 16)

        def look(self, pixels, coverage, regions, frames, paths, *, appearance=False):
            n = len(regions)
            stop = regions[:, :2] + regions[:, 2:]
            inside = (regions[:, :2] >= [y, x]).all(1) & (stop <= [y + height, x + width]).all(1)
            value = np.where(inside, 5.0, -8.0).astype(np.float32)
            return Outputs(np.zeros((n, 2)), np.zeros((n, 9)), value, np.zeros((n, 2)), np.zeros(n))

    found, _ = search(
        Engine(),
        lambda image, _: Crops(np.zeros((len(image), 1, 2, 2)), np.ones((len(image), 2, 2))),
        [roots],
        np.array([[0, 0, 512, 256 * 256]]),
        budget=Budget(glimpses=len(roots) + 9 + 30),
        policy=Policy(stop=None, max_overlap=1.0),
    )
    assert set(found.parent[len(roots) : len(roots) + 9].tolist()) == {300}
    assert set(found.parent[len(roots) + 9 :].tolist()) <= set(range(len(roots), len(roots) + 9))


def test_a_budget_of_fewer_glimpses_than_root_regions_sees_some_of_everywhere():
    roots = root_regions(16, 16 * 100)
    for budget in (1, 2, 5, 20):
        found, (reason,) = _searched_roots(roots, Budget(glimpses=budget))
        columns = found.region[:, 1]
        assert (len(columns), reason) == (budget, "budget")
        assert len(set(columns.tolist())) == budget
        if budget > 1:
            assert np.diff(np.sort(np.append(columns, [0, 16 * 99]))).max() <= 2 * 16 * 99 / (budget - 1)


def test_a_budget_in_bytes_binds_among_the_root_regions():
    roots = root_regions(16, 16 * 100)
    asked = []
    found, (reason,) = _searched_roots(
        roots, Budget(bytes=1000), asked, bytes_read=lambda _: 100 * sum(asked)
    )
    assert reason == "budget"
    assert 10 <= len(found.image) <= 16
    assert asked[0] == 1  # what one costs isn't known yet


def test_a_budget_in_seconds_counts_what_was_spent_before_the_search():
    engine, frame = TorchEngine(_net()), np.array([0, 0, 16, 1600])
    running = Search(engine, BrightFetch((0, 0)), budget=Budget(seconds=5.0), policy=Policy(stop=None))
    running.add(0, root_regions(16, 1600), frame, seconds=5.0)
    while not running.step():
        pass
    found, reason, notes = running.take(0)
    assert (len(found.image), reason) == (1, "budget")
    assert "1 of them" in notes[0]


def _searched_roots(roots, budget, asked=None, **options):
    fetch = BrightFetch((0, 0))

    def counted(image, regions):
        if asked is not None:
            asked.append(len(image))
        return fetch(image, regions)

    frame = np.array([[0, 0, 16, 1600]])
    policy = Policy(stop=None)
    return search(TorchEngine(_net()), counted, [roots], frame, budget=budget, policy=policy, **options)


class EvenEngine:
    """Gives every cell of every region the same chance, but for cells that are told not to be looked at."""

    def __init__(self, grid, finest=16, shut=()):
        self.facts, self.shut = NetFacts(Grid(grid, 0.25), finest), list(shut)

    def look(self, pixels, coverage, regions, frames, paths, *, appearance=False):
        n = len(regions)
        logits = np.zeros((n, self.facts.grid.size**2))
        logits[:, self.shut] = -np.inf
        return Outputs(np.zeros((n, 2)), logits, np.zeros(n), np.zeros((n, 2)), np.zeros(n))


def _everything(engine, side, budget=None, **policy):
    running = Search(
        engine,
        lambda image, _: Crops(np.zeros((len(image), 1, 2, 2)), np.ones((len(image), 2, 2))),
        budget=budget or Budget(bytes=10**12),
        policy=Policy(**({"stop": None} | policy)),
    )
    running.add(0, root_regions(side, side, 5, 9), np.array([5, 9, side, side]))
    while not running.step():
        pass
    return running.take(0)


def _seen_at_finest(found, side):
    seen = np.zeros((side, side), bool)
    for y, x, height, width in (found.region - [5, 9, 0, 0])[found.region[:, 2] <= 16]:
        seen[y : y + height, x : x + width] = True
    return seen


def test_a_search_ends_when_all_was_seen_at_the_finest_scale():
    found, reason, (note,) = _everything(EvenEngine(4), 256)
    assert reason == "exhausted"
    assert "larger than the image: after 273 glimpses every part of it" in note
    assert len(found.image) == 1 + 16 + 256


@pytest.mark.parametrize("side", [256, 250])
@pytest.mark.parametrize("policy", [{}, {"random": True}, {"width": 8}, {"max_overlap": 0.9}])
def test_a_search_goes_on_as_long_as_a_part_was_not_seen_and_no_longer(side, policy):
    """Cells overlap by half: there are about four times as many finest regions as cover the image."""
    found, reason, (note,) = _everything(EvenEngine(7), side, **policy)
    assert reason == "exhausted"
    assert "every part of it was seen" in note
    assert _seen_at_finest(found, side).all()
    finest = found.region[found.region[:, 2] <= 16]
    assert 256 < len(finest) < 2 * 256
    before, _, _ = _everything(EvenEngine(7), side, Budget(glimpses=len(found.image) - 8), **policy)
    assert not _seen_at_finest(before, side).all()


def test_a_search_with_less_to_spend_than_the_image_has_visits_what_it_would_without_an_end(monkeypatch):
    few, reason, notes = _everything(EvenEngine(7), 256, Budget(glimpses=256))
    assert (reason, notes) == ("budget", ())
    monkeypatch.setattr("hiresattn.inference.image_search.finest_count", lambda *_: 10**9)
    without, _, (note,) = _everything(EvenEngine(7), 256)
    assert len(without.image) > 900
    assert "no region was left" in note
    assert np.array_equal(without.region[:256], few.region)


def test_a_search_that_runs_out_of_open_cells_says_so():
    found, reason, (note,) = _everything(EvenEngine(4, shut=[0, 7]), 256)
    assert reason == "exhausted"
    assert len(found.image) == 1 + 14 + 14**2
    assert "larger than the image: after 211 glimpses no region was left" in note
    found, reason, notes = _everything(
        EvenEngine(4), 16
    )  # all of it is one finest region: no budget is too large
    assert (len(found.image), reason, notes) == (1, "exhausted", ())


def test_what_no_region_shows_is_known_to_the_px():
    rng = np.random.default_rng(0)
    frame = (7, 3, 150, 190)
    unseen, plain = Unseen(np.array([frame]), 16), np.ones((150, 190), bool)
    for _ in range(1500):
        y, x = rng.integers(-20, 180), rng.integers(-20, 210)
        height, width = rng.integers(1, 24, 2).tolist()
        region = (int(y), int(x), height, width)
        at = (slice(max(y - 7, 0), max(y - 7 + height, 0)), slice(max(x - 3, 0), max(x - 3 + width, 0)))
        assert unseen.px_in(region) == plain[at].sum()
        if rng.random() < 0.5:
            unseen.add(region)
            plain[at] = False
        assert unseen.px == plain.sum()
    assert unseen.px < 4000
    unseen.add(frame)
    assert unseen.px == 0


def test_what_goes_wrong_with_one_image_is_its_own():
    bright = BrightFetch((1, 1), (2, 2), (3, 3))

    def broken(image, regions):
        if (image == 1).any():
            raise OSError("broken")
        return bright(image, regions)

    running = Search(TorchEngine(_net()), broken, budget=Budget(glimpses=5), policy=Policy(stop=None))
    for index in range(3):
        running.add(index, root_regions(256, 256), np.array([0, 0, 256, 256]))
    ended = []
    while len(ended) < 3:
        ended += running.step()
    assert [len(running.take(index)[0].image) for index in (0, 2)] == [5, 5]
    with pytest.raises(OSError, match="broken"):
        running.take(1)
