"""Temperature scaling of a model, fitted to its predictions on labelled images."""

from collections.abc import Sequence
from typing import Any

import numpy as np

from hiresattn.checkpoint import Model
from hiresattn.evaluation.metrics import fit_temperature, logits_of, measure, probabilities
from hiresattn.evaluation.outcomes import Outcome


def calibrated(given: Sequence[Outcome], model: Model) -> dict[str, Any]:
    """Fit the temperature, and measure its effect on the predictions that it was fitted to.

    They should come from searches without a stop rule: where such a search ends doesn't depend on the
    temperature.

    Args:
        given: Predictions of the model; those without probabilities are left out.
        model: The model, with the temperature it has now.

    Returns:
        ``temperature`` (to be written into the card), ``images``, and ``nll, ece, brier`` ``before`` and ``after``.

    Raises:
        ConfigError: If no temperature is best.
    """
    known = [outcome for outcome in given if outcome.scores is not None]
    several = model.config.multi_label
    truth = np.array([outcome.truth for outcome in known], bool if several else np.int64)
    scores = np.array([outcome.scores for outcome in known], np.float64)
    factor = fit_temperature(truth, scores)
    after = probabilities(logits_of(scores, several=several) / factor, several=several)
    ones = np.ones((1, len(known)))
    facts: dict[str, Any] = {"temperature": model.temperature * factor, "images": len(known)}
    for name, table in (("before", scores), ("after", after)):
        found = measure(truth, table, ones)
        facts[name] = {metric: float(found[metric][0]) for metric in ("nll", "ece", "brier")}
    return facts
