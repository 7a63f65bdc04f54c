"""From slides and a spreadsheet to a manifest: joined, split by patient, checked; nothing guessed, nothing lost."""

import csv
import re
from collections import Counter, defaultdict
from pathlib import Path

import numpy as np
import pytest
from tifffile import imwrite

from hiresattn.datasets.cohort import CohortOptions, make_manifest
from hiresattn.datasets.manifest import read_manifest
from hiresattn.errors import ConfigError, NotFoundError


def slide(path, mpp=0.5):
    path.parent.mkdir(parents=True, exist_ok=True)
    scale = {} if mpp is None else {"resolution": (1e4 / mpp, 1e4 / mpp), "resolutionunit": "CENTIMETER"}
    imwrite(path, np.zeros((32, 32, 3), np.uint8), tile=(16, 16), photometric="rgb", metadata=None, **scale)


def table(path, rows, delimiter=","):
    with path.open("w", newline="", encoding="utf-8-sig") as file:
        csv.writer(file, delimiter=delimiter).writerows(rows)
    return path


def rows_of(path):
    with path.open(newline="", encoding="utf-8") as file:
        return list(csv.DictReader(file))


@pytest.fixture
def make(tmp_path):
    """Makes a manifest of the slides in ``slides`` and of rows."""

    def make(rows, **changes):
        found = table(tmp_path / "labels.csv", rows)
        output = tmp_path / "out" / "cohort.csv"
        output.parent.mkdir(exist_ok=True)
        return make_manifest(tmp_path / "slides", found, output, threads=2, overwrite=True, **changes)

    return make


def test_patients_of_a_spreadsheet_get_their_slides_their_label_and_one_split(tmp_path):
    for patient in range(20):
        for number in range(2):
            slide(tmp_path / "slides" / "ab"[number] / f"{patient:03}_{number}.tif")
    rows = [["Patient ID", "Diagnosis"]] + [[f"{p:03}", ("low", "high")[p % 2]] for p in range(20)]
    labels = table(tmp_path / "labels.csv", rows, delimiter=";")
    output = tmp_path / "cohort.csv"
    made = make_manifest(tmp_path / "slides", labels, output, label_column="diagnosis", val=0.2, test=0.2)
    assert (made.slides, made.found, made.rows, made.joined_by) == (40, 40, 20, "case")
    assert made.cases == {name: {"train": 6, "val": 2, "test": 2} for name in ("high", "low")}
    assert made.mpp == {"0.5": 40}
    assert made.left_out == {}
    examples = read_manifest(output, labels=True)  # refuses a patient in two splits
    assert Counter((e.label, e.split) for e in examples) == {
        (label, split): count
        for label in ("high", "low")
        for split, count in (("train", 12), ("val", 4), ("test", 4))
    }
    for row in rows_of(output):
        patient = row["path"].split("/")[-1][:3]
        assert row["case_id"] == patient  # zeros in front, too
        assert row["label"] == ("low", "high")[int(patient) % 2]
        assert "mpp" not in row
    again = tmp_path / "again.csv"
    make_manifest(tmp_path / "slides", labels, again, label_column="Diagnosis", val=0.2, test=0.2)
    assert again.read_text() == output.read_text()


def test_what_has_no_partner_or_two_is_listed_and_left_out(tmp_path, make):
    for name in ("a/x1.tif", "b/x1.tif", "x2.tif", "x3.tif", "x4.tif", "x5.tif", "x6.tif", "x7.tif"):
        slide(tmp_path / "slides" / name)
    made = make(
        [
            ["slide_id", "label", "case"],
            ["x1", "low", "p1"],  # two slides
            ["x2", "low", "p2"],
            ["x3.tif", "high", "p3"],
            ["x3", "low", "p3"],  # another label
            ["x4", "", "p4"],
            ["x9", "low", "p9"],  # no slide
            ["x5", "low", "p5"],
            ["x6", "high", "p5"],  # another label of one patient
            ["x7", "high", "p7"],
        ]
    )
    assert made.left_out == {
        "row_without_slide": ("line 7 (x9)",),
        "row_without_label": ("line 6 (x4)",),
        "ambiguous": ("line 2 (x1) may be a/x1.tif or b/x1.tif",),
        "contradictory": (
            "x3.tif: high (line 4), low (line 5)",
            "p5: low (x5.tif), high (x6.tif); if slides have labels of their own, say per_slide",
        ),
    }
    assert [(r["path"], r["label"]) for r in rows_of(tmp_path / "out" / "cohort.csv")] == [
        ("../slides/x2.tif", "low"),
        ("../slides/x7.tif", "high"),
    ]


