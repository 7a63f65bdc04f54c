"""The mask: its gates against published numbers, its budget, the loss that collapses, and selection by gates."""

import math

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn import functional

from hiresattn.config import ModelConfig, ScorerConfig
from hiresattn.errors import ConfigError
from hiresattn.geometry import Grid, cell_regions, root_regions
from hiresattn.inference.budget import Budget
from hiresattn.inference.image_search import Policy
from hiresattn.inference.search import search
from hiresattn.inference.torch_engine import TorchEngine
from hiresattn.model.build import build_model
from hiresattn.model.scorers import MaskScorer, Scored, ScorerInput, Target
from hiresattn.model.scorers.mask import (
    MOST,
    OPEN,
    TEMPERATURE,
    binary_sparsity,
    hard_concrete,
    open_probability,
)
from hiresattn.model.select import Threshold, selector
from hiresattn.reading.fetch import Crops
from hiresattn.training.targets import TargetSelector


def _target(rows, progress=1.0):
    return Target(
        torch.zeros(rows, dtype=torch.int64), torch.ones(rows), torch.ones(rows, dtype=torch.bool), progress
    )


def _cells(rows, grid=3):
    regions = np.repeat(root_regions(256, 256), rows, axis=0)
    return torch.from_numpy(cell_regions(regions, Grid(grid, 0.5), 64))


def _scorer(**options):
    return MaskScorer(channels=8, grid=3, **options)


def test_hard_concrete_gates_have_the_published_values():
    logits = torch.tensor([0.0, -2.0])
    assert open_probability(logits).tolist() == pytest.approx([0.8318, 0.4010], abs=5e-5)
    assert hard_concrete(logits).tolist() == pytest.approx([0.5, 0.0430], abs=5e-5)


def test_the_probability_of_an_open_gate_is_that_of_the_noisy_one():
    generator = torch.Generator().manual_seed(0)
    u = torch.rand(400_000, generator=generator)
    for logit in (-2.0, 0.0, 1.0):
        m = (torch.sigmoid((u.logit() + logit) / (2 / 3)) * 1.2 - 0.1).clamp(0, 1)
        assert float((m > 0).float().mean()) == pytest.approx(
            float(open_probability(torch.tensor(logit))), abs=0.003
        )
        assert float((m > 0.5).float().mean()) == pytest.approx(1 / (1 + math.exp(-logit)), abs=0.003)


def test_a_fresh_mask_is_open_whatever_the_initialisation():
    view = ScorerInput((torch.randn(2, 8, 8, 8),), torch.zeros(2, 5), torch.full((2,), 0.5))
    scorer = _scorer()
    nn.init.zeros_(scorer.out.weight)
    nn.init.zeros_(scorer.out.bias)
    assert torch.allclose(scorer(view).logits, torch.full((2, 3, 3), OPEN))


def test_the_multiplier_grows_while_the_area_is_over_the_budget_and_shrinks_below_it():
    scorer = _scorer(area=0.5)
    wide, narrow = (Scored(torch.full((4, 3, 3), value)) for value in (3.0, -6.0))
    before = float(scorer.multiplier)
    losses = [float(scorer.losses(wide, _target(4))["area"].alone()) for _ in range(300)]
    grown = float(scorer.multiplier)
    assert grown > 2 * before
    assert losses[-1] > losses[0] > 0
    for _ in range(600):
        scorer.losses(narrow, _target(4))["area"].alone()
    assert float(scorer.multiplier) < grown
    scorer.multiplier.fill_(1e9)
    scorer.losses(wide, _target(4))["area"].alone()
    assert float(scorer.multiplier) == MOST
    assert {"multiplier", "slack"} <= scorer.state_dict().keys()


def test_the_allowed_area_falls_from_all_to_the_budget():
    logits = torch.full((4, 3, 3), 2.0)
    slack = []
    for progress in (0.0, 0.25, 0.5, 1.0):
        scorer = _scorer(area=0.2)
        scorer.losses(Scored(logits), _target(4, progress))["area"].alone()
        slack.append(float(scorer.slack) / 0.01)
    area = float(open_probability(torch.tensor(2.0)))
    assert slack == pytest.approx([area - 1, area - 0.6, area - 0.2, area - 0.2], abs=1e-5)


def test_within_the_area_the_loss_is_0():
    scorer = _scorer(area=0.5)
    for value, pressed in ((-4.0, False), (4.0, True)):
        scorer.slack.zero_()
        logits = torch.full((1, 3, 3), value, requires_grad=True)
        scorer.losses(Scored(logits), _target(1))["area"].alone().backward()
        assert (logits.grad.abs().max() > 0) == pressed


