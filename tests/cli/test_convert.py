"""`convert`: words in, a checked file out, and one line for what goes wrong."""

import json
import subprocess
import sys

import numpy as np
import pytest

from hiresattn import open_pyramid

FIELDS = [
    "source",
    "target",
    "format",
    "compression",
    "width",
    "height",
    "channels",
    "dtype",
    "levels",
    "bytes",
]
FIELDS += ["windows_checked", "largest_error", "seconds", "notes"]


def test_json_has_exactly_the_fields_of_the_schema_and_info_opens_the_result(run, image, tmp_path):
    for name, kind in (("a.ome.zarr", "zarr"), ("a.tiff", "cog")):
        facts = json.loads(run("convert", image, tmp_path / name, "--json", "--levels", "2").stdout)
        assert list(facts) == FIELDS
        assert (facts["format"], facts["width"], facts["height"], facts["levels"]) == (kind, 128, 96, 2)
        told = json.loads(run("info", tmp_path / name, "--json").stdout)
        assert [(level["width"], level["height"]) for level in told["levels"]] == [(128, 96), (64, 48)]


def test_the_table_says_what_was_made_and_compared(run, image, tmp_path):
    result = run("convert", image, tmp_path / "a.zarr", "--mpp", "0.25")
    assert "128 x 96 px, 3 bands uint8, 1 level" in result.stdout
    assert "windows read back" in result.stdout
    with open_pyramid(tmp_path / "a.zarr") as after:
        assert after.mpp == 0.25


def test_options_reach_the_file(run, image, tmp_path):
    words = [
        "--region",
        "10,20,50,60",
        "--chunk",
        "16",
        "--nodata",
        "0",
        "--format",
        "cog",
        "--compression",
        "zstd",
    ]
    assert run("convert", image, tmp_path / "a.anything", *words).exit_code == 0
    with open_pyramid(tmp_path / "a.anything") as after, open_pyramid(image) as before:
        assert (after.levels[0].tile_width, after.nodata) == (16, 0)
        np.testing.assert_array_equal(after.read(0, 0, 0, 50, 60), before.read(0, 10, 20, 50, 60))


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["absent.png", "a.zarr"], "there is no such file"),
        (["{image}", "{image}", "--format", "cog"], "same file"),
        (["{image}", "{there}"], "is there already; --overwrite replaces it"),
        (["{image}", "s3://bucket/a.zarr"], "written here"),
        (["{image}", "a.png"], "names no format"),
        (["{image}", "absent/a.zarr"], "make it first"),
        (["{image}", "a.zarr", "--compression", "jpeg"], "possible for zarr are zstd, blosc, none"),
        (["{image}", "a.zarr", "--chunk", "100"], "powers of two"),
    ],
)
def test_what_cannot_be_done_is_one_line_and_exit_1(run, image, tmp_path, monkeypatch, words, message):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "there.tif").write_text("kept")
    result = run("convert", *(word.format(image=image, there=tmp_path / "there.tif") for word in words))
    assert (result.exit_code, result.stdout) == (1, "")
    assert result.stderr.startswith("Error: ")
    assert result.stderr.count("\n") == 1
    assert message in result.stderr
    assert (tmp_path / "there.tif").read_text() == "kept"
    assert sorted(path.name for path in tmp_path.iterdir()) == ["image.png", "there.tif"]


@pytest.mark.parametrize(
    "words", [["a.png"], ["a.png", "b.zarr", "--levels", "few"], ["a.png", "b.tif", "--quality", "0"]]
)
def test_wrong_words_are_exit_2(run, words):
    assert run("convert", *words).exit_code == 2


def test_overwrite_replaces(run, image, tmp_path):
    assert run("convert", image, tmp_path / "a.tif").exit_code == 0
    assert run("convert", image, tmp_path / "a.tif", "--overwrite", "--region", "0,0,20,30").exit_code == 0
    with open_pyramid(tmp_path / "a.tif") as after:
        assert (after.height, after.width) == (20, 30)


#: Runs the command line and interrupts itself once a block is written.
INTERRUPTED = """
import os, signal
from hiresattn.conversion.omezarr import OmeZarrWriter
from hiresattn_cli.main import main

signal.signal(signal.SIGINT, signal.default_int_handler)  # ignored, where the tests run in the background
write = OmeZarrWriter.write

def write_and_interrupt(self, block):
    write(self, block)
    os.kill(os.getpid(), signal.SIGINT)

OmeZarrWriter.write = write_and_interrupt
main()
"""


def test_an_interrupt_leaves_nothing_and_is_exit_130(image, tmp_path):
    out = tmp_path / "out"
    out.mkdir()
    words = [sys.executable, "-c", INTERRUPTED, "convert", image, out / "a.zarr"]
    done = subprocess.run(words, capture_output=True, text=True, check=False)  # noqa: S603
    assert done.returncode == 130
    assert "Nothing was written" in done.stderr
    assert list(out.iterdir()) == []
