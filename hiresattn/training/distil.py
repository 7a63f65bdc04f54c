"""Teacher and student: a model that looks everywhere teaches another where to look. Image labels are enough.

1. *Teacher*: pools every finest region, from image labels; on small images first, then on larger ones. Where there are
   no small ones, windows of the large ones that show the label are found, from coarse to fine, and are the small ones.
2. *Regions*: it looks at every finest region of the images to train on, and tells which show the label.
3. *Coarse*: a coarse encoder learns that from the coarse view: each of its px has a target.
4. *Search*: the whole is trained on its own choices.
5. *Calibration*: a temperature, and accuracy against budget, on the validation images.
"""

import shutil
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from hiresattn.card import Card, read_card
from hiresattn.checkpoint import load_model, update_training
from hiresattn.datasets.example import Example
from hiresattn.datasets.manifest import read_manifest
from hiresattn.errors import ConfigError
from hiresattn.inference.locate import locate, located
from hiresattn.training.curriculum import BATCH
from hiresattn.training.distil_figures import teacher_and_student
from hiresattn.training.feature_model import head_options
from hiresattn.training.features import fit_features
from hiresattn.training.fit import fit
from hiresattn.training.inputs import chosen_encoder, earlier_card
from hiresattn.training.log import EpochRecord
from hiresattn.training.optim import largest_lr
from hiresattn.training.options import TrainOptions
from hiresattn.training.scale import training_scale
from hiresattn.training.setup import split_examples
from hiresattn.training.sizes import (
    Sized,
    examples_in,
    finest_side,
    searched_images,
    size_groups,
    sized,
)
from hiresattn.training.state import STATE, check_folder
from hiresattn.training.teachers import first_step, train_teachers
from hiresattn.training.windows import coarser_sides

#: The coarse encoder is trained on crops of root regions alone: batches have this many times more images.
COARSE_BATCH = 3
#: Learning rate of the search's training, as a share of the coarse encoder's.
SEARCH_LR = 0.5
#: An epoch of a head on features costs next to nothing: it has this many times more of them.
HEAD_EPOCHS = 4
#: Directory of the steps' models, in that of the model.
STEPS = "steps"


@dataclass(frozen=True)
class StepRecord:
    """An epoch of one of the trainings."""

    step: str
    """``windows 1``, ``teacher 1`` (and so on), ``coarse`` or ``search``."""
    epoch: EpochRecord


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
            images, of a few finest regions, help the teacher most; without any, and with a background class, windows of
            the large ones take their place.
        output: Model directory to make.
        options: How to train; see ``RECIPES``. With ``background`` the teacher pools likelihood ratios against it,
            else by gated attention.
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
    train, held_out, options = split_examples(examples, options)
    check_folder(folder, resume=resume, overwrite=overwrite)
    steps = folder / STEPS
    if overwrite and not resume and steps.is_dir():
        shutil.rmtree(steps)
    first, on_features = steps / "teacher-1", options.features is not None
    if on_features:
        yield from _feature_teacher(examples, first, options, resume=resume, on_message=on_message)
        options = _as_features(options, read_card(first))
    begun = earlier_card(options, first_step(steps) if resume or on_features else None)
    _check_epochs(begun if resume else None, options, HEAD_EPOCHS if on_features else 1)
    _, options = chosen_encoder(
        replace(options, fold=None, recipe=None), begun, resume=resume
    )  # the side of its crops
    at, train, held_out = training_scale(train, held_out, options, begun, on_message)
    options = replace(options, mpp=at or "off")
    known, val = (sized(part, options, on_message) for part in (train, held_out))
    searched = searched_images(known, options)
    if not searched:
        raise ConfigError(
            f"no image to train on is larger than a finest region ({finest_side(options)} px): nothing to search"
        )
    groups = [] if on_features else size_groups(known)
    sides = coarser_sides(groups[0], options) if groups else []
    if (first / STATE).is_file() and not (steps / "windows-1").is_dir():
        sides = []  # the run was begun before windows were looked for
    plan = _Plan(
        [
            *(f"{step} {n}" for n in range(1, len(sides) + 1) for step in ("windows", "regions")),
            *(f"teacher {n}" for n in range(1, len(groups) + 1)),
            *("regions", "coarse", "search"),
        ],
        progress,
    )

    def run(step: str, part: Sequence[Example], own: TrainOptions, path: Path) -> Iterator[StepRecord]:
        begun = (path / STATE).is_file()
        for record in fit(
            part, path, replace(own, name=options.name or folder.resolve().name),
            resume=begun, overwrite=not begun, on_message=on_message, progress=plan.within(step),
        ):  # fmt: skip
            yield StepRecord(step, record)
        plan.done(step)

    teacher, cut = first, tuple[Sized, ...]()
    if groups:
        teacher, cut = yield from train_teachers(
            groups, sides, val, options, steps, run, on_message=on_message, progress=plan.within
        )
    guided = _located(examples_in(searched), teacher, steps, options, plan)
    plan.done("regions")
    shown = searched_images(val, options) or val
    same = examples_in(shown)
    coarse = steps / "coarse"
    flat = max(one.depths for one in searched) <= 2  # only root regions are divided
    yield from run("coarse", guided + same, _coarse_options(options, teacher, flat=flat), coarse)
    single = examples_in(one for one in (*known, *cut) if one.regions == 1)
    yield from run("search", single + guided + same, _search_options(options, coarse), folder)
    if shown:
        known_accuracy = None  # of all regions, where it is known without reading them
        if on_features and begun:
            known_accuracy = float(begun.training.get("val_accuracy") or 0)
        figures = teacher_and_student(folder, teacher, known_accuracy, shown, options, on_message)
        update_training(folder, {"distilled": figures})
    progress(1.0, "calibration")


