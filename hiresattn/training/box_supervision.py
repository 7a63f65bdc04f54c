"""Location labels: where the target is known, the scorer is told, and a look is spent there."""

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

from hiresattn.geometry import Grid, cell_regions, cells_on_boxes, cells_on_target, expandable, overlaps
from hiresattn.model.select import Selection, Selector
from hiresattn.model.traversal import Traversal
from hiresattn.training.estimators import told_right


class Guided:
    """Another selector's choice, one cell of which is on the target where there is one.

    Training then sees the target at every depth from the first step on, as long as one cell may be chosen.

    Args:
        select: Chooses the other cells.
        boxes: Where the targets are, per image ``[m 4]``; None = not known.
        rng: Which of several cells on the target.
    """

    def __init__(
        self, select: Selector, boxes: Sequence[np.ndarray | None], rng: np.random.Generator
    ) -> None:
        self.select = select
        self.boxes = boxes
        self.rng = rng

    def __call__(self, logits: Tensor, k: int, cells: Tensor, image: np.ndarray) -> Selection:
        """Choose, then put a cell on the target in the place of the last choice, unless one is there."""
        chosen = self.select(logits, k, cells, image)
        cell, valid = chosen.cell.clone(), chosen.valid.clone()
        usable = logits.detach().isfinite().cpu().numpy()
        for row, on in enumerate(_on_target(cells.cpu().numpy(), image, self.boxes)):
            good = np.flatnonzero(on & usable[row])
            if len(good) and cell.shape[1] and not np.isin(good, cell[row][valid[row]].cpu().numpy()).any():
                cell[row, -1] = int(self.rng.choice(good))
                valid[row, -1] = True
        return Selection(cell, logits.log_softmax(1).gather(1, cell), valid)


def location_loss(
    traversal: Traversal, boxes: Sequence[np.ndarray | None], grid: Grid, finest: int
) -> Tensor | None:
    """How unlikely the cells on each target are, over the visited regions that have some.

    Args:
        traversal: A forward pass.
        boxes: Where the targets are, per image; None = not known.
        grid: How regions are divided.
        finest: Side of the smallest region.

    Returns:
        Mean over regions, of the mean over the boxes that show there, of -log(probability that a cell on the box
        is chosen); None if no region has one.
    """
    rows = np.flatnonzero(expandable(traversal.region, finest))
    if not len(rows):
        return None
    cells = cell_regions(traversal.region[rows], grid, finest)
    device = traversal.cell_logits.device
    row_of, target = [], []
    for at, row in enumerate(rows.tolist()):
        places = boxes[traversal.image[row]]
        if places is not None and len(places):
            on = cells_on_boxes(cells[at : at + 1], places)[0].T  # one row per box
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
    surprise = logits.logsumexp(1) - logits.masked_fill(~wanted, -torch.inf).logsumexp(1)
    per_region = torch.bincount(source)[source]  # boxes that show in the region
    return (surprise / per_region).sum() / len(torch.unique(source))


def glimpse_labels(
    traversal: Traversal,
    labels: np.ndarray,
    boxes: Sequence[np.ndarray | None],
    finest: int,
    background: int | None = None,
    kinds: Sequence[np.ndarray | None] = (),
) -> np.ndarray:
    """What each glimpse should answer on its own.

    Args:
        traversal: A forward pass.
        labels: Class index per image ``[b]``, -1 = not known.
        boxes: Where the targets are, per image; None or empty = not known.
        finest: Side of the smallest region.
        background: Index of the class that means that there is nothing to find, if there is one.
        kinds: Class of each box, per image; None, or none at all = the image's.

    Returns:
        Class index per glimpse, -1 = nothing. Without a background, the image's label, but where boxes are known
        and the glimpse, below depth 0, holds the centre of none. With one, finest glimpses only: the label where
        they hold the centre of a box, the background where boxes are known and they touch none. Where boxes have
        classes of their own, those of the boxes whose centres a glimpse holds; nothing if they differ.
    """
    answers = labels[traversal.image].copy()
    if background is not None:
        answers[:] = np.where(answers == background, background, -1)
        answers[expandable(traversal.region, finest)] = -1
    for index, places in enumerate(boxes):
        if places is None or not len(places):
            continue
        mine = traversal.image == index
        if background is None:
            rows = np.flatnonzero(mine & (traversal.depth > 0))
            answers[rows[~holds_centre(traversal.region[rows], places)]] = -1
        else:
            rows = np.flatnonzero(mine & ~expandable(traversal.region, finest))
            clear = overlaps(traversal.region[rows], places).max(axis=1) == 0
            answers[rows[clear]] = background
            answers[rows[holds_centre(traversal.region[rows], places)]] = labels[index]
        own = kinds[index] if index < len(kinds) else None
        if own is not None and (own != labels[index]).any():
            rows = rows[holds_centre(traversal.region[rows], places)]
            answers[rows] = _kind_held(traversal.region[rows], places, own)
    return answers