def test_only_regions_that_are_divided_count():
    logits = torch.zeros((2, 3, 3), requires_grad=True)
    target = _target(2)._replace(divided=torch.tensor([True, False]))
    _scorer().losses(Scored(logits), target)["area"].alone().backward()
    assert logits.grad[0].abs().min() > 0
    assert logits.grad[1].abs().max() == 0
    assert _scorer().losses(Scored(logits), target._replace(divided=torch.zeros(2, dtype=torch.bool))) == {}


def test_binary_sparsity_has_its_maximum_where_the_algebra_says():
    for alpha, expected in ((0.1, 0.519), (0.25, 0.558), (0.5, 0.667), (0.75, 0.889)):
        mask = torch.linspace(0, 1, 100_001, dtype=torch.float64)
        values = torch.stack([alpha * mask + (1 - alpha) * _entropy(mask)])[0]
        one = torch.stack([binary_sparsity(mask[[i]], alpha, 1e-6) for i in (0, 50_000, 100_000)])
        assert torch.allclose(one, values[[0, 50_000, 100_000]], atol=1e-4)
        assert float(mask[values.argmax()]) == pytest.approx(expected, abs=1e-3)


def _entropy(mask):
    return -(torch.xlogy(mask, mask) + torch.xlogy(1 - mask, 1 - mask)) / math.log(2)


def _toy(loss_of, steps):
    """25 cells, one of which holds the class and a mark; the mask multiplies the cells: accuracy and open share."""
    torch.manual_seed(1)
    gates = nn.Sequential(nn.Linear(6, 16), nn.ReLU(), nn.Linear(16, 1))
    head = nn.Linear(6, 4)
    optimizer = torch.optim.Adam([*gates.parameters(), *head.parameters()], lr=0.01)
    rows, right, opened = torch.arange(32), [], []
    for number in range(steps):
        label, place = torch.randint(4, (32,)), torch.randint(25, (32,))
        cells = 0.3 * torch.randn(32, 25, 6)
        cells[..., :4] += functional.one_hot(torch.randint(4, (32, 25)), 4)
        cells[rows, place] = 0.3 * torch.randn(32, 6)
        cells[rows, place, label] += 1
        cells[rows, place, 4] += 1
        mask, own = loss_of(gates(cells)[..., 0], number / steps)
        logits = head((mask[..., None] * cells).sum(1))
        optimizer.zero_grad()
        (functional.cross_entropy(logits, label) + own).backward()
        optimizer.step()
        right.append(float((logits.argmax(1) == label).float().mean()))
        opened.append(float((mask > 0.5).float().mean()))
    return np.mean(right[-50:]), np.mean(opened[-50:])


def test_the_historical_loss_collapses_where_the_budget_does_not():
    def historical(logits, _progress):
        mask = functional.hardsigmoid(logits)
        return mask, binary_sparsity(mask, 0.5, 1e-6)

    scorer = _scorer(area=0.08)

    def budgeted(logits, progress):
        logits = logits + OPEN
        u = torch.rand_like(logits).clamp(1e-6, 1 - 1e-6)
        mask = hard_concrete((u.logit() + logits) / TEMPERATURE)
        return mask, scorer.losses(Scored(logits), _target(len(logits), progress))["area"].alone()

    accuracy, area = _toy(historical, 400)
    assert area == 0
    assert accuracy < 0.32  # chance is 1/4
    accuracy, area = _toy(budgeted, 800)
    assert 0.02 < area < 0.1
    assert accuracy > 0.6


def test_collapsed_masks_have_no_gradient():
    logits = torch.full((1, 3, 3), -4.0, requires_grad=True)
    loss = _scorer(sparsity=(0.5, 1.0, 1e-6)).losses(Scored(logits), _target(1))["area"].alone()
    loss.backward()
    assert logits.grad.abs().max() == 0
    fresh = torch.zeros((1, 3, 3), requires_grad=True)
    _scorer(sparsity=(0.5, 1.0, 1e-6)).losses(Scored(fresh), _target(1))["area"].alone().backward()
    assert fresh.grad.min() > 0  # descent shuts them


def test_the_number_of_cells_depends_on_the_gates():
    logits = torch.tensor([[3.0, 2.0, 1.0, -1, -1, -1, -1, -1, -1], [-3.0, -2, -1, -4, -5, -6, -7, -8, -9]])
    chosen = Threshold(0.0)(logits, 4, _cells(2), np.zeros(2))
    assert chosen.valid.sum(1).tolist() == [3, 1]
    assert chosen.cell[0, chosen.valid[0]].tolist() == [0, 1, 2]
    assert chosen.cell[1, chosen.valid[1]].tolist() == [2]  # never none
    assert Threshold(0.0)(logits, 2, _cells(2), np.zeros(2)).valid.sum(1).tolist() == [2, 1]  # at most k


