"""Several labels per image: the losses by hand, what counts as right, and training that learns them."""

from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pytest
import torch

from hiresattn.checkpoint import load_model
from hiresattn.config import ModelConfig
from hiresattn.datasets.example import Example
from hiresattn.errors import ConfigError
from hiresattn.inference.classify import classify_all
from hiresattn.training.curriculum import stages_of
from hiresattn.training.estimators import (
    correctness,
    cross_entropy,
    reinforce_loss,
    rewards,
    row_cross_entropy,
)
from hiresattn.training.fit import fit
from hiresattn.training.losses import classification_loss, value_loss
from hiresattn.training.optim import class_weights
from hiresattn.training.options import TrainOptions
from hiresattn.training.samples import Sample
from hiresattn.training.targets import glimpse_labels

QUICK = TrainOptions(epochs=8, batch_size=8, threads=0, device="cpu", crop_size=32, k=(3,), lr=5e-3)


def entropy(logit, has):
    """Of one yes or no."""
    return np.log1p(np.exp(-logit if has else logit))


def seen(logits, image, parent=None, glimpse=None):
    count = len(image)
    return SimpleNamespace(
        logits=torch.tensor(logits),
        glimpse_logits=torch.tensor(glimpse if glimpse is not None else logits),
        image=np.array(image),
        parent=np.array(parent if parent is not None else [-1] * count),
        depth=np.array([0 if p < 0 else 1 for p in (parent or [-1] * count)]),
        region=np.array([[0, 0, 64, 64] if p < 0 else [0, 0, 32, 32] for p in (parent or [-1] * count)]),
        value=torch.zeros(count, requires_grad=True),
        log_prob=torch.zeros(count),
    )


def test_the_loss_is_the_mean_binary_cross_entropy_of_the_image_and_of_its_glimpses():
    logits = [[2.0, -1.0, 0.5], [0.0, 1.0, -3.0]]
    labels = torch.tensor([[1, 0, 1], [0, 0, 0]])
    expected = [
        np.mean([entropy(z, y) for z, y in zip(*rows, strict=True)])
        for rows in zip(logits, labels, strict=True)
    ]
    assert row_cross_entropy(torch.tensor(logits), labels).tolist() == pytest.approx(expected, abs=1e-6)
    assert cross_entropy(torch.tensor(logits), labels).item() == pytest.approx(np.mean(expected), abs=1e-6)
    found = seen(logits, [0, 0, 1], glimpse=[[1.0, 1.0, 1.0], [9.0, 9.0, 9.0], [0.0, 0.0, 0.0]])
    single = torch.tensor([[1, 0, 1], [-1, -1, -1], [0, 0, 0]])
    glimpses = np.mean([(2 * entropy(1, 1) + entropy(1, 0)) / 3, np.log(2)])
    loss = classification_loss(found, labels, single, glimpse_weight=0.5)
    assert loss.item() == pytest.approx(np.mean(expected) + 0.5 * glimpses, abs=1e-6)


def test_weights_of_classes_are_how_many_lack_a_label_for_each_that_has_it():
    samples = [Sample(Example("x"), label, (0, 0, 9, 9), 1, 1) for label in [(1, 0), (1, 0), (1, 0), (0, 0)]]
    weights = class_weights(samples, 2, replace(QUICK, multi_label=True, class_weights="balanced"))
    assert weights.tolist() == pytest.approx([1 / 3, 4])
    logits, labels = torch.tensor([[0.5, -1.0]]), torch.tensor([[1, 1]])
    expected = (entropy(0.5, 1) / 3 + 4 * entropy(-1, 1)) / 2
    assert cross_entropy(logits, labels, weights).item() == pytest.approx(expected, abs=1e-6)


def test_an_answer_is_as_right_as_its_labels_are():
    logits = torch.tensor([[1.0, -1.0, 2.0], [1.0, 1.0, 2.0], [-1.0, -1.0, -1.0]])
    labels = torch.tensor([[1, 0, 1], [1, 0, 0], [0, 0, 0]])
    assert correctness(logits, labels).tolist() == pytest.approx([1, 1 / 3, 1])
    assert correctness(logits, torch.tensor([2, 0, 1])).tolist() == [1, 0, 0]


def test_a_glimpses_reward_is_the_best_seen_of_each_label_below_it():
    glimpse = [[0.0, 0.0], [4.0, -4.0], [-4.0, 4.0], [0.0, -5.0]]
    found = seen([[0.0, 0.0]] * 2, [0, 0, 0, 1], [-1, 0, 0, -1], glimpse)
    labels = torch.tensor([[1, 1], [0, 0]])
    high, low = 1 / (1 + np.exp(-4)), 1 / (1 + np.exp(4))
    expected = [high, (high + low) / 2, (high + low) / 2, (0.5 + 1 / (1 + np.exp(-5))) / 2]
    assert rewards(found, labels).tolist() == pytest.approx(expected, abs=1e-6)
    target = value_loss(found, labels, [None, None], 32)  # at logit 0 the loss doesn't depend on the target
    target.alone().backward()
    assert found.value.grad.tolist() == pytest.approx([0.5 - high, 0, 0, 0], abs=1e-6)


def test_boxes_leave_glimpses_without_their_centre_out_for_all_labels():
    found = seen([[0.0, 0.0]], [0, 0, 0], [-1, 0, 0])
    found.region[2] = [32, 32, 32, 32]
    answers = glimpse_labels(found, np.array([[1, 0]]), [np.array([[40, 40, 4, 4]])], finest=32)
    assert answers.tolist() == [[1, 0], [-1, -1], [1, 0]]


