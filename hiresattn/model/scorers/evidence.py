"""Evidence: what every px of the encoder's map shows, learnt from boxes."""

from collections.abc import Mapping
from typing import ClassVar

import torch
from jaxtyping import Float, Int64
from torch import Tensor, nn
from torch.nn import functional

from hiresattn.model.scorers.base import Scored, Scorer, Shown, Target, View, box_mask, log_cells, pool_cells


class EvidenceScorer(Scorer):
    """Tells the classes apart in every px of a map; a cell is worth a look as far as one of its px shows any.

    A cell's logit is the log of the mean over it of the odds that a px shows a class and not nothing. It learns from
    boxes, best from boxes that say their classes: then one region teaches as much as it has boxes, while the
    scorers that rank cells learn from it one comparison.

    Args:
        channels: Channels of the map that is scored.
        classes: Number of classes.
        grid: Cells along a side.
        background: Index of the class that means that there is nothing, if there is one.
        hidden: Width inside; None = ``channels``.
        stage: Which of the encoder's maps, by index (-1 = the coarsest).
        cap: Log-odds stay within plus and minus this.
    """

    boxes: ClassVar[bool] = True

    def __init__(
        self,
        *,
        channels: int,
        classes: int,
        grid: int,
        background: int | None = None,
        hidden: int | None = 64,
        stage: int = -1,
        cap: float = 10.0,
    ) -> None:
        super().__init__()
        self.grid, self.stage, self.cap = grid, stage, cap
        self.classes, self.background = classes, background
        self.local = nn.Conv2d(channels, hidden or channels, 1)
        self.out = nn.Conv2d(hidden or channels, classes + 1, 1)  # the last is for nothing

    def forward(self, view: View) -> Scored:
        """Score every cell of every region."""
        seen = functional.silu(self.local(view.stages[self.stage]))
        kinds = self.out(seen)
        something = [i for i in range(self.classes) if i != self.background]
        odds = kinds[:, something].logsumexp(1, keepdim=True) - kinds[:, -1:]
        odds = self.cap * torch.tanh(odds / self.cap)
        share = (odds - odds.amax((2, 3), keepdim=True)).exp()  # a cell looks like what makes it worth a look
        return Scored(
            log_cells(odds.exp(), self.grid, view.fraction),
            appearance=pool_cells(seen * share, self.grid, view.fraction),
            trace=kinds,
        )

    def class_maps(self, scored: Scored) -> Mapping[str, Tensor]:
        """``evidence``: the probability of each class, px by px."""
        return {"evidence": scored.trace.float().softmax(1)[:, : self.classes]}

    def losses(self, scored: Scored, target: Target) -> Mapping[str, Tensor]:
        """``evidence``: cross-entropy of the px, every class that shows in the batch counted alike."""
        kinds = scored.trace.float()
        if target.shown is None:
            return {}
        wanted = kinds_shown(target.shown, *kinds.shape[2:], nothing=self.classes)
        if self.background is not None:
            wanted = torch.where(wanted == self.background, self.classes, wanted)
        wanted = torch.where(target.divided[:, None, None], wanted, -1)
        if not bool((wanted >= 0).any()):
            return {}
        count = torch.bincount(wanted[wanted >= 0], minlength=self.classes + 1)
        weight = 1 / count.clamp(min=1).float()
        return {"evidence": functional.cross_entropy(kinds, wanted, weight, ignore_index=-1)}


def kinds_shown(shown: Shown, height: int, width: int, *, nothing: int) -> Int64[Tensor, "n h w"]:
    """What every px of the regions' maps shows: the class of the box that covers it most.

    A box takes the px that it covers at least half as much as the one that it covers most; small boxes have one
    px, too. Those that it covers less say nothing (-1), as do regions whose boxes aren't known.

    Args:
        shown: The boxes.
        height: Rows of a map.
        width: Columns of a map.
        nothing: The index of what no box touches.
    """
    maps = (len(shown.known), height, width)
    covered = box_mask(shown.box, height, width)
    taken = torch.where(covered * 2 >= covered.amax((1, 2), keepdim=True), covered, 0)
    touched = _largest(covered, shown.row, maps) > 0
    most = _largest(taken, shown.row, maps)
    first = (taken > 0) & (taken == most[shown.row])
    kind = _largest(torch.where(first, shown.kind[:, None, None] + 1.0, 0), shown.row, maps).long() - 1
    rest = torch.where(shown.known[:, None, None] & ~touched, nothing, -1)
    return torch.where(kind >= 0, kind, rest)


def _largest(values: Float[Tensor, "m h w"], row: Int64[Tensor, " m"], maps: tuple[int, ...]) -> Tensor:
    """The largest value of each row's ``[n h w]``; 0 without any."""
    where = row[:, None, None].expand_as(values)
    return values.new_zeros(maps).scatter_reduce(0, where, values, "amax")
