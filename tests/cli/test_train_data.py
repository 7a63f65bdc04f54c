"""`train` and `evaluate`: what data they take, and what each kind of bad data says. Images are tiny."""

import json
from pathlib import Path

import numpy as np
import pytest
import zarr
from PIL import Image

SMALL = Path(__file__).parents[1] / "small.toml"
QUICK = ("--config", SMALL, "--device", "cpu", "--threads", "1", "--epochs", "1")
EVALUATE = ("--device", "cpu", "--threads", "1", "--bootstrap", "0", "--json")


def picture(number):
    """32 x 32 px: dark, or light."""
    rng = np.random.default_rng(number)
    return rng.integers(150 * (number % 2), 150 * (number % 2) + 60, (32, 32, 3)).astype(np.uint8)


def save(path, number):
    path.parent.mkdir(parents=True, exist_ok=True)
    if path.suffix == ".zarr":
        zarr.save_array(str(path), picture(number))
    else:
        Image.fromarray(picture(number)).save(path)


@pytest.fixture
def write(tmp_path):
    """Writes a manifest of images that it makes; ``{n}`` in a row is the name of an image, dark if n is even."""

    def write(text, name="m.csv"):
        for number in range(12):
            if f"{{{number}}}" in text:
                save(tmp_path / f"{number}.png", number)
                text = text.replace(f"{{{number}}}", f"{number}.png")
        (tmp_path / name).write_text(text)
        return tmp_path / name

    return write


def card(folder):
    return json.loads((folder / "card.json").read_text())


def test_a_folder_of_small_pictures_and_zarrs_trains_and_is_evaluated(run, tmp_path):
    for split in ("train", "val", "test"):
        for number in range(8):
            kind = ".zarr" if number > 5 else ".png"
            save(tmp_path / "set" / split / ("dark", "light")[number % 2] / f"{number}{kind}", number)
    result = run("train", tmp_path / "set", "-o", tmp_path / "model", *QUICK, "--epochs", 6)
    assert result.exit_code == 0, result.stderr
    assert card(tmp_path / "model")["classes"] == ["dark", "light"]
    found = run("evaluate", tmp_path / "model", tmp_path / "set", *EVALUATE)
    assert found.exit_code == 0, found.stderr
    report = json.loads(found.stdout)
    assert (report["split"], report["images"], report["metrics"]["accuracy"]["value"]) == ("test", 8, 1.0)


def test_a_folder_without_splits_is_evaluated_on_what_its_training_left_out(run, tmp_path):
    from hiresattn.datasets.folder import read_folder

    for number in range(20):
        save(tmp_path / "set" / ("dark", "light")[number % 2] / f"{number}.png", number)
    result = run("train", tmp_path / "set", "-o", tmp_path / "model", *QUICK, "--seed", 7)
    assert result.exit_code == 0, result.stderr
    assert "validation" in result.stderr
    out = tmp_path / "out"
    found = run("evaluate", tmp_path / "model", tmp_path / "set", "-o", out, *EVALUATE)
    assert found.exit_code == 0, found.stderr
    tested = {json.loads(line)["source"] for line in (out / "predictions.jsonl").read_text().splitlines()}
    assert tested == {e.source for e in read_folder(tmp_path / "set", seed=7) if e.split == "test"}
    found = run("evaluate", tmp_path / "model", tmp_path / "set", "--split", "all", *EVALUATE)
    assert json.loads(found.stdout)["images"] == 20


def test_a_folder_with_an_empty_class_is_exit_1(run, tmp_path):
    save(tmp_path / "set" / "dark" / "0.png", 0)
    (tmp_path / "set" / "light").mkdir()
    result = run("train", tmp_path / "set", "-o", tmp_path / "model", *QUICK)
    assert (result.exit_code, result.stdout) == (1, "")
    assert "light: a class without an image" in result.stderr


