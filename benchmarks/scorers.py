"""Which scorer finds the place that matters? All of them on one task: one recipe, one budget, equal training.

    python benchmarks/scorers.py -o DIR [--task oddcell] [--scorer saol]... [--seed 0]... [--estimator none]

All scorers of a seed start from one network that was trained to tell the objects of a task apart at native
resolution, with a scorer of their own that knows nothing; without that, a short training measures when the objects
are first told apart, which is luck. Then a model is trained per scorer, unless DIR has it, and searches scenes of the
test split with a fixed number of looks and no stop rule. `random` and `oracle` are the model trained with `location`:
the one looks at random cells, the other is told at every region which cells are on the target. A hit is a finest look
that holds the centre of a target's box. Results are added to `results/scorers.json`.

The needle is learnt from labels alone; of the odd cell (`scenes/smear.py`, `oddcell.py`) training is told the boxes.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import click
import numpy as np
import torch

import needle_model
import oddcell
from hiresattn import load_model
from hiresattn.checkpoint import Model, save_model
from hiresattn.config import ScorerConfig
from hiresattn.datasets.example import Example
from hiresattn.demo.needle import NeedlePyramid, NeedleScene
from hiresattn.evaluation.outcomes import Pass, outcomes
from hiresattn.geometry import cells_on_target
from hiresattn.model.build import build_model
from hiresattn.model.net import Glimpses
from hiresattn.training.options import TrainOptions
from scenes import needle as needle_scenes
from scenes import smear
from scenes.cells import ZIP
from store import load, store

SCORERS = ("location", "mask", "saol", "ltpa", "oaa", "random", "oracle")


@dataclass(frozen=True)
class Task:
    """What is learnt and measured."""

    first: Callable[[Path, int], list[Example]]
    """Examples that one look sees whole, by the folder of shared data and the seed."""
    first_epochs: int
    train: Callable[[Path, int], list[Example]]
    """Examples of split ``train``, likewise."""
    test: Callable[[Path, int], list[Example]]
    """So many examples with boxes, of split ``test``."""
    options: TrainOptions
    budget: int


def _needle(_shared: Path, seed: int, *, sides: Mapping[int, int]) -> list[Example]:
    return [e for e in needle_scenes.examples(seed, 0.16, sides) if e.split == "train"]


def _needle_scenes(_shared: Path, count: int, *, side: int) -> list[Example]:
    scenes = [NeedleScene(number, side, split="test") for number in range(count)]
    return [Example(NeedlePyramid(scene), scene.label, "test", boxes=(scene.box,)) for scene in scenes]


def _windows(shared: Path, seed: int) -> list[Example]:
    return oddcell.windows(shared / ZIP, seed)


def _smears(shared: Path, seed: int) -> list[Example]:
    return oddcell.scenes(shared / ZIP, seed, empty=0.25)


def _test_smears(shared: Path, count: int) -> list[Example]:
    return smear.examples(shared / ZIP, "test", count, seed0=oddcell.TEST)


TASKS = {
    "needle": Task(
        partial(_needle, sides={64: 6000}),
        32,
        partial(_needle, sides={256: 6000}),
        partial(_needle_scenes, side=256),
        replace(needle_model.OPTIONS, epochs=16),
        budget=5,
    ),
    "needle-1024": Task(
        partial(_needle, sides={64: 6000}),
        32,
        partial(_needle, sides={256: 4000, 1024: 12000}),
        partial(_needle_scenes, side=1024),
        replace(needle_model.OPTIONS, epochs=36),
        budget=20,
    ),
    "oddcell": Task(
        _windows, 20, _smears, _test_smears, replace(oddcell.LOOKING, epoch_images=400, epochs=24), budget=20
    ),
}


def measure(
    model: Model, examples: Sequence[Example], budget: int, scorer: str, seed: int
) -> dict[str, float]:
    """Search every scene with a budget; accuracy, hits and what was read."""
    run = Pass("random" if scorer == "random" else "best-first", str(budget))
    told = _told(model, examples) if scorer == "oracle" else None
    found = []
    for number, example in enumerate(examples):
        if told is not None:
            told(number)
        found += [
            kept
            for kept, _ in outcomes(
                [example], model, run, on_error="raise", device="cpu", threads=1, seed=seed
            )
        ]
    right = [np.argmax(one.scores) == one.truth for one in found]
    return {
        "accuracy": float(np.mean(right)),
        "hit": float(np.mean([bool(one.hit) for one in found])),
        "glimpses": float(np.mean([one.glimpses for one in found])),
        "fraction_read": float(np.mean([one.fraction_read for one in found])),
    }


def _told(model: Model, examples: Sequence[Example]) -> Callable[[int], None]:
    """Let a model know which cells are on the target of the scene it is at."""
    net: Any = model.net
    plain, at = net.glimpse, [0]

    def glimpse(*given: Any, **named: Any) -> Glimpses:
        seen = plain(*given, **named)
        on = cells_on_target(seen.cells, np.array(examples[at[0]].boxes))
        logits = torch.from_numpy(np.where(on, 10.0, -10.0)).to(seen.cell_logits)
        return replace(seen, cell_logits=logits.masked_fill(seen.cell_logits.isinf(), -torch.inf))

    net.glimpse = glimpse
    return lambda number: at.__setitem__(0, number)


def trained(
    folder: Path, shared: Path, task: Task, scorer: str, seed: int, estimator: str | None, epochs: int | None
) -> tuple[Model, float]:
    """The model of a scorer and seed, trained unless it is there; and the CPU-seconds of both trainings."""
    first = folder.with_name(f"{folder.name.split('-')[0]}-first-{seed}")
    if not (first / "metrics.csv").exists():
        needle_model.train(
            task.first(shared, seed), first, replace(task.options, seed=seed, epochs=task.first_epochs)
        )
    start = load_model(first)
    if not (folder / "metrics.csv").exists():
        torch.manual_seed(seed)
        config = replace(start.config, scorer=scorer, scoring=ScorerConfig())
        net = build_model(config)
        net.load_state_dict(
            {k: v for k, v in start.net.state_dict().items() if not k.startswith("scorer.")}, strict=False
        )
        blank = folder.with_name(f"{folder.name}-start")
        save_model(replace(start, net=net, config=config), blank)
        given = {
            "scorer": scorer,
            "seed": seed,
            "init_from": str(blank),
            "epochs": epochs or task.options.epochs,
        }
        options = replace(task.options, **given, **({"estimator": estimator} if estimator else {}))
        needle_model.train(task.train(shared, seed), folder, options)
    model = load_model(folder)
    return model, start.training["cpu_seconds"] + model.training["cpu_seconds"]


@click.command()
@click.option("-o", "--output", required=True, type=click.Path(path_type=Path))
@click.option("--task", "name", default="needle", type=click.Choice(list(TASKS)))
@click.option("--scorer", "scorers", multiple=True, type=click.Choice(SCORERS))
@click.option("--seed", "seeds", multiple=True, type=int)
@click.option("--estimator", help="How the task reaches the scores; default: the scorer's.")
@click.option("--epochs", type=int)
@click.option("--scenes", default=200)
@click.option("--shared", default="../shared", type=click.Path(path_type=Path), help="Shared data.")
@click.option("--keep/--dry", default=True, help="Whether to store the results.")
def main(
    output: Path,
    name: str,
    scorers: tuple[str, ...],
    seeds: tuple[int, ...],
    estimator: str | None,
    epochs: int | None,
    scenes: int,
    shared: Path,
    *,
    keep: bool,
) -> None:
    """Train, measure and store."""
    torch.set_num_threads(1)
    task = TASKS[name]
    examples = task.test(shared, scenes)
    for seed in seeds or (0, 1, 2):
        for scorer in scorers or SCORERS:
            own = "location" if scorer in ("random", "oracle") else scorer
            folder = output / f"{name}-{own}-{estimator or 'default'}-{seed}"
            model, seconds = trained(folder, shared, task, own, seed, estimator, epochs)
            key = {"task": name, "scorer": scorer, "estimator": estimator or "default", "seed": seed}
            figures = measure(model, examples, task.budget, scorer, seed)
            row = {**key, **figures, "budget": task.budget, "scenes": scenes,
                   "training_cpu_seconds": seconds}  # fmt: skip
            print(row, flush=True)
            if keep:
                rows = (load("scorers") or {}).get("rows", [])
                store("scorers", rows=[r for r in rows if any(r[k] != key[k] for k in key)] + [row])


if __name__ == "__main__":
    main()
