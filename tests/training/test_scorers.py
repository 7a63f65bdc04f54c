"""Every scorer through a whole training: what it learns, what its card says, and that a resumed run ends alike."""

import json
from dataclasses import replace

import numpy as np
import pytest
import torch

from hiresattn.attention_maps.memory import AttentionMemory
from hiresattn.card import CARD
from hiresattn.checkpoint import load_model
from hiresattn.datasets.example import Example
from hiresattn.errors import ConfigError
from hiresattn.inference.classify import classify, classify_all
from hiresattn.model.select import selector
from hiresattn.training.data import Loader
from hiresattn.training.estimators import FIRST_BASELINE
from hiresattn.training.fit import fit
from hiresattn.training.losses import batch_loss, traverse
from hiresattn.training.options import TrainOptions
from hiresattn.training.samples import without_background_boxes

QUICK = TrainOptions(epochs=3, batch_size=8, threads=0, device="cpu", crop_size=32, k=(3,), seed=1)


def _spots(count, side=128, split="train"):
    """Images of noise with one bright or one dark spot, 24 px wide."""
    rng = np.random.default_rng([side, len(split)])
    examples = []
    for number in range(count):
        image = rng.integers(90, 160, (side, side, 1)).astype(np.uint8)
        y, x = rng.integers(0, side - 24, 2)
        image[y : y + 24, x : x + 24] = 255 if number % 2 else 0
        examples.append(Example(image, "light" if number % 2 else "dark", split))
    return examples


@pytest.mark.parametrize("scorer", ["mask", "saol", "ltpa", "oaa", "evidence", "random"])
def test_a_training_with_any_scorer_resumes_bit_by_bit_and_its_model_says_which(tmp_path, scorer):
    options = replace(QUICK, scorer=scorer, cutmix=0.5 if scorer == "saol" else 0.0)
    examples = _spots(8) + _spots(4, split="val")
    records = list(fit(examples, tmp_path / "whole", options))
    assert len(records) == 3
    assert 0 < records[-1].open <= 1
    run = fit(examples, tmp_path / "parts", options)
    next(run)
    run.close()
    list(fit(examples, tmp_path / "parts", options, resume=True))
    whole, parts = (load_model(tmp_path / name).net.state_dict() for name in ("whole", "parts"))
    if scorer != "random":  # draws anew
        assert all(torch.equal(value, parts[name]) for name, value in whole.items())
    assert json.loads((tmp_path / "whole" / CARD).read_text())["scorer"] == scorer
    found = classify(_spots(1)[0].source, tmp_path / "whole", device="cpu", budget=4, stop=None)
    assert found.scorer == scorer
    assert {region.scorer for region in found.regions[1:]} == {scorer}


def _mixed(count, side=128):
    """Images of noise with two bright spots and two dark ones, and where they are; no class of their own."""
    rng = np.random.default_rng(5)
    examples = []
    for _ in range(count):
        image = rng.integers(90, 160, (side, side, 1)).astype(np.uint8)
        boxes = tuple(
            (int(y), int(x), 24, 24)
            for y, x in (
                (qy + rng.integers(0, 40), qx + rng.integers(0, 40)) for qy in (0, 64) for qx in (0, 64)
            )
        )
        for number, (y, x, _, _) in enumerate(boxes):
            image[y : y + 24, x : x + 24] = 255 * (number % 2)
        kinds = ("dark", "light") * 2
        examples.append(Example(image, None, boxes=boxes, box_labels=kinds))
    return examples


def test_boxes_that_say_their_classes_teach_where_and_what_without_a_label_of_the_image(tmp_path):
    examples = _mixed(64) + _spots(16, split="val")
    options = replace(QUICK, scorer="evidence", encoder="small-bn", epochs=16, k=(4,), lr=5e-3)
    *_, last = fit(examples, tmp_path / "m", options)
    assert last.accuracy is None  # no image to be right about
    assert 1 < last.glimpses <= 5
    assert last.losses["evidence"] < 0.3
    assert last.val_accuracy >= 0.9
    found = list(
        classify_all([e.source for e in _spots(16)], tmp_path / "m", device="cpu", budget=2, stop=None)
    )
    seen = [(f.regions[1], e.source) for f, e in zip(found, _spots(16), strict=True)]
    spot = [np.isin(s[r.y : r.y + r.height, r.x : r.x + r.width], (0, 255)).mean() for r, s in seen]
    assert np.mean(np.array(spot) > 0.1) >= 0.9


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"estimator": "reinforce"}, "reinforce rewards right answers, so it needs one in every row"),
        ({"cutmix": 0.5}, "doesn't go with cutmix"),
    ],
)
def test_classes_of_boxes_where_nothing_could_learn_from_them_are_refused(tmp_path, changes, words):
    with pytest.raises(ConfigError, match=words):
        next(fit(_mixed(4) + _spots(4), tmp_path / "m", replace(QUICK, **changes)))


