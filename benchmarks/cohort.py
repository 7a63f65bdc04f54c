"""A cohort of few patients, from their labels alone, with several seeds.

    python benchmarks/cohort.py WORK [--seeds 0,1,2]

The slides are those of docs/tutorial-cohort.md: two of each patient, in one of which is a tumour, or in none; nobody
says in which, or where. WORK keeps slides and models, so that an interrupted run goes on.
"""

import contextlib
import csv
import re
from pathlib import Path
from typing import Any

import click
import torch

from hiresattn import evaluate, load_model
from hiresattn.datasets.cohort import CohortOptions, make_manifest
from hiresattn.datasets.manifest import read_manifest
from hiresattn.training.fit import fit
from hiresattn.training.options import TrainOptions
from store import store

PAGE = Path(__file__).parents[1] / "docs" / "tutorial-cohort.md"
#: Shares of the patients that validate and test, by the number that is left to train on.
SPLITS = {48: (0.3, 0.3), 66: (0.3, 0.15)}
EPOCHS = 30
#: Share of the training cases that are answered rightly once something was learnt.
LEARNT = 0.9


def draw() -> None:
    """The tutorial's slides and labels, in the current folder."""
    if not Path("labels.csv").exists():
        exec(re.findall(r"```python\n(.*?)```", PAGE.read_text(encoding="utf-8"), re.DOTALL)[0], {})  # noqa: S102


def manifest(patients: int) -> Path:
    """The manifest of a split."""
    path = Path(f"cohort-{patients}.csv")
    val, test = SPLITS[patients]
    if not path.exists():
        make_manifest(
            "slides", "labels.csv", path, CohortOptions(label_column="diagnosis", val=val, test=test)
        )
    return path


def measured(path: Path, model: Path, options: TrainOptions) -> dict[str, Any]:
    """Train, unless that is done; when it took off, and how good it is on validation and test cases."""
    examples = read_manifest(path, labels=True)
    if len(_epochs(model)) < EPOCHS:
        for record in fit(examples, model, options, resume=(model / "state.safetensors").exists()):
            print(f"{model} {record.epoch}: {record.accuracy:.3f} {record.val_accuracy:.3f}", flush=True)
    epochs = _epochs(model)
    learnt = [int(row["epoch"]) for row in epochs if float(row["accuracy"]) >= LEARNT]
    found = evaluate(load_model(model), examples, split="test", bootstrap=0, device="cpu", threads=1)
    return {
        "learnt": learnt[0] if learnt else None,
        "validation": max(float(row["val_accuracy"]) for row in epochs),
        "test": found.main.accuracy.value,
        "tested": found.cases,
        "glimpses": found.main.glimpses,
        "cpu_seconds": float(epochs[-1]["cpu_seconds"]),
    }


def _epochs(model: Path) -> list[dict[str, str]]:
    """The epochs that are done."""
    if not (model / "metrics.csv").exists():
        return []
    with (model / "metrics.csv").open(newline="", encoding="utf-8") as file:
        return list(csv.DictReader(file))


@click.command()
@click.argument("work", type=click.Path(path_type=Path))
@click.option("--seeds", default="0,1,2")
def main(work: Path, seeds: str) -> None:
    """Train what is missing in WORK, measure, and store."""
    torch.set_num_threads(1)
    work.mkdir(parents=True, exist_ok=True)
    with contextlib.chdir(work):
        draw()
        rows = []
        for count in SPLITS:
            for seed in map(int, seeds.split(",")):
                found = measured(
                    manifest(count), Path(f"{count}-seed-{seed}"), TrainOptions(epochs=EPOCHS, seed=seed)
                )
                rows.append({"patients": count, "seed": seed, **found})
                print(rows[-1], flush=True)
    print(store("cohort", epochs=EPOCHS, learnt=LEARNT, rows=rows))


if __name__ == "__main__":
    main()
