"""Does a model see the same in files of other resolutions? The same scenes stored at 1x, 2x and 3.7x.

    python benchmarks/scale.py [--seeds 0,1,2] [--keep FOLDER]

Trained on scenes of 1 µm/px, tested on the same scenes stored at three resolutions: by a model that knows its scale,
and by the same weights without it, which read px as they are. ``same``: share of the test scenes with the answer that
their 1x file gets. ``gap``: largest distance, µm, between edges of the same regions (roots, and all finest ones) in a
file and in the 1x one.
"""

import tempfile
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import click
import numpy as np
import torch

from hiresattn import classify_all, load_model
from hiresattn.checkpoint import Model
from hiresattn.datasets.example import Example
from hiresattn.inference.record import Record
from hiresattn.training.fit import fit
from hiresattn.training.options import TrainOptions
from scenes.resolutions import Scene
from store import store

AT = 1.0
#: How many times finer the test scenes are stored.
TIMES = (1.0, 2.0, 3.7)
TRAIN, VAL, TEST = 120, 30, 150
BUDGET = 12
#: Test scenes in which all regions are compared.
MEASURED = 4
OPTIONS = TrainOptions(
    epochs=14, batch_size=8, augment="turns", device="cpu", threads=1, crop_size=32, k=(3, 2)
)


def regions(records: list[Record], mpp: float, depth: int | None = None) -> list[np.ndarray]:
    """Edges of the regions of records, µm, in the order of the places."""
    found = []
    for record in records:
        rows = [r for r in record.regions if depth is None or r.depth == depth]
        sides = np.array(sorted((r.y, r.x, r.height, r.width) for r in rows)) * mpp
        found.append(np.concatenate([sides[:, :2], sides[:, :2] + sides[:, 2:]], axis=1))
    return found


def gap(model: Model, wanted: list[Example], found: list[Example], times: float) -> float:
    """Largest distance between edges of the same regions in two files of a scene, µm: all finest, and the roots."""
    largest = 0.0
    for policy in ("lowres", "exhaustive"):
        how: dict[str, Any] = {"policy": policy, "device": "cpu", "threads": 1}
        one, other = (list(classify_all(part, model, **how)) for part in (wanted, found))
        pairs = zip(regions(one, AT), regions(other, AT / times), strict=True)
        for theirs, ours in pairs:
            if theirs.shape != ours.shape:
                return float("inf")
            largest = max(largest, float(np.abs(theirs - ours).max()))
    return largest


def tested(model: Model, examples: list[Example]) -> tuple[list[Record], float]:
    """Records of a search, and CPU milliseconds per image."""
    started = time.process_time()
    records = list(classify_all(examples, model, budget=BUDGET, device="cpu", threads=1))
    return records, 1000 * (time.process_time() - started) / len(examples)


def measured(records: list[Record], first: list[Record], examples: list[Example]) -> dict[str, Any]:
    """Accuracy, agreement with the records of the 1x files, and cost."""
    right = [found.class_name == example.label for found, example in zip(records, examples, strict=True)]
    same = [found.class_name == other.class_name for found, other in zip(records, first, strict=True)]
    return {
        "accuracy": float(np.mean(right)),
        "same": float(np.mean(same)),
        "glimpses": float(np.mean([found.cost.glimpses for found in records])),
        "depths": 1 + max(r.depth for found in records for r in found.regions),
        "bytes_read": float(np.mean([found.cost.bytes_read for found in records])),
    }


@click.command()
@click.option("--seeds", default="0,1,2")
@click.option(
    "--keep", type=click.Path(path_type=Path), help="Keep the trained models there; use those there."
)
def main(seeds: str, keep: Path | None) -> None:
    """Measure and store."""
    torch.set_num_threads(1)
    rows = []
    with tempfile.TemporaryDirectory() as folder:
        scenes = [Scene(number, 0) for number in range(TRAIN + VAL + TEST)]
        training = [
            one.example(AT, "train" if n < TRAIN else "val") for n, one in enumerate(scenes[: TRAIN + VAL])
        ]
        tests = {times: [one.example(AT / times, "test") for one in scenes[TRAIN + VAL :]] for times in TIMES}
        for seed in map(int, seeds.split(",")):
            output = (keep or Path(folder)) / f"scale-{seed}"
            if not (output / "metrics.csv").exists():
                *_, last = fit(training, output, replace(OPTIONS, seed=seed))
                print(last, flush=True)
            model = load_model(output)
            assert model.config.input.mpp == AT, "training didn't find the scale"
            bare = replace(model, config=replace(model.config, input=replace(model.config.input, mpp=None)))
            first: list[Record] = []  # of files at the training's scale, which both read alike
            for name, one in (("scale", model), ("px", bare)):
                for times, part in tests.items():
                    if name == "px" and times == 1:
                        continue
                    records, spent = tested(one, part)
                    first = first or records
                    row = {"model": name, "seed": seed, "times": times, **measured(records, first, part)}
                    row["cpu_ms"] = spent
                    if name == "scale" and seed == 0:
                        row["gap"] = gap(one, tests[1.0][:MEASURED], part[:MEASURED], times)
                    rows.append(row)
                    print(row, flush=True)
    print(store("scale", at=AT, budget=BUDGET, measured=MEASURED, rows=rows, train=TRAIN, test=TEST))


if __name__ == "__main__":
    main()
