"""Supervision from labels, boxes and CutMix: what the losses know of the regions of a forward pass."""

from collections.abc import Callable, Sequence

import numpy as np
import torch
from torch import Tensor

from hiresattn.attention_maps.memory import AttentionMemory, Key
from hiresattn.geometry import cells_on_target, expandable, overlaps
from hiresattn.model.net import GlimpseNet
from hiresattn.model.scorers import PastedPart, Target, VisibleBoxes
from hiresattn.model.select import Selection, Selector
from hiresattn.model.traversal import Traversal
from hiresattn.training.batch import LEAST_CONFIDENCE, Batch
from hiresattn.training.cutmix import BatchPastes

#: ``target_of(image [n], depth [n], regions [n 4])`` → the supervision of these regions, as the network sees them.
TargetOf = Callable[[np.ndarray, np.ndarray, np.ndarray], Target]


def scorer_targets(
    net: GlimpseNet,
    batch: Batch,
    by_depth: tuple[float, ...],
    *,
    progress: float,
    class_weights: Tensor | None = None,
    memory: AttentionMemory | None = None,
) -> TargetOf:
    """A function that gives the supervision of a batch's regions to the scorer's own losses.

    A region inherits its image's label, with a weight that falls with depth, because it may not hold what the label
    names. The weight is 0 below depth 0, and in a case with several images, where boxes are known and the region
    holds the centre of none; and, with a background class, where none are known, unless the whole image is background.

    Args:
        net: The network.
        batch: The images, as the network sees them.
        by_depth: Weight of a region's label, by depth; the last repeats.
        progress: Share of the training done.
        class_weights: Weight of each class; None = all alike. Not used where images have several labels.
        memory: Attention accumulated so far; None = there is none yet.

    Returns:
        For ``losses.scorer_losses``.
    """
    of_image = torch.from_numpy(batch.labels).to(net.device)
    sure_boxes = batch.sure_boxes

    def target_of(image: np.ndarray, depth: np.ndarray, regions: np.ndarray) -> Target:
        labels = of_image[torch.from_numpy(image).to(net.device)]
        unknown = labels < 0 if labels.ndim == 1 else torch.zeros_like(labels[:, 0], dtype=torch.bool)
        labels = labels.clamp(min=0)
        counts = np.take(np.array(by_depth, np.float32), np.minimum(depth, len(by_depth) - 1))
        several = np.array([len(canvas) > 1 for canvas in batch.canvases] or [False] * len(batch.labels))
        for row in np.flatnonzero((depth > 0) | several[image]).tolist():
            boxes = sure_boxes[image[row]]
            if boxes is not None and len(boxes):
                counts[row] *= holds_centre(regions[row : row + 1], boxes)[0]
            elif net.background is not None and batch.labels[image[row]] != net.background:
                counts[row] = 0
        weight = torch.from_numpy(counts).to(net.device).masked_fill(unknown, 0)
        if class_weights is not None and labels.ndim == 1:
            weight = weight * class_weights.to(net.device)[labels]
        divided = torch.from_numpy(expandable(regions, net.finest)).to(net.device)
        pasted = (
            None if batch.pastes is None else _pasted_part(net, batch, batch.pastes, image, depth, regions)
        )
        merge = None if memory is None else _merging(memory, batch, image, regions)
        visible = _visible_boxes(net, batch, image, regions) if net.scorer.learns_from_boxes else None
        return Target(labels, weight, divided, progress, pasted, merge, visible)

    return target_of


class TargetSelector:
    """Selects as another selector does, but always includes a cell on a known box, where there is one.

    Training then visits the target at every depth from the first step on, as long as one cell may be chosen.

    Args:
        select: Chooses the other cells.
        boxes: Known targets ``[m 4]``, per image; None = not known.
        rng: Draws one of several cells on a box.
    """

    def __init__(
        self, select: Selector, boxes: Sequence[np.ndarray | None], rng: np.random.Generator
    ) -> None:
        self.select = select
        self.boxes = boxes
        self.rng = rng

    def __call__(self, logits: Tensor, k: int, cells: Tensor, image: np.ndarray) -> Selection:
        """Choose, then replace the last choice by a cell on a box, unless one was chosen."""
        chosen = self.select(logits, k, cells, image)
        cell, valid = chosen.cell.clone(), chosen.valid.clone()
        usable = logits.detach().isfinite().cpu().numpy()
        for row, on in enumerate(_cells_on_boxes(cells.cpu().numpy(), image, self.boxes)):
            good = np.flatnonzero(on & usable[row])
            if len(good) and cell.shape[1] and not np.isin(good, cell[row][valid[row]].cpu().numpy()).any():
                cell[row, -1] = int(self.rng.choice(good))
                valid[row, -1] = True
        return Selection(cell, logits.log_softmax(1).gather(1, cell), valid)


