"""95 % intervals: of resampled cases, or of a share where there are few cases or none differs."""

import math
from collections.abc import Sequence

import numpy as np

from hiresattn.errors import counted
from hiresattn.evaluation.metrics import Measured, interval, resampled
from hiresattn.evaluation.outcomes import Outcome

#: Cases from which on resamples say how far a value may be off.
LEAST_CASES = 20
#: Of a normal distribution, the middle 95 %.
_Z = 1.959964


def group_numbers(given: Sequence[Outcome]) -> np.ndarray:
    """Which group each prediction is of, 0 to ``g - 1``, ``[n]``."""
    return np.unique([outcome.group for outcome in given], return_inverse=True)[1]


def too_few(groups: int, cases: int) -> str:
    """Why resamples of so few groups, or cases where each is its own, give no interval; empty = they do."""
    if groups >= LEAST_CASES:
        return ""
    return (
        f"no interval: {counted(groups, 'case' if groups == cases else 'group')}, and it takes {LEAST_CASES}"
    )


def spread_of(values: np.ndarray) -> tuple[float, float] | None:
    """The interval of resampled values; None where they are all alike, and so say nothing."""
    found = interval(values)
    return None if found is None or math.isclose(*found) else found


def mean_of(
    given: Sequence[Outcome],
    values: Sequence[float],
    resamples: int,
    seed: int,
    reason: str = "no case was classified",
    *,
    share: bool = False,
) -> Measured:
    """A mean with its interval, by resampled cases; of a share that of Wilson where these don't do.

    Args:
        given: The predictions that the values are of.
        values: One each.
        resamples: Draws of the bootstrap; 0 = no interval.
        seed: Of the draws.
        reason: Why there is no mean where there are no predictions.
        share: Whether the values are 0 and 1.

    Source:
        Wilson, "Probable Inference, the Law of Succession, and Statistical Inference", JASA 22, 1927.
    """
    if not given:
        return Measured(None, reason=reason)
    table = np.array(values, np.float64)
    value = float(table.mean())
    if not resamples:
        return Measured(value)
    groups = group_numbers(given)
    cases = int(groups.max()) + 1
    if cases >= LEAST_CASES:
        drawn = np.concatenate([w @ table / w.sum(1) for w in resampled(groups, resamples, seed)])
        if (found := spread_of(drawn)) is not None:
            return Measured(value, *found)
    if cases > 1 and share and (cases == len(given) or value in (0.0, 1.0)):
        return Measured(value, *wilson(value, cases))
    return Measured(value, reason=too_few(cases, len(given)) or "no interval: all cases are alike")


def wilson(share: float, count: int) -> tuple[float, float]:
    """Wilson's 95 % interval of a share of ``count`` independent cases."""
    middle = share + _Z**2 / (2 * count)
    reach = _Z * math.sqrt(share * (1 - share) / count + (_Z / (2 * count)) ** 2)
    whole = 1 + _Z**2 / count
    return (middle - reach) / whole if share > 0 else 0.0, (middle + reach) / whole if share < 1 else 1.0
