"""Pool glimpses one by one: the cost of one more doesn't depend on how many came before. NumPy only."""

import math
from abc import ABC, abstractmethod

import numpy as np

from hiresattn.inference.engine import NetFacts, Outputs
from hiresattn.inference.table import GlimpseTable
from hiresattn.shapes import Float

#: Least mean probability of a class where the scorer's head predicts, so that its logarithm is finite.
LEAST_PROBABILITY = 1e-12


class Pool(ABC):
    """The glimpses of one image so far, pooled."""

    def __init__(self) -> None:
        self._running: list[np.ndarray] = []

    def add(self, found: Outputs, row: int, *, log_prior: float, finest: bool) -> None:
        """Pool one more glimpse.

        Args:
            found: What the network gave for some crops.
            row: Which of them.
            log_prior: Log of the chance, before looking, that the region shows what decides the image.
            finest: Whether the region can't be divided further.
        """
        self._add(found, row, log_prior, finest)
        self._running.append(self.logits())

    def running(self) -> Float[np.ndarray, "n K"]:
        """Class logits of the image after each glimpse, in order."""
        return np.array(self._running)

    @abstractmethod
    def _add(self, found: Outputs, row: int, log_prior: float, finest: bool) -> None:  # noqa: FBT001 - see add
        """What ``add`` does, of this way of pooling."""

    @abstractmethod
    def logits(self) -> Float[np.ndarray, " K"]:
        """Class logits of the image."""

    @abstractmethod
    def weights(self, table: GlimpseTable) -> Float[np.ndarray, " n"]:
        """Weight of each glimpse in the prediction; they sum to 1."""


class WeightedMean(Pool):
    """The weighted mean of the glimpses' class logits, or of the probabilities by a scorer's own head.

    A linear classifier of the weighted mean of features is the weighted mean of their logits, for weights sum
    to 1: neither features nor the classifier are needed again.

    Args:
        scorer_head: Whether the scorer's own head predicts.
        pool_finest: Whether only finest glimpses count, as long as there is one.
    """

    def __init__(self, *, scorer_head: bool = False, pool_finest: bool = False) -> None:
        super().__init__()
        self._scorer_head = scorer_head
        self._pool_finest, self._any_finest = pool_finest, False
        self._top, self._total = -math.inf, 0.0
        self._sum: np.ndarray | float = 0.0

    def _add(self, found: Outputs, row: int, log_prior: float, finest: bool) -> None:  # noqa: ARG002, FBT001
        if self._pool_finest and finest and not self._any_finest:  # from now on only finest glimpses count
            self._any_finest, self._top, self._total, self._sum = True, -math.inf, 0.0, 0.0
        if self._any_finest and not finest:
            return
        if self._scorer_head and found.class_log_prob is not None:
            values = np.exp(found.class_log_prob[row].astype(np.float64))
        else:
            values = found.class_logits[row].astype(np.float64)
        logit = float(found.weight_logits[row])
        if logit > self._top:
            scale = math.exp(self._top - logit)
            self._total, self._sum, self._top = self._total * scale + 1, self._sum * scale + values, logit
        else:
            weight = math.exp(logit - self._top)
            self._total, self._sum = self._total + weight, self._sum + weight * values

    def logits(self) -> Float[np.ndarray, " K"]:
        """Class logits of the image."""
        mean = np.asarray(self._sum / self._total)
        return np.log(np.maximum(mean, LEAST_PROBABILITY)) if self._scorer_head else mean

    def weights(self, table: GlimpseTable) -> Float[np.ndarray, " n"]:
        """The softmax of the aggregator's logits."""
        counts = table["finest"] if self._any_finest else np.ones(len(table["finest"]), bool)
        logits = np.where(counts, table["weight_logit"].astype(np.float64), -math.inf)
        return np.asarray(np.exp(logits - self._top) / self._total)


class EvidenceSum(Pool):
    """The sum over finest glimpses of prior x p(glimpse | class) / p(glimpse | background), as a logarithm.

    As long as there is no finest glimpse, all count (see ``model.aggregators.pool_evidence``). Of a case it is the mean
    over its images: what decides may lie in any of them.

    Args:
        background: Index of the background class.
        prior_weight: What a glimpse's log prior is multiplied by.
        images: Images of the case.
    """

    def __init__(self, background: int, prior_weight: float, images: int) -> None:
        super().__init__()
        self._background, self._prior_weight, self._log_images = background, prior_weight, math.log(images)
        self._any_finest = False
        self._sum: np.ndarray | float = -math.inf

    def _add(self, found: Outputs, row: int, log_prior: float, finest: bool) -> None:  # noqa: FBT001
        if finest and not self._any_finest:  # from now on only finest glimpses count
            self._any_finest, self._sum = True, -math.inf
        if finest or not self._any_finest:
            self._sum = np.logaddexp(self._sum, self._ratio(found.class_logits[row], log_prior))

    def logits(self) -> Float[np.ndarray, " K"]:
        """Class logits of the image, that of the background 0."""
        pooled = np.array(self._sum)
        pooled[self._background] = 0.0
        return pooled

    def weights(self, table: GlimpseTable) -> Float[np.ndarray, " n"]:
        """Each glimpse's share of the evidence for the likeliest class besides the background."""
        pooled = self.logits()
        pooled[self._background] = -math.inf
        best = int(pooled.argmax())
        ratio = self._ratio(table["class_logits"], table["log_prior"][:, None])[:, best]
        counts = table["finest"] if self._any_finest else np.ones(len(ratio), bool)
        return np.where(counts, np.exp(ratio - pooled[best]), 0.0)

    def _ratio(self, logits: np.ndarray, log_prior: np.ndarray | float) -> np.ndarray:
        """Log of the evidence for each class over that for the background."""
        logits = logits.astype(np.float64)
        background = logits[..., self._background, None]
        return np.asarray(logits - background + self._prior_weight * log_prior - self._log_images)


def pool_for(facts: NetFacts, images: int) -> Pool:
    """An empty pool for a case of so many images, as the network pools."""
    if facts.background is not None:
        return EvidenceSum(facts.background, facts.prior_weight, images)
    return WeightedMean(scorer_head=facts.head == "scorer", pool_finest=facts.pool_finest)


def confidence(logits: Float[np.ndarray, " K"], facts: NetFacts) -> float:
    """How sure a prediction is, 0 to 1.

    Of one class: the largest probability, that of the background left out, for what was not found yet may still be
    found. Of several labels: the probability of being right about the least sure one.
    """
    if facts.multi_label:
        return float(1 / (1 + np.exp(-np.abs(logits).min())))
    shares = np.exp(logits - logits.max())
    shares /= shares.sum()
    if facts.background is not None:
        shares[facts.background] = 0.0
    return float(shares.max())
