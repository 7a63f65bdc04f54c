"""From a batch to its loss: the traversal, then the losses of the classification, the scorer and the value head."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

from hiresattn.attention_maps.memory import AttentionMemory
from hiresattn.geometry import expandable
from hiresattn.model.net import GlimpseNet
from hiresattn.model.scorers import LossTerm, Scorer, mean_term
from hiresattn.model.select import Selector
from hiresattn.model.traversal import Traversal
from hiresattn.training.batch import Batch
from hiresattn.training.cutmix import BatchPastes
from hiresattn.training.estimators import (
    leave_one_out_loss,
    reinforce_loss,
    row_cross_entropy,
)
from hiresattn.training.options import TrainOptions
from hiresattn.training.region_losses import location_loss, value_loss
from hiresattn.training.targets import TargetOf, glimpse_labels, scorer_targets


class BatchLoss(NamedTuple):
    """The loss of a batch, or of one process's part of it: terms, some of which need sums over the whole batch."""

    terms: list[tuple[str, str, Callable[[Sequence[float]], Tensor]]]
    """Name, key of its sums, and ``LossTerm.share``. Terms of the classification have no name."""
    sums: dict[str, tuple[float, ...]]
    """Of this part of the batch, by key."""
    images: int

    def joined(self, sums: Mapping[str, Sequence[float]]) -> tuple[Tensor, dict[str, float]]:
        """This part's share of the loss; called once.

        Args:
            sums: Those of the whole batch.

        Returns:
            The share; and what the scorer's own losses, ``location`` and ``value`` add to it, by name.
        """
        total, parts = torch.zeros(()), dict[str, float]()
        for name, key, share in self.terms:
            value = share(sums[key])
            total = value + total.to(value)
            if name:
                parts[name] = parts.get(name, 0.0) + value.item()
        return total, parts


def traverse(
    net: GlimpseNet, batch: Batch, select: Selector, k: tuple[int, ...], options: TrainOptions
) -> Traversal:
    """The forward pass.

    Args:
        net: In training mode.
        batch: The images; they are read here.
        select: Chooses cells.
        k: Cells per region, per depth.
        options: ``estimator`` and ``amp`` count.
    """
    straight_through = options.estimator == "straight-through"
    with torch.autocast(net.device.type, torch.bfloat16, enabled=options.amp):
        return net(
            batch.fetch,
            batch.roots,
            batch.frames,
            select=select,
            k=k,
            straight_through=straight_through,
            foreground=batch.holds,
        )


def batch_loss(
    net: GlimpseNet,
    batch: Batch,
    traversal: Traversal,
    options: TrainOptions,
    *,
    baseline: float,
    progress: float = 0.0,
    class_weights: Tensor | None = None,
    memory: AttentionMemory | None = None,
) -> BatchLoss:
    """The loss of a forward pass.

    Args:
        net: The network that made it.
        batch: The images.
        traversal: The forward pass.
        options: How to train.
        baseline: Running baseline of REINFORCE.
        progress: Share of the training done.
        class_weights: Weight of each class in the cross-entropies; None = all alike.
        memory: Attention accumulated so far, for scorers that learn from it; None = there is none yet.
    """
    class_weights = None if class_weights is None else class_weights.to(net.device)
    target_of = scorer_targets(
        net, batch, options.scorer_loss, progress=progress, class_weights=class_weights, memory=memory
    )
    with torch.autocast(net.device.type, torch.bfloat16, enabled=options.amp):
        loss = scorer_losses(net.scorer, traversal, target_of)
    if options.amp:
        traversal = _full_precision(traversal)
    found: dict[str, LossTerm | None] = {}
    if not net.scorer.learns_from_boxes:
        term = location_loss(traversal, batch.sure_boxes, net.grid, net.finest)
        found["location"] = _weighted(options.location_loss, term)
    if net.value is not None:
        main = torch.from_numpy(batch.main_labels).to(net.device)
        term = value_loss(traversal, main, batch.boxes, net.finest, batch.box_confidence)
        found["value"] = _weighted(options.value_loss, term)
    for key, term in (_task_loss(net, batch, traversal, options, baseline, class_weights) | found).items():
        if term is not None:
            loss.sums[key] = term.sums
            loss.terms.append((key if key in found else "", key, term.share))
    return loss._replace(images=len(batch.labels))


def _weighted(weight: float, term: LossTerm | None) -> LossTerm | None:
    return None if term is None else LossTerm(term.sums, lambda sums: weight * term.share(sums))


