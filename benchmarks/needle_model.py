"""Train the model that ships with the package on the needle task, with the project's own `fit`.

    python benchmarks/needle_model.py -o OUT [--seed 0]

The scenes are synthetic and rendered when read. Training sees sides of 64 to 1024 px only.
"""

from dataclasses import replace
from pathlib import Path

import click
import torch

from hiresattn.datasets.example import Example
from hiresattn.training.fit import fit
from hiresattn.training.log import EpochRecord
from hiresattn.training.options import TrainOptions
from scenes.needle import examples

#: The recipe.
OPTIONS = TrainOptions(epochs=84, epoch_images=384, threads=0, name="needle", value_range=(0, 255))


def train(given: list[Example], output: str | Path, options: TrainOptions) -> EpochRecord:
    """Train, printing a line per epoch; the last record."""
    torch.set_num_threads(1)  # CPU-seconds are then those of the work, not of waiting threads
    for record in fit(given, output, options):
        print(
            f"{record.epoch}/{record.epochs} stage {record.stage}/{record.stages} loss {record.loss:.3f} "
            f"accuracy {record.accuracy:.3f} val {record.val_accuracy or 0:.3f} glimpses {record.glimpses:.1f} "
            f"cpu {record.cpu_seconds:.0f} s",
            flush=True,
        )
    return record


@click.command()
@click.option("-o", "--output", required=True, type=click.Path())
@click.option("--seed", default=0)
@click.option("--epochs", default=OPTIONS.epochs)
@click.option("--hint", default=0.16)
def main(output: str, seed: int, epochs: int, hint: float) -> None:
    """Train and save."""
    train(examples(seed, hint), output, replace(OPTIONS, epochs=epochs, seed=seed))


if __name__ == "__main__":
    main()