def test_the_published_loss_takes_several_labels():
    found = seen([[1.0, -1.0]], [0, 0], [-1, 0], [[1.0, -1.0], [1.0, 1.0]])
    result = reinforce_loss(found, torch.tensor([[1, 0]]), 0.5)
    assert result.sums[4] == 1  # it is right
    assert torch.isfinite(result.alone())


def test_a_size_that_shows_few_of_the_labels_is_no_stage_of_its_own():
    from hiresattn.geometry import Grid

    def items(depths, *labels):
        return [Sample(Example("x"), label, (0, 0, 9, 9), depths, 1) for label in labels]

    both, none = items(1, (1, 1, 0, 0), (0, 0, 1, 1)), items(2, (0, 0, 0, 0), (0, 0, 0, 0))
    assert len(stages_of([*both, *none], Grid())) == 1
    assert len(stages_of([*both, *items(2, (1, 0, 1, 0))], Grid())) == 2


def _spots(count, split="train", seed=0):
    """Noise, with a light spot, a dark one, both or neither."""
    rng = np.random.default_rng([seed, len(split)])
    examples = []
    for number in range(count):
        image = rng.integers(90, 160, (128, 128, 1)).astype(np.uint8)
        label = tuple(name for bit, name in ((1, "light"), (2, "dark")) if number & bit)
        for name in label:
            y, x = rng.integers(0, 100, 2)
            image[y : y + 28, x : x + 28] = 255 if name == "light" else 0
        examples.append(Example(image, label, split))
    return examples


def test_training_learns_labels_that_come_alone_together_and_not_at_all(tmp_path):
    records = list(fit(_spots(64) + _spots(16, "val"), tmp_path / "model", QUICK))
    assert records[-1].val_accuracy >= 0.8  # all labels right; by chance, 1 of 4
    model = load_model(tmp_path / "model")
    assert (model.classes, model.config.multi_label) == (("dark", "light"), True)
    assert model.training["options"]["multi_label"] is True
    fresh = _spots(24, "test", seed=9)
    found = list(classify_all(fresh, model, device="cpu", budget=16))
    assert np.mean([set(p.labels) == set(e.label) for p, e in zip(found, fresh, strict=True)]) >= 0.8


def test_a_resumed_run_ends_as_an_uninterrupted_one_and_options_are_stored(tmp_path):
    examples, options = _spots(8) + _spots(4, "val"), replace(QUICK, epochs=2, class_weights="balanced")
    list(fit(examples, tmp_path / "whole", options))
    run = fit(examples, tmp_path / "parts", options)
    next(run)
    run.close()
    list(fit(examples, tmp_path / "parts", options, resume=True))
    assert load_model(tmp_path / "whole").sha256 == load_model(tmp_path / "parts").sha256


def test_text_with_bars_is_several_labels_where_that_is_asked_for(tmp_path):
    examples = [replace(e, label="|".join(e.label)) for e in _spots(8) if e.label]
    list(fit(examples, tmp_path / "model", replace(QUICK, epochs=1, multi_label=True)))
    assert load_model(tmp_path / "model").classes == ("dark", "light")
    said = []
    list(fit(examples, tmp_path / "plain", replace(QUICK, epochs=1), on_message=said.append))
    assert (
        "'light|dark' is trained as a class of its own; if it means several labels, set multi_label" in said
    )
    assert load_model(tmp_path / "plain").classes == ("dark", "light", "light|dark")


@pytest.mark.parametrize("estimator", ["reinforce", "reinforce-loo"])
def test_every_estimator_takes_several_labels(tmp_path, estimator):
    (record,) = fit(_spots(8), tmp_path / "model", replace(QUICK, epochs=1, estimator=estimator, k=(2,)))
    assert np.isfinite(record.loss)


def test_evidence_against_a_background_is_refused_with_several_labels(tmp_path):
    with pytest.raises(ConfigError, match="leave out background or multi_label"):
        list(fit(_spots(8), tmp_path / "model", replace(QUICK, background="dark")))
    with pytest.raises(ConfigError, match="background"):
        ModelConfig(classes=("a", "b"), background="a", multi_label=True)


def test_a_rare_label_and_one_of_no_training_image_are_said(tmp_path):
    said = []
    odd = replace(_spots(1)[0], label=("dark", "odd"))
    list(fit([*_spots(8), odd], tmp_path / "model", replace(QUICK, epochs=1), on_message=said.append))
    assert said == ["1 of 3 classes have one training image each: 'odd'; add more, or leave them out"]
    with pytest.raises(ConfigError, match="label 'odd' in split 'val' and not in 'train'"):
        list(fit([*_spots(8), replace(odd, split="val")], tmp_path / "other", replace(QUICK, epochs=1)))


@pytest.mark.parametrize(
    "changes",
    [{"scorer": "saol"}, {"scorer": "ltpa"}, {"scorer": "oaa"}, {"scorer": "mask"}, {"cutmix": 0.7}],
    ids=str,
)
def test_every_scorer_and_mixed_images_take_several_labels(tmp_path, changes):
    options = replace(QUICK, epochs=1, batch_size=4, class_weights="balanced", **changes)
    (record,) = fit(_spots(8), tmp_path / "model", options)
    assert np.isfinite(record.loss)
