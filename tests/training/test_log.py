"""What a run leaves to look at: the curves, and TensorBoard's scalars where it is installed."""

import csv
import sys
from dataclasses import replace
from types import ModuleType, SimpleNamespace

import numpy as np
import pytest
import torch
from PIL import Image, ImageColor

from hiresattn.datasets.example import Example
from hiresattn.errors import CheckpointError
from hiresattn.report.curves import LINE_COLOURS
from hiresattn.training import epoch as epoch_module
from hiresattn.training.fit import fit
from hiresattn.training.log import RunningMetrics, curves
from hiresattn.training.optim import step
from hiresattn.training.options import TrainOptions

QUICK = TrainOptions(
    epochs=2,
    batch_size=4,
    threads=0,
    device="cpu",
    crop_size=16,
    k=(1,),
    grid=3,
    fraction=0.5,
    value_range=(0, 255),
)


def _images(count=8):
    rng = np.random.default_rng(0)
    return [Example(rng.integers(60, 160, (32, 32, 1)).astype(np.uint8), "ab"[i % 2]) for i in range(count)]


def _record(epoch, **more):
    return {
        "epoch": epoch,
        "epochs": 4,
        "stage": 1,
        "loss": 2.0,
        "accuracy": 0.5,
        "val_accuracy": None,
    } | more


def _height(picture, colour, column):
    """Rows at which a column has an ink, from above."""
    pixels = np.asarray(picture)[:, column]
    return np.flatnonzero((pixels == ImageColor.getrgb(colour)).all(1))


def test_every_epoch_leaves_the_curves(tmp_path):
    run = fit(_images(), tmp_path / "model", QUICK)
    next(run)
    with Image.open(tmp_path / "model" / "curves.png") as picture:
        first = np.asarray(picture)
    list(run)
    with Image.open(tmp_path / "model" / "curves.png") as picture:
        assert picture.size == (720, 3 * 480)
        assert not np.array_equal(first, np.asarray(picture))
    assert not list((tmp_path / "model").glob(".*"))


