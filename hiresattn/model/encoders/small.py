"""The built-in encoder: small enough to train on a laptop's CPU."""

from itertools import pairwise

import torch
from torch import Tensor, nn

from hiresattn.model.encoders.base import Encoded
from hiresattn.shapes import Float


class SmallEncoder(nn.Module):
    """Four convolutions: trains on a laptop's CPU in minutes.

    Args:
        channels: Bands of a crop.
        width: Channels of the first stage; later stages have 2, 4 and 4 times as many.
        more: Further residual convolutions at the last scale. The receptive field of the last map is
            33 + 16 * ``more`` px of the crop.
        norm: ``group`` normalises each crop on its own, which suits small batches. With ``batch``, features of the
            same content don't depend on the rest of the crop: better where cells are to be compared.
    """

    def __init__(self, *, channels: int, width: int = 16, more: int = 0, norm: str = "group") -> None:
        super().__init__()
        sides = [channels, width, 2 * width, 4 * width, 4 * width, *[4 * width] * more]
        kernels, strides = (5, *(3,) * (3 + more)), (2, 2, 2, *(1,) * (1 + more))
        self.layers = nn.ModuleList(
            nn.Sequential(
                nn.Conv2d(inside, outside, kernel, stride=stride, padding=kernel // 2, bias=False),
                nn.GroupNorm(8, outside) if norm == "group" else nn.BatchNorm2d(outside),
                nn.ReLU(inplace=True),
            )
            for (inside, outside), kernel, stride in zip(pairwise(sides), kernels, strides, strict=True)
        )
        self.stage_channels = tuple(sides[1:])
        self.feature_width = 2 * sides[-1]

    def forward(self, crops: Float[Tensor, "n c s s"]) -> Encoded:
        """Encode crops; the vector is the mean and the maximum of the last map."""
        stages = []
        x = crops
        for number, layer in enumerate(self.layers):
            x = layer(x) if number < 4 else x + layer(x)
            stages.append(x)
        return Encoded(tuple(stages), torch.cat([x.mean((2, 3)), x.amax((2, 3))], 1))
