"""What a training starts from: its images, how their pixels become input, and what they are like."""

from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np

from hiresattn.card import Domain
from hiresattn.datasets.cases import Case, cases_of
from hiresattn.datasets.example import Example, classes_in, names_of, unlabelled
from hiresattn.datasets.folder import read_examples
from hiresattn.datasets.folds import in_fold
from hiresattn.datasets.splits import with_validation
from hiresattn.errors import ConfigError, HiresattnError, counted
from hiresattn.inference.domain import band_means, resolution, taken_names
from hiresattn.model.scorers import SCORERS
from hiresattn.option_types import did_you_mean
from hiresattn.pyramid.rescaled import stored_image
from hiresattn.reading.bands import rule_for
from hiresattn.reading.fetch import Crops
from hiresattn.training.bands import of_files
from hiresattn.training.batch import Batch
from hiresattn.training.curriculum import BATCH, LEAST_BATCH, STEPS
from hiresattn.training.data import Loader
from hiresattn.training.optim import lr_of_batches
from hiresattn.training.options import TrainOptions
from hiresattn.training.samples import Sample

#: Images that are measured.
MOST_MEASURED = 64


class SkippedImages:
    """Reports images that are left out, each cause once."""

    def __init__(self, on_message: Callable[[str], None]) -> None:
        self.on_message = on_message
        self._reported: set[str] = set()

    def __call__(self, error: HiresattnError) -> None:
        """Report an error, unless it was reported before."""
        if str(error) not in self._reported:
            self._reported.add(str(error))
            self.on_message(f"Skipped: {error}")


def read_training_set(manifest: str | Path, options: TrainOptions) -> list[Example]:
    """Read the images of a manifest, or of a folder, and check that they can be trained on.

    Raises:
        ConfigError: If a row is unusable, or nothing can be learnt from the whole.
        HiresattnError: If it can't be read.
    """
    examples = read_examples(
        manifest, labels=True, multi=options.multi_label, fold=options.fold,
        root=options.root, label_column=options.label_column, seed=options.seed,
    )  # fmt: skip
    check_examples(examples, options, str(manifest))
    return examples


def check_examples(examples: Sequence[Example], options: TrainOptions, name: str) -> None:
    """Check all that can be known of a training set without opening an image.

    Args:
        examples: Of all splits.
        options: How to train.
        name: Of the set, for messages.

    Raises:
        ConfigError: If they can't be trained on.
    """
    train = [example for example in examples if example.split == "train"]
    held_out = [example for example in examples if example.split == "val"]
    if not train:
        raise ConfigError(f"{name}: no rows of split 'train'; without a column split all are")
    folds = sorted({example.fold for example in examples if example.fold and example.fold != "test"})
    if options.fold is None and folds and all(example.split in ("train", "test") for example in examples):
        raise ConfigError(
            f"{name}: a column fold, and nothing says which validates; name one as fold: {', '.join(folds)}"
        )
    for number in unlabelled(train + held_out):
        source = (train + held_out)[number].source
        raise ConfigError(f"{source}: no label; training needs one in every row, or boxes with classes")
    _check_box_labels(train, held_out, options)
    several = (
        []
        if options.per_source
        else [c for c in cases_of(train) if isinstance(c, Case) and len(c.sources) > 1]
    )
    if several and options.cutmix:
        raise ConfigError(
            f"{name}: case {several[0].name!r} has several images, and cutmix pastes one image into another; leave "
            "out cutmix, or take each image for itself (per_source)"
        )
    classes = class_counts(train)
    if not classes:
        raise ConfigError(f"{name}: no image of split 'train' has a label; training needs one or more")
    if len(classes) < 2 and not isinstance(train[0].label, tuple):
        raise ConfigError(f"{name}: one class in split 'train', {min(classes)!r}; training needs two or more")
    for example in held_out:
        for label in sorted(classes_in(example)):
            if label not in classes:
                raise ConfigError(
                    f"{name}: label {label!r} in split 'val' and not in 'train'{did_you_mean(label, classes)}"
                )


