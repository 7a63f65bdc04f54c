"""Which regions of an image show its label: what a model finds that looks at every finest region. NumPy only."""

import math
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from hiresattn.inference.engine import Engine
from hiresattn.inference.exhaustive import everywhere
from hiresattn.inference.image_search import Holds
from hiresattn.inference.roots import MOST_AT_ONCE
from hiresattn.inference.search import Fetch
from hiresattn.shapes import Float, Int64

#: Least probability that a region shows the label, for it to be kept at all.
LEAST = 0.05
#: Rounds in which an image's share of such regions is estimated.
ROUNDS = 30
#: A quarter counts where it shows the label with at least this share of the whole region's probability.
UNDIVIDED = 0.5


class LabelRegions(NamedTuple):
    """Regions of one image that may show its label."""

    region: Int64[np.ndarray, "m 4"]
    """``(y, x, height, width)``, level-0 px."""
    probability: Float[np.ndarray, " m"]
    """Of showing the label, ``LEAST`` to 1."""
    class_index: Int64[np.ndarray, " m"]
    """The likeliest of the classes asked for."""


def label_regions(
    engine: Engine,
    fetch: Fetch,
    frame: Int64[np.ndarray, "4"],
    classes: Sequence[int],
    *,
    known: bool,
    holds: Holds | None = None,
    always: bool = False,
) -> LabelRegions | None:
    """Find the regions that show one of some classes, by likelihood ratios against the background.

    Every finest region is looked at; around those that may show a class, also those shifted by half a side, which
    tells in which quarter of a region it is.

    Args:
        engine: A network with a background class.
        fetch: Where crops come from.
        frame: The rectangle, level-0 px.
        classes: Indices of the classes.
        known: Whether the image is known to show one of them.
        holds: Which regions hold foreground: only those are looked at. None = all.
        always: Where no region may show a class, keep the likeliest.

    Returns:
        The regions, quarters of finest regions where these tell; None if no px was measured.

    Raises:
        ConfigError: If there are more than ``exhaustive.MOST_FINEST`` finest regions.
    """
    background = engine.facts.background
    assert background is not None  # noqa: S101 - refused before anything is read
    found = everywhere(engine, fetch, frame[None], holds=holds)
    measured = (found.coverage > 0).nonzero()[0]
    if not len(measured):
        return None
    regions, logits = found.region[measured], found.glimpse_logits[measured]
    evidence = _evidence(logits, classes, background)
    share = shown_share(evidence, known=known)
    prior = math.log(share / (1 - share))
    whole = dict(zip(map(tuple, regions.tolist()), _sigmoid(evidence + prior).tolist(), strict=True))
    best = dict(zip(whole, logits[:, list(classes)].argmax(1).tolist(), strict=True))
    least = LEAST
    likely = [region for region, value in whole.items() if value >= least]
    if always and not likely:
        likely, least = [max(whole, key=lambda region: whole[region])], 0.0
    shifted = sorted({other for region in likely for other in _shifted(region, frame)} - whole.keys())
    near = dict(whole)
    for start in range(0, len(shifted), MOST_AT_ONCE):
        part = np.array(shifted[start : start + MOST_AT_ONCE], np.int64)
        crops = fetch(np.zeros(len(part), np.int64), part)
        frames, paths = np.repeat(frame[None], len(part), axis=0), np.zeros((len(part), 3), np.int64)
        looked = engine.look(crops.pixels, crops.coverage, part, frames, paths)
        values = _sigmoid(_evidence(looked.class_logits, classes, background) + prior)
        near |= dict(zip(map(tuple, part.tolist()), values.tolist(), strict=True))
    rows = [
        (quarter, value, classes[best[region]])
        for region in likely
        for quarter, value in _quarters(region, near)
        if value >= least
    ]
    return LabelRegions(
        np.array([row[0] for row in rows], np.int64).reshape(-1, 4),
        np.array([row[1] for row in rows], np.float32),
        np.array([row[2] for row in rows], np.int64),
    )


def shown_share(evidence: Float[np.ndarray, " n"], *, known: bool = True) -> float:
    """Share of an image's regions that show the label (expectation-maximisation of a mixture with the background).

    Args:
        evidence: Log of p(seen | label) / p(seen | background) of each region.
        known: Whether some region is known to. Else one more that shows the background is counted, for the share of
            few regions would follow the largest evidence, however small that is.

    Returns:
        The share, above 0 and below 1.
    """
    count = len(evidence) + (not known)
    share = 1 / max(count, 1)
    for _ in range(ROUNDS):
        share = min(max(share, 1e-6), 1 - 1e-6)
        share = float(_sigmoid(evidence + math.log(share / (1 - share))).sum()) / max(count, 1)
    return min(max(share, 1e-6), 1 - 1e-6)


def _evidence(logits: np.ndarray, classes: Sequence[int], background: int) -> np.ndarray:
    """Log of p(seen | one of the classes) / p(seen | background), per row."""
    some = np.logaddexp.reduce(logits[:, list(classes)], axis=1) - math.log(len(classes))
    return np.asarray(some - logits[:, background])


def _sigmoid(values: np.ndarray) -> np.ndarray:
    return np.asarray(np.exp(-np.logaddexp(0, -values)))


_Region = tuple[int, int, int, int]


def _around(region: _Region) -> dict[tuple[int, int], _Region]:
    """A region and its eight shifts by half a side, by direction (down, right)."""
    y, x, height, width = region
    return {
        (down, right): (y + down * (height // 2), x + right * (width // 2), height, width)
        for down in (-1, 0, 1)
        for right in (-1, 0, 1)
    }


def _shifted(region: _Region, frame: np.ndarray) -> list[_Region]:
    """The shifts of a region that lie within the frame."""
    top, left, height, width = frame.tolist()
    return [
        (y, x, h, w)
        for y, x, h, w in _around(region).values()
        if top <= y and y + h <= top + height and left <= x and x + w <= left + width
    ]


def _quarters(region: _Region, known: dict[_Region, float]) -> list[tuple[_Region, float]]:
    """The quarters of a region that may show the label, with their probabilities; or the whole region.

    A quarter shows it as surely as the least sure of the regions around it that contain it. At the edge of an image
    two quarters may lie in the same regions but for one: what the quarter in more of them explains is not counted
    for the other.
    """
    y, x, height, width = region
    around = {shift: known[other] for shift, other in _around(region).items() if other in known}
    containing = {
        (down, right): [(a, b) for a in {0, down} for b in {0, right} if (a, b) in around]
        for down in (-1, 1)
        for right in (-1, 1)
    }
    least = {corner: min(around[shift] for shift in shifts) for corner, shifts in containing.items()}
    kept: list[tuple[_Region, float]] = []
    explained: set[tuple[int, int]] = set()
    for corner in sorted(least, key=lambda one: (-len(containing[one]), -least[one])):
        if least[corner] < UNDIVIDED * known[region] or explained.issuperset(containing[corner]):
            continue
        explained.update(containing[corner])
        down, right = corner
        half = height // 2, width // 2
        size = half[0] if down < 0 else height - half[0], half[1] if right < 0 else width - half[1]
        kept.append(((y + (down > 0) * half[0], x + (right > 0) * half[1], *size), least[corner]))
    if len(kept) in (0, len(least)):  # an object as large as the region, or one that fills it
        return [(region, known[region])]
    return kept
