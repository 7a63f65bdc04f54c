"""The odd cell in a giant smear: train, search, compare. See ``scenes/smear.py`` for the scenes.

    python benchmarks/oddcell.py ../shared WORK [--recipe boxes --recipe distilled] [--seeds 0,1,2]

Recipes differ in what training is told; scenes, encoder and time are alike. WORK keeps the models and one JSON file
of measurements per recipe and seed, so that an interrupted run goes on. At the end they replace those stored of the
same recipes and seeds, with the looks at real files (TIFF, OME-Zarr, COG) of the first model that was told where.

* boxes: where the odd cells of a scene are, and of some scenes with cells of many classes which is which.
* boxes-jpeg: the same, half of the images of the last part compressed as JPEG, for files that are.
* distilled: image labels only. A classifier of single cells looks at every place of the training scenes once, and the
  place that explains the label best becomes its box (``hiresattn.inference.locate``).
* unlabelled: only that scenes have odd cells. The same classifier says which places show one, and what. As with all
  recipes, labelled validation scenes choose the epoch.
* single-cells: that classifier itself, at every place of every scene.
* responsibilities: image labels only. Evidence is pooled over the glimpses; each choice gets the responsibility of
  its glimpse (expectation-maximisation).
* leave-one-out: as before, but choices are rewarded against their siblings (``reinforce-loo``).
* glimpses: image labels only, the needle's recipe: the label on every glimpse, vectors pooled.
* everywhere: exhaustive gated-attention pooling over all finest windows, the encoder pretrained on single cells.
* thumbnail-64, -128, -256: the whole scene, once. thumbnail-1024: the same on scenes of 64 x 64 cells.
"""

import json
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import click
import numpy as np
import torch

from hiresattn import classify, classify_all, load_model
from hiresattn.datasets.example import Example
from hiresattn.inference.locate import located
from hiresattn.inference.record import Record
from hiresattn.training.fit import fit
from hiresattn.training.options import TrainOptions
from scenes import smear
from scenes.cells import CELL, ZIP
from scenes.writers import WRITERS
from store import commit, load, store

WINDOW = 2 * CELL
GLANCE = 16 * CELL
#: A first look at 8 px a cell; then windows of 2 x 2 cells at 64 px a cell.
LOOKING = TrainOptions(
    crop_size=128,
    root_size=GLANCE,
    finest=WINDOW,
    grid=15,
    fraction=WINDOW / GLANCE,
    k=(3,),
    background=smear.BACKGROUND,
    coarse_encoder=True,
    position=False,
    augment="turns",
    batch_size=16,
    lr=3e-3,
    epochs=60,
    encoder="small-6-bn",
    epoch_images=640,
    device="cpu",
    threads=0,
)
THUMBNAIL = replace(
    LOOKING,
    lr=2e-3,
    background=None,
    coarse_encoder=False,
    finest=None,
    root_size=None,
    k=(0,),
    position=True,
)
EVERYWHERE = replace(LOOKING, root_size=WINDOW, coarse_encoder=False, k=(0,))
SCENES = 4000
#: Budgets by cells along a side of a scene.
BUDGETS = {16: 20, 32: 40, 64: 40}
VALIDATION, TEST = 900_000, 500_000
Train = Callable[[Path, int, Path], float]
#: Cells along a side, most odd cells, and what differs in the options.
Step = tuple[int, int, dict[str, Any]]


@dataclass(frozen=True)
class Recipe:
    """How a model is trained, and on which scenes it is measured."""

    train: Train
    grids: tuple[int, ...] = (16,)


def windows(zip_path: Path, seed: int) -> list[Example]:
    """Labelled windows of 2 x 2 cells, off centre: single-cell images to pretrain an encoder on."""
    return smear.single_cell_examples(
        zip_path, "train", 1120, seed0=seed + 1, side=WINDOW, shift=180, several=9
    )


def scenes(
    zip_path: Path, seed: int, *, grid: int = 16, count: int = SCENES, several: int = 16, **more: Any
) -> list[Example]:
    """Training scenes with their boxes. Odd cells are 1 to ``several``: the rare is learnt from the frequent.

    Validation and test scenes have one.
    """
    first = 1_000_000 * (seed + 1)
    return smear.examples(zip_path, "train", count, grid=grid, seed0=first, several=several, **more)


def told(examples: list[Example]) -> list[Example]:
    """The same without boxes: image labels only."""
    return [replace(example, boxes=None) for example in examples]


