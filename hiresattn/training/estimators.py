"""Gradient estimators for the discrete cell choice, other than straight-through, and the cross-entropies they use.

Straight-through needs nothing here: ``GlimpseNet.forward`` multiplies features by exp(lp - stop_gradient(lp)).
The losses of this module need a traversal that was made with ``straight_through=False``.
"""

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

from hiresattn.model.scorers import LossTerm
from hiresattn.model.traversal import Traversal
from hiresattn.shapes import Float, Int64

#: Keeps the logarithm of a probability finite.
TINY = 1e-10
#: Probabilities below this are taken for it where a set's chance is computed.
_LEAST = 1e-100
#: Share of the old baseline that stays after a step.
KEPT = 0.9
#: The baseline before the first step.
FIRST_BASELINE = 0.5


def reinforce_baseline(sums: Sequence[float], baseline: float, image_reward: float) -> float:
    """The next baseline of REINFORCE: the old one's .9 and .1 of the mean reward.

    Args:
        sums: Those of ``reinforce_loss``, over the whole batch.
        baseline: The old one.
        image_reward: As ``reinforce_loss`` takes it.
    """
    images, _, ranked, chosen, right, glimpses_right = sums
    reward = right / images
    if ranked:
        reward = image_reward * reward + (1 - image_reward) * glimpses_right / chosen
    return KEPT * baseline + (1 - KEPT) * reward


def reinforce_loss(
    traversal: Traversal,
    labels: Int64[Tensor, " b"],
    baseline: float,
    *,
    weight: float = 0.1,
    image_ce: float = 0.3,
    image_reward: float = 0.3,
    depths: int | None = None,
    class_weights: Float[Tensor, " c"] | None = None,
) -> LossTerm:
    """Cross-entropy and REINFORCE, each of the image and of its glimpses, with a running mean as the baseline.

    With c the share of the image's cross-entropy, r that of its reward, w the weight, R rewards (1 if right) and
    b the baseline::

        c mean CE(image) + (1 - c) mean CE(glimpse)
          + w r mean (R(image) - b) * -sum log p(all its choices)
          + w (1 - r) mean (R(glimpse) - b) * -log p(its own choice)

    The means over glimpses end at depth ``depths``; those of rewards leave out depth 0, which wasn't chosen.

    Args:
        traversal: A forward pass with ``straight_through=False``; the choices are the best cells, or sampled ones.
        labels: Class index per image.
        baseline: b; starts at ``FIRST_BASELINE``.
        weight: w.
        image_ce: c; 1 = without the glimpses' part.
        image_reward: r; 1 = without the glimpses' part.
        depths: Depths whose glimpses have a part of their own, the root regions included; None = all.
        class_weights: Weight of each class in the cross-entropies; None = all alike.

    Returns:
        The loss. Its sums are the images, the glimpses with a cross-entropy, those with a reward in the loss, those
        that were chosen, the images that are right, and the chosen glimpses that are.

    Source:
        TNet, training loss with per-feature regularisation: lambda_f, lambda_c and lambda_r are ``weight``,
        ``image_ce`` and ``image_reward``. Selection of the best cells makes the estimator biased.
    """
    image = torch.from_numpy(traversal.image).to(labels.device)
    depth = torch.from_numpy(traversal.depth).to(labels.device)
    own = labels[image]
    right = correctness(traversal.logits, labels)
    glimpse_right = correctness(traversal.glimpse_logits, own)
    log_prob = (traversal.log_prob.exp() + TINY).log()
    counted = depth < (depths or len(depth))
    chosen = depth > 0
    path = right.new_zeros(len(labels)).index_add(0, image[chosen], log_prob[chosen])
    of_images = image_ce * cross_entropy(traversal.logits, labels, class_weights)
    of_images = of_images + weight * image_reward * ((right - baseline) * -path).mean()
    alone = cross_entropy(traversal.glimpse_logits[counted], own[counted], class_weights)
    each = ((glimpse_right - baseline) * -log_prob)[chosen & counted]
    facts = (counted.sum(), (chosen & counted).sum(), chosen.sum(), right.sum(), glimpse_right[chosen].sum())
    own_sums = (float(len(labels)), *(float(fact) for fact in facts))

    def share(sums: Sequence[float]) -> Tensor:
        images, glimpses, ranked, *_ = (
            part / max(whole, 1) for part, whole in zip(own_sums, sums, strict=True)
        )
        loss = of_images * images + (1 - image_ce) * alone * glimpses
        if not len(each):
            return loss
        return loss + weight * (1 - image_reward) * each.mean() * ranked

    return LossTerm(own_sums, share)


