"""A results folder: tables of all records, gone on with by the same run, and by no other."""

import csv
import json
import sys
from types import SimpleNamespace

import pytest

from hiresattn.config import ModelConfig
from hiresattn.datasets.cases import Case
from hiresattn.datasets.example import Example
from hiresattn.errors import ConfigError
from hiresattn.inference.options import ClassifyOptions
from hiresattn.inference.read_records import read_records
from hiresattn.inference.record import CaseSource, Cost, Record, VisitedRegion
from hiresattn.report.results import ResultsFolder, is_results_folder
from hiresattn.report.tables import PREDICTIONS, prediction_row

MODEL = SimpleNamespace(
    name="m", sha256="0" * 64, temperature=1.0, k=(4, 2), config=ModelConfig(classes=("sea", "land"))
)
REGIONS = (
    VisitedRegion(0, None, 0, 0, 0, 96, 96, 0.25, 0.0),
    VisitedRegion(1, 0, 1, 16, 32, 64, 64, 0.75, -1.5, "location"),
)


def answer(source, **changes):
    values = {
        "class_name": "sea",
        "score": 0.9,
        "scores": {"sea": 0.9, "land": 0.1},
        "scores_after": {"sea": (0.4, 0.9), "land": (0.6, 0.1)},
        "sources": (CaseSource(str(source), mpp=0.5, mpp_source="option assume_mpp"),),
        "regions": REGIONS,
        "sufficient": (1,),
        "cost": Cost(glimpses=2, fraction_read=0.5, stop_reason="confidence"),
    }
    return Record(str(source), "ok", **{**values, **changes})


def fill(folder, sources, bad=(), *, stop=None, options=None, **how):
    """Classify sources into a folder, up to ``stop`` of them; what was left to do."""
    with ResultsFolder(folder, MODEL, options or ClassifyOptions(), **how) as results:
        left = results.missing(sources)
        for source in left[:stop]:
            name = getattr(source, "name", source)
            error = Record(str(name), "error", error=f"{name}: broken")
            results.write(error if name in bad else answer(name), source)
    return left


def read_all(folder):
    return list(read_records(folder))


def rows(path):
    return list(csv.DictReader(path.read_text().splitlines()))


@pytest.fixture
def images(tmp_path):
    names = ["a/1.svs", "b/1.svs", "0007.svs", "=cmd.svs"]
    for name in names:
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_bytes(b"x")
    return [str(tmp_path / name) for name in names]


def test_every_case_has_a_row_and_every_look(images, tmp_path):
    import pyarrow.parquet as pq

    fill(tmp_path / "out", images, bad=images[1:2])
    out = tmp_path / "out"
    found = rows(out / "predictions.csv")
    assert [row["source"] for row in found] == images
    assert [row["status"] for row in found] == ["ok", "error", "ok", "ok"]
    assert [row["mpp_source"] for row in found] == ["assumed", "", "assumed", "assumed"]
    assert [row["case"] for row in found] == ["a_1", "b_1", "0007", "'=cmd"]
    assert (found[0]["prediction"], found[0]["p_sea"], found[0]["p_land"]) == ("sea", "0.9", "0.1")
    assert [row["error"] for row in rows(out / "errors.csv")] == [f"{images[1]}: broken"]
    glimpses = pq.read_table(out / "glimpses.parquet").to_pylist()
    assert [row["source"] for row in glimpses] == [name for name in (images[0], *images[2:]) for _ in REGIONS]
    assert [row["sufficient"] for row in glimpses[:2]] == [False, True]
    assert [(row["p_sea"], row["p_land"]) for row in glimpses[:2]] == [(0.4, 0.6), (0.9, 0.1)]
    assert [row["case"] for row in glimpses[::2]] == ["a_1", "0007", "=cmd"]
    assert (glimpses[1]["parent"], glimpses[1]["y"], glimpses[1]["scorer"]) == (0, 16, "location")
    run = json.loads((out / "run.json").read_text())
    assert run["options"]["budget"]["glimpses"] == 64
    assert [one["source"] for one in run["inputs"]] == images
    assert run["inputs"][0]["bytes"] == 1


