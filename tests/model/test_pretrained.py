"""Encoders with trained weights: from timm, the hub, folders and files."""

import json
import pickle

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import nn

from hiresattn.checkpoint import Model
from hiresattn.config import InputConfig, ModelConfig
from hiresattn.errors import CheckpointError, ConfigError, DomainError, NotFoundError
from hiresattn.model import encoders, hub
from hiresattn.model.build import build_model
from hiresattn.model.encoders import build_encoder, find_encoder, load_encoder
from tests.encoders import MEAN, STD, write_encoder


@pytest.fixture
def crops():
    return torch.randn((2, 3, 64, 64), generator=torch.Generator().manual_seed(0))


#: A vision transformer whose crops have one size, unlike timm's ``test_vit``.
FIXED = {"img_size": 96, "embed_dim": 48, "num_heads": 3, "depth": 5}


@pytest.mark.parametrize("pickled", [False, True])
@pytest.mark.parametrize(
    ("architecture", "classes", "args"),
    [
        ("test_vit", 0, {"img_size": 64}),
        ("test_vit", 7, {"img_size": 64}),
        ("vit_tiny_patch16_224", 7, FIXED | {"img_size": 64}),
        ("test_resnet", 7, {}),
    ],
)
def test_a_folder_gives_its_weights_and_the_input_it_was_trained_with(
    tmp_path, crops, architecture, classes, args, pickled
):
    body = write_encoder(tmp_path / "e", architecture, classes=classes, size=64, pickled=pickled, **args)
    encoder = load_encoder(f"local-dir:{tmp_path / 'e'}")
    assert encoder.input.size == 64
    assert encoder.input.low == pytest.approx([255 * (m - s) for m, s in zip(MEAN, STD, strict=True)])
    assert encoder.input.high == pytest.approx([255 * (m + s) for m, s in zip(MEAN, STD, strict=True)])
    assert encoder.spec.license == "cc-by-nc-4.0"
    expected = body.forward_head(body.forward_features(crops), pre_logits=True)
    found = encoder.module(crops)
    assert torch.allclose(found.features, expected, atol=1e-5)
    assert not found.features.requires_grad
    assert not encoder.module.training


def test_positions_are_resampled_for_crops_of_another_side(tmp_path):
    body = write_encoder(tmp_path, "vit_tiny_patch16_224", size=96, **FIXED)
    encoder = load_encoder(f"local-dir:{tmp_path}", size=64)
    found = encoder.module.body.pos_embed
    assert found.shape == (1, 1 + 16, 48)
    assert torch.equal(found[:, 0], body.pos_embed[:, 0])
    assert found[:, 1:].mean().item() == pytest.approx(body.pos_embed[:, 1:].mean().item(), abs=2e-3)
    assert encoder.module(torch.zeros(1, 3, 64, 64)).stages[0].shape == (1, 48, 4, 4)


def test_a_file_is_of_the_configuration_beside_it_or_of_a_named_architecture(tmp_path, crops):
    body = write_encoder(tmp_path, size=64, img_size=64)
    file = tmp_path / "model.safetensors"
    alone = tmp_path / "alone" / "w.safetensors"
    alone.parent.mkdir()
    file_bytes = file.read_bytes()
    alone.write_bytes(file_bytes)
    expected = body.forward_head(body.forward_features(crops), pre_logits=True)
    beside = load_encoder(str(file))
    named = load_encoder(f"test_vit:{alone}", size=64)
    assert beside.sha256 == named.sha256
    for encoder in (beside, named):
        assert torch.allclose(encoder.module(crops).features, expected, atol=1e-5)
    with pytest.raises(
        ConfigError, match=r"nothing says which architecture.*config\.json.*vit_small_patch16_224:"
    ):
        load_encoder(str(alone))
    with pytest.raises(NotFoundError, match="no such file"):
        load_encoder(f"test_vit:{tmp_path / 'gone.safetensors'}")
    with pytest.raises(ConfigError, match=r"no architecture 'resnt18'; similar names: .*resnet18"):
        load_encoder(f"resnt18:{alone}")
    with pytest.raises(
        ConfigError,
        match=r"aren't those of test_resnet; name the right .*\(they lack \S+, \S+ and \d+ more\)$",
    ):
        load_encoder(f"test_resnet:{alone}")


@pytest.mark.parametrize(
    ("name", "form"), [("local-dir:", "local-dir:FOLDER"), ("hf-hub: ", "hf-hub:owner/name")]
)
def test_a_name_without_anything_behind_its_prefix_is_refused(name, form):
    with pytest.raises(ConfigError, match=f"write {form}$"):
        load_encoder(name)


