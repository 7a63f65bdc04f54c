"""Metrics of many weightings of the same predictions at once, bootstrap intervals, and temperature scaling."""

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from hiresattn.errors import ConfigError
from hiresattn.evaluation.selective import area, certainty
from hiresattn.inference.record import LIKELY

#: Bins of the top probability for the expected calibration error.
BINS = 15
#: ``top_k`` counts predictions whose label is among this many likeliest classes.
TOP = 5
#: Share of the resampled values that an interval holds.
LEVEL = 0.95
#: Most numbers of one block of resampled weights.
_BLOCK = 4_000_000
#: A probability of 0 is a rounded one.
_LEAST = float(np.finfo(np.float32).tiny)


@dataclass(frozen=True, slots=True)
class Measured:
    """A metric and its interval."""

    value: float | None
    low: float | None = None
    high: float | None = None
    reason: str | None = None
    """Why there is no value or no interval, or of which classes it isn't."""


def measure(truth: np.ndarray, scores: np.ndarray, weights: np.ndarray) -> dict[str, np.ndarray]:
    """All metrics, for each weighting of the predictions; NaN where one is not defined.

    Bootstrap intervals need each metric for a thousand weightings: here those are one array operation.

    Args:
        truth: Index of the class ``[n]``; or, of several labels per image, which ones it has, bool ``[n c]``.
        scores: Probability of each class ``[n c]``.
        weights: How often each prediction counts ``[b n]``; ones for the plain metric.

    Returns:
        Of several labels, see ``_of_labels``; else
        ``accuracy, top_k, balanced_accuracy, macro_f1, auroc, auprc, ece, brier, nll, aurc`` ``[b]``: macro means are
        over the classes that are defined, AUROC and AUPRC one class against the rest, AUPRC the average precision
        (no interpolation), ECE over equal bins of the top probability, Brier the summed square over all classes
        (0 to 2), NLL in nats, AURC see ``selective.area``. ``recall, precision, f1, class_auroc, class_auprc``
        ``[b c]``.
    """
    if truth.ndim == 2:
        return _of_labels(truth, scores, weights)
    count, classes = scores.shape
    rows = np.arange(count)
    guesses = np.eye(classes)[scores.argmax(1)]
    labels = np.eye(classes)[truth]
    own = scores[rows, truth][:, None]
    before = np.arange(classes) < truth[:, None]  # of equal scores the first class is predicted
    rank = (scores > own).sum(1) + ((scores == own) & before).sum(1)
    confidence, correct = scores.max(1), rank == 0
    gap = np.eye(BINS)[_bin(confidence)] * (correct - confidence)[:, None]
    total = weights.sum(1)
    support, predicted, hits = weights @ labels, weights @ guesses, weights @ (labels * guesses)
    recall, f1 = _ratio(hits, support), _ratio(2 * hits, support + predicted)
    ranked = [_ranked(labels[:, c] == 1, scores[:, c], weights) for c in range(classes)]
    auroc, auprc = (np.stack(column, axis=1) for column in zip(*ranked, strict=True))
    return {
        "accuracy": _ratio(weights @ correct, total),
        "top_k": _ratio(weights @ (rank < TOP), total),
        "balanced_accuracy": _mean(recall),
        "macro_f1": _mean(f1),
        "auroc": _mean(auroc),
        "auprc": _mean(auprc),
        "ece": _ratio(np.abs(weights @ gap).sum(1), total),
        "brier": _ratio(weights @ ((scores - labels) ** 2).sum(1), total),
        "nll": _ratio(weights @ -np.log(np.maximum(own[:, 0], _LEAST)), total),
        "aurc": area(confidence, correct, weights),
        "recall": recall,
        "precision": _ratio(hits, predicted),
        "f1": f1,
        "class_auroc": auroc,
        "class_auprc": auprc,
    }


