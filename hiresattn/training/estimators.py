"""How the task reaches the scores, other than straight through; and what shows that a policy collapsed.

Straight-through needs nothing here: ``GlimpseNet.forward`` multiplies features by exp(lp - stop_gradient(lp)).
The losses of this module want a traversal made with ``gate=False``.
"""

from itertools import combinations
from typing import NamedTuple

import numpy as np
import torch
from jaxtyping import Float, Int64
from torch import Tensor
from torch.nn import functional

from hiresattn.model.traversal import Traversal

#: Keeps the logarithm of a probability finite.
TINY = 1e-10
#: Share of the old baseline that stays after a step.
KEPT = 0.9
#: The baseline before the first step.
FIRST_BASELINE = 0.5


class Published(NamedTuple):
    """The paper's loss and what it moves."""

    loss: Tensor
    baseline: float
    """For the next step."""
    reward: float
    """Share of images that were answered rightly."""


def published_loss(
    traversal: Traversal,
    labels: Int64[Tensor, " b"],
    baseline: float,
    *,
    weight: float = 0.1,
    image_ce: float = 0.3,
    image_reward: float = 0.3,
    depths: int | None = None,
    class_weights: Float[Tensor, " c"] | None = None,
) -> Published:
    """Cross-entropy and REINFORCE, each of the image and of its glimpses, with a running mean as the baseline.

    With c the share of the image's cross-entropy, r that of its reward, w the weight, R rewards (1 if right) and
    b the baseline::

        c mean CE(image) + (1 - c) mean CE(glimpse)
          + w r mean (R(image) - b) * -sum log p(all its choices)
          + w (1 - r) mean (R(glimpse) - b) * -log p(its own choice)

    The means over glimpses end at depth ``depths``; those of rewards leave out depth 0, which wasn't chosen.

    Args:
        traversal: A forward pass with ``gate=False``; the choices are the best cells, or sampled ones.
        labels: Class index per image.
        baseline: b; starts at ``FIRST_BASELINE``.
        weight: w.
        image_ce: c; 1 = without the glimpses' part.
        image_reward: r; 1 = without the glimpses' part.
        depths: Depths whose glimpses have a part of their own, the first look included; None = all.
        class_weights: What each class counts in the cross-entropies; None = all alike.

    Returns:
        The loss, the next baseline (the old one's .9 and .1 of the rewards' mean, weighted by r) and the reward.

    Source:
        TNet, training loss with per-feature regularisation: lambda_f, lambda_c and lambda_r are ``weight``,
        ``image_ce`` and ``image_reward``. Selection of the best cells makes the estimator biased.
    """
    image = torch.from_numpy(traversal.image).to(labels.device)
    depth = torch.from_numpy(traversal.depth).to(labels.device)
    own = labels[image]
    right = rightness(traversal.logits, labels)
    glimpse_right = rightness(traversal.glimpse_logits, own)
    log_prob = (traversal.log_prob.exp() + TINY).log()
    counted = depth < (depths or len(depth))
    chosen = depth > 0
    path = right.new_zeros(len(labels)).index_add(0, image[chosen], log_prob[chosen])
    loss = image_ce * cross_entropy(traversal.logits, labels, class_weights)
    alone = cross_entropy(traversal.glimpse_logits[counted], own[counted], class_weights)
    loss = loss + (1 - image_ce) * alone
    loss = loss + weight * image_reward * ((right - baseline) * -path).mean()
    reward = right.mean()
    if bool((chosen & counted).any()):
        each = ((glimpse_right - baseline) * -log_prob)[chosen & counted]
        loss = loss + weight * (1 - image_reward) * each.mean()
        reward = image_reward * reward + (1 - image_reward) * glimpse_right[chosen].mean()
    return Published(loss, KEPT * baseline + (1 - KEPT) * reward.item(), right.mean().item())


def cross_entropy(
    logits: Float[Tensor, "n c"], labels: Int64[Tensor, "n ..."], weights: Float[Tensor, " c"] | None = None
) -> Tensor:
    """Mean of ``surprise`` over the rows (not divided by the weights' sum)."""
    if weights is None and labels.ndim == 1:
        return functional.cross_entropy(logits, labels)
    return surprise(logits, labels, weights).mean()


