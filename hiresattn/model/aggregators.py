"""Aggregators: an image's glimpses → one vector, or its class logits, and each glimpse's weight."""

import torch
from torch import Tensor, nn

from hiresattn.shapes import Bool, Float, Int64


class GatedAttention(nn.Module):
    """Gated attention pooling.

    Args:
        width: Width of a feature.
        hidden: Width inside.

    Source:
        Ilse, Tomczak, Welling 2018, "Attention-based Deep Multiple Instance Learning", eq. 9.
    """

    def __init__(self, *, width: int, hidden: int = 64) -> None:
        super().__init__()
        self.content = nn.Linear(width, hidden)
        self.gate = nn.Linear(width, hidden)
        self.score = nn.Linear(hidden, 1)

    def forward(
        self, features: Float[Tensor, "n d"], image: Int64[Tensor, " n"], count: int
    ) -> tuple[Float[Tensor, "b d"], Float[Tensor, " n"]]:
        """Pool the glimpses of each of ``count`` images.

        Args:
            features: One row per glimpse.
            image: Index of the glimpse's image, 0 to ``count`` - 1.
            count: Number of images.

        Returns:
            One vector per image, and the weights: they sum to 1 over an image's glimpses.
        """
        weights = _softmax_by_image(self.weight_logits(features), image, count)
        return _sum_by_image(features * weights[:, None], image, count), weights

    def weight_logits(self, features: Float[Tensor, "n d"]) -> Float[Tensor, " n"]:
        """One logit per glimpse; their softmax over an image's glimpses is the weights."""
        return self.score(torch.tanh(self.content(features)) * torch.sigmoid(self.gate(features)))[:, 0]


class MeanPooling(nn.Module):
    """Mean of the glimpses, as in TNet; called as ``GatedAttention``.

    Args:
        width: Unused; for the common interface.
    """

    def __init__(self, *, width: int) -> None:  # noqa: ARG002 - common interface
        super().__init__()

    def forward(
        self, features: Float[Tensor, "n d"], image: Int64[Tensor, " n"], count: int
    ) -> tuple[Float[Tensor, "b d"], Float[Tensor, " n"]]:
        """Average the glimpses of each image."""
        sizes = features.new_zeros(count).index_add(0, image, features.new_ones(len(image)))
        weights = 1 / sizes[image]
        return _sum_by_image(features * weights[:, None], image, count), weights

    def weight_logits(self, features: Float[Tensor, "n d"]) -> Float[Tensor, " n"]:
        """All 0: every glimpse has the same weight."""
        return features.new_zeros(features.shape[0])


def pool_evidence(
    logits: Float[Tensor, "n K"],
    image: Int64[Tensor, " n"],
    voting: Bool[Tensor, " n"],
    count: int,
    background: int,
    log_prior: Float[Tensor, " n"],
) -> tuple[Float[Tensor, "b K"], Float[Tensor, " n"]]:
    """Pool the predictions of single glimpses: the sum of prior x p(glimpse | class) / p(glimpse | background).

    For a class that is visible in one region, all others showing background, that is its posterior odds, up to
    regions that were not visited. For one glimpse with prior 1 it is that glimpse's own prediction.

    Args:
        logits: Class logits of each glimpse alone.
        image: Index of the glimpse's image, 0 to ``count`` - 1.
        voting: Which glimpses are pooled; for an image without any, all of its are.
        count: Number of images.
        background: Index of the background class.
        log_prior: Log-probability, before the visit, that the region contains what decides the class. Its gradient
            is the glimpse's responsibility for the prediction, as in expectation-maximisation.

    Returns:
        Logits per image (0 for the background), and each glimpse's share of the evidence for the likeliest other
        class; shares sum to 1 over an image.
    """
    rows = pooled_rows(voting, image, count)
    ratio = (logits - logits[:, background, None] + log_prior[:, None]).masked_fill(
        ~rows[:, None], -torch.inf
    )
    index = image[:, None].expand_as(ratio)
    top = torch.full((count, ratio.shape[1]), -torch.inf, device=ratio.device)
    top = top.scatter_reduce(0, index, ratio.detach(), "amax")
    mass = (ratio - top[image]).exp()
    total = torch.zeros_like(top).index_add(0, image, mass)
    classes = torch.arange(logits.shape[1], device=logits.device)
    pooled = torch.where(classes == background, 0.0, top + total.log())
    others = pooled.detach().masked_fill(classes == background, -torch.inf)
    best = others.argmax(1)[image, None]
    return pooled, (mass / total[image]).gather(1, best)[:, 0]


def pooled_rows(voting: Bool[Tensor, " n"], image: Int64[Tensor, " n"], count: int) -> Bool[Tensor, " n"]:
    """Which glimpses are pooled: those that vote; of an image without any, all."""
    some = torch.zeros(count, device=image.device).index_add(0, image, voting.float()) > 0
    return voting | ~some[image]


def log_mean_prob(
    log_prob: Float[Tensor, "n K"], weights: Float[Tensor, " n"], image: Int64[Tensor, " n"], count: int
) -> Float[Tensor, "b K"]:
    """Log of the weighted mean of the glimpses' class probabilities, per image.

    Args:
        log_prob: Of each glimpse.
        weights: Sum to 1 over an image's glimpses.
        image: Index of the glimpse's image, 0 to ``count`` - 1.
        count: Number of images.
    """
    return _sum_by_image(log_prob.exp() * weights[:, None], image, count).clamp(min=1e-12).log()


AGGREGATORS = {"attention": GatedAttention, "mean": MeanPooling}


def _softmax_by_image(score: Tensor, image: Tensor, count: int) -> Tensor:
    top = score.new_full((count,), -torch.inf).scatter_reduce(0, image, score.detach(), "amax")
    weight = (score - top[image]).exp()
    total = torch.zeros(count, device=score.device, dtype=score.dtype).index_add(0, image, weight)
    return weight / total[image]


def _sum_by_image(rows: Tensor, image: Tensor, count: int) -> Tensor:
    return rows.new_zeros((count, rows.shape[1])).index_add(0, image, rows)
