"""Megapixel-MNIST: which digit is there three times? Train, search, compare. See ``mnist.py`` for the scenes.

    python benchmarks/megamnist.py ../shared WORK [--recipe location --recipe everywhere …] [--seeds 0,1,2]

Every recipe begins with single digits, labelled; after that it is told the label of scenes only, never where the
digits are. A recipe is the name of a scorer, or ``everywhere``: gated-attention pooling of all windows of 56 px, which
overlap by a quarter, for as long.

A model that looks first sees the scene at a quarter of its resolution (digits of 7 px) in overlapping regions of
224 px, then windows of 56 px at full resolution. Regions and cells overlap by a digit: each lies whole in some cell.

WORK keeps the models and one JSON file of measurements per recipe and seed, so that an interrupted run goes on;
``--keep`` stores all of them.
"""

import json
import time
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import click
import numpy as np
import torch
from torch import Tensor

from hiresattn import classify, classify_all, load_model
from hiresattn.checkpoint import Model
from hiresattn.geometry import cells_on_boxes, root_regions
from hiresattn.model.scorers import SCORERS
from hiresattn.model.select import Selection
from hiresattn.reading.fetch import CropFetcher
from hiresattn.training.fit import fit
from hiresattn.training.options import TrainOptions
from scenes import mnist
from scenes.mnist import FEW, MegaPyramid, Scene
from store import store, store_picture

WINDOW, GLANCE = 56, 224
#: Least share of its area that a region must hold of a digit to have seen it.
ENOUGH = 0.5
#: Single digits. What the later stages share.
DIGITS = TrainOptions(
    crop_size=WINDOW,
    finest=WINDOW,
    root_size=WINDOW,
    grid=7,
    fraction=WINDOW / GLANCE,
    k=(0,),
    coarse_encoder=True,
    position=False,
    value_range=(-255, 255),  # black is 0: what there is stands out
    batch_size=16,
    epochs=7,
    epoch_images=2000,
    device="cpu",
    threads=0,
)
#: Where to look. A choice among 49 cells has 1/49 of the reward's gradient: the weight makes up for that.
LOOKING = replace(
    DIGITS,
    root_size=GLANCE,
    overlap=mnist.GLYPH / GLANCE,
    k=(4,),
    estimator="reinforce-loo",
    reinforce_weight=50.0,
    glimpse_loss=0.2,
    value_loss=1.0,
    batch_size=8,
    epochs=8,
    epoch_images=320,
)
#: All windows.
EVERYWHERE = replace(
    DIGITS, overlap=0.25, glimpse_loss=0.2, lr=1e-3, batch_size=8, epochs=4, epoch_images=320
)


@dataclass(frozen=True)
class Stage:
    """One training; it starts from the weights of the stage before."""

    options: TrainOptions
    side: int
    """Of its scenes, px."""


FIRST = Stage(DIGITS, WINDOW)
LOOK = (
    Stage(LOOKING, 384),
    Stage(replace(LOOKING, k=(3,), lr=1e-3, epochs=5), 768),
)
#: Stages by recipe; any other name is a scorer's.
RECIPES: dict[str, tuple[Stage, ...]] = {
    "everywhere": (
        FIRST,
        Stage(EVERYWHERE, 224),
        Stage(replace(EVERYWHERE, epochs=2), 384),
        Stage(replace(EVERYWHERE, epochs=3, epoch_images=64, batch_size=4), 768),
    ),
}
#: Scenes that a stage draws from.
SCENES = 5000
#: Budgets of a search by side, the first look included (16 and 64 regions).
BUDGETS = {768: 28, 1500: 84}
#: Windows that overlap a visited one by more show the same place: the windows next to it overlap it by a third.
APART = 0.3


def stages(recipe: str) -> tuple[Stage, ...]:
    """How a recipe trains."""
    if recipe in RECIPES:
        return RECIPES[recipe]
    return tuple(replace(one, options=replace(one.options, scorer=recipe)) for one in (FIRST, *LOOK))


