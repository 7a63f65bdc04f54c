"""Scorers as classifiers of ordinary images: one glimpse, the setting that they were published in."""

import numpy as np
import pytest
import torch
from torch.nn import functional

from hiresattn.checkpoint import Model, load_model, save_model
from hiresattn.config import InputConfig, ModelConfig
from hiresattn.errors import ConfigError
from hiresattn.inference.classify import classify
from hiresattn.model.build import build_model
from hiresattn.model.describe import describe
from hiresattn.model.scorers import SCORERS, ScorerInput, Target
from hiresattn.model.select import selector
from hiresattn.reading.fetch import Crops

WHOLE = np.array([[0, 0, 32, 32]])
CLASSIFYING = ("saol", "ltpa", "oaa")


def _images(rng, count=24):
    """Noise with a bright cross or a dark ring somewhere; the class is which."""
    labels = rng.integers(0, 2, count)
    pixels = rng.normal(0, 0.3, (count, 3, 32, 32)).astype(np.float32)
    cross, ring = np.zeros((9, 9)), np.zeros((9, 9))
    cross[4], cross[:, 4] = 1, 1
    ring[[0, -1]], ring[:, [0, -1]] = 1, 1
    for row, (y, x) in enumerate(rng.integers(0, 23, (count, 2))):
        pixels[row, :, y : y + 9, x : x + 9] += (2 * cross, -2 * ring)[labels[row]]
    return pixels, labels


def _net(name, head):
    torch.manual_seed(0)
    config = ModelConfig(classes=("cross", "ring"), scorer=name, head=head, input=InputConfig(size=32))
    return build_model(config), config


def _look(net, pixels):
    def fetch(image, regions):
        return Crops(pixels[image], np.ones((len(image), 32, 32), np.float32))

    count = len(pixels)
    return net(
        fetch,
        [WHOLE] * count,
        WHOLE.repeat(count, 0),
        select=selector(net.scorer.gate),
        k=(1,),
    )


@pytest.mark.parametrize("name", [name for name in SCORERS if name != "context"])
def test_every_scorer_learns_to_classify_small_images(name):
    head = "scorer" if name in CLASSIFYING else "classifier"
    net, _ = _net(name, head)
    rng = np.random.default_rng(0)
    optimizer = torch.optim.AdamW(net.parameters(), lr=5e-3)
    for _ in range(40):
        pixels, labels = _images(rng)
        seen = _look(net, pixels)
        assert len(seen.image) == len(labels)  # one glimpse each
        on, none = torch.from_numpy(labels), torch.zeros(len(labels), dtype=torch.bool)
        (scored,) = seen.scored
        own = net.scorer.losses(scored, Target(on, torch.ones(len(on)), none, 1.0))
        loss = sum(own.values(), torch.zeros(()))
        if head == "classifier":
            loss = loss + functional.cross_entropy(seen.logits, torch.from_numpy(labels))
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    pixels, labels = _images(rng, 100)
    with torch.no_grad():
        right = _look(net.eval(), pixels).logits.argmax(1).numpy() == labels
    assert right.mean() > 0.9


@pytest.mark.parametrize("name", CLASSIFYING)
def test_the_scorers_prediction_is_the_images(name):
    net, _ = _net(name, "scorer")
    pixels, _ = _images(np.random.default_rng(0), 4)
    with torch.no_grad():
        seen = _look(net.eval(), pixels)
        encoded = net.encoder(torch.from_numpy(pixels))
        alone = net.scorer(
            ScorerInput(encoded.stages, encoded.features, torch.full((4,), 1.0))
        ).class_log_prob
    assert torch.allclose(seen.logits, alone, atol=1e-5)


def test_a_description_counts_the_scorer_whose_head_predicts():
    _, config = _net("saol", "scorer")
    parts = {part.name: part for part in describe(config, 32, ()).parts}
    assert (parts["scorer"].calls, parts["classifier"].calls) == (1, 0)
    assert parts["scorer"].macs > 0


def test_several_glimpses_predict_by_their_mean(tmp_path):
    net, config = _net("saol", "scorer")
    model = save_model(Model(net.eval(), config, "m", ""), tmp_path / "m")
    assert load_model(tmp_path / "m").net.head == "scorer"
    image = np.random.default_rng(0).integers(0, 255, (128, 128, 3)).astype(np.uint8)
    found = classify(image, model, budget=5, stop=None, device="cpu")
    assert found.cost.glimpses == 5
    assert sum(found.scores.values()) == pytest.approx(1, abs=1e-5)


def test_scorers_that_are_no_classifiers_have_no_head():
    for name in ("location", "mask", "random"):
        with pytest.raises(ConfigError, match="is no classifier"):
            ModelConfig(classes=("a", "b"), scorer=name, head="scorer")
    with pytest.raises(ConfigError, match="leave out background"):
        ModelConfig(classes=("a", "b"), scorer="saol", head="scorer", background="a")
