"""Model directories: what is written can be read, and nothing else is believed."""

import json
import pickle
import resource
from dataclasses import fields
from pathlib import Path

import numpy as np
import pytest
import torch

import hiresattn
from hiresattn import open_pyramid, read_crops
from hiresattn.card import CARD, WEIGHTS, Conformal, Domain
from hiresattn.checkpoint import (
    Model,
    card_of,
    load_model,
    read_card,
    save_model,
    set_calibration,
)
from hiresattn.config import InputConfig, ModelConfig
from hiresattn.errors import CheckpointError, ConfigError, DomainError, NotFoundError, RegionError
from hiresattn.model.build import build_model
from hiresattn.training.options import TrainOptions

DEMO = Path(hiresattn.__file__).parent / "demo" / "model"


@pytest.fixture
def model():
    torch.manual_seed(0)
    config = ModelConfig(
        classes=("a", "b"), input=InputConfig(bands=(3, 1), low=(0.0, 5.0), high=(1.0, 9.0), dtype="uint16")
    )
    return Model(
        build_model(config).eval(),
        config,
        "tiny",
        "",
        Domain(mpp=(0.25, 0.5), low=(0.1, 6.0)),
        (3, 1),
        {"seed": 4},
    )


@pytest.fixture
def saved(model, tmp_path):
    save_model(model, tmp_path / "model")
    return tmp_path / "model"


def test_a_model_comes_back_as_it_was_saved(model, saved):
    back = load_model(saved)
    assert (back.config, back.name, back.domain, back.k) == (model.config, model.name, model.domain, model.k)
    assert back.training == {"seed": 4}
    for name, value in model.net.state_dict().items():
        assert torch.equal(value, back.net.state_dict()[name])
    assert not back.net.training


def test_the_card_names_the_scorer_and_the_weights(saved):
    card = json.loads((saved / CARD).read_text())
    assert card["scorer"] == "location"
    assert card["weights"]["sha256"] == load_model(saved).sha256
    assert card["read"]["filter"] == "area"


def _edit(saved, **changes):
    card = json.loads((saved / CARD).read_text())
    card.update(changes)
    (saved / CARD).write_text(json.dumps(card))


def _without(saved, key):
    card = json.loads((saved / CARD).read_text())
    del card[key]
    (saved / CARD).write_text(json.dumps(card))


def _damage_weights(saved):
    file = saved / WEIGHTS
    data = bytearray(file.read_bytes())
    data[-100] ^= 255
    file.write_bytes(data)


def _pickle_for_weights(saved):
    (saved / WEIGHTS).write_bytes(pickle.dumps({"weights": 1}))


