"""The distance to the training images: what it means, and how it is kept."""

import json

import numpy as np
import pytest
import torch

from hiresattn.card import CARD
from hiresattn.checkpoint import Model, load_model, save_model, set_reference
from hiresattn.config import InputConfig, ModelConfig
from hiresattn.errors import CheckpointError, ConfigError
from hiresattn.model.build import build_model
from hiresattn.model.reference import LEAST_CASES, REFERENCE, Reference


def drawn(count, width=8, seed=0):
    """Correlated features of different sizes."""
    rng = np.random.default_rng(seed)
    mix = np.eye(width) + 0.3 * np.random.default_rng(99).normal(size=(width, width)) / width**0.5
    return rng.normal(size=(count, width)) @ mix * 10.0 ** np.linspace(-0.5, 0.5, width) + 5


def test_with_many_images_it_is_the_mahalanobis_distance():
    known = drawn(4000)
    reference = Reference.of(known)
    new = drawn(5, seed=1)
    apart = new - known.mean(0)
    exact = np.sqrt(np.einsum("ij,jk,ik->i", apart, np.linalg.inv(np.cov(known.T)), apart) / 8)
    assert [reference.distance(row) for row in new] == pytest.approx(exact.tolist(), rel=0.1)
    assert np.mean([reference.distance(row) ** 2 for row in known]) == pytest.approx(1, rel=0.05)


@pytest.mark.parametrize("count", [2, 5, 30, 300])
def test_from_few_images_it_is_finite_and_others_are_further(count):
    reference = Reference.of(drawn(count, width=32))
    alike = np.median([reference.distance(row) for row in drawn(100, width=32, seed=1)])
    far = np.median([reference.distance(3 * row) for row in drawn(100, width=32, seed=1)])
    assert 0 < alike < far < np.inf


def test_a_feature_that_never_varied_counts_when_it_does():
    known = drawn(200)
    known[:, 3] = 0.0
    reference = Reference.of(known)
    new = known[0].copy()
    before = reference.distance(new)
    new[3] = known.std(0).mean()
    assert reference.distance(new) > before + 1


def test_the_limit_is_passed_by_one_in_a_hundred_like_the_validation_images():
    reference = Reference.of(drawn(400)).with_limit(drawn(400, seed=1))
    over = np.mean([reference.distance(row) > reference.limit for row in drawn(4000, seed=2)])
    assert 0.001 < over < 0.03
    assert (reference.cases, reference.limit_cases) == (400, 400)
    few = Reference.of(drawn(400)).with_limit(drawn(LEAST_CASES - 1, seed=1))
    assert (few.limit, few.limit_cases) == (None, LEAST_CASES - 1)


def test_images_without_features_are_left_out():
    known = drawn(50)
    known[7] = np.nan
    assert Reference.of(known).cases == 49
    assert Reference.of(known).distance(known[7]) is None
    with pytest.raises(ConfigError, match="two or more"):
        Reference.of(known[7:9])


@pytest.fixture
def saved(tmp_path):
    torch.manual_seed(0)
    rule = InputConfig(bands=(0,), low=(0.0,), high=(255.0,), dtype="uint8")
    config = ModelConfig(classes=("a", "b"), input=rule)
    model = Model(build_model(config).eval(), config, "m", "")
    save_model(model, tmp_path / "model")
    width = int(model.net.encoder.feature_width) + 2
    set_reference(tmp_path / "model", known(width))
    return tmp_path / "model"


def known(width):
    return Reference.of(drawn(50, width)).with_limit(drawn(50, width, seed=1))


def test_it_is_kept_beside_the_model_and_goes_with_it(saved, tmp_path):
    model = load_model(saved)
    again = save_model(model, tmp_path / "again")
    back = load_model(tmp_path / "again").reference
    row = drawn(1, len(model.reference.mean), seed=2)[0]
    assert back.distance(row) == model.reference.distance(row) == known(len(row)).distance(row)
    assert (back.limit, back.limit_cases, back.cases) == (again.reference.limit, 50, 50)
    save_model(Model(model.net, model.config, "m", ""), tmp_path / "again")  # trained anew
    assert not (tmp_path / "again" / REFERENCE).exists()
    assert load_model(tmp_path / "again").reference is None


@pytest.mark.parametrize("damage", [
    lambda path: (path / REFERENCE).unlink(),
    lambda path: (path / REFERENCE).write_bytes(b"nothing"),
    lambda path: _edit(path, limit="far"),
    lambda path: _edit(path, sha256="0"),
])  # fmt: skip
def test_a_damaged_one_is_one_clear_error(saved, damage):
    damage(saved)
    with pytest.raises(CheckpointError, match=REFERENCE):
        load_model(saved)


def _edit(path, **changes):
    card = json.loads((path / CARD).read_text())
    card["reference"] |= changes
    (path / CARD).write_text(json.dumps(card))
