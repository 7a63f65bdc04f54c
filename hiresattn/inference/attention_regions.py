"""Which regions show an image's label, by a model that pools by attention: calibrated over a data set. NumPy only."""

from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import replace
from typing import Any, NamedTuple

import numpy as np

from hiresattn.datasets.example import Example, labels_of
from hiresattn.inference.engine import Engine
from hiresattn.inference.exhaustive import everywhere
from hiresattn.inference.image_search import Holds
from hiresattn.inference.label_regions import LEAST
from hiresattn.inference.search import Fetch
from hiresattn.shapes import Float, Int64

#: Scores of one image that calibrate a class, at most.
SAMPLED = 256


class RegionScores(NamedTuple):
    """How far the finest regions of an image speak for each class."""

    region: Int64[np.ndarray, "n 4"]
    """``(y, x, height, width)``, level-0 px; those with a measured px."""
    score: Float[np.ndarray, "n K"]
    """Log of the attention that a region gets times their number, plus the log-probability of each class by it."""


def region_scores(
    engine: Engine, fetch: Fetch, frame: Int64[np.ndarray, "4"], holds: Holds | None = None
) -> RegionScores:
    """Look at every finest region of a rectangle, of those that hold foreground.

    Raises:
        ConfigError: If there are more than ``exhaustive.MOST_FINEST``.
    """
    found = everywhere(engine, fetch, frame[None], holds=holds)
    measured = np.flatnonzero(found.coverage > 0)
    logits = found.glimpse_logits[measured].astype(np.float64)
    if engine.facts.multi_label:
        log_prob = -np.logaddexp(0, -logits)
    else:
        log_prob = logits - np.logaddexp.reduce(logits, axis=1, keepdims=True)
    attention = np.log(np.maximum(found.weight[measured] * len(measured), 1e-12))
    return RegionScores(found.region[measured], attention[:, None] + log_prob)


class Calibration:
    """From scores to probabilities, by the false discovery rate.

    Scores of regions in images that don't have a label are those of regions that don't show it. Of the regions in
    images that have it, with scores of at least ``t``, the share that doesn't show it is at most q(t) = (share of
    the former that score ``t`` or more) / (share of the latter): a region shows the label with probability 1 - q. What
    is alike in images of all classes gets 0.

    Args:
        classes: How many there are.
        seed: Of the samples that are kept of large images.

    Source:
        Storey 2002, "A direct approach to false discovery rates", with all regions taken for null at first.
    """

    def __init__(self, classes: int, seed: int = 0) -> None:
        self._rng = np.random.default_rng(seed)
        self._present: list[list[np.ndarray]] = [[] for _ in range(classes)]
        self._absent: list[list[np.ndarray]] = [[] for _ in range(classes)]

    def add(self, score: Float[np.ndarray, "n K"], labels: Collection[int]) -> None:
        """Take in the regions of an image with these labels."""
        count = len(score)
        rows = self._rng.choice(count, SAMPLED, replace=False) if count > SAMPLED else np.arange(count)
        for index, values in enumerate(score[rows].T):
            (self._present if index in labels else self._absent)[index].append(values)

    def probability(self, score: Float[np.ndarray, " n"], label: int) -> Float[np.ndarray, " n"]:
        """Of regions in images with a label to show it, from their scores for it."""
        present, absent = (
            np.sort(np.concatenate(part[label] or [np.zeros(0)])) for part in (self._present, self._absent)
        )
        if not len(absent) or not len(present):
            return np.zeros(len(score))
        shown = 1 - np.searchsorted(present, present) / len(present)
        # one more that doesn't show it, as high as any: few images can't make a region certain
        null = (len(absent) - np.searchsorted(absent, present) + 1) / (len(absent) + 1)
        rate = np.minimum.accumulate(np.minimum(null / shown, 1))
        at = np.searchsorted(present, score, side="right") - 1
        return np.where(at >= 0, 1 - rate[np.maximum(at, 0)], 0.0)


def kept_scores(
    line: Mapping[str, Any] | None,
    compute: Callable[[], RegionScores],
    write: Callable[[dict[str, Any]], None],
) -> RegionScores:
    """The scores that an interrupted run left of an image; or computed now, and kept."""
    if line is not None:
        return RegionScores(np.array(line["regions"], np.int64).reshape(-1, 4), np.array(line["scores"]))
    found = compute()
    write({"regions": found.region.tolist(), "scores": np.round(found.score, 3).tolist()})
    return found


def calibrated_boxes(
    seen: Mapping[int, tuple[Example, RegionScores]], classes: Sequence[str]
) -> Iterator[tuple[int, Example]]:
    """Give images the regions that show their label as boxes, by what all of them together tell.

    Args:
        seen: By number, each image with the scores of its regions.
        classes: Names of the classes.

    Yields:
        The numbers and the images; without boxes where nothing shows the label.
    """
    calibration = Calibration(len(classes))
    for example, scores in seen.values():
        calibration.add(scores.score, [classes.index(label) for label in labels_of(example)])
    for row, (example, scores) in seen.items():
        found = []
        for label in labels_of(example):
            index = classes.index(label)
            probability = calibration.probability(scores.score[:, index], index)
            found += [
                (tuple(scores.region[at].tolist()), label, round(float(probability[at]), 3))
                for at in np.flatnonzero(probability >= LEAST).tolist()
            ]
        boxes, labels, sure = zip(*found, strict=True) if found else (None, None, None)
        several = isinstance(example.label, tuple)
        if example.label == ():
            boxes = labels = ()
        yield row, replace(example, boxes=boxes, box_labels=labels if several else None, box_confidence=sure)
