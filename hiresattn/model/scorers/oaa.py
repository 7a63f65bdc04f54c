"""The OAA scorer: class activation maps are accumulated over training, and a second map is trained on them."""

from collections.abc import Mapping

import torch
from torch import Tensor, nn
from torch.nn import functional

from hiresattn.model.scorers.base import Scored, Scorer, ScorerInput, Target, log_cells
from hiresattn.shapes import Bool, Float

#: Share of the training over which the loss on accumulated maps grows to its full weight.
RAMP = 0.5
#: Bias of fresh integral maps: most positions show no class.
RARE = -3.0
#: Keeps the division by a map's maximum finite.
TINY = 1e-8


class OaaScorer(Scorer):
    """Class activation maps, and integral maps that are trained on their accumulation over all epochs.

    A cell's logit is the log of sum_c p_c sigmoid(F^_c) in it, p the classes' probabilities and F^ the integral
    maps. Accumulated maps are used in training only.

    Args:
        channels: Channels of the map that is scored.
        classes: Number of classes.
        grid: Cells along a side.
        stage: Which of the encoder's maps, by index.
        negatives: Which classes the integral maps' loss covers: ``present``, those of the label, as in the paper; or
            ``all``, absent ones too, with an empty target, as in its code.
        floor: Accumulated attention below this counts as 0 in the target, 0 to 1. 0 as in the paper, whose objects
            fill much of an image; small objects need more, 0.5 to 0.8.

    Source:
        Jiang et al. 2019, "Integral Object Mining via Online Attention Accumulation". Differs: both maps in one
        network, the second's loss growing as the first becomes reliable; one 1x1 convolution each.
    """

    def __init__(
        self,
        *,
        channels: int,
        classes: int,
        grid: int,
        stage: int = -1,
        negatives: str = "present",
        floor: float = 0.0,
    ) -> None:
        super().__init__()
        self.grid = grid
        self.stage = stage
        self.negatives = negatives
        self.floor = floor
        self.activation = nn.Conv2d(channels, classes, 1)
        self.integral = nn.Conv2d(channels, classes, 1)
        nn.init.constant_(self.integral.bias, RARE)  # type: ignore[arg-type]

    def forward(self, given: ScorerInput) -> Scored:
        """Score every cell, and predict the class."""
        stage = given.stages[self.stage]
        activation, integral = self.activation(stage), self.integral(stage)
        mean = activation.mean((2, 3))
        density = (mean.sigmoid()[:, :, None, None] * integral.sigmoid()).sum(1, keepdim=True)
        logits = log_cells(density, self.grid, given.fraction)
        return Scored(logits, class_log_prob=mean.log_softmax(1), trace=(activation, integral))

    def class_maps(self, scored: Scored) -> Mapping[str, Tensor]:
        """``cam``: the class activation maps; ``integral``: those trained on accumulated attention (OAA+)."""
        activation, integral = scored.trace
        return {"cam": attention_of(activation.float()), "integral": attention_of(integral.float())}

    def losses(self, scored: Scored, target: Target) -> Mapping[str, Tensor]:
        """``cam``: classification; ``hybrid``: the integral maps. Calls ``target.merge_attention``."""
        activation, integral = scored.trace
        present = _shares(target.labels, activation.shape[1])
        shares = present
        if target.pasted is not None:
            part = target.pasted.share[:, None]
            shares = (1 - part) * present + part * _shares(target.pasted.labels, activation.shape[1])
        mean = activation.mean((2, 3))
        wrong = functional.binary_cross_entropy_with_logits(mean, shares, reduction="none").mean(1)
        accepted = right_classes(mean, present > 0) & (target.weight > 0)[:, None]
        if target.pasted is not None:
            accepted = accepted & (target.pasted.share == 0)[:, None]
        with torch.no_grad():
            maps = attention_of(activation.float())
            maps = (
                maps * accepted[:, :, None, None]
                if target.merge_attention is None
                else target.merge_attention(maps, accepted)
            )
        maps = torch.where(maps < self.floor, 0, maps)
        covered = (present > 0) & (maps.amax((2, 3)) > 0)
        if self.negatives == "all":
            covered = covered | ((present == 0) & (shares == 0))
        hybrid = (hybrid_loss(integral, maps) * covered).sum(1)
        ramp = min(1.0, target.progress / RAMP)
        return {
            "cam": (target.weight * wrong).mean(),
            "hybrid": ramp * (target.weight * hybrid).mean(),
        }


def attention_of(activation: Float[Tensor, "n K h w"]) -> Float[Tensor, "n K h w"]:
    """Attention, 0 to 1: the positive part of each class's map over its maximum."""
    positive = activation.relu()
    return positive / (positive.amax((2, 3), keepdim=True) + TINY)


def right_classes(scores: Float[Tensor, "n K"], present: Bool[Tensor, "n K"]) -> Bool[Tensor, "n K"]:
    """Which present classes are predicted: among the n likeliest, n = number present. One label: the prediction."""
    rank = scores.argsort(1, descending=True).argsort(1)
    return present & (rank < present.sum(1, keepdim=True))


def hybrid_loss(logits: Float[Tensor, "... h w"], maps: Float[Tensor, "... h w"]) -> Float[Tensor, "..."]:
    """The loss of integral maps: up in proportion to accumulated attention, down where there never was any.

    -1/|N+| sum over N+ of p log q  -  1/|N-| sum over N- of log(1 - q), with q = sigmoid(logits), N+ the px
    whose p is above 0 and N- the others; a part without px is 0. Unlike cross-entropy it never pushes down a px of
    weak attention.

    Args:
        logits: Integral maps.
        maps: Accumulated attention p, 0 to 1.

    Returns:
        One per map.

    Source:
        Jiang et al. 2019, hybrid loss of OAA+; as corrected: the second part has no factor p.
    """
    some = maps > 0
    up = -(maps * functional.logsigmoid(logits) * some).sum((-2, -1)) / some.sum((-2, -1)).clamp(min=1)
    down = -(functional.logsigmoid(-logits) * ~some).sum((-2, -1)) / (~some).sum((-2, -1)).clamp(min=1)
    return up + down


def _shares(labels: Tensor, classes: int) -> Tensor:
    """Labels as floats ``[n K]``."""
    if labels.ndim == 2:
        return labels.float()
    return functional.one_hot(labels, classes).float()
