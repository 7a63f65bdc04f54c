"""Positional encoding: adds where a glimpse was to its feature."""

import math

import torch
from torch import Tensor, nn
from torch.nn import functional

from hiresattn.shapes import Float


class PositionalEncoding(nn.Module):
    """Sines and cosines of a location, through a linear layer that starts at zero, added to the feature.

    Args:
        width: Width of a feature.
        octaves: Frequencies per coordinate: 1, 2, 4 … half turns over the frame; one per coordinate of
            zoom, 1/8 turn per doubling.

    Source:
        TNet, positional encoding module; differs: shares of the frame in place of path indices (see
        ``geometry.locations``), added in place of concatenated, zero at the start.
    """

    #: Whether it encodes a path (``geometry.child_paths``), else a location in the frame (``geometry.locations``).
    by_path = False
    rates: Tensor

    def __init__(self, *, width: int, octaves: int = 4) -> None:
        super().__init__()
        rates = math.pi * 2.0 ** torch.arange(octaves)
        self.register_buffer("rates", rates, persistent=False)
        self.project = nn.Linear(4 * octaves + 2, width)
        nn.init.zeros_(self.project.weight)
        nn.init.zeros_(self.project.bias)

    def forward(
        self, features: Float[Tensor, "n d"], locations: Float[Tensor, "n 3"]
    ) -> Float[Tensor, "n d"]:
        """Features with the encoding of (y, x, log2 zoom)."""
        turns = (locations[:, :2, None] * self.rates).flatten(1)
        zoom = locations[:, 2:] * (math.pi / 4)
        return features + self.project(torch.cat([turns.sin(), turns.cos(), zoom.sin(), zoom.cos()], 1))


class PathSum(nn.Module):
    """The encoded path through a linear layer, added to the feature, swish of the sum.

    Args:
        width: Width of a feature; the encoding has a quarter of it.

    Source:
        TNet, positional encoding module of the fMoW configuration.
    """

    by_path = True

    def __init__(self, *, width: int) -> None:
        super().__init__()
        self.project = nn.Linear(width // 4, width)

    def forward(self, features: Float[Tensor, "n d"], paths: Float[Tensor, "n 3"]) -> Float[Tensor, "n d"]:
        """Features with the encoding of the path (row, column, depth)."""
        return functional.silu(features + self.project(path_code(paths, self.project.in_features)))


class PathConcat(nn.Module):
    """Feature and encoded path, concatenated, through a linear layer.

    Args:
        width: Width of a feature, and of the encoding.

    Source:
        TNet, positional encoding module of the ImageNet configuration: without activation.
    """

    by_path = True

    def __init__(self, *, width: int) -> None:
        super().__init__()
        self.project = nn.Linear(2 * width, width)

    def forward(self, features: Float[Tensor, "n d"], paths: Float[Tensor, "n 3"]) -> Float[Tensor, "n d"]:
        """Features with the encoding of the path (row, column, depth)."""
        return self.project(torch.cat([features, path_code(paths, features.shape[1])], 1))


POSITIONS = {"frame": PositionalEncoding, "path-sum": PathSum, "path-concat": PathConcat}


def path_code(paths: Float[Tensor, "n 3"], width: int) -> Float[Tensor, "n c"]:
    """Sines and cosines of path triplets.

    Args:
        paths: (row, column, depth).
        width: Of the encoding; the rest after six equal blocks is zero.

    Returns:
        Blocks of sines and of cosines of the row, the column and the depth, in this order, at angular
        frequencies from 1 down to 1/100 in equal ratios.

    Source:
        TNet, positional encoding module.
    """
    count = width // 6
    rates = 100.0 ** -(torch.arange(count, device=paths.device) / max(count - 1, 1))
    angles = paths[:, :, None] * rates
    blocks = torch.stack([angles.sin(), angles.cos()], 2).flatten(1)
    return functional.pad(blocks, (0, width - 6 * count))
