"""`demo`: the numbers of a run as a table, or as JSON."""

import json
import sys
from pathlib import Path
from types import ModuleType, SimpleNamespace

import pytest

FACTS = {
    "scene": "out/needle.tif",
    "overlay": "out/needle.png",
    "width": 32768,
    "height": 32768,
    "bytes": 200_000_000,
    "class_name": "7",
    "truth": "7",
    "correct": True,
    "score": 0.97,
    "glimpses": 33,
    "tiles": 80,
    "fraction_read": 0.00123,
    "bytes_read": 1_500_000,
    "seconds": 1.25,
    "write_seconds": 20.0,
    "stop_reason": "confidence",
    "budget": "80",
    "lowres": "3",
    "random": None,
    "random_glimpses": 80,
    "note": "The scene is synthetic.",
}


@pytest.fixture
def shown(monkeypatch, tmp_path):
    """Replaces ``hiresattn.demo.run``; records how it was called."""
    monkeypatch.chdir(tmp_path)
    calls = SimpleNamespace()

    def run(output, *, seed, budget, progress):
        calls.output, calls.seed, calls.budget = output, seed, budget
        progress("writing", 0.5)
        return SimpleNamespace(to_json=lambda: FACTS)

    module = ModuleType("hiresattn.demo.run")
    module.run = run
    monkeypatch.setitem(sys.modules, "hiresattn.demo.run", module)
    return calls


def test_the_table_puts_the_answer_beside_the_controls_and_says_that_it_is_synthetic(run, shown):
    result = run("demo")
    assert result.exit_code == 0
    lines = [line.split() for line in result.stdout.splitlines()]
    assert ["predicted", "7", "right"] in lines
    assert ["from", "coarse", "view", "only", "3", "wrong"] in lines
    assert ["80", "random", "looks", "none"] in lines
    for part in (
        "1.1 Gpx",
        "33",
        "0.12 %",
        "1.5 MB of 200.0 MB",
        "1.25 s",
        "needle.tif",
        "needle.png",
        "synthetic",
    ):
        assert part in result.stdout


def test_json_is_one_line_with_the_fields_promised(run, shown, tmp_path):
    result = run("demo", "--json", "-o", tmp_path, "--seed", 3, "--budget", "40")
    facts = json.loads(result.stdout)
    assert result.stdout.count("\n") == 1
    promised = {"class_name", "truth", "glimpses", "fraction_read", "seconds", "lowres", "random"}
    assert promised <= set(facts)
    assert (shown.output, shown.seed, shown.budget) == (tmp_path, 3, "40")


def test_a_budget_that_cant_be_read_is_wrong_usage(run, shown):
    assert run("demo", "--budget", "some").exit_code == 2


@pytest.mark.parametrize("output", ["file", "file/below", "/proc/nope"])
def test_an_output_that_can_be_no_directory_is_one_line_that_says_what_to_do(run, shown, output):
    Path("file").touch()
    result = run("demo", "-o", output)
    assert (result.exit_code, result.stdout) == (1, "")
    assert result.stderr.startswith(f"Error: {output}: ")
    assert result.stderr.endswith("give another directory\n")
    assert "Errno" not in result.stderr
    assert result.stderr.count("\n") == 1


def test_the_reports_fields_are_those_that_the_table_needs():
    from dataclasses import fields

    from hiresattn.demo.run import DemoReport

    assert set(FACTS) <= {field.name for field in fields(DemoReport)}
