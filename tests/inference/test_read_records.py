"""Records read back are the records that were written; anything else is an error that names the line."""

import json
import math
from dataclasses import replace

import pytest

from hiresattn.errors import ConfigError, NotFoundError
from hiresattn.inference.lines import json_line
from hiresattn.inference.read_records import read_records
from hiresattn.inference.record import CaseSource, Cost, Record, Seconds, VisitedRegion

FULL = Record(
    source="P1",
    status="ok",
    case="P1",
    sources=(
        CaseSource("a.svs", height=90, width=80, mpp=0.5, bounds=(1, 2, 3, 4), glimpses=1),
        CaseSource("b.tif", transform=(1.0, 0.0, 5.0, 0.0, -1.0, 6.0), region=(0, 1, 2, 3), error="broken"),
    ),
    label=("x", "y"),
    labels=("x",),
    scores={"x": 0.75, "y": 0.25},
    prediction_set=("x", "y"),
    needs_review=True,
    review_reasons=("may be x or y",),
    sufficient=(0,),
    score_without=math.inf,
    regions=(
        VisitedRegion(0, None, 0, 0, 0, 64, 64, 1.0, 0.0),
        VisitedRegion(1, 0, 1, 2, 3, 4, 5, 0.0, -1.5),
    ),
    cost=Cost(glimpses=2, fraction_read=0.5, seconds=Seconds(total=2.0)),
    warnings=("odd",),
    model={"name": "m", "sha256": "0"},
    version="0.1.0",
)


def written(path, *records, more=""):
    path.write_text("".join(json_line(record.to_json() | {"key": "k"}) + "\n" for record in records) + more)
    return path


def test_what_is_read_is_what_was_written(tmp_path):
    error = Record("c.tif", "error", error="c.tif: broken")
    path = written(tmp_path / "records.jsonl", FULL, error)
    assert list(read_records(path)) == list(read_records(tmp_path)) == [FULL, error]


def test_a_torn_last_line_is_left_out(tmp_path):
    path = written(tmp_path / "out.jsonl", FULL, more=json_line(FULL.to_json()))
    assert list(read_records(path)) == [FULL]


@pytest.mark.parametrize(
    "change",
    [
        {"source": None},
        {"scores": [1]},
        {"scores": {"x": "likely"}},
        {"regions": [{"id": 0}]},
        {"regions": [[0, 0, 5, 5]]},
        {"regions": 3},
        {"cost": {"glimpses": "many"}},
        {"bounds": [1], "sources": [{"source": "a", "bounds": [1]}]},
    ],
)
def test_a_line_that_is_no_record_is_an_error_with_its_number(tmp_path, change):
    path = tmp_path / "out.jsonl"
    path.write_text(json_line(FULL.to_json()) + "\n" + json.dumps(FULL.to_json() | change) + "\n")
    with pytest.raises(ConfigError, match=r"out.jsonl, line 2: not a record"):
        list(read_records(path))


@pytest.mark.parametrize("text", ["[]\n", "{}\n", "no\n", "\xff\n", '{"source": "a"}\n', "[" * 10**5 + "\n"])
def test_text_that_holds_no_record_is_an_error(tmp_path, text):
    path = tmp_path / "out.jsonl"
    path.write_bytes(text.encode("latin-1"))
    with pytest.raises(ConfigError, match="line 1: not a record"):
        list(read_records(path))


def test_fields_of_another_version_are_passed_over(tmp_path):
    path = tmp_path / "out.jsonl"
    path.write_text(json.dumps({"source": "a", "status": "ok", "later": 3, "cost": {"later": 1}}) + "\n")
    assert list(read_records(path)) == [replace(Record("a", "ok"), cost=Cost())]


def test_what_is_not_there_is_an_error_that_says_what_to_give(tmp_path):
    for path in (tmp_path, tmp_path / "absent.jsonl"):
        with pytest.raises(NotFoundError, match="give what `hiresattn classify"):
            list(read_records(path))
