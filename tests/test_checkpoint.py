"""Model directories: what is written can be read, and nothing else is believed."""

import json
import pickle

import pytest
import torch

from hiresattn.checkpoint import CARD, WEIGHTS, Domain, Model, load_model, save_model, set_temperature
from hiresattn.config import InputConfig, ModelConfig
from hiresattn.errors import CheckpointError, ConfigError, HiresattnError, NotFoundError
from hiresattn.model.build import build_model


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


def test_a_missing_directory_is_not_found(tmp_path):
    with pytest.raises(NotFoundError, match="nowhere"):
        load_model(tmp_path / "nowhere")


def test_a_hub_name_that_can_not_be_had_is_one_clear_error(monkeypatch):
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    with pytest.raises(HiresattnError, match="hf:owner/name"):
        load_model("hf:owner/name")


def test_weights_that_are_no_numbers_are_not_saved(model, tmp_path):
    with torch.no_grad():
        model.net.classifier.bias.fill_(float("nan"))
    with pytest.raises(CheckpointError, match="no numbers"):
        save_model(model, tmp_path / "model")
    assert not (tmp_path / "model").exists()


def test_a_directory_that_can_not_be_written_is_a_checkpoint_error(model, tmp_path):
    (tmp_path / "file").write_text("in the way")
    with pytest.raises(CheckpointError, match="can't be written"):
        save_model(model, tmp_path / "file")


def test_a_temperature_is_kept_in_the_card_and_a_card_without_one_has_1(model, saved):
    assert load_model(saved).temperature == 1
    set_temperature(saved, 2.5)
    assert load_model(saved).temperature == 2.5
    again = save_model(load_model(saved), saved.parent / "again")
    assert (again.temperature, load_model(saved.parent / "again").temperature) == (2.5, 2.5)
    card = json.loads((saved / CARD).read_text())
    del card["temperature"]
    (saved / CARD).write_text(json.dumps(card))
    assert load_model(saved).temperature == 1


@pytest.mark.parametrize("value", [0, -1.0, "warm", None, True, float("inf"), float("nan")])
def test_a_temperature_that_is_none_damages_the_card(saved, value):
    _edit(saved, temperature=value)
    with pytest.raises(CheckpointError, match="the card is damaged"):
        load_model(saved)


def test_a_temperature_is_refused_before_the_card_is_touched(saved):
    before = (saved / CARD).read_text()
    with pytest.raises(ConfigError, match="a number above 0"):
        set_temperature(saved, 0.0)
    assert (saved / CARD).read_text() == before
    assert sorted(path.name for path in saved.iterdir()) == [CARD, WEIGHTS]
