"""How the task reaches the scores: every estimator on the needle task at 1,024 px, same network and scenes.

    python benchmarks/estimators.py train RECIPE -o OUT [--seed 0]
    python benchmarks/estimators.py measure RECIPE=OUT [RECIPE=OUT …]    # puts rows beside the stored ones

A recipe is that of `needle_model.py` but for what its name says; `exhaustive` (see `exhaustive.py`) looks at every
place. Measured on scenes of the test split: the best (4, 2) cells, 13 looks, which is how training looks; and the
search of `hiresattn classify`, which stops when it is sure.
"""

import csv
from dataclasses import replace
from pathlib import Path
from typing import Any

import click
import torch

import exhaustive
import needle
import needle_model
from hiresattn import load_model
from hiresattn.demo.needle import NeedleScene
from hiresattn.training.options import TrainOptions
from scenes import needle as needle_scenes
from store import load, store

_OURS = needle_model.OPTIONS
#: The paper's rule: the best cells, always all of them; normalised scores; a running mean as the baseline.
_PUBLISHED = replace(
    _OURS,
    estimator="reinforce",
    select="best",
    vary_k=False,
    normalize_scores=True,
    detach_scorer=True,
)
#: The paper's rule with what helps it: sampled cells, a learned temperature, ten times the weight.
_HELPED = replace(_PUBLISHED, select="sample", normalize_scores=False, reinforce_weight=1.0)
RECIPES: dict[str, TrainOptions] = {
    "straight-through": _OURS,
    "straight-through-stopped": replace(_OURS, detach_scorer=True),
    "reinforce-loo": replace(_OURS, estimator="reinforce-loo", detach_scorer=True),
    "published": _PUBLISHED,
    "published-helped": _HELPED,
    "published-helped-longer": replace(_HELPED, vary_k=True, epochs=126),
    "random": replace(_OURS, scorer="random"),
}
EXHAUSTIVE = "exhaustive"


@click.group()
def main() -> None:
    """Train, measure and store."""
    torch.set_num_threads(1)


@main.command()
@click.argument("recipe", type=click.Choice(list(RECIPES)))
@click.option("-o", "--output", required=True, type=click.Path())
@click.option("--seed", default=0)
def train(recipe: str, output: str, seed: int) -> None:
    """Train and save."""
    needle_model.train(needle_scenes.examples(seed, 0.16), output, replace(RECIPES[recipe], seed=seed))


@main.command()
@click.argument("models", nargs=-1, required=True, metavar="RECIPE=OUT …")
@click.option("--scenes", default=150)
def measure(models: tuple[str, ...], scenes: int) -> None:
    """Measure models and store their rows."""
    kept = (load("estimators") or {"rows": []})["rows"]
    for recipe, _, path in (model.partition("=") for model in models):
        if recipe not in (*RECIPES, EXHAUSTIVE):
            raise click.BadParameter(f"{recipe} is none of {', '.join(RECIPES)}, {EXHAUSTIVE}")
        row = measured(recipe, path, scenes)
        kept = [old for old in kept if (old["recipe"], old["seed"]) != (recipe, row["seed"])] + [row]
        print(row, flush=True)
    order = [EXHAUSTIVE, *RECIPES]
    kept.sort(key=lambda row: (order.index(row["recipe"]), row["seed"]))
    print(store("estimators", scenes=scenes, rows=kept))


def measured(recipe: str, path: str, scenes: int) -> dict[str, Any]:
    """A model's row."""
    model = load_model(path)
    asked = [NeedleScene(number, 1024, split="test") for number in range(scenes)]
    needle.warm_up(model)
    policies: dict[str, dict[str, Any]] = {"top-k": {"policy": "top-k"}, "search": {}}
    if recipe == EXHAUSTIVE:
        policies = {"every place": exhaustive.ALL}
    facts = model.training
    with (Path(path) / "metrics.csv").open(encoding="utf-8") as stream:
        spent = float(
            list(csv.DictReader(stream))[-1]["cpu_seconds"]
        )  # after the last epoch, whichever is kept
    return {
        "recipe": recipe,
        "seed": facts["seed"],
        "training_cpu_seconds": spent,
        "epochs": facts["options"]["epochs"],
        "versions": facts["versions"],
        "policies": {name: needle.measure(model, asked, **options) for name, options in policies.items()},
    }


if __name__ == "__main__":
    main()
