"""The network and its recursion: encode crops, score their cells, select some of them, repeat on those."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from hiresattn.geometry import Grid, cell_regions, expandable, frames_of, locations
from hiresattn.model.aggregators import log_mean_prob, pool_evidence, pooled_rows
from hiresattn.model.device import to_device
from hiresattn.model.encoders.base import Encoded
from hiresattn.model.frontier import Division, Frontier, Glimpses, within_foreground
from hiresattn.model.scorers import Scored, Scorer, ScorerInput, pool_cells
from hiresattn.model.select import Selector
from hiresattn.model.traversal import Rows, Traversal
from hiresattn.shapes import Float

#: ``fetch(image [n], regions [n 4])`` → crops with ``pixels [n c s s]`` and ``coverage [n s s]``, float32.
Fetch = Callable[[np.ndarray, np.ndarray], Any]


@dataclass(frozen=True, eq=False, kw_only=True)
class Parts:
    """The modules of a ``GlimpseNet``."""

    encoder: nn.Module
    """Crops → ``Encoded``."""
    scorer: Scorer
    """``ScorerInput`` → ``Scored``."""
    aggregator: nn.Module
    """Glimpses → one vector per image."""
    classifier: nn.Module
    """A vector → logits."""
    value: nn.Module | None = None
    """A vector → one logit: does the region contain what decides the image's class? Lets a search leave a region that
    turned out to be empty. None = logit 0 for every region."""
    position: nn.Module | None = None
    """Adds a glimpse's position to its feature; None = features without position."""
    coarse_encoder: nn.Module | None = None
    """Encoder of the regions that are divided further; None = ``encoder`` encodes all."""


