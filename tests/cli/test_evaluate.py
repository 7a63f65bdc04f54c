"""`evaluate`: from a model directory and a manifest to a table, one JSON object, files and the card."""

import csv
import json
import shutil

import numpy as np
import pytest
import torch
from PIL import Image

from hiresattn.card import CARD
from hiresattn.checkpoint import Model, load_model, save_model, set_reference, update_training
from hiresattn.config import InputConfig, ModelConfig
from hiresattn.model.build import build_model
from hiresattn.model.reference import Reference


@pytest.fixture(scope="module")
def work(tmp_path_factory):
    """A model that tells dark from light, and images of both; one label is wrong, one box is known."""
    folder = tmp_path_factory.mktemp("evaluate")
    torch.manual_seed(0)
    rule = InputConfig(bands=(0,), low=(0.0,), high=(255.0,), dtype="uint8")
    config = ModelConfig(classes=("dark", "light"), input=rule)
    net = build_model(config).eval()
    with torch.no_grad():  # far apart, whatever the weights say
        whole = np.array([[0, 0, 64, 64]])
        seen = [net.glimpse(_flat(value)(np.zeros(1, int), whole), whole, whole) for value in (-1, 1)]
        way = (seen[1].features - seen[0].features)[0]
        middle = (seen[1].features + seen[0].features)[0] / 2
        net.classifier.weight.copy_(torch.stack([-way, way]) / way.norm() ** 2)
        net.classifier.bias.copy_(-(net.classifier.weight @ middle))
    save_model(Model(net, config, "contrast", ""), folder / "model")
    rng = np.random.default_rng(0)
    rows = ["path,label,split,group,boxes"]
    for number in range(6):
        bright = 200 * (number % 2)
        pixels = rng.integers(bright, bright + 50, (200, 200), dtype=np.uint8)
        Image.fromarray(pixels).save(folder / f"{number}.png")
        label = ("dark", "light")[number % 2 if number else 1]
        box = '"[[10,10,8,8]]"' if number == 1 else ""
        rows += [f"{number}.png,{label},{split},{split}{number // 2},{box}" for split in ("val", "test")]
    (folder / "m.csv").write_text("\n".join(rows))
    rows = ["path,label,split,y,x,height,width,case_id"]  # 36 cases, of which 6 have a wrong label
    for number in range(36):
        label = ("dark", "light")[number % 2 if number % 6 else 1]
        rows += [
            f"{number % 6}.png,{label},{split},{3 * (number // 6)},0,100,100,{split}{number}"
            for split in ("val", "test")
        ]
    (folder / "many.csv").write_text("\n".join(rows))
    return folder


def _flat(value):
    from hiresattn.reading.fetch import Crops

    return lambda _, regions: Crops(
        np.full((len(regions), 1, 64, 64), value, np.float32), np.ones((len(regions), 64, 64), np.float32)
    )


WORDS = ("--threads", 1, "--device", "cpu", "--budget", 3, "--bootstrap", 50)


def test_one_json_object_with_intervals_curve_and_hits(run, work, tmp_path):
    result = run(
        "evaluate",
        work / "model",
        work / "m.csv",
        *WORDS,
        "--budgets",
        "2,17",
        "-o",
        tmp_path / "o",
        "--json",
    )
    assert (result.exit_code, result.stderr) == (0, "")
    found = json.loads(result.stdout)
    assert (found["split"], found["images"], found["cases"], found["failed"]) == ("test", 6, 3, 0)
    assert found["metrics"]["accuracy"]["value"] == pytest.approx(5 / 6)
    assert found["metrics"]["accuracy"]["low"] is None
    assert found["metrics"]["ece"]["reason"] == "no interval: 3 groups, and it takes 20"
    assert found["confusion"] == [[2, 0], [1, 3]]
    points = {(p["policy"], p["budget"]): p for p in found["curve"]}
    assert len(points) == 6
    assert points["exhaustive", None]["glimpses"] == 16
    assert points["exhaustive", None]["hit"]["value"] == 1
    assert points["lowres", None]["hit"]["value"] == 0
    assert {p["boxed"] for p in points.values()} == {1}
    assert json.loads((tmp_path / "o" / "metrics.json").read_text()) == found
    lines = (tmp_path / "o" / "predictions.jsonl").read_text().splitlines()
    assert [json.loads(line)["label"] for line in lines] == [
        "light",
        "light",
        "dark",
        "light",
        "dark",
        "light",
    ]
    for name in ("confusion", "reliability", "risk-coverage", "budget"):
        with Image.open(tmp_path / "o" / f"{name}.png") as picture:
            assert len(picture.convert("RGB").getcolors(1 << 20)) > 5
    assert len(list((tmp_path / "o").iterdir())) == 9


