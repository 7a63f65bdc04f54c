"""`init`: slides and a table of labels in, a manifest and what was left out of it."""

import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image


@pytest.fixture
def work(tmp_path):
    """24 slides of 12 patients, one of them without a label, and a spreadsheet."""
    for number in range(24):
        path = tmp_path / "slides" / "ab"[number % 2] / f"P{number // 2:02}_{number % 2}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(np.full((32, 32, 3), 100 * (number // 2 % 2) + 50, np.uint8)).save(path)
    rows = [f"P{patient:02};{('dark', 'light')[patient % 2]}" for patient in range(11)]
    (tmp_path / "labels.csv").write_text("\n".join(["Case ID;Diagnosis", *rows]), encoding="utf-8-sig")
    return tmp_path


def words(work):
    return "init", work / "slides", work / "labels.csv", "--label-column", "diagnosis", "-o", work / "m.csv"


def test_a_table_of_cases_and_what_was_left_out(run, work):
    result = run(*words(work))
    assert result.exit_code == 0, result.stderr
    lines = [" ".join(line.split()) for line in result.stdout.splitlines()]
    assert lines[0] == f"{work}/m.csv: 22 of 24 slides; label from 'diagnosis', case from 'case_id'"
    assert lines[2:6] == ["cases train val test", "dark 4 1 1", "light 3 1 1", "all 7 2 2"]
    assert "22 slides without µm/px, which a column mpp or --assume-mpp gives:" in lines
    at = lines.index("Left out: 2 slides without a row in the table:")
    assert lines[at + 1 :] == ["a/P11_0.png", "b/P11_1.png"]
    assert (
        "Note: 2 cases in val and 2 cases in test: what is measured on fewer than 30 is rough"
        in result.stderr
    )
    assert run("-q", *words(work), "--overwrite").stderr == ""


def test_one_json_object_has_all_of_it(run, work):
    found = json.loads(run(*words(work), "--json", "--assume-mpp", 0.5, "--test", 0).stdout)
    assert found["cases"] == {
        "dark": {"train": 5, "val": 1, "test": 0}, "light": {"train": 4, "val": 1, "test": 0},
    }  # fmt: skip
    assert found["mpp"] == {"0.5": 22}
    assert found["left_out"] == {"slide_without_row": ["a/P11_0.png", "b/P11_1.png"]}


def test_notes_and_what_was_left_out_name_options_as_the_command_line_does(run, work):
    rows = [f"{name};{label}" for name, label in (("P00_0", "a"), ("P01_0", "b"), ("P02_0", "a"))]
    (work / "labels.csv").write_text("\n".join(["Slide;Diagnosis", *rows]))
    assert "say which column it is (--case-column)" in run(*words(work)).stderr
    rows = [f"P0{n // 2}_{n % 2};P0{n // 2};{'aabbab'[n]}" for n in range(6)]
    (work / "labels.csv").write_text("\n".join(["Slide;Case;Diagnosis", *rows]))
    assert "labels of their own, say --per-slide" in run(*words(work), "--overwrite").stdout


def test_slides_with_labels_of_their_own_are_counted_as_slides(run, work):
    result = run(*words(work), "--per-slide")
    lines = [" ".join(line.split()) for line in result.stdout.splitlines()]
    assert lines[2:6] == ["slides train val test", "dark 8 2 2", "light 6 2 2", "all 14 4 4"]


def test_a_slide_that_is_broken_is_exit_3_and_costs_no_other(run, work):
    (work / "slides" / "a" / "P03_0.png").write_bytes(b"no picture")
    result = run(*words(work))
    assert result.exit_code == 3
    assert "Left out: 1 slide that can't be used:" in result.stdout
    assert len((work / "m.csv").read_text().splitlines()) == 22


def test_a_manifest_that_is_there_stays(run, work):
    (work / "m.csv").write_text("mine")
    result = run(*words(work), "--json")
    assert (result.exit_code, (work / "m.csv").read_text()) == (1, "mine")
    assert "is there already; give another name, or --overwrite to replace it" in result.stderr


def test_what_it_writes_can_be_trained_on(run, work):
    from hiresattn.datasets.manifest import read_manifest

    run(*words(work))
    examples = read_manifest(work / "m.csv", labels=True)  # checks what training needs
    assert sorted(e.split for e in examples) == 4 * ["test"] + 14 * ["train"] + 4 * ["val"]
    assert all(Path(e.source).is_file() for e in examples)
