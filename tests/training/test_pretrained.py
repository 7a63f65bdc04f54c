"""Training with encoders that others trained, frozen or not."""

import json
import shutil
import socket
from dataclasses import replace

import numpy as np
import pytest
import torch
from safetensors import safe_open

from hiresattn import classify
from hiresattn.card import CARD
from hiresattn.checkpoint import load_model
from hiresattn.datasets.manifest import Example
from hiresattn.errors import CheckpointError, ConfigError, NotFoundError
from hiresattn.model.encoders import load_encoder
from hiresattn.training.fit import fit
from hiresattn.training.optim import optimizer_of
from hiresattn.training.options import TrainOptions
from hiresattn.training.state import STATE
from tests.encoders import MEAN, STD, write_encoder

QUICK = TrainOptions(
    epochs=2,
    batch_size=4,
    threads=0,
    device="cpu",
    k=(1,),
    grid=3,
    fraction=0.5,
    lr=0.01,
    freeze_encoder=True,
)


def _examples(side=64):
    rng = np.random.default_rng(0)
    images = [rng.integers(0, 255, (side, side, 3)).astype(np.uint8) for _ in range(6)]
    return [Example(image, "ab"[i % 2], "val" if i > 3 else "train") for i, image in enumerate(images)]


@pytest.fixture
def offline(monkeypatch):
    def refuse(*_, **__):
        pytest.fail("the network was asked")

    monkeypatch.setattr(socket, "getaddrinfo", refuse)
    monkeypatch.setattr(socket.socket, "connect", refuse)


def _run(output, encoder, examples=None, **changes):
    options = replace(QUICK, encoder=encoder, **changes)
    list(fit(_examples() if examples is None else examples, output, options))
    return load_model(output)


@pytest.mark.usefixtures("offline")
@pytest.mark.parametrize("frozen", [False, True])
def test_a_model_holds_its_encoder_and_needs_no_folder_and_no_network(tmp_path, frozen):
    write_encoder(tmp_path / "source", size=32, img_size=32, init_values=1e-3)
    name = f"local-dir:{tmp_path / 'source'}"
    alone = load_encoder(name)
    model = _run(tmp_path / "model", name, freeze_encoder=frozen)
    shutil.rmtree(tmp_path / "source")
    model = load_model(tmp_path / "model")
    config = model.config
    assert (config.encoder, config.encoder_args) == ("test_vit", {"img_size": 32, "init_values": 1e-3})
    assert config.input == replace(alone.input, channels=3)
    assert config.input.low == pytest.approx(
        [255 * (m - s) for m, s in zip(MEAN, STD, strict=True)], abs=1e-3
    )
    crops = torch.randn(2, 3, 32, 32)
    with torch.no_grad():
        same = torch.equal(model.net.encoder(crops).features, alone.module(crops).features)
    assert same == frozen
    assert "source" not in json.dumps(json.loads((tmp_path / "model" / CARD).read_text())["config"])
    words = f"test_vit, started from {name} (cc-by-nc-4.0)"
    assert model.encoder == f"{words}{', frozen' if frozen else ''}, 64 features"
    assert classify(_examples()[0].source, tmp_path / "model", device="cpu").class_name in "ab"


def test_a_frozen_encoder_stays_and_the_coarse_encoder_learns(tmp_path):
    write_encoder(tmp_path / "source", "test_resnet", size=32)
    name = f"local-dir:{tmp_path / 'source'}"
    before = load_encoder(name).module.state_dict()
    net = _run(tmp_path / "model", name, coarse_encoder=True, freeze_encoder=True).net
    assert any("running_mean" in key for key in before)
    for key, value in net.encoder.state_dict().items():
        assert torch.equal(value, before[key]), key
    moved = [not torch.equal(value, before[key]) for key, value in net.coarse_encoder.state_dict().items()]
    assert np.mean(moved) > 0.9


