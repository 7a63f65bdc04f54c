"""`report`: a results folder, or a file of records, as one HTML file."""

import json
import os

import pytest

from hiresattn.files import file_state
from hiresattn.inference.lines import json_line
from hiresattn.inference.record import CaseSource
from hiresattn.report.page import embedded
from tests.cli.conftest import prediction


@pytest.fixture
def records(image, tmp_path):
    folder = tmp_path / "out"
    folder.mkdir()
    some = [prediction(image), prediction("absent.svs")]
    lines = [json_line(record.to_json() | {"key": "k"}) + "\n" for record in some]
    (folder / "records.jsonl").write_text("".join(lines))
    return folder


def test_a_folder_and_a_file_give_the_same_page(run, records, tmp_path):
    result = run("report", records, "-o", tmp_path / "1.html")
    assert (result.exit_code, result.stdout) == (0, "")
    assert result.stderr.startswith(
        "Warning: absent.svs: no pictures of it: absent.svs: there is no such file"
    )
    assert result.stderr.endswith(f"2 cases in {tmp_path / '1.html'}\n")
    assert run("report", records / "records.jsonl", "-o", tmp_path / "2.html").exit_code == 0
    first, second = ((tmp_path / name).read_text() for name in ("1.html", "2.html"))
    assert first == second
    assert [row["answer"] for row in embedded(first, "list")] == ["sea", "sea"]
    assert embedded(first, "case-0")["pictures"][0]["image"]


def test_of_a_file_that_has_changed_nothing_is_drawn(run, image, tmp_path):
    size, modified = file_state(image)
    record = prediction(image, sources=(CaseSource(str(image), bytes=size, modified=modified),))
    records = tmp_path / "r.jsonl"
    records.write_text(json_line(record.to_json()) + "\n")

    def drawn(name):
        told = run("report", records, "-o", tmp_path / f"{name}.html").stderr
        told += run("export", records, "--to", "qupath", "-o", tmp_path / name).stderr
        case = embedded((tmp_path / f"{name}.html").read_text(), "case-0")
        return told, case["pictures"][0]["image"] is not None, len(list((tmp_path / name).iterdir()))

    assert drawn("same")[1:] == (True, 1)
    os.utime(image, (0, 0))
    told, *found = drawn("changed")
    assert found == [False, 0]
    assert told.count("the file has changed since it was classified") == 2


def test_cases_are_listed_by_their_names_where_each_has_one_record(run, tmp_path):
    cases = {"a.tif": "P1", "b.tif": "P2", "c.tif": "P2", "d.tif": None}
    lines = [json_line(prediction(name, case=case).to_json()) + "\n" for name, case in cases.items()]
    (tmp_path / "r.jsonl").write_text("".join(lines))
    run("report", tmp_path / "r.jsonl", "-o", tmp_path / "r.html")
    page = (tmp_path / "r.html").read_text()
    assert [row["name"] for row in embedded(page, "list")] == ["P1", "b.tif", "c.tif", "d.tif"]


def test_what_is_there_is_kept_unless_asked(run, records, tmp_path):
    path = tmp_path / "r.html"
    path.write_text("mine")
    result = run("report", records, "-o", path)
    assert (result.exit_code, path.read_text()) == (1, "mine")
    assert "is there already" in result.stderr
    assert run("-q", "report", records, "-o", path, "--overwrite").stderr == ""


def test_what_holds_no_records_is_an_error_in_one_line(run, records, tmp_path):
    for name in ("absent.jsonl", "."):
        result = run("report", tmp_path / name, "-o", tmp_path / "r.html")
        assert result.exit_code == 1
        assert result.stderr.count("\n") == 1
    (records / "records.jsonl").write_text(json.dumps({"what": 1}) + "\n")
    result = run("report", records, "-o", tmp_path / "r.html")
    assert (result.exit_code, (tmp_path / "r.html").exists()) == (1, False)
    assert "records.jsonl, line 1: not a record" in result.stderr