def _of_labels(truth: np.ndarray, scores: np.ndarray, weights: np.ndarray) -> dict[str, np.ndarray]:
    """Metrics of predictions with several labels: those with a probability of ``LIKELY`` or more.

    Returns:
        ``exact_match`` (all labels right, and no other), ``micro_f1`` (over all labels of all images) and ``macro_f1,
        auroc, auprc, ece, brier, nll, aurc``: means over the labels that are defined ``[b]``. ``recall, precision, f1,
        class_auroc, class_auprc, class_ece, class_brier`` ``[b c]``: ECE over equal bins of the label's probability,
        Brier the squared error of it (0 to 1), NLL in nats, AURC of exact matches.
    """
    classes = range(scores.shape[1])
    guesses = scores >= LIKELY
    total = weights.sum(1)
    support, predicted, hits = weights @ truth, weights @ guesses, weights @ (truth & guesses)
    f1 = _ratio(2 * hits, support + predicted)
    ranked = [_ranked(truth[:, c], scores[:, c], weights) for c in classes]
    auroc, auprc = (np.stack(column, axis=1) for column in zip(*ranked, strict=True))
    gaps = [np.eye(BINS)[_bin(scores[:, c])] * (truth[:, c] - scores[:, c])[:, None] for c in classes]
    ece = np.stack([_ratio(np.abs(weights @ gap).sum(1), total) for gap in gaps], axis=1)
    squares = weights @ (scores - truth) ** 2
    brier = _ratio(squares, np.broadcast_to(total[:, None], squares.shape))
    own = np.where(truth, scores, 1 - scores)
    return {
        "exact_match": _ratio(weights @ (guesses == truth).all(1), total),
        "micro_f1": _ratio(2 * hits.sum(1), (support + predicted).sum(1)),
        "macro_f1": _mean(f1),
        "auroc": _mean(auroc),
        "auprc": _mean(auprc),
        "ece": _mean(ece),
        "brier": _mean(brier),
        "nll": _ratio(weights @ -np.log(np.maximum(own, _LEAST)).mean(1), total),
        "aurc": area(certainty(scores, several=True), (guesses == truth).all(1), weights),
        "recall": _ratio(hits, support),
        "precision": _ratio(hits, predicted),
        "f1": f1,
        "class_auroc": auroc,
        "class_auprc": auprc,
        "class_ece": ece,
        "class_brier": brier,
    }


def is_correct(truth: np.ndarray, scores: np.ndarray) -> np.ndarray:
    """Which predictions are correct, in all of their labels: bool ``[n]``."""
    if truth.ndim == 2:
        return ((scores >= LIKELY) == truth).all(1)
    return scores.argmax(1) == truth


def confusion(truth: np.ndarray, scores: np.ndarray) -> np.ndarray:
    """How many images of each class (row) were called which class (column), int64 ``[c c]``."""
    table = np.zeros((scores.shape[1],) * 2, np.int64)
    np.add.at(table, (truth, scores.argmax(1)), 1)
    return table


def reliability(truth: np.ndarray, scores: np.ndarray) -> list[dict[str, float]]:
    """Per bin of the largest probability that has predictions: ends, count, mean probability and accuracy.

    Of several labels, every label of every image is one prediction.
    """
    confidence, correct = scores.max(1), is_correct(truth, scores)
    if truth.ndim == 2:
        confidence, correct = scores.ravel(), truth.ravel()
    found = []
    at = _bin(confidence)
    for number in np.unique(at).tolist():
        inside = at == number
        found.append(
            {
                "low": number / BINS,
                "high": (number + 1) / BINS,
                "images": int(inside.sum()),
                "confidence": float(confidence[inside].mean()),
                "accuracy": float(correct[inside].mean()),
            }
        )
    return found