def test_a_table_for_people(run, work):
    result = run("evaluate", work / "model", work / "m.csv", *WORDS, "--budgets", "2", "--policies", "lowres")
    assert result.exit_code == 0
    lines = [line.split() for line in result.stdout.splitlines()]
    assert ["accuracy", "0.833"] in lines
    assert "(no interval: 3 groups, and it takes 20)" in result.stdout.splitlines()
    assert next(line for line in lines if line[:1] == ["dark"])[:5] == [
        "dark",
        "2",
        "1.000",
        "0.667",
        "0.800",
    ]
    assert any(line[:1] == ["lowres"] for line in lines)
    assert "top-2" in result.stdout


def test_what_is_counted_is_called_what_it_is(run, work, tmp_path):
    rows = [
        ("0", "dark", "A"),
        ("2", "dark", "A"),
        ("1", "light", "B"),
        ("3", "light", "B"),
        ("x", "dark", "C"),
    ]
    lines = [f"{work / name}.png,{label},{case},test" for name, label, case in rows]
    (tmp_path / "m.csv").write_text("\n".join(["path,label,case_id,split", *lines]))
    words = ["evaluate", work / "model", tmp_path / "m.csv", *WORDS]
    result = run(*words, "-o", tmp_path / "o")
    assert result.stdout.startswith("contrast on test: 3 cases of 5 images, 1 failed\n")
    assert any(line.split()[:2] == ["class", "cases"] for line in result.stdout.splitlines())
    assert json.loads((tmp_path / "o" / "metrics.json").read_text())["sources"] == 5
    said = run("evaluate", work / "model", work / "m.csv", *WORDS).stdout
    assert said.startswith("contrast on test: 6 cases; 3 groups resampled as one\n")
    assert "; cases with boxes: 1" in said


def test_what_is_looked_at_can_be_chosen(run, work, tmp_path):
    mask = np.zeros((20, 20), np.uint8)
    mask[:10, :10] = 255
    Image.fromarray(mask).save(tmp_path / "mask.png")
    (tmp_path / "m.csv").write_text(f"path,label,split\n{work / '0.png'},dark,test\n")
    words = ["evaluate", work / "model", tmp_path / "m.csv", *WORDS, "--budget", 50, "--json"]
    everywhere, there = (
        json.loads(run(*words, "--foreground", name).stdout)["main"]["glimpses"]
        for name in ("none", tmp_path / "mask.png")
    )
    assert 1 < there < everywhere


def test_an_unreadable_image_is_counted_and_named_and_the_exit_status_is_3(run, work, tmp_path):
    (tmp_path / "m.csv").write_text(f"path,label\n{work / '1.png'},light\nabsent.png,dark\n")
    words = ("evaluate", work / "model", tmp_path / "m.csv", "--split", "train", *WORDS)
    result = run(*words)
    assert result.exit_code == 3
    assert "2 cases, 1 failed" in result.stdout
    assert "accuracy over all: 0.500" in result.stdout
    assert result.stderr.count("absent.png") == 1
    assert run(*words, "--on-error", "raise").exit_code == 1
    (tmp_path / "m.csv").write_text("path,label\nabsent.png,dark\n")
    assert run(*words).exit_code == 1


