"""Records as tables: read back, they hold what the records say, with every identifier as text."""

import csv
import sys

import h5py
import numpy as np
import openpyxl
import pyarrow.parquet as pq
import pytest

from hiresattn.errors import BackendMissingError, ConfigError
from hiresattn.inference.record import CaseSource, Cost, Record, VisitedRegion
from hiresattn.report.exports import export_tables


def some():
    regions = (
        VisitedRegion(0, None, 0, 0, 0, 512, 512, 0.25, 0.0),
        VisitedRegion(1, 0, 1, 64, 128, 64, 64, 0.5, -1.5, "location"),
        VisitedRegion(2, 0, 1, 0, 192, 64, 64, 0.25, -2.5, "location", source=1),
    )
    sources = (CaseSource("a/1.svs", height=900, width=800), CaseSource("b/1.svs"))
    yield Record(
        "0007", "ok", case="0007", sources=sources, class_name="=sea", score=0.75, regions=regions,
        scores={"=sea": 0.75, "land": 0.25}, scores_after={"=sea": (0.5, 0.75, 0.7)},
        sufficient=(1,), cost=Cost(glimpses=3, fraction_read=0.5),
    )  # fmt: skip
    yield Record("c.svs", "error", error="c.svs: broken")


def test_csv_is_what_a_results_folder_has(tmp_path):
    files = export_tables(some(), tmp_path / "out", "csv")
    assert [path.name for path in files] == ["predictions.csv", "glimpses.csv", "errors.csv"]
    tables = [list(csv.DictReader(path.read_text().splitlines())) for path in files]
    assert [len(table) for table in tables] == [2, 3, 1]
    first = tables[0][0]
    assert (first["case"], first["prediction"], first["p_land"]) == ("0007", "'=sea", "0.25")
    assert [row["source"] for row in tables[1]] == ["a/1.svs", "a/1.svs", "b/1.svs"]
    assert [(row["p_=sea"], row["p_land"]) for row in tables[1]] == [("0.5", ""), ("0.75", ""), ("0.7", "")]
    assert tables[2][0]["error"] == "c.svs: broken"
    with pytest.raises(ConfigError, match="is there already"):
        export_tables(some(), tmp_path / "out", "csv")
    assert export_tables(some(), tmp_path / "out", "csv", overwrite=True) == files


def test_parquet_keeps_types(tmp_path):
    export_tables(some(), tmp_path, "parquet")
    predictions = pq.read_table(tmp_path / "predictions.parquet").to_pylist()
    assert (
        predictions[0] | {"case": "0007", "prediction": "=sea", "p_=sea": 0.75, "looks": 3} == predictions[0]
    )
    assert predictions[1]["score"] is None
    looks = pq.read_table(tmp_path / "glimpses.parquet").to_pylist()
    assert [(row["y"], row["x"], row["attention"], row["sufficient"]) for row in looks] == [
        (0, 0, 0.25, False), (64, 128, 0.5, True), (0, 192, 0.25, False),
    ]  # fmt: skip
    assert [(row["p_=sea"], row["p_land"]) for row in looks] == [(0.5, None), (0.75, None), (0.7, None)]
    assert export_tables([], tmp_path / "none", "parquet")


def test_a_workbook_runs_no_formula_and_changes_no_name(tmp_path):
    (path,) = export_tables(some(), tmp_path / "r.xlsx", "xlsx")
    book = openpyxl.load_workbook(path)
    assert book.sheetnames == ["predictions", "glimpses", "errors"]
    head, first, second = book["predictions"].iter_rows()
    row = dict(zip((cell.value for cell in head), first, strict=True))
    assert (row["case"].value, row["case"].data_type) == ("0007", "s")
    assert (row["prediction"].value, row["prediction"].data_type) == ("=sea", "s")
    assert row["score"].value == 0.75
    assert second[1].value == "c.svs"


def test_coordinates_are_x_before_y_a_file_for_each_image_and_depth(tmp_path):
    files = export_tables(some(), tmp_path, "h5")
    assert sorted(path.name for path in files) == [
        "a_1.svs.depth0.h5",
        "a_1.svs.depth1.h5",
        "b_1.svs.depth1.h5",
    ]
    with h5py.File(tmp_path / "a_1.svs.depth1.h5") as file:
        assert file["coords"][:].tolist() == [[128, 64]]
        assert file["coords"].dtype == np.int64
        assert file["attention"][:].tolist() == [0.5]
        assert dict(file["coords"].attrs) == {
            "name": "a_1.svs", "patch_size_level0": 64, "level0_height": 900, "level0_width": 800,
        }  # fmt: skip


@pytest.mark.parametrize(
    ("kind", "module", "extra"),
    [("xlsx", "openpyxl", "excel"), ("h5", "h5py", "hdf5"), ("parquet", "pyarrow", "parquet")],
)
def test_what_is_missing_is_named_with_its_command(tmp_path, monkeypatch, kind, module, extra):
    monkeypatch.setitem(sys.modules, module, None)
    with pytest.raises(BackendMissingError, match=rf"pip install 'hiresattn\[{extra}\]'"):
        export_tables(some(), tmp_path / "out", kind)
    with pytest.raises(ConfigError, match="possible are csv"):
        export_tables(some(), tmp_path / "out", "ods")
