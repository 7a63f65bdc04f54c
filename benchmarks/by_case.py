"""Cases of 1 to 8 slides, the tumour in one of them: one search, against one that is told which slide.

    python benchmarks/by_case.py [--seeds 0,1,2] [--cases 200] [--split val|test]
    python benchmarks/by_case.py --smears ../shared WORK [--grid 32] ...

Slides are drawn: small nuclei all over, and three dense patches. In a slide with a tumour the nuclei of one patch are
large and fewer; from afar the patches look much alike. The model is trained on single slides and told where tumours
are. Compared are the same search on the slide that has the tumour alone (`told which slide`), on the case, and on each
slide for itself, of which the surest answer is taken (`per source`; of the first cases only, for what it costs).

With `--smears` the slides are smears with one odd cell (scenes/smear.py) or none, and the models those that
labels_only.py left in WORK.
"""

import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import click
import numpy as np
import torch

from hiresattn import Case, Example, Model, classify, load_model
from hiresattn.inference.record import Record
from hiresattn.training.fit import fit
from hiresattn.training.options import TrainOptions
from oddcell import BUDGETS, TEST
from scenes import smear
from scenes.cells import ZIP
from store import RESULTS, load, store

SIDE, MOST, BUDGET = 1024, 8, 64
#: Cases that are classified slide by slide, too.
BY_SLIDE = 40
NORMAL, TUMOUR = "normal", "tumour"
SPLITS = {"train": 1, "val": 2, "test": 3}
OPTIONS = TrainOptions(
    crop_size=64,
    scorer="evidence",
    background=NORMAL,
    coarse_encoder=True,
    position=False,
    augment="turns",
    k=(3,),
    lr=3e-3,
    epochs=12,
    epoch_images=320,
    batch_size=16,
    device="cpu",
    threads=0,
    value_range=(0, 255),
)