def test_slides_of_a_patient_may_have_labels_of_their_own_and_stay_in_one_split(tmp_path, make):
    for number in range(20):
        slide(tmp_path / "slides" / f"{number}.tif")
    rows = [["file name", "label", "patient"]] + [[f"{n}", "lh"[n % 2], n // 2] for n in range(20)]
    with pytest.raises(
        ConfigError,
        match=r"no slide with a label can be used: 10 contradictions between rows, such as 0: l .*say per_slide",
    ):
        make(rows)
    made = make(rows, per_slide=True)
    assert made.slides == 20
    found = rows_of(tmp_path / "out" / "cohort.csv")
    assert {"group"} == set(found[0]) - {"path", "label", "split"}
    splits = defaultdict(set)
    for row in found:
        splits[row["group"]].add(row["split"])
    assert all(len(one) == 1 for one in splits.values())
    assert {row["split"] for row in found} == {"train", "val", "test"}


def test_two_patients_that_a_slide_may_be_of_get_none(tmp_path, make):
    for name in ("P1-2.tif", "P1_1.tif", "P3.tif", "other.tif"):
        slide(tmp_path / "slides" / name)
    made = make(
        [["case_id", "label"], ["P1", "low"], ["P1-2", "high"], ["P3", "high"], ["P4", "low"], ["", "x"]]
    )
    assert made.left_out == {
        "ambiguous": ("P1-2.tif may be of P1 or P1-2",),
        "slide_without_row": ("other.tif",),
        "row_without_slide": ("line 5 (P4)", "line 6 (empty)"),
    }
    assert {r["path"][10:]: r["case_id"] for r in rows_of(tmp_path / "out" / "cohort.csv")} == {
        "P1_1.tif": "P1",
        "P3.tif": "P3",
    }


def test_a_column_that_names_no_slide_gives_way_to_that_of_the_patients(tmp_path, make):
    for name in ("P1_1.tif", "P2_1.tif"):
        slide(tmp_path / "slides" / name)
    made = make([["image", "case_id", "label"], ["MRI 17", "P1", "low"], ["MRI 18", "P2", "high"]])
    assert (made.slides, made.joined_by) == (2, "case")
    assert made.columns == {"label": "label", "case": "case_id"}


def test_rows_of_a_patient_that_differ_in_their_split_are_a_contradiction(tmp_path, make):
    for name in ("P1.tif", "P2.tif", "P3.tif"):
        slide(tmp_path / "slides" / name)
    rows = [["case", "label", "split"], ["P1", "a", "train"], ["P1", "a", "test"], ["P2", "a", "train"]]
    made = make([*rows, ["P3", "b", "train"]])
    assert made.left_out == {"contradictory": ("P1: a (line 2, split train), a (line 3, split test)",)}


def test_slides_that_can_not_be_opened_are_left_out_and_scales_that_are_none_are_listed(tmp_path, make):
    for name, mpp in (("good", 0.25), ("none", None), ("dpi", 352.8), ("given", None), ("wrong", 0.5)):
        slide(tmp_path / "slides" / f"{name}.tif", mpp)
    (tmp_path / "slides" / "broken.tif").write_bytes(b"II*\0 no slide")
    rows = [["slide", "label", "mpp"], ["given", "low", "0.4"], ["wrong", "high", "400"]]
    rows += [[name, "low", ""] for name in ("good", "none", "dpi", "broken")]
    made = make(rows)
    assert made.mpp == {"0.25": 1, "0.4": 1}
    assert [one.split(":")[0] for one in made.scale_unknown] == ["dpi.tif", "none.tif", "wrong.tif"]
    assert "352.8" in made.scale_unknown[0]
    assert "the table says 400; 400 µm/px is neither a slide's" in made.scale_unknown[2]
    (unreadable,) = made.left_out["unreadable"]
    assert "broken.tif" in unreadable
    scales = {r["path"][10:-4]: r["mpp"] for r in rows_of(tmp_path / "out" / "cohort.csv")}
    assert scales == {"good": "", "none": "", "dpi": "", "given": "0.4", "wrong": ""}
    made = make(rows, assume_mpp=0.3)
    assert made.mpp == {"0.25": 1, "0.3": 2, "0.4": 1}
    assert len(made.scale_unknown) == 1


def test_the_split_of_the_table_wins_and_must_be_whole(tmp_path, make):
    for number in range(4):
        slide(tmp_path / "slides" / f"{number}.tif")
    rows = [["slide", "label", "split", "case"]]
    rows += [
        [str(n), "lh"[n % 2], split, n // 2] for n, split in enumerate(("test", "test", "train", "train"))
    ]
    make(rows, per_slide=True)
    assert [r["split"] for r in rows_of(tmp_path / "out" / "cohort.csv")] == [
        "test",
        "test",
        "train",
        "train",
    ]
    rows[2][2] = "val"
    with pytest.raises(ConfigError, match="line 3: 0 is in 'val' and in 'test'; give it one split"):
        make(rows, per_slide=True)
    rows[2][2] = ""
    with pytest.raises(ConfigError, match="line 3: split '' is none of train, val, test; fill the column"):
        make(rows, per_slide=True)


def test_patients_that_are_not_for_testing_are_in_folds(tmp_path, make):
    for patient in range(12):
        for number in range(2):
            slide(tmp_path / "slides" / f"{patient}_{number}.tif")
    rows = [["patient", "label"], *([str(n), "lh"[n % 2]] for n in range(12))]
    make(rows, val=0.0, test=0.34, folds=4)
    output = tmp_path / "out" / "cohort.csv"
    folds = {row["case_id"]: row["fold"] for row in rows_of(output)}
    assert {row["case_id"]: row["fold"] for row in rows_of(output)[::-1]} == folds
    assert Counter(folds.values()) == {"0": 2, "1": 2, "2": 2, "3": 2, "test": 4}
    examples = read_manifest(output, labels=True, fold=2)
    assert Counter((e.label, e.split) for e in examples) == {
        (label, split): count for label in "lh" for split, count in (("train", 6), ("val", 2), ("test", 4))
    }
    with pytest.raises(ConfigError, match="8 cases can't be in 9 folds"):
        make(rows, val=0.0, test=0.34, folds=9)


def test_small_cohorts_are_told_what_they_can_not_say(tmp_path, make):
    for number in range(8):
        slide(tmp_path / "slides" / f"{number}.tif")
    labels = [*"aaaa", *"bb", "c", "d"]
    notes = make([["slide", "label"], *([str(n), label] for n, label in enumerate(labels))]).notes
    assert "No column names the patients, so each slide counts as one" in notes[0]
    rough = "2 slides in val and 1 slide in test: what is measured on fewer than 30 is rough"
    assert notes[1:] == (
        "No slide of 'b' is in test: how well that is recognised stays unknown there",
        "No slide of 'c', 'd' is in val or test: how well that is recognised stays unknown there",
        f"{rough}; `evaluate --calibrate` takes 30 in val: --val gives it more",
    )


def test_classes_that_are_one_written_two_ways_are_named(tmp_path, make):
    for number in range(4):
        slide(tmp_path / "slides" / f"{number}.tif")
    labels = ("Tumour 1", "tumour1", "normal", "Normal")
    notes = make([["slide", "label"], *([str(n), label] for n, label in enumerate(labels))]).notes
    assert notes[1:3] == (
        "'Normal' and 'normal' are classes of their own; if they are one, write them alike",
        "'Tumour 1' and 'tumour1' are classes of their own; if they are one, write them alike",
    )


@pytest.mark.parametrize(
    ("header", "changes", "says"),
    [
        (
            "slide,diagnosis",
            {},
            "no column 'label'; say which one it is as label_column, of slide, diagnosis",
        ),
        ("slide,label", {"label_column": "diagnose"}, "no column 'diagnose'"),
        ("number,label", {}, "no column that names slides or patients; .* of number, label"),
        ("slide,label", {"label_column": "slide"}, "columns of their own; got slide, slide"),
        ("slide,label", {"val": 0.5, "test": 0.5}, "leave some to train on"),
        ("slide,label", {"assume_mpp": 100.0}, "assume_mpp: 100 µm/px is neither"),
        ("slide,label", {}, "no slide has a label; line 2 has 'x' in column 'slide', a slide is '1.tif'"),
    ],
)
def test_what_can_not_be_joined_is_one_error_that_says_what_to_do(tmp_path, make, header, changes, says):
    slide(tmp_path / "slides" / "1.tif")
    with pytest.raises(ConfigError, match=says):
        make([header.split(","), ["x", "y"]], **changes)


def test_one_class_nothing_to_read_and_what_is_there_already_are_errors(tmp_path, make):
    slide(tmp_path / "slides" / "1.tif")
    with pytest.raises(
        ConfigError, match="all slides that can be used have one label, 'y' in column 'label'"
    ):
        make([["slide", "label"], ["1", "y"]])
    (tmp_path / "there.csv").touch()
    labels = tmp_path / "labels.csv"
    for output, says in (
        ("there.csv", "is there already"),
        ("no/m.csv", "no folder"),
        ("m.txt", "ends in .csv"),
    ):
        with pytest.raises(ConfigError, match=says):
            make_manifest(tmp_path / "slides", labels, tmp_path / output)
    for name, says in (("absent.csv", "no such table"), ("slides", "a folder, no table")):
        with pytest.raises(NotFoundError, match=f"{says}; give the CSV or Parquet file with the labels"):
            make_manifest(tmp_path / "slides", tmp_path / name, tmp_path / "m.csv")
    (tmp_path / "empty.csv").touch()
    with pytest.raises(ConfigError, match="the first line is empty"):
        make_manifest(tmp_path / "slides", tmp_path / "empty.csv", tmp_path / "m.csv")
    with pytest.raises(ConfigError, match="wrong type"):
        CohortOptions(val="much")


def test_several_labels_stay_several_and_none_is_an_answer_too(tmp_path, make):
    for number in range(24):
        slide(tmp_path / "slides" / f"{number // 2}_{number % 2}.tif")
    labels = ("b|a", "a", "", "b")
    rows = [["Patient", "Labels"], *([str(n), labels[n % 4]] for n in range(12))]
    made = make([*rows, ["0", "a | b"]])  # the same as b|a
    assert (made.slides, made.left_out) == (24, {})
    assert {name: sum(own.values()) for name, own in made.cases.items()} == {"a": 6, "b": 6}
    assert sum(made.splits.values()) == 12
    assert all("class of its own" not in note for note in made.notes)
    examples = read_manifest(tmp_path / "out" / "cohort.csv", labels=True)
    assert Counter(e.label for e in examples) == {("a", "b"): 6, ("a",): 6, ("b",): 6, (): 6}
    with pytest.raises(
        ConfigError, match=r"1 contradiction between rows, such as 2: no label \(line 2\), a \(line 3\)"
    ):
        make([["patient", "labels"], ["2", ""], ["2", "a"], ["4", ""]])
    notes = make([["Patient", "Label"], ["0", "a|b"], ["1", "a"]]).notes
    assert "'a|b' is a class of its own; if it means several labels, call the column labels" in notes


def test_what_was_left_out_is_named_where_one_class_remains(tmp_path, make):
    for name in ("P1.tif", "P2.tif", "a/P3.tif", "b/P3.tif"):
        slide(tmp_path / "slides" / name)
    rows = [["slide", "label"], ["P1", "a"], ["P2", "a"], ["P2", "b"], ["P3", "b"], ["P4", "b"]]
    left = (
        "Left out: 1 row without a slide, such as line 6 (P4); 1 name that may mean two, such as line 5 (P3) may be "
        "a/P3.tif or b/P3.tif; 1 contradiction between rows, such as P2.tif: a (line 3), b (line 4)"
    )
    with pytest.raises(ConfigError, match=re.escape(left)):
        make(rows)


def test_names_that_spreadsheets_would_run_or_that_are_no_text_do_no_harm(tmp_path, make):
    for name in ("=1+1.tif", "-x.tif", " y.tif", "two\nlines.tif", "z.tif"):
        slide(tmp_path / "slides" / name)
    made = make(
        [["slide", "label"], ["'=1+1", "a"], ["-x", "b"], ["z", "a"], ["y", "b"], ["two\nlines", "a"]]
    )
    found = read_manifest(tmp_path / "out" / "cohort.csv")
    assert [e.source.rsplit("/", 1)[1] for e in found] == ["-x.tif", "=1+1.tif", "z.tif"]
    (unreadable,) = made.left_out["unreadable"]
    assert unreadable == "two\nlines.tif: its name has characters that are no text; rename it"


def test_paths_hold_where_the_manifest_lies_in_a_folder_that_is_a_link(tmp_path):
    (tmp_path / "far" / "away").mkdir(parents=True)
    (tmp_path / "link").symlink_to(tmp_path / "far" / "away")
    for number in range(2):
        slide(tmp_path / "slides" / f"{number}.tif")
    labels = table(tmp_path / "labels.csv", [["slide", "label"], ["0", "a"], ["1", "b"]])
    make_manifest(tmp_path / "slides", labels, tmp_path / "link" / "m.csv")
    assert all(Path(e.source).is_file() for e in read_manifest(tmp_path / "link" / "m.csv"))
