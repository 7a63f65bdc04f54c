"""A spatially attentive output layer: where to look, and what each place says, as one mixture."""

import math
from collections.abc import Mapping, Sequence
from typing import NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional

from hiresattn.model.scorers.base import (
    Paste,
    Scored,
    Scorer,
    Target,
    View,
    box_mask,
    label_loss,
    log_cells,
)

#: Most channels inside: a 3x3 convolution of more would cost as much as a small encoder.
WIDEST = 128
#: What the label counts in the pooled head's loss; its teacher counts 1.
BETA = 0.5
#: A pasted part of a region below this many map px teaches nothing.
LEAST_PASTE = 1e-3


class _Trace(NamedTuple):
    features: Tensor
    """The last map ``[n c h w]``."""
    attention: Tensor
    """Log of A ``[n 1 h w]``: sums to 1 over places."""
    spatial: Tensor
    """Log of Y ``[n K h w]``: sums to 1 over classes."""


class SaolScorer(Scorer):
    """Spatial attention A over places times spatial logits Y over classes: the answer is sum A Y, a mixture.

    A cell's logit is the log of A sum_k y_k Y_k in it, y the answer: the classes are weighed by what the scorer
    believes, never by the label.

    Args:
        channels: Channels of each tap.
        classes: Number of classes.
        grid: Cells along a side.
        encoder_stages: Which of the encoder's maps make the spatial logits, by index; the attention is computed
            from the last of them, at its resolution.
        reverse: Teach what a pasted part shows as printed, KL(pasted, clean); else with the teacher first.

    Source:
        Kim, Baek, Kim 2020, "Spatially Attentive Output Layer for Image Classification". The paper's code is gone;
        differs, or chosen where it is silent: attention by a 1x1 convolution to at most 128 channels and a 3x3
        one, group normalisation (a search looks at one region at a time), spatial logits by 1x1 convolutions of at
        most 128 maps per tap, attention that starts even.
    """

    compares = True

    def __init__(
        self,
        *,
        channels: Sequence[int],
        classes: int,
        grid: int,
        encoder_stages: Sequence[int] = (-3, -1),
        reverse: bool = False,
    ) -> None:
        super().__init__()
        self.grid = grid
        self.encoder_stages = list(encoder_stages)
        self.reverse = reverse
        self.attend = _attention(channels[-1])
        last = self.attend[-1]
        nn.init.zeros_(last.weight)  # type: ignore[arg-type]
        self.each = nn.ModuleList(nn.Conv2d(width, min(classes, WIDEST), 1) for width in channels)
        self.join = nn.Conv2d(min(classes, WIDEST) * len(channels), classes, 1)
        self.where_pasted = _attention(channels[-1])
        self.pooled = nn.Linear(channels[-1], classes)

    def forward(self, view: View) -> Scored:
        """Score every cell, and answer."""
        last = view.stages[self.encoder_stages[-1]]
        attention = self.attend(last).flatten(2).log_softmax(2).view(len(last), 1, *last.shape[2:])
        places = (last.shape[2], last.shape[3])
        resized = [functional.adaptive_avg_pool2d(view.stages[tap], places) for tap in self.encoder_stages]
        maps = [each(tap) for each, tap in zip(self.each, resized, strict=True)]
        spatial = self.join(torch.cat(maps, 1)).log_softmax(1)
        answer = mixture(attention, spatial)
        believed = (answer[:, :, None, None] + spatial).logsumexp(1, keepdim=True)
        density = (attention + believed).exp() * attention[0].numel()
        logits = log_cells(density, self.grid, view.fraction)
        return Scored(logits, class_log_prob=answer, trace=_Trace(last, attention, spatial))

    def evidence(self, scored: Scored, label: int) -> Float[Tensor, "n h w"]:
        """How much each place says for a class: A Y, whose sum is the class's probability. One pass, no CAM."""
        return (scored.trace.attention[:, 0] + scored.trace.spatial[:, label]).exp()

    def class_maps(self, scored: Scored) -> Mapping[str, Tensor]:
        """``evidence``: A Y of each class, over its maximum."""
        evidence = (scored.trace.attention + scored.trace.spatial).float()
        return {"evidence": (evidence - evidence.amax((2, 3), keepdim=True)).exp()}

    def losses(self, scored: Scored, target: Target) -> Mapping[str, Tensor]:
        """``saol``, ``distil`` (the pooled head learns from the mixture), and with CutMix ``paste_where``/``_what``."""
        assert scored.class_log_prob is not None  # noqa: S101 - forward gives one
        pooled = self.pooled(scored.trace.features.mean((2, 3))).log_softmax(1)
        losses = {
            "saol": label_loss(scored.class_log_prob, target),
            "distil": distillation(scored.class_log_prob, pooled, target),
        }
        if target.paste is not None:
            height, width = scored.trace.attention.shape[2:]
            mask = box_mask(target.paste.box, height, width)
            losses["paste_where"] = self._where(scored, mask, target)
            if target.paste.clean is not None:
                losses["paste_what"] = self._what(scored, mask, target, target.paste)
        return losses

    def _where(self, scored: Scored, mask: Tensor, target: Target) -> Tensor:
        guess = self.where_pasted(scored.trace.features)[:, 0]
        wrong = functional.binary_cross_entropy_with_logits(guess, mask.to(guess), reduction="none")
        return (target.weight * wrong.mean((1, 2))).mean()

    def _what(self, scored: Scored, mask: Tensor, target: Target, paste: Paste) -> Tensor:
        assert paste.clean is not None  # noqa: S101 - the caller's condition
        mask = mask[paste.rows].to(scored.logits)
        seen, donor = scored.trace.spatial[paste.rows], paste.clean.trace.spatial.detach()
        first, second = (seen, donor) if self.reverse else (donor, seen)
        apart = (first.exp() * (first - second)).sum(1)
        area = mask.sum((1, 2))
        each = (mask * apart).sum((1, 2)) / area.clamp(min=LEAST_PASTE)
        return (target.weight[paste.rows] * each * (area > LEAST_PASTE)).sum() / len(scored.logits)


def mixture(attention: Float[Tensor, "n 1 h w"], spatial: Float[Tensor, "n K h w"]) -> Float[Tensor, "n K"]:
    """Log of sum over places of A Y, from their logs. It is normalised: its negative is the loss, no softmax."""
    return (attention + spatial).flatten(2).logsumexp(2)


def distillation(teacher: Float[Tensor, "n K"], student: Float[Tensor, "n K"], target: Target) -> Tensor:
    """KL(teacher, student), the teacher detached, plus ``BETA`` times the student's own loss; all in logs."""
    teacher = teacher.detach()
    apart = (teacher.exp() * (teacher - student)).sum(1)
    return (target.weight * apart).mean() + BETA * label_loss(student, target)


def _attention(channels: int) -> nn.Sequential:
    """Two convolutions to one value per place."""
    width = min(channels, WIDEST)
    return nn.Sequential(
        nn.Conv2d(channels, width, 1, bias=False),
        nn.GroupNorm(math.gcd(8, width), width),
        nn.ReLU(inplace=True),
        nn.Conv2d(width, 1, 3, padding=1),
    )
