"""The recursion from one depth to the next: the network's output for regions, and the cells that are visited next."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from hiresattn.geometry import Grid, child_paths, expandable
from hiresattn.model.scorers import Scored
from hiresattn.model.select import Selector
from hiresattn.model.traversal import Rows
from hiresattn.shapes import Float, Int64


@dataclass(frozen=True, eq=False)
class Glimpses:
    """The network's output for ``n`` crops."""

    features: Float[Tensor, "n d"]
    """One vector per glimpse, position included."""
    cell_logits: Float[Tensor, "n cells"]
    """One per cell; minus infinity for cells without a valid px."""
    cells: Int64[np.ndarray, "n cells 4"]
    """The cells' regions, level-0 px."""
    coverage: Float[Tensor, " n"]
    """Share of valid px of each crop, 0 to 1."""
    value: Float[Tensor, " n"]
    """Logit of the probability that the region contains what decides the image's class."""
    scored: Scored
    """The scorer's output."""

    @property
    def class_log_prob(self) -> Float[Tensor, "n _"]:
        """Log-probability of each class, from a scorer with a head of its own ``[n K]``; else ``[n 0]``."""
        own = self.scored.class_log_prob
        return self.features.new_zeros((len(self.features), 0)) if own is None else own


class Division(NamedTuple):
    """How the regions of one depth are divided."""

    grid: Grid
    finest: int
    """Side of the smallest region, level-0 px."""
    select: Selector
    k: int
    """Cells per region."""


@dataclass(frozen=True, eq=False)
class Frontier:
    """The ``n`` regions that are visited next."""

    image: np.ndarray
    parent: np.ndarray
    """Row of the traversal; -1 at depth 0."""
    cell: np.ndarray
    region: np.ndarray
    path: np.ndarray
    log_prob: Tensor
    """Of the choice within its parent."""
    path_log_prob: Tensor
    """The same, added up over all choices from depth 0 on."""

    @classmethod
    def of_roots(cls, roots: Sequence[np.ndarray], device: torch.device) -> "Frontier":
        """The root regions of images, one array ``[r 4]`` each."""
        image = np.repeat(np.arange(len(roots)), [len(r) for r in roots])
        region = np.concatenate([np.asarray(r, np.int64) for r in roots])
        none, path = np.full(len(image), -1), np.zeros((len(image), 3), np.int64)
        certain = torch.zeros(len(image), device=device)
        return cls(image, none, none, region, path, certain, certain)

    def rows(self, found: Glimpses, depth: int) -> Rows:
        """The regions' rows in the traversal, once they were visited."""
        return Rows(
            image=self.image,
            depth=np.full(len(self.image), depth),
            parent=self.parent,
            cell=self.cell,
            region=self.region,
            coverage=found.coverage,
            log_prob=self.log_prob,
            value=found.value,
            cell_logits=found.cell_logits,
            features=found.features,
            class_log_prob=found.class_log_prob,
        )

    def divided(self, found: Glimpses, how: Division, *, first_row: int) -> "Frontier | None":
        """The selected cells of the regions that are divided further; None = there are none.

        Args:
            found: The network's output for the regions.
            how: Which regions are divided, how, and how cells are selected.
            first_row: The traversal's row of the first region.
        """
        usable = found.cell_logits.detach().isfinite().any(1).cpu().numpy()
        source = np.flatnonzero(expandable(self.region, how.finest) & usable)
        if not len(source):
            return None
        device = found.cell_logits.device
        logits = found.cell_logits[torch.from_numpy(source).to(device)]
        cells = torch.from_numpy(found.cells[source]).to(device)
        chosen = how.select(logits, how.k, cells, self.image[source])
        which, rank = np.nonzero(chosen.valid.cpu().numpy())
        if not len(which):
            return None
        parent, cell = source[which], chosen.cell.cpu().numpy()[which, rank]
        log_prob = chosen.log_prob[torch.from_numpy(which), torch.from_numpy(rank)]
        above = self.path_log_prob[torch.from_numpy(parent).to(device)]
        return Frontier(
            image=self.image[parent],
            parent=first_row + parent,
            cell=cell,
            region=found.cells[parent, cell],
            path=child_paths(self.path[parent], cell, how.grid),
            log_prob=log_prob,
            path_log_prob=above + log_prob,
        )


def within_foreground(
    foreground: Callable[[np.ndarray, np.ndarray], np.ndarray],
    found: Glimpses,
    image: np.ndarray,
    divided: np.ndarray,
) -> Glimpses:
    """Shut the cells of divided regions that hold no foreground, as if they had not been measured."""
    cells = found.cells[divided]
    shut = np.zeros(found.cells.shape[:2], bool)
    shut[divided] = ~foreground(np.repeat(image[divided], cells.shape[1]), cells.reshape(-1, 4)).reshape(
        cells.shape[:2]
    )
    mask = torch.from_numpy(shut).to(found.cell_logits.device)
    return replace(found, cell_logits=found.cell_logits.masked_fill(mask, -torch.inf))
