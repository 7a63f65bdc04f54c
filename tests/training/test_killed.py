"""A run that is interrupted or killed in mid-epoch loses that epoch at most, and goes on bit by bit."""

import csv
import os
import re
import signal
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import load_file

from hiresattn.checkpoint import load_model
from hiresattn.datasets.example import Example
from hiresattn.training.data import Loader
from hiresattn.training.fit import fit
from hiresattn.training.options import TrainOptions

ROOT = Path(__file__).parents[2]
COMMAND = (
    f"train --config {ROOT / 'tests' / 'small.toml'} --epochs 24 --device cpu --threads 1 --k 2 "
    "--batch-size 4 --value-range 0,255"
)
QUICK = TrainOptions(
    epochs=4,
    batch_size=4,
    threads=0,
    device="cpu",
    crop_size=16,
    k=(2,),
    grid=3,
    fraction=0.5,
    value_range=(0, 255),
)


def _images(count=12, side=32):
    rng = np.random.default_rng(side)
    return [
        Example(
            rng.integers(60, 160, (side, side, 1)).astype(np.uint8), "ab"[i % 2], "train" if i < 9 else "val"
        )
        for i in range(count)
    ]


def _same(one, other):
    """Weights, what the optimiser remembers, and the model kept, bit by bit."""
    for name in ("state.safetensors", "model.safetensors"):
        a, b = (load_file(folder / name) for folder in (one, other))
        assert a.keys() == b.keys()
        assert all(torch.equal(a[key], b[key]) for key in a)


@pytest.mark.parametrize(
    "more",
    [
        pytest.param({}, marks=pytest.mark.slow),
        {
            "accumulate": 2,
            "schedule": "cosine",
            "augment": "turns",
            "jitter": 0.1,
            "class_weights": "balanced",
        },
        pytest.param(
            {
                "estimator": "reinforce",
                "optimizer": "adam",
                "schedule": "step",
                "weight_decay": 1e-3,
                "select": "best",
            },
            marks=pytest.mark.slow,
        ),
        {"estimator": "reinforce-loo", "accumulate": 3, "warm_up": 0.5, "normalize_scores": True},
        {"coarse_encoder": True, "epoch_images": 7},
    ],
    ids=["default", "accumulated", "published", "leave-one-out", "coarse_encoder"],
)
def test_an_interrupted_epoch_is_done_again_bit_by_bit(tmp_path, monkeypatch, more):
    images, options = _images(side=32) + _images(side=64), replace(QUICK, **more)
    records = list(fit(images, tmp_path / "whole", options))
    process, calls = Loader.process, 0

    def interrupted(self, *words, **named):
        nonlocal calls
        calls += 1
        if (tmp_path / "parts" / "metrics.csv").exists() and calls > 5:
            raise KeyboardInterrupt
        return process(self, *words, **named)

    with monkeypatch.context() as patch:
        patch.setattr(Loader, "process", interrupted)
        done = []
        with pytest.raises(KeyboardInterrupt):
            done += fit(images, tmp_path / "parts", options)
    with (tmp_path / "parts" / "metrics.csv").open() as stream:
        kept = len(list(csv.DictReader(stream)))
    assert 1 <= kept < options.epochs
    rest = list(fit(images, tmp_path / "parts", options, resume=True))
    assert [r.epoch for r in rest] == list(range(kept + 1, options.epochs + 1))
    assert [r.loss for r in rest] == [r.loss for r in records[kept:]]
    _same(tmp_path / "whole", tmp_path / "parts")


@pytest.fixture
def manifest(tmp_path):
    rows = ["path,label,split"]
    for number, example in enumerate(_images(16, 48)):
        Image.fromarray(example.source[..., 0]).save(tmp_path / f"{number}.png")
        rows.append(f"{number}.png,{example.label},{example.split}")
    path = tmp_path / "m.csv"
    path.write_text("\n".join(rows) + "\n")
    return path


#: The command, struck by a signal in the first epoch after the second.
STRUCK = """
import os, signal, sys
from pathlib import Path
from hiresattn.training.data import Loader
from hiresattn_cli.main import main

signal.signal(signal.SIGINT, signal.default_int_handler)  # ignored, where the tests run in the background
metrics, blow = Path(sys.argv.pop(1)), int(sys.argv.pop(1))
attempt = Loader.process
def struck(self, *words, **named):
    if metrics.exists() and len(metrics.read_text().splitlines()) >= 3:
        os.kill(os.getpid(), blow)
    return process(self, *words, **named)
Loader.process = struck
main()
"""


@pytest.mark.slow
@pytest.mark.parametrize(("blow", "status"), [(signal.SIGKILL, -signal.SIGKILL), (signal.SIGINT, 130)])
def test_a_killed_run_leaves_whole_files_and_is_resumed_to_the_same_end(manifest, tmp_path, blow, status):
    command = [*COMMAND.split(), str(manifest), "-o"]
    calm = {"cwd": ROOT, "env": {**os.environ, "OMP_NUM_THREADS": "1"}, "capture_output": True, "text": True}

    def run(*words, **more):
        return subprocess.run([sys.executable, *map(str, words)], **calm, **more)  # noqa: S603, PLW1510 - our own

    run("-m", "hiresattn_cli.main", *command, tmp_path / "whole", check=True)
    metrics = tmp_path / "parts" / "metrics.csv"
    done = run("-c", STRUCK, metrics, int(blow), *command, tmp_path / "parts")
    assert done.returncode == status, done.stderr
    assert "Traceback" not in done.stderr
    load_model(tmp_path / "parts")
    assert len(metrics.read_text().splitlines()) == 1 + 2
    resumed = run("-m", "hiresattn_cli.main", *command, tmp_path / "parts", "--resume", check=True).stderr
    assert re.search(r"epoch (\d+)/24", resumed)[1] == "3"
    _same(tmp_path / "whole", tmp_path / "parts")
