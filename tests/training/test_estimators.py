"""Estimators against enumeration: on problems so small that every outcome can be listed."""

import itertools
import json
from dataclasses import asdict, replace

import numpy as np
import pytest
import torch

from hiresattn.checkpoint import load_model
from hiresattn.config import InputConfig, LocationConfig, ModelConfig
from hiresattn.datasets.example import Example
from hiresattn.errors import ConfigError
from hiresattn.geometry import Grid
from hiresattn.inference.classify import classify
from hiresattn.model.build import build_model
from hiresattn.model.presets import PRESETS as MODELS
from hiresattn.model.presets import Preset
from hiresattn.model.select import GumbelTopK, Selection, Threshold, TopK, selector
from hiresattn.model.traversal import Traversal
from hiresattn.training.epoch import training_selector
from hiresattn.training.estimators import (
    _without,
    leave_one_out_loss,
    reinforce_baseline,
    reinforce_loss,
    rewards,
    unordered_set_loss,
)
from hiresattn.training.fit import fit
from hiresattn.training.log import choice_diversity
from hiresattn.training.options import CHOICES, TrainOptions, model_config
from hiresattn.training.presets import PRESETS


class Crops:
    def __init__(self, pixels):
        self.pixels = pixels.astype(np.float32)
        self.coverage = np.ones((len(pixels), *pixels.shape[2:]), np.float32)


def _fetch(_image, regions):
    y, x = np.mgrid[0:64, 0:64] / 64
    plane = np.sin(regions[:, 0, None, None] / 50 + y) + np.cos(regions[:, 1, None, None] / 70 + x)
    return Crops(plane[:, None])


SMALL = ModelConfig(
    classes=("a", "b"),
    input=InputConfig(bands=(0,), low=(0.0,), high=(255.0,)),
    grid=Grid(2, 0.5, "tnet"),
    aggregator="mean",
    value=False,
    position=None,
    location=LocationConfig(detach=True),
)
ROOTS, FRAME = [np.array([[0, 0, 128, 128]])], np.array([[0, 0, 128, 128]])


class Always:
    """Chooses given cells."""

    def __init__(self, cells):
        self.cells = torch.tensor([cells])

    def __call__(self, logits, _k, _cells, _image):
        chosen = self.cells.expand(len(logits), -1)
        return Selection(
            chosen, logits.log_softmax(1).gather(1, chosen), torch.ones_like(chosen, dtype=torch.bool)
        )


def _record(cells, logits, image_logits, glimpse_logits, depth=None, parent=None):
    """A traversal of one image: the first look, then a glimpse per cell."""
    count = len(cells) + 1
    depth = np.array([0, *[1] * len(cells)]) if depth is None else np.array(depth)
    parent = np.array([-1, *[0] * len(cells)]) if parent is None else np.array(parent)
    log_prob = torch.cat([torch.zeros(1), logits.log_softmax(0)[cells]])
    return Traversal(
        image=np.zeros(count, np.int64),
        depth=depth,
        parent=parent,
        cell=np.array([-1, *cells]),
        region=np.arange(4 * count).reshape(count, 4),
        coverage=np.ones(count),
        log_prob=log_prob,
        value=torch.zeros(count),
        weight=torch.full((count,), 1 / count),
        cell_logits=logits[None].expand(count, -1),
        features=torch.zeros(count, 2),
        glimpse_logits=glimpse_logits,
        logits=image_logits,
    )


def _answer(right):
    return torch.tensor([[3.0, -3.0]] if right else [[-3.0, 3.0]])


LABEL = torch.zeros(1, dtype=torch.int64)


# ---------------------------------------------------------------- straight-through


def test_straight_through_is_exact_where_the_answer_is_linear_in_the_feature():
    torch.manual_seed(0)
    net = build_model(SMALL).eval()
    torch.nn.init.normal_(net.scorer.out.weight)
    names = list(net.scorer.parameters())
    mean, exact = [torch.zeros_like(p) for p in names], 0
    for cell in range(4):
        found = net(_fetch, ROOTS, FRAME, select=Always([cell]), k=(1,))
        chance = found.log_prob[1].exp()
        gradients = torch.autograd.grad(found.logits[0, 0], names, retain_graph=True)
        mean = [m + chance.detach() * g for m, g in zip(mean, gradients, strict=True)]
        exact = exact + chance * found.logits[0, 0].detach()
    expected = torch.autograd.grad(exact, names)
    assert max(float(e.abs().max()) for e in expected) > 1e-4
    for found, wanted in zip(mean, expected, strict=True):
        assert torch.allclose(found, wanted, atol=1e-5)


