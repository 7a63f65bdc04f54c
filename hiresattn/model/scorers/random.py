"""The random scorer, a control."""

import torch

from hiresattn.model.scorers.base import Scored, Scorer, ScorerInput


class RandomScorer(Scorer):
    """Random logits: the baseline for learned scorers.

    Args:
        grid: Cells along a side.
        seed: Of its own generator.
    """

    def __init__(self, *, grid: int, seed: int = 0) -> None:
        super().__init__()
        self.grid = grid
        self.generator = torch.Generator().manual_seed(seed)

    def forward(self, given: ScorerInput) -> Scored:
        """Independent Gumbel noise, so that a softmax of it has no preferred cell."""
        shape = (len(given.features), self.grid, self.grid)
        noise = torch.empty(shape).exponential_(generator=self.generator)
        return Scored(-noise.log().to(given.features.device))
