"""Location labels: what is told to the scorer, and what counts as a hit."""

from types import SimpleNamespace

import numpy as np
import pytest
import torch

from hiresattn.checkpoint import load_model
from hiresattn.datasets.example import Example
from hiresattn.geometry import Grid, cell_regions, cells_on_target, root_regions
from hiresattn.inference.classify import classify_all
from hiresattn.model.select import TopK
from hiresattn.training.augment import ORIENTATIONS
from hiresattn.training.fit import fit
from hiresattn.training.options import TrainOptions
from hiresattn.training.region_losses import location_loss, value_loss
from hiresattn.training.targets import TargetSelector, glimpse_labels, hits

GRID = Grid(7, 0.25)
ROOT = root_regions(1024, 1024)
BOX = np.array([[500, 700, 20, 20]])


def test_a_cell_is_on_target_if_no_cell_shows_more_of_it():
    cells = cell_regions(ROOT, GRID, 64)
    on = cells_on_target(cells, BOX)[0]
    for cell, (y, x, height, width) in enumerate(cells[0]):
        assert on[cell] == (y <= 500 and x <= 700 and y + height >= 520 and x + width >= 720)
    assert on.any()
    assert not cells_on_target(cells, np.array([[2000, 2000, 5, 5]])).any()
    assert not cells_on_target(cells, np.zeros((0, 4), np.int64)).any()
    large = cells_on_target(cells, np.array([[0, 0, 1024, 1024]]))[0]
    assert large.all()


@pytest.mark.parametrize("background", [None, 2])
def test_a_glimpse_answers_for_the_boxes_whose_centres_it_holds(background):
    regions = np.array([[0, 0, 64, 64], [64, 0, 64, 64], [0, 64, 64, 64], [64, 64, 64, 64]])
    traversal = SimpleNamespace(image=np.zeros(4, int), depth=np.ones(4, int), region=regions)
    boxes = np.array([[8, 8, 20, 20], [70, 8, 20, 20], [100, 30, 20, 20]])
    kinds = [np.array([1, 0, 1])]
    found = glimpse_labels(traversal, np.array([-1]), [boxes], 64, background, kinds)
    rest = -1 if background is None else background
    assert found.tolist() == [1, -1, rest, rest]  # one; two that differ; none
    same = glimpse_labels(traversal, np.array([-1]), [boxes], 64, background, [np.array([1, 0, 0])])
    assert same.tolist() == [1, 0, rest, rest]
    of_image = glimpse_labels(traversal, np.array([1]), [boxes], 64, background, [np.array([1, 1, 1])])
    assert of_image.tolist() == [1, 1, rest, rest]


def test_of_several_labels_a_glimpse_answers_for_all_whose_boxes_it_holds():
    regions = np.array([[0, 0, 64, 64], [64, 0, 64, 64], [0, 64, 64, 64]])
    traversal = SimpleNamespace(image=np.zeros(3, int), depth=np.ones(3, int), region=regions)
    boxes = np.array([[8, 8, 20, 20], [70, 8, 20, 20], [100, 30, 20, 20]])
    found = glimpse_labels(traversal, np.array([[1, 1, 1]]), [boxes], 64, None, [np.array([1, 0, 2])])
    assert found.tolist() == [[0, 1, 0], [1, 0, 1], [-1, -1, -1]]


def test_probable_boxes_give_their_class_and_nothing_elsewhere():
    regions = np.array([[0, 0, 64, 64], [64, 0, 64, 64], [0, 64, 64, 64]])
    traversal = SimpleNamespace(image=np.zeros(3, int), depth=np.ones(3, int), region=regions)
    boxes, sure = np.array([[8, 8, 20, 20], [70, 8, 20, 20]]), [np.array([0.9, 0.3], np.float32)]
    found = glimpse_labels(traversal, np.array([1]), [boxes], 64, 2, [np.array([1, 1])], sure)
    assert found.tolist() == [1, -1, -1]  # what made them may have missed some