# ---------------------------------------------------------------- the published loss


@pytest.mark.parametrize("image_reward", [1.0, 0.3, 0.0])
@pytest.mark.parametrize("baseline", [0.5, 0.0])
def test_reinforce_of_a_sampled_cell_climbs_the_expected_reward(image_reward, baseline):
    image_right, glimpse_right = [1, 0, 0, 1], [0, 1, 0, 1]
    logits = torch.tensor([0.3, -0.2, 0.9, 0.0], requires_grad=True)
    chance = logits.softmax(0)
    mean = torch.zeros(4)
    for cell in range(4):
        glimpses = torch.cat([_answer(0), _answer(glimpse_right[cell])])
        record = _record([cell], logits, _answer(image_right[cell]), glimpses)
        loss = reinforce_loss(record, LABEL, baseline, weight=2.0, image_reward=image_reward).alone()
        mean += chance[cell].detach() * torch.autograd.grad(loss, logits, retain_graph=True)[0]
    reward = image_reward * torch.tensor(image_right) + (1 - image_reward) * torch.tensor(glimpse_right)
    expected = torch.autograd.grad(-2.0 * (chance * reward).sum(), logits)[0]
    assert torch.allclose(mean, expected, atol=1e-6)


def test_the_published_loss_is_its_formula():
    logits = torch.tensor([0.3, -0.2, 0.9, 0.0], requires_grad=True)
    glimpses = torch.tensor([[0.1, 0.4], [2.0, 1.0], [-1.0, 0.5]])
    image = torch.tensor([[0.2, 0.1]])
    found = reinforce_loss(
        _record([1, 2], logits, image, glimpses), LABEL, 0.5, weight=0.1, image_ce=0.3, image_reward=0.2
    )
    log_p = logits.log_softmax(0)
    image_ce, glimpse_ce = -image.log_softmax(1)[0, 0], -glimpses.log_softmax(1)[:, 0].mean()
    image_term = (1 - 0.5) * -(log_p[1] + log_p[2])
    glimpse_term = ((1 - 0.5) * -log_p[1] + (0 - 0.5) * -log_p[2]) / 2
    expected = 0.3 * image_ce + 0.7 * glimpse_ce + 0.1 * 0.2 * image_term + 0.1 * 0.8 * glimpse_term
    assert found.alone().item() == pytest.approx(expected.item(), abs=1e-6)
    assert reinforce_baseline(found.sums, 0.5, 0.2) == pytest.approx(0.9 * 0.5 + 0.1 * (0.2 * 1 + 0.8 * 0.5))


def test_beyond_the_cap_only_the_image_counts():
    logits = torch.tensor([0.3, -0.2, 0.9, 0.0], requires_grad=True)
    deep = {"depth": [0, 1, 2], "parent": [-1, 0, 1]}
    right = torch.cat([_answer(1), _answer(1), _answer(1)])
    wrong = torch.cat([_answer(1), _answer(1), _answer(0)])
    a, b = (_record([1, 2], logits, _answer(1), g, **deep) for g in (right, wrong))
    assert reinforce_loss(a, LABEL, 0.5, depths=2).alone() == reinforce_loss(b, LABEL, 0.5, depths=2).alone()
    assert reinforce_loss(a, LABEL, 0.5).alone() != reinforce_loss(b, LABEL, 0.5).alone()
    alone = reinforce_loss(b, LABEL, 0.5, depths=2, image_reward=1.0, weight=1.0).alone()
    gradient = torch.autograd.grad(alone, logits)[0]
    log_p = logits.log_softmax(0)
    expected = torch.autograd.grad(-(1 - 0.5) * (log_p[1] + log_p[2]), logits)[0]
    assert torch.allclose(gradient, expected, atol=1e-6)


def test_an_image_that_is_one_glimpse_has_no_location_term():
    logits = torch.tensor([0.3, -0.2], requires_grad=True)
    record = _record([], logits, _answer(1), _answer(1))
    found = reinforce_loss(record, LABEL, 0.5)
    assert found.alone().isfinite()
    assert reinforce_baseline(found.sums, 0.5, 0.3) == pytest.approx(0.55)


