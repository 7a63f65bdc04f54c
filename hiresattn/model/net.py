"""The recursion: look, score the cells, choose, look closer; and the record of it."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
import torch
from jaxtyping import Float, Int64
from torch import Tensor, nn

from hiresattn.geometry import Grid, cell_regions, expandable, locations, places_below
from hiresattn.model.aggregators import pool_evidence, weighed
from hiresattn.model.encoders import Encoded
from hiresattn.model.scorers import Scored, Scorer, Teach, View, pool_cells
from hiresattn.model.select import Selector

#: ``fetch(image [n], regions [n 4])`` → crops with ``pixels [n c s s]`` and ``coverage [n s s]``, float32.
Fetch = Callable[[np.ndarray, np.ndarray], Any]


@dataclass(frozen=True, eq=False)
class Look:
    """What one pass over ``n`` regions gave."""

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
    """The scorer's own words, for its losses."""

    @property
    def answer(self) -> Float[Tensor, "n _"]:
        """Log-probability of each class by a scorer that is a classifier as well ``[n K]``; else ``[n 0]``."""
        answer = self.scored.answer
        return self.features.new_zeros((len(self.features), 0)) if answer is None else answer


class Step(NamedTuple):
    """The glimpses of one pass of the network: what it was given and what it gave; ``n`` rows each."""

    image: np.ndarray
    depth: np.ndarray
    parent: np.ndarray
    cell: np.ndarray
    region: np.ndarray
    coverage: Tensor
    log_prob: Tensor
    value: Tensor
    cell_logits: Tensor
    features: Tensor
    answer: Tensor


@dataclass(frozen=True, eq=False)
class Traversal:
    """The record of one forward pass or one search: a flat table, one row per glimpse.

    Images may have different numbers of glimpses. ``N`` glimpses, ``b`` images, ``K`` classes.
    """

    image: Int64[np.ndarray, " N"]
    """Whose glimpse."""
    depth: Int64[np.ndarray, " N"]
    """0 looks at the whole."""
    parent: Int64[np.ndarray, " N"]
    """Row of the glimpse it was chosen from; -1 at depth 0."""
    cell: Int64[np.ndarray, " N"]
    """Which cell of the parent; -1 at depth 0."""
    region: Int64[np.ndarray, "N 4"]
    """Level-0 px."""
    coverage: Float[np.ndarray, " N"]
    """Share of the crop that was measured."""
    log_prob: Float[Tensor, " N"]
    """Log-probability of the choice within its parent; 0 at depth 0."""
    value: Float[Tensor, " N"]
    """Logit of the chance that what decides the image lies in the region."""
    weight: Float[Tensor, " N"]
    """Aggregator weight; sums to 1 over an image."""
    cell_logits: Float[Tensor, "N cells"]
    """The scorer's logits of its cells."""
    features: Float[Tensor, "N d"]
    """One vector per glimpse."""
    glimpse_logits: Float[Tensor, "N K"]
    """What each glimpse alone would answer."""
    logits: Float[Tensor, "b K"]
    """The answer per image."""
    scorer_losses: dict[str, Tensor]
    """The scorer's own losses, empty in evaluation."""


