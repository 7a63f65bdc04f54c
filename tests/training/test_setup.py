"""Staged runs: weights of an earlier model, if its parts fit."""

import json
from dataclasses import replace

import numpy as np
import pytest
import torch

from hiresattn import classify
from hiresattn.checkpoint import load_model
from hiresattn.datasets.example import Example
from hiresattn.errors import CheckpointError, ConfigError, NotFoundError, OpenError
from hiresattn.training.fit import fit
from hiresattn.training.optim import largest_lr
from hiresattn.training.options import TrainOptions
from hiresattn.training.setup import split_examples
from hiresattn.training.start import load_baseline
from tests.pyramid.test_bounded import bomb

QUICK = TrainOptions(
    epochs=1, batch_size=4, threads=0, device="cpu", crop_size=16, k=(1,), grid=3, fraction=0.5
)
#: So small a step that the weights stay what they were, to five digits.
STILL = replace(QUICK, lr=1e-12)


def _images(names=("a", "b"), dtype=np.uint8):
    rng = np.random.default_rng(0)
    return [
        Example(rng.integers(60, 160, (32, 32, 1)).astype(dtype), names[i % len(names)]) for i in range(8)
    ]


def _weights(path):
    return load_model(path).net.state_dict()


@pytest.fixture(scope="module")
def first(tmp_path_factory):
    path = tmp_path_factory.mktemp("first")
    list(fit(_images(), path, replace(QUICK, epochs=2, lr=0.01)))
    return path


def test_training_starts_from_all_weights_and_the_values_of_the_model(first, tmp_path):
    said = []
    options = replace(STILL, init_from=str(first), seed=5, value_range=None)
    list(fit(_images(), tmp_path / "next", options, on_message=said.append))
    before, after = _weights(first), _weights(tmp_path / "next")
    assert before.keys() == after.keys()
    for name, value in before.items():
        if value.is_floating_point() and "running" not in name:
            assert torch.allclose(value, after[name], atol=1e-6), name
    assert said == [f"Starts from the weights of {first}"]
    assert load_model(tmp_path / "next").config.input.low == load_model(first).config.input.low


def test_other_classes_get_a_fresh_classifier_and_that_is_said(first, tmp_path):
    said = []
    options = replace(STILL, init_from=str(first), seed=5)
    list(fit(_images(("x", "y", "z")), tmp_path / "next", options, on_message=said.append))
    before, after = _weights(first), _weights(tmp_path / "next")
    assert after["classifier.weight"].shape[0] == 3
    name = next(n for n, v in before.items() if n.startswith("encoder.") and v.ndim == 4)
    assert torch.allclose(before[name], after[name], atol=1e-6)
    assert "its classes differ (2 there), so the classifier is fresh" in said[0]


def test_other_parts_are_an_error_that_names_what_differs(first, tmp_path):
    options = replace(STILL, init_from=str(first), encoder="small-6", coarse_encoder=True)
    with pytest.raises(CheckpointError, match="encoder is 'small' there and 'small-6' here") as caught:
        list(fit(_images(), tmp_path / "next", options))
    assert "coarse_encoder is False there and True here" in str(caught.value)
    assert "input.low" not in str(caught.value)
    assert not (tmp_path / "next").exists()
    with pytest.raises(NotFoundError, match="no such model"):
        list(fit(_images(), tmp_path / "next", replace(STILL, init_from=str(tmp_path / "absent"))))


def test_a_coarse_encoder_and_another_scorer_start_fresh_where_the_model_has_none_and_that_is_said(
    first, tmp_path
):
    said = []
    options = replace(STILL, init_from=str(first), coarse_encoder=True, scorer="evidence")
    list(fit(_images(), tmp_path / "next", options, on_message=said.append))
    before, after = _weights(first), _weights(tmp_path / "next")
    assert torch.allclose(before["classifier.weight"], after["classifier.weight"], atol=1e-6)
    assert any(name.startswith("coarse_encoder.") for name in after)
    assert any(line.endswith("; its coarse encoder is fresh; its scorer is fresh") for line in said)


def test_the_next_stage_may_zoom_and_divide_otherwise(first, tmp_path):
    options = replace(STILL, init_from=str(first), grid=4, fraction=0.3, crop_size=8, k=(2, 1))
    assert len(list(fit(_images(), tmp_path / "next", options))) == 1


def test_a_model_of_16_bit_images_gives_the_range_of_values_to_the_next(tmp_path):
    images = _images(dtype=np.uint16)
    list(fit(images, tmp_path / "a", replace(QUICK, value_range=(0, 500))))
    list(fit(images, tmp_path / "b", replace(QUICK, init_from=str(tmp_path / "a"))))
    assert load_model(tmp_path / "b").config.input.high == (500.0,)


