"""From a batch to its loss: the traversal, then the losses of the classification, the scorer and the value head."""

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

from hiresattn.attention_maps.memory import AttentionMemory
from hiresattn.geometry import Grid, cell_regions, cells_on_boxes, expandable
from hiresattn.model.net import GlimpseNet
from hiresattn.model.scorers import Scorer
from hiresattn.model.select import Selector
from hiresattn.model.traversal import Traversal
from hiresattn.training.batch import Batch
from hiresattn.training.cutmix import BatchPastes
from hiresattn.training.estimators import (
    label_probabilities,
    leave_one_out_loss,
    reinforce_loss,
    row_cross_entropy,
)
from hiresattn.training.options import TrainOptions
from hiresattn.training.targets import TargetOf, centres_within, glimpse_labels, scorer_targets


class BatchLoss(NamedTuple):
    """The loss of a batch."""

    total: Tensor
    parts: dict[str, float]
    """What the scorer's own losses, ``location`` and ``value`` add to the total, by name; those that there are."""
    baseline: float
    """Running baseline of REINFORCE, for the next step."""
    images: int


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
    labels = torch.from_numpy(batch.labels).to(net.device)
    class_weights = None if class_weights is None else class_weights.to(net.device)
    target_of = scorer_targets(
        net, batch, options.scorer_loss, progress=progress, class_weights=class_weights, memory=memory
    )
    with torch.autocast(net.device.type, torch.bfloat16, enabled=options.amp):
        own = scorer_losses(net.scorer, traversal, target_of)
    if options.amp:
        traversal, own = _full_precision(traversal), {name: value.float() for name, value in own.items()}
    total, baseline = _task_loss(net, batch, traversal, options, baseline, class_weights)
    parts = dict(own)
    if not net.scorer.learns_from_boxes:
        location = location_loss(traversal, batch.sure_boxes, net.grid, net.finest)
        if location is not None:
            parts["location"] = options.location_loss * location
    if net.value is not None:
        main = torch.from_numpy(batch.main_labels).to(labels.device)
        value = value_loss(traversal, main, batch.boxes, net.finest, batch.box_confidence)
        if value is not None:
            parts["value"] = options.value_loss * value
    for part in parts.values():
        total = total + part
    return BatchLoss(total, {name: part.item() for name, part in parts.items()}, baseline, len(labels))


def _task_loss(
    net: GlimpseNet,
    batch: Batch,
    traversal: Traversal,
    options: TrainOptions,
    baseline: float,
    class_weights: Tensor | None,
) -> tuple[Tensor, float]:
    """The classification loss with the estimator's term; and the next baseline."""
    labels = torch.from_numpy(batch.labels).to(net.device)
    weight = options.reinforce_weight
    if options.estimator == "reinforce":
        found = reinforce_loss(
            traversal,
            labels,
            baseline,
            weight=0.1 if weight is None else weight,
            image_ce=options.image_share,
            image_reward=options.image_share,
            depths=options.glimpse_loss_depths,
            class_weights=class_weights,
        )
        return found.loss, found.baseline
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
            return traversal.logits.new_zeros(()), baseline
        unseen = torch.from_numpy(np.bincount(finest, minlength=len(labels)) == 0)
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
    return loss if choices is None else loss + (1.0 if weight is None else weight) * choices, baseline


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


def scorer_losses(scorer: Scorer, traversal: Traversal, target_of: TargetOf) -> dict[str, Tensor]:
    """The scorer's own losses by name, summed over the passes of a traversal.

    Args:
        scorer: The scorer.
        traversal: A forward pass.
        target_of: Supervision of regions; see ``targets.scorer_targets``.
    """
    losses: dict[str, Tensor] = {}
    start = 0
    for scored in traversal.scored:
        rows = slice(start, start := start + len(scored.logits))
        target = target_of(traversal.image[rows], traversal.depth[rows], traversal.region[rows])
        for name, value in scorer.losses(scored, target).items():
            losses[name] = losses[name] + value if name in losses else value
    return losses


