"""Labelled examples, measured: what training knows of an image before it reads a pixel."""

from collections.abc import Mapping
from dataclasses import dataclass, replace

import numpy as np

from hiresattn.config import did_you_mean
from hiresattn.datasets.example import Example
from hiresattn.errors import ConfigError
from hiresattn.pyramid import Pyramid


@dataclass(frozen=True)
class Item:
    """One labelled example, measured."""

    example: Example
    label: int | tuple[int, ...]
    """Class index, -1 = not known; where images have several labels, 1 for each class that it has and 0 for the
    others."""
    region: tuple[int, int, int, int]
    depths: int
    """Depths from the first look down to the finest."""
    looks: int
    """Regions of the first look."""
    boxes: np.ndarray | None = None
    """Where the target is, ``[m 4]`` level-0 px; None = not known."""
    kinds: np.ndarray | None = None
    """Class of each box ``[m]``: as the example says, else the image's; None = boxes, or which of several labels they
    are of, are not known."""
    step: int = 1
    """Level-0 px of which multiples lie on whole px of every level that its crops are read from."""
    name: str = ""
    """What its image, or window, is known by in all runs."""


def label_of(example: Example, index: Mapping[str, int]) -> int | tuple[int, ...]:
    """Class index; of several labels, 1 for each class that it has and 0 for the others."""
    if example.label is None and (example.box_labels or example.boxes == ()):
        return -1
    several = isinstance(example.label, tuple)
    names = example.label if isinstance(example.label, tuple) else (str(example.label),)
    for name in names:
        if name not in index:
            raise ConfigError(f"{example.source}: label {name!r} is none of the classes {', '.join(index)}")
    return tuple(int(name in names) for name in index) if several else index[names[0]]


def clear_of(example: Example, background: str | None) -> Example:
    """An example without the boxes whose class means that there is nothing; without any box it has that class."""
    if example.boxes is None or background is None:
        return example
    kinds = example.box_labels or (None,) * len(example.boxes)
    kept = [(box, kind) for box, kind in zip(example.boxes, kinds, strict=True) if kind != background]
    label = background if example.label is None and not kept else example.label
    own = example.box_labels and tuple(str(kind) for _, kind in kept)
    return replace(example, label=label, boxes=tuple(box for box, _ in kept), box_labels=own)


def box_classes_of(
    example: Example, label: int | tuple[int, ...], index: Mapping[str, int]
) -> np.ndarray | None:
    """Class of each box; see ``Item.kinds``."""
    if example.boxes is None or isinstance(label, tuple):
        return None
    if example.box_labels is None:
        return np.full(len(example.boxes), label)
    for name in example.box_labels:
        if name not in index:
            near = did_you_mean(name, index)
            raise ConfigError(
                f"{example.source}: class {name!r} of a box is none of the classes {', '.join(index)}{near}"
            )
    return np.array([index[name] for name in example.box_labels], np.int64)


def check_boxes(example: Example, pyramid: Pyramid) -> None:
    """Refuse a box of which the image shows nothing."""
    boxes = np.array(example.boxes or (), np.int64).reshape(-1, 4)
    last = boxes[:, :2] + boxes[:, 2:]
    outside = ((boxes[:, :2] >= (pyramid.height, pyramid.width)) | (last <= 0)).any(axis=1)
    if outside.any():
        row = f"{example.origin}: " if example.origin else ""
        raise ConfigError(
            f"{row}{pyramid.source}: box {boxes[outside][0].tolist()} (y, x, height, width) lies outside the image of "
            f"{pyramid.height} x {pyramid.width} px; boxes are in level-0 px of the whole image"
        )
