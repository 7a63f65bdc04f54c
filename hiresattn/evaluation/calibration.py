"""Calibration of a model by its predictions on labelled cases: a temperature, and prediction sets."""

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np

from hiresattn.card import Conformal
from hiresattn.checkpoint import Model
from hiresattn.errors import ConfigError, counted
from hiresattn.evaluation.conformal import least_probability
from hiresattn.evaluation.intervals import group_numbers
from hiresattn.evaluation.metrics import fit_temperature, logits_of, measure, probabilities
from hiresattn.evaluation.outcomes import Outcome

#: Cases from which on a calibration is more than noise.
LEAST_CASES = 30
#: Factors of a temperature that are nearer to 1 change nothing.
_ALIKE = 0.005


def calibrated(given: Sequence[Outcome], model: Model) -> dict[str, Any]:
    """Fit the temperature, and measure its effect on the predictions that it was fitted to.

    They should come from searches without a stop rule: where such a search ends doesn't depend on the
    temperature.

    Args:
        given: Predictions of the model; those without probabilities are left out.
        model: The model, with the temperature it has now.

    Returns:
        ``temperature`` (to be written into the card), ``images``, ``cases``, ``nll, ece, brier`` ``before`` and
        ``after``; and ``kept``: why the temperature stays as it is, None where it doesn't. It stays where none is best,
        and where it would not lower the ECE.

    Raises:
        ConfigError: If there are less than ``LEAST_CASES`` cases.
    """
    known = [outcome for outcome in given if outcome.scores is not None]
    cases = _groups(known)
    if cases < LEAST_CASES:
        what = "classified case" if cases == len(known) else "classified group"
        raise ConfigError(f"not calibrated: {counted(cases, what)}, and it takes {LEAST_CASES} or more")
    several = model.config.multi_label
    truth = np.array([outcome.truth for outcome in known], bool if several else np.int64)
    scores = np.array([outcome.scores for outcome in known], np.float64)
    before, kept = _errors(truth, scores), None
    try:
        factor = fit_temperature(truth, scores)
    except ConfigError as error:
        factor, kept = 1.0, str(error)
    after = _errors(truth, probabilities(logits_of(scores, several=several) / factor, several=several))
    if kept is None and abs(factor - 1) < _ALIKE:
        kept = "it is the best already"
        factor, after = 1.0, before
    elif kept is None and after["ece"] >= before["ece"]:
        kept = f"{model.temperature * factor:.3f} would change the ECE from {before['ece']:.4f} to {after['ece']:.4f}"
        factor, after = 1.0, before
    return {
        "temperature": model.temperature * factor,
        "images": len(known),
        "cases": cases,
        "before": before,
        "after": after,
        "kept": kept,
    }


def conformal_sets(given: Sequence[Outcome], model: Model, risk: float, search: dict[str, Any]) -> Conformal:
    """Prediction sets of a model with one label per image, from its predictions.

    Args:
        given: Predictions by the search that is deployed, at the model's temperature; those without probabilities are
            left out.
        model: The model.
        risk: Share of cases whose set may miss the class.
        search: Options of that search, as JSON types.

    Raises:
        ConfigError: If there are too few cases for the risk, or the model predicts several labels.
    """
    if model.config.multi_label:
        raise ConfigError(
            "prediction sets are for models with one label per image; this one predicts several"
        )
    known = [outcome for outcome in given if outcome.scores is not None]
    truth = np.array([outcome.truth for outcome in known], np.int64)
    scores = np.array([outcome.scores for outcome in known], np.float64)
    return Conformal(risk, least_probability(truth, scores, risk), _groups(known), search)


def _groups(known: Sequence[Outcome]) -> int:
    """How many groups, or cases where none are named, the predictions are of: those of one aren't independent."""
    return len(np.unique(group_numbers(known))) if known else 0


def cooled(given: Sequence[Outcome], factor: float) -> list[Outcome]:
    """Predictions of one label each, their logits divided by a factor."""
    return [
        outcome if outcome.scores is None else replace(outcome, scores=_divided(outcome.scores, factor))
        for outcome in given
    ]


def _divided(scores: tuple[float, ...], factor: float) -> tuple[float, ...]:
    table = probabilities(logits_of(np.array([scores]), several=False) / factor, several=False)
    return tuple(table[0].tolist())


def _errors(truth: np.ndarray, scores: np.ndarray) -> dict[str, float]:
    found = measure(truth, scores, np.ones((1, len(truth))))
    return {name: float(found[name][0]) for name in ("nll", "ece", "brier")}