def _check_epochs(begun: Card | None, options: TrainOptions, times: int) -> None:
    """Refuse to go on with another number of epochs: each step builds on what the one before it had learnt."""
    there = begun and begun.training.get("options", {}).get("epochs")
    there = there and there // times
    if there not in (None, options.epochs):
        raise ConfigError(
            f"epochs is {there} there and {options.epochs} here, and the steps of a recipe build on each other; resume "
            "with the same, or overwrite"
        )


def _feature_teacher(
    examples: Sequence[Example],
    path: Path,
    options: TrainOptions,
    *,
    resume: bool,
    on_message: Callable[[str], None],
) -> Iterator[StepRecord]:
    """Train a head on features of all regions: the teacher of an encoder that stays as it is. It takes seconds."""
    if resume and (path.parent / "regions.csv").exists():
        return
    name = options.name or path.parent.parent.resolve().name
    own = head_options(replace(options, recipe=None, name=name, epochs=HEAD_EPOCHS * options.epochs))
    for record in fit_features(examples, path, own, overwrite=True, on_message=on_message):
        yield StepRecord("teacher 1", record)


def _as_features(options: TrainOptions, card: Card) -> TrainOptions:
    """How the student is trained whose teacher is a head on features: on crops like theirs, by their encoder."""
    rule = card.config.input
    return replace(
        options,
        features=None,
        encoder=card.config.encoder,
        freeze_encoder=True,
        crop_size=rule.size,
        finest=card.config.finest,
        bands=rule.band_names or tuple(band + 1 for band in rule.bands),
        nodata=rule.nodata,
        mpp=rule.mpp or "off",
    )


def _coarse_options(options: TrainOptions, teacher: Path, *, flat: bool) -> TrainOptions:
    """How the coarse encoder is trained; ``flat``: only root regions are divided, so none below needs a visit."""
    return replace(
        options,
        coarse_encoder=True,
        pool_finest=options.background is None,
        k=(0,) if flat else options.k,
        init_from=str(teacher),
        batch_size=(options.batch_size or BATCH) * (COARSE_BATCH if flat else 1),
    )


def _search_options(options: TrainOptions, coarse: Path) -> TrainOptions:
    """How the whole is trained on its own choices; the smallest images only are rehearsed."""
    return replace(
        options,
        coarse_encoder=True,
        pool_finest=options.background is None,
        init_from=str(coarse),
        lr=largest_lr(options) * SEARCH_LR,
        stage_accuracy=0.0,
    )


def _located(
    examples: Sequence[Example], teacher: Path, steps: Path, options: TrainOptions, plan: "_Plan"
) -> list[Example]:
    """The images with the regions that show their label; kept in ``steps/regions.csv`` where all are files."""
    how: dict[str, Any] = {"device": options.device, "threads": options.threads, "on_error": options.on_error}
    update = plan.within("regions")
    if all(isinstance(example.source, str | Path) for example in examples):
        table = steps / "regions.csv"
        if not table.exists():
            begun = Path(f"{table}.part").exists()
            locate(
                examples, teacher, table, resume=begun, overwrite=not begun,
                progress=lambda share, _name: update(share), **how,
            )  # fmt: skip
        return [  # as a resumed run finds them
            replace(own, boxes=one.boxes, box_labels=one.box_labels, box_confidence=one.box_confidence)
            for own, one in zip(examples, read_manifest(table), strict=True)
        ]
    model, found = load_model(teacher), []
    for example in located(examples, model, **how):
        found.append(example)
        update(len(found) / len(examples))
    return found


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
