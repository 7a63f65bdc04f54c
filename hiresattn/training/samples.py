"""Labelled images and cases, measured without reading pixels: class, region, depths and boxes."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from hiresattn.datasets.example import Example
from hiresattn.errors import ConfigError
from hiresattn.option_types import did_you_mean
from hiresattn.pyramid import Pyramid
from hiresattn.pyramid.rescaled import to_scaled
from hiresattn.reading.squash import squashed


@dataclass(frozen=True)
class Sample:
    """One labelled image, or window of one, as training uses it."""

    example: Example
    label: int | tuple[int, ...]
    """Class index, -1 = not known; where images have several labels, 1 for each class that it has and 0 for the
    others."""
    region: tuple[int, int, int, int]
    """``(y, x, height, width)``, level-0 px: the window, or the whole image. Of a rescaled image all is in its px."""
    depths: int
    """Depths from the root regions down to the finest."""
    root_count: int
    """Number of root regions."""
    boxes: np.ndarray | None = None
    """Known targets ``[m 4]``, level-0 px (px of the square where images are squashed); None = not known."""
    box_classes: np.ndarray | None = None
    """Class index of each box ``[m]``, the image's where the manifest gives none; None = not known."""
    box_confidence: np.ndarray | None = None
    """Probability that each box shows its class ``[m]``; None = all are certain."""
    step: int = 1
    """Level-0 px of which multiples lie on whole px of every level that its crops are read from."""
    name: str = ""
    """Name of its image, or window; the same in all runs."""
    parts: "tuple[Sample, ...]" = ()
    """Of a case with several images: a sample of each. Its own ``region`` and ``boxes`` mean nothing."""

    @property
    def images(self) -> "tuple[Sample, ...]":
        """A sample of each image; of an image for itself, that one."""
        return self.parts or (self,)


def case_samples(samples: Sequence[Sample]) -> list[Sample]:
    """Samples of cases: images of one case become one, where the first of them is."""
    together: dict[Any, list[Sample]] = {}
    for number, sample in enumerate(samples):
        together.setdefault(sample.example.case or number, []).append(sample)
    return [some[0] if len(some) == 1 else joined_sample(some) for some in together.values()]


def joined_sample(parts: Sequence[Sample]) -> Sample:
    """The sample of a case with several images."""
    known = [part.box_classes for part in parts if part.box_classes is not None]
    return replace(
        parts[0],
        label=next((part.label for part in parts if part.label != -1), -1),
        depths=max(part.depths for part in parts),
        root_count=sum(part.root_count for part in parts),
        boxes=None,
        box_classes=np.concatenate(known) if known else None,
        box_confidence=None,
        name=str(parts[0].example.case),
        parts=tuple(parts),
    )


def label_index(example: Example, index: Mapping[str, int]) -> int | tuple[int, ...]:
    """An example's label as a class index, -1 = not known; of several labels 1 for each that it has, else 0."""
    if example.label is None and (example.box_labels or example.boxes == ()):
        return -1
    several = isinstance(example.label, tuple)
    names = example.label if isinstance(example.label, tuple) else (str(example.label),)
    for name in names:
        if name not in index:
            raise ConfigError(f"{example.source}: label {name!r} is none of the classes {', '.join(index)}")
    return tuple(int(name in names) for name in index) if several else index[names[0]]


def without_background_boxes(example: Example, background: str | None) -> Example:
    """An example without its boxes of the background class; where none is left, its label is that class."""
    if example.boxes is None or background is None:
        return example
    names = example.box_labels or (None,) * len(example.boxes)
    kept = [number for number, name in enumerate(names) if name != background]
    label = background if example.label is None and not kept else example.label

    def of_kept(values: Sequence[Any] | None) -> Any:
        return values and tuple(values[number] for number in kept)

    boxes, own, confidence = map(of_kept, (example.boxes, example.box_labels, example.box_confidence))
    return replace(example, label=label, boxes=boxes, box_labels=own, box_confidence=confidence)


def box_class_indices(
    example: Example, label: int | tuple[int, ...], index: Mapping[str, int]
) -> np.ndarray | None:
    """Class index of each box; see ``Sample.box_classes``."""
    if example.boxes is None or (isinstance(label, tuple) and example.box_labels is None):
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


def seen_boxes(
    example: Example, pyramid: Pyramid, region: tuple[int, int, int, int], side: int | None
) -> np.ndarray | None:
    """Boxes in the px that the pyramid counts in, or of the square that its region is squashed to.

    Args:
        example: The image.
        pyramid: The same, opened.
        region: What of it is classified, px that the pyramid counts in.
        side: Of the square; None = images aren't squashed.

    Returns:
        ``[m 4]``; None = not known.

    Raises:
        ConfigError: If one lies outside the image.
    """
    if example.boxes is None:
        return None
    boxes = np.array(example.boxes, np.int64).reshape(-1, 4)
    last, whole = boxes[:, :2] + boxes[:, 2:], pyramid.levels[0]
    outside = ((boxes[:, :2] >= (whole.height, whole.width)) | (last <= 0)).any(axis=1)
    if outside.any():
        row = f"{example.origin}: " if example.origin else ""
        raise ConfigError(
            f"{row}{pyramid.source}: box {boxes[outside][0].tolist()} (y, x, height, width) lies outside the image of "
            f"{whole.height} x {whole.width} px; boxes are in level-0 px of the whole image"
        )
    return to_scaled(pyramid, boxes) if side is None else squashed(boxes, region, side)
