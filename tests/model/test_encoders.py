"""Encoders: the built-in ones, timm's and a user's own."""

import numpy as np
import pytest
import torch
from torch import nn

from hiresattn.checkpoint import load_model
from hiresattn.config import ModelConfig
from hiresattn.datasets.manifest import Example
from hiresattn.errors import CheckpointError, ConfigError
from hiresattn.model import encoders
from hiresattn.model.build import build_model
from hiresattn.model.describe import describe
from hiresattn.model.encoders import Encoded, build_encoder, find_encoder, register_encoder
from hiresattn.training.fit import fit
from hiresattn.training.options import TrainOptions


@pytest.mark.parametrize(
    ("name", "channels", "size"), [("small", 1, 64), ("small", 4, 64), ("test_resnet", 4, 64)]
)
def test_an_encoder_gives_maps_from_fine_to_coarse_and_one_vector(name, channels, size):
    encoder = build_encoder(name, channels=channels)
    seen = encoder(torch.randn(2, channels, size, size))
    assert seen.features.shape == (2, encoder.feature_width)
    assert tuple(stage.shape[1] for stage in seen.stages) == encoder.stage_channels
    sides = [stage.shape[-1] for stage in seen.stages]
    assert sides == sorted(sides, reverse=True)


def test_the_small_encoder_is_small():
    parameters = sum(p.numel() for p in build_encoder("small", channels=1).parameters())
    assert parameters < 100_000


def test_an_unknown_backbone_is_a_config_error_that_names_similar_ones():
    with pytest.raises(ConfigError, match="resnet"):
        find_encoder("resnet1888")


def test_the_small_encoder_has_no_pretrained_weights():
    with pytest.raises(ConfigError, match="timm"):
        find_encoder("small", pretrained=True)


def test_further_convolutions_widen_what_a_px_of_the_last_map_sees():
    for name, across in (("small", 33), ("small-6", 65)):
        torch.manual_seed(0)
        encoder = build_encoder(name, channels=1)
        crop = torch.randn(1, 1, 128, 128, requires_grad=True)
        *_, last = [layer for layer in encoder.layers if layer]
        assert last[0].out_channels == encoder.stage_channels[-1]
        for module in encoder.modules():
            if isinstance(module, torch.nn.GroupNorm):
                module.forward = lambda x: x  # it sees everything
        encoder(crop).stages[-1][0, :, 8, 8].sum().backward()
        seen = crop.grad[0, 0].abs().sum(0).nonzero()[:, 0]
        assert seen.max() - seen.min() + 1 == across


@pytest.fixture
def registry(monkeypatch):
    monkeypatch.setattr(encoders, "_REGISTERED", {})


class Own(nn.Module):
    """Two maps, and whatever ``out`` makes of them."""

    def __init__(self, channels, out=lambda maps: maps):
        super().__init__()
        self.fine = nn.Conv2d(channels, 6, 3, stride=4, padding=1)
        self.norm = nn.BatchNorm2d(6)
        self.coarse = nn.Conv2d(6, 10, 3, stride=2, padding=1)
        self.out = out

    def forward(self, crops):
        fine = self.norm(self.fine(crops))
        return self.out([fine, self.coarse(fine)])


@pytest.mark.parametrize(
    ("out", "stages", "width"),
    [
        (lambda maps: maps, (6, 10), 10),
        (lambda maps: maps[1], (10,), 10),
        (lambda maps: Encoded(tuple(maps), maps[0].amax((2, 3))), (6, 10), 6),
    ],
)
def test_a_registered_encoder_may_return_a_map_or_maps_or_maps_and_vectors(registry, out, stages, width):
    register_encoder("own", lambda channels: Own(channels, out))
    encoder = build_encoder("own", channels=2, size=48)
    assert (encoder.stage_channels, encoder.feature_width, encoder.training) == (stages, width, True)
    assert encoder.body.norm.num_batches_tracked == 0  # measuring the widths trains nothing
    seen = encoder.eval()(torch.randn(3, 2, 48, 48))
    assert tuple(stage.shape[1] for stage in seen.stages) == stages
    assert seen.features.shape == (3, width)
    if width == 10:
        assert torch.equal(seen.features, seen.stages[-1].mean((2, 3)))
    config = ModelConfig(classes=("a", "b"), encoder="own")
    assert build_model(config).scorer.local.in_channels == stages[-1]
    parts = describe(config, 256, (2,)).parts
    assert sum(part.params_trainable for part in parts if part.name.startswith("encoder")) == sum(
        p.numel() for p in Own(3).parameters()
    )


def test_a_model_with_a_registered_encoder_trains_and_loads_once_it_is_registered(registry, tmp_path):
    register_encoder("own", Own)
    rng = np.random.default_rng(0)
    images = [rng.integers(0, 255, (64, 64, 3)).astype(np.uint8) for _ in range(4)]
    examples = [Example(image, "ab"[number % 2]) for number, image in enumerate(images)]
    options = TrainOptions(encoder="own", epochs=1, k=(0,), threads=0, device="cpu")
    list(fit(examples, tmp_path / "model", options))
    model = load_model(tmp_path / "model")
    assert model.embed(np.zeros((1, 3, 64, 64), np.float32)).shape == (1, 10)
    encoders._REGISTERED.clear()
    with pytest.raises(CheckpointError, match=r"call hiresattn.register_encoder\('own', build\) first"):
        load_model(tmp_path / "model")


def test_encoders_that_do_not_fit_are_config_errors(registry):
    with pytest.raises(ConfigError, match="built-in"):
        register_encoder("small", Own)
    for out, words in (
        (lambda maps: maps[0].mean(), r"returned a tensor \[\]"),
        (lambda _: [], "returned a list of nothing"),
        (lambda _: "maps", "returned a str"),
        (lambda maps: (maps[0], None), r"a tensor \[1, 6, 12, 12\], a NoneType"),
    ):
        register_encoder("own", lambda channels, out=out: Own(channels, out))
        with pytest.raises(ConfigError, match=words):
            build_encoder("own", channels=3, size=48)
    register_encoder("own", lambda _: Own(5))
    with pytest.raises(ConfigError, match=r"can't take crops \[n 3 48 48\]"):
        build_encoder("own", channels=3, size=48)
    with pytest.raises(ConfigError, match="no pretrained weights"):
        find_encoder("own", pretrained=True)
    with pytest.raises(ConfigError, match="encoder_drop"):
        build_encoder("own", channels=3, drop=0.1)