def test_a_guided_choice_has_a_cell_on_the_target_and_keeps_the_others():
    cells = cell_regions(np.repeat(ROOT, 2, axis=0), GRID, 64)
    logits = torch.zeros((2, 49))
    logits[:, 0] = 5.0  # a corner, far from the target
    select = TargetSelector(TopK(), [BOX, None], np.random.default_rng(0))
    chosen = select(logits, 3, torch.from_numpy(cells), np.array([0, 1]))
    on = cells_on_target(cells[:1], BOX)[0]
    assert on[chosen.cell[0]].sum() == 1
    assert chosen.cell[0, 0] == 0
    assert (
        chosen.cell[1].tolist()
        == TopK()(logits, 3, torch.from_numpy(cells), np.array([0, 1])).cell[1].tolist()
    )
    assert torch.allclose(chosen.log_prob, logits.log_softmax(1).gather(1, chosen.cell))


def test_the_location_loss_is_the_surprise_at_a_cell_on_the_target():
    logits = torch.randn((1, 49), generator=torch.Generator().manual_seed(0)).requires_grad_()
    traversal = SimpleNamespace(region=ROOT, image=np.array([0]), cell_logits=logits)
    on = cells_on_target(cell_regions(ROOT, GRID, 64), BOX)[0]
    loss = location_loss(traversal, [BOX], GRID, 64).alone()
    assert loss.item() == pytest.approx(-np.log(logits.softmax(1)[0].detach().numpy()[on].sum()), abs=1e-5)
    loss.backward()
    assert (logits.grad[0, torch.from_numpy(on)] < 0).all()
    assert location_loss(traversal, [None], GRID, 64) is None
    assert location_loss(traversal, [BOX], GRID, 1024) is None


def test_where_boxes_are_known_only_glimpses_on_the_target_answer():
    regions = np.array(
        [[0, 0, 1024, 1024], [480, 680, 64, 64], [0, 0, 64, 64], [0, 0, 1024, 1024], [0, 0, 64, 64]]
    )
    traversal = SimpleNamespace(
        region=regions, image=np.array([0, 0, 0, 1, 1]), depth=np.array([0, 1, 1, 0, 1])
    )
    labels = np.array([2, 1])
    assert glimpse_labels(traversal, labels, [BOX, None], 64).tolist() == [2, 2, -1, 1, 1]
    assert glimpse_labels(traversal, labels, [BOX, BOX[:0]], 64).tolist() == [2, 2, -1, 1, 1]


def test_with_a_background_only_the_finest_glimpses_answer():
    regions = np.array(
        [[0, 0, 1024, 1024], [480, 680, 64, 64], [0, 0, 64, 64], [442, 642, 64, 64], [0, 0, 1024, 1024]]
    )
    regions = np.concatenate([regions, [[0, 0, 64, 64]] * 2])
    traversal = SimpleNamespace(region=regions, image=np.array([0, 0, 0, 0, 1, 1, 2]), depth=None)
    found = glimpse_labels(traversal, np.array([2, 1, 3]), [BOX, None, BOX[:0]], 64, background=3)
    assert found.tolist() == [-1, 2, 3, -1, -1, -1, 3]  # a part of the target is neither


def test_every_box_of_a_region_is_asked_for():
    logits = torch.randn((2, 49), generator=torch.Generator().manual_seed(0))
    regions = np.repeat(ROOT, 2, axis=0)
    traversal = SimpleNamespace(region=regions, image=np.array([0, 1]), cell_logits=logits)
    other = np.array([[100, 100, 20, 20]])
    one, two = (location_loss(traversal, [boxes, None], GRID, 64).alone().item() for boxes in (BOX, other))
    both = location_loss(traversal, [np.concatenate([BOX, other]), None], GRID, 64).alone().item()
    assert both == pytest.approx((one + two) / 2, abs=1e-5)
    second = location_loss(traversal, [None, other], GRID, 64).alone().item()
    assert location_loss(
        traversal, [np.concatenate([BOX, other]), other], GRID, 64
    ).alone().item() == pytest.approx((both + second) / 2, abs=1e-5)


