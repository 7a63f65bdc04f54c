"""Predictions as tables: all of them, and the cases to review."""

import csv
import io
from collections.abc import Sequence
from typing import Any

from hiresattn.datasets.example import SEPARATOR
from hiresattn.datasets.tables import csv_cell
from hiresattn.evaluation.outcomes import Outcome

#: Names of the tables.
TABLES = ("predictions.csv", "review.csv")
_COLUMNS = (
    "case", "source", "region", "label", "prediction", "score", "correct", "prediction_set", "needs_review",
    "review_reasons", "out_of_domain", "domain_distance", "error", "group",
)  # fmt: skip


def tables(given: Sequence[Outcome], classes: Sequence[str]) -> dict[str, str]:
    """CSV by file name: every prediction in its order; those that need review, what is least sure first.

    Args:
        given: The predictions.
        classes: Their names, in the order of the scores.
    """
    review = sorted((outcome for outcome in given if outcome.needs_review), key=_sureness)
    return {name: _csv(rows, classes) for name, rows in zip(TABLES, (given, review), strict=True)}


def _sureness(outcome: Outcome) -> float:
    """How sure an answer is; errors and cases without an answer come first."""
    return -1.0 if outcome.scores is None else max(outcome.scores)


def _csv(rows: Sequence[Outcome], classes: Sequence[str]) -> str:
    text = io.StringIO()
    table = csv.writer(text, lineterminator="\n")
    table.writerow(_COLUMNS)
    for outcome in rows:
        table.writerow(["" if value is None else csv_cell(value) for value in _row(outcome, classes)])
    return text.getvalue()


def _row(outcome: Outcome, classes: Sequence[str]) -> list[Any]:
    said = outcome.predicted
    truth = outcome.truth if isinstance(outcome.truth, tuple) else (outcome.truth,)
    if isinstance(outcome.truth, tuple):
        truth = tuple(index for index, there in enumerate(outcome.truth) if there)
    return [
        outcome.case or outcome.source,
        outcome.source,
        None if outcome.region is None else " ".join(map(str, outcome.region)),
        _names(truth, classes),
        None if said is None else _names(said, classes),
        None if outcome.scores is None else round(max(outcome.scores), 6),
        None if said is None else _flag(set(said) == set(truth)),
        None if outcome.prediction_set is None else _names(outcome.prediction_set, classes),
        _flag(outcome.needs_review),
        "; ".join(outcome.review_reasons),
        _flag(outcome.out_of_domain),
        None if outcome.domain_distance is None else round(outcome.domain_distance, 4),
        outcome.error,
        outcome.group,
    ]


def _names(indices: Sequence[int], classes: Sequence[str]) -> str:
    return SEPARATOR.join(classes[index] for index in indices)


def _flag(value: bool | None) -> str | None:  # noqa: FBT001 - what it is about
    return None if value is None else "yes" if value else "no"
