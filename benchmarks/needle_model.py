"""Train the model that ships with the package on the needle task, with the project's own `fit`.

    python benchmarks/needle_model.py -o OUT [--seed 0]

The scenes are synthetic and rendered when read. Training sees sides of 64 to 1024 px only.
"""

import click
import torch

from hiresattn.manifest import Example
from hiresattn.needle import NeedlePyramid, NeedleScene
from hiresattn.train.loop import fit
from hiresattn.train.options import TrainOptions

#: Training scenes per side.
SCENES = {64: 6000, 128: 1000, 256: 4000, 512: 4000, 1024: 12000}
EPOCHS, EPOCH_IMAGES = 84, 384


def examples(seed: int, hint: float) -> list[Example]:
    """Scenes of every side for training, and 60 of 1024 px for validation."""
    scenes = [
        NeedleScene(seed * 1_000_000 + number, side, hint)
        for side, count in SCENES.items()
        for number in range(count)
    ]
    scenes += [NeedleScene(number, 1024, hint, "val") for number in range(60)]
    return [Example(NeedlePyramid(scene), scene.label, scene.split) for scene in scenes]


@click.command()
@click.option("-o", "--output", required=True, type=click.Path())
@click.option("--seed", default=0)
@click.option("--epochs", default=EPOCHS)
@click.option("--hint", default=0.16)
def main(output: str, seed: int, epochs: int, hint: float) -> None:
    """Train, printing a line per epoch."""
    torch.set_num_threads(1)  # CPU-seconds are then those of the work, not of waiting threads
    options = TrainOptions(
        epochs=epochs, epoch_images=EPOCH_IMAGES, seed=seed, threads=0, name="needle", value_range=(0, 255)
    )
    for record in fit(examples(seed, hint), output, options):
        print(
            f"{record.epoch}/{record.epochs} stage {record.stage}/{record.stages} loss {record.loss:.3f} "
            f"accuracy {record.accuracy:.3f} val {record.val_accuracy:.3f} glimpses {record.glimpses:.1f} "
            f"cpu {record.cpu_seconds:.0f} s",
            flush=True,
        )


if __name__ == "__main__":
    main()
