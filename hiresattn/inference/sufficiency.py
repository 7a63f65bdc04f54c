"""How few glimpses carry an answer, and what it is without them. NumPy only, from the traversal."""

from typing import NamedTuple

import numpy as np

from hiresattn.inference.engine import NetFacts
from hiresattn.model.traversal import Traversal
from hiresattn.shapes import Float

#: Share of the answer's probability that sufficient glimpses keep.
KEPT = 0.9


class Sufficiency(NamedTuple):
    """The glimpses that carry an answer."""

    glimpses: tuple[int, ...]
    """Rows of the traversal, by falling weight."""
    without: float | None
    """Probability of the class where only the others are pooled; None = there are no others."""
    area: float
    """Share of the class's probability that the ``k`` glimpses of most weight keep, at most 1, mean over all ``k``."""


def sufficiency(traversal: Traversal, facts: NetFacts, temperature: float) -> Sufficiency | None:
    """The fewest glimpses, taken by falling weight, that keep ``KEPT`` of the answer's probability.

    Args:
        traversal: Of one image.
        facts: Of the network that made it.
        temperature: What the logits are divided by before they are probabilities.

    Returns:
        They, and what is without them. None where that is not defined: of several labels; where the scorer's head
        predicts; and where the answer is the background, for that nothing was found rests on all glimpses.

    Source:
        Sufficiency and comprehensiveness of rationales: DeYoung et al., "ERASER: A Benchmark to Evaluate Rationalized
        NLP Models", ACL 2020.
    """
    answer = int(traversal.logits[0].argmax())
    if facts.multi_label or facts.head == "scorer" or answer == facts.background:
        return None
    weight = np.asarray(traversal.weight, np.float64)
    order = np.argsort(-weight, kind="stable")
    order = order[weight[order] > 0]
    logits = np.asarray(traversal.glimpse_logits, np.float64)[order]
    if facts.background is None:
        weight = weight[order, None]
        first = np.cumsum(weight * logits, axis=0) / np.cumsum(weight, axis=0)
    else:
        ratio = _evidence(traversal, logits, weight[order], facts.background)
        first = np.logaddexp.accumulate(ratio, axis=0)
        first[:, facts.background] = 0.0
    kept = _share(first / temperature, answer)
    whole = kept[-1]
    count = int(np.argmax(kept >= KEPT * whole)) + 1
    without = None
    if count < len(order):
        if facts.background is None:
            rest = (weight[count:] * logits[count:]).sum(0) / weight[count:].sum()
        else:
            rest = np.logaddexp.reduce(ratio[count:], axis=0)
            rest[facts.background] = 0.0
        without = float(_share(rest[None] / temperature, answer)[0])
    area = float(np.minimum(kept / whole, 1).mean())
    return Sufficiency(tuple(order[:count].tolist()), without, area)


def _evidence(
    traversal: Traversal, logits: Float[np.ndarray, "n K"], weight: Float[np.ndarray, " n"], background: int
) -> Float[np.ndarray, "n K"]:
    """Log of each glimpse's evidence for each class over that for the background.

    The weight is the share of the evidence for the likeliest class, and so says how far the glimpse counts.
    """
    pooled = np.array(traversal.logits[0], np.float64)
    pooled[background] = -np.inf
    best = int(pooled.argmax())
    ratio = logits - logits[:, background, None]
    ratio += (np.log(weight) + pooled[best] - ratio[:, best])[:, None]
    return ratio


def _share(logits: Float[np.ndarray, "n K"], answer: int) -> Float[np.ndarray, " n"]:
    """Probability of a class."""
    chance = np.exp(logits - logits.max(1, keepdims=True))
    return np.asarray(chance[:, answer] / chance.sum(1))
