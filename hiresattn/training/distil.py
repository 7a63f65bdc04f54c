"""Teacher and student: a model that looks everywhere teaches another where to look. Image labels are enough.

1. *Teacher*: pools every finest region, from image labels; on small images first, then on larger ones.
2. *Regions*: it looks at every finest region of the images to train on, and tells which show the label.
3. *Coarse*: a coarse encoder learns that from the coarse view: each of its px has a target.
4. *Search*: the whole is trained on its own choices.
5. *Calibration*: a temperature, and accuracy against budget, on the validation images.
"""

import math
import shutil
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from hiresattn.checkpoint import load_model, update_training
from hiresattn.datasets.example import Example, classes_in
from hiresattn.errors import ConfigError, OpenError, ReadError
from hiresattn.evaluation.run import evaluate
from hiresattn.geometry import Grid, depth_count, root_regions
from hiresattn.inference.cover import finest_count
from hiresattn.inference.locate import locate, located
from hiresattn.pyramid import open_pyramid
from hiresattn.training.fit import fit
from hiresattn.training.inputs import chosen_encoder, earlier_card
from hiresattn.training.log import EpochRecord
from hiresattn.training.options import TrainOptions
from hiresattn.training.setup import split_examples
from hiresattn.training.state import STATE, check_folder

#: Finest regions of an image that the teacher is trained on, where there are smaller and larger ones: one label tells
#: less of each region, the more it is of.
FEW_REGIONS = 16
#: Images are trained on in groups, each of up to this many times more regions than the last.
GROWTH = 4
#: The coarse encoder is trained on crops of root regions alone: batches have this many times more images.
COARSE_BATCH = 3
#: Learning rates of the teacher's and the search's training, as shares of the coarse encoder's.
TEACHER_LR, SEARCH_LR = 2 / 3, 0.5
#: Budgets, in glimpses, at which the card has the accuracy.
BUDGETS = (4, 8, 16, 32, 64)
#: Directory of the steps' models, in that of the model.
STEPS = "steps"


@dataclass(frozen=True)
class StepRecord:
    """An epoch of one of the trainings."""

    step: str
    """``teacher 1`` (and so on), ``coarse`` or ``search``."""
    epoch: EpochRecord


@dataclass(frozen=True)
class _Sized:
    """An image, and how large it is."""

    example: Example
    regions: int
    """Finest regions that cover it."""
    short_side: int
    """Level-0 px."""
    depths: int
    """Depths from its root regions to the finest."""


def distil(
    examples: Sequence[Example],
    output: str | Path,
    options: TrainOptions,
    *,
    resume: bool = False,
    overwrite: bool = False,
    on_message: Callable[[str], None] = lambda _message: None,
    progress: Callable[[float, str], None] = lambda _share, _step: None,
) -> Iterator[StepRecord]:
    """Train a teacher that looks everywhere, and a student that searches where the teacher found the labels.

    Every step has ``options.epochs``. The steps' models stay in ``OUTPUT/steps``; an interrupted run goes on where it
    was. The model's card has the accuracy of teacher and student on the validation images.

    Args:
        examples: Labelled images with splits ``train`` and ``val`` (others are ignored); no boxes are needed. Small
            images, of a few finest regions, help the teacher most.
        output: Model directory to make.
        options: How to train; see ``RECIPES``. ``background`` has to be named.
        resume: Go on from what the directory holds.
        overwrite: Train anew in a directory that isn't empty. Without either, it is refused.
        on_message: Called with sentences that are worth showing.
        progress: Called with the share done, 0 to 1, and the step.

    Yields:
        A record per epoch of each training.

    Raises:
        ConfigError: If the examples can't be trained on, no image is larger than a finest region, or the directory
            isn't empty.
        HiresattnError: If an image can't be read.
    """
    folder = Path(output)
    if options.background is None:
        raise ConfigError(
            "the recipe distil needs the class of images that show nothing to find; name it with background"
        )
    check_folder(folder, resume=resume, overwrite=overwrite)
    steps = folder / STEPS
    if overwrite and not resume and steps.is_dir():
        shutil.rmtree(steps)
    train, held_out, options = split_examples(examples, options)
    begun = earlier_card(options, steps / "teacher-1" if resume else None)
    _, options = chosen_encoder(
        replace(options, fold=None, recipe=None), begun, resume=resume
    )  # the side of its crops
    known, val = (_sized(part, options, on_message) for part in (train, held_out))
    searched = _searched(known, options)
    if not searched:
        raise ConfigError(
            f"no image to train on is larger than a finest region ({_finest(options)} px); there is nothing to search"
        )
    groups = _groups(known)
    plan = _Plan(
        [*(f"teacher {n}" for n in range(1, len(groups) + 1)), "regions", "coarse", "search"], progress
    )

    def run(step: str, part: Sequence[Example], own: TrainOptions, path: Path) -> Iterator[StepRecord]:
        begun = (path / STATE).is_file()
        for record in fit(
            part, path, replace(own, name=options.name or folder.resolve().name),
            resume=begun, overwrite=not begun, on_message=on_message, progress=plan.within(step),
        ):  # fmt: skip
            yield StepRecord(step, record)
        plan.done(step)

    before = options.init_from
    found: list[tuple[float, Path]] = []
    for number, group in enumerate(groups):
        path = steps / f"teacher-{number + 1}"
        part = [one.example for one in group] + _validating(val, group)
        yield from run(f"teacher {number + 1}", part, _teacher_options(options, group, before), path)
        before = str(path)
        found.append((_exhaustive_accuracy(path, _largest(val), options), path))
    accuracy, teacher = max(found, key=lambda one: one[0])
    guided = _located([one.example for one in searched], teacher, steps, options, plan)
    plan.done("regions")
    same = [one.example for one in _searched(val, options)] or [one.example for one in val]
    coarse = steps / "coarse"
    flat = max(one.depths for one in searched) <= 2  # only root regions are divided
    yield from run("coarse", guided + same, _coarse_options(options, teacher, flat=flat), coarse)
    single = [one.example for one in known if one.regions == 1]
    yield from run("search", single + guided + same, _search_options(options, coarse), folder)
    if same:
        update_training(folder, {"distilled": _figures(folder, teacher, accuracy, same, options)})
    progress(1.0, "calibration")