def cross_entropy(
    logits: Float[Tensor, "n c"], labels: Int64[Tensor, "n ..."], weights: Float[Tensor, " c"] | None = None
) -> Tensor:
    """Mean of ``row_cross_entropy`` over the rows (not divided by the weights' sum)."""
    if weights is None and labels.ndim == 1:
        return functional.cross_entropy(logits, labels)
    return row_cross_entropy(logits, labels, weights).mean()


def row_cross_entropy(
    logits: Float[Tensor, "n c"], labels: Int64[Tensor, "n ..."], weights: Float[Tensor, " c"] | None = None
) -> Float[Tensor, " n"]:
    """Cross-entropy of each row; of several labels, the mean of each one's binary cross-entropy.

    Args:
        logits: Class logits.
        labels: Class index, -1 = not known ``[n]``; or of several labels 1 where a row has it, else 0, -1 = not known
            ``[n c]``.
        weights: Weight of rows of a class; of several labels, of having one against not having it.

    Returns:
        One number per row; 0 where the label is not known.
    """
    if labels.ndim == 1:
        rows = functional.cross_entropy(logits, labels, reduction="none", ignore_index=-1)
        return rows if weights is None else rows * weights[labels]
    rows = functional.binary_cross_entropy_with_logits(
        logits, labels.clamp(min=0).to(logits.dtype), reduction="none", pos_weight=weights
    )
    return rows.mean(1) * (labels[:, 0] >= 0)


def correctness(logits: Float[Tensor, "n c"], labels: Int64[Tensor, "n ..."]) -> Float[Tensor, " n"]:
    """1 where a row is classified correctly, else 0; of several labels, the share of them that is."""
    if labels.ndim == 1:
        return (logits.argmax(1) == labels).to(logits.dtype)
    return ((logits >= 0) == (labels > 0)).to(logits.dtype).mean(1)


def leave_one_out_loss(traversal: Traversal, labels: Int64[Tensor, " b"]) -> LossTerm | None:
    """REINFORCE for cells sampled without replacement, with the siblings as each other's baseline.

    A chosen cell's reward is the best probability that a glimpse of it or below it gives to the label.

    Args:
        traversal: A forward pass with ``GumbelTopK`` and ``straight_through=False``.
        labels: Class index per image.

    Returns:
        Mean over the divided regions; its gradient is minus an unbiased estimate of the gradient of the expected
        reward of one cell drawn from a region's softmax. None if no region was divided. Its sums are these regions,
        those with a single chosen cell, and the reward of these cells.
    """
    reward = rewards(traversal, labels)
    children: dict[int, list[int]] = {}
    for row in np.flatnonzero(traversal.parent >= 0).tolist():
        children.setdefault(int(traversal.parent[row]), []).append(row)
    if not children:
        return None
    sets = []
    for count in sorted({len(rows) for rows in children.values()}):
        parents = [parent for parent, rows in children.items() if len(rows) == count]
        rows = np.array([children[parent] for parent in parents])
        logits = traversal.cell_logits[torch.tensor(parents)]
        cells = torch.from_numpy(traversal.cell[rows]).to(logits.device)
        sets.append((logits, cells, torch.from_numpy(reward[rows]).to(logits)))
    single = [float(reward[rows[0]]) for rows in children.values() if len(rows) == 1]

    def share(sums: Sequence[float]) -> Tensor:
        regions, *of_singles = sums
        losses = [unordered_set_loss(*one, singles=(of_singles[0], of_singles[1])) for one in sets]
        return torch.cat(losses).sum() / regions

    return LossTerm((float(len(children)), float(len(single)), sum(single)), share)


def rewards(traversal: Traversal, labels: Int64[Tensor, " b"]) -> Float[np.ndarray, " N"]:
    """The highest probability that each glimpse, or one below it, gives to its image's label."""
    best, counts = label_probabilities(traversal, labels)
    for row in range(len(best) - 1, -1, -1):  # children come after their parent
        if traversal.parent[row] >= 0:
            parent = traversal.parent[row]
            best[parent] = np.maximum(best[parent], best[row])
    return (best * counts).sum(1) / counts.sum(1)


