"""`classify --store`: rows of a Parquet data set beside the records."""

import json
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from PIL import Image

import hiresattn

MODEL = Path(hiresattn.__file__).parent / "demo" / "model"
HOW = ("-m", MODEL, "--budget", "2", "--batch-images", "1", "--threads", "1")


def test_classify_adds_what_its_file_holds_also_after_an_end_between_the_two(run, tmp_path):
    for number in range(4):
        pixels = np.random.default_rng(number).integers(0, 255, (80, 96), np.uint8)
        Image.fromarray(pixels).save(tmp_path / f"{number}.png")
    images = [tmp_path / f"{n}.png" for n in range(4)]
    out, folder = tmp_path / "out.jsonl", tmp_path / "store"
    assert (
        run("classify", *images[:3], *HOW, "-o", out).exit_code == 0
    )  # as if it ended before its rows were written
    for _ in range(2):
        assert run("classify", *images, *HOW, "-o", out, "--resume", "--store", folder).exit_code == 0
    found = pd.read_parquet(folder)
    lines = [json.loads(line) for line in out.read_text().splitlines()]
    assert sorted(found["key"]) == sorted(line["key"] for line in lines)
    assert dict(zip(found["key"], found["score"], strict=True)) == pytest.approx(
        {line["key"]: line["score"] for line in lines}, abs=1e-5
    )
    said = run("status", folder)
    assert "4 of 4 done" in said.stdout.splitlines()[0]
    assert run("classify", *images, *HOW, "--store", folder).exit_code == 2
