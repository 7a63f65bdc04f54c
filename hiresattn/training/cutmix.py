"""CutMix for lazily read images: a rectangle of another image of the batch is pasted, and labels are mixed by area."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np

from hiresattn.pyramid.base import Pyramid
from hiresattn.pyramid.pasted import Pasted
from hiresattn.reading.squash import squashed
from hiresattn.shapes import Float, Int64
from hiresattn.training.samples import Sample

Region = tuple[int, int, int, int]


class CutMix(NamedTuple):
    """A rectangle of another image, pasted into an image at its own resolution."""

    donor: Sample
    """The image whose px are pasted; they carry its label."""
    box: Region
    """The rectangle, level-0 px of the image that is pasted into (the host), inside its window."""
    at: tuple[int, int]
    """First row and column of the same px in the donor, level-0 px, inside its window."""

    @property
    def shift(self) -> tuple[int, int]:
        """Offset from the host's px to the donor's: rows, columns."""
        return self.at[0] - self.box[0], self.at[1] - self.box[1]

    def pasted(self, host: Pyramid, donor: Pyramid) -> Pasted:
        """The mixed image."""
        return Pasted(host, donor, self.box, self.at)

    def clean(self, host: Pyramid, donor: Pyramid) -> Pasted:
        """The donor alone, laid over the host as it is in the mixed image; the host's px where the donor ends."""
        start = [max(0, -move) for move in self.shift]
        stop = [
            min(side, reach - move)
            for side, reach, move in zip(
                (host.height, host.width), (donor.height, donor.width), self.shift, strict=True
            )
        ]
        box = (start[0], start[1], stop[0] - start[0], stop[1] - start[1])
        return Pasted(host, donor, box, (start[0] + self.shift[0], start[1] + self.shift[1]))

    def boxes(self, host: Sample, side: int | None) -> np.ndarray | None:
        """Boxes of the mixed image: the host's that are not covered and the donor's that are pasted.

        A box is covered, or pasted, if its centre is; the donor's are clipped to the rectangle.

        Args:
            host: The image that is pasted into.
            side: See ``InputConfig.squash``.

        Returns:
            ``[m 4]``, as ``Sample.boxes``; None = not known of one of the two.
        """
        own, others = (one.boxes if side is None else one.example.boxes for one in (host, self.donor))
        if own is None or others is None:
            return None
        left = np.array(own, np.int64).reshape(-1, 4)
        left = left[~_centred(left, self.box)]
        shown = np.array(others, np.int64).reshape(-1, 4)
        shown[:, :2] -= self.shift
        shown = shown[_centred(shown, self.box)]
        stop = np.minimum(shown[:, :2] + shown[:, 2:], np.add(self.box[:2], self.box[2:]))
        shown[:, :2] = np.maximum(shown[:, :2], self.box[:2])
        shown[:, 2:] = stop - shown[:, :2]
        both = np.concatenate([left, shown])
        return both if side is None else squashed(both, host.region, side)


@dataclass(frozen=True)
class BatchPastes:
    """The rectangles that are pasted into the images of a batch, as the network sees them."""

    box: Int64[np.ndarray, "b 4"]
    """``(y, x, height, width)`` per image; a height and width of 0 = nothing is pasted."""
    labels: np.ndarray
    """The donors' labels, one per image; the image's own where nothing is pasted."""
    share: Float[np.ndarray, " b"]
    """Share of each image's area that is pasted: the weight of the donor's label."""
    clean: Callable[[np.ndarray, np.ndarray], Any]
    """As ``Batch.fetch``, but of the donors alone (see ``CutMix.clean``); for images into which something is pasted."""

    def within(self, image: np.ndarray, regions: np.ndarray) -> Float[np.ndarray, "n 4"]:
        """The pasted rectangles as shares of regions.

        Args:
            image: Whose regions ``[n]``.
            regions: As the network sees them ``[n 4]``.

        Returns:
            First row, first column, last row, last column, 0 to 1, float32; zeros where none of it shows.
        """
        box = self.box[image]
        start = (box[:, :2] - regions[:, :2]) / regions[:, 2:]
        stop = (box[:, :2] + box[:, 2:] - regions[:, :2]) / regions[:, 2:]
        out = np.concatenate([start, stop], axis=1).clip(0, 1)
        out[((out[:, 2:] - out[:, :2]) <= 0).any(axis=1)] = 0
        return out.astype(np.float32)

    def share_of(self, image: np.ndarray, regions: np.ndarray) -> Float[np.ndarray, " n"]:
        """Share of each region that is pasted; float32."""
        part = self.within(image, regions)
        share: np.ndarray = (part[:, 2] - part[:, 0]) * (part[:, 3] - part[:, 1])
        return share


