"""Evidence: which px a box takes, and the logit of a cell."""

import numpy as np
import pytest
import torch

from hiresattn.model.scorers import EvidenceScorer, ScorerInput, Target, VisibleBoxes, pool_cells
from hiresattn.model.scorers.evidence import class_map_of

NOTHING = 9


def visible(boxes, *, regions=1, known=None, confidence=None):
    """Boxes ``(region, class, first row, first column, last row, last column)`` on maps of 8 x 8 px."""
    rows, classes = (torch.tensor([box[i] for box in boxes], dtype=torch.int64) for i in (0, 1))
    corners = torch.tensor([box[2:] for box in boxes], dtype=torch.float32).reshape(-1, 4) / 8
    known = torch.ones(regions, dtype=torch.bool) if known is None else known
    confidence = torch.ones(len(boxes)) if confidence is None else torch.tensor(confidence)
    return VisibleBoxes(rows, corners, classes, known, confidence, torch.ones(regions))


def test_a_box_takes_its_px_and_no_others():
    found = class_map_of(visible([(1, 3, 2, 4, 5, 6)], regions=2), 8, 8, nothing=NOTHING)[0]
    assert (found[0] == NOTHING).all()
    inside = torch.zeros(8, 8, dtype=torch.bool)
    inside[2:5, 4:6] = True
    assert torch.equal(found[1], torch.where(inside, 3, NOTHING))


def test_a_px_that_a_box_covers_little_has_no_class_and_a_small_box_has_one():
    found = class_map_of(visible([(0, 1, 1.9, 2, 4, 4), (0, 2, 6.4, 6.4, 6.5, 6.5)]), 8, 8, nothing=NOTHING)[
        0
    ][0]
    assert (found[1, 2:4] == -1).all()  # a tenth of each
    assert (found[2:4, 2:4] == 1).all()
    assert found[6, 6] == 2
    assert (found == NOTHING).sum() == 64 - 6 - 1


def test_of_two_boxes_the_one_that_covers_more_of_a_px_has_it():
    boxes = [(0, 1, 0, 0, 2.3, 2), (0, 2, 2.3, 0, 4, 2)]
    for order in (boxes, boxes[::-1]):
        found = class_map_of(visible(order), 8, 8, nothing=NOTHING)[0][0]
        assert (found[:2, :2] == 1).all()
        assert (found[2:4, :2] == 2).all()


def test_regions_whose_boxes_are_not_known_have_no_class():
    found = class_map_of(
        visible([(0, 1, 0, 0, 1, 1)], regions=2, known=torch.tensor([True, False])), 8, 8, nothing=9
    )[0]
    assert (found[1] == -1).all()


def _view(maps):
    return ScorerInput((maps,), maps.mean((2, 3)), torch.full((len(maps),), 0.5))


def _target(where, *, divided=True):
    rows = len(where.known)
    return Target(
        torch.zeros(rows, dtype=torch.int64),
        torch.ones(rows),
        torch.full((rows,), divided),
        0.5,
        boxes=where,
    )


@pytest.mark.parametrize("background", [None, 1])
def test_a_cells_logit_is_the_log_of_its_mean_odds(background):
    torch.manual_seed(0)
    scorer = EvidenceScorer(channels=5, classes=3, grid=3, background=background, cap=100.0)
    maps = torch.randn(2, 5, 8, 8)
    found = scorer(_view(maps))
    chance = found.trace.softmax(1)
    classes = [i for i in range(3) if i != background]
    odds = (chance[:, classes].sum(1) / chance[:, 3])[:, None]
    wanted = pool_cells(odds, 3, torch.full((2,), 0.5))[:, 0].log()
    assert torch.allclose(found.logits, wanted, atol=1e-3)


def test_it_learns_to_classify_px_from_boxes_alone():
    torch.manual_seed(0)
    scorer = EvidenceScorer(channels=4, classes=2, grid=4)
    maps = 0.1 * torch.randn(3, 4, 8, 8)
    maps[0, 0, 2:4, 2:4] += 1
    maps[1, 1, 6:, :2] += 1
    where = visible([(0, 0, 2, 2, 4, 4), (1, 1, 6, 0, 8, 2)], regions=3)
    optimizer = torch.optim.Adam(scorer.parameters(), 0.03)
    for _ in range(60):
        losses = scorer.losses(scorer(_view(maps)), _target(where))
        optimizer.zero_grad()
        losses["evidence"].alone().backward()
        optimizer.step()
    found = scorer(_view(maps))
    assert found.logits[0].argmax() == found.logits[0].flatten().argmax()
    assert found.logits[0].amax() > 3 > -3 > found.logits[2].amax()
    classes = scorer.class_maps(found)["evidence"]
    assert classes[0, 0, 2:4, 2:4].min() > 0.8
    assert classes[1, 1, 6:, :2].min() > 0.8
    assert classes[2].max() < 0.2


