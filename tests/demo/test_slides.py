"""The demo on slides: what is drawn is what the spreadsheet says, and the way ends in a report."""

import csv
import json

import numpy as np
import pytest

from hiresattn import open_pyramid
from hiresattn.datasets.manifest import read_manifest
from hiresattn.demo import slides
from hiresattn.demo.slides import BOX, SlidesReport, draw_slide, write_cohort
from hiresattn.errors import ConfigError
from hiresattn.report.page import embedded


def test_slides_have_a_scale_levels_and_what_the_spreadsheet_says(tmp_path):
    table, boxes = write_cohort(tmp_path, patients=2)
    rows = list(csv.DictReader(table.read_text().splitlines()))
    assert [row["diagnosis"] for row in rows] == ["normal", "tumour"]
    assert [len(boxes[f"P00{number}.tif"]) for number in (0, 1)] == [0, 1]
    with open_pyramid(tmp_path / "slides" / "P001.tif") as slide:
        assert slide.mpp == pytest.approx(0.5)
        assert [level.width for level in slide.levels] == [1024, 512, 256, 128]


def test_the_classes_differ_from_near_only():
    means, darkest = [], []
    for tumour in (False, True):
        image, (y, x, height, width) = draw_slide(np.random.default_rng(1), tumour=tumour)
        patch = image[y : y + height, x : x + width].astype(float)
        assert patch.shape == (BOX, BOX, 3)
        means.append(patch.mean())
        blocks = patch.reshape(BOX // 8, 8, BOX // 8, 8, 3).mean((1, 3, 4))
        darkest.append(np.sort(blocks.ravel())[:6].mean())
    assert abs(means[0] - means[1]) < 12
    assert darkest[0] - darkest[1] > 10


@pytest.mark.slow
def test_the_whole_way(tmp_path):
    said = []
    found = slides.run(tmp_path / "demo", patients=16, progress=lambda step, _: said.append(step), epochs=1)
    assert list(dict.fromkeys(said)) == [
        "drawing slides", "making the manifest", "training", "classifying", "reporting",
    ]  # fmt: skip
    assert found.tested == 4
    assert len(embedded((tmp_path / "demo" / "report.html").read_text(), "list")) == 4
    assert len((tmp_path / "demo" / "results" / "records.jsonl").read_text().splitlines()) == 4
    outlined = {
        len(one.boxes) for one in read_manifest(tmp_path / "demo" / "outlined.csv") if one.label == "tumour"
    }
    assert outlined == {1}
    with pytest.raises(ConfigError, match="holds something already"):
        slides.run(tmp_path / "demo")


def test_the_command_says_the_commands(run_cli, tmp_path, monkeypatch):
    steps = ("drawing slides", "making the manifest", "training", "classifying", "reporting")
    names = ("slides", "table", "manifest", "outlined", "model", "results", "report")
    made = SlidesReport(
        folder="x", slides=4, patients=4, right=1, tested=1, seconds=dict.fromkeys(steps, 1.0),
        files={name: f"x/{name}" for name in names},
    )  # fmt: skip
    monkeypatch.setattr(slides, "run", lambda *_, **__: made)
    result = run_cli("demo", "--slide", "-o", tmp_path / "d")
    assert result.exit_code == 0
    assert "hiresattn report x/results -o x/report" in result.output
    assert "1 of 1 right" in result.output
    assert json.loads(run_cli("demo", "--slide", "--json", "-o", tmp_path / "d").output)["right"] == 1
    assert run_cli("demo", "--slide", "--budget", "4", "-o", tmp_path / "d").exit_code == 2


@pytest.fixture
def run_cli():
    from click.testing import CliRunner

    from hiresattn_cli.main import cli

    return lambda *words: CliRunner().invoke(cli, [str(word) for word in words])