def _gradients(weight, baseline=0.5, *, sure=False):
    torch.manual_seed(0)
    net = build_model(replace(SMALL, location=LocationConfig(detach=True, normalize=True)))
    if sure:
        torch.nn.init.constant_(net.classifier.bias[:1], 50.0)
    found = net(_fetch, ROOTS * 2, FRAME.repeat(2, 0), select=TopK(), k=(2,), straight_through=False)
    labels = torch.zeros(2, dtype=torch.int64)
    reinforce_loss(found, labels, baseline, weight=weight).alone().backward()
    return {name: p.grad for name, p in net.named_parameters()}


def test_the_backbone_never_feels_reinforce():
    without, with_it = _gradients(0.0), _gradients(0.1)
    for name, gradient in without.items():
        if not name.startswith("scorer."):
            assert torch.equal(gradient, with_it[name]), name
    assert any(
        float(g.abs().max()) > 0
        for name, g in with_it.items()
        if name.startswith("scorer.") and g is not None
    )


def test_locations_feel_nothing_where_the_reward_is_the_baseline():
    for baseline, silent in ((1.0, True), (0.5, False)):
        found = _gradients(0.1, baseline, sure=True)
        moved = max(float(g.abs().max()) for name, g in found.items() if name.startswith("scorer."))
        assert (moved == 0) == silent


# ---------------------------------------------------------------- sampling without replacement


def _ordered_chance(prob, order):
    left, chance = 1.0, 1.0
    for cell in order:
        chance = chance * prob[cell] / left
        left = left - prob[cell]
    return chance


@pytest.mark.parametrize("k", [1, 2, 3, 4])
def test_the_set_estimate_is_unbiased(k):
    logits = torch.tensor([0.3, -0.7, 1.2, 0.1, -0.4], dtype=torch.float64, requires_grad=True)
    reward = torch.tensor([0.9, 0.1, 0.4, 0.0, 1.0], dtype=torch.float64)
    prob = logits.softmax(0)
    mean = torch.zeros(5, dtype=torch.float64)
    for order in itertools.permutations(range(5), k):
        cells = torch.tensor([order])
        gradient = torch.autograd.grad(
            unordered_set_loss(logits[None], cells, reward[cells]).sum(), logits, retain_graph=True
        )
        mean += _ordered_chance(prob.detach(), order) * gradient[0]
    expected = torch.autograd.grad(-(prob * reward).sum(), logits)[0]
    assert torch.allclose(mean, expected, atol=1e-10)


def test_the_set_loss_of_many_cells_costs_little_and_is_the_sum_over_orders():
    generator = torch.Generator().manual_seed(0)
    odds = torch.rand(3, 5, generator=generator, dtype=torch.float64) * torch.tensor([[0.1], [1.0], [100.0]])
    one, two = _without(odds)

    def first(members):  # of clocks with these rates and one of rate 1, the chance that the last is the last
        total = 0.0
        for order in itertools.permutations(members):
            chance, left = 1.0, 1 + sum(members)
            for rate in order:
                chance, left = chance * rate / left, left - rate
            total += chance
        return total

    for row, rates in enumerate(odds.tolist()):
        for gone in range(5):
            rest = rates[:gone] + rates[gone + 1 :]
            assert one[row, gone].item() == pytest.approx(first(rest) / first(rates), rel=1e-9)
            assert two[row, gone, 0 if gone else 1].item() == pytest.approx(
                first(rest[1:]) / first(rates), rel=1e-9
            )
    logits = torch.randn(8, 64, generator=generator, requires_grad=True)
    cells = torch.stack([torch.randperm(64, generator=generator)[:40] for _ in range(8)])
    loss = unordered_set_loss(logits, cells, torch.rand(8, 40, generator=generator))
    (gradient,) = torch.autograd.grad(loss.sum(), logits)
    assert gradient.isfinite().all()
    assert gradient.sum(1).abs().max() < 1e-4


def test_siblings_are_a_baseline_that_lessens_the_variance():
    logits = torch.tensor([0.3, -0.7, 1.2, 0.1, -0.4], dtype=torch.float64, requires_grad=True)
    reward = 5 + torch.tensor([0.9, 0.1, 0.4, 0.0, 1.0], dtype=torch.float64)
    prob = logits.softmax(0).detach()
    second = {1: 0.0, 3: 0.0}
    for k in second:
        for order in itertools.permutations(range(5), k):
            cells = torch.tensor([order])
            gradient = torch.autograd.grad(
                unordered_set_loss(logits[None], cells, reward[cells]).sum(), logits
            )[0]
            second[k] += float(_ordered_chance(prob, order) * (gradient**2).sum())
    assert second[3] < 0.05 * second[1]


