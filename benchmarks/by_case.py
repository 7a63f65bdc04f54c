"""Cases of 1 to 8 scenes, the odd cell in one of them: one search, against one that is told which scene.

    python benchmarks/by_case.py ../shared WORK [--seeds 0,1,2] [--cases 200]

Models are those of the recipe `boxes` of `oddcell.py`, on 16 x 16 cells; WORK keeps them. Compared are the same search
on the scene that has the odd cell alone (`told`), on each scene for itself with the surest answer taken
(`per source`), and on the case.
"""

import time
from pathlib import Path
from typing import Any

import click
import numpy as np
import torch

from hiresattn import Case, classify_all, load_model
from hiresattn.datasets.example import Example
from hiresattn.inference.record import Record
from oddcell import BUDGETS, RECIPES, TEST, odd_class
from scenes import smear
from scenes.cells import ZIP
from store import store

GRID, MOST = 16, 8


def cases(zip_path: Path, count: int, split: str) -> tuple[list[Case], list[Example]]:
    """Cases of 1 to 8 scenes, and of each the scene that has the odd cell."""
    rng = np.random.default_rng(0)
    sizes = rng.integers(1, MOST + 1, count)
    odd = smear.examples(zip_path, split, count, grid=GRID, seed0=TEST)
    plain = smear.examples(zip_path, split, int(sizes.sum()), grid=GRID, seed0=TEST + 10_000, empty=1.0)
    found, left = [], iter(plain)
    for number, (size, one) in enumerate(zip(sizes.tolist(), odd, strict=True)):
        sources = [next(left).source for _ in range(size - 1)]
        sources.insert(int(rng.integers(size)), one.source)
        found.append(Case(str(number), sources))
    return found, odd


def row(found: list[Record], odd: list[Example], seconds: float) -> dict[str, Any]:
    """Accuracy and cost, per case."""
    right = [odd_class(record) == example.label for record, example in zip(found, odd, strict=True)]
    return {
        "cases": len(found),
        "accuracy": float(np.mean(right)),
        "glimpses": float(np.mean([record.cost.glimpses for record in found])),
        "fraction_read": float(np.mean([record.cost.fraction_read for record in found])),
        "cpu_ms": 1000 * seconds / len(found),
    }


def measure(model: Path, given: list[Case], odd: list[Example]) -> list[dict[str, Any]]:
    """The three ways."""
    loaded = load_model(model)
    how: dict[str, Any] = {"device": "cpu", "threads": 0, "budget": BUDGETS[GRID] + MOST}
    rows = []

    def search(sources: list[Any]) -> tuple[list[Record], float]:
        started = time.process_time()
        return list(classify_all(sources, loaded, **how)), time.process_time() - started

    rows.append({"way": "told which scene", **row(*_with(odd, search(odd)))})
    rows.append({"way": "as a case", **row(*_with(odd, search(given)))})
    each, seconds = search([source for case in given for source in case.sources])
    left = iter(each)
    surest, looks = [], []
    for case in given:
        own = [next(left) for _ in case.sources]
        surest.append(min(own, key=lambda record: record.scores[smear.BACKGROUND]))
        looks.append(sum(record.cost.glimpses for record in own))
    rows.append({"way": "per source", **row(surest, odd, seconds), "glimpses": float(np.mean(looks))})
    return rows


def _with(odd: list[Example], found: tuple[list[Record], float]) -> tuple[list[Record], list[Example], float]:
    return found[0], odd, found[1]


@click.command()
@click.argument("shared", type=click.Path(exists=True, path_type=Path))
@click.argument("work", type=click.Path(path_type=Path))
@click.option("--seeds", default="0,1,2", show_default=True)
@click.option("--cases", "count", default=200, show_default=True)
@click.option("--split", type=click.Choice(["val", "test"]), default="test", show_default=True)
def main(shared: Path, work: Path, seeds: str, count: int, split: str) -> None:
    """Train where WORK has no model yet, measure, and store the rows."""
    torch.set_num_threads(1)
    zip_path = shared / ZIP
    given, odd = cases(zip_path, count, split)
    rows = []
    for seed in map(int, seeds.split(",")):
        model, spent = work / f"boxes-{seed}", work / f"boxes-{seed}.seconds"
        if not spent.is_file():
            spent.write_text(str(RECIPES["boxes"].train(zip_path, seed, model)), encoding="utf-8")
        for one in measure(model, given, odd):
            rows.append({"seed": seed, **one})
            print(rows[-1], flush=True)
    if split == "test":
        sizes = [len(case.sources) for case in given]
        print(store("by_case", grid=GRID, budget=BUDGETS[GRID] + MOST, scenes=sum(sizes), rows=rows))


if __name__ == "__main__":
    main()
