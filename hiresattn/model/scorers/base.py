"""The interface of a scorer: what it is given and returns, and what its training losses know."""

from abc import abstractmethod
from collections.abc import Callable, Mapping, Sequence
from typing import Any, ClassVar, NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional

from hiresattn.shapes import Bool, Float, Int64


class ScorerInput(NamedTuple):
    """The encoder's output for ``n`` regions. Holds no label: the same in training and in use."""

    stages: tuple[Tensor, ...]
    """Feature maps, fine to coarse, each ``[n c_s h_s w_s]``."""
    features: Float[Tensor, "n d"]
    """One vector per crop, before its position is added."""
    fraction: Float[Tensor, " n"]
    """Side of a cell over the side of its region."""


class Scored(NamedTuple):
    """A scorer's output for ``n`` regions."""

    logits: Float[Tensor, "n g g"]
    """One per cell; the higher, the more promising. Selection uses nothing else."""
    appearance: Tensor | None = None
    """Vector of each cell's appearance, ``[n d g g]``, compared by cosine; None = the scorer has none."""
    class_log_prob: Float[Tensor, "n K"] | None = None
    """Log-probability of each class, from a scorer with a head of its own; None = it has none."""
    trace: Any = None
    """Intermediate values that the scorer keeps for its own losses and class maps."""


class PastedPart(NamedTuple):
    """The rectangle of another image, the donor, that CutMix pasted into each of ``n`` regions."""

    box: Float[Tensor, "n 4"]
    """First row, first column, last row, last column, as shares of the region (0 to 1), clipped to it; zeros where
    none of it is visible."""
    labels: Tensor
    """The donor's; as ``Target.labels``."""
    share: Float[Tensor, " n"]
    """Weight of the donor's label, 0 to 1: the share of the region that is pasted. The rest is the host's."""
    rows: Int64[Tensor, " m"]
    """Rows whose donor was encoded as well, without pasting, in the same region."""
    clean: Scored | None = None
    """The scorer's output for those ``m`` donors; None = there are none."""


class VisibleBoxes(NamedTuple):
    """The ``m`` boxes that are visible in ``n`` regions."""

    row: Int64[Tensor, " m"]
    """The region; a box may be visible in several."""
    box: Float[Tensor, "m 4"]
    """First row, first column, last row, last column, as shares of the region, clipped to it."""
    box_class: Int64[Tensor, " m"]
    """Index of the box's class."""
    known: Bool[Tensor, " n"]
    """Regions whose boxes are all known, or that are known to be background."""
    confidence: Float[Tensor, " m"]
    """Probability that each box shows its class."""
    weight: Float[Tensor, " n"]
    """Weight of each region in losses: that of the likeliest box of its image."""


class Target(NamedTuple):
    """Supervision for the ``n`` regions of one ``Scored``. Only ``Scorer.losses`` gets it."""

    labels: Tensor
    """Class index ``[n]`` (int64), or the share of every class ``[n K]`` (float; multi-hot)."""
    weight: Float[Tensor, " n"]
    """Weight of each row in losses that use labels. Falls with depth: a region inherits its image's label and may
    not hold what that names; 0 where it is known not to."""
    divided: Bool[Tensor, " n"]
    """Rows whose cells are chosen from; the others are finest."""
    progress: float
    """Share of the training done, 0 to 1."""
    pasted: PastedPart | None = None
    """What CutMix pasted; None = nothing."""
    merge_attention: Callable[[Tensor, Tensor], Tensor] | None = None
    """``merge_attention(maps [n K h w], accepted [n K] bool)`` → accumulated maps ``[n K h w]``, 0 to 1: the maximum
    of all accepted maps of these regions so far, these included; 0 where none was ever accepted. Maps are given and
    returned as the network saw the regions, augmentation included. None = nothing is accumulated."""
    boxes: VisibleBoxes | None = None
    """Boxes, for scorers with ``learns_from_boxes``; None = none are known."""


class LossTerm(NamedTuple):
    """A loss of a batch of which several processes may each have a part: their shares add up to that of all of it."""

    sums: tuple[float, ...]
    """What it needs summed over all of the batch, such as how many rows it is a mean over: those of this part."""
    share: Callable[[Sequence[float]], Tensor]
    """``share(sums of the whole batch)`` → this part's share; called once."""

    def alone(self) -> Tensor:
        """The loss where this part is the whole batch."""
        return self.share(self.sums)


def mean_term(mean: Tensor, count: int) -> LossTerm:
    """The term of a loss that is a mean over ``count`` things, above 0, of this part of the batch."""
    return LossTerm((float(count),), lambda sums: mean * (count / sums[0]))