def test_an_encoder_that_returns_tokens_gives_its_class_token_and_the_mean_of_its_patches(tmp_path, crops):
    args = {
        "img_size": 64,
        "global_pool": "",
        "reg_tokens": 3,
        "mlp_layer": "SwiGLUPacked",
        "act_layer": "silu",
    }
    body = write_encoder(tmp_path, size=64, init_values=1e-5, dynamic_img_size=True, **args)
    encoder = load_encoder(f"local-dir:{tmp_path}")
    tokens = body(crops)
    assert tokens.shape[1] == 1 + 3 + 16
    expected = torch.cat([tokens[:, 0], tokens[:, 4:].mean(1)], 1)
    found = encoder.module(crops)
    assert torch.allclose(found.features, expected, atol=1e-5)
    assert encoder.module.feature_width == found.features.shape[1] == 128
    assert [tuple(stage.shape) for stage in found.stages] == [(2, 64, 4, 4)] * 4
    assert encoder.module(torch.zeros(1, 3, 96, 96)).stages[0].shape == (1, 64, 6, 6)  # dynamic_img_size


@pytest.mark.parametrize("size", [32, 64, 160])
def test_a_vision_transformer_takes_crops_of_whole_patches(size):
    encoder = build_encoder("test_vit", channels=3, size=size).eval()
    assert encoder(torch.zeros(1, 3, size, size)).stages[-1].shape[2:] == (size // 16, size // 16)


def test_crops_that_an_encoder_cannot_take_are_an_error_in_one_sentence():
    with pytest.raises(ConfigError, match=r"can't take crops of 70 px: .* multiple of its patches' 16 px"):
        build_encoder("test_vit", channels=3, size=70)
    with pytest.raises(ConfigError, match="can't take crops of 70 px"):
        build_encoder("test_maxvit", channels=3, size=70)


def test_the_widths_of_maps_are_those_that_come_out():
    encoder = build_encoder(
        "mixnet_s", channels=3, size=64
    )  # its last layers are several convolutions side by side
    with torch.no_grad():
        stages = encoder.eval()(torch.zeros(1, 3, 64, 64)).stages
    assert encoder.stage_channels == tuple(stage.shape[1] for stage in stages)


def test_crops_of_another_side_are_embedded_or_refused_in_one_sentence():
    small = {"embed_dim": 48, "num_heads": 3, "depth": 2}
    config = ModelConfig(
        classes=("a", "b"), encoder="vit_tiny_patch16_224", encoder_args=small, input=InputConfig(size=32)
    )
    model = Model(build_model(config), config, "m", "")
    assert model.embed(np.zeros((2, 3, 32, 32), np.float32)).shape == (2, 48)
    with pytest.raises(DomainError, match=r"can't take crops of 64 x 64 px .*trained with 32 x 32 px"):
        model.embed(np.zeros((2, 3, 64, 64), np.float32))
    assert model.encoder == "vit_tiny_patch16_224, 48 features"


def test_other_bands_have_the_statistics_that_their_weights_are_made_of(tmp_path):
    write_encoder(tmp_path, size=64, img_size=64)
    one = load_encoder(f"local-dir:{tmp_path}", bands=(2,))
    assert one.input.low[0] == pytest.approx(255 * (np.mean(MEAN) - np.mean(STD)), abs=1e-3)
    assert one.module(torch.zeros(1, 1, 64, 64)).features.shape == (1, 64)
    five = load_encoder(f"local-dir:{tmp_path}", bands=(1, 2, 3, 4, 5))
    assert five.input.low[3:] == five.input.low[:2]


def test_weights_in_half_precision_become_whole(tmp_path, crops):
    write_encoder(tmp_path, size=64, img_size=64)
    state = load_file(tmp_path / "model.safetensors")
    save_file({key: value.half() for key, value in state.items()}, tmp_path / "model.safetensors")
    module = load_encoder(f"local-dir:{tmp_path}").module
    assert {value.dtype for value in module.state_dict().values()} == {torch.float32}
    assert torch.equal(module.body.cls_token, state["cls_token"].half().float())


def test_a_registered_encoder_is_loaded_with_the_whole_range(monkeypatch):
    monkeypatch.setattr(encoders, "_REGISTERED", {})
    encoders.register_encoder("own", lambda channels: nn.Conv2d(channels, 5, 3))
    encoder = load_encoder("own", bands=(4, 2), size=16)
    assert (encoder.input.bands, encoder.input.low, encoder.input.high) == (
        (3, 1),
        (0.0, 0.0),
        (255.0, 255.0),
    )
    assert encoder.module(torch.zeros(1, 2, 16, 16)).features.shape == (1, 5)


def test_the_identity_of_an_encoder_is_that_of_its_weights(tmp_path):
    write_encoder(tmp_path / "a", size=64, img_size=64)
    write_encoder(tmp_path / "b", size=64, img_size=64)
    state = load_file(tmp_path / "b" / "model.safetensors")
    a, b = (load_encoder(f"local-dir:{tmp_path / n}").sha256 for n in "ab")
    assert a == b
    state["cls_token"] += 1e-3
    save_file(state, tmp_path / "b" / "model.safetensors")
    assert load_encoder(f"local-dir:{tmp_path / 'b'}").sha256 != a


def _config(folder, **changes):
    file = folder / "config.json"
    file.write_text(json.dumps(json.loads(file.read_text()) | changes))


def _without(folder, key):
    state = load_file(folder / "model.safetensors")
    del state[key]
    save_file(state, folder / "model.safetensors")


@pytest.mark.parametrize(
    ("damage", "words"),
    [
        (lambda f: (f / "config.json").unlink(), "no config.json there"),
        (lambda f: (f / "config.json").write_text("{"), "isn't readable as JSON"),
        (lambda f: (f / "config.json").write_text("[]"), "names is none; give"),
        (lambda f: _config(f, architecture="Dinov2Model"), r"'Dinov2Model', which timm [\d.]+ hasn't"),
        (lambda f: _config(f, architecture="test_vit2"), "its weights aren't those of test_vit2"),
        (
            lambda f: _config(f, model_args={"img_size": 64, "depth": 2}),
            "its weights aren't those of test_vit",
        ),
        (lambda f: _config(f, model_args={"no_such": 1}), "can't be built with"),
        (lambda f: _config(f, model_args={"checkpoint_path": "/x.bin"}), "'checkpoint_path' is no argument"),
        (
            lambda f: _config(f, model_args={"pretrained_cfg": {"url": "x"}}),
            "'pretrained_cfg' is no argument",
        ),
        (lambda f: _config(f, pretrained_cfg={"input_size": [3, 64, 32]}), "crops are square"),
        (lambda f: _config(f, pretrained_cfg={"input_size": 224}), "crops are square"),
        (lambda f: _config(f, pretrained_cfg={"std": [0, 1, 1]}), "aren't numbers of use"),
        (lambda f: (f / "model.safetensors").unlink(), "holds none of model.safetensors"),
        (lambda f: (f / "model.safetensors").write_bytes(b"no"), "not readable as weights"),
        (
            lambda f: _without(f, "blocks.1.attn.qkv.weight"),
            r"its weights aren't those of test_vit; .*\(they lack blocks\.1\.attn\.qkv\.weight\)",
        ),
    ],
)
def test_a_damaged_or_foreign_folder_is_an_error_in_one_sentence(tmp_path, damage, words):
    write_encoder(tmp_path, size=64, img_size=64)
    damage(tmp_path)
    with pytest.raises((ConfigError, CheckpointError, NotFoundError), match=words) as error:
        load_encoder(f"local-dir:{tmp_path}")
    assert "\n" not in str(error.value)


class _Runs:
    def __reduce__(self):
        return (pytest.fail, ("unpickled",))


def test_pickled_code_is_not_run(tmp_path):
    write_encoder(tmp_path, size=64, img_size=64, pickled=True)
    file = tmp_path / "pytorch_model.bin"
    torch.save({"cls_token": _Runs()}, file)
    with pytest.raises(CheckpointError, match="more than tensors, which isn't loaded"):
        load_encoder(f"local-dir:{tmp_path}")
    file.write_bytes(pickle.dumps(_Runs(), protocol=2))
    with pytest.raises(CheckpointError):
        load_encoder(f"local-dir:{tmp_path}")


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("resnet1888", "similar names: .*register_encoder"),
        ("resnet18.of_nobody", "no such weights of resnet18; it has .*a1_in1k"),
        ("owner/name", "write hf-hub:owner/name"),
        ("local-dir:/no/such/folder", "no such folder"),
        ("small", "has no weights until"),
        ("test_byobnet", "the hub can't be reached"),
    ],
)
def test_names_of_nothing_are_errors_in_one_sentence(name, words, monkeypatch):
    import huggingface_hub

    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", True)
    with pytest.raises((ConfigError, NotFoundError), match=words):
        load_encoder(name)


