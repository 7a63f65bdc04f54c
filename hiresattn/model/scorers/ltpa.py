"""Learn to pay attention: local features that agree with the region's own vector, at several scales."""

import math
import warnings
from collections.abc import Mapping, Sequence

import torch
from torch import Tensor, nn

from hiresattn.model.scorers.base import Scored, Scorer, Target, View, label_loss, log_cells


class LtpaScorer(Scorer):
    """Attention of the region's vector g over the local features l_i of some of the encoder's maps (encoder_stages).

    Per tap: compatibility c_i, attention a = softmax over places, vector sum a_i l_i. Local features and g are
    brought to one width first. The classifier sees the vectors, not g. A cell's logit is the mean over stages of
    the log of the attention in it.

    Args:
        channels: Channels of each tap.
        context: Width of the region's vector.
        classes: Number of classes.
        grid: Cells along a side.
        encoder_stages: Which of the encoder's maps, by index, fine to coarse.
        hidden: The common width; None = ``context``.
        compatibility: ``dot``: l_i . g. ``gated``: u . ReLU(l_i + g). ``plain``: u . (l_i + g), the published
            parametrised form; under softmax u . g cancels, so the attention does not depend on g.
        heads: ``concat``: one classifier of all stages' vectors; ``indep``: one per tap, probabilities averaged.

    Warns:
        UserWarning: For ``plain``.

    Source:
        Jetley, Lord, Lee, Torr 2018, "Learn To Pay Attention", sections 3.1 and 3.2; ``gated`` is the attention
        gate of Oktay et al. 2018. Differs: every tap has a projection without bias.
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
        if compatibility == "plain":
            warnings.warn(
                "compatibility 'plain' under softmax does not depend on the region as a whole: the global part is "
                "the same everywhere and cancels, and what makes it learns nothing; use 'gated' or 'dot'",
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
        self.answers = nn.ModuleList(nn.Linear(size, classes) for size in sizes)

    def forward(self, view: View) -> Scored:
        """Score every cell; the trace holds each tap's attention ``[n 1 h w]``."""
        whole = self.whole(view.features)[:, :, None, None]
        maps, vectors, logits = [], [], []
        for number, project in enumerate(self.local):
            local = project(view.stages[self.encoder_stages[number]])
            attention = self._compatibility(number, local, whole).flatten(1).softmax(1)
            attention = attention.view(len(local), 1, *local.shape[2:])
            vectors.append((attention * local).sum((2, 3)))
            maps.append(attention)
            logits.append(log_cells(attention * attention[0].numel(), self.grid, view.fraction))
        joined = [torch.cat(vectors, 1)] if len(self.answers) == 1 else vectors
        said = [answer(vector) for answer, vector in zip(self.answers, joined, strict=True)]
        answer = torch.stack([one.log_softmax(1) for one in said]).logsumexp(0) - math.log(len(said))
        return Scored(torch.stack(logits).mean(0), class_log_prob=answer, trace=tuple(maps))

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