def glimpse_labels(
    traversal: Traversal,
    labels: np.ndarray,
    boxes: Sequence[np.ndarray | None],
    finest: int,
    background: int | None = None,
    box_classes: Sequence[np.ndarray | None] = (),
    box_confidence: Sequence[np.ndarray | None] = (),
) -> np.ndarray:
    """The class that each glimpse should predict on its own.

    Args:
        traversal: A forward pass.
        labels: Class index per image ``[b]``, -1 = not known; or of several labels 1 where an image has it ``[b c]``.
        boxes: Known targets, per image; None or empty = not known.
        finest: Side of the smallest region.
        background: Index of the background class, if there is one.
        box_classes: Class index of each box, per image; None, or none at all = the image's.
        box_confidence: Probability that each box shows its class, per image; None, or none at all = certain.

    Returns:
        Class index per glimpse, -1 = none. Without a background: the image's label, except below depth 0 where boxes
        are known and the glimpse holds the centre of none. With one: only finest glimpses have a class, the label
        where they hold the centre of a box, the background where boxes are known and they touch none. Where boxes
        have classes of their own: that of the boxes whose centres a glimpse holds; none if they differ, of several
        labels all of them. Boxes that are probable at best are not all there are: elsewhere in their image a glimpse
        has no class.
    """
    answers = labels[traversal.image].copy()
    if background is not None:
        answers[:] = np.where(answers == background, background, -1)
        answers[expandable(traversal.region, finest)] = -1
    for index, given in enumerate(boxes):
        if given is None or not len(given):
            continue
        confidence = box_confidence[index] if index < len(box_confidence) else None
        sure = np.ones(len(given), bool) if confidence is None else confidence >= LEAST_CONFIDENCE
        known = given[sure]
        mine = traversal.image == index
        if background is None:
            rows = np.flatnonzero(mine & (traversal.depth > 0))
            answers[rows[~holds_centre(traversal.region[rows], known)]] = -1
        else:
            rows = np.flatnonzero(mine & ~expandable(traversal.region, finest))
            if confidence is None:
                clear = overlaps(traversal.region[rows], known).max(axis=1) == 0
                answers[rows[clear]] = background
            answers[rows[holds_centre(traversal.region[rows], known)]] = labels[index]
        own = box_classes[index] if index < len(box_classes) else None
        own = None if own is None else own[sure]
        if own is not None and labels.ndim == 2:
            held = centres_within(traversal.region[mine], known)
            shown = (held[:, :, None] & (own[None, :, None] == np.arange(labels.shape[1]))).any(axis=1)
            answers[mine] = np.where(held.any(axis=1, keepdims=True), shown, -1)
        elif own is not None and (own != labels[index]).any():
            rows = rows[holds_centre(traversal.region[rows], known)]
            answers[rows] = _class_within(traversal.region[rows], known, own)
    return answers


def holds_centre(regions: np.ndarray, boxes: np.ndarray) -> np.ndarray:
    """Which regions ``[n 4]`` hold the centre of at least one box ``[m 4]``: bool ``[n]``."""
    return np.asarray(centres_within(regions, boxes).any(axis=1))


def hits(traversal: Traversal, boxes: Sequence[np.ndarray | None], finest: int) -> np.ndarray:
    """Per image with boxes, whether a visited finest region holds the centre of one: bool ``[images with boxes]``."""
    found = []
    leaf = ~expandable(traversal.region, finest)
    for index, known in enumerate(boxes):
        if known is None or not len(known):
            continue
        regions = traversal.region[leaf & (traversal.image == index)]
        found.append(holds_centre(regions, known).any())
    return np.array(found, bool)


