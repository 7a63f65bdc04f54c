"""Encoders: the built-in one and timm's."""

import pytest
import timm
import torch
from safetensors.torch import save_file

from hiresattn.errors import ConfigError
from hiresattn.model.encoders import build_encoder


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
        build_encoder("resnet1888", channels=3)


def test_local_weights_are_loaded(tmp_path):
    made = timm.create_model("test_resnet", num_classes=10)
    for value in made.state_dict().values():
        if value.is_floating_point():
            value.fill_(0.123)
    save_file(made.state_dict(), tmp_path / "weights.safetensors")
    encoder = build_encoder("test_resnet", channels=3, weights=str(tmp_path / "weights.safetensors"))
    assert next(encoder.parameters()).flatten()[0].item() == pytest.approx(0.123)


def test_the_small_encoder_has_no_pretrained_weights():
    with pytest.raises(ConfigError, match="timm"):
        build_encoder("small", channels=3, pretrained=True)


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