def _teacher_options(options: TrainOptions, group: Sequence[_Sized], before: str | None) -> TrainOptions:
    """How the teacher is trained on images of a size: about as many regions in an epoch as with the smallest."""
    larger = max(round(math.log(max(one.regions for one in group), GROWTH)), 0)
    epoch_images = options.epoch_images and max(options.epoch_images >> larger, 1)
    return replace(
        options,
        root_size=_finest(options),
        coarse_encoder=False,
        position=False,
        k=(0,),
        glimpse_loss=0.0,
        lr=options.lr * TEACHER_LR,
        init_from=before,
        epoch_images=epoch_images,
        batch_size=max(options.batch_size * 2 >> larger, 2),
    )


def _coarse_options(options: TrainOptions, teacher: Path, *, flat: bool) -> TrainOptions:
    """How the coarse encoder is trained; ``flat``: only root regions are divided, so none below needs a visit."""
    return replace(
        options,
        coarse_encoder=True,
        k=(0,) if flat else options.k,
        init_from=str(teacher),
        batch_size=options.batch_size * (COARSE_BATCH if flat else 1),
    )


def _search_options(options: TrainOptions, coarse: Path) -> TrainOptions:
    """How the whole is trained on its own choices; the smallest images only are rehearsed."""
    return replace(
        options, coarse_encoder=True, init_from=str(coarse), lr=options.lr * SEARCH_LR, stage_accuracy=0.0
    )


def _finest(options: TrainOptions) -> int:
    assert options.crop_size is not None  # noqa: S101 - chosen with the encoder
    return options.finest or options.crop_size


def _sized(
    examples: Sequence[Example], options: TrainOptions, on_message: Callable[[str], None]
) -> list[_Sized]:
    """Images and how large they are; those that can't be opened are left out where the options say so."""
    grid, finest, found = Grid(options.grid, options.fraction), _finest(options), []
    for example in examples:
        try:
            height, width = _extent(example)
        except (OpenError, ReadError) as error:
            if options.on_error == "raise":
                raise
            on_message(f"Skipped: {error}")
            continue
        depths = depth_count(root_regions(height, width, root_size=options.root_size), grid, finest)
        found.append(_Sized(example, finest_count(height, width, finest), min(height, width), depths))
    return found


def _extent(example: Example) -> tuple[int, int]:
    """Height and width of an image, or of its window, level-0 px."""
    if example.region is not None:
        return example.region[2:]
    pyramid = open_pyramid(example.source, mpp=example.mpp)
    try:
        return pyramid.height, pyramid.width
    finally:
        if pyramid is not example.source:
            pyramid.close()