def draw_cutmix(
    samples: Sequence[Sample], probability: float, rng: np.random.Generator
) -> list[CutMix | None]:
    """Draw, with some probability, a rectangle of another image of the batch for each image.

    With r ~ Beta(1, 1), the rectangle's sides are sqrt(1 - r) of the image's; its centre is uniform, and it is clipped
    to the image. Its edges are moved to whole px of the levels that are read. The donor's px are those at the same
    position and resolution; where the two differ in size, at the same relative position, and never more than the
    donor has.

    Args:
        samples: The batch.
        probability: Of a paste, for each image; 0 draws nothing from ``rng``.
        rng: Source of random numbers.

    Returns:
        One per image; None = nothing is pasted.

    Source:
        "CutMix" (ICCV 2019), box sampling; "Spatially Attentive Output Layer" (CVPR 2020), which calls the
        pasted rectangle 1: its share is the weight of the donor's label.
    """
    if not probability or len(samples) < 2:
        return [None] * len(samples)
    return [
        _draw_one(samples, row, rng) if rng.random() < probability else None for row in range(len(samples))
    ]


def mixed_boxes(
    samples: Sequence[Sample], mixes: Sequence[CutMix | None], side: int | None
) -> list[np.ndarray | None]:
    """Boxes of each image before it is oriented ``[m 4]``; None = not known. ``side``: see ``CutMix.boxes``."""
    pairs = zip(samples, mixes, strict=True)
    return [sample.boxes if mix is None else mix.boxes(sample, side) for sample, mix in pairs]


def pasted_rectangles(
    samples: Sequence[Sample], mixes: Sequence[CutMix | None], side: int | None
) -> Int64[np.ndarray, "b 4"]:
    """The rectangle that is pasted into each image before it is oriented; zeros = nothing. ``side`` as above."""
    out = np.zeros((len(samples), 4), np.int64)
    for row, (sample, mix) in enumerate(zip(samples, mixes, strict=True)):
        if mix is not None:
            where = np.array([mix.box], np.int64)
            out[row] = where[0] if side is None else squashed(where, sample.region, side)[0]
    return out


def _draw_one(samples: Sequence[Sample], row: int, rng: np.random.Generator) -> CutMix | None:
    host = samples[row]
    donor = samples[(row + 1 + int(rng.integers(len(samples) - 1))) % len(samples)]
    cut = np.sqrt(1 - rng.beta(1, 1))
    step = max(host.step, donor.step)
    box, at = [], []
    for axis, centre in enumerate(rng.random(2).tolist()):
        own, length = host.region[axis], host.region[axis + 2]
        other, reach = donor.region[axis], donor.region[axis + 2]
        middle, half = own + centre * length, cut * length / 2
        start, stop = max(middle - half, own), min(middle + half, own + length)
        excess = max(stop - start - reach, 0) / 2
        first, last = (_near(edge, own, own + length, step) for edge in (start + excess, stop - excess))
        last = min(last, first + reach)
        room = (first - own) / max(length - (last - first), 1) * (reach - (last - first))
        box.append((first, last - first))
        at.append(_aligned(other + round(room), first, other, other + reach - (last - first), step))
    (y, height), (x, width) = box
    return CutMix(donor, (y, x, height, width), (at[0], at[1])) if height > 0 and width > 0 else None


def _near(edge: float, low: int, high: int, step: int) -> int:
    """The nearest whole multiple of a step, or the end of the image where that is nearer."""
    return min(max(round(edge / step) * step, low), high)


def _aligned(start: int, like: int, low: int, high: int, step: int) -> int:
    """The nearest start that is congruent to ``like`` modulo the step, if there is one from low to high."""
    moved = start - (start - like) % step
    return next((near for near in (moved, moved + step) if low <= near <= high), min(max(start, low), high))


def _centred(boxes: np.ndarray, within: Region) -> np.ndarray:
    """Which boxes have their centre in a rectangle."""
    centre = boxes[:, :2] + boxes[:, 2:] // 2
    start = np.array(within[:2])
    inside: np.ndarray = ((centre >= start) & (centre < start + within[2:])).all(axis=1)
    return inside
