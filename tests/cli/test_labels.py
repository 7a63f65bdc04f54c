"""Several labels per image, on the command line: train, classify, evaluate, calibrate."""

import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from hiresattn.checkpoint import load_model

SMALL = Path(__file__).parents[1] / "small.toml"
TRAIN = (
    *("--config", SMALL, "--device", "cpu", "--threads", "1"),
    *("--batch-size", "8", "--lr", "0.005", "--value-range", "0,255", "--epochs", "8"),
)
WORDS = ("--device", "cpu", "--threads", "1")


@pytest.fixture(scope="module")
def work(tmp_path_factory):
    """Images with red light, blue light, both or neither; a manifest with a column ``labels``."""
    folder = tmp_path_factory.mktemp("labels")
    rng = np.random.default_rng(0)
    rows = ["path,labels,split"]
    for number in range(40):
        pixels = rng.integers(0, 120, (32, 32, 3)).astype(np.uint8)
        names = [name for bit, name in ((1, "red"), (2, "blue")) if number & bit]
        for name in names:
            pixels[:, :, 0 if name == "red" else 2] += 120
        Image.fromarray(pixels).save(folder / f"{number}.png")
        rows.append(
            f"{number}.png,{'|'.join(names)},{'train' if number < 24 else 'val' if number < 32 else 'test'}"
        )
    (folder / "m.csv").write_text("\n".join(rows) + "\n")
    return folder


@pytest.fixture(scope="module")
def model(work):
    from click.testing import CliRunner

    from hiresattn_cli.main import cli

    words = ["train", work / "m.csv", "-o", work / "model", *TRAIN]
    result = CliRunner().invoke(cli, [str(word) for word in words])
    assert result.exit_code == 0, result.output
    return work / "model"


def test_a_column_labels_makes_a_model_of_labels_and_its_card_says_so(model):
    card = json.loads((model / "card.json").read_text())
    assert (card["classes"], card["config"]["multi_label"]) == (["blue", "red"], True)
    assert card["training"]["val_accuracy"] == 1
    known = load_model(model).reference
    assert (known.cases, known.limit, known.limit_cases, len(known.trained)) == (24, None, 8, 24)


def test_an_answer_is_every_label_with_a_probability_of_a_half_and_all_probabilities(
    run, work, model, tmp_path
):
    words = (
        "classify",
        work / "m.csv",
        "--split",
        "test",
        "-m",
        model,
        *WORDS,
        "--overlay",
        tmp_path / "over",
    )
    result = run(*words)
    assert result.exit_code == 0, result.stderr
    found = [json.loads(line) for line in result.stdout.splitlines()]
    assert [sorted(record["labels"]) for record in found] == [[], ["red"], ["blue"], ["blue", "red"]] * 2
    for record in found:
        assert sorted(record["label"]) == sorted(record["labels"])
        assert record["labels"] == [
            name for name, p in sorted(record["scores"].items(), key=lambda kv: -kv[1]) if p >= 0.5
        ]
        assert (record["class_name"], record["score"]) == (None, None)
        assert set(record["scores"]) == {"blue", "red"}
    assert "accuracy 1.000 on 8 with labels" in result.stderr
    assert len(list((tmp_path / "over").iterdir())) == 8


def test_the_evaluation_of_labels_has_their_metrics_a_curve_and_a_table(run, work, model, tmp_path):
    words = ("evaluate", model, work / "m.csv", *WORDS, "--bootstrap", 20, "--budgets", "2")
    result = run(*words, "-o", tmp_path / "out", "--json")
    assert result.exit_code == 0, result.stderr
    found = json.loads(result.stdout)
    assert found["multi_label"] is True
    assert {name: found["metrics"][name]["value"] for name in ("exact_match", "micro_f1", "macro_f1", "auroc")} == {
        "exact_match": 1, "micro_f1": 1, "macro_f1": 1, "auroc": 1,
    }  # fmt: skip
    assert {"ece", "brier", "auroc", "auprc", "f1"} <= set(found["per_class"]["red"])
    assert [point["policy"] for point in found["curve"]] == ["best-first", "random", "lowres", "exhaustive"]
    assert {path.name for path in (tmp_path / "out").iterdir()} == {
        "metrics.json", "predictions.jsonl", "predictions.csv", "review.csv", "reliability.png", "risk-coverage.png",
        "budget.png", "index.html",
    }  # fmt: skip
    lines = [line.split() for line in run(*words).stdout.splitlines()]
    assert ["exact", "match", "1.000", "0.676", "to", "1.000"] in lines
    assert ["label", "cases", "recall", "precision", "F1", "AUROC", "AUPRC", "ECE", "Brier"] in lines


