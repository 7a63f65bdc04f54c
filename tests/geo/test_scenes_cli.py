"""Scenes of several files, and parts of them, on the command line."""

import json

import pytest
from click.testing import CliRunner

from hiresattn_cli.main import cli
from tests.pyramid.test_stac import item, put
from tests.pyramid.test_stacked import MODEL, write

HOW = ("-m", MODEL, "--policy", "lowres", "--json")


def run(*words):
    done = CliRunner().invoke(cli, ["classify", *map(str, words)])
    return (
        done.exit_code,
        [json.loads(line) for line in done.stdout.splitlines() if line.startswith("{")],
        done.output,
    )


@pytest.fixture
def folder(tmp_path):
    for number, name in enumerate(("red", "green")):
        write(tmp_path / f"{name}.tif", number=number, nodata=5)
    put(tmp_path, item())
    return tmp_path


def test_files_items_and_the_file_alone_have_one_answer(folder):
    _, (alone,), _ = run(folder / "green.tif", *HOW)
    stack = f"R={folder}/red.tif,G={folder}/green.tif"
    for words in (
        ("--stack", stack, "--bands", "G"),
        ("--stack", stack, "--bands", 2),
        (folder / "item.json", "--assets", "green"),
        (folder / "item.json", "--bands", "green"),
        (folder / "item.json", "--assets", "red,green", "--bands", 2),
    ):
        code, (record,), output = run(*words, *HOW)
        assert code == 0, output
        assert record["scores"] == pytest.approx(alone["scores"], abs=1e-6)


def test_bounds_are_the_scenes_own_coordinates(folder):
    bounds = "500100,4999700,500405,4999850"  # px of 10 m, from 500000, 5000000
    for words in ((folder / "red.tif",), (folder / "item.json", "--bands", "red")):
        code, (record,), output = run(*words, "--bounds", bounds, *HOW)
        assert code == 0, output
        assert record["region"] == [15, 10, 15, 31]
    code, (record,), _ = run(folder / "red.tif", "--bounds", "0,0,1,1", *HOW)
    assert (code, record["status"]) == (1, "error")
    assert "lies outside" in record["error"]


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (("--assets", "red"), "--assets is for STAC items"),
        (("--bounds", "5,1,2,3"), "left lies below right"),
        (("--bounds", "1,2,3,4", "--bbox", "1,2,3,4"), "give one of --region"),
        (("--bands", "1,,2"), "bands are counted from 1, or named"),
    ],
)
def test_options_that_make_no_sense_are_wrong_usage(folder, words, says):
    code, _, output = run(folder / "red.tif", *words, *HOW)
    assert code == 2
    assert says in output


def test_without_sources_there_is_nothing_to_do():
    code, _, output = run(*HOW)
    assert (code, "Missing argument 'SRC...'" in output) == (2, True)