def test_a_px_of_a_probable_box_is_that_share_of_its_class_and_the_rest_of_nothing():
    where = visible([(0, 1, 2, 2, 4, 4)], confidence=[0.75])
    found, probability = class_map_of(where, 8, 8, nothing=2)
    assert (probability[0, 2:4, 2:4] == 0.75).all()
    assert (probability[found == 2] == 1).all()
    scorer = EvidenceScorer(channels=4, classes=2, grid=4)
    best = torch.full((1, 3, 8, 8), -20.0)
    best[:, 2] = 0.0  # nothing
    best[0, :, 2:4, 2:4] = torch.tensor([-20.0, np.log(0.75), np.log(0.25)]).float()[:, None, None]
    maps = best.clone().requires_grad_()
    scored = scorer(_view(torch.randn(1, 4, 8, 8)))._replace(trace=maps)
    loss = scorer.losses(scored, _target(where))["evidence"].alone()
    (slope,) = torch.autograd.grad(loss, maps)
    weights = 1 / torch.tensor([3.0, 61.0])  # px of the class, and of nothing
    inside = slope[0, :, 2, 2] * (3 * weights[0] + 61 * weights[1])
    chance = weights * torch.tensor([0.75, 0.25])
    wanted = chance.sum() * torch.tensor([0.75, 0.25]) - chance  # of the softmax weighted by class
    assert torch.allclose(inside[1:], wanted, atol=1e-4)


def test_boxes_of_an_image_that_shows_its_label_less_surely_count_less():
    scorer = EvidenceScorer(channels=4, classes=2, grid=4)
    scored = scorer(_view(torch.randn(2, 4, 8, 8)))
    where = visible([(0, 1, 2, 2, 4, 4), (1, 1, 2, 2, 4, 4)], regions=2)
    both = scorer.losses(scored, _target(where._replace(weight=torch.tensor([1.0, 0.0]))))["evidence"].alone()
    one = scored._replace(trace=scored.trace[:1])
    alone = scorer.losses(one, _target(visible([(0, 1, 2, 2, 4, 4)])))["evidence"].alone()
    assert both.item() == pytest.approx(alone.item(), abs=1e-6)


def test_regions_that_are_not_divided_or_without_known_boxes_have_no_loss():
    scorer = EvidenceScorer(channels=4, classes=2, grid=4)
    found = scorer(_view(torch.randn(1, 4, 8, 8)))
    where = visible([(0, 0, 2, 2, 4, 4)])
    assert not scorer.losses(found, _target(where, divided=False))
    assert not scorer.losses(found, _target(where)._replace(boxes=None))


def test_in_half_precision_the_loss_is_that_of_the_same_maps_in_full():
    scorer, where = EvidenceScorer(channels=4, classes=2, grid=4), visible([(0, 0, 2, 2, 4, 4)])
    found = scorer(_view(torch.randn(1, 4, 8, 8)))
    half = found._replace(trace=found.trace.bfloat16())
    loss, full = (scorer.losses(one, _target(where))["evidence"].alone() for one in (half, found))
    assert loss.dtype == torch.float32
    assert loss.item() == pytest.approx(full.item(), rel=0.01)


def test_the_appearance_of_a_cell_is_that_of_its_best_px():
    torch.manual_seed(0)
    scorer = EvidenceScorer(channels=4, classes=2, grid=2)
    with torch.no_grad():
        scorer.local.weight.copy_(torch.eye(64, 4)[:, :, None, None])
        scorer.local.bias.zero_()
        scorer.out.weight.zero_()
        scorer.out.weight[0, 0] = 10.0  # channel 0 draws the eye
    maps = torch.zeros(1, 4, 4, 4)
    maps[0, 0, ::2, ::2] = 1.0  # in every cell one px does,
    maps[0, 1, ::2, ::2] = 1.0
    maps[0, 2, :, 2:] = 2.0  # whatever else is in the cell
    maps[0, 2, ::2, ::2] = 0.0
    appearance = scorer(_view(maps)).appearance
    assert appearance is not None
    alike = torch.nn.functional.normalize(appearance.flatten(2)[0], dim=0)
    assert (alike.T @ alike).min() > 0.98
