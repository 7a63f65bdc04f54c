"""TNet's location module."""

import torch
from torch import Tensor, nn
from torch.nn import functional

from hiresattn.model.scorers.base import Scored, Scorer, View, pool_cells


class LocationScorer(Scorer):
    """Local features in their context, and where the cell lies, → one logit per cell.

    1x1 convolution, squeeze-and-excitation over the grid (this is how context enters), two positional
    channels, 1x1 convolution, 1x1 convolution to one logit.

    Args:
        channels: Channels of the stage that is scored.
        grid: Cells along a side.
        hidden: Width inside.
        stage: Which of the encoder's maps, by index (-1 = the coarsest).
        detach: Stop gradients at the encoder, as the paper does.
        normalize: Divide the logits by their norm over the grid, as the paper does; they then span at most
            sqrt(2), which makes the policy nearly flat. Default: a learned temperature.
        cap: Without ``normalize``, logits stay within plus and minus this: the straight-through gradient
            does not fade for cells that are never sampled, and would drive them to minus infinity.

    Source:
        TNet, location module of the fMoW configuration; differs: temperature in place of the
        normalisation unless ``normalize``.
    """

    def __init__(
        self,
        *,
        channels: int,
        grid: int,
        hidden: int = 64,
        stage: int = -1,
        detach: bool = False,
        normalize: bool = False,
        cap: float = 10.0,
    ) -> None:
        super().__init__()
        self.grid = grid
        self.stage = stage
        self.detach = detach
        self.normalize = normalize
        self.cap = cap
        self.local = nn.Conv2d(channels, hidden, 1)
        self.squeeze = nn.Linear(hidden, hidden // 2)
        self.excite = nn.Linear(hidden // 2, hidden)
        self.axes = nn.Parameter(torch.tensor([[1.0, 1.0], [0.0, 0.0]]))
        self.mix = nn.Conv2d(hidden + 2, hidden, 1)
        self.out = nn.Conv2d(hidden, 1, 1)
        self.log_temperature = None if normalize else nn.Parameter(torch.zeros(()))

    def forward(self, view: View) -> Scored:
        """Score every cell of every region."""
        features = view.stages[self.stage]
        if self.detach:
            features = features.detach()
        x = functional.silu(self.local(pool_cells(features, self.grid, view.fraction)))
        context = torch.sigmoid(self.excite(functional.silu(self.squeeze(x.mean((2, 3))))))
        x = torch.cat([x * context[:, :, None, None], self._positions(len(x))], 1)
        logits = self.out(functional.silu(self.mix(x)))[:, 0]
        if self.log_temperature is not None:
            logits = logits * self.log_temperature.exp()
            return Scored(self.cap * torch.tanh(logits / self.cap))
        return Scored(logits / (logits.flatten(1).norm(dim=1)[:, None, None] + 1e-8))

    def _positions(self, count: int) -> Tensor:
        line = torch.linspace(-1, 1, self.grid, device=self.axes.device)
        rows, columns = (line * self.axes[0, i] + self.axes[1, i] for i in (0, 1))
        planes = torch.stack(
            [rows[:, None].expand(self.grid, self.grid), columns[None].expand(self.grid, self.grid)]
        )
        return planes[None].expand(count, -1, -1, -1)
