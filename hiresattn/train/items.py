"""Labelled examples, measured: what training knows of an image before it reads a pixel."""

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from hiresattn.errors import ConfigError
from hiresattn.manifest import Example


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
    if example.label is None and example.box_labels:
        return -1
    several = isinstance(example.label, tuple)
    names = example.label if isinstance(example.label, tuple) else (str(example.label),)
    for name in names:
        if name not in index:
            raise ConfigError(f"{example.source}: label {name!r} is none of the classes {', '.join(index)}")
    return tuple(int(name in names) for name in index) if several else index[names[0]]


def kinds_of(example: Example, label: int | tuple[int, ...], index: Mapping[str, int]) -> np.ndarray | None:
    """Class of each box; see ``Item.kinds``."""
    if example.boxes is None or isinstance(label, tuple):
        return None
    if example.box_labels is None:
        return np.full(len(example.boxes), label)
    return np.array([index[name] for name in example.box_labels], np.int64)