def train(digits: Path, recipe: str, seed: int, output: Path) -> float:
    """Train every stage that isn't there yet, the last into ``output``; CPU-seconds of all."""
    spent, before = 0.0, None
    chain = stages(recipe)
    for number, stage in enumerate(chain):
        last = number == len(chain) - 1
        folder = output if last else output.with_name(f"{output.name}-{number}")
        done = folder / "seconds"
        if not done.is_file():
            options = replace(stage.options, seed=seed, init_from=before and str(before), name=output.name)
            single = stage.side < mnist.LEAST
            given = mnist.examples(
                digits, "train", SCENES, side=stage.side, seed0=1_000_000 * (seed + 1), single=single
            )
            given += mnist.examples(digits, "val", 30, side=stage.side, single=single)
            for record in fit(given, folder, options):
                print(
                    f"{folder.name} {stage.side} px {record.epoch}/{record.epochs} loss {record.loss:.3f} accuracy "
                    f"{record.accuracy:.3f} val {record.val_accuracy:.3f} glimpses {record.glimpses:.1f} entropy "
                    f"{record.entropy or 0:.2f} cpu {record.cpu_seconds:.0f} s",
                    flush=True,
                )
            done.write_text(str(record.cpu_seconds), encoding="utf-8")
        spent += float(done.read_text(encoding="utf-8"))
        before = folder
    return spent


def seen(regions: np.ndarray, boxes: np.ndarray) -> np.ndarray:
    """Which boxes ``[m 4]`` some region ``[n 4]`` holds enough of (bool)."""
    if not len(regions):
        return np.zeros(len(boxes), bool)
    start = np.maximum(regions[:, None, :2], boxes[:, :2])
    stop = np.minimum((regions[:, :2] + regions[:, 2:])[:, None], boxes[:, :2] + boxes[:, 2:])
    share = np.clip(stop - start, 0, None).prod(2) / boxes[:, 2:].prod(1)
    return np.asarray((share >= ENOUGH).any(0))


class Oracle:
    """Chooses, in place of a selector, a cell on every digit; no digit twice.

    Args:
        boxes: Where the digits are, ``[m 4]``.
    """

    def __init__(self, boxes: np.ndarray) -> None:
        self.left = boxes

    def __call__(self, logits: Tensor, k: int, cells: Tensor, image: np.ndarray) -> Selection:  # noqa: ARG002
        """Choose."""
        where = cells.cpu().numpy()
        cell = np.zeros((len(where), k), np.int64)
        valid = np.zeros((len(where), k), bool)
        for row in range(len(where)):
            best = cells_on_boxes(where[row : row + 1], self.left)[0]
            shown = [box for box in np.flatnonzero(best.any(0)) if self._whole(where[row], best[:, box], box)]
            for rank, box in enumerate(shown):
                cell[row, rank], valid[row, rank] = best[:, box].argmax(), True
            self.left = np.delete(self.left, shown, 0)
        chosen = torch.from_numpy(cell)
        return Selection(chosen, logits.log_softmax(1).gather(1, chosen), torch.from_numpy(valid))

    def _whole(self, cells: np.ndarray, best: np.ndarray, box: int) -> bool:
        (y, x, height, width), (top, left, rows, columns) = cells[best.argmax()], self.left[box]
        return bool(y <= top and x <= left and y + height >= top + rows and x + width >= left + columns)


def told(model: Model, tests: Sequence[Scene], digits: Path) -> dict[str, float]:
    """What the model answers when it is shown every digit, and the regions of its first look."""
    right, counts = [], []
    rule = model.config
    for scene in tests:
        frame = np.array([[0, 0, scene.side, scene.side]])
        roots = root_regions(scene.side, scene.side, root_size=rule.root_size, overlap=rule.overlap)
        select = Oracle(np.array(scene.boxes))
        with (
            CropFetcher([MegaPyramid(digits, scene)], rule.input, threads=0) as fetch,
            torch.inference_mode(),
        ):
            found = model.net.eval()(fetch, [roots], frame, select=select, k=(FEW,))
        right.append(model.classes[int(found.logits[0].argmax())] == scene.label)
        counts.append([len(found.image), FEW - len(select.left)])
    glimpses, shown = np.mean(counts, 0)
    return {
        "scenes": len(tests),
        "accuracy": float(np.mean(right)),
        "hit": 1.0,
        "seen": float(shown / FEW),
        "glimpses": float(glimpses),
    }


