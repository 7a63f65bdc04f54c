"""How far a model's answers can be believed: prediction sets, review, distance, sufficiency, on labelled cases."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from hiresattn.checkpoint import Model
from hiresattn.evaluation.intervals import mean_of
from hiresattn.evaluation.metrics import Measured, is_correct
from hiresattn.evaluation.outcomes import Outcome
from hiresattn.evaluation.selective import certainty, risk_coverage
from hiresattn.inference.options import ClassifyOptions
from hiresattn.inference.review import why_no_sets

_UNJUDGED = "the model can't say which cases need review"


@dataclass(frozen=True)
class Belief:
    """How far answers can be believed; each value with its interval, or why there is none."""

    risk: float | None
    """Of the prediction sets; None = there are none."""
    calibrated_on: int | None
    """Cases that they rest on."""
    coverage: Measured
    """Share of the cases whose class is in their prediction set."""
    set_size: Measured
    """Classes in a prediction set."""
    judged: int
    """Cases of which the model says whether they need review."""
    review: Measured
    """Share of the cases that need review."""
    accuracy_unreviewed: Measured
    """Share of right answers among the others."""
    out_of_domain: Measured
    """Share of the cases that are unlike the training images."""
    sufficient: Measured
    """Glimpses that carry an answer."""
    sufficiency: Measured
    """Share of the answer's probability that the k glimpses of most weight keep, mean over all k."""
    comprehensiveness: Measured
    """What the answer's probability loses without the glimpses that carry it."""
    risk_coverage: tuple[dict[str, float], ...]
    """``confidence, coverage, risk``; see ``selective.risk_coverage``."""


def belief(
    given: Sequence[Outcome], model: Model, options: ClassifyOptions, *, resamples: int, seed: int
) -> Belief:
    """Sum up what records say about themselves.

    Args:
        given: The predictions.
        model: That made them.
        options: How.
        resamples: Draws of the bootstrap; 0 = no intervals.
        seed: Of the draws.
    """
    known = [outcome for outcome in given if outcome.scores is not None]
    truth = np.array([outcome.truth for outcome in known])
    scores = np.array([outcome.scores for outcome in known], np.float64).reshape(-1, len(model.classes))
    right = (
        is_correct(truth.astype(bool) if truth.ndim == 2 else truth, scores) if known else np.zeros(0, bool)
    )
    several = model.config.multi_label

    def mean(of: Sequence[Outcome], value: Callable[[Outcome], float], reason: str) -> Measured:
        return mean_of(of, [value(outcome) for outcome in of], resamples, seed, reason)

    def share(of: Sequence[Outcome], yes: Callable[[Outcome], bool | None], reason: str) -> Measured:
        return mean_of(of, [float(bool(yes(outcome))) for outcome in of], resamples, seed, reason, share=True)

    in_sets = [outcome for outcome in known if outcome.prediction_set is not None]
    why = why_no_sets(model, options)
    judged = [outcome for outcome in given if outcome.needs_review is not None]
    fine = [
        (outcome, float(yes))
        for outcome, yes in zip(known, right.tolist(), strict=True)
        if outcome.needs_review is False
    ]
    placed = [outcome for outcome in known if outcome.out_of_domain is not None]
    carried = [outcome for outcome in known if outcome.sufficient is not None]
    apart = [outcome for outcome in carried if outcome.comprehensiveness is not None]
    uncarried = "not defined of these answers"
    return Belief(
        risk=None if model.conformal is None or why else model.conformal.risk,
        calibrated_on=None if model.conformal is None or why else model.conformal.cases,
        coverage=share(in_sets, lambda o: o.truth in (o.prediction_set or ()), why),
        set_size=mean(in_sets, lambda o: float(len(o.prediction_set or ())), why),
        judged=len(judged),
        review=share(judged, lambda o: o.needs_review, _UNJUDGED),
        accuracy_unreviewed=mean_of(
            [outcome for outcome, _ in fine],
            [yes for _, yes in fine],
            resamples,
            seed,
            "all need review" if judged else _UNJUDGED,
            share=True,
        ),
        out_of_domain=share(
            placed, lambda o: o.out_of_domain, "the model doesn't know how far off is too far"
        ),
        sufficient=mean(carried, lambda o: float(o.sufficient or 0), uncarried),
        sufficiency=mean(carried, lambda o: o.sufficiency or 0.0, uncarried),
        comprehensiveness=mean(apart, lambda o: o.comprehensiveness or 0.0, uncarried),
        risk_coverage=tuple(risk_coverage(certainty(scores, several=several), right)) if known else (),
    )