def _kind_held(regions: np.ndarray, places: np.ndarray, kinds: np.ndarray) -> np.ndarray:
    """The class of the boxes whose centres each region holds; -1 where they differ."""
    held = _centres_within(regions, places)
    least = np.where(held, kinds, np.iinfo(np.int64).max).min(1)
    return np.where(least == np.where(held, kinds, -1).max(1), least, -1)


def holds_centre(regions: np.ndarray, places: np.ndarray) -> np.ndarray:
    """Which regions hold the centre of at least one box."""
    return np.asarray(_centres_within(regions, places).any(axis=1))


def _centres_within(regions: np.ndarray, places: np.ndarray) -> np.ndarray:
    """Which regions ``[n 4]`` hold the centre of which boxes ``[m 4]``: bool ``[n m]``."""
    centre = places[:, :2] + places[:, 2:] // 2
    inside = (regions[:, None, :2] <= centre) & (centre < regions[:, None, :2] + regions[:, None, 2:])
    return np.asarray(inside.all(axis=2))


def value_loss(traversal: Traversal, labels: Tensor, boxes: Sequence[np.ndarray | None]) -> Tensor | None:
    """How badly the network knows which regions are worth a closer look.

    A region's worth is whether it holds the centre of a box, where boxes are known; else the best probability
    that a glimpse below it gives to the label, or the mean of that over several labels.

    Args:
        traversal: A forward pass.
        labels: Class index per image ``[b]``.
        boxes: Where the targets are, per image; None = not known, empty = nowhere.

    Returns:
        Binary cross-entropy over the regions that were looked into; None if there are none.
    """
    looked_into = np.unique(traversal.parent[traversal.parent >= 0])
    if not len(looked_into):
        return None
    own, counts = told_right(traversal, labels)
    best = np.zeros_like(own)
    for row in range(len(own) - 1, -1, -1):
        if traversal.parent[row] >= 0:
            parent = traversal.parent[row]
            best[parent] = np.maximum(best[parent], np.maximum(own[row], best[row]))
    below = (best * counts).sum(1) / counts.sum(1)
    for index, places in enumerate(boxes):
        if places is not None:
            mine = np.flatnonzero(traversal.image == index)
            below[mine] = holds_centre(traversal.region[mine], places)
    rows = torch.from_numpy(looked_into).to(labels.device)
    target = torch.from_numpy(below).to(labels.device)[rows]
    return functional.binary_cross_entropy_with_logits(traversal.value[rows], target)


def hits(traversal: Traversal, boxes: Sequence[np.ndarray | None], finest: int) -> np.ndarray:
    """Per image with boxes: whether a finest region that was visited holds the centre of one (bool)."""
    found = []
    leaf = ~expandable(traversal.region, finest)
    for index, places in enumerate(boxes):
        if places is None or not len(places):
            continue
        regions = traversal.region[leaf & (traversal.image == index)]
        found.append(holds_centre(regions, places).any())
    return np.array(found, bool)


def _on_target(cells: np.ndarray, image: np.ndarray, boxes: Sequence[np.ndarray | None]) -> np.ndarray:
    on = np.zeros(cells.shape[:2], bool)
    for row, index in enumerate(image.tolist()):
        places = boxes[index]
        if places is not None and len(places):
            on[row] = cells_on_target(cells[row : row + 1], places)[0]
    return on