class GlimpseNet(nn.Module):
    """A shared encoder, a scorer, an aggregator and a classifier, applied at every depth.

    Args:
        encoder: Crops → ``Encoded``.
        scorer: ``View`` → ``Scored``.
        aggregator: Glimpses → one vector per image.
        classifier: A vector → logits.
        value: A vector → one logit: does what decides the image lie in this region? Tells a search when a
            promising region turned out to be empty. None = every region is worth as much (logit 0).
        position: Features and where they were → features, or None.
        grid: How a region is divided into cells.
        finest: Side of the smallest region, level-0 px.
        scout: Encoder of the regions that are divided further; None = ``encoder`` sees all.
        background: Index of the class that means that there is nothing to find: evidence is pooled then, not
            vectors (see ``pool_evidence``), and the network learns how far to trust the chances that its choices
            had; None = the aggregator pools.
        answer: Who answers: ``glimpses``, the classifier of what they pool to; or ``scorer``, its own probabilities
            of the classes, in the mean over glimpses, weighed as the aggregator does. With one glimpse that is the
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
        scout: nn.Module | None = None,
        background: int | None = None,
        multi_label: bool = False,
        answer: str = "glimpses",
    ) -> None:
        super().__init__()
        self.answer = answer
        self.encoder = encoder
        self.scout = scout
        self.background = background
        self.multi_label = multi_label
        self.trust = None if background is None else nn.Parameter(torch.tensor(0.5))
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

    def look(
        self,
        fetch: Fetch,
        image: np.ndarray,
        regions: np.ndarray,
        frames: np.ndarray,
        places: np.ndarray | None = None,
    ) -> Look:
        """Fetch, encode and score regions.

        Args:
            fetch: Where crops come from.
            image: Whose region, ``[n]``.
            regions: Level-0 px, ``[n 4]``.
            frames: The rectangle classified, per row ``[n 4]``.
            places: Paths that led there ``[n 3]`` (see ``geometry.places_below``); None = depth 0.

        Returns:
            Features and cell scores.
        """
        crops = fetch(image, regions)
        pixels = _to_device(crops.pixels, self.device)
        coverage = _to_device(crops.coverage, self.device)
        encoded = self._encode(pixels, regions)
        cells = cell_regions(regions, self.grid, self.finest)
        fraction = torch.from_numpy(cells[:, 0, 2] / regions[:, 2]).to(pixels)
        scored = self.scorer(View(encoded.stages, encoded.features, fraction))
        logits = scored.logits.flatten(1)
        if not bool((coverage == 1).all()):
            measured = pool_cells(coverage[:, None], self.grid.size, fraction).flatten(1) > 1e-6
            logits = logits.masked_fill(~measured, -torch.inf)
        features = encoded.features
        if self.position is not None:
            if self.position.by_path:
                where = np.zeros((len(regions), 3), np.int64) if places is None else places
            else:
                where = locations(regions, frames)
            features = self.position(features, torch.from_numpy(where).to(features))
        worth = (
            features.new_zeros(len(features)) if self.value is None else self.value(encoded.features)[:, 0]
        )
        if self.scout is not None:  # it has cells to tell of, and nothing else to learn from
            worth = worth + logits.masked_fill(~logits.isfinite(), -1e9).logsumexp(1)
        return Look(features, logits, cells, coverage.mean((1, 2)), worth, scored)

    def _encode(self, pixels: Tensor, regions: np.ndarray) -> Encoded:
        """What the encoders see: the scout the regions that can be divided, if there is one."""
        if self.scout is None:
            return self.encoder(pixels)
        wide = torch.from_numpy(expandable(regions, self.finest)).to(pixels.device)
        if wide.all():
            return self.scout(pixels)
        if not wide.any():
            return self.encoder(pixels)
        far, near = self.scout(pixels[wide]), self.encoder(pixels[~wide])
        order = torch.cat([wide.nonzero()[:, 0], (~wide).nonzero()[:, 0]]).argsort()
        stages = zip(far.stages, near.stages, strict=True)
        return Encoded(
            tuple(torch.cat(pair)[order] for pair in stages), torch.cat([far.features, near.features])[order]
        )

    def conclude(
        self, table: Step, count: int, *, gate: bool = False
    ) -> tuple[Float[Tensor, "b K"], Float[Tensor, " n"]]:
        """Pool the glimpses of ``count`` images and classify: logits per image, weight per glimpse.

        Where evidence is pooled, ``gate`` lets the gradient reach the choices.
        """
        image = torch.from_numpy(table.image).to(table.features.device)
        if self.background is None or self.trust is None:
            pooled, weights = self.aggregator(table.features, image, count)
            if self.answer == "scorer":
                return weighed(table.answer, weights, image, count), weights
            return self.classifier(pooled), weights
        finest = torch.from_numpy(~expandable(table.region, self.finest)).to(image.device)
        chance = chances(table) if gate else chances(table).detach()
        logits = self.classifier(table.features)
        return pool_evidence(logits, image, finest, count, self.background, self.trust * chance)

    def forward(
        self,
        fetch: Fetch,
        roots: Sequence[np.ndarray],
        frames: np.ndarray,
        *,
        select: Selector,
        k: Sequence[int],
        teach: Teach | None = None,
        gate: bool = True,
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
            teach: Says what training knows of regions, for the scorer's own losses; None in evaluation.
            gate: Whether a glimpse's feature carries the gradient of its choice, and of the choices that led
                there, through the factor exp(lp - stop_gradient(lp)), which is 1: straight-through. Estimators
                that take ``log_prob`` themselves go without.

        Returns:
            The traversal.
        """
        image = np.repeat(np.arange(len(roots)), [len(r) for r in roots])
        regions = np.concatenate([np.asarray(r, np.int64) for r in roots])
        parent = np.full(len(image), -1)
        cell = np.full(len(image), -1)
        places = np.zeros((len(image), 3), np.int64)
        path = own = torch.zeros(len(image), device=self.device)
        steps: list[Step] = []
        own_losses: dict[str, Tensor] = {}
        seen = depth = 0
        while len(image):
            at = np.full(len(image), depth)
            look = self.look(fetch, image, regions, frames[image], places)
            features = look.features
            if gate and self.background is None:
                features = features * (path - path.detach()).exp()[:, None]
            steps.append(
                Step(
                    image,
                    at,
                    parent,
                    cell,
                    regions,
                    look.coverage,
                    own,
                    look.value,
                    look.cell_logits,
                    features,
                    look.answer,
                )
            )
            if teach is not None:
                for name, value in self.scorer.losses(look.scored, teach(image, at, regions)).items():
                    own_losses[name] = own_losses[name] + value if name in own_losses else value
            deeper = (
                expandable(regions, self.finest) & look.cell_logits.detach().isfinite().any(1).cpu().numpy()
            )
            source = np.flatnonzero(deeper)
            if not len(source):
                break
            pick = torch.from_numpy(source).to(self.device)
            chosen = select(
                look.cell_logits[pick],
                k[min(depth, len(k) - 1)],
                torch.from_numpy(look.cells[source]).to(self.device),
                image[source],
            )
            valid = chosen.valid.cpu().numpy()
            which, rank = np.nonzero(valid)
            cell = chosen.cell.cpu().numpy()[which, rank]
            own = chosen.log_prob[torch.from_numpy(which), torch.from_numpy(rank)]
            path = path[pick][torch.from_numpy(which).to(self.device)] + own
            parent = seen + source[which]
            seen += len(image)
            places = places_below(places[source[which]], cell, self.grid)
            regions = look.cells[source[which], cell]
            image = image[source[which]]
            depth += 1
        return self.record(steps, len(roots), own_losses, gate=gate)

    def record(
        self, steps: Sequence[Step], count: int, losses: dict[str, Tensor], *, gate: bool = False
    ) -> Traversal:
        """Join the steps of a forward pass or a search, and conclude.

        Args:
            steps: In order.
            count: Number of images.
            losses: The scorer's own.
            gate: Whether the answer's gradient reaches the choices where evidence is pooled.

        Returns:
            The traversal.
        """
        table = joined(steps)
        logits, weight = self.conclude(table, count, gate=gate)
        columns = table._asdict() | {"coverage": table.coverage.detach().cpu().numpy()}
        del columns["answer"]
        return Traversal(
            **columns,
            weight=weight,
            glimpse_logits=self.classifier(table.features),
            logits=logits,
            scorer_losses=losses,
        )


