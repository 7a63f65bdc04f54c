"""The plain alternative on the needle task: look at every place, pool all of them by gated attention.

    python benchmarks/exhaustive.py train -o OUT [--seed 0]
    python benchmarks/exhaustive.py measure -m OUT [-m …]

The encoder, the crops and the classifier are those of the model that looks; the regions are of 64 px and overlap
by a quarter (21 x 21 in 1,024 px), so that few needles are cut in two. Training goes from 64 over 256 to 1,024 px,
for about the CPU-seconds that the looking model gets.
"""

from dataclasses import replace
from typing import Any

import click
import torch

import needle
import needle_model
from hiresattn import load_model
from hiresattn.demo.needle import NeedleScene
from hiresattn.inference.budget import Budget
from scenes import needle as needle_scenes
from store import store

#: Training scenes per side: one epoch of 64 and of 256 px, two of 1,024 px.
SCENES = {64: 9000, 256: 3000, 1024: 600}
OPTIONS = replace(
    needle_model.OPTIONS, root_size=64, finest=64, overlap=0.25, epochs=4, epoch_images=None, glimpse_loss=0.0
)
#: Every place, and no stop: asking whether it is sure after each part would cost more than looking on.
ALL: dict[str, Any] = {"budget": Budget(), "stop": None}


@click.group()
def main() -> None:
    """Train, measure and store."""
    torch.set_num_threads(1)


@main.command()
@click.option("-o", "--output", required=True, type=click.Path())
@click.option("--seed", default=0)
def train(output: str, seed: int) -> None:
    """Train and save."""
    given = needle_scenes.examples(seed, 0.16, SCENES)
    given = given[
        : sum(SCENES.values()) + 15
    ]  # looking at every place of the validation scenes costs time too
    needle_model.train(given, output, replace(OPTIONS, seed=seed))


@main.command()
@click.option("-m", "--model", "models", multiple=True, required=True)
@click.option("--scenes", default="64:150,256:150,1024:150,4096:20", help="Side:scenes, …")
def measure(models: tuple[str, ...], scenes: str) -> None:
    """Measure and store."""
    rows = []
    for path in models:
        model = load_model(path)
        needle.warm_up(model)
        for part in scenes.split(","):
            side, count = map(int, part.split(":"))
            asked = [NeedleScene(number, side, split="test") for number in range(count)]
            row = needle.measure(model, asked, **ALL)
            seed, spent = model.training["seed"], model.training["cpu_seconds"]
            rows.append({"policy": "exhaustive", "seed": seed, "training_cpu_seconds": spent, **row})
            print(rows[-1], flush=True)
    print(store("exhaustive", rows=rows))


if __name__ == "__main__":
    main()
