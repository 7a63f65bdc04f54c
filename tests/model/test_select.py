"""Selection: sampling is checked against exact probabilities, not against recorded draws."""

import itertools

import numpy as np
import pytest
import torch

from hiresattn.geometry import Grid, cell_regions, overlaps, root_regions
from hiresattn.model.select import GumbelTopK, Threshold, TopK


def _cells(rows: int, grid: int = 3) -> torch.Tensor:
    regions = np.repeat(root_regions(256, 256), rows, axis=0)
    return torch.from_numpy(cell_regions(regions, Grid(grid, 0.5), 64))


def test_top_k_is_best_first_and_gives_the_softmax_probability():
    logits = torch.tensor([[0.0, 3.0, 1.0, 2.0, -1.0, 0.5, 0.1, 0.2, 0.3]])
    chosen = TopK()(logits, 3, _cells(1), np.zeros(1))
    assert chosen.cell.tolist() == [[1, 3, 2]]
    assert torch.allclose(chosen.log_prob, logits.log_softmax(1)[:, [1, 3, 2]])
    assert chosen.valid.all()


def test_gumbel_top_k_draws_without_replacement_from_the_softmax():
    logits = torch.tensor([1.0, 0.0, -0.5, 0.7])
    draws = 200_000
    cells = torch.zeros((draws, 4, 4), dtype=torch.int64)
    select = GumbelTopK(torch.Generator().manual_seed(0))
    picks = select(logits.repeat(draws, 1), 2, cells, np.zeros(draws)).cell.numpy()
    p = logits.softmax(0).numpy()
    for first, second in itertools.permutations(range(4), 2):
        expected = p[first] * p[second] / (1 - p[first])  # Plackett-Luce
        found = ((picks[:, 0] == first) & (picks[:, 1] == second)).mean()
        assert found == pytest.approx(expected, abs=0.005)


def test_cells_where_nothing_was_measured_are_never_chosen():
    logits = torch.full((1, 9), -torch.inf)
    logits[0, 4] = 0.0
    for select in (TopK(), GumbelTopK(torch.Generator().manual_seed(1)), TopK(nms=0.3)):
        chosen = select(logits, 3, _cells(1), np.zeros(1))
        assert chosen.cell[0, chosen.valid[0]].tolist() == [4]


def test_nms_leaves_out_cells_that_overlap_a_better_one():
    logits = torch.tensor([[9.0, 8.0, 7.0, 6.0, 5.0, 4.0, 3.0, 2.0, 1.0]])
    cells = _cells(1)
    free = TopK(nms=1.0)(logits, 4, cells, np.zeros(1)).cell[0].tolist()
    apart = TopK(nms=0.2)(logits, 4, cells, np.zeros(1)).cell[0].tolist()
    assert free == [0, 1, 2, 3]
    chosen = cells[0, apart].numpy()
    iou = overlaps(chosen, chosen)
    assert (iou[~np.eye(len(chosen), dtype=bool)] <= 0.2).all()
    assert apart[0] == 0


def test_more_cells_than_there_are_gives_them_all():
    chosen = TopK()(torch.zeros((2, 9)), 50, _cells(2), np.zeros(2))
    assert sorted(chosen.cell[0].tolist()) == list(range(9))


def test_the_gradient_of_a_choice_reaches_the_logits():
    logits = torch.zeros((1, 9), requires_grad=True)
    TopK()(logits, 1, _cells(1), np.zeros(1)).log_prob.sum().backward()
    assert logits.grad is not None
    assert logits.grad.sum() == pytest.approx(0.0, abs=1e-6)
    assert logits.grad.abs().max() > 0.5


@pytest.mark.parametrize("generator", [None, torch.Generator().manual_seed(0)])
def test_gates_with_none_open_leave_exactly_the_best_cell(generator):
    logits = torch.tensor(
        [[-90.0, -80.0, -70.0, -80.0], [-80.0, -60.0, -70.0, -90.0], [9.0, -9.0, 9.5, -9.0]]
    )
    cells = torch.zeros((3, 4, 4), dtype=torch.int64)
    chosen = Threshold(-4.0, generator)(logits, 3, cells, np.zeros(3))
    kept = [row[valid].tolist() for row, valid in zip(chosen.cell, chosen.valid, strict=True)]
    assert kept[:2] == [[2], [1]]
    assert sorted(kept[2]) == [0, 2]


def test_gates_where_nothing_was_measured_leave_no_cell():
    logits = torch.full((1, 4), -torch.inf)
    chosen = Threshold(0.0)(logits, 3, torch.zeros((1, 4, 4), dtype=torch.int64), np.zeros(1))
    assert not chosen.valid.any()