def test_a_region_is_worth_what_the_glimpses_below_it_know():
    value = torch.zeros(4, requires_grad=True)
    traversal = SimpleNamespace(
        parent=np.array([-1, 0, 0, 1]),
        image=np.zeros(4, int),
        region=np.array([[0, 0, 1024, 1024], [0, 0, 256, 256], [400, 600, 256, 256], [0, 0, 64, 64]]),
        glimpse_logits=torch.tensor([[0.0, 0.0], [0.0, 0.0], [0.0, 1.0], [2.0, 0.0]]),
        value=value,
    )
    best = 1 / (1 + np.exp(-2))  # what the glimpse in region 1 gives to class 0; also the best below region 0
    loss = value_loss(traversal, torch.tensor([0]), [None], 64).alone()
    loss.backward()
    assert value.grad.numpy() == pytest.approx([(0.5 - best) / 2, (0.5 - best) / 2, 0, 0], abs=1e-6)
    value.grad = None
    value_loss(
        traversal, torch.tensor([0]), [BOX], 256
    ).alone().backward()  # region 0 holds the box, region 1 doesn't
    assert value.grad.numpy() == pytest.approx([-0.25, 0.25, 0, 0], abs=1e-6)
    value.grad = None
    known = [np.array([0.75], np.float32)]
    value_loss(traversal, torch.tensor([0]), [BOX], 256, known).alone().backward()
    assert value.grad.numpy() == pytest.approx([-0.125, 0.25, 0, 0], abs=1e-6)
    traversal.parent = np.full(4, -1)
    value.grad = None
    value_loss(
        traversal, torch.tensor([0]), [BOX], 256
    ).alone().backward()  # not divided, and it is known what they hold
    assert value.grad.numpy() == pytest.approx([-0.5, 0, 0, 0], abs=1e-6)
    assert value_loss(traversal, torch.tensor([0]), [None], 64) is None


def test_a_hit_is_a_finest_region_on_the_centre():
    regions = np.array([[0, 0, 1024, 1024], [480, 680, 64, 64], [0, 0, 1024, 1024], [0, 0, 64, 64]])
    traversal = SimpleNamespace(region=regions, image=np.array([0, 0, 1, 1]))
    assert hits(traversal, [BOX, BOX], 64).tolist() == [True, False]
    assert hits(traversal, [None, BOX], 64).tolist() == [False]


@pytest.mark.parametrize("turn", ORIENTATIONS["turns"])
def test_a_box_is_turned_with_its_image(turn):
    image = np.zeros((60, 90))
    box, whole = (10 + 7, 20 + 11, 5, 9), (10, 20, 60, 90)
    image[7:12, 11:20] = 1
    y, x, height, width = turn.oriented(np.array([box]), whole)[0].tolist()
    turned = turn.apply(image)
    assert turned[y - 10 : y - 10 + height, x - 20 : x - 20 + width].all()
    assert turned.sum() == height * width
    assert turn.stored([y, x, height, width], whole) == list(box)


@pytest.mark.slow
def test_boxes_teach_where_to_look(tmp_path):
    """A spot that images alone hardly teach in so few steps; with boxes the model goes there at once."""
    rng = np.random.default_rng(0)

    def example(number, split):
        image = rng.integers(90, 150, (512, 512, 1)).astype(np.uint8)
        y, x = (int(v) for v in rng.integers(0, 512 - 32, 2))
        image[y : y + 32, x : x + 32] = 235
        if number % 2:
            image[y + 8 : y + 24, x + 8 : x + 24] = 20
        return Example(image, "hole" if number % 2 else "full", split, boxes=((y, x, 32, 32),))

    train = [example(i, "train") for i in range(48)]
    options = TrainOptions(
        epochs=16, batch_size=8, crop_size=32, threads=0, device="cpu", k=(2, 2), augment="turns"
    )
    records = list(fit([*train, *(example(i, "val") for i in range(12))], tmp_path / "model", options))
    assert records[-1].val_accuracy == 1
    assert records[-1].hit >= 0.7  # the search stops where it is sure
    model = load_model(tmp_path / "model")
    test = [example(i, "test") for i in range(20)]
    found = list(classify_all(test, model, budget=6, stop=None, device="cpu"))
    seen = [
        any(
            r.y <= y + 16 < r.y + r.height and r.x <= x + 16 < r.x + r.width
            for r in p.regions
            if r.height < 48
        )
        for p, (y, x, _, _) in ((p, e.boxes[0]) for p, e in zip(found, test, strict=True))
    ]
    assert np.mean(seen) >= 0.8
