"""Answering only the cases that a model is sure of: risk by the share that is answered."""

import numpy as np

from hiresattn.inference.record import LIKELY
from hiresattn.shapes import Bool, Float

#: Most points of a curve that are kept.
_MOST_POINTS = 200


def certainty(scores: Float[np.ndarray, "n c"], *, several: bool) -> Float[np.ndarray, " n"]:
    """How sure each prediction is: the largest probability; of several labels, of the least sure one's answer."""
    return np.abs(scores - LIKELY).min(1) + LIKELY if several else scores.max(1)


def area(
    confidence: Float[np.ndarray, " n"], correct: Bool[np.ndarray, " n"], weights: Float[np.ndarray, "b n"]
) -> Float[np.ndarray, " b"]:
    """Area under the risk-coverage curve (AURC), for each weighting: the mean risk over all coverages; 0 is best.

    Args:
        confidence: How sure each prediction is; equal ones are answered together.
        correct: Whether it is right.
        weights: How often each prediction counts.

    Source:
        Geifman and El-Yaniv, "Selective Classification for Deep Neural Networks", NeurIPS 2017; the area: Geifman,
        Uziel and El-Yaniv, "Bias-Reduced Uncertainty Estimation for Deep Neural Classifiers", ICLR 2019.
    """
    order = np.argsort(-confidence, kind="stable")
    starts = np.flatnonzero(np.diff(confidence[order], prepend=np.inf))
    counts, errors = (
        np.add.reduceat(weights[:, order] * part, starts, axis=1)
        for part in (np.ones(len(order)), ~correct[order])
    )
    answered = counts.cumsum(1)
    risk = np.divide(errors.cumsum(1), answered, out=np.zeros_like(answered), where=answered > 0)
    whole = answered[:, -1]
    return np.divide((risk * counts).sum(1), whole, out=np.full(len(whole), np.nan), where=whole > 0)


def risk_coverage(
    confidence: Float[np.ndarray, " n"], correct: Bool[np.ndarray, " n"]
) -> list[dict[str, float]]:
    """Points of the risk-coverage curve, from few cases to all.

    Returns:
        Per point ``confidence`` from which on a case is answered, ``coverage`` (the share answered) and ``risk`` (the
        share of those that is wrong); at most 200 points, evenly spaced.
    """
    order = np.argsort(-confidence, kind="stable")
    last = np.flatnonzero(np.diff(confidence[order], append=-np.inf))
    if len(last) > _MOST_POINTS:
        last = last[np.unique(np.linspace(0, len(last) - 1, _MOST_POINTS).astype(int))]
    wrong = (~correct[order]).cumsum()
    return [
        {
            "confidence": float(confidence[order[at]]),
            "coverage": (at + 1) / len(order),
            "risk": float(wrong[at]) / (at + 1),
        }
        for at in last.tolist()
    ]