def surprise(
    logits: Float[Tensor, "n c"], labels: Int64[Tensor, "n ..."], weights: Float[Tensor, " c"] | None = None
) -> Float[Tensor, " n"]:
    """Cross-entropy of each row; of several labels, the mean of each one's binary cross-entropy.

    Args:
        logits: The answers.
        labels: Class index, -1 = nothing ``[n]``; or of several labels 1 where a row has it, else 0, -1 = nothing
            ``[n c]``.
        weights: What rows of a class count; of several labels, what having one counts against not having it.

    Returns:
        One number per row; 0 where the labels say nothing.
    """
    if labels.ndim == 1:
        rows = functional.cross_entropy(logits, labels, reduction="none", ignore_index=-1)
        return rows if weights is None else rows * weights[labels]
    rows = functional.binary_cross_entropy_with_logits(
        logits, labels.clamp(min=0).to(logits.dtype), reduction="none", pos_weight=weights
    )
    return rows.mean(1) * (labels[:, 0] >= 0)


def rightness(logits: Float[Tensor, "n c"], labels: Int64[Tensor, "n ..."]) -> Float[Tensor, " n"]:
    """1 where an answer is right, else 0; of several labels, the share of them that is."""
    if labels.ndim == 1:
        return (logits.argmax(1) == labels).to(logits.dtype)
    return ((logits >= 0) == (labels > 0)).to(logits.dtype).mean(1)


def leave_one_out_loss(traversal: Traversal, labels: Int64[Tensor, " b"]) -> Tensor | None:
    """REINFORCE for cells sampled without replacement, with the siblings as each other's baseline.

    A chosen cell's reward is the best probability that a glimpse of it or below it gives to the label.

    Args:
        traversal: A forward pass with ``GumbelTopK`` and ``gate=False``.
        labels: Class index per image.

    Returns:
        Mean over the regions that were looked into; its gradient is minus an unbiased estimate of the gradient of
        the expected reward of one cell drawn from a region's softmax. None if no region was looked into.
    """
    reward = rewards(traversal, labels)
    children: dict[int, list[int]] = {}
    for row in np.flatnonzero(traversal.parent >= 0).tolist():
        children.setdefault(int(traversal.parent[row]), []).append(row)
    losses = []
    for count in sorted({len(rows) for rows in children.values()}):
        parents = [parent for parent, rows in children.items() if len(rows) == count]
        rows = np.array([children[parent] for parent in parents])
        at = torch.from_numpy(rows)
        logits = traversal.cell_logits[torch.tensor(parents)]
        cells = torch.from_numpy(traversal.cell[rows]).to(logits.device)
        losses.append(set_loss(logits, cells, torch.from_numpy(reward).to(logits)[at]))
    return torch.cat(losses).mean() if losses else None


def rewards(traversal: Traversal, labels: Int64[Tensor, " b"]) -> Float[np.ndarray, " N"]:
    """The best probability that each glimpse, or one below it, gives to its image's label; see ``told_right``."""
    best, counts = told_right(traversal, labels)
    for row in range(len(best) - 1, -1, -1):  # children come after their parent
        if traversal.parent[row] >= 0:
            parent = traversal.parent[row]
            best[parent] = np.maximum(best[parent], best[row])
    return (best * counts).sum(1) / counts.sum(1)


def told_right(
    traversal: Traversal, labels: Int64[Tensor, "b ..."]
) -> tuple[Float[np.ndarray, "N c"], Float[np.ndarray, "N c"]]:
    """The probability that each glimpse gives to what is right of each class, and which classes count.

    That of the label; of several, each one's. Labels that an image doesn't have count only where it has none at all:
    mostly they are easy, and are not what a closer look is for.
    """
    own = labels[torch.from_numpy(traversal.image).to(labels.device)]
    logits = traversal.glimpse_logits.detach()
    if own.ndim == 1:
        right, counts = logits.softmax(1), functional.one_hot(own.clamp(min=0), logits.shape[1])
    else:
        none = own.sum(1, keepdim=True) == 0
        right = torch.where(none, -logits, logits).sigmoid()
        counts = torch.where(none, torch.ones_like(own), own)
    return right.cpu().numpy(), counts.cpu().numpy().astype(np.float32)