def test_equal_rewards_give_no_gradient():
    logits = torch.tensor([[0.3, -0.7, 1.2, 0.1]], requires_grad=True)
    for cells in itertools.combinations(range(4), 2):
        # p(s)f + E of the others' f = f only in the mean over sets, so exact cancellation needs all cells
        assert unordered_set_loss(logits, torch.tensor([cells]), torch.ones(1, 2)).isfinite().all()
    everything = torch.arange(4)[None]
    gradient = torch.autograd.grad(unordered_set_loss(logits, everything, torch.ones(1, 4)).sum(), logits)[0]
    assert gradient.abs().max() < 1e-6


def test_a_single_cell_has_the_other_rows_for_its_baseline():
    logits = torch.zeros((3, 4), requires_grad=True)
    reward = torch.tensor([[0.2], [0.6], [1.0]])
    gradient = torch.autograd.grad(
        unordered_set_loss(logits, torch.tensor([[0], [1], [2]]), reward).sum(), logits
    )[0]
    for row, (cell, advantage) in enumerate([(0, 0.2 - 0.8), (1, 0.0), (2, 1.0 - 0.4)]):
        one_hot = torch.nn.functional.one_hot(torch.tensor(cell), 4)
        assert torch.allclose(gradient[row], -advantage * (one_hot - 0.25), atol=1e-6)


@pytest.mark.parametrize("gap", [0.0, 5.0, 30.0, 60.0, 200.0])
def test_ratios_are_right_however_much_likelier_one_cell_is(gap):
    """A set of one cell ``gap`` above eight, and one of the eight."""
    prob = torch.tensor([gap] + [0.0] * 8, dtype=torch.float64).softmax(0)
    others = prob[2:].sum()
    one, _ = _without((prob[:2] / others)[None])
    a, b = (float(p / others) for p in prob[:2])
    first, second = a / (a + 1), b / (b + 1)  # alone, with the other gone
    both = a / (a + b + 1) * second + b / (a + b + 1) * first
    assert one[0].tolist() == pytest.approx([second / both, first / both], rel=1e-10)
    logits, reward = torch.tensor([[gap] + [0.0] * 8]), torch.tensor([[0.0, 1.0]])
    loss = unordered_set_loss(logits, torch.tensor([[0, 1]]), reward).item()
    # p(s) R(s) (f(s) - baseline), with the baseline p f of all, each after s: of the second cell f = 1
    chance, ratio = float(prob[1]), one[0].tolist()
    after = [1 / both / ratio[0], 1.0]
    expected = -sum(float(prob[n]) * ratio[n] * (n - chance * after[n]) for n in range(2))
    assert loss == pytest.approx(expected, abs=1e-5)


@pytest.mark.parametrize("logits", [[-100.0] + [0.0] * 8, [0.0, -40.0, -200.0, -1000.0]])
def test_a_cell_that_was_all_but_impossible_leaves_the_loss_finite(logits):
    for count in range(1, len(logits) + 1):
        given = torch.tensor([logits], requires_grad=True)
        loss = unordered_set_loss(
            given, torch.arange(count)[None], torch.linspace(0.1, 0.9, count)[None]
        ).sum()
        (gradient,) = torch.autograd.grad(loss, given)
        assert loss.isfinite()
        assert gradient.isfinite().all()


def test_cells_that_are_absent_or_sure_break_nothing():
    logits = torch.tensor([[40.0, 0.0, -40.0, -torch.inf]], requires_grad=True)
    loss = unordered_set_loss(logits, torch.tensor([[0, 1, 2]]), torch.tensor([[0.1, 0.9, 0.5]]))
    gradient = torch.autograd.grad(loss.sum(), logits)[0]
    assert loss.isfinite().all()
    assert gradient.isfinite().all()


@pytest.mark.parametrize(
    ("own", "best"),
    [
        ((0.5, 0.2, 0.3, 0.9), [0.9, 0.9, 0.3, 0.9]),  # below the first child
        ((0.5, 0.2, 0.8, 0.6), [0.8, 0.6, 0.8, 0.6]),  # the last child
        ((0.7, 0.6, 0.1, 0.2), [0.7, 0.6, 0.1, 0.2]),  # each is better than what is below it
    ],
)
def test_a_choice_is_rewarded_by_the_best_below_it(own, best):
    glimpses = torch.stack([torch.tensor([p, 1 - p]).log() for p in own])
    logits = torch.zeros(4)
    record = _record([0, 1, 2], logits, _answer(1), glimpses, depth=[0, 1, 1, 2], parent=[-1, 0, 0, 1])
    assert rewards(record, LABEL).tolist() == pytest.approx(best)


