"""Selectors: logits of a region's cells → the cells to visit, and their log-probability."""

from collections.abc import Callable
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from hiresattn.shapes import Bool, Float, Int64


class Selection(NamedTuple):
    """Chosen cells of ``n`` regions, best first."""

    cell: Int64[Tensor, "n k"]
    """Index into the region's cells."""
    log_prob: Float[Tensor, "n k"]
    """Log of the cell's softmax probability within its region; carries gradient to the scores."""
    valid: Bool[Tensor, "n k"]
    """False where a region had fewer cells to choose from."""


#: ``select(logits [n cells], k, cells [n cells 4], image [n])`` → up to ``k`` cells of each region.
Selector = Callable[[Tensor, int, Tensor, np.ndarray], Selection]


class TopK:
    """The best cells; with ``nms`` below 1, none that overlaps a better one by more than that (IoU).

    Args:
        nms: Largest intersection over union of two chosen cells of one region; 1 allows any.
    """

    def __init__(self, *, nms: float = 1.0) -> None:
        self.nms = nms

    def __call__(
        self,
        logits: Float[Tensor, "n cells"],
        k: int,
        cells: Int64[Tensor, "n cells 4"],
        image: np.ndarray,  # noqa: ARG002 - for selectors that know the images
    ) -> Selection:
        """Choose by score."""
        return _choose(logits, logits, k, cells, self.nms)


class GumbelTopK:
    """Sampling without replacement, for exploration in training; otherwise as ``TopK``.

    Args:
        generator: Where the noise comes from.
        nms: As for ``TopK``.

    Source:
        Kool, van Hoof, Welling 2019, "Stochastic Beams and Where to Find Them": the k largest of
        logits + Gumbel noise are a sample without replacement from the softmax.
    """

    def __init__(self, generator: torch.Generator, *, nms: float = 1.0) -> None:
        self.generator = generator
        self.nms = nms

    def __call__(
        self,
        logits: Float[Tensor, "n cells"],
        k: int,
        cells: Int64[Tensor, "n cells 4"],
        image: np.ndarray,  # noqa: ARG002 - for selectors that know the images
    ) -> Selection:
        """Choose by score plus noise."""
        noise = torch.empty(logits.shape).exponential_(generator=self.generator).log().neg()
        return _choose(logits, logits.detach() + noise.to(logits), k, cells, self.nms)


class Threshold:
    """The cells whose logit is above a threshold, their gates open; at most ``k``, and at least the best.

    With a generator gates are sampled: each is open, independently, with probability sigmoid(logit - level). The
    log-probability of a choice is that of the softmax all the same, so that cells compete: with the gates' own
    probabilities training would close all of them, since most cells show nothing.

    Args:
        level: Logit above which a gate is open.
        generator: Where the noise comes from; None = no noise.
        nms: As for ``TopK``.
    """

    def __init__(self, level: float, generator: torch.Generator | None = None, *, nms: float = 1.0) -> None:
        self.level = level
        self.generator = generator
        self.nms = nms

    def __call__(
        self,
        logits: Float[Tensor, "n cells"],
        k: int,
        cells: Int64[Tensor, "n cells 4"],
        image: np.ndarray,  # noqa: ARG002 - for selectors that know the images
    ) -> Selection:
        """Choose the best of the open cells; where none is open, the best cell."""
        order = logits.detach() - self.level
        if self.generator is not None:
            noise = torch.rand(logits.shape, generator=self.generator).clamp(1e-6, 1 - 1e-6).logit()
            order = order + noise.to(logits)
        chosen = _choose(logits, order, k, cells, self.nms)
        closed = order.gather(1, chosen.cell) <= 0
        closed[:, :1] = False
        return Selection(chosen.cell, chosen.log_prob, chosen.valid & ~closed)


def selector(gate: float | None, generator: torch.Generator | None = None, *, nms: float = 1.0) -> Selector:
    """The selector for a scorer's logits.

    Args:
        gate: The scorer's ``gate``; None = the ``k`` best cells are chosen.
        generator: For sampling, to explore in training; None = the best.
        nms: As for ``TopK``.
    """
    if gate is not None:
        return Threshold(gate, generator, nms=nms)
    return TopK(nms=nms) if generator is None else GumbelTopK(generator, nms=nms)


def _choose(logits: Tensor, order: Tensor, k: int, cells: Tensor, nms: float) -> Selection:
    k = min(k, logits.shape[1])
    log_prob = logits.log_softmax(1)
    if nms >= 1:
        top = order.topk(k, dim=1)
        chosen, valid = top.indices, top.values.isfinite()
    else:
        left = order.detach().clone()
        picks, oks = [], []
        for _ in range(k):
            best = left.max(1)
            picks.append(best.indices)
            oks.append(best.values.isfinite())
            left = left.masked_fill(_overlap(cells, best.indices) > nms, -torch.inf)
        chosen, valid = torch.stack(picks, 1), torch.stack(oks, 1)
    return Selection(chosen, log_prob.gather(1, chosen), valid)


def _overlap(cells: Tensor, chosen: Tensor) -> Tensor:
    """Intersection over union of each region's cells with its chosen one: ``[n cells]``."""
    one = cells.gather(1, chosen[:, None, None].expand(-1, 1, 4))
    start = torch.maximum(cells[..., :2], one[..., :2])
    stop = torch.minimum(cells[..., :2] + cells[..., 2:], one[..., :2] + one[..., 2:])
    common = (stop - start).clamp(min=0).double().prod(2)
    areas = cells[..., 2:].double().prod(2) + one[..., 2:].double().prod(2)
    return common / (areas - common)