def test_calibration_of_labels_is_written_or_says_why_not(run, work, model, tmp_path):
    wrong = (work / "m.csv").read_text().replace("24.png,,val", "24.png,red|blue,val")
    (work / "wrong.csv").write_text(wrong)
    words = (*WORDS, "--bootstrap", 0, "--calibrate", "--split", "all")
    result = run("evaluate", model, work / "wrong.csv", *words, "--json")
    assert result.exit_code == 0, result.stderr
    facts = json.loads(result.stdout)["calibration"]
    assert facts["after"]["nll"] < facts["before"]["nll"]
    assert (facts["kept"], facts["conformal"]) == (None, None)
    assert load_model(model).temperature == facts["temperature"]
    result = run("evaluate", model, work / "m.csv", *words)
    assert result.exit_code == 0, result.stderr
    assert "all 40 predictions are correct" in result.stdout


def test_images_that_were_trained_on_are_told_from_others(run, work, model):
    words = ("evaluate", model, work / "m.csv", *WORDS, "--bootstrap", 0)
    assert "The model was trained on 24 of these images" in run(*words, "--split", "all").stdout
    assert "trained on" not in run(*words).stdout


def test_a_column_label_is_several_labels_where_multi_label_is_asked_for(run, work, tmp_path):
    (work / "single.csv").write_text((work / "m.csv").read_text().replace("labels", "label", 1))
    asked = ("train", work / "single.csv", *TRAIN, "--epochs", 1)
    result = run(*asked, "-o", tmp_path / "a", "--multi-label", "--class-weights", "balanced")
    assert result.exit_code == 0, result.stderr
    assert load_model(tmp_path / "a").classes == ("blue", "red")
    result = run(*asked, "-o", tmp_path / "b")
    assert (result.exit_code, result.stdout) == (1, "")
    assert "single.csv, line 2: no label" in result.stderr


@pytest.mark.parametrize(
    ("change", "words", "says"),
    [
        (("", ""), ("--background", "red"), "leave out background or --multi-label"),
        (
            ("25.png,red", "25.png,rde"),
            (),
            "label 'rde' in split 'val' and not in 'train'; did you mean 'red'?",
        ),
        (("1.png,red,", "1.png,red|red,"), (), "a label is there twice: 'red|red'"),
    ],
)
def test_labels_that_can_not_be_trained_on_are_exit_1(run, work, tmp_path, change, words, says):
    path = work / "bad.csv"
    path.write_text((work / "m.csv").read_text().replace(*change, 1))
    result = run("train", path, "-o", tmp_path / "model", *TRAIN, *words)
    assert (result.exit_code, result.stdout) == (1, "")
    assert says in result.stderr
    assert not (tmp_path / "model").exists()


def test_a_model_of_one_class_refuses_several_labels_by_name(run, work, tmp_path):
    rows = ["path,label", *(f"{n}.png,{('dark', 'red')[n % 4]}" for n in (0, 1, 4, 5))]
    (work / "one.csv").write_text("\n".join(rows) + "\n")
    assert run("train", work / "one.csv", "-o", tmp_path / "m", *TRAIN, "--epochs", 1).exit_code == 0
    result = run("evaluate", tmp_path / "m", work / "m.csv", *WORDS)
    assert result.exit_code == 1
    assert "answers with one class; give a column label in place of labels" in result.stderr