def test_a_box_without_a_class_among_others_and_an_image_without_either_are_refused(tmp_path):
    (example, *_) = _mixed(1)
    for change, words in (
        ({"box_labels": ("dark",)}, "4 boxes and 1 classes"),
        ({"box_labels": None}, "no label"),
    ):
        for label, split in ((None, "train"), ("dark", "val"))[: 1 + bool(change["box_labels"])]:
            wrong = replace(example, **change, label=label, split=split)
            with pytest.raises(ConfigError, match=words):
                next(fit([wrong, *_spots(4)], tmp_path / "m", QUICK))


@pytest.mark.parametrize("scorer", ["location", "mask", "saol", "ltpa", "oaa", "evidence"])
def test_an_image_without_label_and_boxes_says_nothing_of_any_class(tmp_path, scorer):
    options = replace(QUICK, scorer=scorer, epochs=1, class_weights="balanced")
    examples = [*_mixed(4), *_spots(4)]
    list(fit(examples, tmp_path / "m", options))
    model = load_model(tmp_path / "m")
    loader = Loader(model.config.input, model.config.grid, threads=0)
    samples = loader.measure([replace(e, boxes=(), box_labels=None) for e in examples[:4]], model.classes)
    weights = torch.tensor([3.0, 5.0])

    def work(batch):
        select = selector(model.net.scorer.gate, torch.Generator().manual_seed(0))
        memory = AttentionMemory()
        traversal = traverse(model.net.train(), batch, select, (3,), options)
        return batch_loss(
            model.net,
            batch,
            traversal,
            options,
            baseline=FIRST_BASELINE,
            class_weights=weights,
            progress=1.0,
            memory=memory,
        )

    found, _ = loader.process(samples, work)
    loader.close()
    total, parts = found.joined(found.sums)
    of_classes = {name: value for name, value in parts.items() if name not in ("area", "value", "evidence")}
    assert not any(of_classes.values())
    assert total.item() == pytest.approx(sum(parts.values()), abs=1e-6)


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        (
            {"box_labels": ("dark", "light", "dark", "ligth")},
            "'ligth' in split 'val' and not in 'train'; did you mean 'light'",
        ),
        (
            {"boxes": ((0, 0, 9, 9),) * 3 + ((0, 128, 9, 9),)},
            r"box \[0, 128, 9, 9\] .* outside the image of 128 x 128 px",
        ),
    ],
)
def test_a_held_out_box_of_an_unknown_class_or_place_is_one_clear_error(tmp_path, changes, words):
    held_out = replace(_mixed(1)[0], label="dark", split="val", **changes)
    with pytest.raises(ConfigError, match=words):
        next(fit([*_mixed(4), held_out], tmp_path / "m", QUICK))


def test_a_box_of_the_background_is_no_target_and_an_image_with_no_other_is_background():
    one, two = (3, 3, 9, 9), (30, 30, 9, 9)
    both = Example("a", None, boxes=(one, two), box_labels=("sea", "ship"))
    assert without_background_boxes(both, "sea") == replace(both, boxes=(two,), box_labels=("ship",))
    assert without_background_boxes(both, None) is both
    empty = Example("a", None, boxes=(one,), box_labels=("sea",))
    assert (without_background_boxes(empty, "sea").label, without_background_boxes(empty, "sea").boxes) == (
        "sea",
        (),
    )
    assert without_background_boxes(replace(empty, boxes=(), box_labels=None), "sea").label == "sea"
    plain = Example("a", "ship", boxes=(one,))
    assert without_background_boxes(plain, "sea") == plain


def test_boxes_of_the_background_train_and_do_not_count_as_seen(tmp_path):
    marked = [replace(e, box_labels=("none", "light") * 2) for e in _mixed(8)]
    (record,) = fit(marked, tmp_path / "m", replace(QUICK, background="none", epochs=1, scorer="evidence"))
    assert record.accuracy is None
    empty = [replace(e, box_labels=("none",) * 4) for e in marked[:4]]
    (record,) = fit([*marked, *empty], tmp_path / "n", replace(QUICK, background="none", epochs=1))
    assert record.accuracy is not None  # they are of class none


@pytest.mark.parametrize(("estimator", "reaches"), [("none", False), ("straight-through", True)])
def test_without_an_estimator_the_task_does_not_reach_the_scores(tmp_path, estimator, reaches):
    options = replace(QUICK, scorer="saol", scorer_loss=(0.0,), value_loss=0.0, estimator=estimator, epochs=1)
    list(fit(_spots(8), tmp_path / "m", options))
    model = load_model(tmp_path / "m")
    net, config = model.net.train(), model.config
    net.zero_grad()
    loader = Loader(config.input, config.grid, threads=0)
    samples = loader.measure(_spots(8), config.classes)

    def work(batch):
        select = selector(net.scorer.gate, torch.Generator().manual_seed(0))
        traversal = traverse(net, batch, select, (3,), options)
        return batch_loss(net, batch, traversal, options, baseline=FIRST_BASELINE)

    found, _ = loader.process(samples, work)
    found.joined(found.sums)[0].backward()
    moved = [p.grad is not None and bool(p.grad.abs().max() > 0) for p in net.scorer.attend.parameters()]
    assert any(moved) == reaches
    loader.close()
