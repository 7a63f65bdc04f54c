"""The SAOL scorer: a spatially attentive output layer, whose prediction is a mixture over positions."""

import math
from collections.abc import Mapping, Sequence
from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional

from hiresattn.model.scorers.base import (
    PastedPart,
    Scored,
    Scorer,
    ScorerInput,
    Target,
    box_mask,
    label_loss,
    log_cells,
)
from hiresattn.shapes import Float

#: Most channels inside: a 3x3 convolution of more would cost as much as a small encoder.
WIDEST = 128
#: Weight of the label in the pooled head's loss; the distillation has weight 1.
BETA = 0.5
#: Pasted parts of a region below this many map px are left out of the loss.
LEAST_PASTED = 1e-3


class _Trace(NamedTuple):
    features: Tensor
    """The last map ``[n c h w]``."""
    attention: Tensor
    """Log of A ``[n 1 h w]``: A sums to 1 over positions."""
    spatial: Tensor
    """Log of Y ``[n K h w]``: Y sums to 1 over classes."""


class SaolScorer(Scorer):
    """Spatial attention A over positions times class probabilities Y at each; the prediction y is sum A Y.

    A cell's logit is the log of A sum_k y_k Y_k in it: classes are weighted by the prediction, never by the label.

    Args:
        channels: Channels of each of ``encoder_stages``.
        classes: Number of classes.
        grid: Cells along a side.
        encoder_stages: Which of the encoder's maps Y is computed from, by index; A is computed from the last of
            them, at its resolution.

    Source:
        Kim, Baek, Kim 2020, "Spatially Attentive Output Layer for Image Classification". The paper's code is gone;
        differs, or chosen where it is silent: attention by a 1x1 convolution to at most 128 channels and a 3x3
        one, group normalisation (independent of the batch), spatial logits by 1x1 convolutions to at most 128 maps
        per stage, uniform attention at the start; pasted parts are compared by KL(donor, pasted), where the paper
        prints the reverse.
    """

    needs_clean_donor = True

    def __init__(
        self,
        *,
        channels: Sequence[int],
        classes: int,
        grid: int,
        encoder_stages: Sequence[int] = (-3, -1),
    ) -> None:
        super().__init__()
        self.grid = grid
        self.encoder_stages = list(encoder_stages)
        self.attend = _attention(channels[-1])
        last = self.attend[-1]
        nn.init.zeros_(last.weight)  # type: ignore[arg-type]
        self.each = nn.ModuleList(nn.Conv2d(width, min(classes, WIDEST), 1) for width in channels)
        self.join = nn.Conv2d(min(classes, WIDEST) * len(channels), classes, 1)
        self.where_pasted = _attention(channels[-1])
        self.pooled = nn.Linear(channels[-1], classes)

    def forward(self, given: ScorerInput) -> Scored:
        """Score every cell, and predict the class."""
        last = given.stages[self.encoder_stages[-1]]
        attention = self.attend(last).flatten(2).log_softmax(2).view(last.shape[0], 1, *last.shape[2:])
        size = (int(last.shape[2]), int(last.shape[3]))
        resized = [functional.adaptive_avg_pool2d(given.stages[stage], size) for stage in self.encoder_stages]
        maps = [each(stage) for each, stage in zip(self.each, resized, strict=True)]
        spatial = self.join(torch.cat(maps, 1)).log_softmax(1)
        predicted = mixture(attention, spatial)
        expected = (predicted[:, :, None, None] + spatial).logsumexp(1, keepdim=True)
        density = (attention + expected).exp() * attention[0].numel()
        logits = log_cells(density, self.grid, given.fraction)
        return Scored(logits, class_log_prob=predicted, trace=_Trace(last, attention, spatial))

    def class_maps(self, scored: Scored) -> Mapping[str, Tensor]:
        """``evidence``: A Y of each class, over its maximum."""
        evidence = (scored.trace.attention + scored.trace.spatial).float()
        return {"evidence": (evidence - evidence.amax((2, 3), keepdim=True)).exp()}

    def losses(self, scored: Scored, target: Target) -> Mapping[str, Tensor]:
        """``saol``, ``distil`` (the mixture into the pooled head), and with CutMix ``paste_where``/``_what``."""
        assert scored.class_log_prob is not None  # noqa: S101 - forward gives one
        pooled = self.pooled(scored.trace.features.mean((2, 3))).log_softmax(1)
        losses = {
            "saol": label_loss(scored.class_log_prob, target),
            "distil": distillation(scored.class_log_prob, pooled, target),
        }
        if target.pasted is not None:
            height, width = scored.trace.attention.shape[2:]
            mask = box_mask(target.pasted.box, height, width)
            losses["paste_where"] = self._where(scored, mask, target)
            if target.pasted.clean is not None:
                losses["paste_what"] = self._what(scored, mask, target, target.pasted)
        return losses

    def _where(self, scored: Scored, mask: Tensor, target: Target) -> Tensor:
        """Binary cross-entropy of a map that predicts which px are pasted."""
        guess = self.where_pasted(scored.trace.features)[:, 0]
        wrong = functional.binary_cross_entropy_with_logits(guess, mask.to(guess), reduction="none")
        return (target.weight * wrong.mean((1, 2))).mean()

    def _what(self, scored: Scored, mask: Tensor, target: Target, pasted: PastedPart) -> Tensor:
        """KL(donor, pasted) of the class probabilities, over pasted px."""
        assert pasted.clean is not None  # noqa: S101 - the caller's condition
        mask = mask[pasted.rows].to(scored.logits)
        here, donor = scored.trace.spatial[pasted.rows], pasted.clean.trace.spatial.detach()
        apart = (donor.exp() * (donor - here)).sum(1)
        area = mask.sum((1, 2))
        each = (mask * apart).sum((1, 2)) / area.clamp(min=LEAST_PASTED)
        return (target.weight[pasted.rows] * each * (area > LEAST_PASTED)).sum() / len(scored.logits)


def mixture(attention: Float[Tensor, "n 1 h w"], spatial: Float[Tensor, "n K h w"]) -> Float[Tensor, "n K"]:
    """Log of the sum over positions of A Y, from their logs. Normalised: its negative is the loss, no softmax."""
    return (attention + spatial).flatten(2).logsumexp(2)


def distillation(teacher: Float[Tensor, "n K"], student: Float[Tensor, "n K"], target: Target) -> Tensor:
    """KL(teacher, student), the teacher detached, plus ``BETA`` times the student's own loss; all in logs."""
    teacher = teacher.detach()
    apart = (teacher.exp() * (teacher - student)).sum(1)
    return (target.weight * apart).mean() + BETA * label_loss(student, target)


def _attention(channels: int) -> nn.Sequential:
    """Two convolutions to one value per map px."""
    width = min(channels, WIDEST)
    return nn.Sequential(
        nn.Conv2d(channels, width, 1, bias=False),
        nn.GroupNorm(math.gcd(8, width), width),
        nn.ReLU(inplace=True),
        nn.Conv2d(width, 1, 3, padding=1),
    )
