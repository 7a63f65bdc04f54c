"""Positional encoding: where a glimpse was."""

import math

import torch
from jaxtyping import Float
from torch import Tensor, nn


class PositionalEncoding(nn.Module):
    """Sines and cosines of a location, through a linear layer that starts at zero; to be added to a feature.

    Args:
        width: Width of a feature.
        octaves: Frequencies per coordinate: 1, 2, 4 … half turns over the frame; one per coordinate of
            zoom, 1/8 turn per doubling.

    Source:
        TNet, positional encoding module; differs: shares of the frame in place of path indices (see
        ``geometry.locations``), added in place of concatenated, zero at the start.
    """

    rates: Tensor

    def __init__(self, *, width: int, octaves: int = 4) -> None:
        super().__init__()
        rates = math.pi * 2.0 ** torch.arange(octaves)
        self.register_buffer("rates", rates, persistent=False)
        self.project = nn.Linear(4 * octaves + 2, width)
        nn.init.zeros_(self.project.weight)
        nn.init.zeros_(self.project.bias)

    def forward(self, locations: Float[Tensor, "n 3"]) -> Float[Tensor, "n d"]:
        """Encode (y, x, log2 zoom)."""
        turns = (locations[:, :2, None] * self.rates).flatten(1)
        zoom = locations[:, 2:] * (math.pi / 4)
        return self.project(torch.cat([turns.sin(), turns.cos(), zoom.sin(), zoom.cos()], 1))