def test_a_folder_without_its_prefix_is_named(tmp_path):
    with pytest.raises(ConfigError, match=f"write local-dir:{tmp_path}"):
        find_encoder(str(tmp_path))


def _hub(monkeypatch, files, error=None):
    """A hub that holds files, by name, or raises; returns what it was asked for."""
    import huggingface_hub
    from huggingface_hub.errors import EntryNotFoundError, LocalEntryNotFoundError

    asked = []

    def look(url):
        repository, _, rest = url.removeprefix("https://huggingface.co/").partition("/resolve/")
        revision, _, file = rest.partition("/")
        asked.append((repository, file, None if revision == "main" else revision))
        if error is not None:
            raise error
        if not (files / file).is_file():
            raise _raised(EntryNotFoundError)

    def download(_repository, file, *, revision=None, local_files_only):
        if local_files_only:
            raise LocalEntryNotFoundError("not in the cache")
        return str(files / file)

    monkeypatch.setattr(huggingface_hub, "get_hf_file_metadata", look)
    monkeypatch.setattr(huggingface_hub, "hf_hub_download", download)
    return asked


def _raised(kind, text="text"):
    """An error of the hub's client, which needs a response of the HTTP library of the day to be made."""
    return kind.__new__(kind, text)


def test_a_repository_of_the_hub_is_loaded_as_its_folder_is(tmp_path, monkeypatch):
    write_encoder(tmp_path, size=64, img_size=64, pickled=True)
    asked = _hub(monkeypatch, tmp_path)
    encoder = load_encoder("hf-hub:owner/name@v2")
    assert asked == [
        ("owner/name", file, "v2") for file in ("config.json", "model.safetensors", "pytorch_model.bin")
    ]
    assert encoder.sha256 == load_encoder(f"local-dir:{tmp_path}").sha256


