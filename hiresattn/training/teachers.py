"""The teachers of a distillation: models that look everywhere, trained on small images first."""

import math
from collections.abc import Callable, Generator, Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TypeVar

from hiresattn.datasets.example import Example
from hiresattn.training.curriculum import BATCH
from hiresattn.training.distil_figures import exhaustive_accuracy, tells_labels
from hiresattn.training.optim import largest_lr
from hiresattn.training.options import TrainOptions
from hiresattn.training.sizes import (
    GROWTH,
    Sized,
    examples_in,
    finest_side,
    largest_images,
    sized,
    validating_images,
)
from hiresattn.training.windows import windows_of

#: Learning rate of a teacher's training, as a share of the coarse encoder's.
TEACHER_LR = 2 / 3
_Record = TypeVar("_Record")


def train_teachers(
    groups: Sequence[Sequence[Sized]],
    sides: Sequence[int],
    val: Sequence[Sized],
    options: TrainOptions,
    steps: Path,
    run: Callable[[str, Sequence[Example], TrainOptions, Path], Iterator[_Record]],
    *,
    on_message: Callable[[str], None],
    progress: Callable[[str], Callable[[float], None]],
) -> Generator[_Record, None, tuple[Path, tuple[Sized, ...]]]:
    """Train the teachers: on groups of images one after the other, or on windows where the images are large.

    Args:
        groups: The images, from small to large.
        sides: Sides of the regions in which windows are found before, coarsest first; none = the images are small.
        val: Validation images.
        options: How to train.
        steps: Directory of the models.
        run: Trains a model: its name, its images, how, and its directory.
        on_message: Called with sentences that are worth showing.
        progress: Gives, for the name of a step, what is called with its share done.

    Yields:
        What ``run`` yields.

    Returns:
        Directory of the best teacher, and the windows that it was trained on.
    """
    before, cut = options.init_from, tuple[Sized, ...]()
    for number, side in enumerate(sides, 1):
        step, own = f"windows {number}", replace(options, finest=side, root_size=side)
        path = steps / step.replace(" ", "-")
        seen = sized(examples_in(cut or groups[0]), own, on_message)
        yield from run(step, examples_in(seen) + examples_in(val), teacher_options(own, seen, before), path)
        before = str(path)
        lines = path.with_suffix(".jsonl")
        if not (lines.exists() or tells_labels(path, val, options)):
            on_message(
                f"Regions of {side} px don't tell the validation images' labels; smaller ones are next"
            )
            continue
        windows = windows_of(
            examples_in(groups[0]), path, lines, options,
            on_message=on_message, progress=progress(f"regions {number}"),
        )  # fmt: skip
        if bare := {one.label for one in examples_in(groups[0])} - {one.label for one in windows} - {None}:
            on_message(
                f"Regions of {side} px show no {' and no '.join(map(str, bare))}; smaller ones are next"
            )
            continue
        cut = tuple(sized(windows, options, on_message))
    if not cut:
        before = options.init_from
    found: list[tuple[float, Path]] = []
    judged = largest_images(val) if len(groups) > 1 else []  # a single teacher isn't chosen
    for number, group in enumerate((cut,) if cut else groups):
        path = steps / f"teacher-{number + 1}"
        part = examples_in(group) + validating_images(val, group)
        yield from run(f"teacher {number + 1}", part, teacher_options(options, group, before), path)
        before = str(path)
        found.append((exhaustive_accuracy(path, judged, options), path))
    return max(found, key=lambda one: one[0])[1], cut


def first_step(steps: Path) -> Path:
    """Directory of the model of the first step, whether it is there or not."""
    windows = steps / "windows-1"
    return windows if windows.is_dir() else steps / "teacher-1"


def teacher_options(options: TrainOptions, group: Sequence[Sized], before: str | None) -> TrainOptions:
    """How the teacher is trained on images of a size: about as many regions in an epoch as with the smallest."""
    larger = max(round(math.log(max(one.regions for one in group), GROWTH)), 0)
    epoch_images = options.epoch_images and max(options.epoch_images >> larger, 1)
    return replace(
        options,
        root_size=finest_side(options),
        coarse_encoder=False,
        position=False,
        k=(0,),
        glimpse_loss=0.0,
        lr=largest_lr(options) * TEACHER_LR,
        init_from=before,
        epoch_images=epoch_images,
        batch_size=max((options.batch_size or BATCH) * 2 >> larger, 2),
    )