def test_a_curve_is_where_its_numbers_are():
    records = [_record(epoch, accuracy=0.25 * epoch) for epoch in range(1, 5)]
    picture = curves(records)
    # epochs 1 to 4 of 4: the axis from px 70 to 530, accuracies from px 424 (0) up to 64 (1)
    for epoch in (2, 3):
        rows = _height(picture.crop((0, 0, 720, 480)), LINE_COLOURS[0], 70 + 460 * epoch // 4)
        assert rows.mean() == pytest.approx(424 - 360 * 0.25 * epoch, abs=3)


def test_the_curriculums_steps_are_marked_and_what_is_missing_is_not_drawn():
    plain, marked = (curves([_record(1), _record(2, stage=stage)]) for stage in (1, 2))
    assert not np.array_equal(np.asarray(plain), np.asarray(marked))
    validated = curves([_record(1, val_accuracy=0.5), _record(2)])
    assert _colours(validated) - _colours(plain) >= {ImageColor.getrgb(LINE_COLOURS[1])}


def test_the_kept_epoch_is_marked_and_the_validation_loss_drawn():
    scores = [0.9, 0.2, 0.8, 0.8]  # the first is of an earlier stage, the last two are as good
    records = [
        _record(n + 1, val_accuracy=score, val_loss=1.0, stage=1 + (n > 0), stages=2)
        for n, score in enumerate(scores)
    ]
    picture = curves(records)
    panel = np.asarray(picture.crop((0, 480, 720, 960)))
    dashed = (panel[64:424] == ImageColor.getrgb("#16181d")).all(2).mean(0)
    assert dashed[530] == pytest.approx(0.5, abs=0.1)  # epoch 4
    assert all(dashed[70 + 460 * epoch // 4] != pytest.approx(0.5, abs=0.1) for epoch in (1, 2, 3))
    rows = _height(picture.crop((0, 480, 720, 960)), LINE_COLOURS[1], 400)
    assert rows.mean() == pytest.approx(424 - 360 / 2, abs=3)  # of an axis to 2


def test_the_validation_loss_is_the_cross_entropy_of_the_labels(monkeypatch):
    monkeypatch.setattr("hiresattn.training.log.hits", lambda *_: np.zeros(0, bool))
    held = RunningMetrics()
    for logits, labels in (([[2.0, 0.0], [0.0, 0.0]], [0, -1]), ([[0.0, 1.0]], [0])):
        batch = SimpleNamespace(main_labels=np.array(labels), sure_boxes=[None] * len(labels))
        held.add(batch, SimpleNamespace(logits=torch.tensor(logits), image=np.array([0])), 1)
    expected = [np.log(1 + np.exp(-2)), np.log(1 + np.exp(1))]
    assert held.mean_loss == pytest.approx(np.mean(expected))
    assert RunningMetrics().mean_loss is None


def test_a_loss_below_zero_is_drawn_below_zero():
    losses = (2.0, 0.0, -1.0)  # REINFORCE's can be; the axis goes from -1 (px 424) to 2 (px 64)
    panel = curves([_record(i + 1, loss=loss) for i, loss in enumerate(losses)]).crop((0, 480, 720, 960))
    found = [_height(panel, LINE_COLOURS[0], 70 + 460 * epoch // 4) for epoch in (1, 2, 3)]
    assert [rows.mean() for rows in found] == pytest.approx([64, 304, 424], abs=4)


def _colours(picture):
    return {tuple(colour) for colour in np.asarray(picture).reshape(-1, 3)}


def test_curves_that_cant_be_written_are_a_clear_error(tmp_path):
    folder = tmp_path / "model"
    (folder / "curves.png").mkdir(parents=True)
    with pytest.raises(CheckpointError, match="state can't be written"):
        next(fit(_images(), folder, QUICK, overwrite=True))
    assert not list(folder.glob(".*"))


@pytest.fixture
def board(monkeypatch):
    """A TensorBoard that remembers."""
    seen = []

    class SummaryWriter:
        def __init__(self, folder, purge_step):
            seen.append(("writer", folder, purge_step))

        def add_scalar(self, name, value, step):
            seen.append((name, value, step))

        def flush(self):
            pass

        def close(self):
            seen.append(("close",))

    module = ModuleType("torch.utils.tensorboard")
    module.SummaryWriter = SummaryWriter
    monkeypatch.setitem(sys.modules, "torch.utils.tensorboard", module)
    return seen


def test_tensorboard_gets_every_epochs_numbers_and_a_resumed_run_goes_on(tmp_path, board):
    next(fit(_images(), tmp_path / "model", QUICK))
    (second,) = fit(_images(), tmp_path / "model", QUICK, resume=True)
    folder = str(tmp_path / "model" / "tensorboard")
    assert [each for each in board if each[0] == "writer"] == [("writer", folder, 1), ("writer", folder, 2)]
    assert board.count(("close",)) == 2
    assert ("loss", second.loss, 2) in board
    names = {each[0] for each in board if len(each) == 3 and each[0] != "writer"}
    assert {"loss", "accuracy", "entropy", "spread", "distinct", "glimpses", "seconds"} <= names
    assert not names & {"val_accuracy", "hit"}  # there are no validation images and no boxes


def _rows(folder):
    with (folder / "metrics.csv").open() as stream:
        return list(csv.DictReader(stream))


def test_every_loss_is_logged_by_name_as_it_counts(tmp_path, board):
    boxes = [[(4, 4, 8, 8)], None]  # of every other image
    images = [replace(example, boxes=boxes[i // 2 % 2]) for i, example in enumerate(_images())]
    options = replace(QUICK, epochs=1, scorer="oaa", glimpse_loss=0.0)
    halves = replace(options, location_loss=2 * options.location_loss, value_loss=options.value_loss / 2)
    one, other = (next(fit(images, tmp_path / str(i), each)) for i, each in enumerate((options, halves)))
    assert list(one.losses) == ["cam", "hybrid", "location", "value"]
    assert all(value > 0 for value in one.losses.values())
    assert one.loss > sum(one.losses.values())  # the rest is the image's cross-entropy
    # the first of two batches is seen alike, the second after a small step
    assert other.losses["location"] == pytest.approx(2 * one.losses["location"], rel=0.05)
    assert other.losses["value"] == pytest.approx(one.losses["value"] / 2, rel=0.05)
    (row,) = _rows(tmp_path / "0")
    assert list(row)[-4:] == [f"loss_{name}" for name in one.losses]
    assert "losses" not in row
    for name, value in one.losses.items():
        assert float(row[f"loss_{name}"]) == value
        assert (f"loss_{name}", value, 1) in board


def test_a_loss_that_some_images_have_not_counts_nothing_there(tmp_path, monkeypatch):
    given = iter([{"a": 1.0}, {"a": 3.0, "b": 4.0}])
    monkeypatch.setattr(
        epoch_module,
        "step",
        lambda *words, **named: step(*words, **named)._replace(parts=next(given)),
    )
    images = _images(6)  # batches of 4 and of 4: the second begins anew
    record = next(fit(images, tmp_path / "model", QUICK))
    assert record.images == 8
    assert record.losses == {"a": 2.0, "b": 2.0}


def test_without_tensorboard_its_scalars_are_not_written(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "torch.utils.tensorboard", None)
    next(fit(_images(), tmp_path / "model", QUICK))
    assert (tmp_path / "model" / "metrics.csv").exists()
    assert not (tmp_path / "model" / "tensorboard").exists()
