"""Where does a model look? Small islands in a real satellite scene, whose true places are known.

    python benchmarks/islands.py ../shared [--seeds 0,1,2]

Trains on the west (with and without the islands' boxes), tests on the east. `hit`: share of the test windows
with islands in which a visited region at native resolution (64 px) holds the centre of one.
"""

import tempfile
from dataclasses import replace
from pathlib import Path

import click
import islands_manifest
import numpy as np
import torch
from store import store

from hiresattn import classify, load_model
from hiresattn.checkpoint import Model
from hiresattn.manifest import Example, read_manifest
from hiresattn.train.loop import fit
from hiresattn.train.options import TrainOptions

BUDGET = 16
OPTIONS = TrainOptions(epochs=20, batch_size=16, augment="turns", oversample=4, device="cpu", threads=1)


def measure(model: Model, tests: list[Example], policy: str, seed: int) -> dict[str, float | str]:
    """Accuracy (with the stop rule) and hits (spending the budget)."""
    answers = list(classify(tests, model, budget=BUDGET, policy=policy, device="cpu", threads=1, seed=seed))
    places = [example for example in tests if example.boxes]
    looks = classify(
        places, model, budget=BUDGET, policy=policy, device="cpu", threads=1, stop=None, seed=seed
    )
    hits = []
    for found, example in zip(looks, places, strict=True):
        centres = [(y + h // 2, x + w // 2) for y, x, h, w in example.boxes or ()]
        finest = [r for r in found.regions if r.height <= 128]
        hits.append(
            any(r.y <= y < r.y + r.height and r.x <= x < r.x + r.width for r in finest for y, x in centres)
        )
    return {
        "policy": policy,
        "accuracy": float(np.mean([p.class_name == e.label for p, e in zip(answers, tests, strict=True)])),
        "hit": float(np.mean(hits)),
        "glimpses": float(np.mean([p.cost.glimpses for p in answers])),
    }


@click.command()
@click.argument("shared", type=click.Path(exists=True, path_type=Path))
@click.option("--seeds", default="0,1,2")
def main(shared: Path, seeds: str) -> None:
    """Measure and store."""
    torch.set_num_threads(1)
    rows = []
    with tempfile.TemporaryDirectory() as folder:
        manifest = Path(folder) / "islands.csv"
        islands_manifest.main(shared.resolve(), manifest)
        examples = read_manifest(manifest)
        tests = [example for example in examples if example.split == "test"]
        for boxes in (True, False):
            training = examples if boxes else [replace(example, boxes=None) for example in examples]
            for seed in map(int, seeds.split(",")):
                output = Path(folder) / f"{boxes}-{seed}"
                *_, last = fit(training, output, replace(OPTIONS, seed=seed))
                for policy in ("best-first", "random", "lowres"):
                    row = measure(load_model(output), tests, policy, seed)
                    rows.append({"boxes": boxes, "seed": seed, "cpu_seconds": last.cpu_seconds, **row})
                    print(rows[-1], flush=True)
    print(store("islands", budget=BUDGET, rows=rows, train=316, test=len(tests)))


if __name__ == "__main__":
    main()