def _groups(images: Sequence[_Sized]) -> list[list[_Sized]]:
    """Images that the teacher is trained on, from small to large, each group with at least half of the classes."""
    by_size: dict[int, list[_Sized]] = {}
    for one in images:
        by_size.setdefault(math.ceil(math.log(one.regions, GROWTH) - 1e-9), []).append(one)
    classes = len({name for one in images for name in classes_in(one.example)})
    groups: list[list[_Sized]] = []
    for _, same in sorted(by_size.items()):
        if groups and not all(2 * _class_count(group) >= classes for group in (groups[-1], same)):
            groups[-1] = groups[-1] + same
        else:
            groups.append(same)
    few = [group for group in groups if max(one.regions for one in group) <= FEW_REGIONS]
    return few or groups[:1]


def _class_count(group: Sequence[_Sized]) -> int:
    return len({name for one in group for name in classes_in(one.example)})


def _searched(images: Sequence[_Sized], options: TrainOptions) -> list[_Sized]:
    """Images that the student learns to search: those of at least a root region's size, if there are any."""
    several = [one for one in images if one.regions > 1]
    return [one for one in several if one.short_side >= (options.root_size or 0)] or several


def _validating(val: Sequence[_Sized], group: Sequence[_Sized]) -> list[Example]:
    """Validation images as large as a group's; without any, the smallest of the larger ones, or all."""
    most = max(one.regions for one in group)
    least = min(one.regions for one in group)
    same = [one for one in val if least <= one.regions <= most]
    if not same:
        next_larger = min((one.regions for one in val if one.regions > most), default=0)
        same = [one for one in val if one.regions == next_larger] or list(val)
    return [one.example for one in same]


def _largest(val: Sequence[_Sized]) -> list[Example]:
    """Validation images of the largest size that most have in common."""
    if not val:
        return []
    counts = sorted(one.regions for one in val)
    return [one.example for one in val if one.regions >= counts[-max(len(counts) // 4, 1)]]


def _exhaustive_accuracy(path: Path, examples: Sequence[Example], options: TrainOptions) -> float:
    """Share of the images that a model classifies rightly by looking at every finest region; 0 without any."""
    if not examples:
        return 0.0
    found = evaluate(
        load_model(path), examples, split="val", budgets=(1,), policies=("exhaustive",), budget=1, bootstrap=0,
        device=options.device, threads=max(options.threads, 1), on_error=options.on_error,
    )  # fmt: skip
    return float(found.curve[0].accuracy.value or 0.0)


def _located(
    examples: Sequence[Example], teacher: Path, steps: Path, options: TrainOptions, plan: "_Plan"
) -> list[Example]:
    """The images with the regions that show their label; kept in ``steps/regions.csv`` where all are files."""
    how: dict[str, Any] = {"device": options.device, "threads": options.threads, "on_error": options.on_error}
    update = plan.within("regions")
    if all(isinstance(example.source, str | Path) for example in examples):
        table = steps / "regions.csv"
        part = Path(f"{table}.part")
        return list(
            locate(
                examples, teacher, table, resume=part.exists(), overwrite=not part.exists(),
                progress=lambda share, _name: update(share), **how,
            ).examples
        )  # fmt: skip
    model, found = load_model(teacher), []
    for example in located(examples, model, **how):
        found.append(example)
        update(len(found) / len(examples))
    return found


def _figures(
    folder: Path, teacher: Path, accuracy: float, examples: Sequence[Example], options: TrainOptions
) -> dict[str, Any]:
    """What the card has of teacher and student, on the validation images."""
    how: dict[str, Any] = {
        "split": "val", "bootstrap": 0, "device": options.device, "threads": max(options.threads, 1),
        "on_error": options.on_error,
    }  # fmt: skip
    evaluate(str(folder), examples, calibrate=True, **how)
    found = evaluate(str(folder), examples, budgets=BUDGETS, policies=("best-first",), **how)
    return {
        "images": found.classified,
        "teacher": {"model": str(teacher.relative_to(folder)), "accuracy": accuracy},
        "student": {
            "accuracy": found.main.accuracy.value,
            "glimpses": found.main.glimpses,
            "fraction_read": found.main.fraction_read,
        },
        "by_budget": [
            {"budget": int(point.budget or 0), "accuracy": point.accuracy.value, "glimpses": point.glimpses}
            for point in found.curve
        ],
    }


class _Plan:
    """Share of the whole that is done, with an equal part for every step."""

    def __init__(self, steps: Sequence[str], progress: Callable[[float, str], None]) -> None:
        self._steps = list(steps)
        self._progress = progress

    def within(self, step: str) -> Callable[[float], None]:
        """Report the share of a step that is done."""
        number = self._steps.index(step)
        return lambda share: self._progress((number + share) / len(self._steps), step)

    def done(self, step: str) -> None:
        """Report that a step is done."""
        self.within(step)(1.0)
