"""The mask scorer: a gate per cell, so that the number of selected cells depends on the image."""

import math
from collections.abc import Mapping, Sequence
from typing import Any, ClassVar

import torch
from torch import Tensor
from torch.nn import functional

from hiresattn.model.scorers.base import LossTerm, Scored, ScorerInput, Target, mean_term
from hiresattn.model.scorers.location import LocationScorer

#: The hard-concrete distribution: a concrete one of this temperature, stretched from 0..1 to LOW..HIGH and clipped.
LOW, HIGH, TEMPERATURE = -0.1, 1.1, 2 / 3
#: Logit added to a gate: fresh gates are open, so that cells are visited before they are ruled out.
OPEN = 2.0
#: The Lagrange multiplier: start, least, most, rate; and the decay of the constraint's moving average.
FIRST, LEAST, MOST, RATE, KEPT = 1e-2, 1e-4, 50.0, 0.01, 0.99
#: Share of the training over which the allowed area falls from 1 to the budget.
ANNEALED = 0.5


def hard_concrete(logits: Tensor) -> Tensor:
    """The gates ``[0, 1]`` without noise, and without division by the temperature."""
    return (torch.sigmoid(logits) * (HIGH - LOW) + LOW).clamp(0, 1)


def open_probability(logits: Tensor) -> Tensor:
    """Probability that a gate with noise is not 0: sigmoid(logit - T log(-low / high)).

    Source:
        Louizos, Welling, Kingma 2018, "Learning Sparse Neural Networks through L0 Regularization", eq. 12.
    """
    return torch.sigmoid(logits - TEMPERATURE * math.log(-LOW / HIGH))


def binary_sparsity(mask: Tensor, alpha: float, tiny: float) -> Tensor:
    """Penalty for masks that are large or not binary: mean of alpha m + (1 - alpha) H(m), the entropy H in bits.

    Its only stationary point, m = 1 / (1 + 2**(-alpha / (1 - alpha))), is a maximum above 1/2: masks that start at
    1/2 end at 0 unless another loss opposes it, and a hard sigmoid has no gradient there.

    Args:
        mask: Values of 0 to 1.
        alpha: Weight of the area, 0 to 1; 0 = entropy only.
        tiny: Keeps the logarithms finite.
    """
    entropy = -(mask * (mask + tiny).log2() + (1 - mask) * (1 - mask + tiny).log2())
    return (alpha * mask + (1 - alpha) * entropy).mean()


class MaskScorer(LocationScorer):
    """A gate per cell, open where its logit is above 0; otherwise scored as ``LocationScorer``.

    Args:
        area: Mean share of a region's cells whose gate may be open: a constraint with a Lagrange multiplier. It
            starts at 1, falls to this over the first half of the training, and costs nothing where it is met. It
            alone closes gates; the task's loss only ranks cells.
        sparsity: (alpha, beta, tiny) of the sparsity loss beta * ``binary_sparsity``, on a hard sigmoid of the
            logits, in place of the constraint. Gates start half open, and all of them close; for comparisons only.
        channels: Channels of the stage that is scored.
        grid: Cells along a side.
        location: Further parameters of ``LocationScorer``.

    Source:
        Gate: Louizos 2018, hard concrete. Budget: Bastings, Aziz, Titov 2019, "Interpretable Neural Predictions
        with Differentiable Binary Variables", section 3.3; differs: no cost where the constraint is met. Sparsity
        loss: stats.stackexchange 384355, whose formula is lost; this one has every property that the question asks
        for.
    """

    gate: ClassVar[float | None] = 0.0

    def __init__(
        self,
        *,
        area: float = 0.08,
        sparsity: Sequence[float] | None = None,
        channels: int,
        grid: int,
        **location: Any,
    ) -> None:
        super().__init__(channels=channels, grid=grid, **location)
        self.area = area
        self.sparsity = sparsity
        self.multiplier: Tensor
        self.slack: Tensor
        self.register_buffer("multiplier", torch.tensor(FIRST))
        self.register_buffer("slack", torch.zeros(()))

    def forward(self, given: ScorerInput) -> Scored:
        """Score every cell; all gates of a fresh scorer are open."""
        scored = super().forward(given)
        return scored if self.sparsity else scored._replace(logits=scored.logits + OPEN)

    def losses(self, scored: Scored, target: Target) -> Mapping[str, LossTerm]:
        """``area``: cost of the open gates, over the regions that are divided. Its share updates the multiplier."""
        logits = scored.logits[target.divided]
        if not len(logits):
            return {}
        if self.sparsity:
            alpha, beta, tiny = self.sparsity
            cost = beta * binary_sparsity(functional.hardsigmoid(logits), alpha, tiny).float()
            return {"area": mean_term(cost, logits.numel())}
        return {"area": self._over_budget(logits, target.progress)}

    def _over_budget(self, logits: Tensor, progress: float) -> LossTerm:
        allowed = 1 - (1 - self.area) * min(1.0, progress / ANNEALED)
        mean, count = open_probability(logits).mean().float(), logits.numel()

        def share(sums: Sequence[float]) -> Tensor:
            part = count / sums[0]
            own = mean * part
            with torch.no_grad():
                self.slack.mul_(KEPT).add_((1 - KEPT) * (sums[1] / sums[0] - allowed))
                multiplier = self.multiplier.clone()
                self.multiplier.mul_((RATE * self.slack).exp()).clamp_(LEAST, MOST)
            return multiplier * (own + (self.slack * part - own).detach()) * (self.slack > 0)

        return LossTerm((float(count), mean.item() * count), share)
