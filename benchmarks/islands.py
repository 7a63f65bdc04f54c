"""Where does a model look? Small islands in a real satellite scene, whose true places are known.

    python benchmarks/islands.py ../shared [--seeds 0,1,2] [--keep FOLDER] [--picture]

Trains on the west and tests on the east: the looking model with and without the islands' boxes, and beside it a
model of thumbnails and one that pools every place (overlapping regions of 128 px, gated attention), each with the same
encoder and about as long. `hit`: share of the test windows with islands in which a visited region of at most 128
px holds the centre of one, `hits`: the same by depth; `pointed`: the region with the largest weight does.
"""

import tempfile
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import click
import numpy as np
import torch

from hiresattn import classify, classify_all, load_model, open_pyramid
from hiresattn.checkpoint import Model
from hiresattn.datasets.example import Example
from hiresattn.datasets.manifest import read_manifest
from hiresattn.inference.budget import Budget
from hiresattn.inference.record import Record, VisitedRegion
from hiresattn.training.fit import fit
from hiresattn.training.options import TrainOptions
from scenes.islands import write_manifest
from store import store, store_picture

BUDGET = 16
FINEST = 128
LOOKING = TrainOptions(epochs=20, batch_size=16, augment="turns", oversample=4, device="cpu", threads=1)
#: Trained model → its options, whether it is told the boxes, the policies that it is tested with.
MODELS: dict[str, tuple[TrainOptions, bool, tuple[str, ...]]] = {
    "boxes": (LOOKING, True, ("best-first", "top-k", "random", "lowres")),
    "labels": (LOOKING, False, ("best-first", "top-k", "random", "lowres")),
    "thumbnail": (replace(LOOKING, k=(0,), epochs=120), False, ("lowres",)),
    "exhaustive": (
        replace(
            LOOKING, finest=FINEST, root_size=FINEST, overlap=0.25, batch_size=12, epochs=17, epoch_images=24
        ),
        False,
        ("exhaustive",),
    ),
}


def measure(model: Model, tests: list[Example], policy: str, seed: int) -> dict[str, Any]:
    """Accuracy and cost (with the stop rule), hits (spending the budget)."""
    options: dict[str, Any] = {
        "budget": BUDGET,
        "policy": policy,
        "device": "cpu",
        "threads": 1,
        "seed": seed,
    }
    if policy == "exhaustive":
        options |= {"budget": Budget(), "policy": "best-first", "stop": None}
    started = time.process_time()
    answers = list(classify_all(tests, model, **options))
    spent = time.process_time() - started
    places = [example for example in tests if example.boxes]
    looks = list(classify_all(places, model, **(options | {"stop": None})))
    depths = range(max(r.depth for found in looks for r in found.regions) + 1)
    return {
        "policy": policy,
        "accuracy": float(np.mean([p.class_name == e.label for p, e in zip(answers, tests, strict=True)])),
        "hit": _share(looks, places, lambda r: r.height <= FINEST),
        "hits": [_share(looks, places, lambda r, d=d: r.depth == d) for d in depths],
        "pointed": _share([_best(found) for found in looks], places, lambda _: True),
        "glimpses": float(np.mean([p.cost.glimpses for p in answers])),
        "fraction_read": float(np.mean([p.cost.fraction_read for p in answers])),
        "bytes_read": float(np.mean([p.cost.bytes_read for p in answers])),
        "cpu_ms": 1000 * spent / len(tests),
    }


def _best(found: Record) -> Record:
    """The same with the look of the largest weight only."""
    return replace(found, regions=(max(found.regions, key=lambda r: r.attention),))


def _share(looks: list[Record], places: list[Example], counts: Callable[[VisitedRegion], bool]) -> float:
    """Of windows with islands: in how many a visited region that counts holds an island's centre."""
    hits = []
    for found, example in zip(looks, places, strict=True):
        centres = [(y + h // 2, x + w // 2) for y, x, h, w in example.boxes or ()]
        regions = [r for r in found.regions if counts(r)]
        hits.append(
            any(r.y <= y < r.y + r.height and r.x <= x < r.x + r.width for r in regions for y, x in centres)
        )
    return float(np.mean(hits))


def draw(model: Model, example: Example) -> None:
    """A picture of where a model looks in one window, the islands marked."""
    found = classify(example, model, budget=BUDGET, stop=None, device="cpu", threads=1)
    with open_pyramid(example.source) as pyramid:
        print(store_picture("islands", pyramid, found, example.boxes or ()))


@click.command()
@click.argument("shared", type=click.Path(exists=True, path_type=Path))
@click.option("--seeds", default="0,1,2")
@click.option(
    "--keep", type=click.Path(path_type=Path), help="Keep the trained models there; use those there."
)
@click.option("--models", default=",".join(MODELS))
@click.option("--picture", is_flag=True, help="Draw one test window too, by the first model.")
def main(shared: Path, seeds: str, keep: Path | None, models: str, *, picture: bool) -> None:
    """Measure and store."""
    torch.set_num_threads(1)
    rows = []
    with tempfile.TemporaryDirectory() as folder:
        manifest = Path(folder) / "islands.csv"
        write_manifest(shared.resolve(), manifest)
        examples = read_manifest(manifest)
        tests = [example for example in examples if example.split == "test"]
        for name in models.split(","):
            options, boxes, policies = MODELS[name]
            training = examples if boxes else [replace(example, boxes=None) for example in examples]
            for seed in map(int, seeds.split(",")):
                output = (keep or Path(folder)) / f"{name}-{seed}"
                if not (output / "metrics.csv").exists():
                    *_, last = fit(training, output, replace(options, seed=seed))
                    print(last, flush=True)
                model = load_model(output)
                if picture and not rows:
                    draw(model, max(tests, key=lambda e: len(e.boxes or ()) == 2))
                for policy in policies:
                    row = measure(model, tests, policy, seed)
                    seconds = model.training["cpu_seconds"]
                    rows.append({"model": name, "seed": seed, "training_cpu_seconds": seconds, **row})
                    print(rows[-1], flush=True)
    count = sum(example.split == "train" for example in examples)
    print(store("islands", budget=BUDGET, rows=rows, train=count, test=len(tests)))


if __name__ == "__main__":
    main()