def _check_box_labels(train: Sequence[Example], held_out: Sequence[Example], options: TrainOptions) -> None:
    """Check that classes of boxes can be learnt from, and that images have labels where they are needed."""
    for example in [*train, *held_out]:
        boxes, labels = example.boxes or (), example.box_labels
        if labels is not None and len(labels) != len(boxes):
            raise ConfigError(
                f"{example.source}: {len(boxes)} boxes and {len(labels)} classes of boxes; each box needs one"
            )
    with_classes = [e for e in train if e.box_labels is not None]
    if not with_classes:
        return
    if options.cutmix:
        raise ConfigError(
            f"{with_classes[0].source}: its boxes have classes, which doesn't go with cutmix: leave the classes of the "
            "boxes out, or cutmix"
        )
    unnamed = next((e for e in with_classes if e.label is None), None)
    if unnamed and options.estimator.startswith("reinforce"):
        raise ConfigError(
            f"{unnamed.source}: no label; {options.estimator} rewards right answers, so it needs one in every "
            "row: give it, or take straight-through"
        )


def validated(
    examples: Sequence[Example], options: TrainOptions, on_message: Callable[[str], None]
) -> list[Example]:
    """The examples, of which ``options.val_fraction`` validates where none does; reports that, or that nothing will."""
    if options.fold is not None or any(example.split == "val" for example in examples):
        return list(examples)
    examples = with_validation(examples, options.val_fraction, options.seed)
    if held := [example for example in examples if example.split == "val"]:
        on_message(
            f"No row is of split 'val': {len(held)} of {counted(len(examples), 'image')} validate "
            f"(val_fraction={options.val_fraction:g})"
        )
    else:
        on_message(
            "No row is of split 'val': nothing validates, and the last epoch is kept, however good it is. To split by "
            "case, set val_fraction=0.15 or the like, or let `hiresattn init` write the manifest"
        )
    return examples


