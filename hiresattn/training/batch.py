"""A batch: what a forward pass needs of some images, and their labels."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from hiresattn.reading.canvas import Canvas
from hiresattn.reading.foreground import Foregrounds
from hiresattn.shapes import Int64
from hiresattn.training.augment import Augmentation
from hiresattn.training.cutmix import BatchPastes
from hiresattn.training.samples import Sample

#: A box that shows its class with at least this probability is visited, and gives the glimpse its label.
LEAST_CONFIDENCE = 0.5


@dataclass(frozen=True)
class Batch:
    """What ``GlimpseNet.forward`` needs of ``b`` images or cases, and their labels.

    Regions are of the oriented images; of a case with several, of the canvas of these.
    """

    fetch: Any
    """``fetch(image [n], regions [n 4])`` → crops; reads."""
    roots: list[np.ndarray]
    """Root regions ``[r 4]``, per image."""
    frames: Int64[np.ndarray, "b 4"] | list[np.ndarray]
    """The rectangle classified, per image; or several ``[m 4]`` per case."""
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
    canvases: Sequence[Canvas] = ()
    """Of each case; none = every image is for itself."""

    def name_at(self, image: int, region: np.ndarray) -> str:
        """The name of the image that a region ``[4]`` is of."""
        sample = self.samples[image]
        if self.canvases:
            sample = sample.images[int(self.canvases[image].stored(region[None])[0][0])]
        return sample.name

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


def joined_cases(batch: Batch, samples: Sequence[Sample]) -> Batch:
    """A batch of cases from the batch of all their images.

    Args:
        batch: Of the images, case by case, without CutMix.
        samples: The cases.
    """
    counts = [len(sample.images) for sample in samples]
    starts = np.cumsum([0, *counts])
    parts = [slice(start, start + count) for start, count in zip(starts.tolist(), counts, strict=False)]
    canvases = [Canvas(np.asarray(batch.frames[part])) for part in parts]

    def located(case: np.ndarray, regions: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        image, own = np.empty_like(case), np.empty_like(regions)
        for index in np.unique(case).tolist():
            rows = case == index
            which, own[rows] = canvases[index].stored(regions[rows])
            image[rows] = starts[index] + which
        return image, own

    def stored(case: np.ndarray, regions: np.ndarray) -> np.ndarray:
        assert batch.stored is not None  # noqa: S101 - a loader's batch has it
        return batch.stored(*located(case, regions))

    holds = batch.holds
    known = [
        _joined_boxes(canvas, batch.boxes[part], batch.box_classes[part], batch.box_confidence[part])
        for canvas, part in zip(canvases, parts, strict=True)
    ]
    return Batch(
        fetch=lambda case, regions: batch.fetch(*located(case, regions)),
        roots=[
            np.concatenate([canvas.placed(n, roots) for n, roots in enumerate(batch.roots[part])])
            for canvas, part in zip(canvases, parts, strict=True)
        ],
        frames=[canvas.frames for canvas in canvases],
        labels=np.array([sample.label for sample in samples], np.int64),
        boxes=[boxes for boxes, _, _ in known],
        box_classes=[classes for _, classes, _ in known],
        box_confidence=[confidence for _, _, confidence in known],
        samples=samples,
        holds=None if holds is None else lambda case, regions: holds(*located(case, regions)),
        augmentations=[batch.augmentations[start] for start in starts[:-1].tolist()],
        stored=stored,
        canvases=canvases,
    )


def _joined_boxes(
    canvas: Canvas,
    boxes: Sequence[np.ndarray | None],
    classes: Sequence[np.ndarray | None],
    confidence: Sequence[np.ndarray | None],
) -> tuple[np.ndarray | None, np.ndarray | None, np.ndarray | None]:
    """The boxes of a case on its canvas, their classes and probabilities; None = not known of any of its images.

    Where they are known of some images only, they are not all there are, as those that have a probability aren't.
    """
    placed = [(n, canvas.placed(n, own)) for n, own in enumerate(boxes) if own is not None]
    if not placed:
        return None, None, None
    joined = np.concatenate([own for _, own in placed])
    named = [one for n, _ in placed if (one := classes[n]) is not None]
    own_classes = np.concatenate(named) if len(named) == len(placed) else None
    if len(placed) == len(boxes) and all(confidence[n] is None for n, _ in placed):
        return joined, own_classes, None
    sure = [confidence[n] for n, _ in placed]
    filled = [
        np.ones(len(own), np.float32) if one is None else one
        for one, (_, own) in zip(sure, placed, strict=True)
    ]
    return joined, own_classes, np.concatenate(filled)
