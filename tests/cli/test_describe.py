"""`describe`: presets and model directories, as a table and as JSON."""

import json
import shutil
from pathlib import Path

import pytest

import hiresattn
from hiresattn.card import Conformal, read_card
from hiresattn.checkpoint import set_calibration

DEMO = Path(hiresattn.__file__).parent / "demo" / "model"


@pytest.mark.parametrize(
    ("words", "trainable", "giga", "glimpses"),
    [
        (["tnet-imagenet"], 21_859_949, 7.236, [1, 3]),
        (["tnet-imagenet", "--locations", "5"], 21_859_949, 10.843, [1, 5]),
        (["tnet-fmow"], 4_517_575, 1.925, [1, 2, 2]),
        (["tnet-fmow", "--input", "896", "--locations", "2,1"], 4_517_575, 1.925, [1, 2, 2]),
        (["tnet-fmow", "--input", "448"], 4_517_575, 1.155, [1, 2]),
        (["tnet-fmow", "--locations", "0"], 4_517_575, 0.385, [1]),
        (["bagnet77"], 20_546_664, 18.423, [1]),
        (["efficientnet-b0"], 4_086_970, 0.3846, [1]),
        (["efficientnet-b0", "--input", "448"], 4_086_970, 1.536, [1]),
        (["tnet-fmow-448"], 4_517_575, 1.155, [1, 2]),
    ],
)
def test_json_has_the_published_numbers(run, words, trainable, giga, glimpses):
    found = json.loads(run("describe", *words, "--json").stdout)
    assert found["params_trainable"] == trainable
    assert isinstance(found["macs"], int)
    assert found["macs"] / 1e9 == pytest.approx(giga, rel=0.005)
    assert found["glimpses"] == glimpses
    for key in ("params_trainable", "params_total", "macs"):
        assert found[key] == sum(part[key] for part in found["parts"])


def test_classes_change_the_classifier_only(run):
    found = json.loads(run("describe", "efficientnet-b0", "--classes", "10", "--json").stdout)
    assert found["params_trainable"] == 4_086_970 - 52 * 1281


def test_a_model_directory_is_described_from_its_card_alone(run, tmp_path):
    (tmp_path / "card.json").write_text((DEMO / "card.json").read_text())
    whole, card = (json.loads(run("describe", path, "--json").stdout) for path in (DEMO, tmp_path))
    assert {**whole, "name": ""} == {**card, "name": ""}
    model = hiresattn.load_model(DEMO)
    assert whole["params_trainable"] == sum(p.numel() for p in model.net.parameters())
    assert whole["locations"] == list(model.k)


def test_every_part_has_a_name_of_its_own(run, tmp_path):
    card = json.loads((DEMO / "card.json").read_text())
    card["config"] |= {"scorer": "evidence", "background": "0"}
    card["scorer"] = "evidence"
    (tmp_path / "card.json").write_text(json.dumps(card))
    names = [part["name"] for part in json.loads(run("describe", tmp_path, "--json").stdout)["parts"]]
    assert "scorer" in names
    assert len(set(names)) == len(names)


@pytest.mark.parametrize("name", ["small", "quick", "timm"])
def test_presets_of_train_are_described(run, name):
    found = run("describe", name)
    assert found.exit_code == 0
    assert "in all" in found.stdout


def test_the_table_names_what_the_json_names(run):
    text = run("describe", "tnet-fmow").stdout
    found = json.loads(run("describe", "tnet-fmow", "--json").stdout)
    for words in ("896 x 896 px", "2,1: 1 + 2 + 2 = 5 looks", "4,517,575", "4,559,591", f"{found['macs']:,}"):
        assert words in text
    for part in found["parts"]:
        assert part["name"] in text


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["tnet-fmov"], "did you mean 'tnet-fmow'"),
        (["small", "--input", "0"], "0 is not in the range"),
        (["tnet-fmow", "--locations", "a"], "--locations"),
        ([DEMO, "--classes", "3"], "has its classes"),
        ([DEMO.parent], "no card.json"),
    ],
)
def test_wrong_words_are_said_to_be_wrong(run, words, message):
    found = run("describe", *words)
    assert found.exit_code in (1, 2)
    assert message in found.stderr


def test_a_trained_model_says_how_far_it_is_calibrated(run, tmp_path):
    model = tmp_path / "model"
    shutil.copytree(DEMO, model)
    assert "calibrated  no" in run("describe", model).stdout
    sets = Conformal(risk=0.1, least=0.2, cases=120, search={})
    set_calibration(model, 1.25, sets)
    words = run("describe", model).stdout
    assert "calibrated  temperature 1.25; prediction sets at a risk of 0.1 from 120 cases" in words
    assert "runs with   PyTorch" in words
    about = json.loads(run("describe", model, "--json").stdout)["model"]
    assert (about["temperature"], about["conformal"]["cases"], about["onnx"]) == (1.25, 120, False)
    assert about["classes"] == list(read_card(model).classes)
