"""TNet's location modules."""

from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional

from hiresattn.errors import ConfigError
from hiresattn.model.scorers.base import Scored, Scorer, ScorerInput, pool_cells

#: Without normalisation, logits stay within plus and minus this; else the straight-through gradient, which does not
#: fade for cells that are never sampled, would drive theirs to minus infinity.
CAP = 10.0


class _CellScorer(Scorer):
    """Shared by the location modules: the cells' local features, their position, and the range of the logits.

    Args:
        grid: Cells along a side.
        stage: Which of the encoder's maps, by index (-1 = the coarsest).
        units: Rows, and columns, of that map that represent the cells; None = area averages over the cells.
        detach: Stop gradients at the encoder, as the paper does.
        normalize: Divide the logits by their norm over the grid, as the paper does; they then span at most
            sqrt(2), which makes the policy nearly flat. Default: a learned temperature.
    """

    def __init__(
        self,
        *,
        grid: int,
        stage: int = -1,
        units: Sequence[int] | None = None,
        detach: bool = False,
        normalize: bool = False,
    ) -> None:
        super().__init__()
        self.grid = grid
        self.stage = stage
        self.units = None if units is None else list(units)
        self.detach = detach
        self.normalize = normalize
        self.axes = nn.Parameter(torch.tensor([[1.0, 1.0], [0.0, 0.0]]))
        self.log_temperature = None if normalize else nn.Parameter(torch.zeros(()))

    def cell_features(self, given: ScorerInput) -> Tensor:
        """One vector per cell ``[n c grid grid]``."""
        features = given.stages[self.stage]
        if self.detach:
            features = features.detach()
        if self.units is None:
            return pool_cells(features, self.grid, given.fraction)
        if max(self.units) >= min(features.shape[2:]):
            side = "x".join(map(str, features.shape[2:]))
            raise ConfigError(
                f"the cells are rows and columns {self.units} of the encoder's map, which is {side} px for crops "
                "of this size; use larger crops (crop_size), or the preset's own size"
            )
        return features[:, :, self.units][:, :, :, self.units]

    def positions(self, count: int) -> Tensor:
        """Row and column of the cells, -1 to 1, each through a scale and a shift of its own."""
        line = torch.linspace(-1, 1, self.grid, device=self.axes.device)
        rows, columns = (line * self.axes[0, i] + self.axes[1, i] for i in (0, 1))
        planes = torch.stack(
            [rows[:, None].expand(self.grid, self.grid), columns[None].expand(self.grid, self.grid)]
        )
        return planes[None].expand(count, -1, -1, -1)

    def ranged(self, logits: Tensor) -> Scored:
        """Limit logits ``[n grid grid]`` to their range."""
        if self.log_temperature is not None:
            logits = logits * self.log_temperature.exp()
            return Scored(CAP * torch.tanh(logits / CAP))
        return Scored(logits / (logits.flatten(1).norm(dim=1)[:, None, None] + 1e-8))


class LocationScorer(_CellScorer):
    """One logit per cell from its local features, the region's context and the cell's position.

    1x1 convolution, squeeze-and-excitation over the grid (for context), two positional channels, 1x1 convolution,
    1x1 convolution to one logit.

    Args:
        channels: Channels of the stage that is scored.
        grid: Cells along a side.
        hidden: Width inside; None = ``channels``.
        stage: Which of the encoder's maps, by index (-1 = the coarsest).
        units: Rows, and columns, of that map that represent the cells; None = area averages over the cells.
        detach: Stop gradients at the encoder, as the paper does.
        normalize: Divide the logits by their norm over the grid, as the paper does.

    Source:
        TNet, location module of the fMoW configuration; differs: temperature in place of the
        normalisation unless ``normalize``.
    """

    def __init__(
        self,
        *,
        channels: int,
        grid: int,
        hidden: int | None = 64,
        stage: int = -1,
        units: Sequence[int] | None = None,
        detach: bool = False,
        normalize: bool = False,
    ) -> None:
        super().__init__(grid=grid, stage=stage, units=units, detach=detach, normalize=normalize)
        hidden = hidden or channels
        self.local = nn.Conv2d(channels, hidden, 1)
        self.squeeze = nn.Linear(hidden, hidden // 2)
        self.excite = nn.Linear(hidden // 2, hidden)
        self.mix = nn.Conv2d(hidden + 2, hidden, 1)
        self.out = nn.Conv2d(hidden, 1, 1)

    def forward(self, given: ScorerInput) -> Scored:
        """Score every cell of every region."""
        x = functional.silu(self.local(self.cell_features(given)))
        context = torch.sigmoid(self.excite(functional.silu(self.squeeze(x.mean((2, 3))))))
        x = torch.cat([x * context[:, :, None, None], self.positions(x.shape[0])], 1)
        x = functional.silu(self.mix(x))
        return self.ranged(self.out(x)[:, 0])._replace(appearance=x)


class ContextScorer(_CellScorer):
    """One logit per cell from its local features, the region's vector and the cell's position.

    Two 1x1 convolutions with a leaky rectifier (slope 0.2) between them.

    Args:
        channels: Channels of the stage that is scored.
        context: Width of the region's vector.
        grid: Cells along a side.
        hidden: Width inside; None = ``context``.
        stage: Which of the encoder's maps, by index (-1 = the coarsest).
        units: Rows, and columns, of that map that represent the cells; None = area averages over the cells.
        detach: Stop gradients at the encoder, as the paper does.
        normalize: Divide the logits by their norm over the grid, as the paper does.

    Source:
        TNet, location module of the ImageNet configuration; differs as ``LocationScorer``.
    """

    def __init__(
        self,
        *,
        channels: int,
        context: int,
        grid: int,
        hidden: int | None = None,
        stage: int = -1,
        units: Sequence[int] | None = None,
        detach: bool = False,
        normalize: bool = False,
    ) -> None:
        super().__init__(grid=grid, stage=stage, units=units, detach=detach, normalize=normalize)
        hidden = hidden or context
        self.mix = nn.Conv2d(channels + context + 2, hidden, 1)
        self.out = nn.Conv2d(hidden, 1, 1)

    def forward(self, given: ScorerInput) -> Scored:
        """Score every cell of every region."""
        context = given.features.detach() if self.detach else given.features
        tiled = context[:, :, None, None].expand(-1, -1, self.grid, self.grid)
        x = self.mix(torch.cat([self.cell_features(given), tiled, self.positions(context.shape[0])], 1))
        return self.ranged(self.out(functional.leaky_relu(x, 0.2))[:, 0])