def resampled(groups: np.ndarray, resamples: int, seed: int) -> Iterator[np.ndarray]:
    """Weights of cases drawn with replacement, as often as there are cases: the bootstrap.

    Args:
        groups: Which case each prediction belongs to, 0 to ``g - 1``, ``[n]``. All of a case's are drawn
            together.
        resamples: How many draws.
        seed: Of the draws.

    Yields:
        Blocks of weights ``[b n]``, float64.
    """
    cases = int(groups.max()) + 1
    rng = np.random.default_rng(seed)
    block = max(_BLOCK // len(groups), 1)
    for start in range(0, resamples, block):
        drawn = rng.multinomial(cases, np.full(cases, 1 / cases), size=min(block, resamples - start))
        yield drawn[:, groups].astype(np.float64)


def interval(values: np.ndarray) -> tuple[float, float] | None:
    """The middle 95 % of resampled values, by percentiles; None where they are not defined."""
    known = values[np.isfinite(values)]
    if not len(known):
        return None
    low, high = np.quantile(known, ((1 - LEVEL) / 2, (1 + LEVEL) / 2))
    return float(low), float(high)


def fit_temperature(truth: np.ndarray, scores: np.ndarray) -> float:
    """The temperature with the smallest negative log-likelihood of the labels, by bisection.

    Args:
        truth: Index of the class ``[n]``; or, of several labels per image, which ones it has, bool ``[n c]``.
        scores: Probability of each class ``[n c]``, before the temperature.

    Returns:
        What to divide the logits by. Above 1: the model was overconfident.

    Raises:
        ConfigError: If there is none: all predictions are correct, or they are no better than chance.

    Source:
        Guo et al., "On Calibration of Modern Neural Networks", ICML 2017, temperature scaling.
    """
    several = truth.ndim == 2
    logits = logits_of(scores, several=several)
    labels = truth if several else np.eye(scores.shape[1])[truth]

    def slope(sharpness: float) -> float:
        """Of the NLL, by 1 / temperature; rises."""
        return float(((probabilities(sharpness * logits, several=several) - labels) * logits).sum())

    own = np.where(labels > 0, logits, -np.inf).max(1)
    if is_correct(truth, scores).all() if several else bool((own >= logits.max(1)).all()):
        raise ConfigError(
            f"no temperature is best: all {len(truth)} predictions are correct, so the smaller, the better; "
            "calibrate on more or harder cases"
        )
    if slope(0.0) >= 0:
        raise ConfigError(
            f"no temperature is best: the {len(truth)} predictions are no better than chance; train the model longer"
        )
    low, high = 1e-3, 1e3  # of 1 / temperature
    for _ in range(100):
        middle = (low * high) ** 0.5
        low, high = (low, middle) if slope(middle) > 0 else (middle, high)
    return 1 / middle


def logits_of(scores: np.ndarray, *, several: bool) -> np.ndarray:
    """Logits of probabilities, up to a constant per image where there is one label."""
    scores = np.asarray(scores, np.float64)
    logits = np.log(np.maximum(scores, _LEAST))
    return logits - np.log(np.maximum(1 - scores, np.finfo(np.float64).tiny)) if several else logits


def probabilities(logits: np.ndarray, *, several: bool) -> np.ndarray:
    """Probabilities of logits: that of each label, or all classes' together."""
    if several:
        return 1 / (1 + np.exp(-np.clip(logits, -700, 700)))
    chance = np.exp(logits - logits.max(1, keepdims=True))
    return np.asarray(chance / chance.sum(1, keepdims=True))


def _bin(confidence: np.ndarray) -> np.ndarray:
    """Which bin; each holds its lower end, the last its upper end as well."""
    return np.minimum((confidence * BINS).astype(np.int64), BINS - 1)


def _ranked(positive: np.ndarray, score: np.ndarray, weights: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Area under the ROC curve and average precision of one class against the rest ``[b]``; ties count half."""
    order = np.argsort(-score, kind="stable")
    starts = np.flatnonzero(np.diff(score[order], prepend=np.inf))
    mine, theirs = (
        np.add.reduceat(weights[:, order] * part, starts, axis=1)
        for part in (positive[order], ~positive[order])
    )
    above, others = mine.cumsum(1), theirs.cumsum(1)
    both = above[:, -1] * others[:, -1]
    area = (mine * (others[:, -1:] - others + theirs / 2)).sum(1)
    precision = np.nan_to_num(_ratio(above, above + others))
    average = _ratio((mine * precision).sum(1), above[:, -1])
    return _ratio(area, both), np.where(both > 0, average, np.nan)


def _ratio(part: np.ndarray, whole: np.ndarray) -> np.ndarray:
    """``part / whole``; NaN where that is 0."""
    return np.divide(part, whole, out=np.full(np.shape(whole), np.nan), where=np.asarray(whole) > 0)


def _mean(values: np.ndarray) -> np.ndarray:
    """Mean over the classes that are defined ``[b c]`` → ``[b]``."""
    known = np.isfinite(values)
    return _ratio(np.where(known, values, 0).sum(1), known.sum(1))