def test_a_parquet_manifest_trains_and_is_classified(run, write, tmp_path):
    arrow = pytest.importorskip("pyarrow")
    from pyarrow import parquet

    write("{0}{1}{2}{3}")
    rows = {"path": [f"{n}.png" for n in range(4)], "label": ["dark", "light"] * 2}
    parquet.write_table(arrow.table(rows | {"split": ["train"] * 2 + ["val"] * 2}), tmp_path / "m.parquet")
    result = run("train", tmp_path / "m.parquet", "-o", tmp_path / "model", *QUICK)
    assert result.exit_code == 0, result.stderr
    words = (tmp_path / "m.parquet", "-m", tmp_path / "model", "--split", "val", "--device", "cpu")
    found = run("classify", *words)
    assert [json.loads(line)["label"] for line in found.stdout.splitlines()] == ["dark", "light"]


FOLDS = "path,label,patient,fold\n{0},dark,1,0\n{1},light,2,0\n{2},dark,3,1\n{3},light,4,1\n{4},dark,5,test\n"


def test_a_fold_validates_and_is_what_evaluate_then_takes(run, write, tmp_path):
    manifest, model = write(FOLDS), tmp_path / "model"
    result = run("train", manifest, "-o", model, *QUICK, "--fold", 1)
    assert result.exit_code == 0, result.stderr
    assert "epoch 1/1, 2 cases" in result.stderr
    assert card(model)["training"]["options"]["fold"] == "1"
    found = run("evaluate", model, manifest, "--fold", 1, "-o", tmp_path / "out", *EVALUATE)
    assert found.exit_code == 0, found.stderr
    report = json.loads(found.stdout)
    assert (report["split"], report["images"], found.stderr) == ("fold 1", 2, "")
    lines = (tmp_path / "out" / "predictions.jsonl").read_text().splitlines()
    names = [json.loads(line)["source"] for line in lines]
    assert [name.rsplit("/", 1)[1] for name in names] == ["2.png", "3.png"]
    assert "was trained with fold 1" in run("evaluate", model, manifest, "--fold", 0, *EVALUATE).stderr
    assert json.loads(run("evaluate", model, manifest, *EVALUATE).stdout)["images"] == 1  # the test row


def test_a_fold_in_the_file_of_options_may_be_a_number(run, write, tmp_path):
    config = tmp_path / "run.toml"
    config.write_text("fold = 0\n")
    result = run("train", write(FOLDS), "-o", tmp_path / "model", *QUICK, "--config", config)
    assert result.exit_code == 0, result.stderr


@pytest.mark.parametrize(
    ("words", "says", "status"),
    [
        (("--fold", 5), "m.csv: no rows of fold '5'; there is 0, 1", 1),
        ((), "m.csv: a column fold, and nothing says which validates; name one as fold: 0, 1", 1),
    ],
)
def test_a_fold_that_is_not_there_or_not_named_is_exit_1(run, write, tmp_path, words, says, status):
    result = run("train", write(FOLDS), "-o", tmp_path / "model", *QUICK, *words)
    assert (result.exit_code, result.stdout) == (status, "")
    assert says in result.stderr
    assert not (tmp_path / "model").exists()


def test_a_fold_and_a_split_exclude_each_other_in_evaluate(run, write, tmp_path):
    result = run("evaluate", tmp_path / "model", write(FOLDS), "--fold", 0, "--split", "val")
    assert result.exit_code == 1
    assert "give one of them" in result.stderr


SCALES = "path,label,split,mpp\n{0},dark,train,0.5\n{1},light,train,0.25\n{2},dark,val,2\n{3},light,val,\n"


