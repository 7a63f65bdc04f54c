"""What training knows of the regions that a forward pass looks at: told to the scorer's own losses."""

from collections.abc import Callable

import numpy as np
import torch
from torch import Tensor

from hiresattn.attention_maps.memory import AttentionMemory, Key
from hiresattn.geometry import expandable
from hiresattn.model.net import GlimpseNet
from hiresattn.model.scorers import PastedPart, Target, VisibleBoxes
from hiresattn.training.box_supervision import holds_centre
from hiresattn.training.cutmix import Pastes
from hiresattn.training.data import Batch

#: ``target_of(image [n], depth [n], regions [n 4])`` → what training knows of these regions, as the network sees them.
TargetOf = Callable[[np.ndarray, np.ndarray, np.ndarray], Target]


def targets(
    net: GlimpseNet,
    batch: Batch,
    by_depth: tuple[float, ...],
    *,
    progress: float,
    class_weights: Tensor | None = None,
    memory: AttentionMemory | None = None,
) -> TargetOf:
    """Says what is known of regions of a batch.

    A region inherits its image's label; what that counts falls with depth, for the region may not hold what it
    names. Where boxes are known and a region below depth 0 holds the centre of none, it counts nothing. With a
    background class, that needs boxes below depth 0, unless the whole image is background.

    Args:
        net: What looks.
        batch: The images, as the network sees them.
        by_depth: What a region's label counts, by depth; the last repeats.
        progress: Share of the training done.
        class_weights: What each class counts; None = all alike. Not used where images have several labels.
        memory: Attention accumulated so far; None = there is none yet.

    Returns:
        For ``step.scorer_losses``.
    """
    of_image = torch.from_numpy(batch.labels).to(net.device)

    def target_of(image: np.ndarray, depth: np.ndarray, regions: np.ndarray) -> Target:
        labels = of_image[torch.from_numpy(image).to(net.device)]
        nameless = labels < 0 if labels.ndim == 1 else torch.zeros_like(labels[:, 0], dtype=torch.bool)
        labels = labels.clamp(min=0)
        counts = np.take(np.array(by_depth, np.float32), np.minimum(depth, len(by_depth) - 1))
        for row in np.flatnonzero(depth > 0).tolist():
            boxes = batch.boxes[image[row]]
            if boxes is not None and len(boxes):
                counts[row] *= holds_centre(regions[row : row + 1], boxes)[0]
            elif net.background is not None and batch.labels[image[row]] != net.background:
                counts[row] = 0
        weight = torch.from_numpy(counts).to(net.device).masked_fill(nameless, 0)
        if class_weights is not None and labels.ndim == 1:
            weight = weight * class_weights.to(net.device)[labels]
        divided = torch.from_numpy(expandable(regions, net.finest)).to(net.device)
        paste = None if batch.pastes is None else _paste(net, batch, batch.pastes, image, depth, regions)
        remember = None if memory is None else _remembering(memory, batch, image, regions)
        shown = _shown(net, batch, image, regions) if net.scorer.learns_from_boxes else None
        return Target(labels, weight, divided, progress, paste, remember, shown)

    return target_of


def _shown(net: GlimpseNet, batch: Batch, image: np.ndarray, regions: np.ndarray) -> VisibleBoxes | None:
    """The boxes that show in regions; None if none are known of any."""
    rows, places, kinds = [np.zeros(0, np.int64)], [np.zeros((0, 4))], [np.zeros(0, np.int64)]
    known = np.zeros(len(image), bool)
    for row, index in enumerate(image.tolist()):
        boxes, kind = batch.boxes[index], batch.kinds[index]
        known[row] = kind is not None or (batch.labels.ndim == 1 and batch.labels[index] == net.background)
        if boxes is None or kind is None or not len(boxes):
            continue
        y, x, height, width = regions[row].tolist()
        corners = np.concatenate([boxes[:, :2], boxes[:, :2] + boxes[:, 2:]], axis=1) - [y, x, y, x]
        corners = (corners / [height, width, height, width]).clip(0, 1)
        some = (corners[:, 2:] > corners[:, :2]).all(axis=1)
        rows.append(np.full(some.sum(), row))
        places.append(corners[some])
        kinds.append(kind[some])
    if not known.any():
        return None
    parts = (np.concatenate(rows), np.concatenate(places).astype(np.float32), np.concatenate(kinds), known)
    return VisibleBoxes(*(torch.from_numpy(part).to(net.device) for part in parts))


def _paste(
    net: GlimpseNet, batch: Batch, pastes: Pastes, image: np.ndarray, depth: np.ndarray, regions: np.ndarray
) -> PastedPart:
    """What is pasted into regions; at depth 0, and for a scorer that compares, what it says of the donors alone."""
    share = pastes.share_of(image, regions)
    rows = (
        np.flatnonzero((share > 0) & (depth == 0)) if net.scorer.needs_clean_donor else np.zeros(0, np.int64)
    )
    clean = None
    if len(rows):
        training = net.training
        net.eval()  # norms learn nothing from a further look
        with torch.no_grad():
            looked = net.glimpse(
                pastes.clean(image[rows], regions[rows]), regions[rows], batch.frames[image[rows]]
            )
        net.train(training)
        clean = looked.scored
    box, labels, part, which = (
        torch.from_numpy(values).to(net.device)
        for values in (pastes.within(image, regions), pastes.labels[image], share, rows)
    )
    return PastedPart(box, labels, part, which, clean)


def _remembering(
    memory: AttentionMemory, batch: Batch, image: np.ndarray, regions: np.ndarray
) -> Callable[[Tensor, Tensor], Tensor]:
    """What merges maps of regions into a memory and recalls those of their labels; see ``Target.merge_attention``.

    Regions into which something is pasted are left out: they show no one image.
    """
    assert batch.stored is not None  # noqa: S101 - a loader's batch has it
    where = batch.stored(image, regions).tolist()
    mixed = np.zeros(len(image), bool) if batch.pastes is None else batch.pastes.share_of(image, regions) > 0

    def remember(maps: Tensor, accepted: Tensor) -> Tensor:
        seen, kept = maps.detach().float().cpu().numpy(), np.zeros(maps.shape, np.float32)
        fine = accepted.cpu().numpy()
        for row in np.flatnonzero(~mixed).tolist():
            turn, name = batch.changes[image[row]].turn, batch.items[image[row]].name
            own = batch.labels[image[row]]
            for label in [int(own)] if own.ndim == 0 else np.flatnonzero(own).tolist():
                key = Key(name, label, tuple(where[row]))
                if fine[row, label]:
                    memory.merge(key, turn.undone(seen[row, label]))
                found = memory.recall(key)
                if found is not None:
                    kept[row, label] = turn.crop(found)
        return torch.from_numpy(kept).to(maps)

    return remember