def test_the_traversals_loss_is_that_of_its_regions():
    torch.manual_seed(0)
    net = build_model(replace(SMALL, grid=Grid(3, 0.5, "tnet")))
    roots, frame = [np.array([[0, 0, 256, 256]])], np.array([[0, 0, 256, 256]])
    select = GumbelTopK(torch.Generator().manual_seed(0))
    found = net(_fetch, roots, frame, select=select, k=(3, 2), straight_through=False)
    reward = torch.from_numpy(rewards(found, LABEL))
    expected = []
    for parent in np.unique(found.parent[found.parent >= 0]).tolist():
        rows = np.flatnonzero(found.parent == parent)
        cells = torch.from_numpy(found.cell[rows])[None]
        expected.append(unordered_set_loss(found.cell_logits[parent][None], cells, reward[rows][None])[0])
    assert len(expected) == 4
    assert leave_one_out_loss(found, LABEL).alone().item() == pytest.approx(
        torch.stack(expected).mean().item(), abs=1e-6
    )
    leave_one_out_loss(found, LABEL).alone().backward()
    assert net.scorer.out.weight.grad.abs().max() > 0
    assert net.encoder.layers[0][0].weight.grad is None


def test_no_choice_no_loss():
    record = _record([], torch.zeros(4), _answer(1), _answer(1))
    assert leave_one_out_loss(record, LABEL) is None
    assert choice_diversity(record) is None


# ---------------------------------------------------------------- collapse


def test_choices_that_vary_and_choices_that_collapsed():
    free = _record([0, 1, 2, 3], torch.zeros(4), _answer(1), torch.zeros(5, 2))
    assert choice_diversity(free)[:3] == pytest.approx((1.0, 1.0, 1.0))
    sure = torch.tensor([50.0, 0.0, 0.0, 0.0])
    stuck = _record([0, 0], sure, _answer(1), torch.zeros(3, 2))
    same = replace(stuck, region=np.zeros((3, 4), np.int64))
    assert choice_diversity(same)[:3] == pytest.approx((0.0, 0.0, 0.5), abs=1e-6)
    assert choice_diversity(same).open == 1.0


def test_the_share_of_open_gates_is_measured():
    record = _record([0, 1], torch.tensor([2.0, 1.0, -1.0, -torch.inf]), _answer(1), torch.zeros(3, 2))
    assert choice_diversity(record, 0.0).open == 0.5


def test_cells_that_are_absent_are_no_choice():
    logits = torch.tensor([0.0, 0.0, -torch.inf, -torch.inf])
    record = _record([0, 1], logits, _answer(1), torch.zeros(3, 2))
    assert choice_diversity(record).entropy == pytest.approx(1.0)


# ---------------------------------------------------------------- in training


def _sides(count, split="train", side=64):
    """Noise; a bright spot left or right of the middle says the class."""
    rng = np.random.default_rng([count, len(split)])
    for number in range(count):
        image = rng.integers(90, 160, (side, side + 16, 1)).astype(np.uint8)
        x = 8 if number % 2 else side - 16
        image[16:40, x : x + 16] = 255
        yield Example(image, "left" if number % 2 else "right", split)


@pytest.mark.parametrize(
    ("estimator", "stop"), list(zip(CHOICES["estimator"], itertools.cycle([False, True]), strict=False))
)
def test_every_estimator_trains_resumes_bit_by_bit_and_says_how_varied_it_chose(tmp_path, estimator, stop):
    options = TrainOptions(
        epochs=2, batch_size=8, threads=0, device="cpu", crop_size=16, k=(3,), grid=3, fraction=0.5,
        estimator=estimator, detach_scorer=stop, select="best" if estimator == "reinforce" else "sample",
    )  # fmt: skip
    examples = [*_sides(16), *_sides(4, "val")]
    records = list(fit(examples, tmp_path / "whole", options))
    for record in records:
        assert 0 <= record.entropy <= 1
        assert 0 < record.spread <= 1
        assert 0 < record.distinct <= 1
    next(fit(examples, tmp_path / "parts", options))
    assert list(fit(examples, tmp_path / "parts", options, resume=True))[-1].loss == records[-1].loss
    whole, parts = (load_model(tmp_path / name).net for name in ("whole", "parts"))
    for mine, other in zip(whole.parameters(), parts.parameters(), strict=True):
        assert torch.equal(mine, other)
    assert whole.scorer.detach == stop


