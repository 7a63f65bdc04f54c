"""`extract`: features into a folder; what fails is said, and the rest goes on."""

import json

import numpy as np
import pytest
from PIL import Image

from tests.encoders import write_encoder


@pytest.fixture
def work(tmp_path):
    write_encoder(tmp_path / "encoder", "test_resnet", size=32)
    for name in ("a", "b"):
        Image.fromarray(np.full((64, 96, 3), 90, np.uint8)).save(tmp_path / f"{name}.png")
    (tmp_path / "m.csv").write_text("path,label\na.png,x\na.png,x\nb.png,y\n")
    return tmp_path


def test_features_of_a_manifest_and_nothing_again(run, work):
    words = ["extract", work / "m.csv", "--encoder", f"local-dir:{work / 'encoder'}", "-o", work / "out"]
    first = run(*words)
    assert first.exit_code == 0, first.stderr
    assert f"2 images extracted, 0 were there; 12 regions in {work / 'out'}" in first.stderr
    (work / "tables").mkdir()
    (work / "tables" / "m.csv").write_text("path,stage\na.png,x\n")
    elsewhere = run(
        "extract", work / "tables" / "m.csv", "--root", work, "--label-column", "stage", *words[2:]
    )
    assert "0 images extracted, 1 were there" in elsewhere.stderr
    again = run(*words, "--json")
    assert "0 images extracted, 2 were there" in again.stderr
    records = [json.loads(line) for line in again.stdout.splitlines()]
    assert [(record["status"], record["regions"], record["side"]) for record in records] == [
        ("held", 6, 32)
    ] * 2


def test_an_image_that_cannot_be_read_is_exit_3_and_all_is_1(run, work):
    (work / "bad.png").write_bytes(b"none")
    words = ["--encoder", f"local-dir:{work / 'encoder'}", "-o", work / "out", "--format", "h5"]
    some = run("extract", work / "a.png", work / "bad.png", *words)
    assert some.exit_code == 3
    assert "bad.png" in some.stderr
    assert run("extract", work / "bad.png", *words).exit_code == 1
    assert [path.suffix for path in (work / "out").iterdir()] == [".h5"]


def test_other_features_are_kept_unless_overwrite_is_given(run, work):
    words = ["extract", work / "m.csv", "--encoder", f"local-dir:{work / 'encoder'}", "-o", work / "out"]
    assert run(*words).exit_code == 0
    refused = run(*words, "--side", "16")
    assert refused.exit_code == 1
    assert "with scale 32 px and not 16 px, and so 2 of 2 images; --overwrite replaces them" in refused.stderr
    replaced = run(*words, "--side", "16", "--overwrite")
    assert "2 images extracted, 0 were there; 48 regions" in replaced.stderr
    noted = run(*words, "--side", "80", "--overwrite")
    assert f"Note: {work / 'a.png'}: a region of 80 px is larger than the image of 64 x 96 px" in noted.stderr


def test_an_unknown_encoder_is_one_sentence(run, work):
    found = run("extract", work / "a.png", "--encoder", "local-dir:nowhere", "-o", work / "out")
    assert found.exit_code == 1
    assert len(found.stderr.strip().splitlines()) == 1
    assert "nowhere" in found.stderr