@pytest.mark.parametrize(
    ("scales", "shown"),
    [
        ([(0.5, "openslide.mpp"), (0.5, "option assume_mpp")], (0.5, "header|assumed")),
        ([(0.5, "openslide.mpp"), (None, "the file can't be opened", "broken")], (0.5, "header")),
        ([(0.5, "openslide.mpp"), (0.25, "column mpp")], (None, None)),  # the record has them
        ([(None, None), (None, None)], (None, None)),
    ],
)
def test_a_case_has_the_scale_that_its_images_share_and_who_said_it(scales, shown):
    sources = tuple(
        CaseSource(str(n), mpp=mpp, mpp_source=said, error=error[0] if error else None)
        for n, (mpp, said, *error) in enumerate(scales)
    )
    row = dict(zip(PREDICTIONS, prediction_row(answer("P1", sources=sources), "P1"), strict=True))
    assert (row["mpp"], row["mpp_source"]) == shown


def test_identifiers_stay_texts_and_formulas_are_none(tmp_path):
    fill(tmp_path / "out", [Case("0007", ["0007.svs"]), Case("=1+1", ["x.svs"])])
    found = rows(tmp_path / "out" / "predictions.csv")
    assert [row["source"] for row in found] == ["0007", "'=1+1"]


def test_without_pyarrow_the_looks_are_csv(images, tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "pyarrow", None)
    fill(tmp_path / "out", images[:1])
    assert [row["look"] for row in rows(tmp_path / "out" / "glimpses.csv")] == ["0", "1"]
    assert not (tmp_path / "out" / "glimpses.parquet").exists()
    monkeypatch.undo()
    fill(tmp_path / "out", images[:1])
    assert not (tmp_path / "out" / "glimpses.csv").exists()


def test_an_interrupted_run_is_gone_on_with_to_the_same_tables(images, tmp_path):
    fill(tmp_path / "whole", images)
    assert fill(tmp_path / "parts", images, bad=images[:1], stop=2) == images
    assert len(rows(tmp_path / "parts" / "predictions.csv")) == 2
    assert fill(tmp_path / "parts", images) == [images[0], *images[2:]]  # what failed is tried again
    assert fill(tmp_path / "parts", images) == []
    for name in ("predictions.csv", "errors.csv", "glimpses.parquet"):
        first, second = ((tmp_path / run / name).read_bytes() for run in ("whole", "parts"))
        assert first == second, name


def test_a_run_with_other_options_or_another_model_is_refused(images, tmp_path, monkeypatch):
    out = tmp_path / "out"
    fill(out, images)
    before = (out / "records.jsonl").read_bytes()
    with pytest.raises(ConfigError, match=r"another run \(budget 64 glimpses, not 8 glimpses\)"):
        fill(out, images, options=ClassifyOptions(budget="8"))
    fill(out, images, options=ClassifyOptions(threads=1))
    monkeypatch.setattr(MODEL, "sha256", "1" * 64)
    with pytest.raises(ConfigError, match="another run"):
        fill(out, images)
    assert (out / "records.jsonl").read_bytes() == before
    assert len(fill(out, images[:1], overwrite=True)) == 1
    assert len(rows(out / "predictions.csv")) == 1


def test_a_folder_of_other_things_is_left_alone(images, tmp_path):
    with pytest.raises(ConfigError, match="holds other things"):
        fill(tmp_path, images)
    assert not (tmp_path / "records.jsonl").exists()
    out = tmp_path / "out"
    out.mkdir()
    (out / "records.jsonl").touch()  # killed before anything was written
    assert fill(out, images[:1]) == images[:1]
    (out / "run.json").write_text("{")
    with pytest.raises(ConfigError, match="can't be read"):
        fill(out, images)


def test_a_folder_without_a_record_is_free(images, tmp_path):
    out = tmp_path / "out"
    assert fill(out, images, stop=0) == images  # refused after the start, as for want of a scale
    assert sorted(path.name for path in out.iterdir()) == ["records.jsonl", "run.json"]
    assert fill(out, images, options=ClassifyOptions(assume_mpp=0.5)) == images
    assert json.loads((out / "run.json").read_text())["options"]["assume_mpp"] == 0.5
    fill(out, images, bad=images, options=ClassifyOptions(assume_mpp=1.0), overwrite=True)
    assert fill(out, images) == images  # nothing but errors
    with pytest.raises(ConfigError, match="another run"):
        fill(out, images, options=ClassifyOptions(assume_mpp=0.5))