def joined(steps: Sequence[Step]) -> Step:
    """One table of the glimpses of several steps."""
    columns: list[Any] = [
        np.concatenate(column) if isinstance(column[0], np.ndarray) else torch.cat(column)
        for column in zip(*steps, strict=True)
    ]
    return Step(*columns)


def chances(table: Step | Traversal) -> Float[Tensor, " n"]:
    """Log of the chance, before looking, that what decides the image lies in each region.

    That of its parent, times the parent's value, times the choice's probability; 1 at depth 0.
    """
    worth = torch.nn.functional.logsigmoid(table.value.detach())
    chance = torch.zeros_like(table.log_prob)
    for depth in range(1, int(table.depth.max(initial=0)) + 1):
        rows = torch.from_numpy(np.flatnonzero(table.depth == depth)).to(chance.device)
        parent = torch.from_numpy(table.parent[table.depth == depth]).to(chance.device)
        chance = chance.index_copy(0, rows, chance[parent] + worth[parent] + table.log_prob[rows])
    return chance


def _to_device(array: np.ndarray, device: torch.device) -> Tensor:
    """To a device; from pinned memory and without waiting where that is CUDA."""
    tensor = torch.from_numpy(array)
    if device.type == "cuda":
        return tensor.pin_memory().to(device, non_blocking=True)
    return tensor.to(device)
