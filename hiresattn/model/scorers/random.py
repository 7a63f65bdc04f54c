"""The control: look anywhere."""

import torch

from hiresattn.model.scorers.base import Scored, Scorer, View


class RandomScorer(Scorer):
    """Random logits: what any learned scorer has to beat.

    Args:
        grid: Cells along a side.
        seed: Of its own generator.
    """

    def __init__(self, *, grid: int, seed: int = 0) -> None:
        super().__init__()
        self.grid = grid
        self.generator = torch.Generator().manual_seed(seed)

    def forward(self, view: View) -> Scored:
        """Independent Gumbel noise, so that a softmax of it has no preferred cell."""
        shape = (len(view.features), self.grid, self.grid)
        noise = torch.empty(shape).exponential_(generator=self.generator)
        return Scored(-noise.log().to(view.features.device))