def test_a_frozen_encoder_has_no_gradient_no_part_in_the_optimiser_and_none_in_the_state(tmp_path):
    write_encoder(tmp_path / "source", "test_resnet", size=32)
    net = _run(tmp_path / "model", f"local-dir:{tmp_path / 'source'}").net
    net.freeze_encoder()
    net.train()
    assert net.scorer.training
    assert not any(module.training for module in net.encoder.modules())
    encoded = net.encoder(torch.zeros(1, 3, 32, 32))
    assert encoded.features.grad_fn is None
    ids = {id(p) for p in net.encoder.parameters()}
    learned = [p for group in optimizer_of(net, QUICK).param_groups for p in group["params"]]
    assert learned
    assert not any(id(p) in ids for p in learned)
    with safe_open(tmp_path / "model" / STATE, framework="pt") as stored:
        names = [name for name in stored.keys() if name.startswith("net.")]  # noqa: SIM118 - not a dict
    assert names
    assert not any(name.startswith("net.encoder.") for name in names)


@pytest.mark.usefixtures("offline")
@pytest.mark.parametrize("frozen", [False, True])
def test_a_run_is_resumed_bit_by_bit_when_the_source_of_its_encoder_is_gone(tmp_path, frozen):
    write_encoder(tmp_path / "source", "test_resnet", size=32)
    options = replace(QUICK, encoder=f"local-dir:{tmp_path / 'source'}", freeze_encoder=frozen)
    list(fit(_examples(), tmp_path / "whole", options))
    run = fit(_examples(), tmp_path / "parts", options)
    next(run)
    run.close()
    shutil.rmtree(tmp_path / "source")
    list(fit(_examples(), tmp_path / "parts", options, resume=True))
    whole, parts = (json.loads((tmp_path / n / CARD).read_text()) for n in ("whole", "parts"))
    assert whole["weights"] == parts["weights"]
    assert whole["training"]["encoder"] == parts["training"]["encoder"]
    if frozen:
        (tmp_path / "parts" / "model.safetensors").unlink()
        with pytest.raises(
            CheckpointError, match=r"model\.safetensors is missing, which holds the frozen encoder"
        ):
            list(fit(_examples(), tmp_path / "parts", options, resume=True))


def test_what_is_asked_for_wins_over_the_encoders_own(tmp_path):
    write_encoder(tmp_path / "source", size=64, img_size=64)
    name = f"local-dir:{tmp_path / 'source'}"
    rule = _run(tmp_path / "model", name, crop_size=32, value_range=(0.0, 200.0)).config.input
    assert (rule.size, rule.low, rule.high) == (32, (0.0,) * 3, (200.0,) * 3)
    with pytest.raises(ConfigError, match=r"can't take crops of 40 px: .* multiple of its patches' 16 px"):
        _run(tmp_path / "other", name, crop_size=40)
    assert not (tmp_path / "other").exists()


def test_a_learning_rate_that_undoes_the_encoders_training_is_told(tmp_path):
    write_encoder(tmp_path / "source", size=32, img_size=32)
    said = {}
    for number, changes in enumerate(({}, {"freeze_encoder": False}, {"freeze_encoder": False, "lr": 1e-4})):
        options = replace(QUICK, encoder=f"local-dir:{tmp_path / 'source'}", epochs=1, **changes)
        said[number] = []
        list(fit(_examples(), tmp_path / str(number), options, on_message=said[number].append))
    assert (said[0], said[2]) == ([], [])
    assert "is pretrained, and lr 0.01 soon undoes that" in said[1][0]


def test_a_fresh_backbone_has_its_own_crops_and_the_range_of_the_images(tmp_path):
    rule = _run(tmp_path / "model", "test_vit", _examples(160), freeze_encoder=False, epochs=1).config.input
    assert rule.size == 160
    assert rule.low[0] == pytest.approx(127.5 - 2 * 255 / 12**0.5, abs=3)
    assert TrainOptions().crop_size is None