class Scorer(nn.Module):
    """Computes one logit per cell from the encoder's output."""

    gate: ClassVar[float | None] = None
    """Logit above which a cell is selected, for scorers that decide how many cells are; None = the ``k`` best are."""
    needs_clean_donor: ClassVar[bool] = False
    """Whether its losses need ``PastedPart.clean``: a further pass, without gradients, over the donors."""
    learns_from_boxes: ClassVar[bool] = False
    """Whether its losses need ``Target.boxes``; the trainer then leaves out its own location loss."""

    @abstractmethod
    def forward(self, given: ScorerInput) -> Scored:
        """Score the cells. Never sees labels: the same in training and in use."""

    def losses(self, scored: Scored, target: Target) -> Mapping[str, Tensor | LossTerm]:  # noqa: ARG002 - most have none
        """The scorer's own training losses by name, already weighted: the trainer adds them up.

        A tensor is a mean over all ``n`` rows; what is a mean over others, or no mean, is a ``LossTerm``. Called once
        per depth of a forward pass, in training only.
        """
        return {}

    def class_maps(self, scored: Scored) -> Mapping[str, Float[Tensor, "n K h w"]]:  # noqa: ARG002 - most have none
        """Maps of how much each class shows where in the regions, 0 to 1, by name; the one to display comes first."""
        return {}


def label_loss(log_prob: Float[Tensor, "n K"], target: Target) -> Tensor:
    """Weighted negative log-likelihood of the labels; of both labels where something is pasted.

    Args:
        log_prob: Log-probability of each class.
        target: Labels and weights.

    Returns:
        The mean over rows (by number, not by weight). Several labels of a row share its weight.
    """
    loss = _negative_log_likelihood(log_prob, target.labels)
    if target.pasted is not None:
        share = target.pasted.share
        loss = (1 - share) * loss + share * _negative_log_likelihood(log_prob, target.pasted.labels)
    return (target.weight * loss).mean()


def _negative_log_likelihood(log_prob: Tensor, labels: Tensor) -> Tensor:
    if labels.ndim == 1:
        return functional.nll_loss(log_prob, labels, reduction="none")
    share = labels / labels.sum(1, keepdim=True).clamp(min=1)
    return -(share * log_prob).sum(1)


def pool_cells(features: Float[Tensor, "n c h w"], grid: int, fraction: Float[Tensor, " n"]) -> Tensor:
    """Average a feature map over every cell of a grid that spreads from edge to edge.

    Args:
        features: Maps.
        grid: Cells along a side.
        fraction: Side of a cell over the side of its region, per map.

    Returns:
        ``[n c grid grid]``; exact area averages, also where a cell's edge lies inside a map px.
    """
    height, width = features.shape[2:]
    rows, columns = (_cell_weights(grid, int(side), fraction).to(features) for side in (height, width))
    return torch.einsum("ngh,nchw,nkw->ncgk", rows, features, columns)


def log_cells(density: Float[Tensor, "n 1 h w"], grid: int, fraction: Float[Tensor, " n"]) -> Tensor:
    """Log of a non-negative map's average over every cell ``[n grid grid]``; finite where that is 0."""
    return pool_cells(density, grid, fraction)[:, 0].clamp(min=1e-12).log()


def box_mask(box: Float[Tensor, "n 4"], height: int, width: int) -> Float[Tensor, "n h w"]:
    """Share of every map px that lies in a box: the box's mask, averaged down.

    Args:
        box: First row, first column, last row, last column, as shares of the map.
        height: Rows of the map.
        width: Columns of the map.

    Returns:
        Exact shares, 0 to 1.
    """
    rows, columns = (
        _covered(box[:, [axis]], box[:, [axis + 2]] - box[:, [axis]], side)[:, 0] * side
        for axis, side in enumerate((height, width))
    )
    return rows[:, :, None] * columns[:, None]


def _cell_weights(grid: int, side: int, fraction: Tensor) -> Tensor:
    """Share of every cell that lies in each of ``side`` map px: ``[n grid side]``, rows sum to 1."""
    start = torch.linspace(0, 1, grid, device=fraction.device)[None] * (1 - fraction)[:, None]
    return _covered(start, fraction[:, None], side) / fraction[:, None, None]


def _covered(start: Tensor, length: Tensor, side: int) -> Tensor:
    """How much of each of ``[n m]`` intervals lies in each of ``side`` equal parts of 0 to 1: ``[n m side]``."""
    edges = torch.arange(side + 1, device=start.device) / side
    covered = (edges[None, None] - start[:, :, None]).clamp(min=0)
    covered = torch.minimum(covered, length[:, :, None])
    return covered[:, :, 1:] - covered[:, :, :-1]
