"""CutMix for images that are read lazily: what is pasted where, and what is then known of the mix."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
from jaxtyping import Float, Int64

from hiresattn.pyramid.base import Pyramid
from hiresattn.pyramid.pasted import Pasted
from hiresattn.reading.squash import squashed

if TYPE_CHECKING:
    from hiresattn.training.augment import Change
    from hiresattn.training.samples import Item

Region = tuple[int, int, int, int]


class Mix(NamedTuple):
    """A rectangle of another image, pasted into an image at its own resolution."""

    donor: "Item"
    """Whose px are pasted; they carry its label."""
    box: Region
    """Where, level-0 px of the image that is pasted into (the host), inside its window."""
    at: tuple[int, int]
    """First row and column of what is pasted, level-0 px of the donor, inside its window."""

    @property
    def shift(self) -> tuple[int, int]:
        """From the host's px to the donor's."""
        return self.at[0] - self.box[0], self.at[1] - self.box[1]

    def pasted(self, host: Pyramid, donor: Pyramid) -> Pasted:
        """The mixed image."""
        return Pasted(host, donor, self.box, self.at)

    def clean(self, host: Pyramid, donor: Pyramid) -> Pasted:
        """The donor where the mix shows it and around, as far as it reaches: the host's px beyond."""
        start = [max(0, -move) for move in self.shift]
        stop = [
            min(side, reach - move)
            for side, reach, move in zip(
                (host.height, host.width), (donor.height, donor.width), self.shift, strict=True
            )
        ]
        box = (start[0], start[1], stop[0] - start[0], stop[1] - start[1])
        return Pasted(host, donor, box, (start[0] + self.shift[0], start[1] + self.shift[1]))

    def boxes(self, host: "Item", side: int | None) -> np.ndarray | None:
        """Where targets are in the mix: the host's that are not covered, the donor's that are shown.

        A target is covered, or shown, if its centre is; what is pasted of it is cut to the paste.

        Args:
            host: What is pasted into.
            side: See ``InputConfig.squash``.

        Returns:
            ``[m 4]``, as ``Item.boxes``; None = not known of one of the two.
        """
        own, others = host.example.boxes, self.donor.example.boxes
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
class Pastes:
    """What is pasted into the images of a batch."""

    box: Int64[np.ndarray, "b 4"]
    """Where, per image, as the network sees it; a height and width of 0 = nowhere."""
    labels: np.ndarray
    """The donors' labels, one per image; the image's own where nothing is pasted."""
    share: Float[np.ndarray, " b"]
    """Share of each image that is pasted: the weight of the donor's label."""
    clean: Callable[[np.ndarray, np.ndarray], Any]
    """As ``Batch.fetch``: the donors, laid as they are pasted, of images into which something is."""

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


def mixes_of(items: Sequence["Item"], probability: float, rng: np.random.Generator) -> list[Mix | None]:
    """Draw what is pasted into each image of a batch: with some probability, a rectangle of another image of it.

    With r ~ Beta(1, 1), the rectangle's sides are sqrt(1 - r) of the image's; its centre is anywhere, and what
    leaves the image is cut off. Its edges are moved to whole px of the levels that are read. It shows the donor
    at the same place and resolution; where the two differ in size, at the place of the same relative position,
    and never more than the donor has.

    Args:
        items: The batch.
        probability: Of a paste, for each image; 0 draws nothing from ``rng``.
        rng: Where chance comes from.

    Returns:
        Per image; None = nothing is pasted.

    Source:
        "CutMix" (ICCV 2019), box sampling; "Spatially Attentive Output Layer" (CVPR 2020), which calls the
        pasted rectangle 1: its share is the weight of the donor's label.
    """
    if not probability or len(items) < 2:
        return [None] * len(items)
    return [_drawn(items, row, rng) if rng.random() < probability else None for row in range(len(items))]


def boxes_of(
    items: Sequence["Item"], mixes: Sequence[Mix | None], side: int | None
) -> list[np.ndarray | None]:
    """Where the targets are, per image before it is turned ``[m 4]``; None = not known. ``side``: see ``Mix.boxes``."""
    pairs = zip(items, mixes, strict=True)
    return [item.boxes if mix is None else mix.boxes(item, side) for item, mix in pairs]


def pastes_of(
    items: Sequence["Item"],
    changes: Sequence["Change"],
    wholes: Sequence[Region],
    side: int | None,
    clean: Callable[[np.ndarray, np.ndarray], Any],
) -> Pastes | None:
    """What is pasted into a batch, as the network sees it; None = nothing.

    Args:
        items: The images.
        changes: How each is changed.
        wholes: What the network takes for the whole of each, before it is turned.
        side: See ``InputConfig.squash``.
        clean: See ``Pastes``.
    """
    mixes = [change.mix for change in changes]
    if not any(mixes):
        return None
    box = np.zeros((len(items), 4), np.int64)
    for row, mix in enumerate(mixes):
        if mix is not None:
            where = np.array([mix.box], np.int64)
            where = where if side is None else squashed(where, items[row].region, side)
            box[row] = changes[row].turn.seen(where, wholes[row])[0]
    labels = [(item if mix is None else mix.donor).label for item, mix in zip(items, mixes, strict=True)]
    areas = np.array(wholes)[:, 2:].prod(1)
    return Pastes(box, np.array(labels, np.int64), box[:, 2:].prod(1) / areas, clean)


def _drawn(items: Sequence["Item"], row: int, rng: np.random.Generator) -> Mix | None:
    host = items[row]
    donor = items[(row + 1 + int(rng.integers(len(items) - 1))) % len(items)]
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
    return Mix(donor, (y, x, height, width), (at[0], at[1])) if height > 0 and width > 0 else None


def _near(edge: float, low: int, high: int, step: int) -> int:
    """The nearest whole multiple of a step, or the end of the image where that is nearer."""
    return min(max(round(edge / step) * step, low), high)


def _aligned(place: int, like: int, low: int, high: int, step: int) -> int:
    """A place near another that is as far from a multiple of the step as ``like``, if there is room for one."""
    moved = place - (place - like) % step
    return next((near for near in (moved, moved + step) if low <= near <= high), min(max(place, low), high))


def _centred(boxes: np.ndarray, within: Region) -> np.ndarray:
    """Which boxes have their centre in a rectangle."""
    centre = boxes[:, :2] + boxes[:, 2:] // 2
    start = np.array(within[:2])
    inside: np.ndarray = ((centre >= start) & (centre < start + within[2:])).all(axis=1)
    return inside