def label_probabilities(
    traversal: Traversal, labels: Int64[Tensor, "b ..."]
) -> tuple[Float[np.ndarray, "N c"], Float[np.ndarray, "N c"]]:
    """The probability that each glimpse gives to what is true of each class, and which classes count.

    With one label its class counts; with several, each of them. Classes that an image doesn't have count only where
    it has none at all: mostly they are easy, and not what dividing a region is for.
    """
    own = labels[torch.from_numpy(traversal.image).to(labels.device)]
    logits = traversal.glimpse_logits.detach()
    if own.ndim == 1:
        true, counts = logits.softmax(1), functional.one_hot(own.clamp(min=0), logits.shape[1])
    else:
        none = own.sum(1, keepdim=True) == 0
        true = torch.where(none, -logits, logits).sigmoid()
        counts = torch.where(none, torch.ones_like(own), own)
    return true.cpu().numpy(), counts.cpu().numpy().astype(np.float32)


def unordered_set_loss(
    logits: Float[Tensor, "n cells"],
    chosen: Int64[Tensor, "n k"],
    reward: Float[Tensor, "n k"],
    *,
    singles: tuple[float, float] | None = None,
) -> Float[Tensor, " n"]:
    """Policy gradient of sets sampled without replacement.

    Args:
        logits: Of the cells; minus infinity where there are none to choose.
        chosen: The sampled cells, in any order.
        reward: Of each; a constant.
        singles: Number of rows with a single cell, and the sum of their rewards, of all of the batch; None = of this.

    Returns:
        Per row, what has minus the estimate as its gradient. A single cell has the mean reward of the other
        rows' for its baseline.

    Source:
        Kool, van Hoof, Welling 2020, "Estimating Gradients for Discrete Random Variables by Sampling without
        Replacement", the unordered set estimator with the built-in baseline.
    """
    log_prob = logits.log_softmax(1).gather(1, chosen)
    exact, worth = logits.detach().double().softmax(1), reward.detach().double()
    others = exact.scatter(1, chosen, 0).sum(1, keepdim=True)
    exact = exact.gather(1, chosen).clamp(min=_LEAST)
    if chosen.shape[1] == 1:
        count, total = singles or (len(worth), worth.sum())
        share = worth - ((total - worth) / (count - 1) if count > 1 else 0)
    else:
        without_one, without_two = _without(exact / others.clamp(min=_LEAST**2))
        ratio = (
            without_two / without_one[:, :, None]
        )  # [n one other]; on the diagonal the one itself, drawn first
        ratio.diagonal(dim1=1, dim2=2).fill_(1)
        baseline = (ratio * (exact * worth)[:, None]).sum(2)
        share = exact * without_one * (worth - baseline)
    return -(share.to(log_prob) * (log_prob - log_prob.detach()).exp()).sum(1)  # finite for any probability


def _without(odds: Float[Tensor, "n k"]) -> tuple[Float[Tensor, "n k"], Float[Tensor, "n k k"]]:
    """The chance that a set of cells is drawn first once one, or two, of them are gone, over that of the whole set.

    Drawing without replacement by probability p is a race of exponential clocks with rates p. With v the time, in
    units of the mean of the first clock outside the set, a set S is first with probability
    integral of exp(-v) * product over S of (1 - exp(-v * odds)), which is the same function whichever cells are gone.
    The trapezoidal rule on log v is exact to about 1e-11 of the ratio, for any number of cells and any probabilities
    above ``_LEAST``.

    Args:
        odds: Probability of each cell of the set over that of all cells outside it.

    Returns:
        The ratios without one cell, and without two (the diagonal means nothing).
    """
    v = torch.linspace(-28.0, 4.0, 128, dtype=odds.dtype, device=odds.device).exp()
    done = -torch.expm1(-v[:, None] * odds[:, None])  # [n points k]
    log_done = done.log()
    logs = (v.log() - v) + log_done.sum(2)
    whole = (logs - logs.amax(1, keepdim=True)).exp()  # [n points]
    inverse = (-log_done).exp()
    total = whole.sum(1)
    one = torch.einsum("np,npk->nk", whole, inverse) / total[:, None]
    two = torch.einsum("npi,npj->nij", whole[:, :, None] * inverse, inverse) / total[:, None, None]
    return one, two