def measure(model: Model, tests: Sequence[Scene], digits: Path, **how: Any) -> dict[str, float]:
    """Classify scenes: accuracy, hit (a finest region holds half of a digit), share of the digits seen, cost."""
    images = [MegaPyramid(digits, scene) for scene in tests]
    started = time.process_time()
    found = list(classify_all(images, model, device="cpu", threads=0, **how))
    seconds = time.process_time() - started
    shown = [
        seen(
            np.array([(r.y, r.x, r.height, r.width) for r in answer.regions if r.height <= WINDOW]),
            np.array(scene.boxes),
        )
        for answer, scene in zip(found, tests, strict=True)
    ]
    return {
        "scenes": len(tests),
        "accuracy": float(np.mean([a.class_name == s.label for a, s in zip(found, tests, strict=True)])),
        "hit": float(np.mean([some.any() for some in shown])),
        "seen": float(np.mean(shown)),
        "glimpses": float(np.mean([answer.cost.glimpses for answer in found])),
        "fraction_read": float(np.mean([answer.cost.fraction_read for answer in found])),
        "cpu_ms": 1000 * seconds / len(tests),
    }


def rows_of(digits: Path, recipe: str, path: Path, sides: Sequence[int], count: int) -> list[dict[str, Any]]:
    """Measurements of one model."""
    model = load_model(path)
    rows: list[dict[str, Any]] = []
    for side in sides:
        tests = [Scene(number, side, "test") for number in range(count)]
        if recipe == "everywhere":
            rows.append({"policy": "every window", **measure(model, tests, digits, policy="lowres")})
        else:
            ways = {
                "best-first": {"stop": None, "budget": BUDGETS[side]},
                "random": {"stop": None, "budget": BUDGETS[side], "policy": "random"},
                "top-k": {"policy": "top-k"},
            }
            rows += [
                {"policy": way, **measure(model, tests, digits, nms=APART, **how)}
                for way, how in ways.items()
            ]
            rows.append({"policy": "first look", **measure(model, tests, digits, policy="lowres")})
            rows.append({"policy": "oracle", **told(model, tests, digits)})
        for row in rows:
            row.setdefault("side", side)
    return rows


def keep(work: Path, digits: Path) -> None:
    """Store all measurements, and a picture of the first model that looks."""
    rows = [
        row
        for file in sorted(work.glob("*-test.json"))
        for row in json.loads(file.read_text(encoding="utf-8"))
    ]
    scene = Scene(0, 768, "test")
    image = MegaPyramid(digits, scene)
    found = classify(image, load_model(work / "location-0"), budget=BUDGETS[768], stop=None, nms=APART)

    print(store_picture("megamnist", image, found, scene.boxes))
    print(store("megamnist", scenes=SCENES, budgets=BUDGETS, rows=rows))


@click.command()
@click.argument("shared", type=click.Path(exists=True, path_type=Path))
@click.argument("work", type=click.Path(path_type=Path))
@click.option(
    "--recipe", "--scorer", "recipes", type=click.Choice([*SCORERS, *RECIPES]), multiple=True,
    default=("location", "everywhere"), show_default=True,
)  # fmt: skip
@click.option("--seeds", default="0,1,2", show_default=True)
@click.option("--sides", default="768", show_default=True, help="Sides of the test scenes.")
@click.option("--scenes", "count", default=200, show_default=True, help="Test scenes per side.")
@click.option("--keep", "storing", is_flag=True, help="Store what WORK holds, too.")
def main(
    shared: Path, work: Path, recipes: tuple[str, ...], seeds: str, sides: str, count: int, *, storing: bool
) -> None:
    """Train where WORK has no model yet, measure, and keep the measurements."""
    torch.set_num_threads(1)  # CPU-seconds are then those of the work, not of waiting threads
    digits = shared / mnist.DIGITS
    work.mkdir(parents=True, exist_ok=True)
    for seed in map(int, seeds.split(",")):
        for recipe in recipes:
            model, kept = work / f"{recipe}-{seed}", work / f"{recipe}-{seed}-{sides}-test.json"
            if kept.is_file():
                continue
            spent = train(digits, recipe, seed, model)
            known = {"recipe": recipe, "seed": seed, "train_cpu_seconds": spent}
            rows = rows_of(digits, recipe, model, [int(side) for side in sides.split(",")], count)
            rows = [known | row for row in rows]
            for row in rows:
                print(row, flush=True)
            kept.write_text(json.dumps(rows, indent=1) + "\n", encoding="utf-8")
    if storing:
        keep(work, digits)


if __name__ == "__main__":
    main()