def slide(split: str, number: int, *, tumour: bool) -> Example:
    """A drawn slide ``[SIDE SIDE 3]`` uint8, with the box of its tumour."""
    rng = np.random.default_rng([SPLITS[split], number])
    image = np.full((SIDE, SIDE, 3), (226.0, 190.0, 212.0))
    image += rng.normal(0, 5, (SIDE // 8, SIDE // 8, 1)).repeat(8, 0).repeat(8, 1)
    dots = [(place, 3.0) for place in rng.uniform(0, SIDE, (200, 2))]
    centres = rng.uniform(80, SIDE - 80, (3, 2))
    for patch, centre in enumerate(centres):
        many, radius = (12, 9.0) if tumour and patch == 0 else (108, 3.0)
        dots += [(place, radius) for place in rng.normal(centre, 24, (many, 2))]
    rows, columns = np.mgrid[:SIDE, :SIDE]
    for (row, column), radius in dots:
        top, left = max(0, int(row - radius)), max(0, int(column - radius))
        part = np.s_[top : int(row + radius) + 2, left : int(column + radius) + 2]
        image[part][(rows[part] - row) ** 2 + (columns[part] - column) ** 2 < radius**2] -= (110, 120, 60)
    y, x = centres[0].astype(int).tolist()
    boxes = ((y - 48, x - 48, 96, 96),) if tumour else ()
    label = TUMOUR if tumour else NORMAL
    return Example(image.clip(0, 255).astype(np.uint8), label, split, boxes=boxes)


def train(seed: int, output: Path) -> float:
    """Train on single slides; CPU-seconds."""
    first = 10_000 * seed
    given = [slide("train", first + n, tumour=bool(n % 2)) for n in range(320)]
    given += [slide("val", first + n, tumour=bool(n % 2)) for n in range(40)]
    for record in fit(given, output, TrainOptions(**{**vars(OPTIONS), "seed": seed})):
        print(
            f"seed {seed}, {record.epoch}/{record.epochs}: validation {record.val_accuracy:.3f}", flush=True
        )
    return record.cpu_seconds


@dataclass(frozen=True)
class Slides:
    """What the cases are made of."""

    normal: str
    """Label of a slide that shows nothing."""
    draw: Callable[[int, bool], Example]
    """A slide by its number, with the finding or without."""
    budget: int


def drawn(split: str) -> Slides:
    """Slides with a tumour or without."""
    return Slides(NORMAL, lambda number, ill: slide(split, 1_000_000 + number, tumour=ill), BUDGET)


def smears_of(zip_path: Path, split: str, grid: int) -> Slides:
    """Smears with an odd cell or without."""

    def draw(number: int, ill: bool) -> Example:  # noqa: FBT001 - see Slides
        scene = smear.SmearScene(TEST + number, grid, split, several=int(ill))
        return Example(smear.SmearPyramid(zip_path, scene), scene.label)

    return Slides(smear.BACKGROUND, draw, BUDGETS[grid])


def measure(model: Model, slides: Slides, count: int) -> list[dict[str, Any]]:
    """The three ways, half of the cases with a finding."""
    rng = np.random.default_rng(0)
    ways: dict[str, list[Record]] = {"told which slide": [], "as a case": [], "per source": []}
    looks: dict[str, list[int]] = {name: [] for name in ways}
    seconds = dict.fromkeys(ways, 0.0)
    truth, sizes = [], []
    for number in range(count):
        size, ill = int(rng.integers(1, MOST + 1)), bool(number % 2)
        which = int(rng.integers(size))
        given = [slides.draw(MOST * number + n, ill and n == which) for n in range(size)]
        sources = [example.source for example in given]
        truth.append(str(given[which].label))
        sizes.append(size)
        for name, asked in (
            ("told which slide", [sources[which]]),
            ("as a case", [Case(str(number), sources)]),
            ("per source", sources if number < BY_SLIDE else []),
        ):
            if not asked:
                continue
            started = time.process_time()
            found = [
                classify(source, model, budget=slides.budget, device="cpu", threads=0) for source in asked
            ]
            seconds[name] += time.process_time() - started
            ways[name].append(min(found, key=lambda record: record.scores[slides.normal]))
            looks[name].append(sum(record.cost.glimpses for record in found))
    rows = []
    for name, found in ways.items():
        own = np.array(truth[: len(found)])
        right, ill = np.array([record.class_name for record in found]) == own, own != slides.normal
        each = np.array(looks[name])
        rows.append(
            {
                "way": name,
                "cases": len(found),
                "slides": sum(sizes[: len(found)]),
                "accuracy": float(right.mean()),
                "sensitivity": float(right[ill].mean()),
                "specificity": float(right[~ill].mean()),
                "glimpses": float(each[ill].mean()),
                "glimpses_normal": float(each[~ill].mean()),
                "cpu_ms": 1000 * seconds[name] / len(found),
            }
        )
    return rows


@click.command()
@click.option("--seeds", default="0,1,2", show_default=True)
@click.option("--cases", "count", default=200, show_default=True)
@click.option("--split", type=click.Choice(["val", "test"]), default="test", show_default=True)
@click.option(
    "--smears", type=click.Path(path_type=Path), nargs=2, help="Data, and models of labels_only.py."
)
@click.option("--grid", default=32, show_default=True, help="Cells along a smear.")
def main(seeds: str, count: int, split: str, smears: tuple[Path, Path] | None, grid: int) -> None:
    """Train where nothing is trained, measure, and store the rows of the test split."""
    torch.set_num_threads(1)
    name = "drawn slides" if smears is None else f"smears of {grid} x {grid} cells"
    rows: list[dict[str, Any]] = []
    for seed in map(int, seeds.split(",")):
        with tempfile.TemporaryDirectory() as folder:
            if smears is None:
                path, slides = Path(folder) / "model", drawn(split)
                train(seed, path)
            else:
                path, slides = _smear_model(smears[1], seed), smears_of(smears[0] / ZIP, split, grid)
            for row in measure(load_model(path), slides, count):
                rows.append({"slides_are": name, "seed": seed, **row})
                print(rows[-1], flush=True)
    if split == "test":
        kept = [row for row in load("by_case")["rows"] if row["slides_are"] != name] if _stored() else []
        print(store("by_case", side=SIDE, budget=BUDGET, rows=kept + rows))


def _stored() -> bool:
    return (RESULTS / "by_case.json").exists()


def _smear_model(work: Path, seed: int) -> Path:
    """The model of a seed, of those with the smallest scenes."""
    return min(work.glob(f"smallest-*-seed-{seed}"), key=lambda path: int(path.name.split("-")[1]))


if __name__ == "__main__":
    main()
