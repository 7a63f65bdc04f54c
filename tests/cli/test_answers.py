"""On a terminal `classify` answers in words, a line a case; elsewhere with JSON lines."""

import json
import sys
from dataclasses import replace
from types import SimpleNamespace

import pytest

from hiresattn.datasets.cases import Case
from hiresattn.inference.progress import SoFar
from hiresattn.inference.record import CaseSource, Cost
from hiresattn_cli.answers import Answers, flags, telling
from hiresattn_cli.progress import Update
from hiresattn_cli.records import Counts
from tests.cli.conftest import prediction


@pytest.fixture
def terminal(monkeypatch):
    monkeypatch.setattr("hiresattn_cli.classify.on_terminal", lambda: True)


def test_a_line_a_case_in_words(run, classified, terminal):
    result = run("classify", "a.tif", "bad.tif", "longer.tif", "-m", "m")
    assert result.stdout == (
        "a.tif       sea 0.90      2 looks      50 % read\n"
        "bad.tif     failed\n"
        "longer.tif  sea 0.90      2 looks      50 % read\n"
    )
    assert result.stderr.startswith("Error: bad.tif: broken in two lines\n2 ok, 1 failed; mean 2.0 glimpses;")


def test_json_a_file_and_a_pipe_take_data(run, classified, terminal, monkeypatch, tmp_path):
    asked = run("classify", "a.tif", "-m", "m", "--json").stdout
    assert json.loads(asked)["source"] == "a.tif"
    assert run("classify", "a.tif", "-m", "m", "-o", tmp_path / "a.jsonl").stdout == ""
    assert json.loads((tmp_path / "a.jsonl").read_text())["source"] == "a.tif"
    monkeypatch.setattr("hiresattn_cli.classify.on_terminal", lambda: False)
    assert run("classify", "a.tif", "-m", "m").stdout == asked


def test_a_folder_of_results_takes_data_and_the_terminal_words(run, classified, terminal, tmp_path):
    result = run("classify", "a.tif", "bad.tif", "-m", "m", "-o", f"{tmp_path}/out/", "--no-overlays")
    assert result.stdout == "a.tif    sea 0.90      2 looks      50 % read\nbad.tif  failed\n"
    assert f"`hiresattn report {tmp_path}/out/ -o report.html`" in result.stderr
    assert (tmp_path / "out" / "predictions.csv").is_file()


def test_what_needs_review_says_why_and_is_counted(run, classified, terminal, monkeypatch):
    reasons = ("may be sea or land", "unlike the training images")
    doubtful = prediction("a.tif", needs_review=True, review_reasons=reasons, out_of_domain=True)
    module = sys.modules["hiresattn.inference.classify"]
    monkeypatch.setattr(module, "classify_all", lambda *_, **__: iter([doubtful]))
    result = run("classify", "a.tif", "-m", "m")
    assert result.stdout.endswith("  needs review: may be sea or land; unlike the training images\n")
    assert "1 ok, 0 failed; 1 to review; mean" in result.stderr


def test_names_are_as_wide_as_the_longest_up_to_a_limit_and_keep_their_end():
    answers = Answers(["x" * 100 + "/1.svs", "1.svs"], ["sea"])
    long, short = (answers.line(prediction(name)) for name in ("x" * 100 + "/1.svs", "1.svs"))
    assert long.index("sea") == short.index("sea") == 46
    assert long.startswith("…xxx")
    assert "x/1.svs  sea" in long


def test_a_case_and_a_window_are_named():
    sources = (CaseSource("a.tif"), CaseSource("b.tif"))
    answers = Answers([Case("P1", ["a.tif", "b.tif"])], ["sea"])
    assert answers.line(prediction("P1", case="P1", sources=sources)).startswith("P1 (2 images)  sea 0.90")
    answers = Answers([Case("P2", ["c.tif"])], ["sea"])
    assert answers.line(prediction("c.tif", case="P2", sources=sources[:1])).startswith("P2  sea 0.90")
    assert Answers(["a"], []).line(prediction("a", region=(0, 1, 2, 3))).startswith("…")
    assert Answers([], []).line(prediction("a", status="no_foreground", class_name=None)).strip()


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"labels": ("sea", "land"), "class_name": None}, "sea 0.90, land 0.10"),
        ({"labels": (), "class_name": None}, "no label"),
        ({"status": "no_valid_pixels", "class_name": None, "cost": Cost()}, "no valid pixels"),
    ],
)
def test_other_answers(changes, words):
    assert words in Answers(["a.tif"], ["sea"]).line(prediction("a.tif", **changes))


def test_a_label_is_told_where_the_answer_is_another():
    assert flags(prediction("a", label="sea")) == []
    assert flags(prediction("a", label="land")) == ["(label given: land)"]
    several = prediction("a", labels=("sea", "land"), label=("land", "sea"), class_name=None)
    assert flags(several) == []
    assert flags(replace(several, label=())) == ["(label given: none)"]


def test_control_characters_in_names_are_escaped():
    line = Answers(["a\x1b[2J.tif"], ["sea"]).line(prediction("a\x1b[2J.tif", class_name="s\ne\x07a"))
    assert line.startswith("a\\x1b[2J.tif")
    assert "s e\\x07a" in line


def test_a_bar_says_how_far_the_next_case_is_and_nobody_is_told_where_there_is_none():
    shown = []
    counts = Counts()
    tell = telling(Update(lambda *said: shown.append(said)), counts, 4)
    tell(SoFar("slides/1.svs", 16, 64, 0.0123))
    counts.add(prediction("slides/1.svs"))
    tell(SoFar("slides/2.svs", 300, None, 0.5))
    tell(SoFar("slides/2.svs", 80, 64, 0.5))  # the first step may be larger than the budget
    assert shown == [
        (0.25, "0 of 4; slides/1.svs: 16 of 64 looks, 1.2 % read"),
        (1.0, "1 of 4; slides/2.svs: 300 looks, 50 % read"),
        (2.0, "1 of 4; slides/2.svs: 80 of 64 looks, 50 % read"),
    ]
    assert telling(Update(), counts, 4) is None


def test_an_answer_is_written_without_the_bar():
    calls = []
    bar = SimpleNamespace(stop=lambda: calls.append("stop"), start=lambda: calls.append("start"))
    with Update(print, bar).above():
        calls.append("written")
    with Update().above():
        calls.append("without a bar")
    assert calls == ["stop", "written", "start", "without a bar"]