def test_calibration_is_written_into_the_card_and_nothing_else_changes(run, work):
    card = work / "model" / CARD
    before, weights = json.loads(card.read_text()), (work / "model" / "model.safetensors").read_bytes()
    result = run("evaluate", work / "model", work / "many.csv", *WORDS, "--calibrate", "--json")
    assert result.exit_code == 0, result.stderr
    found = json.loads(result.stdout)
    facts = found["calibration"]
    assert (found["split"], found["stop"], facts["images"], facts["cases"]) == ("val", None, 36, 36)
    assert facts["after"]["nll"] < facts["before"]["nll"]
    after = json.loads(card.read_text())
    assert after.pop("temperature") == facts["temperature"] == load_model(work / "model").temperature
    assert after.pop("conformal") == facts["conformal"]
    assert (before.pop("temperature"), before.pop("conformal")) == (1, None)
    assert after == before
    assert (work / "model" / "model.safetensors").read_bytes() == weights
    again = json.loads(
        run("evaluate", work / "model", work / "many.csv", *WORDS, "--calibrate", "--json").stdout
    )
    assert again["metrics"]["nll"]["value"] == pytest.approx(facts["after"]["nll"], abs=1e-5)
    assert again["calibration"]["temperature"] == pytest.approx(facts["temperature"], rel=1e-3)
    card.write_text(json.dumps(before | {"temperature": 1.0, "conformal": None}))


def test_a_calibrated_model_says_which_cases_to_review(run, work, tmp_path):
    card = work / "model" / CARD
    before = card.read_text()
    words = ["evaluate", work / "model", work / "many.csv", *WORDS]
    result = run(*words, "--calibrate", "--risk", 0.3)
    assert result.exit_code == 0, result.stderr
    sets = json.loads(card.read_text())["conformal"]
    assert (sets["risk"], sets["cases"], sets["search"]["budget"]["glimpses"]) == (0.3, 36, 3)
    assert (
        f"prediction sets at risk 0.3, written into the card: classes of probability {sets['least']:.3f}"
        in result.stdout
    )
    result = run(*words, "-o", tmp_path)
    found = json.loads((tmp_path / "metrics.json").read_text())["belief"]
    assert found["coverage"]["value"] >= 0.7
    assert (found["risk"], found["calibrated_on"]) == (0.3, 36)
    with (tmp_path / "predictions.csv").open() as file:
        rows = list(csv.DictReader(file))
    with (tmp_path / "review.csv").open() as file:
        review = list(csv.DictReader(file))
    assert len(rows) == 36
    assert [row for row in rows if row["needs_review"] == "yes"] == sorted(review, key=rows.index)
    assert [float(row["score"]) for row in review] == sorted(float(row["score"]) for row in review)
    assert found["review"]["value"] == pytest.approx(len(review) / 36)
    assert f"{len(review)} cases to review: {tmp_path}/review.csv" in result.stdout
    held = [row["label"] in row["prediction_set"].split("|") for row in rows]
    assert found["coverage"]["value"] == pytest.approx(np.mean(held))
    # a search that spends more is another one
    other = json.loads(run(*words, "--budget", 5, "--json").stdout)["belief"]
    assert other["coverage"]["value"] is None
    assert "another budget" in other["coverage"]["reason"]
    one = [work / "0.png", "-m", work / "model", "--threads", 1, "--device", "cpu", "--json"]
    result = run("classify", *one, "--budget", 5)
    assert "Warning: no prediction sets: they hold for searches like" in result.stderr
    assert json.loads(result.stdout)["prediction_set"] is None
    result = run("classify", *one, "--budget", 3)
    assert "prediction sets" not in result.stderr
    assert json.loads(result.stdout)["prediction_set"] is not None
    card.write_text(before)


def test_a_temperature_stays_where_none_is_better(run, work, tmp_path):
    text = (work / "many.csv").read_text().replace("0.png,light", "0.png,dark")
    (work / "right.csv").write_text(text)
    card = work / "model" / CARD
    before = card.read_text()
    result = run("evaluate", work / "model", work / "right.csv", *WORDS, "--calibrate")
    assert result.exit_code == 0, result.stderr
    assert (
        "the temperature stays 1.000: no temperature is best: all 36 predictions are correct" in result.stdout
    )
    after = json.loads(card.read_text())
    assert (after["temperature"], after["conformal"]["cases"]) == (1, 36)
    card.write_text(before)


