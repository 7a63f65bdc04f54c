"""Losses that are means over regions: where the boxes are, and which regions are worth dividing."""

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

from hiresattn.geometry import Grid, cell_regions, cells_on_boxes, expandable
from hiresattn.model.scorers import LossTerm, mean_term
from hiresattn.model.traversal import Traversal
from hiresattn.training.estimators import label_probabilities
from hiresattn.training.targets import centres_within


def location_loss(
    traversal: Traversal, boxes: Sequence[np.ndarray | None], grid: Grid, finest: int
) -> LossTerm | None:
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
    count = len(torch.unique(source))
    return mean_term((losses / per_region).sum() / count, count)


def value_loss(
    traversal: Traversal,
    labels: Tensor,
    boxes: Sequence[np.ndarray | None],
    finest: int,
    box_confidence: Sequence[np.ndarray | None] = (),
) -> LossTerm | None:
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
    wrong = functional.binary_cross_entropy_with_logits(traversal.value[rows], target)
    return mean_term(wrong, len(rows))