def location_loss(
    traversal: Traversal, boxes: Sequence[np.ndarray | None], grid: Grid, finest: int
) -> Tensor | None:
    """Cross-entropy of the scores with the cells that are on known boxes.

    Args:
        traversal: A forward pass.
        boxes: Known targets ``[m 4]``, per image; None = not known.
        grid: How regions are divided.
        finest: Side of the smallest region.

    Returns:
        Mean over the visited regions with boxes, of the mean over the boxes visible there, of -log(probability that a
        cell on the box is chosen); None if there are none.
    """
    rows = np.flatnonzero(expandable(traversal.region, finest))
    if not len(rows):
        return None
    cells = cell_regions(traversal.region[rows], grid, finest)
    device = traversal.cell_logits.device
    row_of, target = [], []
    for at, row in enumerate(rows.tolist()):
        known = boxes[traversal.image[row]]
        if known is not None and len(known):
            on = cells_on_boxes(cells[at : at + 1], known)[0].T  # one row per box
            row_of += [row] * len(on)
            target.append(on)
    if not target:
        return None
    source = torch.tensor(row_of, device=device)
    logits = traversal.cell_logits[source]
    wanted = torch.from_numpy(np.concatenate(target)).to(device) & logits.detach().isfinite()
    shown = wanted.any(1)
    if not shown.any():
        return None
    source, logits, wanted = source[shown], logits[shown], wanted[shown]
    losses = logits.logsumexp(1) - logits.masked_fill(~wanted, -torch.inf).logsumexp(1)
    per_region = torch.bincount(source)[source]  # boxes that show in the region
    return (losses / per_region).sum() / len(torch.unique(source))


def value_loss(
    traversal: Traversal,
    labels: Tensor,
    boxes: Sequence[np.ndarray | None],
    finest: int,
    box_confidence: Sequence[np.ndarray | None] = (),
) -> Tensor | None:
    """Cross-entropy of the value head, which predicts whether a region is worth dividing.

    Its target is whether the region holds the centre of a box, where boxes are known (the largest probability of those
    that it holds, where they are probable only); else the highest probability
    that a glimpse below it gives to the label, or the mean of that over several labels. Regions of which none below
    was visited count where boxes are known.

    Args:
        traversal: A forward pass.
        labels: Class index per image ``[b]``.
        boxes: Known targets, per image; None = not known, empty = there are none.
        finest: Side of the smallest region.
        box_confidence: Probability that each box shows its class, per image; None, or none at all = certain.

    Returns:
        Binary cross-entropy over these regions; None if there are none.
    """
    with_boxes = np.array([known is not None for known in boxes], bool)[traversal.image]
    divided = np.union1d(
        traversal.parent[traversal.parent >= 0],
        np.flatnonzero(with_boxes & expandable(traversal.region, finest)),
    )
    if not len(divided):
        return None
    own, counts = label_probabilities(traversal, labels)
    best = np.zeros_like(own)
    for row in range(len(own) - 1, -1, -1):
        if traversal.parent[row] >= 0:
            parent = traversal.parent[row]
            best[parent] = np.maximum(best[parent], np.maximum(own[row], best[row]))
    below = (best * counts).sum(1) / counts.sum(1)
    for index, known in enumerate(boxes):
        if known is not None:
            mine = np.flatnonzero(traversal.image == index)
            sure = box_confidence[index] if index < len(box_confidence) else None
            held = centres_within(traversal.region[mine], known)
            below[mine] = (held * (1 if sure is None else sure)).max(axis=1, initial=0)
    rows = torch.from_numpy(divided).to(labels.device)
    target = torch.from_numpy(below).to(labels.device)[rows]
    return functional.binary_cross_entropy_with_logits(traversal.value[rows], target)


def _full_precision(traversal: Traversal) -> Traversal:
    """A traversal in single precision, for the losses."""
    values: dict[str, Any] = {
        name: value.float() if isinstance(value, Tensor) and value.is_floating_point() else value
        for name, value in vars(traversal).items()
    }
    return Traversal(**values)
