"""One image to learn from or to classify, and its labels."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any

from hiresattn.errors import ConfigError

#: Parts of a data set: trained on, validated on in training, tested on afterwards.
SPLITS = ("train", "val", "test")
#: Between the labels where one text holds several.
SEPARATOR = "|"

Label = str | tuple[str, ...]


@dataclass(frozen=True)
class Example:
    """One image, or one window of one, to train on or to classify."""

    source: Any
    """A path or URL, an array, or an open pyramid."""
    label: Label | None = None
    """Class name, where known. A tuple: every label that the image has (multi-label), empty = it has none."""
    split: str = "train"
    """``train``, ``val`` or ``test``."""
    region: tuple[int, int, int, int] | None = None
    """``(y, x, height, width)``, level-0 px; None = the whole image."""
    outline: tuple[tuple[tuple[tuple[float, float], ...], ...], ...] | None = None
    """Polygons that the image is clipped to where it is classified: of each its rings, the outer one first, of points
    (y, x), level-0 px. None = it isn't."""
    boxes: tuple[tuple[int, int, int, int], ...] | None = None
    """Known targets: ``(y, x, height, width)`` each, level-0 px of the image; None = not known, empty = there are
    none."""
    box_labels: tuple[str, ...] | None = None
    """Class of each box; None = the image's. With them an image to train on needs no label of its own."""
    box_confidence: tuple[float, ...] | None = None
    """Probability that each box shows its class, above 0 to 1; None = all are certain. ``locate`` gives it."""
    group: str | None = None
    """What is never in two splits, and resampled as one, such as a hospital; None = its case."""
    case: str | None = None
    """What shares one answer, such as the slides of a patient or the dates of a place; None = itself."""
    mpp: float | None = None
    """Micrometres per level-0 px, down and across, in place of what the file says; None = as it says."""
    mpp_source: str | None = field(default=None, compare=False)
    """Where ``mpp`` is from, for records; None = it is given with the image."""
    fold: str | None = None
    """Which part of a cross-validation it is, where the manifest says."""
    origin: str = field(default="", compare=False)
    """Where it was read, such as ``slides.csv, line 3``; for messages."""


def listed_examples(given: Any) -> list[Example]:
    """Examples that are given in place of a manifest, from whatever can be gone through.

    Raises:
        ConfigError: If there are none, or something else is among them.
    """
    if not isinstance(given, Iterable):
        raise ConfigError(
            f"give a manifest, a folder of classes, or several Example; got {type(given).__name__}"
        )
    examples = list(given)
    for example in examples:
        if not isinstance(example, Example):
            raise ConfigError(
                f"each image is given as an Example, with its label; got {type(example).__name__} {example!r:.80}"
            )
    if not examples:
        raise ConfigError("no images: the examples given are empty")
    return examples


def classes_in(example: Example) -> set[str]:
    """Every class that an image is known to show: its label or labels, and those of its boxes."""
    return {*labels_of(example), *(example.box_labels or ())}


def unlabelled(examples: Sequence[Example]) -> list[int]:
    """Indices of the images that can't be trained on, or validated on, for want of a class.

    In ``train`` the classes of an image's boxes are enough; where some boxes have classes, an image that is known to
    have no boxes needs none either.
    """
    some = any(example.box_labels for example in examples)
    return [
        number
        for number, example in enumerate(examples)
        if example.label is None
        and example.split != "test"
        and not (example.split == "train" and (example.box_labels or (some and example.boxes == ())))
    ]


def names_of(label: Label | None) -> tuple[str, ...] | None:
    """The classes that a label names: of ``a|b`` both, of a tuple all; None = not known."""
    if isinstance(label, str):
        return split_names(label)
    return label


def labels_of(example: Example) -> tuple[str, ...]:
    """The labels of an example, one or several; empty where none is known, or it has none."""
    label = example.label
    return label if isinstance(label, tuple) else () if label is None else (label,)


def split_names(text: str, where: str = "") -> tuple[str, ...]:
    """The names in a text that has ``|`` between them; ``where`` it is, for messages."""
    names = tuple(name.strip() for name in text.split(SEPARATOR) if name.strip())
    if len(set(names)) < len(names):
        raise ConfigError(f"{where}: a label is there twice: {text!r}")
    return names
