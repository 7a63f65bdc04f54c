"""Scorers and the pooling of maps over cells."""

import numpy as np
import pytest
import torch

from hiresattn.errors import ConfigError
from hiresattn.model.scorers import LocationScorer, RandomScorer, ScorerInput, pool_cells
from hiresattn.model.scorers.location import CAP


def _view(rows: int = 2, channels: int = 8, side: int = 8, fraction: float = 0.25) -> ScorerInput:
    generator = torch.Generator().manual_seed(0)
    stage = torch.randn((rows, channels, side, side), generator=generator)
    return ScorerInput((stage,), torch.randn((rows, 5), generator=generator), torch.full((rows,), fraction))


def test_cells_of_a_quarter_of_an_8x8_map_are_its_2x2_means():
    stage = torch.randn(1, 3, 8, 8)
    pooled = pool_cells(stage, 7, torch.tensor([0.25]))
    assert torch.allclose(pooled, torch.nn.functional.avg_pool2d(stage, 2, stride=1), atol=1e-6)


@pytest.mark.parametrize(
    ("fraction", "side", "grid"), [(0.3, 9, 5), (0.5, 14, 3), (0.2133, 8, 7), (0.8, 4, 7)]
)
def test_pooling_is_the_area_average_over_every_cell(fraction, side, grid):
    fine = 420  # each map px as 420/side fine px: the average by counting
    stage = torch.randn(1, 1, side, side)
    pooled = pool_cells(stage, grid, torch.tensor([fraction]))[0, 0].numpy()
    at = (np.arange(fine * 10) + 0.5) / (fine * 10)
    index = (at * side).astype(int)
    starts = np.linspace(0, 1, grid) * (1 - fraction)
    share = np.stack(
        [np.bincount(index[(at >= s) & (at < s + fraction)], minlength=side) for s in starts]
    ).astype(float)
    share /= share.sum(1, keepdims=True)
    expected = share @ stage[0, 0].numpy() @ share.T
    assert np.allclose(pooled, expected, atol=0.02)


def test_rows_may_have_cells_of_different_size():
    stage = torch.randn(2, 3, 8, 8)
    both = pool_cells(stage, 7, torch.tensor([0.25, 0.5]))
    assert torch.allclose(both[0], pool_cells(stage[:1], 7, torch.tensor([0.25]))[0])
    assert torch.allclose(both[1], pool_cells(stage[1:], 7, torch.tensor([0.5]))[0])


def test_location_scores_every_cell_within_its_cap():
    scorer = LocationScorer(channels=8, grid=7)
    torch.nn.init.constant_(scorer.out.bias, 1e4)
    logits = scorer(_view()).logits
    assert logits.shape == (2, 7, 7)
    assert logits.abs().max() <= CAP


def test_normalised_logits_keep_the_probabilities_within_the_published_bounds():
    # TNet: unit-norm logits over 9 cells give probabilities between .0415 and .2653
    scorer = LocationScorer(channels=8, grid=3, normalize=True)
    logits = scorer(_view()).logits.flatten(1)
    assert torch.allclose(logits.norm(dim=1), torch.ones(2), atol=1e-4)
    spike = torch.zeros(9)
    spike[0] = 1.0
    flat = torch.full((9,), 1 / 3)
    flat[0] = -1 / 3
    assert spike.softmax(0).max() <= 0.2654
    assert logits.softmax(1).min() >= 0.0414
    assert logits.softmax(1).max() <= 0.2654


def test_detach_keeps_location_gradients_out_of_the_encoder():
    view = _view()
    view.stages[0].requires_grad_()
    LocationScorer(channels=8, grid=7, detach=True)(view).logits.sum().backward()
    assert view.stages[0].grad is None
    LocationScorer(channels=8, grid=7)(view).logits.sum().backward()
    assert view.stages[0].grad is not None


def test_random_scores_favour_no_cell():
    scorer = RandomScorer(grid=3, seed=1)
    view = _view(rows=9000)
    best = scorer(view).logits.flatten(1).argmax(1)
    counts = torch.bincount(best, minlength=9).float() / 9000
    assert (counts - 1 / 9).abs().max() < 0.015


def test_units_outside_the_map_are_refused():
    scorer = LocationScorer(channels=4, grid=3, units=(0, 1, 2), hidden=8)
    view = ScorerInput((torch.zeros(1, 4, 2, 2),), torch.zeros(1, 4), torch.full((1,), 0.5))
    with pytest.raises(ConfigError, match=r"which is 2x2 px .* larger crops"):
        scorer(view)
