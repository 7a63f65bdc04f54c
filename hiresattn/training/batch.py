"""A batch: what a forward pass needs of some images, and their labels."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from jaxtyping import Int64

from hiresattn.reading.foreground import Foregrounds
from hiresattn.training.augment import Augmentation
from hiresattn.training.cutmix import BatchPastes
from hiresattn.training.samples import Sample

#: A box that shows its class with at least this probability is visited, and gives the glimpse its label.
LEAST_CONFIDENCE = 0.5


@dataclass(frozen=True)
class Batch:
    """What ``GlimpseNet.forward`` needs of ``b`` images, and their labels. Regions are of the oriented images."""

    fetch: Any
    """``fetch(image [n], regions [n 4])`` → crops; reads."""
    roots: list[np.ndarray]
    """Root regions ``[r 4]``, per image."""
    frames: Int64[np.ndarray, "b 4"]
    """The rectangle classified, per image."""
    labels: np.ndarray
    """int64 ``[b]``, or of several labels ``[b c]``; see ``Sample.label``."""
    boxes: list[np.ndarray | None]
    """Known targets ``[m 4]``, per image; None = not known."""
    box_classes: Sequence[np.ndarray | None] = ()
    """Class index of each of them; see ``Sample.box_classes``."""
    box_confidence: Sequence[np.ndarray | None] = ()
    """Probability that each of them shows its class; see ``Sample.box_confidence``."""
    foreground: Foregrounds | None = None
    """Where the images, not oriented, have foreground, once their root regions were fetched; None = everywhere."""
    holds: Callable[[np.ndarray, np.ndarray], np.ndarray] | None = None
    """``holds(image [n], regions [n 4])`` → which regions hold foreground ``[n]``; None = all."""
    samples: Sequence[Sample] = ()
    augmentations: Sequence[Augmentation] = ()
    pastes: BatchPastes | None = None
    """What CutMix pasted into them; None = nothing."""
    stored: Callable[[np.ndarray, np.ndarray], np.ndarray] | None = None
    """``stored(image [n], regions [n 4])`` → the regions of the stored images that they show, level-0 px ``[n 4]``."""

    @property
    def sure_boxes(self) -> list[np.ndarray | None]:
        """The boxes that probably show their class, per image."""
        return [
            boxes if boxes is None or sure is None else boxes[sure >= LEAST_CONFIDENCE]
            for boxes, sure in zip(self.boxes, self.box_confidence or [None] * len(self.boxes), strict=True)
        ]

    @property
    def main_labels(self) -> np.ndarray:
        """The labels, per image; of a mixed image those of its larger part."""
        if self.pastes is None:
            return self.labels
        other = (self.pastes.share > 1 / 2).reshape(-1, *[1] * (self.labels.ndim - 1))
        return np.where(other, self.pastes.labels, self.labels)