def _visible_boxes(
    net: GlimpseNet, batch: Batch, image: np.ndarray, regions: np.ndarray
) -> VisibleBoxes | None:
    """The boxes that are visible in regions; None if none are known of any."""
    rows, corners_of, classes = [np.zeros(0, np.int64)], [np.zeros((0, 4))], [np.zeros(0, np.int64)]
    confidence, weight = [np.zeros(0, np.float32)], np.ones(len(image), np.float32)
    known = np.zeros(len(image), bool)
    for row, index in enumerate(image.tolist()):
        boxes, box_classes = batch.boxes[index], batch.box_classes[index]
        known[row] = box_classes is not None or (
            batch.labels.ndim == 1 and batch.labels[index] == net.background
        )
        if boxes is None or box_classes is None or not len(boxes):
            continue
        y, x, height, width = regions[row].tolist()
        corners = np.concatenate([boxes[:, :2], boxes[:, :2] + boxes[:, 2:]], axis=1) - [y, x, y, x]
        corners = (corners / [height, width, height, width]).clip(0, 1)
        some = (corners[:, 2:] > corners[:, :2]).all(axis=1)
        rows.append(np.full(some.sum(), row))
        corners_of.append(corners[some])
        classes.append(box_classes[some])
        sure = batch.box_confidence[index] if len(batch.box_confidence) else None
        confidence.append(np.ones(some.sum(), np.float32) if sure is None else sure[some])
        weight[row] = 1 if sure is None else sure.max()
    if not known.any():
        return None
    parts = (
        np.concatenate(rows),
        np.concatenate(corners_of).astype(np.float32),
        np.concatenate(classes),
        known,
        np.concatenate(confidence),
        weight,
    )
    return VisibleBoxes(*(torch.from_numpy(part).to(net.device) for part in parts))


def _pasted_part(
    net: GlimpseNet,
    batch: Batch,
    pastes: BatchPastes,
    image: np.ndarray,
    depth: np.ndarray,
    regions: np.ndarray,
) -> PastedPart:
    """What is pasted into regions; at depth 0, for a scorer that needs it, with its output for the donors alone."""
    share = pastes.share_of(image, regions)
    rows = (
        np.flatnonzero((share > 0) & (depth == 0)) if net.scorer.needs_clean_donor else np.zeros(0, np.int64)
    )
    clean = None
    if len(rows):
        training = net.training
        net.eval()  # no running statistics of a further pass
        with torch.no_grad():
            passed = net.glimpse(
                pastes.clean(image[rows], regions[rows]), regions[rows], batch.frames[image[rows]]
            )
        net.train(training)
        clean = passed.scored
    box, labels, part, which = (
        torch.from_numpy(values).to(net.device)
        for values in (pastes.within(image, regions), pastes.labels[image], share, rows)
    )
    return PastedPart(box, labels, part, which, clean)


def _merging(
    memory: AttentionMemory, batch: Batch, image: np.ndarray, regions: np.ndarray
) -> Callable[[Tensor, Tensor], Tensor]:
    """Merges maps of regions into a memory and recalls those of their labels; see ``Target.merge_attention``.

    Regions into which something is pasted are left out: they show two images.
    """
    assert batch.stored is not None  # noqa: S101 - a loader's batch has it
    where = batch.stored(image, regions).tolist()
    mixed = np.zeros(len(image), bool) if batch.pastes is None else batch.pastes.share_of(image, regions) > 0

    def merge(maps: Tensor, accepted: Tensor) -> Tensor:
        seen, kept = maps.detach().float().cpu().numpy(), np.zeros(maps.shape, np.float32)
        fine = accepted.cpu().numpy()
        for row in np.flatnonzero(~mixed).tolist():
            way, name = batch.augmentations[image[row]].orientation, batch.name_at(image[row], regions[row])
            own = batch.labels[image[row]]
            for label in [int(own)] if own.ndim == 0 else np.flatnonzero(own).tolist():
                key = Key(name, label, tuple(where[row]))
                if fine[row, label]:
                    memory.merge(key, way.invert(seen[row, label]))
                found = memory.recall(key)
                if found is not None:
                    kept[row, label] = way.apply(found)
        return torch.from_numpy(kept).to(maps)

    return merge


def _class_within(regions: np.ndarray, boxes: np.ndarray, box_classes: np.ndarray) -> np.ndarray:
    """The class of the boxes whose centres each region holds; -1 where they differ."""
    held = centres_within(regions, boxes)
    least = np.where(held, box_classes, np.iinfo(np.int64).max).min(1)
    return np.where(least == np.where(held, box_classes, -1).max(1), least, -1)


def centres_within(regions: np.ndarray, boxes: np.ndarray) -> np.ndarray:
    """Which regions ``[n 4]`` hold the centre of which boxes ``[m 4]``: bool ``[n m]``."""
    centre = boxes[:, :2] + boxes[:, 2:] // 2
    inside = (regions[:, None, :2] <= centre) & (centre < regions[:, None, :2] + regions[:, None, 2:])
    return np.asarray(inside.all(axis=2))


def _cells_on_boxes(cells: np.ndarray, image: np.ndarray, boxes: Sequence[np.ndarray | None]) -> np.ndarray:
    """Which cells ``[n cells 4]`` are on a box of their image: bool ``[n cells]``."""
    on = np.zeros(cells.shape[:2], bool)
    for row, index in enumerate(image.tolist()):
        known = boxes[index]
        if known is not None and len(known):
            on[row] = cells_on_target(cells[row : row + 1], known)[0]
    return on