def test_a_scale_per_image_makes_the_models_domain_and_is_checked_against_it(run, write, tmp_path):
    manifest, model = write(SCALES), tmp_path / "model"
    result = run("train", manifest, "-o", model, *QUICK, "--mpp", "off")
    assert result.exit_code == 0, result.stderr
    assert card(model)["domain"]["mpp"] == [0.25, 0.5]
    words = ("classify", manifest, "-m", model, "--split", "val", "--device", "cpu")
    far, unknown = (json.loads(line) for line in run(*words).stdout.splitlines())
    assert (far["mpp"], far["mpp_source"], unknown["mpp"]) == (2.0, "column mpp", None)
    assert "2 µm/px; the model was trained at 0.25 to 0.5" in " ".join(far["warnings"])
    assert "does not say its µm/px" in " ".join(unknown["warnings"])
    for line in run(*words, "--mpp", 0.4).stdout.splitlines():
        found = json.loads(line)
        assert (found["mpp"], found["mpp_source"]) == (0.4, "option mpp")
        assert "µm/px" not in " ".join(found["warnings"])


def test_images_of_several_scales_are_seen_at_one_and_those_without_are_named(run, write, tmp_path):
    manifest, model = write(SCALES), tmp_path / "model"
    refused = run("train", manifest, "-o", model, *QUICK)
    assert refused.exit_code == 1
    assert "3.png (its header has none); give it in a column mpp, or as --assume-mpp" in refused.stderr
    assert not model.exists()
    result = run("train", manifest, "-o", model, *QUICK, "--assume-mpp", 0.5, "--foreground", "none")
    assert result.exit_code == 0, result.stderr
    assert "Images of 0.25 µm/px to 2 µm/px are seen at 0.5 µm/px" in result.stderr
    assert card(model)["config"]["input"]["mpp"] == 0.5
    words = ("classify", manifest, "-m", model, "--device", "cpu")
    output = tmp_path / "out.jsonl"
    refused = run(*words, "-o", output)
    assert refused.exit_code == 1
    assert "of 1 of 4 images no scale can be used: " in refused.stderr
    assert not output.exists() or not output.read_text(encoding="utf-8")
    lines = run(*words, "--assume-mpp", 0.5).stdout.splitlines()
    found = [json.loads(line) for line in lines]
    assert [one["mpp"] for one in found] == [0.5, 0.25, 2.0, 0.5]
    assert [one["mpp_source"] for one in found] == ["column mpp"] * 3 + ["option assume_mpp"]
    assert ["upsampled" in " ".join(one["warnings"]) for one in found] == [False, False, True, False]
    planned = run(*words, "--dry-run").stdout.splitlines()
    assert [json.loads(line)["status"] for line in planned] == ["planned"] * 3 + ["error"]
    assert (
        run("evaluate", model, manifest, "--split", "val", "--assume-mpp", 0.5, "--device", "cpu").exit_code
        == 0
    )
    assert "no scale can be used" in run("evaluate", model, manifest, "--split", "val").stderr
    wrong = run("train", manifest, "-o", tmp_path / "other", *QUICK, "--mpp", "fine")
    assert "such as 0.5, auto or off" in wrong.stderr