def split_examples(
    examples: Sequence[Example], options: TrainOptions
) -> tuple[list[Example], list[Example], TrainOptions]:
    """The training and the validation images, by the fold that validates or else by their splits.

    If any has several labels all do, and the options returned say so; they have the size of a batch, and for small ones
    the learning rate, too. Of scenes of several files the examples name those that hold the bands.
    """
    if options.fold is not None:
        examples = in_fold(examples, options.fold, "the examples")
    if options.multi_label or any(isinstance(e.label, tuple) for e in examples if e.split == "train"):
        examples = [replace(e, label=names_of(e.label)) for e in examples]
        options = replace(options, multi_label=True)
    check_examples(examples, options, "the examples")
    train, val = (
        of_files([e for e in examples if e.split == part], options.bands) for part in ("train", "val")
    )
    if options.batch_size is None:
        count = len(train) if options.per_source else len(cases_of(train))
        size = min(max(count // STEPS, LEAST_BATCH), BATCH)
        lr = lr_of_batches(size) if options.lr is None and size < BATCH else options.lr
        options = replace(options, batch_size=size, lr=lr)
    return train, val, options


def class_counts(examples: Sequence[Example]) -> Counter[str]:
    """Number of examples of each class, by label of the image or of a box in it."""
    return Counter(name for e in examples for name in classes_in(e))


def label_counts(labels: Sequence[int | tuple[int, ...]], classes: Sequence[str]) -> dict[str, int]:
    """Number of cases with each label, by class; of those with several labels, with each of them."""
    found = dict.fromkeys(classes, 0)
    for label in labels:
        several = (
            [index for index, there in enumerate(label) if there] if isinstance(label, tuple) else [label]
        )
        for index in several:
            if index >= 0:
                found[classes[index]] += 1
    return found


def warn_of_training_set(
    train: Sequence[Example],
    held_out: Sequence[Example],
    options: TrainOptions,
    on_message: Callable[[str], None],
) -> None:
    """Report rows of one image, classes with one image or none that validates, labels that read like several, no boxes.

    Args:
        train: Images of split ``train``.
        held_out: Images that validate; none is no reason to report a class.
        options: How to train.
        on_message: Called with each sentence.
    """
    scorer = options.scorer
    learns_from_boxes = scorer in SCORERS and SCORERS[scorer].learns_from_boxes and any(options.k)
    if learns_from_boxes and not any(e.boxes for e in train):
        on_message(
            f"The scorer {scorer!r} learns from boxes, and no training image has any; give a column boxes"
        )
    places = Counter(
        (str(e.source), e.region) for e in [*train, *held_out] if isinstance(e.source, str | Path)
    )
    if again := [source for (source, _), number in places.items() if number > 1]:
        on_message(
            f"{counted(len(again), 'image')} in several rows, such as {again[0]}: each row counts; leave out the others"
        )
    count = class_counts(train)
    rare = sorted(label for label, number in count.items() if number == 1)
    if rare:
        words = ", ".join(map(repr, rare[:5])) + (", …" if len(rare) > 5 else "")
        on_message(
            f"{len(rare)} of {len(count)} classes have one training image each: {words}; add more, or leave them out"
        )
    absent = sorted(set(count) - set(class_counts(held_out))) if held_out else []
    if absent:
        words = ", ".join(map(repr, absent[:5])) + (", …" if len(absent) > 5 else "")
        on_message(
            f"{len(absent)} of {len(count)} classes have no validation image: {words}; which epoch is best is decided "
            "without them"
        )
    joint = [
        label
        for label in sorted(count)
        if len(parts := names_of(label) or ()) > 1 and set(parts) & set(count)
    ]
    if joint:
        on_message(
            f"{joint[0]!r} is trained as a class of its own; if it means several labels, set multi_label"
        )


def dataset_statistics(loader: Loader, samples: Sequence[Sample]) -> tuple[Domain, np.ndarray]:
    """Scale and values of the training images, from the root regions of some of them.

    Returns:
        The domain, and the mean and standard deviation of each band's px, native values ``[2 bands]``.

    Raises:
        ConfigError: If no px of them was measured.
    """
    images = [image for sample in samples for image in sample.images]
    some = [images[i] for i in np.unique(np.linspace(0, len(images) - 1, MOST_MEASURED).astype(int))]
    means, squares, scales, resolutions, names = [], [], [], [], set()
    for sample in some:
        crops, _ = loader.process([sample], _root_crops)
        if crops is None:
            continue
        if crops.coverage.any():
            means.append(band_means(crops))
            squares.append(band_means(Crops(crops.pixels**2, crops.coverage)))
        pyramid = loader.pyramid(sample.example.source)
        scales.append(sample.example.mpp or pyramid.mpp)
        resolutions.append(resolution(stored_image(pyramid)))
        names.add(taken_names(pyramid, rule_for(pyramid, loader.config)))
    if not means:
        raise ConfigError("none of the training images has a valid pixel in its root regions")
    low, high = np.array(loader.config.low), np.array(loader.config.high)
    native = (np.array(means) + 1) / 2 * (high - low) + low
    spread = np.sqrt(np.maximum(np.mean(squares, 0) - np.mean(means, 0) ** 2, 0)) / 2 * (high - low)
    domain = Domain(
        mpp=_span(scales),
        resolution=_span(resolutions),
        low=tuple(native.min(0).tolist()),
        high=tuple(native.max(0).tolist()),
        channel_names=names.pop() if len(names) == 1 else None,
    )
    return domain, np.stack([native.mean(0), spread])


def _root_crops(batch: Batch) -> Crops:
    """Crops of the root regions of a batch of one image."""
    crops: Crops = batch.fetch(np.zeros(len(batch.roots[0]), np.int64), batch.roots[0])
    return crops


def _span(values: Sequence[float | None]) -> tuple[float, float] | None:
    """Lowest and highest of the values that are known."""
    known = [v for v in values if v is not None]
    return (min(known), max(known)) if known else None
