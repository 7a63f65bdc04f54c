"""What every scorer is given and returns, in looking and in training."""

from abc import abstractmethod
from collections.abc import Callable, Mapping
from typing import Any, ClassVar, NamedTuple

import torch
from jaxtyping import Bool, Float, Int64
from torch import Tensor, nn
from torch.nn import functional


class View(NamedTuple):
    """What the network saw of ``n`` regions. Holds no label, and nothing that differs between training and use."""

    stages: tuple[Tensor, ...]
    """The encoder's maps, fine → coarse, each ``[n c_s h_s w_s]``."""
    features: Float[Tensor, "n d"]
    """One vector per crop, before its position is added."""
    fraction: Float[Tensor, " n"]
    """Side of a cell over the side of its region."""


class Scored(NamedTuple):
    """What a scorer says of ``n`` regions."""

    logits: Float[Tensor, "n g g"]
    """One per cell; higher = look there. All that selection reads."""
    appearance: Tensor | None = None
    """Vector of each cell's appearance, ``[n d g g]``, compared by cosine; None = the scorer gives none."""
    class_log_prob: Float[Tensor, "n K"] | None = None
    """Log-probability of each class, from a scorer that is a classifier as well; None = it isn't."""
    trace: Any = None
    """Private to the scorer that made it."""


class Paste(NamedTuple):
    """What CutMix put into ``n`` regions: a rectangle of another image, the donor."""

    box: Float[Tensor, "n 4"]
    """Where it is: first row, first column, last row, last column, as shares of the region (0 to 1). Clipped to the
    region; empty (zeros) where nothing of it shows."""
    labels: Tensor
    """Of the donor; as ``Target.labels``."""
    share: Float[Tensor, " n"]
    """Weight of the donor's label, 0 to 1; the rest is the host's. For a region: the share of it that is pasted."""
    rows: Int64[Tensor, " m"]
    """Rows whose donor was looked at as well, without any pasting, in the same region."""
    clean: Scored | None = None
    """What the scorer said of those ``m``; None = there are none."""


class Shown(NamedTuple):
    """The ``m`` boxes that show in ``n`` regions."""

    row: Int64[Tensor, " m"]
    """In which region; a box may show in several."""
    box: Float[Tensor, "m 4"]
    """First row, first column, last row, last column, as shares of the region; clipped to it."""
    kind: Int64[Tensor, " m"]
    """Index of the box's class."""
    known: Bool[Tensor, " n"]
    """Regions of which all boxes are known, or where it is known that there is nothing."""


class Target(NamedTuple):
    """What training knows of the ``n`` regions of one ``Scored``. Only ``Scorer.losses`` sees it."""

    labels: Tensor
    """Class index ``[n]`` (int64), or the share of every class ``[n K]`` (float; multi-hot)."""
    weight: Float[Tensor, " n"]
    """What each row counts in losses that use labels: falls with depth, for a region inherits its image's label and
    may not hold what that names; 0 where it is known not to."""
    divided: Bool[Tensor, " n"]
    """Rows whose cells are chosen from; the others are finest."""
    progress: float
    """Share of the training done, 0 to 1."""
    paste: Paste | None = None
    """What CutMix put in; None = nothing."""
    remember: Callable[[Tensor, Tensor], Tensor] | None = None
    """``remember(maps [n K h w], accepted [n K] bool)`` → accumulated maps ``[n K h w]``, 0 to 1: the maximum of the
    accepted maps, values of 0 to 1, of all times that these regions were seen (this one included); 0 where none was
    ever accepted. Whose regions these are, and how the image was turned, the memory knows: maps go in and come out
    as the network saw them. None = there is no memory yet."""
    shown: Shown | None = None
    """Where boxes are, for scorers that learn from them themselves (``Scorer.boxes``); None = no boxes are known."""


class Scorer(nn.Module):
    """Turns what the encoder saw into one logit per cell."""

    gate: ClassVar[float | None] = None
    """Logit above which a cell's gate is open, for scorers that decide how many cells are worth a look; None = the
    number of cells is not theirs to say."""
    compares: ClassVar[bool] = False
    """Whether its losses want ``Paste.clean``: a further look, without gradients, at the donors of pasted images."""
    boxes: ClassVar[bool] = False
    """Whether its losses want ``Target.shown``; the trainer then leaves its own location loss out."""

    @abstractmethod
    def forward(self, view: View) -> Scored:
        """Score the cells. Never sees labels: the same in training and in use."""

    def losses(self, scored: Scored, target: Target) -> Mapping[str, Tensor]:  # noqa: ARG002 - most have none
        """The scorer's own training losses by name, already weighted: the trainer adds them up.

        Called once per depth of a forward pass, in training only.
        """
        return {}

    def class_maps(self, scored: Scored) -> Mapping[str, Float[Tensor, "n K h w"]]:  # noqa: ARG002 - most have none
        """Where in the regions each class shows, 0 to 1, by name of the kind of map; the one to show comes first."""
        return {}


def label_loss(log_prob: Float[Tensor, "n K"], target: Target) -> Tensor:
    """Mean negative log-likelihood of the labels, rows weighted; on pasted regions of both labels.

    Args:
        log_prob: Log-probability of each class.
        target: Whose labels.

    Returns:
        The mean over rows (by number, not by weight). Several labels of a row share its weight.
    """
    loss = _surprise(log_prob, target.labels)
    if target.paste is not None:
        share = target.paste.share
        loss = (1 - share) * loss + share * _surprise(log_prob, target.paste.labels)
    return (target.weight * loss).mean()


def _surprise(log_prob: Tensor, labels: Tensor) -> Tensor:
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
    rows, columns = (_cell_weights(grid, side, fraction).to(features) for side in (height, width))
    return torch.einsum("ngh,nchw,nkw->ncgk", rows, features, columns)


def log_cells(density: Float[Tensor, "n 1 h w"], grid: int, fraction: Float[Tensor, " n"]) -> Tensor:
    """Log of the average over every cell ``[n grid grid]`` of what isn't negative; finite where it is 0."""
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
    return torch.minimum(covered, length[:, :, None]).diff(dim=2)
