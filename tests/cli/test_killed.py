"""A run into a results folder that is killed again and again ends as one that was not."""

import csv
import json
import random
import re
import signal
import subprocess
import sys
import time

import numpy as np
import pyarrow.parquet as pq
import pytest
from PIL import Image

import hiresattn

IMAGES, KILLS = 50, 10
MODEL = hiresattn.__path__[0] + "/demo/model"


@pytest.fixture(scope="module")
def slides(tmp_path_factory):
    folder = tmp_path_factory.mktemp("slides")
    rng = np.random.default_rng(0)
    for number in range(IMAGES):
        side = int(rng.integers(300, 700))
        Image.fromarray(rng.integers(60, 160, (side, side + 40), dtype=np.uint8)).save(
            folder / f"{number}.png"
        )
    (folder / "broken.png").write_bytes(b"\x89PNG\r\n\x1a\n")
    return folder


def started(slides, folder):
    words = [
        "-m",
        "hiresattn_cli.main",
        "-q",
        "classify",
        slides,
        "-m",
        MODEL,
        "-o",
        f"{folder}/",
        "--budget",
        24,
    ]
    return subprocess.Popen([sys.executable, *map(str, words)], stderr=subprocess.DEVNULL)  # noqa: S603


def records(folder):
    """By source, without what is time."""
    found = {}
    for line in (folder / "records.jsonl").read_text().splitlines():
        record = json.loads(line)
        record["cost"].pop("seconds")
        assert record["source"] not in found, "a case twice"
        found[record["source"]] = record
    return found


def alike(one, other):
    """Whether JSON types are the same, but for what images that are searched beside others change in the rounding."""
    if isinstance(one, dict):
        return one.keys() == other.keys() and all(alike(one[name], other[name]) for name in one)
    if isinstance(one, list):
        return len(one) == len(other) and all(map(alike, one, other))
    return one == (pytest.approx(other, rel=1e-4, abs=1.1e-3) if isinstance(one, float) else other)


def rows(path):
    """Of a table in text, numbers with a point as numbers."""
    with path.open() as file:
        return [
            [float(cell) if re.fullmatch(r"[0-9]+\.[0-9e-]+", cell) else cell for cell in row]
            for row in csv.reader(file)
        ]


@pytest.mark.slow
@pytest.mark.timeout(3000)
def test_killed_ten_times_and_resumed_is_as_never_killed(slides, tmp_path):
    whole, killed = tmp_path / "whole", tmp_path / "killed"
    assert started(slides, whole).wait() == 3  # one is broken
    chance = random.Random(0)  # noqa: S311 - moments
    lines = killed / "records.jsonl"
    for number in range(KILLS):
        process = started(slides, killed)
        before = lines.read_bytes().count(b"\n") if lines.exists() else 0
        wanted = before + chance.randrange(IMAGES // KILLS)
        while process.poll() is None and (not lines.exists() or lines.read_bytes().count(b"\n") <= wanted):
            time.sleep(0.002)
        time.sleep(chance.random() * (0.2 if number % 3 else 2))
        process.send_signal(signal.SIGKILL)
        process.wait()
    assert started(slides, killed).wait() == 3
    expected = records(whole)
    found = records(killed)
    assert len(expected) == IMAGES + 1
    assert alike(found, expected)
    for name in ("predictions.csv", "errors.csv"):
        assert alike(rows(killed / name), rows(whole / name)), name
    assert alike(*[pq.read_table(folder / "glimpses.parquet").to_pylist() for folder in (whole, killed)])
    objects = [
        {path.name: json.loads(path.read_text()) for path in (folder / "qupath").iterdir()}
        for folder in (whole, killed)
    ]
    assert len(objects[0]) == IMAGES
    assert alike(*objects)
    assert not [path.name for path in killed.iterdir() if path.name.endswith(".part")]


@pytest.mark.slow
def test_a_second_run_is_byte_for_byte_as_the_first(run, slides, tmp_path):
    some = [slides / f"{number}.png" for number in range(2)]
    for name in "ab":
        words = [
            "classify",
            *some,
            "-m",
            MODEL,
            "-o",
            f"{tmp_path / name}/",
            "--budget",
            12,
            "--device",
            "cpu",
            "--no-overlays",  # the time is in them
        ]
        assert run(*words).exit_code == 0
        assert run("export", tmp_path / name, "-o", tmp_path / name / "looks.geojson").exit_code == 0
    first = {path.relative_to(tmp_path / "a"): path for path in (tmp_path / "a").rglob("*") if path.is_file()}
    assert len(first) == 5 + 2 + 2  # tables and records, objects for QuPath, layers
    for name, path in first.items():
        one, other = path.read_bytes(), (tmp_path / "b" / name).read_bytes()
        if name.name == "records.jsonl":
            assert records(tmp_path / "a") == records(tmp_path / "b")
        elif name.name != "run.json":
            assert timeless(one) == timeless(other), name


def timeless(content):
    """A file without the time that something took."""
    return re.sub(rb'"seconds": [0-9.e-]+', b"", content)