def test_the_baseline_of_reinforce_goes_on(first, tmp_path):
    learned = load_baseline(str(first))
    (first / "state.safetensors").rename(tmp_path / "kept")
    assert load_baseline(str(first)) is None
    (tmp_path / "kept").rename(first / "state.safetensors")
    assert learned == 0.5  # straight-through leaves it as it began
    options = replace(STILL, estimator="reinforce", select="best")
    list(fit(_images(), tmp_path / "a", options))
    moved = load_baseline(str(tmp_path / "a"))
    assert moved != 0.5
    list(fit(_images(), tmp_path / "b", replace(options, init_from=str(tmp_path / "a"))))
    reward = (load_baseline(str(tmp_path / "b")) - 0.81 * moved) / 0.1  # two steps: .9 of .9, and two rewards
    assert 0 <= reward <= 1.9 + 1e-9


def test_a_resumed_stage_goes_on_and_does_not_start_anew(first, tmp_path):
    options = replace(QUICK, epochs=2, init_from=str(first))
    list(fit(_images(), tmp_path / "whole", options))
    run = fit(_images(), tmp_path / "parts", options)
    next(run)
    run.close()
    said = []
    list(fit(_images(), tmp_path / "parts", options, resume=True, on_message=said.append))
    assert said == []
    whole, parts = (
        json.loads((tmp_path / n / "card.json").read_text())["weights"] for n in ("whole", "parts")
    )
    assert whole == parts


def test_a_fold_chooses_among_examples_what_validates():
    folds = [("a", "1"), ("b", "1"), ("a", "2"), ("b", 2.0), ("a", "test")]
    examples = [Example(f"{n}.png", label, fold=fold) for n, (label, fold) in enumerate(folds)]
    train, val, _ = split_examples(examples, TrainOptions(fold=2))
    assert [[e.source for e in part] for part in (train, val)] == [["0.png", "1.png"], ["2.png", "3.png"]]
    again = split_examples([*train, *val], TrainOptions(fold="1"))
    assert [e.source for e in again[1]] == ["0.png", "1.png"]
    with pytest.raises(ConfigError, match=r"no rows of fold '3'; there is 1, 2"):
        split_examples(examples, TrainOptions(fold=3))
    with pytest.raises(ConfigError, match=r"x\.png: no fold"):
        split_examples([*examples, Example("x.png", "a")], TrainOptions(fold=1))


def test_px_of_the_given_nodata_are_not_measured_in_training_and_in_use(tmp_path):
    blank = np.full((64, 64, 1), 7, np.uint8)
    examples = [Example(np.full((64, 64, 1), 100 + 50 * (n % 2), np.uint8), "ab"[n % 2]) for n in range(8)]
    options = replace(QUICK, epochs=1, nodata=7)
    list(fit(examples, tmp_path / "model", options))
    model = load_model(tmp_path / "model")
    assert model.config.input.nodata == 7
    assert classify(blank, model, device="cpu").status == "no_valid_pixels"
    assert classify(blank, model, device="cpu", nodata=250).status == "ok"


def test_an_image_whose_first_look_is_out_of_proportion_is_skipped_or_refused(tmp_path):
    path = bomb(tmp_path / "bomb.tif", side=4096, tiles=16)
    examples = [*(Example(np.full((64, 64, 1), 100 + 50 * (n % 2), np.uint8), "ab"[n % 2]) for n in range(8))]
    examples.append(Example(str(path), "a"))
    with pytest.raises(OpenError, match="out of proportion"):
        list(fit(examples, tmp_path / "model", QUICK))
    said = []
    list(fit(examples, tmp_path / "next", replace(QUICK, on_error="skip"), on_message=said.append))
    assert any("out of proportion" in line for line in said)


@pytest.mark.parametrize(("count", "expected"), [(10, 4), (62, 4), (160, 10), (5000, 32)])
def test_few_cases_come_in_small_batches(count, expected):
    examples = [Example(f"{n}.png", "ab"[n % 2]) for n in range(count)]
    assert split_examples(examples, TrainOptions())[2].batch_size == expected
    assert split_examples(examples, TrainOptions(batch_size=7))[2].batch_size == 7
    slides = [replace(one, case=str(n // 2), label="ab"[n // 2 % 2]) for n, one in enumerate(examples)]
    assert split_examples(slides, TrainOptions())[2].batch_size == min(max(count // 2 // 16, 4), 32)


@pytest.mark.parametrize(
    ("count", "expected"), [(10, 5e-4), (160, 2e-3 * (10 / 32) ** (2 / 3)), (5000, 2e-3)]
)
def test_few_cases_are_learnt_from_in_small_steps(count, expected):
    examples = [Example(f"{n}.png", "ab"[n % 2]) for n in range(count)]

    def lr(**options):
        return largest_lr(split_examples(examples, TrainOptions(**options))[2])

    assert lr() == pytest.approx(expected, rel=1e-2)
    assert lr(batch_size=4) == 2e-3
    assert lr(lr=1e-2) == lr(lr=1e-2, batch_size=4) == 1e-2
