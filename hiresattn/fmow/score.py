"""The challenge's score: weighted F1 over box IDs (protocol A)."""

from collections import Counter
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from hiresattn.errors import ConfigError, NotFoundError
from hiresattn.fmow.classes import FALSE_DETECTION, OLD_FALSE_DETECTION, WEIGHTS
from hiresattn.option_types import did_you_mean

_FORMAT = "each line is boxID,category, such as 47768,fountain"
#: Most IDs that an error message lists.
_LISTED = 5
#: Most digits of a box ID.
_DIGITS = 18


@dataclass(frozen=True)
class CategoryScore:
    """How one category did, over box IDs."""

    category: str
    weight: float
    true_positives: int
    false_positives: int
    false_negatives: int
    f1: float
    """``2 P R / (P + R)``; 0 without a true positive."""


@dataclass(frozen=True)
class Score:
    """The challenge's score."""

    score: float
    """Sum of weight x F1 over the sum of weights, over the categories seen in truth or predictions."""
    boxes: int
    """IDs in the truth."""
    ignored: int
    """IDs predicted that the truth doesn't have; they count for nothing."""
    categories: tuple[CategoryScore, ...]
    """Those seen, by name."""

    def to_json(self) -> dict[str, Any]:
        """The score as JSON types."""
        return asdict(self)


def challenge_score(
    predictions: Mapping[int, str], truth: Mapping[int, str], where: str = "predictions"
) -> Score:
    """Score one category per box ID against the truth.

    Args:
        predictions: Category of each box ID.
        truth: The same, as it is.
        where: What the predictions are called in error messages.

    Returns:
        The score. Boxes of ``false_detection`` weigh nothing, but calling one a dam is a false positive of dam.

    Raises:
        ConfigError: If a box has no prediction, or nothing that weighs anything is there to score.
    """
    missing = sorted(truth.keys() - predictions.keys())
    if missing:
        first = ", ".join(map(str, missing[:_LISTED])) + (", …" if len(missing) > _LISTED else "")
        raise ConfigError(
            f"{where}: {len(missing)} of the truth's {len(truth)} boxes have no prediction (ID {first}); give each "
            f"a category, {FALSE_DETECTION} where there is nothing"
        )
    hits: Counter[str] = Counter()
    wrongly: Counter[str] = Counter()
    missed: Counter[str] = Counter()
    for box, category in truth.items():
        answer = predictions[box]
        if answer == category:
            hits[category] += 1
        else:
            wrongly[answer] += 1
            missed[category] += 1
    seen = sorted(hits.keys() | wrongly.keys() | missed.keys())
    scores = tuple(_category(name, hits[name], wrongly[name], missed[name]) for name in seen)
    total = sum(one.weight for one in scores)
    if total == 0:
        raise ConfigError(
            f"{where}: nothing to score, no category but {FALSE_DETECTION} in truth and predictions; check that "
            "the truth is the right file"
        )
    return Score(
        score=sum(one.weight * one.f1 for one in scores) / total,
        boxes=len(truth),
        ignored=len(predictions.keys() - truth.keys()),
        categories=scores,
    )


def read_lines(path: str | Path, *, truth: bool = False) -> dict[int, str]:
    """Read a file of ``boxID,category`` lines; empty lines are passed over.

    Args:
        path: The file.
        truth: Whether it is the truth, where a box without a category is a false detection.

    Returns:
        Category of each box ID, in the file's order. ``unknown``, the old name, becomes ``false_detection``.

    Raises:
        NotFoundError: If there is no such file.
        ConfigError: If a line can't be used; the message names it.
    """
    found: dict[int, str] = {}
    for number, line in enumerate(_text(Path(path)).splitlines(), 1):
        if not line.strip():
            continue
        where = f"{path}, line {number}"
        fields = [field.strip() for field in line.split(",")]
        if len(fields) != 2:
            raise ConfigError(f"{where}: {line[:60]!r} is not boxID,category; {_FORMAT}")
        name, category = fields
        if not (name.isascii() and name.isdigit() and len(name) <= _DIGITS):
            raise ConfigError(f"{where}: {name!r} is no box ID, a whole number of at least 0; {_FORMAT}")
        if category == OLD_FALSE_DETECTION or (truth and not category):
            category = FALSE_DETECTION
        if not category:
            raise ConfigError(f"{where}: no category; write {FALSE_DETECTION} where there is nothing")
        if category not in WEIGHTS:
            raise ConfigError(
                f"{where}: {category!r} is no category of fMoW{did_you_mean(category, WEIGHTS)}"
            )
        if int(name) in found:
            raise ConfigError(f"{where}: box {name} a second time; one line per box")
        found[int(name)] = category
    if not found:
        raise ConfigError(f"{path}: no lines in it; {_FORMAT}")
    return found


def _category(name: str, hits: int, wrongly: int, missed: int) -> CategoryScore:
    if hits == 0:
        return CategoryScore(name, WEIGHTS[name], 0, wrongly, missed, 0.0)
    precision, recall = hits / (hits + wrongly), hits / (hits + missed)
    f1 = 2 * precision * recall / (precision + recall)
    return CategoryScore(name, WEIGHTS[name], hits, wrongly, missed, f1)


def _text(path: Path) -> str:
    try:
        return path.read_bytes().decode("utf-8-sig")
    except FileNotFoundError as error:
        raise NotFoundError(f"{path}: no such file; {_FORMAT}") from error
    except UnicodeDecodeError as error:
        raise ConfigError(f"{path}: not a text file in UTF-8 ({error.reason}); {_FORMAT}") from error
    except (OSError, ValueError) as error:
        why = getattr(error, "strerror", None) or error
        raise ConfigError(f"{path}: it can't be read ({why}); check name and permissions") from error