def _task_loss(
    net: GlimpseNet,
    batch: Batch,
    traversal: Traversal,
    options: TrainOptions,
    baseline: float,
    class_weights: Tensor | None,
) -> dict[str, LossTerm | None]:
    """The classification loss, and the estimator's term, by the keys of their sums."""
    labels = torch.from_numpy(batch.labels).to(net.device)
    weight = options.reinforce_weight
    if options.estimator == "reinforce":
        term = reinforce_loss(
            traversal,
            labels,
            baseline,
            weight=0.1 if weight is None else weight,
            image_ce=options.image_share,
            image_reward=options.image_share,
            depths=options.glimpse_loss_depths,
            class_weights=class_weights,
        )
        return {"reinforce": term}
    single = glimpse_labels(
        traversal,
        batch.labels,
        batch.boxes,
        net.finest,
        net.background,
        batch.box_classes,
        batch.box_confidence,
    )
    if net.coarse_encoder is not None and (
        net.background is not None or net.pool_finest
    ):  # coarse: no evidence
        single[expandable(traversal.region, net.finest)] = -1
        finest = traversal.image[~expandable(traversal.region, net.finest)]
        if not len(finest):  # a loss without a graph: no weight decays for it
            return {"images": mean_term(traversal.logits.new_zeros(()), len(labels))}
        unseen = torch.from_numpy(np.bincount(finest, minlength=len(labels)) == 0)
        unseen = unseen.view(-1, *[1] * (labels.ndim - 1))
        labels = labels.masked_fill(unseen.to(labels.device), -1)
    loss = classification_loss(
        traversal,
        labels,
        torch.from_numpy(single).to(labels.device),
        glimpse_weight=options.glimpse_loss,
        class_weights=class_weights,
        pastes=batch.pastes,
    )
    choices = leave_one_out_loss(traversal, labels) if options.estimator == "reinforce-loo" else None
    return {
        "images": mean_term(loss, len(labels)),
        "choices": _weighted(1.0 if weight is None else weight, choices),
    }


def classification_loss(
    traversal: Traversal,
    labels: Tensor,
    single: Tensor,
    *,
    glimpse_weight: float,
    class_weights: Tensor | None = None,
    pastes: BatchPastes | None = None,
) -> Tensor:
    """Cross-entropy of the image, and of each of its glimpses (mean per image).

    Args:
        traversal: A forward pass.
        labels: Class index per image ``[b]``, or of several labels 1 where an image has it ``[b c]``.
        single: Label of each glimpse on its own, likewise; -1 = none ``[N]`` or ``[N c]``.
        glimpse_weight: Of the glimpses' part.
        class_weights: See ``estimators.row_cross_entropy``; None = all alike.
        pastes: What CutMix pasted: an image, and each of its glimpses, has both labels, weighted by visible area;
            None = nothing.

    Returns:
        The loss.
    """
    image = torch.from_numpy(traversal.image).to(labels.device)
    counted = single.reshape(len(image), -1)[:, 0] >= 0
    count = torch.zeros(len(labels), device=labels.device).index_add(0, image, counted.float())

    def weighted(labels: Tensor, single: Tensor, share: Tensor | float, part: Tensor | float) -> Tensor:
        several = labels.ndim == 2
        alone = row_cross_entropy(traversal.glimpse_logits, single, class_weights if several else None)
        mean = torch.zeros_like(count).index_add(0, image, alone * part) / count.clamp(min=1)
        if class_weights is not None and not several:
            mean = mean * class_weights[labels.clamp(min=0)].masked_fill(labels < 0, 1)
        return row_cross_entropy(traversal.logits, labels, class_weights) * share + glimpse_weight * mean

    if pastes is None:
        loss = weighted(labels, single, 1.0, 1.0).mean()
    else:
        shares = pastes.share, pastes.share_of(traversal.image, traversal.region)
        share, part = (torch.from_numpy(values).to(traversal.logits) for values in shares)
        donors = torch.from_numpy(pastes.labels).to(labels.device)
        of_donor = torch.where(counted if single.ndim == 1 else counted[:, None], donors[image], -1)
        loss = weighted(labels, single, 1 - share, 1 - part) + weighted(donors, of_donor, share, part)
        loss = loss.mean()
    return loss


def scorer_losses(scorer: Scorer, traversal: Traversal, target_of: TargetOf) -> BatchLoss:
    """The scorer's own losses by name, of all passes of a traversal.

    Args:
        scorer: The scorer.
        traversal: A forward pass.
        target_of: Supervision of regions; see ``targets.scorer_targets``.
    """
    loss = BatchLoss([], {}, 0)
    start = 0
    for number, scored in enumerate(traversal.scored):
        rows = slice(start, start := start + len(scored.logits))
        target = target_of(traversal.image[rows], traversal.depth[rows], traversal.region[rows])
        of_rows = f"rows of pass {number}"
        loss.sums[of_rows] = (float(len(scored.logits)),)  # also where this part of the batch lacks a loss
        for name, value in scorer.losses(scored, target).items():
            if isinstance(value, Tensor):
                key, term = of_rows, mean_term(value.float(), len(scored.logits))
            else:
                key, term = f"{name} of pass {number}", value
                loss.sums[key] = term.sums
            loss.terms.append((name, key, term.share))
    return loss


def _full_precision(traversal: Traversal) -> Traversal:
    """A traversal in single precision, for the losses."""
    values: dict[str, Any] = {
        name: value.float() if isinstance(value, Tensor) and value.is_floating_point() else value
        for name, value in vars(traversal).items()
    }
    return Traversal(**values)