def set_loss(
    logits: Float[Tensor, "n cells"], chosen: Int64[Tensor, "n k"], reward: Float[Tensor, "n k"]
) -> Float[Tensor, " n"]:
    """Policy gradient of sets sampled without replacement.

    Args:
        logits: Of the cells; minus infinity where there are none to choose.
        chosen: The sampled cells, in any order.
        reward: Of each; a constant.

    Returns:
        Per row, what has minus the estimate as its gradient. A single cell has the mean reward of the other
        rows' for its baseline.

    Source:
        Kool, van Hoof, Welling 2020, "Estimating Gradients for Discrete Random Variables by Sampling without
        Replacement", the unordered set estimator with the built-in baseline.
    """
    count = chosen.shape[1]
    prob = logits.softmax(1).gather(1, chosen)
    exact, worth = prob.detach().double(), reward.detach().double()
    if count == 1:
        others = (worth.sum() - worth) / max(len(worth) - 1, 1) if len(worth) > 1 else torch.zeros_like(worth)
        return -(prob * ((worth - others) / exact).to(prob))[:, 0]
    everything = frozenset(range(count))
    all_prob = _drawn_first(exact, everything, frozenset())
    total = torch.zeros_like(logits[:, 0])
    for one in range(count):
        rest = _drawn_first(exact, everything - {one}, frozenset({one}))
        baseline = exact[:, one] * worth[:, one]
        for other in everything - {one}:
            gone = frozenset({one, other})
            ratio = _drawn_first(exact, everything - gone, gone) / rest
            baseline = baseline + exact[:, other] * ratio * worth[:, other]
        total = total - prob[:, one] * (rest / all_prob * (worth[:, one] - baseline)).to(prob)
    return total


def _drawn_first(prob: Tensor, wanted: frozenset[int], gone: frozenset[int]) -> Tensor:
    """Chance ``[n]`` that the first cells drawn are those of ``wanted``, in any order, once ``gone`` are gone.

    Summed over which is last, for ever larger subsets: every term is positive, so nothing cancels.
    """
    left = 1 - prob[:, sorted(gone)].sum(1)
    chance = {frozenset[int](): torch.ones_like(left)}
    for size in range(1, len(wanted) + 1):
        for members in combinations(sorted(wanted), size):
            subset = frozenset(members)
            chance[subset] = torch.stack(
                [
                    chance[subset - {last}] * prob[:, last] / _above_zero(left - _sum(prob, subset - {last}))
                    for last in members
                ]
            ).sum(0)
    return chance[wanted]


def _sum(prob: Tensor, members: frozenset[int]) -> Tensor:
    return prob[:, sorted(members)].sum(1)


def _above_zero(share: Tensor) -> Tensor:
    return share.clamp(min=1e-12)


class Choices(NamedTuple):
    """How varied the choices of a batch are; the first three fall when a policy collapses."""

    entropy: float
    """Mean entropy of the cells' probabilities within a region, as a share of the largest possible."""
    spread: float
    """Entropy of which cells were chosen over the whole batch, as a share of the largest possible: near 0 if
    every image is looked at in the same place."""
    distinct: float
    """Share of an image's chosen regions that differ from each other, mean over images."""
    open: float
    """Share of a region's cells whose gate is open; 1 without gates. Near 0 or at 1 when a mask collapses."""


def choices(traversal: Traversal, gate: float | None = None) -> Choices | None:
    """Measure how varied the choices of a forward pass are; None if nothing was chosen. ``gate`` is the scorer's."""
    rows = np.flatnonzero(traversal.parent >= 0)
    if not len(rows):
        return None
    logits = traversal.cell_logits.detach()[torch.from_numpy(np.unique(traversal.parent[rows]))]
    usable = logits.isfinite()
    log_p = logits.log_softmax(1)
    entropy = -(log_p.exp() * log_p.masked_fill(~usable, 0)).sum(1)
    entropy = entropy / usable.sum(1).clamp(min=2).log()
    share = np.bincount(traversal.cell[rows], minlength=logits.shape[1]) / len(rows)
    spread = -np.sum(share * np.log(share, where=share > 0, out=np.zeros_like(share)))
    distinct = []
    for index in np.unique(traversal.image[rows]):
        mine = traversal.region[rows][traversal.image[rows] == index]
        distinct.append(len(np.unique(mine, axis=0)) / len(mine))
    return Choices(
        entropy=float(entropy.mean()),
        spread=float(spread / np.log(max(len(share), 2))),
        distinct=float(np.mean(distinct)),
        open=1.0 if gate is None else float((logits > gate).float().mean()),
    )