class GlimpseNet(nn.Module):
    """An encoder, a scorer, an aggregator and a classifier, the same at every depth.

    Args:
        parts: The modules.
        grid: How a region is divided into cells.
        finest: Side of the smallest region, level-0 px.
        background: Index of the background class ("nothing to find"): the evidence of single glimpses is pooled then,
            not their vectors (see ``pool_evidence``), each with a learned weight for its prior. None = the
            aggregator pools.
        multi_label: Whether an image may have any number of the classes; else exactly one.
        head: Which head predicts: the ``classifier`` of the pooled glimpses; or the ``scorer``'s own, its class
            probabilities averaged over glimpses with the aggregator's weights. With one glimpse that is the
            classifier that the scorer was published as.
        pool_finest: Whether the aggregator pools only finest glimpses, as long as an image has one.

    Source:
        TNet ("Hard-Attention for Scalable Image Classification", NeurIPS 2021), traversal; the modules are
        single instances shared by all depths.
    """

    def __init__(
        self,
        parts: Parts,
        *,
        grid: Grid,
        finest: int,
        background: int | None = None,
        multi_label: bool = False,
        head: str = "classifier",
        pool_finest: bool = False,
    ) -> None:
        super().__init__()
        self.head = head
        self.pool_finest = pool_finest
        self.encoder = parts.encoder
        self.coarse_encoder = parts.coarse_encoder
        self.background = background
        self.multi_label = multi_label
        self.prior_weight = None if background is None else nn.Parameter(torch.tensor(0.5))
        self.scorer = parts.scorer
        self.aggregator = parts.aggregator
        self.classifier = parts.classifier
        self.value = parts.value
        self.position = parts.position
        self.grid = grid
        self.finest = finest
        self.frozen = False

    @property
    def device(self) -> torch.device:
        """The weights' device."""
        return next(self.parameters()).device

    def freeze_encoder(self) -> None:
        """Keep the encoder as it is while the rest is trained, statistics of batch normalisation included.

        A coarse encoder is trained: it finds what the frozen one classifies.
        """
        self.frozen = True
        self.encoder.requires_grad_(requires_grad=False).eval()

    def train(self, mode: bool = True) -> "GlimpseNet":  # noqa: FBT001, FBT002 - nn.Module's
        """Set training or evaluation mode; a frozen encoder stays in evaluation mode."""
        super().train(mode)
        if self.frozen:
            self.encoder.eval()
        return self

    def learned_state(self) -> dict[str, Tensor]:
        """The state without that of a frozen encoder."""
        state = self.state_dict()
        return {
            name: value for name, value in state.items() if not (self.frozen and name.startswith("encoder."))
        }

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
            regions: Their regions ``[n 4]``, level-0 px.
            frames: The rectangle that is classified, per crop ``[n 4]``, level-0 px.
            paths: Path of cells from the root region, per crop ``[n 3]`` (see ``geometry.child_paths``); None =
                depth 0.

        Returns:
            Features and cell scores.
        """
        pixels = to_device(crops.pixels, self.device)
        whole = bool(
            (crops.coverage == 1).all()
        )  # asked here: nothing then waits for the device, or is sent to it
        coverage = None if whole else to_device(crops.coverage, self.device)
        encoded = self._encode(pixels, regions)
        cells = cell_regions(regions, self.grid, self.finest)
        fraction = torch.from_numpy(cells[:, 0, 2] / regions[:, 2]).to(pixels)
        position = None
        if self.position is not None:
            if self.position.by_path:
                where = np.zeros((len(regions), 3), np.int64) if paths is None else paths
            else:
                where = locations(regions, frames)
            position = torch.from_numpy(where).to(pixels)
        features, logits, value, scored = self.scored(encoded, coverage, fraction, position)
        measured = pixels.new_ones(len(regions)) if coverage is None else coverage.mean((1, 2))
        return Glimpses(features, logits, cells, measured, value, scored)

    def scored(
        self, encoded: Encoded, coverage: Tensor | None, fraction: Tensor, position: Tensor | None
    ) -> tuple[Tensor, Tensor, Tensor, Scored]:
        """Score encoded crops: tensors in, tensors out.

        Args:
            encoded: The encoder's output.
            coverage: Share of each crop px that was measured ``[n s s]``; None = all of all.
            fraction: Side of a cell over the side of its region ``[n]``.
            position: Where each was ``[n 3]``, as the positional encoding takes it; None = there is no such.

        Returns:
            Features with position ``[n d]``, logits of cells ``[n cells]``, value ``[n]``, and the scorer's output.
        """
        scored = self.scorer(ScorerInput(encoded.stages, encoded.features, fraction))
        logits = scored.logits.flatten(1)
        if coverage is not None:
            measured = pool_cells(coverage[:, None], self.grid.size, fraction).flatten(1) > 1e-6
            logits = logits.masked_fill(~measured, -torch.inf)
        features = encoded.features
        value = features.new_zeros(features.shape[0]) if self.value is None else self.value(features)[:, 0]
        if self.position is not None:
            features = self.position(features, position)
        if self.coarse_encoder is not None:  # so that the value's loss trains its cells, too
            value = value + logits.masked_fill(~logits.isfinite(), -1e9).logsumexp(1)
        return features, logits, value, scored

    def _encode(self, pixels: Tensor, regions: np.ndarray) -> Encoded:
        """Encode crops: with the coarse encoder, if there is one, those whose regions are divided further."""
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
        self, table: Rows, images: Sequence[int] | Sequence[float], *, straight_through: bool = False
    ) -> tuple[Float[Tensor, "b K"], Float[Tensor, " n"]]:
        """Pool the glimpses of cases and classify: logits per case, weight per glimpse.

        Args:
            table: The glimpses; their ``image`` is the index of the case.
            images: Images of each case; of one whose regions are a sample, the share that they are. Evidence is the
                mean over them: what decides may lie in any.
            straight_through: Whether the gradient reaches the choices, where evidence is pooled.
        """
        count = len(images)
        image = torch.from_numpy(table.image).to(table.features.device)
        finest = torch.from_numpy(~expandable(table.region, self.finest)).to(image.device)
        if self.background is None or self.prior_weight is None:
            rows = pooled_rows(finest, image, count) if self.pool_finest else torch.ones_like(finest)
            pooled, weights = self.aggregator(table.features[rows], image[rows], count)
            spread = weights.new_zeros(len(image)).masked_scatter(rows, weights)
            if self.head == "scorer":
                return log_mean_prob(table.class_log_prob[rows], weights, image[rows], count), spread
            return self.classifier(pooled), spread
        prior = log_priors(table) if straight_through else log_priors(table).detach()
        share = torch.tensor(images, dtype=prior.dtype, device=prior.device).log()[image]
        logits = self.classifier(table.features)
        return pool_evidence(logits, image, finest, count, self.background, self.prior_weight * prior - share)

    def forward(
        self,
        fetch: Fetch,
        roots: Sequence[np.ndarray],
        frames: Sequence[np.ndarray] | np.ndarray,
        *,
        select: Selector,
        k: Sequence[int],
        straight_through: bool = True,
        foreground: Callable[[np.ndarray, np.ndarray], np.ndarray] | None = None,
    ) -> Traversal:
        """Visit the root regions of images, then depth by depth the selected cells of every region.

        Regions of native resolution are not divided further, so the images of a batch may have different depths.

        Args:
            fetch: Reads crops.
            roots: Regions of depth 0, one array ``[r 4]`` per image.
            frames: The rectangle that is classified, per image ``[b 4]``, level-0 px; or several that share one answer
                ``[m 4]`` per image, side by side.
            select: Selects cells.
            k: Cells per region, per depth; the last one repeats.
            straight_through: Whether a glimpse's feature carries the gradient of all choices that led to it, through
                the factor exp(lp - stop_gradient(lp)), which is 1. Estimators that use ``log_prob`` themselves leave
                it out.
            foreground: ``foreground(image [n], regions [n 4])`` → which regions hold foreground, asked after the root
                regions were fetched; cells that don't are not visited. None = all do.

        Returns:
            The traversal.
        """
        frontier: Frontier | None = Frontier.of_roots(roots, self.device)
        steps: list[Rows] = []
        scored: list[Scored] = []
        visited = 0
        while frontier is not None:
            image, region, depth = frontier.image, frontier.region, len(steps)
            found = self.glimpse(
                fetch(image, region), region, frames_at(image, region, frames), frontier.path
            )
            if foreground is not None:
                found = within_foreground(foreground, found, image, expandable(region, self.finest))
            if straight_through and self.background is None:
                factor = (frontier.path_log_prob - frontier.path_log_prob.detach()).exp()
                found = replace(found, features=found.features * factor[:, None])
            steps.append(frontier.rows(found, depth))
            scored.append(found.scored)
            step = Division(self.grid, self.finest, select, k[min(depth, len(k) - 1)])
            frontier = frontier.divided(found, step, first_row=visited)
            visited += len(image)
        images = [len(np.reshape(frame, (-1, 4))) for frame in frames]
        return self.record(steps, images, tuple(scored), straight_through=straight_through)

    def record(
        self,
        steps: Sequence[Rows],
        images: Sequence[int],
        scored: tuple[Scored, ...] = (),
        *,
        straight_through: bool = False,
    ) -> Traversal:
        """Join the passes of a traversal, and predict.

        Args:
            steps: The glimpses of each pass, in order.
            images: Images of each case.
            scored: The scorer's output of each pass.
            straight_through: Whether the prediction's gradient reaches the choices where evidence is pooled.

        Returns:
            The traversal.
        """
        table = joined(steps)
        logits, weight = self.predict(table, images, straight_through=straight_through)
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
    """Log-probability, before a region is visited, that it contains what decides the image's class.

    The parent's, plus the log of the parent's value (as a probability) and of the choice's probability; 0 at depth 0.
    """
    value = torch.nn.functional.logsigmoid(table.value.detach())
    prior = torch.zeros_like(table.log_prob)
    for depth in range(1, int(table.depth.max(initial=0)) + 1):
        rows = torch.from_numpy(np.flatnonzero(table.depth == depth)).to(prior.device)
        parent = torch.from_numpy(table.parent[table.depth == depth]).to(prior.device)
        prior = prior.index_copy(0, rows, prior[parent] + value[parent] + table.log_prob[rows])
    return prior


def frames_at(
    image: np.ndarray, regions: np.ndarray, frames: Sequence[np.ndarray] | np.ndarray
) -> np.ndarray:
    """The frame of each region ``[n 4]``, by the index of its image ``[n]``; see ``GlimpseNet.forward``."""
    if isinstance(frames, np.ndarray):
        return np.asarray(frames[image])
    out = np.empty_like(regions)
    for index in np.unique(image).tolist():
        rows = image == index
        out[rows] = frames_of(regions[rows], frames[index].reshape(-1, 4))
    return out