def _half_a_card(saved):
    text = (saved / CARD).read_text()
    (saved / CARD).write_text(text[: len(text) // 2])


def _unknown_option(saved):
    card = json.loads((saved / CARD).read_text())
    _edit(saved, config=card["config"] | {"encodre": "small"})


def _edit_config(saved, **changes):
    card = json.loads((saved / CARD).read_text())
    _edit(saved, config=card["config"] | changes)


def _edit_input(saved, **changes):
    card = json.loads((saved / CARD).read_text())
    _edit_config(saved, input=card["config"]["input"] | changes)


def _more_classes(saved):
    _edit_config(saved, classes=["a", "b", "c"])
    _edit(saved, classes=["a", "b", "c"])


def _other_classes(saved):
    card = json.loads((saved / CARD).read_text())
    _edit(saved, config=card["config"] | {"classes": ["a", "b", "c"]})


@pytest.mark.parametrize(
    ("damage", "words"),
    [
        (_damage_weights, "sha256"),
        (_pickle_for_weights, "sha256"),
        (_half_a_card, "JSON"),
        (_unknown_option, "did you mean 'encoder'"),
        (_other_classes, "differ"),
        (_more_classes, "don't fit"),
        (lambda saved: _edit_input(saved, dtype="banana"), "banana"),
        (lambda saved: _edit_input(saved, bands=[-1, 0]), "a band"),
        (lambda saved: _edit_input(saved, low=["a", 0.0]), "finite"),
        (lambda saved: _edit_config(saved, grid={"size": 7.5, "fraction": 0.25}), "size"),
        (lambda saved: _edit_config(saved, classes=["a", "a"]), "same name"),
        (lambda saved: _edit_config(saved, input=3), "expected names"),
        (lambda saved: _edit(saved, domain={"low": [1.0]}), "domain low is not 2"),
        (lambda saved: _edit(saved, domain={"mpp": ["x", 1.0]}), "domain mpp"),
        (lambda saved: (saved / WEIGHTS).unlink(), "missing"),
        (lambda saved: (saved / CARD).unlink(), "no card.json"),
        (lambda saved: _edit(saved, format="something"), "not the card"),
        (lambda saved: _edit(saved, format_version=99), "upgrade"),
        (lambda saved: _edit(saved, weights={}), "damaged"),
        (lambda saved: _edit(saved, config=None), "damaged"),
        (lambda saved: _without(saved, "temperature"), "damaged"),
        (lambda saved: _without(saved, "domain"), "damaged"),
        (lambda saved: _edit_config(saved, encoder="mine"), r"hiresattn.register_encoder\('mine', build\)"),
        (lambda saved: (saved / CARD).write_text("[]"), "not the card"),
        (lambda saved: (saved / CARD).write_bytes(b"\xff\xfe\x00"), "JSON"),
    ],
)
def test_a_damaged_or_foreign_directory_is_one_clear_error(saved, damage, words):
    damage(saved)
    with pytest.raises(CheckpointError, match=words) as error:
        load_model(saved)
    assert str(saved) in str(error.value)


def test_weights_that_are_a_pickle_are_never_unpickled(saved, monkeypatch):
    import hashlib

    _pickle_for_weights(saved)
    _edit(saved, weights={"sha256": hashlib.sha256((saved / WEIGHTS).read_bytes()).hexdigest()})
    monkeypatch.setattr(pickle, "loads", lambda *_: pytest.fail("unpickled"))
    monkeypatch.setattr(pickle, "load", lambda *_: pytest.fail("unpickled"))
    with pytest.raises(CheckpointError):
        load_model(saved)


def test_the_card_of_the_demo_is_the_one_that_would_be_saved_today():
    model = load_model(DEMO)
    card = json.loads((DEMO / CARD).read_text())
    assert (DEMO / CARD).read_text() == json.dumps(card_of(model, model.sha256), indent=2) + "\n"
    assert card["training"]["options"].keys() <= {one.name for one in fields(TrainOptions)}


def test_a_missing_directory_is_not_found(tmp_path):
    with pytest.raises(NotFoundError, match="nowhere"):
        load_model(tmp_path / "nowhere")


def test_a_hub_name_that_can_not_be_had_is_one_clear_error(monkeypatch):
    import huggingface_hub

    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", True)
    with pytest.raises(NotFoundError, match="hf:owner/name: the hub can't be reached"):
        load_model("hf:owner/name")


def test_embed_gives_the_encoders_vectors_in_batches_and_leaves_the_network_as_it_was(model):
    crops = np.random.default_rng(0).normal(size=(5, 2, 64, 64)).astype(np.float32)
    net = model.net.train()
    net.encoder.layers[0].eval()
    found = model.embed(crops, batch_size=2)
    assert (found.dtype, found.shape) == (np.float32, (5, net.encoder.feature_width))
    assert net.training
    assert net.encoder.training
    assert not net.encoder.layers[0].training
    with torch.no_grad():
        expected = net.eval().encoder(torch.from_numpy(crops)).features.numpy()
    assert np.allclose(found, expected, atol=1e-5)
    assert model.embed(crops[:0]).shape == (0, net.encoder.feature_width)


def test_embed_selects_and_scales_the_bands_of_stored_crops(model):
    rng = np.random.default_rng(0)
    image = rng.integers(0, 9, (4, 128, 160)).astype("uint16")
    with open_pyramid(np.moveaxis(image, 0, -1)) as pyramid:
        stored = read_crops(pyramid, [(0, 0), (5, 70)], 64)
    scaled = np.stack(
        [
            np.stack([2 * one[3] / 1.0 - 1, 2 * (one[1].astype(float) - 5) / 4 - 1])
            for one in (image[:, :64, :64], image[:, 5:69, 70:134])
        ]
    ).astype(np.float32)
    assert np.allclose(model.embed(stored), model.embed(scaled), atol=1e-5)


def test_embed_refuses_crops_that_are_not_the_models(model):
    with pytest.raises(DomainError, match=r"float32 crops \[n 2 height width\]"):
        model.embed(np.zeros((1, 3, 64, 64), np.float32))
    with pytest.raises(DomainError, match="float32 crops"):
        model.embed(np.zeros((1, 2, 64, 64)))
    with open_pyramid(np.zeros((64, 64, 3), np.uint8)) as pyramid:
        stored = read_crops(pyramid, [(0, 0)], 64)
    with pytest.raises(DomainError, match="4 or more bands of uint16; these crops have 3 of uint8"):
        model.embed(stored)


def test_weights_that_are_not_finite_are_not_saved(model, tmp_path):
    with torch.no_grad():
        model.net.classifier.bias.fill_(float("nan"))
    with pytest.raises(CheckpointError, match="NaN"):
        save_model(model, tmp_path / "model")
    assert not (tmp_path / "model").exists()


def test_a_directory_that_can_not_be_written_is_a_checkpoint_error(model, tmp_path):
    (tmp_path / "file").write_text("in the way")
    with pytest.raises(CheckpointError, match="can't be written"):
        save_model(model, tmp_path / "file")


def test_a_temperature_is_kept_in_the_card(model, saved):
    assert load_model(saved).temperature == 1
    set_calibration(saved, 2.5)
    assert load_model(saved).temperature == 2.5
    again = save_model(load_model(saved), saved.parent / "again")
    assert (again.temperature, load_model(saved.parent / "again").temperature) == (2.5, 2.5)


def test_prediction_sets_are_kept_in_the_card_with_their_temperature_only(saved):
    assert load_model(saved).conformal is None
    sets = Conformal(0.1, 0.25, 40, {"budget": {"glimpses": 64}, "stop": 0.95})
    set_calibration(saved, 2.5, sets)
    back = load_model(saved)
    assert back.conformal == sets
    assert back.conformal.classes({"a": 0.3, "b": 0.25, "c": 0.45, "d": 0.2}) == ("c", "a", "b")
    save_model(back, saved.parent / "again")
    assert load_model(saved.parent / "again").conformal == sets
    set_calibration(saved, 3.0)
    assert load_model(saved).conformal is None


@pytest.mark.parametrize(
    "stored", [3, {"risk": 0.1}, {"risk": 0.1, "least": 2, "cases": 40, "search": {}},
               {"risk": 0.1, "least": 0.2, "cases": "40", "search": {}}],
)  # fmt: skip
def test_damaged_prediction_sets_are_a_damaged_card(saved, stored):
    _edit(saved, conformal=stored)
    with pytest.raises(CheckpointError, match="the card is damaged"):
        load_model(saved)


@pytest.mark.parametrize("value", [0, -1.0, "hot", None, True, float("inf"), float("nan")])
def test_a_temperature_that_can_not_be_is_a_damaged_card(saved, value):
    _edit(saved, temperature=value)
    with pytest.raises(CheckpointError, match="the card is damaged"):
        load_model(saved)


def test_a_temperature_is_refused_before_the_card_is_touched(saved):
    before = (saved / CARD).read_text()
    with pytest.raises(ConfigError, match="above 0"):
        set_calibration(saved, 0.0)
    assert (saved / CARD).read_text() == before
    assert sorted(path.name for path in saved.iterdir()) == [CARD, WEIGHTS]


def _forbidden(*_, **__):
    pytest.fail("something was fetched, or a file of weights opened")


@pytest.mark.parametrize(
    "changes",
    [
        {"encoder": "hf-hub:owner/name"},
        {"encoder": "local-dir:x"},
        {"encoder": "test_vit", "encoder_args": {"pretrained": True}},
        {"encoder": "test_vit", "encoder_args": {"checkpoint_path": "x.bin"}},
        {"encoder": "small", "encoder_args": {"depth": 3}},
    ],
)
def test_a_card_can_not_have_an_encoder_fetched_or_loaded_from_elsewhere(saved, changes, monkeypatch):
    import huggingface_hub

    monkeypatch.setattr(huggingface_hub, "hf_hub_download", _forbidden)
    monkeypatch.setattr(torch, "load", _forbidden)
    _edit(saved, config=json.loads((saved / CARD).read_text())["config"] | changes)
    with pytest.raises(CheckpointError, match="can't be built"):
        load_model(saved)


@pytest.mark.parametrize(
    "changes",
    [
        {"location": {"hidden": 5_000_000}},
        {"encoder": "test_vit", "encoder_args": {"embed_dim": 64_000}},
        {"encoder": "test_vit", "encoder_args": {"depth": 50_000}},
        {"encoder": "test_vit", "encoder_args": {"depth": 10**7}},
    ],
)
def test_a_card_can_not_ask_for_a_network_that_its_weights_do_not_fill(saved, changes):
    config = json.loads((saved / CARD).read_text())["config"]
    for name, value in changes.items():
        config[name] = config[name] | value if isinstance(value, dict) else value
    _edit(saved, config=config)
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    with pytest.raises(CheckpointError, match=r"can't be built: it asks for .*, and its weights have"):
        load_model(saved)
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss < before + 500_000


def test_a_card_can_not_ask_for_more_than_memory_holds(saved):
    config = json.loads((saved / CARD).read_text())["config"]
    for name, value in (("grid", {"size": 30_000}), ("input", {"size": 10**6}), ("input", {"squash": 10**6})):
        _edit(saved, config=config | {name: config[name] | value})
        with pytest.raises(CheckpointError, match="whole"):
            load_model(saved)
    _edit(saved, config=config | {"root_size": 1})
    with pytest.raises(
        RegionError, match="more than 10,000,000 on 4,000 x 4,000 px; give a larger root_size"
    ):
        hiresattn.classify(np.zeros((4000, 4000, 4), np.uint16), saved)


UNFIT = [
    None, True, -1, 0, 3, 10**30, 2**31, -5.5, 1e308, float("nan"), float("inf"), "", "x", "\0",
    [], {}, [[]], [None], [1, "a"], ["x"] * 3, {"a": 1},
]  # fmt: skip


def places(found, at=()):
    """The way to every value of nested dicts and lists."""
    for key, value in found.items() if isinstance(found, dict) else enumerate(found):
        yield (*at, key)
        if isinstance(value, dict | list):
            yield from places(value, (*at, key))


@pytest.mark.parametrize("count", [60, pytest.param(1500, marks=pytest.mark.slow)])
def test_a_card_with_any_value_gone_or_another_loads_or_is_a_checkpoint_error(saved, count):
    whole = json.loads((saved / CARD).read_text())
    ways, refused = list(places(whole)), 0
    for number in range(count):
        random = np.random.default_rng(number)
        card = json.loads(json.dumps(whole))
        *way, last = ways[random.integers(len(ways))]
        held = card
        for key in way:
            held = held[key]
        if random.integers(3):
            held[last] = UNFIT[random.integers(len(UNFIT))]
        else:
            del held[last]
        (saved / CARD).write_text(json.dumps(card))
        for read in (load_model, read_card):
            try:
                read(saved)
            except CheckpointError:
                refused += 1
    assert refused > count / 4