def test_images_whose_boxes_alone_have_classes_train_resume_classify_and_say_what_is_wrong(
    run, write, tmp_path
):
    whole = json.dumps([[0, 0, 32, 32, "{}"]]).replace('"', '""')
    kinds = [whole.format(("dark", "light")[number % 2]) for number in range(6)]
    rows = [f'{{{number}}},,train,"{kind}"' for number, kind in enumerate(kinds)]
    feature = {"geometry": {"type": "Polygon", "coordinates": [[[2, 2], [30, 2], [30, 30]]]}}
    named = {**feature, "properties": {"classification": {"name": "light"}}}
    (tmp_path / "7.geojson").write_text(json.dumps({"features": [named, named]}))
    (tmp_path / "8.geojson").write_text(json.dumps({"features": []}))
    rows += ["{7},,train,7.geojson", "{8},,train,8.geojson", "{9},light,val,", "{10},dark,test,"]
    text = "path,label,split,boxes\n" + "\n".join(rows) + "\n"
    train = (
        "train",
        write(text),
        "-o",
        tmp_path / "m",
        *QUICK,
        "--scorer",
        "evidence",
        "--encoder",
        "small-bn",
    )
    result = run(*train)
    assert result.exit_code == 0, result.stderr
    assert "accuracy" not in result.stderr.partition("validation")[0]
    assert card(tmp_path / "m")["classes"] == ["dark", "light"]
    assert "\nNothing left to train\n" in run(*train, "--resume").stderr
    found = run("classify", tmp_path / "m.csv", "--split", "test", "-m", tmp_path / "m", "--device", "cpu")
    assert found.exit_code == 0, found.stderr
    for old, new, says in (
        ('""light""', '""ligth""', "1 of 3 classes have one training image each: 'ligth'"),
        (
            "8.geojson",
            "",
            "m.csv, line 9: no label; training needs the class of every image, or of its boxes",
        ),
        (
            "0, 0, 32, 32",
            "40, 0, 32, 32",
            "0.png: box [40, 0, 32, 32] (y, x, height, width) lies outside the image",
        ),
        ("{9},light", "{9},ligth", "label 'ligth' in split 'val' and not in 'train'; did you mean 'light'?"),
    ):
        said = run(
            "train", write(text.replace(old, new, 1)), "-o", tmp_path / "n", *QUICK, "--overwrite"
        ).stderr
        assert says in said
        assert "outside" not in says or "m.csv, line 2: " in said
    unboxed = "path,label\n{0},dark\n{1},light\n"
    said = run(
        "train", write(unboxed), "-o", tmp_path / "n", *QUICK, "--scorer", "evidence", "--overwrite"
    ).stderr
    assert "'evidence' learns from boxes, and no training image has any" in said


def test_a_spreadsheet_beside_the_slides_trains_evaluates_and_classifies_with_its_own_names(run, tmp_path):
    for number in range(12):
        save(tmp_path / "slides" / f"{number:03}.png", number)
    splits = 8 * ["train"] + 4 * ["test"]
    rows = [f"{n:03};{('dark', 'light')[n % 2]};{split};{n}" for n, split in enumerate(splits)]
    table = tmp_path / "export.csv"
    table.write_text("\n".join(["Slide ID;Diagnosis;Split;Case ID", *rows]), encoding="utf-8-sig")
    how = ("--root", tmp_path / "slides", "--label-column", "diagnosis")
    result = run("train", table, "-o", tmp_path / "model", *QUICK, *how, "--epochs", 6)
    assert result.exit_code == 0, result.stderr
    assert "No row is of split 'val': nothing validates" in result.stderr
    found = run("evaluate", tmp_path / "model", table, *EVALUATE, *how)
    assert found.exit_code == 0, found.stderr
    assert json.loads(found.stdout)["images"] == 4
    words = ("--split", "test", "-m", tmp_path / "model", "--device", "cpu", "--threads", "1")
    lines = run("classify", table, *words, *how).stdout.splitlines()
    assert [json.loads(line)["label"] for line in lines] == 2 * ["dark", "light"]
    assert run("classify", tmp_path / "slides", *words[2:], *how).exit_code == 2


def test_a_share_of_the_cases_validates_the_same_ones_in_evaluate(run, write, tmp_path):
    rows = "\n".join(f"{{{n}}},{('dark', 'light')[n % 2]},p{n}" for n in range(12))
    table = write(f"path,label,patient\n{rows}\n")
    model = tmp_path / "model"
    result = run("train", table, "-o", model, *QUICK, "--val-fraction", 0.3, "--seed", 3)
    assert result.exit_code == 0, result.stderr
    assert "8 cases" in result.stderr
    assert "validation" in result.stderr
    assert "nothing validates" not in result.stderr
    found = run("evaluate", model, table, *EVALUATE, "--split", "val")
    assert json.loads(found.stdout)["images"] == 4
