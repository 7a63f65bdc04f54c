"""``hiresattn locate``: from labels to boxes."""

import csv
import json
from pathlib import Path

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
    found_boxes = json.loads(rows[0]["boxes"])
    assert all(32 <= y < 48 and 64 <= x < 80 for y, x, *_ in found_boxes)
    assert all(0 < confidence <= 1 for *_, confidence in found_boxes)
    assert [row["boxes"] for row in rows[1:]] == ["[]", ""]

    from hiresattn.datasets.manifest import read_manifest

    examples = read_manifest(work / "out" / "boxes.csv")
    assert [
        [*box, sure] for box, sure in zip(examples[0].boxes, examples[0].box_confidence, strict=True)
    ] == found_boxes
    assert examples[1].boxes == ()
    assert examples[2].boxes is None
    assert [example.case for example in examples] == ["7", None, "8"]

    (work / "bare.csv").write_text("path\nscene.png\nempty.png\n")
    moved = work / "moved"
    moved.mkdir()
    table = (work / "scenes.csv").read_text().replace("label", "diagnosis")
    (moved / "scenes.csv").write_text(table)
    again = run(
        "locate", moved / "scenes.csv", "-m", work / "model", "-o", work / "out" / "moved.csv", "--root", work,
        "--label-column", "diagnosis",
    )  # fmt: skip
    assert again.exit_code == 0, again.stderr
    assert (work / "out" / "moved.csv").read_text() == (work / "out" / "boxes.csv").read_text()

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
        ("path,labels\nscene.png,bright|plain\n", "knows one per image"),
    ],
)
def test_what_can_not_be_located_is_refused_before_anything_is_read(run, work, table, message):
    (work / "wrong.csv").write_text(table)
    found = run("locate", work / "wrong.csv", "-m", work / "model", "-o", work / "x.csv")
    assert found.exit_code == 1
    assert message in found.stderr
    assert not (work / "x.csv").exists()


def test_labels_that_the_model_does_not_know_are_refused(run, work):
    demo = Path(__file__).parents[2] / "hiresattn" / "demo" / "model"
    found = run("locate", work / "scenes.csv", "-m", demo, "-o", work / "none.csv")
    assert found.exit_code == 1
    assert "label 'bright' is none of the model's classes" in found.stderr


def test_what_was_found_is_kept_and_gone_on_with(run, work, tmp_path, monkeypatch):
    from hiresattn.inference.locator import Locator

    out, seen = tmp_path / "boxes.csv", []
    (tmp_path / "broken.png").write_bytes(b"no image")
    (tmp_path / "scenes.csv").write_text(
        f"path,label\n{work}/scene.png,bright\nbroken.png,bright\n{work}/later.png,bright\n"
    )
    one = Locator.find
    monkeypatch.setattr(Locator, "find", lambda locator, example: seen.append(1) or one(locator, example))
    words = ["locate", tmp_path / "scenes.csv", "-m", work / "model", "-o", out]
    stopped = run(*words)
    assert (stopped.exit_code, len(seen), out.exists()) == (1, 2, False)
    assert "broken.png" in stopped.stderr
    again = run(*words)
    assert again.exit_code == 1
    assert f"{out}: an interrupted run left boxes.csv.part; --resume goes on with it" in again.stderr

    seen.clear()
    skipped = run(*words, "--resume", "--on-error", "skip")
    assert (skipped.exit_code, len(seen)) == (3, 2)
    assert "Boxes for 2 of 3 images" in skipped.stderr
    rows = list(csv.DictReader(out.read_text().splitlines()))
    assert rows[0]["boxes"].startswith("[[32, 64, ")
    assert [row["boxes"] for row in rows] == [rows[0]["boxes"], "", rows[0]["boxes"]]

    seen.clear()
    (tmp_path / "broken.png").write_bytes((work / "scene.png").read_bytes())
    mended = run(*words, "--resume")
    assert (mended.exit_code, len(seen)) == (0, 1)
    assert "Boxes for 3 of 3 images" in mended.stderr
    assert sorted(path.name for path in tmp_path.iterdir()) == ["boxes.csv", "broken.png", "scenes.csv"]
    for more, message in (([], "overwrite starts anew"), (["--resume"], "is finished")):
        refused = run(*words, *more)
        assert (refused.exit_code, message in refused.stderr) == (1, True)
    assert run(*words, "--overwrite").exit_code == 0
