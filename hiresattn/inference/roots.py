"""In which order, and how many at once, root regions are looked at. NumPy only."""

import numpy as np

from hiresattn.inference.budget import Budget

#: Most root regions of one image in one pass of the network: bounds memory.
MOST_AT_ONCE = 256
#: Root regions in the first pass where a budget of bytes or seconds may end among them: what one costs isn't known yet.
FIRST_AT_ONCE = 1
#: As many regions are spread out one by one; what is left over comes in random order.
_SPREAD_ONE_BY_ONE = 1024


def ordered_roots(roots: np.ndarray, budget: Budget) -> np.ndarray:
    """The root regions that a budget allows, in the order in which they are looked at.

    With a budget of glimpses, as many of them as it allows, spread out over the image, row by row. Where another
    budget may end among them, all of them, so that whatever comes first is spread out.
    """
    if budget.glimpses is not None and budget.glimpses < len(roots):
        roots = roots[np.sort(spread(roots, budget.glimpses))]
    if _may_end(budget) and len(roots) > FIRST_AT_ONCE:
        roots = roots[spread(roots, len(roots))]
    return roots


def first_roots(roots: np.ndarray, budget: Budget) -> np.ndarray:
    """The root regions of a search's first pass."""
    ordered = ordered_roots(roots, budget)
    return ordered[: roots_at_once(budget, 0, 0.0)]


def roots_at_once(budget: Budget, looked: int, spent: float) -> int:
    """How many root regions come in the next pass.

    Args:
        budget: Of the image.
        looked: Root regions looked at.
        spent: Share of the budget's bytes or seconds spent on them, 0 to 1.
    """
    if not _may_end(budget):
        return MOST_AT_ONCE
    if not looked:
        return FIRST_AT_ONCE
    affordable = int(looked * (1 - spent) / spent) if spent > 0 else MOST_AT_ONCE
    return max(1, min(affordable, 4 * looked, MOST_AT_ONCE))


def spread(regions: np.ndarray, count: int) -> np.ndarray:
    """Rows of ``count`` regions that are spread out: each is as far as can be from those before it.

    Args:
        regions: ``[n 4]``, level-0 px.
        count: How many; at most ``n``.

    Returns:
        Their rows. The first is the one nearest to the middle.
    """
    centres = regions[:, :2] + regions[:, 2:] / 2
    one_by_one = min(count, _SPREAD_ONE_BY_ONE)
    chosen = np.empty(one_by_one, np.int64)
    middle = (centres.min(axis=0) + centres.max(axis=0)) / 2
    row = int(((centres - middle) ** 2).sum(1).argmin())
    nearest = np.full(len(regions), np.inf)
    for number in range(one_by_one):
        chosen[number] = row
        nearest = np.minimum(nearest, ((centres - centres[row]) ** 2).sum(1))
        nearest[row] = -1.0
        row = int(nearest.argmax())
    if count == one_by_one:
        return chosen
    rest = np.setdiff1d(np.arange(len(regions)), chosen)
    return np.concatenate([chosen, np.random.default_rng(0).permutation(rest)])[:count]


def _may_end(budget: Budget) -> bool:
    """Whether a budget may end among the root regions, depending on what they cost."""
    return budget.bytes is not None or budget.seconds is not None