def test_cells_without_a_valid_px_stay_closed():
    logits = torch.full((1, 9), -torch.inf)
    assert not Threshold(0.0)(logits, 3, _cells(1), np.zeros(1)).valid.any()
    logits[0, 4] = -1.0
    for generator in (None, torch.Generator().manual_seed(0)):
        chosen = Threshold(0.0, generator)(logits, 3, _cells(1), np.zeros(1))
        assert chosen.cell[0, chosen.valid[0]].tolist() == [4]


def test_sampled_gates_open_with_their_probability():
    rows = 100_000
    logits = torch.tensor([[-1.0, 0.5, 2.0]]).repeat(rows, 1)
    cells = torch.zeros((rows, 3, 4), dtype=torch.int64)
    chosen = Threshold(0.0, torch.Generator().manual_seed(0))(logits, 3, cells, np.zeros(rows))
    open_ = torch.zeros((rows, 3)).scatter(1, chosen.cell, chosen.valid.float())
    shut = 1 - torch.sigmoid(logits[0])
    nobody = float(shut.prod())
    assert open_[:, 1].mean() >= float(torch.sigmoid(torch.tensor(0.5)))
    assert float(open_.mean(0).sum()) == pytest.approx(float((1 - shut).sum()) + nobody, abs=0.01)
    assert torch.allclose(chosen.log_prob.exp().sum(1), torch.ones(rows), atol=1e-5)  # all three, by softmax


def test_straight_through_stays_finite_where_probabilities_underflow():
    logits = torch.tensor([[-400.0, 400.0, -800.0]], requires_grad=True)
    for select in (Threshold(0.0), selector(None)):
        log_prob = select(logits, 3, torch.zeros((1, 3, 4), dtype=torch.int64), np.zeros(1)).log_prob
        assert (log_prob.exp() == 0).any()  # p / sg(p) would be 0 / 0
        factor = (log_prob - log_prob.detach()).exp()
        assert torch.equal(factor, torch.ones_like(factor))
        (gradient,) = torch.autograd.grad(factor.sum(), logits)
        assert gradient.isfinite().all()
        assert gradient.abs().max() > 0


def test_a_guided_choice_opens_the_gate_on_the_target():
    logits = torch.tensor([[5.0, -1, -1, -1, -1, -1, -1, -1, -2.0]])
    box = np.array([[180, 180, 40, 40]])
    chosen = TargetSelector(Threshold(0.0), [box], np.random.default_rng(0))(
        logits, 9, _cells(1), np.zeros(1, int)
    )
    assert 8 in chosen.cell[0, chosen.valid[0]].tolist()
    assert chosen.valid.sum() == 2


def _net(open_cells):
    net = build_model(ModelConfig(classes=("a", "b"), scorer="mask", grid=Grid(3, 0.5))).eval()
    logits = torch.linspace(-1.5, -1, 9).view(3, 3).flip(1)
    logits.view(-1)[open_cells] += 2

    class Fixed(MaskScorer):
        def forward(self, view):
            return Scored(logits.repeat(len(view.features), 1, 1))

    net.scorer = Fixed(channels=64, grid=3)
    return net


def _blank(image, regions):
    return Crops(np.zeros((len(image), 3, 64, 64), np.float32), np.ones((len(image), 64, 64), np.float32))


@pytest.mark.parametrize(("open_cells", "glimpses"), [([0, 2, 8], 4), ([], 2), ([4], 2)])
def test_a_search_opens_only_open_gates_and_then_is_done(open_cells, glimpses):
    whole = np.array([[0, 0, 128, 128]])
    net = _net(open_cells)
    with torch.inference_mode():
        seen, reasons = search(
            TorchEngine(net), _blank, [whole], whole, budget=Budget(glimpses=64), policy=Policy(stop=None)
        )
        flat = net(_blank, [whole], whole, select=selector(net.scorer.gate), k=(9,))
        anywhere, _ = search(
            TorchEngine(net),
            _blank,
            [whole],
            whole,
            budget=Budget(glimpses=64),
            policy=Policy(stop=None, random=True, max_overlap=1),
        )
    assert len(seen.image) == len(flat.image) == glimpses
    assert reasons == ["exhausted"]
    assert sorted(seen.cell[1:]) == sorted(flat.cell[1:])
    assert len(anywhere.image) >= 5  # no gate is shut: it goes on until all was seen


def test_settings_that_make_no_sense_are_refused():
    for wrong in ({"area": 0.0}, {"area": 2.0}, {"sparsity": (0.5, 1.0)}, {"sparsity": (2.0, 1.0, 1e-6)}):
        with pytest.raises(ConfigError):
            ScorerConfig(**wrong)
    config = ModelConfig(classes=("a", "b"), scorer="mask", scoring=ScorerConfig(sparsity=(0.5, 1.0, 1e-6)))
    assert ModelConfig.from_json(config.to_json(), "card") == config
    assert build_model(config).scorer.sparsity == (0.5, 1.0, 1e-6)
