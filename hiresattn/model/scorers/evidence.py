"""The evidence scorer: classifies every px of the encoder's map, trained from boxes."""

from collections.abc import Mapping, Sequence
from typing import ClassVar

import torch
from torch import Tensor, nn
from torch.nn import functional

from hiresattn.model.scorers.base import (
    LossTerm,
    Scored,
    Scorer,
    ScorerInput,
    Target,
    VisibleBoxes,
    box_mask,
    log_cells,
    pool_cells,
)
from hiresattn.shapes import Float, Int64


class EvidenceScorer(Scorer):
    """Classifies every px of a feature map; a cell's logit is the log of its mean odds of class against nothing.

    It is trained from boxes, best from boxes with classes: a region then gives as many training examples as it has
    boxes, where scorers that rank cells get one comparison from it.

    Args:
        channels: Channels of the map that is scored.
        classes: Number of classes.
        grid: Cells along a side.
        background: Index of the background class, if there is one.
        hidden: Width inside; None = ``channels``.
        stage: Which of the encoder's maps, by index (-1 = the coarsest).
        cap: Log-odds stay within plus and minus this.
    """

    learns_from_boxes: ClassVar[bool] = True

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
        self.out = nn.Conv2d(hidden or channels, classes + 1, 1)  # the last channel is "nothing"

    def forward(self, given: ScorerInput) -> Scored:
        """Score every cell of every region."""
        local = functional.silu(self.local(given.stages[self.stage]))
        classes = self.out(local)
        foreground = [i for i in range(self.classes) if i != self.background]
        odds = classes[:, foreground].logsumexp(1, keepdim=True) - classes[:, -1:]
        odds = self.cap * torch.tanh(odds / self.cap)
        share = (odds - odds.amax((2, 3), keepdim=True)).exp()  # a cell's appearance is that of its best px
        return Scored(
            log_cells(odds.exp(), self.grid, given.fraction),
            appearance=pool_cells(local * share, self.grid, given.fraction),
            trace=classes,
        )

    def class_maps(self, scored: Scored) -> Mapping[str, Tensor]:
        """``evidence``: the probability of each class, px by px."""
        return {"evidence": scored.trace.float().softmax(1)[:, : self.classes]}

    def losses(self, scored: Scored, target: Target) -> Mapping[str, LossTerm]:
        """``evidence``: cross-entropy of the px; all classes present in the batch have the same total weight."""
        logits = scored.trace.float()
        if target.boxes is None:
            return {}
        wanted, probability = class_map_of(target.boxes, *logits.shape[2:], nothing=self.classes)
        if self.background is not None:
            wanted = torch.where(wanted == self.background, self.classes, wanted)
        wanted = torch.where(target.divided[:, None, None], wanted, -1)
        if not bool((wanted >= 0).any()):
            return {}
        counted = (wanted >= 0) * target.boxes.weight[:, None, None]
        share = functional.one_hot(wanted.clamp(min=0), self.classes + 1) * probability[..., None]
        share[..., -1] += 1 - probability
        share = share * counted[..., None]
        wrong = -(share * logits.log_softmax(1).permute(0, 2, 3, 1)).sum((0, 1, 2))

        def part(sums: Sequence[float]) -> Tensor:
            count = torch.tensor(sums).to(wrong)
            weight = 1 / count.clamp(min=1)
            return (weight * wrong).sum() / (weight * count).sum()

        return {"evidence": LossTerm(tuple(share.sum((0, 1, 2)).tolist()), part)}


def class_map_of(
    boxes: VisibleBoxes, height: int, width: int, *, nothing: int
) -> tuple[Int64[Tensor, "n h w"], Float[Tensor, "n h w"]]:
    """Class of every px of the regions' maps, that of the box that covers most of it; and the box's confidence.

    A box takes the px that it covers at least half as much as the one that it covers most, so that small boxes get
    a px, too. Px that boxes only touch, and regions whose boxes aren't known, are -1.

    Args:
        boxes: The boxes.
        height: Rows of a map.
        width: Columns of a map.
        nothing: Index for px that no box touches.

    Returns:
        Classes, and their probabilities: with the rest of it, the px shows nothing. 1 where there is no box.
    """
    maps = (len(boxes.known), height, width)
    covered = box_mask(boxes.box, height, width)
    confidence = boxes.confidence[:, None, None]
    taken = torch.where(covered * 2 >= covered.amax((1, 2), keepdim=True), covered, 0)
    touched = _largest(covered, boxes.row, maps) > 0
    taken = taken * confidence
    most = _largest(taken, boxes.row, maps)
    first = (taken > 0) & (taken == most[boxes.row])
    found = _largest(torch.where(first, boxes.box_class[:, None, None] + 1.0, 0), boxes.row, maps).long() - 1
    rest = torch.where(boxes.known[:, None, None] & ~touched, nothing, -1)
    probability = _largest(torch.where(first, confidence, 0), boxes.row, maps)
    return torch.where(found >= 0, found, rest), torch.where(found >= 0, probability, 1)


def _largest(values: Float[Tensor, "m h w"], row: Int64[Tensor, " m"], maps: tuple[int, ...]) -> Tensor:
    """The largest value of each row's ``[n h w]``; 0 without any."""
    index = row[:, None, None].expand_as(values)
    return values.new_zeros(maps).scatter_reduce(0, index, values, "amax")
