"""The recursion: encode crops, score their cells, choose, go deeper; and the traversal that records it."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from jaxtyping import Float, Int64
from torch import Tensor, nn

from hiresattn.geometry import Grid, cell_regions, child_paths, expandable, locations
from hiresattn.model.aggregators import pool_evidence, weighed
from hiresattn.model.encoders.base import Encoded
from hiresattn.model.scorers import Scored, Scorer, ScorerInput, pool_cells
from hiresattn.model.select import Selector
from hiresattn.model.traversal import Rows, Traversal

#: ``fetch(image [n], regions [n 4])`` → crops with ``pixels [n c s s]`` and ``coverage [n s s]``, float32.
Fetch = Callable[[np.ndarray, np.ndarray], Any]


@dataclass(frozen=True, eq=False)
class Glimpses:
    """What one pass of the network gives for ``n`` crops."""

    features: Float[Tensor, "n d"]
    """One vector per glimpse, position included."""
    cell_logits: Float[Tensor, "n cells"]
    """One per cell; minus infinity where nothing was measured."""
    cells: Int64[np.ndarray, "n cells 4"]
    """Where the cells are, level-0 px."""
    coverage: Float[Tensor, " n"]
    """Share of each crop that was measured, 0 to 1."""
    value: Float[Tensor, " n"]
    """Logit of the chance that what decides the image lies in the region."""
    scored: Scored
    """What the scorer gave."""

    @property
    def class_log_prob(self) -> Float[Tensor, "n _"]:
        """Log-probability of each class by a scorer with a head of its own ``[n K]``; else ``[n 0]``."""
        own = self.scored.class_log_prob
        return self.features.new_zeros((len(self.features), 0)) if own is None else own


class GlimpseNet(nn.Module):
    """A shared encoder, a scorer, an aggregator and a classifier, applied at every depth.

    Args:
        encoder: Crops → ``Encoded``.
        scorer: ``ScorerInput`` → ``Scored``.
        aggregator: Glimpses → one vector per image.
        classifier: A vector → logits.
        value: A vector → one logit: does what decides the image lie in this region? Tells a search when a
            promising region turned out to be empty. None = every region is worth as much (logit 0).
        position: Features and where they were → features, or None.
        grid: How a region is divided into cells.
        finest: Side of the smallest region, level-0 px.
        coarse_encoder: Encoder of the regions that are divided further; None = ``encoder`` sees all.
        background: Index of the class that means that there is nothing to find: evidence is pooled then, not
            vectors (see ``pool_evidence``), and the network learns how far to trust the chances that its choices
            had; None = the aggregator pools.
        head: Which head predicts: the ``classifier`` of the pooled glimpses; or the ``scorer``'s own probabilities of
            the classes, averaged over glimpses with the aggregator's weights. With one glimpse that is the
            classifier that the scorer was published as.
        multi_label: Whether an image may have any number of the classes, each with a yes or no of its own.

    Source:
        TNet ("Hard-Attention for Scalable Image Classification", NeurIPS 2021), traversal; the modules are
        single instances shared by all depths.
    """

    def __init__(
        self,
        *,
        encoder: nn.Module,
        scorer: Scorer,
        aggregator: nn.Module,
        classifier: nn.Module,
        value: nn.Module | None,
        position: nn.Module | None,
        grid: Grid,
        finest: int,
        coarse_encoder: nn.Module | None = None,
        background: int | None = None,
        multi_label: bool = False,
        head: str = "classifier",
    ) -> None:
        super().__init__()
        self.head = head
        self.encoder = encoder
        self.coarse_encoder = coarse_encoder
        self.background = background
        self.multi_label = multi_label
        self.prior_weight = None if background is None else nn.Parameter(torch.tensor(0.5))
        self.scorer = scorer
        self.aggregator = aggregator
        self.classifier = classifier
        self.value = value
        self.position = position
        self.grid = grid
        self.finest = finest

    @property
    def device(self) -> torch.device:
        """Where the weights are."""
        return next(self.parameters()).device

    def glimpse(
        self,
        crops: Any,
        regions: np.ndarray,
        frames: np.ndarray,
        paths: np.ndarray | None = None,
    ) -> Glimpses:
        """Encode and score crops.

        Args:
            crops: ``pixels [n c s s]`` and ``coverage [n s s]``, float32.
            regions: What they show, level-0 px, ``[n 4]``.
            frames: The rectangle classified, per row ``[n 4]``.
            paths: Paths of cells that led there ``[n 3]`` (see ``geometry.child_paths``); None = depth 0.

        Returns:
            Features and cell scores.
        """
        pixels = _to_device(crops.pixels, self.device)
        coverage = _to_device(crops.coverage, self.device)
        encoded = self._encode(pixels, regions)
        cells = cell_regions(regions, self.grid, self.finest)
        fraction = torch.from_numpy(cells[:, 0, 2] / regions[:, 2]).to(pixels)
        scored = self.scorer(ScorerInput(encoded.stages, encoded.features, fraction))
        logits = scored.logits.flatten(1)
        if not bool((coverage == 1).all()):
            measured = pool_cells(coverage[:, None], self.grid.size, fraction).flatten(1) > 1e-6
            logits = logits.masked_fill(~measured, -torch.inf)
        features = encoded.features
        if self.position is not None:
            if self.position.by_path:
                where = np.zeros((len(regions), 3), np.int64) if paths is None else paths
            else:
                where = locations(regions, frames)
            features = self.position(features, torch.from_numpy(where).to(features))
        worth = (
            features.new_zeros(len(features)) if self.value is None else self.value(encoded.features)[:, 0]
        )
        if self.coarse_encoder is not None:  # it has cells to tell of, and nothing else to learn from
            worth = worth + logits.masked_fill(~logits.isfinite(), -1e9).logsumexp(1)
        return Glimpses(features, logits, cells, coverage.mean((1, 2)), worth, scored)

    def _encode(self, pixels: Tensor, regions: np.ndarray) -> Encoded:
        """What the encoders see: the coarse_encoder the regions that can be divided, if there is one."""
        if self.coarse_encoder is None:
            return self.encoder(pixels)
        wide = torch.from_numpy(expandable(regions, self.finest)).to(pixels.device)
        if wide.all():
            return self.coarse_encoder(pixels)
        if not wide.any():
            return self.encoder(pixels)
        far, near = self.coarse_encoder(pixels[wide]), self.encoder(pixels[~wide])
        order = torch.cat([wide.nonzero()[:, 0], (~wide).nonzero()[:, 0]]).argsort()
        stages = zip(far.stages, near.stages, strict=True)
        return Encoded(
            tuple(torch.cat(pair)[order] for pair in stages), torch.cat([far.features, near.features])[order]
        )

    def predict(
        self, table: Rows, count: int, *, straight_through: bool = False
    ) -> tuple[Float[Tensor, "b K"], Float[Tensor, " n"]]:
        """Pool the glimpses of ``count`` images and classify: logits per image, weight per glimpse.

        Where evidence is pooled, ``straight_through`` lets the gradient reach the choices.
        """
        image = torch.from_numpy(table.image).to(table.features.device)
        if self.background is None or self.prior_weight is None:
            pooled, weights = self.aggregator(table.features, image, count)
            if self.head == "scorer":
                return weighed(table.class_log_prob, weights, image, count), weights
            return self.classifier(pooled), weights
        finest = torch.from_numpy(~expandable(table.region, self.finest)).to(image.device)
        prior = log_priors(table) if straight_through else log_priors(table).detach()
        logits = self.classifier(table.features)
        return pool_evidence(logits, image, finest, count, self.background, self.prior_weight * prior)

    def forward(
        self,
        fetch: Fetch,
        roots: Sequence[np.ndarray],
        frames: np.ndarray,
        *,
        select: Selector,
        k: Sequence[int],
        straight_through: bool = True,
    ) -> Traversal:
        """Look at images depth by depth, at the ``k`` best cells of every region.

        A region seen at native resolution is not divided further, so the images of a batch may have
        different depths.

        Args:
            fetch: Where crops come from.
            roots: Regions of depth 0, one array ``[r 4]`` per image.
            frames: The rectangle classified, per image ``[b 4]``, level-0 px.
            select: Chooses cells.
            k: Cells per region, per depth; the last one repeats.
            straight_through: Whether a glimpse's feature carries the gradient of its choice, and of the choices
                that led there, through the factor exp(lp - stop_gradient(lp)), which is 1. Estimators that take
                ``log_prob`` themselves go without.

        Returns:
            The traversal.
        """
        image = np.repeat(np.arange(len(roots)), [len(r) for r in roots])
        regions = np.concatenate([np.asarray(r, np.int64) for r in roots])
        parent = np.full(len(image), -1)
        cell = np.full(len(image), -1)
        paths = np.zeros((len(image), 3), np.int64)
        choice = own = torch.zeros(len(image), device=self.device)
        steps: list[Rows] = []
        scored: list[Scored] = []
        seen = depth = 0
        while len(image):
            at = np.full(len(image), depth)
            found = self.glimpse(fetch(image, regions), regions, frames[image], paths)
            features = found.features
            if straight_through and self.background is None:
                features = features * (choice - choice.detach()).exp()[:, None]
            told = (found.coverage, own, found.value, found.cell_logits, features, found.class_log_prob)
            steps.append(Rows(image, at, parent, cell, regions, *told))
            scored.append(found.scored)
            deeper = (
                expandable(regions, self.finest) & found.cell_logits.detach().isfinite().any(1).cpu().numpy()
            )
            source = np.flatnonzero(deeper)
            if not len(source):
                break
            pick = torch.from_numpy(source).to(self.device)
            chosen = select(
                found.cell_logits[pick],
                k[min(depth, len(k) - 1)],
                torch.from_numpy(found.cells[source]).to(self.device),
                image[source],
            )
            valid = chosen.valid.cpu().numpy()
            which, rank = np.nonzero(valid)
            cell = chosen.cell.cpu().numpy()[which, rank]
            own = chosen.log_prob[torch.from_numpy(which), torch.from_numpy(rank)]
            choice = choice[pick][torch.from_numpy(which).to(self.device)] + own
            parent = seen + source[which]
            seen += len(image)
            paths = child_paths(paths[source[which]], cell, self.grid)
            regions = found.cells[source[which], cell]
            image = image[source[which]]
            depth += 1
        return self.record(steps, len(roots), tuple(scored), straight_through=straight_through)

    def record(
        self,
        steps: Sequence[Rows],
        count: int,
        scored: tuple[Scored, ...] = (),
        *,
        straight_through: bool = False,
    ) -> Traversal:
        """Join the passes of a traversal, and predict.

        Args:
            steps: In order.
            count: Number of images.
            scored: What the scorer gave in each pass.
            straight_through: Whether the prediction's gradient reaches the choices where evidence is pooled.

        Returns:
            The traversal.
        """
        table = joined(steps)
        logits, weight = self.predict(table, count, straight_through=straight_through)
        columns = table._asdict() | {"coverage": table.coverage.detach().cpu().numpy()}
        del columns["class_log_prob"]
        return Traversal(
            **columns,
            weight=weight,
            glimpse_logits=self.classifier(table.features),
            logits=logits,
            scored=scored,
        )


def joined(steps: Sequence[Rows]) -> Rows:
    """One table of the glimpses of several passes."""
    columns: list[Any] = [
        np.concatenate(column) if isinstance(column[0], np.ndarray) else torch.cat(column)
        for column in zip(*steps, strict=True)
    ]
    return Rows(*columns)


def log_priors(table: Rows | Traversal) -> Float[Tensor, " n"]:
    """Log-probability, before looking, that what decides the image lies in each region.

    That of its parent, times the parent's value, times the choice's probability; 0 (certain) at depth 0.
    """
    worth = torch.nn.functional.logsigmoid(table.value.detach())
    prior = torch.zeros_like(table.log_prob)
    for depth in range(1, int(table.depth.max(initial=0)) + 1):
        rows = torch.from_numpy(np.flatnonzero(table.depth == depth)).to(prior.device)
        parent = torch.from_numpy(table.parent[table.depth == depth]).to(prior.device)
        prior = prior.index_copy(0, rows, prior[parent] + worth[parent] + table.log_prob[rows])
    return prior


def _to_device(array: np.ndarray, device: torch.device) -> Tensor:
    """To a device; from pinned memory and without waiting where that is CUDA."""
    tensor = torch.from_numpy(array)
    if device.type == "cuda":
        return tensor.pin_memory().to(device, non_blocking=True)
    return tensor.to(device)
