"""What every scorer is given and returns."""

from abc import abstractmethod
from collections.abc import Mapping
from typing import Any, NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor, nn


class View(NamedTuple):
    """What the network saw of ``n`` regions."""

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
    looks: Tensor | None = None
    """What each cell looks like to the scorer, ``[n d g g]``; None = it doesn't say."""
    trace: Any = None
    """Private to the scorer that made it."""


class Scorer(nn.Module):
    """Turns what the encoder saw into one logit per cell."""

    @abstractmethod
    def forward(self, view: View) -> Scored:
        """Score the cells. Never sees labels."""

    def losses(self, scored: Scored, labels: Tensor) -> Mapping[str, Tensor]:  # noqa: ARG002 - most have none
        """The scorer's own training losses by name, already weighted."""
        return {}


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


def _cell_weights(grid: int, side: int, fraction: Tensor) -> Tensor:
    """Share of every cell that lies in each of ``side`` map px: ``[n grid side]``, rows sum to 1."""
    start = torch.linspace(0, 1, grid, device=fraction.device)[None] * (1 - fraction)[:, None]
    edges = torch.arange(side + 1, device=fraction.device) / side
    covered = (edges[None, None] - start[:, :, None]).clamp(min=0)
    covered = torch.minimum(covered, fraction[:, None, None])
    return covered.diff(dim=2) / fraction[:, None, None]
