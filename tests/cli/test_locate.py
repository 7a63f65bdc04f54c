"""``hiresattn locate``: from labels to boxes."""

import csv
import json

import numpy as np
import pytest
from PIL import Image

SIDE = 16


def _save(path, rng, side, kind, at=(0, 0)):
    pixels = rng.integers(90, 110, (side, side)).astype(np.uint8)
    if kind != "plain":
        pixels[at[0] : at[0] + SIDE, at[1] : at[1] + SIDE] = 220
    Image.fromarray(pixels).save(path)


@pytest.fixture(scope="module")
def work(tmp_path_factory):
    folder = tmp_path_factory.mktemp("locate")
    rng = np.random.default_rng(0)
    rows = []
    for i in range(80):
        kind = ("plain", "bright")[i % 2]
        _save(folder / f"{i}.png", rng, SIDE, kind)
        rows.append((f"{i}.png", kind, "train"))
    (folder / "patches.csv").write_text("path,label,split\n" + "".join(f"{','.join(r)}\n" for r in rows))
    _save(folder / "scene.png", rng, 96, "bright", (32, 64))
    _save(folder / "empty.png", rng, 96, "plain")
    _save(folder / "later.png", rng, 96, "bright", (32, 64))
    (folder / "scenes.csv").write_text(
        "path,label,split,case_id\nscene.png,bright,train,7\nempty.png,plain,train,\nlater.png,bright,test,8\n"
    )
    return folder


def test_a_classifier_of_patches_says_where_the_label_of_a_scene_shows(run, work):
    trained = run(
        "train", work / "patches.csv", "-o", work / "model", "--background", "plain", "--crop-size", SIDE, "--k", "0",
        "--epochs", "25", "--lr", "0.005", "--value-range", "0,255", "--threads", "1", "--device", "cpu",
    )  # fmt: skip
    assert trained.exit_code == 0, trained.stderr
    (work / "out").mkdir()
    found = run("locate", work / "scenes.csv", "-m", work / "model", "-o", work / "out" / "boxes.csv")
    assert found.exit_code == 0, found.stderr
    assert "1 of 2 images" in found.stderr
    rows = list(csv.DictReader((work / "out" / "boxes.csv").read_text().splitlines()))
    assert [row["path"] for row in rows] == ["../scene.png", "../empty.png", "../later.png"]
    assert [row["boxes"] for row in rows] == [json.dumps([[32, 64, 16, 16]]), "[]", ""]

    from hiresattn.datasets.manifest import read_manifest

    examples = read_manifest(work / "out" / "boxes.csv")
    assert examples[0].boxes == ((32, 64, 16, 16),)
    assert examples[1].boxes == ()
    assert examples[2].boxes is None
    assert [example.group for example in examples] == ["7", None, "8"]

    (work / "bare.csv").write_text("path\nscene.png\nempty.png\n")
    bare = run("locate", work / "bare.csv", "-m", work / "model", "-o", work / "out" / "bare.csv")
    assert bare.exit_code == 0, bare.stderr
    assert "2 images of split train have no label" in bare.stderr
    odd, empty = read_manifest(work / "out" / "bare.csv", labels=True)
    assert odd.box_labels == ("bright",)
    assert (empty.label, empty.boxes) == ("plain", ())
    again = run(
        "train", work / "out" / "bare.csv", "-o", work / "again", "--background", "plain", "--crop-size", SIDE,
        "--epochs", "1", "--value-range", "0,255", "--threads", "1", "--device", "cpu",
    )  # fmt: skip
    assert again.exit_code == 0, again.stderr

    again = run("locate", work / "scenes.csv", "-m", work / "model", "-o", work / "scenes.csv")
    assert again.exit_code == 1
    assert "the manifest itself" in again.stderr
    missing = run("locate", work / "scenes.csv", "-m", work / "model", "-o", work / "nowhere" / "boxes.csv")
    assert missing.exit_code == 1
    assert "no folder" in missing.stderr


@pytest.mark.parametrize(
    ("table", "message"),
    [
        ("path,label\nscene.png,bright\nempty.png,plian\n", "'plian' is none of the model's classes"),
        ("path,labels\nscene.png,bright|plain\n", "one label per image"),
    ],
)
def test_what_can_not_be_located_is_refused_before_the_first_look(run, work, table, message):
    (work / "wrong.csv").write_text(table)
    found = run("locate", work / "wrong.csv", "-m", work / "model", "-o", work / "x.csv")
    assert found.exit_code == 1
    assert message in found.stderr
    assert not (work / "x.csv").exists()


def test_a_model_without_a_background_is_refused(run, work):
    from importlib.resources import files

    found = run(
        "locate", work / "scenes.csv", "-m", str(files("hiresattn.demo") / "model"), "-o", work / "x.csv"
    )
    assert found.exit_code == 1
    assert "--background" in found.stderr
    assert not (work / "x.csv").exists()