def test_images_of_a_case_that_failed_are_errors_of_their_own(tmp_path):
    sources = (CaseSource("a.tif"), CaseSource("b.tif", error="b.tif: broken"))
    with ResultsFolder(tmp_path / "out", MODEL, ClassifyOptions()) as results:
        (case,) = results.missing([Case("P1", ["a.tif", "b.tif"])])
        results.write(answer("P1", case="P1", sources=sources), case)
    assert rows(tmp_path / "out" / "errors.csv") == [
        {"case": "P1", "source": "b.tif", "region": "", "error": "b.tif: broken"}
    ]


def test_a_later_record_of_an_image_or_case_replaces_the_earlier(images, tmp_path, caplog):
    out = tmp_path / "out"
    fill(out, [Case("P1", [Example(images[0], "sea", case="P1")]), *images[1:]])
    assert fill(out, images[:1]) == images[:1]  # by its path, without case and label
    assert "1 of its records are of files that have changed" in caplog.text
    assert sorted(row["source"] for row in rows(out / "predictions.csv")) == sorted(images)
    (tmp_path / "a" / "1.svs").write_bytes(b"other")
    assert fill(out, [*images, *images]) == images[:1]
    assert "4 of 8 images and cases are named more than once" in caplog.text
    assert len(read_all(out)) == len(rows(out / "predictions.csv")) == len(images)
    assert fill(out, images) == []
    fill(out, [Case("P1", images[:2])])
    fill(out, [Case("P1", images[2:])])  # the case, of other slides
    assert sorted(one.source for one in read_all(out)) == sorted([*images, "P1"])


def test_cases_whose_one_slide_another_has_are_named(images, tmp_path, caplog):
    listed = [Case(name, [Example(images[0], case=name)]) for name in ("P1", "P2", "P3", "P1")]
    assert fill(tmp_path / "out", [*listed, images[0]]) == listed[:1]
    said = "4 of 5 images and cases are named more than once; each has one record. "
    assert f"{said}2 cases got none, for the one slide is another's: P2 (of P1), P3 (of P1)" in caplog.text


def test_what_is_replaced_counts_nowhere_even_after_a_kill(images, tmp_path):
    out = tmp_path / "out"
    fill(out, images)
    (line, *others) = (out / "records.jsonl").read_text().splitlines(keepends=True)
    (out / "records.jsonl").write_text("".join([line, *others, line.replace('"score": 0.9', '"score": 0.8')]))
    assert sorted(one.score for one in read_all(out)) == [0.8, 0.9, 0.9, 0.9]
    assert fill(out, images) == []
    assert [row["score"] for row in rows(out / "predictions.csv")] == ["0.8", "0.9", "0.9", "0.9"]
    assert (out / "records.jsonl").read_text().count("\n") == len(images)


def test_a_folder_describes_all_that_was_ever_put_there(images, tmp_path):
    out = tmp_path / "out"
    fill(out, images[:3], bad=images[:1], qupath=True)
    fill(out, images[3:], qupath=True)
    run = json.loads((out / "run.json").read_text())
    assert (run["cases"], run["there"]) == (4, 3)
    assert [one["source"] for one in run["inputs"]] == images
    assert [row["source"] for row in rows(out / "errors.csv")] == images[:1]  # wasn't asked for again
    fill(out, images, qupath=True)
    assert sorted(path.name for path in (out / "qupath").iterdir()) == [
        "0007.svs.geojson", "=cmd.svs.geojson", "a_1.svs.geojson", "b_1.svs.geojson"
    ]  # fmt: skip
    assert json.loads((out / "run.json").read_text())["cases"] == 4


def test_what_is_a_folder(tmp_path):
    (tmp_path / "x.zarr").mkdir()
    assert is_results_folder("new/")
    assert is_results_folder(str(tmp_path))
    assert is_results_folder(str(tmp_path / "new"))
    (tmp_path / "file").touch()
    assert not is_results_folder(str(tmp_path / "file"))
    with pytest.raises(ConfigError, match="file is a file there, not a folder; give another name"):
        is_results_folder(f"{tmp_path}/file/")
    assert not is_results_folder("new.jsonl")