def run(
    examples: list[Example],
    options: TrainOptions,
    seed: int,
    output: Path,
    validation: list[Example] | None = None,
) -> float:
    """Train, and keep the model that is best on validation scenes (or those given); CPU-seconds."""
    last = examples[-1].source
    if validation is None:
        validation = smear.examples(last.zip_path, "val", 60, grid=last.scene.grid, seed0=VALIDATION)
    seen = {example.label for example in examples}
    validation = [example for example in validation if example.label in seen]
    for record in fit(examples + validation, output, replace(options, seed=seed, name=output.name)):
        where = "" if record.hit is None else f" hit {record.hit:.3f}"
        print(
            f"{output.name} {record.epoch}/{record.epochs} stage {record.stage} loss {record.loss:.3f} accuracy "
            f"{record.accuracy or 0:.3f} val {record.val_accuracy:.3f}{where} cpu {record.cpu_seconds:.0f} s",
            flush=True,
        )
    return record.cpu_seconds


def boxes(**last: Any) -> Train:
    """Told where, and at first in scenes of many classes what; in the end only scenes like those to come."""

    def train(zip_path: Path, seed: int, output: Path) -> float:
        first = output.with_name(output.name + "-mixed")
        options = replace(LOOKING, scorer="evidence", weight_decay=0.1)
        given = windows(zip_path, seed) + scenes(zip_path, seed, count=SCENES // 2, empty=0.25)
        given += smear.examples(
            zip_path, "train", SCENES // 2, seed0=1_000_000 * (seed + 1) + SCENES, several=64, mixed=True
        )
        spent = run(given, options, seed, first)
        options = replace(options, init_from=str(first), epochs=30, lr=1.5e-3, **last)
        return spent + run(
            windows(zip_path, seed) + scenes(zip_path, seed, empty=0.25), options, seed, output
        )

    return train


def single_cells(options: TrainOptions) -> Train:
    """Told of no scene, only what single cells are."""

    def train(zip_path: Path, seed: int, output: Path) -> float:
        known = smear.single_cell_examples(zip_path, "val", 40, side=WINDOW, shift=180)
        return run(windows(zip_path, seed), replace(options, k=(0,), epochs=30), seed, output, known)

    return train


def distilled(*, labels: bool = True) -> Train:
    """Not told where; exhaustive looks at some training scenes say so. Without ``labels`` not told what, either."""

    def train(zip_path: Path, seed: int, output: Path) -> float:
        teacher = output.with_name(output.name + "-teacher")
        spent = single_cells(LOOKING)(zip_path, seed, teacher)
        started = time.process_time()
        plain = scenes(zip_path, seed, count=600)
        given = [replace(e, boxes=None, label=e.label if labels else None) for e in plain]
        found = list(located(given, load_model(teacher), threads=0))
        sure = [(a, b) for a, b in zip(found, plain, strict=True) if a.boxes]
        right = np.mean([any(_holds(place, box) for box in b.boxes) for a, b in sure for place in a.boxes])
        print(
            f"{output.name}: {len(sure)} of {len(plain)} scenes, {right:.3f} of the places rightly",
            flush=True,
        )
        spent += time.process_time() - started
        return spent + run(windows(zip_path, seed) + [a for a, _ in sure], LOOKING, seed, output)

    return train


def labelled(**changes: Any) -> Train:
    """Told only what; windows of single cells among the images."""

    def train(zip_path: Path, seed: int, output: Path) -> float:
        examples = windows(zip_path, seed) + told(scenes(zip_path, seed))
        return run(examples, replace(LOOKING, **changes), seed, output)

    return train


def grown(
    zip_path: Path, seed: int, output: Path, options: TrainOptions, steps: Sequence[Step], before: str = ""
) -> float:
    """Train on ever larger scenes, each step from the weights of the one before; CPU-seconds of all."""
    spent = 0.0
    for number, (grid, several, changes) in enumerate(steps):
        here = output if number == len(steps) - 1 else output.with_name(f"{output.name}-{number}")
        examples = told(scenes(zip_path, seed, grid=grid, several=several))
        spent += run(examples, replace(options, init_from=before or None, **changes), seed, here)
        before = str(here)
    return spent


def thumbnail(size: int, grid: int = 16, **last: Any) -> Train:
    """The whole, once; learnt from small scenes on, a cell always as large."""

    def train(zip_path: Path, seed: int, output: Path) -> float:
        steps = [
            (4, 8, {"crop_size": size * 4 // grid, "epochs": 24}),
            (grid, max(grid, 16), {"crop_size": size, **last}),
        ]
        return grown(zip_path, seed, output, THUMBNAIL, steps)

    return train


def everywhere(zip_path: Path, seed: int, output: Path) -> float:
    """All windows, pooled by attention; learnt from single cells and small scenes on."""
    options = replace(EVERYWHERE, background=None, lr=2e-3, glimpse_loss=0.0)
    cells = output.with_name(output.name + "-cells")
    spent = single_cells(options)(zip_path, seed, cells)
    steps = [
        (4, 4, {"epochs": 20, "epoch_images": 160, "batch_size": 8}),
        (16, 16, {"epochs": 20, "epoch_images": 40, "batch_size": 4}),
    ]
    return spent + grown(zip_path, seed, output, options, steps, str(cells))


RECIPES = {
    "boxes": Recipe(boxes(), (16, 32, 64)),
    "boxes-jpeg": Recipe(boxes(jpeg=0.5), (16, 32, 64)),
    "distilled": Recipe(distilled(), (16, 32, 64)),
    "unlabelled": Recipe(distilled(labels=False)),
    "single-cells": Recipe(single_cells(EVERYWHERE)),
    "responsibilities": Recipe(labelled(k=(4,))),
    "leave-one-out": Recipe(labelled(k=(4,), estimator="reinforce-loo", reinforce_weight=50.0)),
    "glimpses": Recipe(labelled(k=(4,), background=None, coarse_encoder=False)),
    "everywhere": Recipe(everywhere),
    "thumbnail-64": Recipe(thumbnail(64)),
    "thumbnail-128": Recipe(thumbnail(128)),
    "thumbnail-256": Recipe(thumbnail(256, epochs=24)),
    "thumbnail-1024": Recipe(thumbnail(1024, 64, epoch_images=80, batch_size=4, epochs=24), (64,)),
}


def odd_class(found: Record) -> str:
    """The answer: every scene has an odd cell, so it is the likeliest of the classes that one can have."""
    return max(
        (name for name in found.scores if name != smear.BACKGROUND), key=lambda name: found.scores[name]
    )


def measure(model: Path, tests: list[Example], budget: int, **how: Any) -> dict[str, float]:
    """Search scenes: accuracy, hits (a finest window visited holds the whole odd cell), cost.

    ``named`` is the accuracy if the model may say that there is no odd cell, ``nothing`` how often it would.
    """
    started = time.process_time()
    found = list(classify_all(tests, load_model(model), budget=budget, device="cpu", threads=0, **how))
    seconds = time.process_time() - started
    pairs = list(zip(found, tests, strict=True))
    return {
        "scenes": len(tests),
        "accuracy": float(np.mean([odd_class(a) == e.label for a, e in pairs])),
        "named": float(np.mean([a.class_name == e.label for a, e in pairs])),
        "nothing": float(np.mean([a.class_name == smear.BACKGROUND for a in found])),
        "hit": float(np.mean([_hit(a, e) for a, e in pairs])),
        "glimpses": float(np.mean([a.cost.glimpses for a in found])),
        "fraction_read": float(np.mean([a.cost.fraction_read for a in found])),
        "cpu_ms": 1000 * seconds / len(tests),
    }


def in_files(zip_path: Path, models: dict[str, Path]) -> list[dict[str, Any]]:
    """Scenes written as files of each format, classified from the file: what is read of it."""
    loaded = {recipe: load_model(path) for recipe, path in models.items()}
    rows = []
    for model in loaded.values():  # compile
        list(
            classify_all(smear.examples(zip_path, "val", 1, grid=4), model, budget=8, device="cpu", threads=1)
        )
    for form, grid, count in (("tiff", 16, 40), ("zarr", 16, 40), ("cog", 16, 40), ("tiff", 64, 2)):
        write, suffix = WRITERS[form]
        found: dict[str, list[Record]] = {recipe: [] for recipe in models}
        size, seconds = 0, dict.fromkeys(models, 0.0)
        tests = smear.examples(zip_path, "test", count, grid=grid, seed0=TEST)
        for example in tests:
            with tempfile.TemporaryDirectory() as folder:
                file = Path(folder) / f"smear{suffix}"
                write(example.source, file)
                size += sum(f.stat().st_size for f in [file, *file.rglob("*")] if f.is_file())
                for recipe, model in loaded.items():
                    started = time.process_time()
                    found[recipe] += [classify(file, model, budget=BUDGETS[grid], device="cpu", threads=1)]
                    seconds[recipe] += time.process_time() - started
        for recipe, answers in found.items():
            right = [odd_class(a) == e.label for a, e in zip(answers, tests, strict=True)]
            rows.append(
                {
                    "recipe": recipe,
                    "format": form,
                    "grid": grid,
                    "scenes": len(tests),
                    "accuracy": float(np.mean(right)),
                    "hit": float(np.mean([_hit(a, e) for a, e in zip(answers, tests, strict=True)])),
                    "glimpses": float(np.mean([a.cost.glimpses for a in answers])),
                    "bytes": size / len(tests),
                    "bytes_read": float(np.mean([a.cost.bytes_read for a in answers])),
                    "fraction_read": float(np.mean([a.cost.fraction_read for a in answers])),
                    "cpu_ms": 1000 * seconds[recipe] / len(tests),
                }
            )
            print(rows[-1], flush=True)
    return rows


def keep(work: Path, zip_path: Path) -> None:
    """Store every measurement on the test scenes, and the looks at files.

    What WORK has replaces stored rows of the same recipe and seed; rows that stay keep the commit they are of.
    """
    old = load("oddcell") or {"rows": [], "files": [], "commit": ""}
    measured = [
        row
        for file in sorted(work.glob("*-test.json"))
        for row in json.loads(file.read_text(encoding="utf-8"))
    ]
    new = {(row["recipe"], row["seed"]) for row in measured}
    kept = [
        {"commit": old["commit"], **row} for row in old["rows"] if (row["recipe"], row["seed"]) not in new
    ]
    models = {name: work / f"{name}-0" for name in ("boxes", "boxes-jpeg") if (work / f"{name}-0").is_dir()}
    files = [{"commit": old["commit"], **row} for row in old["files"] if row["recipe"] not in models]
    files += [{"commit": commit(), **row} for row in in_files(zip_path, models)]
    files.sort(key=lambda row: (row["grid"], ("tiff", "zarr", "cog").index(row["format"]), row["recipe"]))
    rows = sorted(kept + measured, key=lambda row: row["seed"])
    print(store("oddcell", budgets=BUDGETS, stop=0.95, rows=rows, files=files))


def _hit(found: Record, example: Example) -> bool:
    """Whether a finest window that was visited holds the whole odd cell."""
    assert example.boxes is not None
    looked = [(r.y, r.x, r.height, r.width) for r in found.regions if r.height <= WINDOW]
    return any(_holds(region, example.boxes[0]) for region in looked)


def _holds(region: tuple[int, ...], box: tuple[int, ...]) -> bool:
    return all(region[i] <= box[i] and region[i] + region[i + 2] >= box[i] + box[i + 2] for i in (0, 1))


@click.command()
@click.argument("shared", type=click.Path(exists=True, path_type=Path))
@click.argument("work", type=click.Path(path_type=Path))
@click.option("--recipe", "recipes", type=click.Choice(list(RECIPES)), multiple=True, default=list(RECIPES))
@click.option("--seeds", default="0,1,2", show_default=True)
@click.option("--scenes", "count", default=200, show_default=True, help="Scenes per size.")
@click.option("--split", type=click.Choice(["val", "test"]), default="test", show_default=True)
def main(shared: Path, work: Path, recipes: tuple[str, ...], seeds: str, count: int, split: str) -> None:
    """Train where WORK has no model yet, measure, and keep the measurements."""
    torch.set_num_threads(1)
    zip_path = shared / ZIP
    for seed in map(int, seeds.split(",")):
        for name in recipes:
            model, kept = work / f"{name}-{seed}", work / f"{name}-{seed}-{split}.json"
            if kept.is_file():
                continue
            spent = work / f"{name}-{seed}.seconds"
            if not spent.is_file():
                spent.write_text(str(RECIPES[name].train(zip_path, seed, model)), encoding="utf-8")
            seconds = float(spent.read_text(encoding="utf-8"))
            rows = []
            for grid in RECIPES[name].grids:
                tests = smear.examples(zip_path, split, count, grid=grid, seed0=TEST)
                looking = name not in ("everywhere", "single-cells") and not name.startswith("thumbnail")
                ways: dict[str, dict[str, Any]] = {"best-first": {} if looking else {"policy": "lowres"}}
                if looking and grid == 16:
                    ways |= {
                        "whole budget": {"stop": None},
                        "top-k": {"policy": "top-k"},
                        "random": {"policy": "random"},
                    }
                for way, how in ways.items():
                    row = {
                        "recipe": name,
                        "seed": seed,
                        "grid": grid,
                        "policy": way if looking else "first look",
                        "commit": commit(),
                    }
                    rows.append(
                        row | {"train_cpu_seconds": seconds, **measure(model, tests, BUDGETS[grid], **how)}
                    )
                    print(rows[-1], flush=True)
            kept.write_text(json.dumps(rows, indent=1) + "\n", encoding="utf-8")
    if split == "test":
        keep(work, zip_path)


if __name__ == "__main__":
    main()
