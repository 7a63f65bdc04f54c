"""Whether to believe an answer: prediction sets, review and distance to the training, on small scenes of blood cells.

    python benchmarks/confidence.py ../shared WORK [--seeds 0,1,2]

A scene has 2 x 2 cells, three of them neutrophils; the class of the fourth is the label (``scenes/smear.py``). A
model is trained on scenes of the training images, calibrated at risk .1 on 1,000 scenes of the validation images, and
measured on others: of the same images (which is what the sets promise), of the test images, and of these compressed as
JPEG, or with red and blue swapped, which a distance to the training images should tell.
WORK keeps the models and one JSON file of measurements per seed, so that an interrupted run goes on.
"""

import io
import json
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import click
import numpy as np
from PIL import Image

from hiresattn import evaluate
from hiresattn.card import CARD
from hiresattn.datasets.example import Example
from hiresattn.pyramid.array import ArrayPyramid
from hiresattn.training.fit import fit
from hiresattn.training.options import TrainOptions
from scenes import smear
from scenes.cells import CELL, ZIP
from store import commit, store

GRID, RISK, BUDGET = 2, 0.1, 6
OPTIONS = TrainOptions(
    crop_size=32,
    root_size=GRID * CELL,
    finest=CELL,
    grid=3,
    fraction=0.5,
    k=(3,),
    position=False,
    augment="turns",
    batch_size=16,
    lr=3e-3,
    epochs=5,
    epoch_images=800,
    device="cpu",
    threads=0,
)
#: Scenes to train on, to choose the epoch by, and to calibrate with; their first seeds lie apart.
TRAINED, CHOSEN, CALIBRATED = 6000, 300, 1000
#: Scenes to test on: of the images that calibrated, and of the test images; of the latter so many are changed.
SAME, OTHER, CHANGED = 1500, 600, 300


def scenes(zip_path: Path, split: str, count: int, first: int) -> list[Example]:
    """Scenes, each a case of its own; nothing is told but the label."""
    found = smear.examples(zip_path, split, count, grid=GRID, seed0=first)
    return [replace(one, boxes=None, group=f"{split}-{first + n}") for n, one in enumerate(found)]


def changed(example: Example, change: Callable[[np.ndarray], np.ndarray], name: str) -> Example:
    """The same scene with other px."""
    pyramid = example.source
    pixels = change(pyramid.read(0, 0, 0, pyramid.height, pyramid.width))
    return replace(example, source=ArrayPyramid(pixels, source=f"{pyramid.source}, {name}"))


def compressed(pixels: np.ndarray, quality: int) -> np.ndarray:
    """An image after JPEG."""
    file = io.BytesIO()
    Image.fromarray(pixels).save(file, "JPEG", quality=quality)
    return np.asarray(Image.open(file))


CHANGES: dict[str, Callable[[np.ndarray], np.ndarray]] = {
    "JPEG 50": lambda pixels: compressed(pixels, 50),
    "JPEG 10": lambda pixels: compressed(pixels, 10),
    "red and blue swapped": lambda pixels: pixels[:, :, ::-1].copy(),
}


def trained(zip_path: Path, seed: int, output: Path) -> None:
    """Train a model, or go on; the boxes of the training scenes are told."""
    first = 1_000_000 * (seed + 1)
    train = smear.examples(zip_path, "train", TRAINED, grid=GRID, seed0=first)
    val = scenes(zip_path, "val", CHOSEN, 900_000)
    for record in fit(train + val, output, replace(OPTIONS, seed=seed), resume=output.is_dir()):
        print(
            f"{output.name} {record.epoch}/{record.epochs} loss {record.loss:.3f} accuracy {record.accuracy or 0:.3f} "
            f"val {record.val_accuracy:.3f} cpu {record.cpu_seconds:.0f} s",
            flush=True,
        )


def measured(model: Path, examples: Sequence[Example]) -> dict[str, Any]:
    """What an evaluation says of some scenes."""
    found = evaluate(str(model), examples, split="all", budget=BUDGET, bootstrap=0, device="cpu", threads=1)
    measures = (
        "coverage",
        "set_size",
        "review",
        "accuracy_unreviewed",
        "out_of_domain",
        "sufficient",
        "sufficiency",
    )
    facts = {name: getattr(found.belief, name).value for name in (*measures, "comprehensiveness")}
    metrics = {name: found.metrics[name].value for name in ("accuracy", "ece", "aurc")}
    return {"cases": found.classified, "glimpses": found.main.glimpses, **metrics, **facts}


@click.command()
@click.argument("shared", type=click.Path(path_type=Path))
@click.argument("work", type=click.Path(path_type=Path))
@click.option("--seeds", default="0,1,2")
def main(shared: Path, work: Path, seeds: str) -> None:
    """Train and measure what is missing in WORK, and store it."""
    work.mkdir(parents=True, exist_ok=True)
    zip_path = shared / ZIP
    for seed in map(int, seeds.split(",")):
        model, kept = work / f"seed-{seed}", work / f"seed-{seed}.json"
        if kept.exists():
            continue
        if not (model / CARD).is_file() or json.loads((model / CARD).read_text())["reference"] is None:
            trained(zip_path, seed, model)
        first = 2_000_000 + 100_000 * seed
        calibration = evaluate(
            str(model), scenes(zip_path, "val", CALIBRATED, first), split="all", budget=BUDGET, calibrate=True,
            risk=RISK, bootstrap=0, device="cpu", threads=1,
        )  # fmt: skip
        print(calibration.calibration or calibration.calibration_error, flush=True)
        facts = {"seed": seed, "commit": commit(), "calibration": calibration.calibration}
        tests = scenes(zip_path, "test", OTHER, first)
        rows = []
        for name, made in {
            "same images": scenes(zip_path, "val", SAME, first + 50_000),
            "test images": tests,
            **{
                name: [changed(one, change, name) for one in tests[:CHANGED]]
                for name, change in CHANGES.items()
            },
        }.items():
            rows.append(facts | {"scenes": name} | measured(model, made))
            print(rows[-1], flush=True)
        kept.write_text(json.dumps(rows, indent=1) + "\n", encoding="utf-8")
    rows = [row for file in sorted(work.glob("seed-*.json")) for row in json.loads(file.read_text())]
    print(store("confidence", risk=RISK, budget=BUDGET, calibrated=CALIBRATED, rows=rows))


if __name__ == "__main__":
    main()
