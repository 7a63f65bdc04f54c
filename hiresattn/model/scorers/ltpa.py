"""The LTPA scorer: attention by the agreement of local features with the region's vector, at several scales."""

import math
import warnings
from collections.abc import Mapping, Sequence

import torch
from torch import Tensor, nn

from hiresattn.model.scorers.base import Scored, Scorer, ScorerInput, Target, label_loss, log_cells


class LtpaScorer(Scorer):
    """Attention of the region's vector g over the local features l_i of some of the encoder's maps.

    Per map: compatibility c_i, attention a = softmax over positions, vector sum a_i l_i. Local features and g are
    first projected to one width. The scorer's classifier gets the vectors, not g. A cell's logit is the mean over
    maps of the log of the attention in it.

    Args:
        channels: Channels of each of ``encoder_stages``.
        context: Width of the region's vector.
        classes: Number of classes.
        grid: Cells along a side.
        encoder_stages: Which of the encoder's maps, by index, fine to coarse.
        hidden: The common width; None = ``context``.
        compatibility: ``dot``: l_i . g. ``gated``: u . ReLU(l_i + g). ``parametrised``: u . (l_i + g), as published;
            under softmax u . g cancels, so the attention does not depend on g.
        heads: ``concat``: one classifier of all maps' vectors; ``indep``: one per map, probabilities averaged.

    Warns:
        UserWarning: For ``parametrised``.

    Source:
        Jetley, Lord, Lee, Torr 2018, "Learn To Pay Attention", sections 3.1 and 3.2; ``gated`` is the attention
        gate of Oktay et al. 2018. Differs: every map has a projection without bias.
    """

    def __init__(
        self,
        *,
        channels: Sequence[int],
        context: int,
        classes: int,
        grid: int,
        encoder_stages: Sequence[int] = (-3, -1),
        hidden: int | None = 64,
        compatibility: str = "dot",
        heads: str = "concat",
    ) -> None:
        super().__init__()
        if compatibility == "parametrised":
            warnings.warn(
                "compatibility 'parametrised' does not depend on the region as a whole: its global part is the same "
                "at every position and cancels in the softmax, so its weights get no gradient; use 'gated' or 'dot'",
                stacklevel=2,
            )
        hidden = hidden or context
        self.grid = grid
        self.encoder_stages = list(encoder_stages)
        self.compatibility = compatibility
        self.local = nn.ModuleList(nn.Conv2d(width, hidden, 1, bias=False) for width in channels)
        self.whole = nn.Linear(context, hidden)
        self.rate = None
        if compatibility != "dot":
            self.rate = nn.ModuleList(nn.Conv2d(hidden, 1, 1, bias=False) for _ in channels)
        sizes = [hidden * len(channels)] if heads == "concat" else [hidden] * len(channels)
        self.heads = nn.ModuleList(nn.Linear(size, classes) for size in sizes)

    def forward(self, given: ScorerInput) -> Scored:
        """Score every cell; the trace holds each map's attention ``[n 1 h w]``."""
        whole = self.whole(given.features)[:, :, None, None]
        maps, vectors, logits = [], [], []
        for number, project in enumerate(self.local):
            local = project(given.stages[self.encoder_stages[number]])
            attention = self._compatibility(number, local, whole).flatten(1).softmax(1)
            attention = attention.view(local.shape[0], 1, *local.shape[2:])
            vectors.append((attention * local).sum((2, 3)))
            maps.append(attention)
            logits.append(log_cells(attention * attention[0].numel(), self.grid, given.fraction))
        inputs = [torch.cat(vectors, 1)] if len(self.heads) == 1 else vectors
        each = [head(vector).log_softmax(1) for head, vector in zip(self.heads, inputs, strict=True)]
        log_prob = torch.stack(each).logsumexp(0) - math.log(len(each))
        return Scored(torch.stack(logits).mean(0), class_log_prob=log_prob, trace=tuple(maps))

    def _compatibility(self, number: int, local: Tensor, whole: Tensor) -> Tensor:
        if self.rate is None:
            return (local * whole).sum(1)
        both = local + whole
        rated: Tensor = self.rate[number](both.relu() if self.compatibility == "gated" else both)
        return rated

    def losses(self, scored: Scored, target: Target) -> Mapping[str, Tensor]:
        """``ltpa``: negative log-likelihood of the labels."""
        assert scored.class_log_prob is not None  # noqa: S101 - forward gives one
        return {"ltpa": label_loss(scored.class_log_prob, target)}