def test_a_calibration_says_what_part_its_cases_had_in_the_training(run, work, tmp_path):
    model = shutil.copytree(work / "model", tmp_path / "model")
    words = ["evaluate", model, work / "many.csv", *WORDS, "--calibrate"]
    said = run(*words).stdout
    assert "chosen the epoch" not in said  # the model knows of no training
    assert said.splitlines()[1].startswith("Without a stop, and at the temperature of before")
    assert "not calibrated" not in said  # which it is now
    assert "looks that carry an answer" not in said
    update_training(model, {"val_accuracy": 0.9})
    assert "(split val may have chosen the epoch in training" in run(*words).stdout
    net = load_model(model).net
    width = net.encoder.feature_width + 2
    known = Reference(np.zeros(width, np.float32), np.eye(width, dtype=np.float32), 2)
    set_reference(model, known.with_files([(work / "0.png", (0, 0, 100, 100))]))
    said = run(*words).stdout.splitlines()
    assert said[-1].startswith("Warning: the model was trained on 1 of these images, and is surer of them")
    assert said[-2].startswith("prediction sets at risk 0.1, written into the card")


def test_a_calibration_of_images_says_of_how_many_cases_they_are(run, work, tmp_path):
    model = shutil.copytree(work / "model", tmp_path / "model")
    rows = [f"{work}/{n % 2}.png,{('dark', 'light')[n % 2]},val,P{n // 2},{n},0,100,100" for n in range(60)]
    (tmp_path / "m.csv").write_text("\n".join(["path,label,split,group,y,x,height,width", *rows]))
    words = ["evaluate", model, tmp_path / "m.csv", *WORDS, "--bootstrap", 0, "--calibrate", "--stop", "off"]
    said = run(*words).stdout
    assert said.endswith("or more, by 60 cases of 30 groups\n")
    said = run(*words, "--per-source").stdout
    assert said.endswith("or more, by 60 images of 30 cases, each answered for itself\n")
    assert "risk of 0.1 from images of 30 cases" in run("describe", model).stdout


def test_risk_without_calibration_is_refused(run, work):
    result = run("evaluate", work / "model", work / "many.csv", *WORDS, "--risk", 0.1)
    assert result.exit_code == 1
    assert "add calibrate" in result.stderr


def test_a_calibration_that_has_no_answer_loses_no_metrics(run, work, tmp_path):
    rows = f"path,label,split\n{work / '0.png'},dark,val\n{work / '1.png'},light,val\n"
    (tmp_path / "m.csv").write_text(rows)
    result = run("evaluate", work / "model", tmp_path / "m.csv", *WORDS, "--calibrate", "--json")
    assert result.exit_code == 1
    assert "not calibrated: 2 classified cases, and it takes 30 or more" in result.stderr
    assert json.loads(result.stdout)["metrics"]["accuracy"]["value"] == 1
    assert load_model(work / "model").temperature == 1


@pytest.mark.parametrize(
    ("words", "says", "status"),
    [
        (["--split", "train"], "no rows of split 'train'", 1),
        (["--budgets", "2", "--policies", "rendom"], "did you mean 'random'", 1),
        (["--budget", "none"], "--budget", 2),
        (["--budgets", "0"], "must be 1 or more", 2),
        (["-o", "/proc/nope"], "the directory can't be made", 1),
    ],
)
def test_what_can_not_be_done_is_one_line(run, work, words, says, status):
    result = run("evaluate", work / "model", work / "m.csv", *words)
    assert (result.exit_code, result.stdout) == (status, "")
    assert says in result.stderr
    assert "Traceback" not in result.stderr


def test_an_evaluation_that_ends_early_leaves_no_older_metrics_beside_its_predictions(run, work, tmp_path):
    words = ["evaluate", work / "model", work / "m.csv", *WORDS, "-o", tmp_path]
    assert run(*words, "--budgets", "2", "--policies", "random").exit_code == 0
    before = sorted(path.name for path in tmp_path.iterdir())
    assert before == [
        "budget.png", "confusion.png", "index.html", "metrics.json", "predictions.csv", "predictions.jsonl",
        "reliability.png", "review.csv", "risk-coverage.png",
    ]  # fmt: skip
    assert run(*words, "--device", "cuda:99").exit_code == 1  # nothing was classified
    assert sorted(path.name for path in tmp_path.iterdir()) == before
    (tmp_path / "m.csv").write_text(f"path,label,split\n{work}/1.png,light,test\nabsent.png,light,test\n")
    words[2] = tmp_path / "m.csv"
    assert run(*words, "--on-error", "raise").exit_code == 1
    assert sorted(path.name for path in tmp_path.iterdir()) == ["m.csv", "predictions.jsonl"]
    assert len((tmp_path / "predictions.jsonl").read_text().splitlines()) == 1