def test_timms_own_weights_come_from_its_repository_with_their_classifier_left_out(
    tmp_path, monkeypatch, crops
):
    body = write_encoder(tmp_path, "test_resnet", classes=1000)
    asked = _hub(monkeypatch, tmp_path)
    encoder = load_encoder("test_resnet.r160_in1k")
    assert asked == [("timm/test_resnet.r160_in1k", "model.safetensors", None)]
    assert encoder.input.size == 160
    expected = body.forward_head(body.forward_features(crops), pre_logits=True)
    assert torch.allclose(encoder.module(crops).features, expected, atol=1e-5)
    assert (encoder.spec.architecture, encoder.spec.name) == ("test_resnet", "test_resnet.r160_in1k")


def test_what_the_cache_of_the_hub_holds_needs_no_network(tmp_path, monkeypatch):
    import huggingface_hub

    stored = tmp_path / "models--owner--name"
    write_encoder(stored / "snapshots" / "0", size=64, img_size=64, pickled=True)
    (stored / "refs").mkdir()
    (stored / "refs" / "main").write_text("0")
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_CACHE", str(tmp_path))
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", True)
    assert load_encoder("hf-hub:owner/name").spec.weights.name == "pytorch_model.bin"
    with pytest.raises(NotFoundError, match="hf-hub:owner/other: the hub can't be reached"):
        load_encoder("hf-hub:owner/other")


def test_arguments_that_a_publisher_names_in_words_are_known(tmp_path, monkeypatch):
    args = {"img_size": 64, "global_pool": "", "reg_tokens": 4}
    write_encoder(tmp_path, size=64, mlp_layer="SwiGLUPacked", act_layer="silu", **args)
    _config(tmp_path, model_args=args)
    _hub(monkeypatch, tmp_path)
    encoder = load_encoder("hf-hub:paige-ai/Virchow2")
    assert encoder.module.feature_width == 128
    assert encoder.spec.mean == MEAN
    with pytest.raises(ConfigError, match="its weights aren't those of"):
        load_encoder("hf-hub:somebody/else")


def test_statistics_that_a_publisher_names_in_words_are_known(tmp_path, monkeypatch):
    write_encoder(tmp_path, size=64, img_size=64, init_values=1e-5)
    _config(tmp_path, model_args={"img_size": 64})
    _hub(monkeypatch, tmp_path)
    found = load_encoder("hf-hub:bioptimus/H-optimus-0")
    assert found.input.low[0] == pytest.approx(255 * (0.707223 - 0.211883), abs=1e-3)


def test_gated_offline_and_unknown_repositories_are_told_apart(monkeypatch, tmp_path):
    from huggingface_hub import errors

    for error, words in (
        (
            _raised(errors.GatedRepoError, "gated"),
            r"ask at https://huggingface.co/o/n, .*hf auth",
        ),
        (_raised(errors.RepositoryNotFoundError, "no"), "no such repository, or it is private"),
        (_raised(errors.RevisionNotFoundError, "no"), "no such revision"),
        (errors.LocalEntryNotFoundError("offline"), "can't be reached, and the local cache doesn't hold it"),
        (errors.OfflineModeIsEnabled("offline"), "can't be reached"),
        (errors.HFValidationError("bad"), "write owner/name"),
        (_raised(errors.HfHubHTTPError), "can't be read"),
        (RuntimeError("no connection"), "can't be reached"),
    ):
        _hub(monkeypatch, tmp_path, error)
        with pytest.raises(NotFoundError, match=f"hf-hub:o/n: .*{words}") as found:
            find_encoder("hf-hub:o/n")
        assert "\n" not in str(found.value)
        assert type(hub.hub_error("resnet18", "timm/resnet18", error)) is NotFoundError
