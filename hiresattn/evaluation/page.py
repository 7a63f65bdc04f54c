"""An evaluation as one HTML page: metrics, charts, the confusion matrix, and the cases behind each of its cells."""

from collections.abc import Sequence
from typing import Any

from hiresattn.evaluation.names import BELIEF_NAMES, metric_names
from hiresattn.evaluation.outcomes import Outcome, Pass
from hiresattn.evaluation.summary import Evaluation
from hiresattn.inference.lines import json_line
from hiresattn.report.template import page_template

#: Name of the page.
PAGE = "index.html"
_DATA = "<!--DATA-->"


def evaluation_page(
    found: Evaluation, given: Sequence[Outcome], curve: Sequence[tuple[Pass, Sequence[Outcome]]] = ()
) -> str:
    """An evaluation as a page that opens in any browser and reads nothing else.

    Args:
        found: The evaluation.
        given: The predictions that its metrics are of.
        curve: Those of the further passes, for each case's own curve.
    """
    facts = found.to_json()
    names = metric_names(several=found.multi_label, top_k=found.top_k, bins=found.bins)
    facts["metrics"] = {names[name]: value for name, value in facts["metrics"].items()}
    measured = {words: facts["belief"][name] for name, words in BELIEF_NAMES.items()}
    facts["measures"] = {words: value for words, value in measured.items() if value["value"] is not None}
    facts["risk_coverage"] = facts.pop("belief")["risk_coverage"]
    facts["rows"] = [_row(outcome, found.classes) for outcome in given]
    facts["passes"] = [
        {"policy": run.policy, "budget": run.budget, "values": [_of_label(outcome) for outcome in outcomes]}
        for run, outcomes in curve
    ]
    head, _, tail = page_template("hiresattn.evaluation", "page.html").partition(_DATA)
    text = json_line(facts).replace("<", "\\u003c")
    return f'{head}<script type="application/json" id="data">{text}</script>{tail}'


def _row(outcome: Outcome, classes: Sequence[str]) -> dict[str, Any]:
    """What the page lists of a case."""
    truth = (outcome.truth,) if isinstance(outcome.truth, int) else _where(outcome.truth)
    said = outcome.predicted
    named = outcome.prediction_set
    return {
        "source": outcome.source,
        "case": outcome.case or outcome.group,
        "region": outcome.region,
        "label": [classes[index] for index in truth],
        "prediction": None if said is None else [classes[index] for index in said],
        "score": None if outcome.scores is None else round(max(outcome.scores), 6),
        "right": None if said is None else set(said) == set(truth),
        "set": None if named is None else [classes[index] for index in named],
        "review": outcome.needs_review,
        "reasons": outcome.review_reasons,
        "looks": outcome.glimpses,
        "read": outcome.fraction_read,
        "error": outcome.error,
    }


def _where(flags: Sequence[int]) -> tuple[int, ...]:
    return tuple(index for index, there in enumerate(flags) if there)


def _of_label(outcome: Outcome) -> float | None:
    """The probability that a case's label got; of several labels, the mean of those that are right about it."""
    if outcome.scores is None:
        return None
    if isinstance(outcome.truth, int):
        return round(outcome.scores[outcome.truth], 6)
    right = [p if there else 1 - p for p, there in zip(outcome.scores, outcome.truth, strict=True)]
    return round(sum(right) / len(right), 6)