def test_the_papers_recipe_trains_the_papers_parts(tmp_path, monkeypatch):
    """Its options with small parts in place of the large ones: squashed, best cells, no gate, no value."""
    parts = replace(
        SMALL, location=LocationConfig(detach=True, normalize=True), position="path-sum", dropout=0.5
    )
    monkeypatch.setitem(MODELS, "tiny", Preset(parts, 2, (2,)))
    options = replace(
        PRESETS["tnet-fmow"], architecture="tiny", crop_size=16, squash=32, k=(2,), epochs=2, batch_size=8,
        threads=0, device="cpu", lr=1e-3,
    )  # fmt: skip
    records = list(fit([*_sides(16), *_sides(4, "val")], tmp_path / "model", options))
    model = load_model(tmp_path / "model")
    assert model.config.input.squash == 32
    assert model.config.input.filter == "bilinear"
    assert (model.config.input.low, model.config.input.high) == ((0.0,), (255.0,))
    assert model.net.value is None
    assert records[-1].glimpses == 3
    found = classify(next(_sides(1)).source, model, policy="top-k", device="cpu")
    assert len(found.regions) == 3


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"estimator": "reinforced"}, "did you mean 'reinforce'"),
        ({"select": "bests"}, "did you mean 'best'"),
        ({"augment": "turn"}, "did you mean 'turns'"),
        ({"architecture": "tnet-fmov"}, "did you mean 'tnet-fmow'"),
    ],
)
def test_options_that_do_not_exist_name_their_neighbour(change, words):
    with pytest.raises(ConfigError, match=words):
        TrainOptions(**change)


def test_gates_are_not_taken_for_cells_drawn_without_replacement():
    net = build_model(replace(SMALL, scorer="mask"))
    for estimator, kind in (("reinforce-loo", GumbelTopK), ("straight-through", Threshold)):
        options = TrainOptions(scorer="mask", estimator=estimator)
        assert type(training_selector(net, options, torch.Generator())) is kind
    logits = torch.tensor([[1.0, 0.0, -2.0]], dtype=torch.float64, requires_grad=True)
    reward, prob = torch.tensor([1.0, 0.5, 0.0], dtype=torch.float64), logits.softmax(1)[0]
    (wanted,) = torch.autograd.grad((prob * reward).sum(), logits, retain_graph=True)
    cells = torch.zeros(40_000, 3, 4, dtype=torch.int64)
    for gate, right in ((None, True), (0.0, False)):
        select = selector(gate, torch.Generator().manual_seed(0))
        chosen = select(logits.detach().expand(40_000, 3), 1, cells, np.zeros(40_000)).cell
        loss = unordered_set_loss(logits.expand(40_000, 3), chosen, reward[chosen]).mean()
        (found,) = torch.autograd.grad(-loss, logits)
        assert torch.allclose(found, wanted, atol=0.005) == right


@pytest.mark.parametrize("name", sorted(set(PRESETS) & {*MODELS, "tnet-fmow-448"}))
def test_a_recipe_of_the_paper_makes_its_model(name):
    options = PRESETS[name]
    preset = MODELS[options.architecture]
    rule = InputConfig(size=options.crop_size, squash=options.squash, filter=options.filter)
    config = model_config(options, ("a", "b"), rule)
    assert config.input.size == preset.at(options.squash).input.size
    assert config.grid == preset.config.grid
    assert config.location == preset.config.location
    assert options.k == (preset.k or (0,)) or name == "tnet-fmow-448"
    assert (options.optimizer, options.schedule, options.warm_up, options.clip) == ("adam", "step", 0, None)


def test_the_papers_range_of_the_scores_is_an_option_of_any_model():
    for normalize in (False, True):
        options = TrainOptions(normalize_scores=normalize)
        assert model_config(options, ("a", "b"), InputConfig()).location.normalize == normalize


@pytest.mark.parametrize("name", sorted(PRESETS))
def test_a_recipe_is_valid_json(name):
    json.dumps(asdict(PRESETS[name]), allow_nan=False)