def test_the_next_stage_starts_from_a_model_whose_encoder_was_pretrained(tmp_path):
    write_encoder(tmp_path / "source", size=32, img_size=32, init_values=1e-3)
    first = _run(tmp_path / "first", f"local-dir:{tmp_path / 'source'}")
    shutil.rmtree(tmp_path / "source")
    options = replace(QUICK, encoder="test_vit", init_from=str(tmp_path / "first"))
    list(fit(_examples(), tmp_path / "second", options))
    second = load_model(tmp_path / "second")
    assert second.config.input == first.config.input
    assert second.encoder == first.encoder
    for key, value in second.net.encoder.state_dict().items():
        assert torch.equal(value, first.net.encoder.state_dict()[key])


@pytest.mark.usefixtures("offline")
def test_to_start_from_a_model_its_encoder_need_not_be_named(tmp_path):
    write_encoder(tmp_path / "source", size=32, img_size=32, init_values=1e-3)
    first = _run(tmp_path / "first", f"local-dir:{tmp_path / 'source'}")
    shutil.rmtree(tmp_path / "source")
    said = []
    options = replace(QUICK, init_from=str(tmp_path / "first"), epochs=1)
    list(fit(_examples(), tmp_path / "second", options, on_message=said.append))
    second = load_model(tmp_path / "second")
    assert (second.config.encoder_args, second.config.input) == (
        first.config.encoder_args,
        first.config.input,
    )
    assert second.encoder == first.encoder
    for key, value in second.net.encoder.state_dict().items():
        assert torch.equal(value, first.net.encoder.state_dict()[key])
    assert said[-1].endswith("; its encoder is test_vit")
    list(fit(_examples(), tmp_path / "second", replace(options, epochs=2), resume=True))
    assert load_model(tmp_path / "second").encoder == first.encoder


def test_pretrained_says_that_it_changes_nothing_of_an_encoder_with_weights_of_its_own(tmp_path):
    write_encoder(tmp_path / "source", size=32, img_size=32)
    said = []
    options = replace(QUICK, encoder=f"local-dir:{tmp_path / 'source'}", pretrained=True, epochs=1)
    list(fit(_examples(), tmp_path / "model", options, on_message=said.append))
    assert [one for one in said if "starts from its own weights; pretrained is for names of timm's" in one]


def test_a_coarse_encoder_that_is_added_begins_as_a_copy_of_a_pretrained_encoder(tmp_path):
    write_encoder(tmp_path / "source", size=32, img_size=32)
    name = f"local-dir:{tmp_path / 'source'}"
    _run(tmp_path / "first", name)
    options = replace(QUICK, encoder=name, init_from=str(tmp_path / "first"), coarse_encoder=True, lr=1e-9)
    said = []
    list(fit(_examples(), tmp_path / "second", options, on_message=said.append))
    assert said[-1].endswith("; its coarse encoder begins as a copy of its encoder, which was pretrained")
    state = load_model(tmp_path / "second").net.state_dict()
    names = [key for key in state if key.startswith("encoder.")]
    assert names
    assert all(torch.allclose(state[f"coarse_{key}"], state[key], atol=1e-6) for key in names)
    with pytest.raises(
        CheckpointError, match=r"encoder is 'test_vit' there and 'test_resnet' here.*Leave out encoder"
    ) as error:
        list(
            fit(
                _examples(), tmp_path / "third", replace(options, encoder="test_resnet", freeze_encoder=False)
            )
        )
    assert "encoder_args" not in str(error.value)


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"encoder": "small"}, "'small' starts from fresh weights, which freeze_encoder would keep"),
        ({"encoder": "test_resnet"}, "'test_resnet' starts from fresh weights"),
        ({"encoder": "small", "pretrained": True}, "no pretrained weights"),
        ({"encoder": "local-dir:nowhere"}, "no such folder"),
        ({"architecture": "tnet-fmow"}, "'tf_efficientnet_b0' starts from fresh weights"),
    ],
)
def test_encoders_that_cannot_be_had_end_the_run_before_it_begins(tmp_path, changes, words):
    with pytest.raises((ConfigError, NotFoundError), match=words):
        list(fit(_examples(), tmp_path / "model", replace(QUICK, **changes)))
    assert not (tmp_path / "model").exists()
