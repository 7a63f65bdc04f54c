"""The open cells of one image, the most promising first. NumPy only."""

import heapq
from bisect import insort
from dataclasses import dataclass, field
from typing import NamedTuple

import numpy as np

from hiresattn.geometry import cell_regions
from hiresattn.inference.engine import NetFacts
from hiresattn.inference.suppression import KnownBackground
from hiresattn.inference.visited import Region


class Choice(NamedTuple):
    """A region that is looked at next: a cell of a region looked at before, or a root region."""

    region: Region
    depth: int = 0
    parent: int = -1
    """Row of the glimpse whose cell it is; -1 = a root region."""
    cell: int = -1
    log_prob: float = 0.0
    """Of the choice within its parent."""
    log_prior: float = 0.0
    """Log of the chance, before looking, that the region shows what decides the image."""
    path: tuple[int, int, int] = (0, 0, 0)
    appearance: np.ndarray | None = None
    """Unit vector: what the cell looks like in its parent; None = not known."""


@dataclass(slots=True)
class OpenRegion:
    """A region looked at, and its cells that weren't yet."""

    cells: np.ndarray
    """``[cells 4]``, level-0 px."""
    log_prob: np.ndarray
    """``[cells]``"""
    base: np.ndarray
    """Cost of each cell without suppression ``[cells]``: minus its log-priority."""
    order: list[int]
    """Cells that are open, the least costly first."""
    costs: np.ndarray
    """Cost of each cell by now ``[cells]``; it only grows."""
    row: int = 0
    """Of its glimpse."""
    depth: int = 0
    path: tuple[int, int, int] = (0, 0, 0)
    log_prior: float = 0.0
    """Its own, times its value: what its cells share."""
    appearance: np.ndarray | None = None
    """``[cells a]``, unit vectors; None = nothing is suppressed."""
    compared: np.ndarray = field(default_factory=lambda: np.zeros(0, np.int64))
    """With how many known background regions each cell was compared ``[cells]``."""

    def keep(self, which: np.ndarray, *, scored: bool) -> None:
        """Leave out cells as if they had never been open: the others share their probability.

        Args:
            which: Cells that stay ``[cells]``.
            scored: Whether costs come from the scorer; else they are random, and stay.
        """
        logs = np.where(which, self.log_prob, -np.inf)
        best = int(logs.argmax())
        self.order = [cell for cell in self.order if which[cell]]
        if not np.isfinite(logs[best]):
            return
        if (
            not self.order
        ):  # the others' gates are closed, and where no gate is open the best cell's is opened
            self.order = [best]
        total = logs[best] + np.log(np.exp(logs - logs[best]).sum())
        self.log_prob = self.log_prob - total
        if scored:
            self.raise_cost(total)

    def raise_cost(self, by: float) -> None:
        """Make all cells more costly."""
        self.base = self.base + by
        self.costs = self.base.copy()


@dataclass(slots=True)
class OpenCells:
    """Open regions in a heap, each by its best cell: a step's time grows with the logarithm of their number."""

    grid: int
    """Cells along a side of a region."""
    known: KnownBackground = field(default_factory=KnownBackground)
    _heap: list[tuple[float, int, OpenRegion]] = field(default_factory=list)

    def open(self, region: OpenRegion) -> None:
        """Add a region with its cells."""
        if region.order:
            cell = region.order[0]
            tie = region.row * self.grid * self.grid + cell  # first come, first served
            heapq.heappush(self._heap, (float(region.costs[cell]), tie, region))

    def next(self) -> Choice | None:
        """Take the cell of the least cost; None = no cell is open."""
        while self._heap:
            _, _, region = heapq.heappop(self._heap)
            if region.appearance is not None and self._is_suppressed(region, region.order[0]):
                self.open(region)
                continue
            cell = region.order.pop(0)
            self.open(region)
            row, column = divmod(cell, self.grid)
            return Choice(
                tuple(region.cells[cell].tolist()),
                region.depth + 1,
                region.row,
                cell,
                float(region.log_prob[cell]),
                region.log_prior + float(region.log_prob[cell]),
                (region.path[0] * self.grid + row, region.path[1] * self.grid + column, region.path[2] + 1),
                None if region.appearance is None else region.appearance[cell],
            )
        return None

    def _is_suppressed(self, region: OpenRegion, cell: int) -> bool:
        """Bring a cell's cost up to date with what is known of the background; whether it grew.

        Only the cell that would be next is compared, and only with what became known since it was compared last.
        """
        since = int(region.compared[cell])
        if region.appearance is None or since == len(self.known):
            return False
        region.compared[cell] = len(self.known)
        cost = region.base[cell] + self.known.penalty(region.appearance[cell], since)
        if cost <= region.costs[cell]:
            return False
        region.costs[cell] = cost
        region.order.remove(cell)
        insort(region.order, cell, key=region.costs.__getitem__)
        return True


def divided_cells(
    rows: np.ndarray,
    regions: np.ndarray,
    cell_logits: np.ndarray,
    facts: NetFacts,
    noise: np.ndarray | None,
) -> dict[int, OpenRegion]:
    """Divide regions into cells, with costs that leave out what the cells of a region share.

    Args:
        rows: Which regions, of ``n``.
        regions: ``[n 4]``, level-0 px.
        cell_logits: ``[n cells]``; not finite where nothing was measured: such cells aren't opened.
        facts: Grid, finest side and gates.
        noise: Random costs ``[n cells]``, in place of the scorer's; gates are open then.

    Returns:
        The divided regions by row.
    """
    if not len(rows):
        return {}
    logits = cell_logits[rows].astype(np.float64)
    usable = np.isfinite(logits)
    logits = np.where(usable, logits, -1e9)
    if noise is not None:
        log_prob = np.where(usable, -np.log(np.maximum(usable.sum(1, keepdims=True), 1)), -np.inf)
        cost = noise[rows]
    else:
        shifted = logits - logits.max(axis=1, keepdims=True)
        log_prob = shifted - np.log(np.exp(shifted).sum(axis=1, keepdims=True))
        cost = -log_prob
        if facts.gate is not None:  # where no gate is open, the best cell's is opened
            open_gates = logits > facts.gate
            open_gates[np.arange(len(rows)), logits.argmax(axis=1)] = True
            usable &= open_gates
    cells = cell_regions(regions[rows], facts.grid, facts.finest)
    order = np.where(usable, cost, np.inf).argsort(axis=1, kind="stable")
    counts = usable.sum(axis=1).tolist()
    return {
        row: OpenRegion(cells[n], log_prob[n], cost[n], order[n, : counts[n]].tolist(), cost[n])
        for n, row in enumerate(rows.tolist())
    }
