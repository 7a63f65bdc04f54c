"""Encoders: crops → feature maps (fine to coarse) and one vector per crop."""

from itertools import pairwise
from typing import Any, NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor, nn

from hiresattn.errors import BackendMissingError, ConfigError


class Encoded(NamedTuple):
    """What an encoder saw."""

    stages: tuple[Tensor, ...]
    """Feature maps, fine → coarse, each ``[n c_s h_s w_s]``."""
    features: Float[Tensor, "n d"]
    """One vector per crop."""


class SmallEncoder(nn.Module):
    """Four convolutions with group normalisation: trains on a laptop's CPU in minutes.

    Args:
        channels: Bands of a crop.
        width: Channels of the first stage; later stages have 2, 4 and 4 times as many.
    """

    def __init__(self, *, channels: int, width: int = 16) -> None:
        super().__init__()
        sides = [channels, width, 2 * width, 4 * width, 4 * width]
        kernels, strides = (5, 3, 3, 3), (2, 2, 2, 1)
        self.layers = nn.ModuleList(
            nn.Sequential(
                nn.Conv2d(inside, outside, kernel, stride=stride, padding=kernel // 2, bias=False),
                nn.GroupNorm(8, outside),
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
        for layer in self.layers:
            x = layer(x)
            stages.append(x)
        return Encoded(tuple(stages), torch.cat([x.mean((2, 3)), x.amax((2, 3))], 1))


class TimmEncoder(nn.Module):
    """Any timm backbone that hands out its intermediate maps.

    Args:
        name: timm's name, such as ``efficientnet_b0`` or ``hf-hub:owner/name``.
        channels: Bands of a crop.
        pretrained: Load timm's pretrained weights (needs the network, or a filled cache).
        weights: Local weights file (safetensors) in place of a download.

    Raises:
        ConfigError: If timm does not know the name, or the backbone has no intermediate maps.
        BackendMissingError: If timm can't be imported.
    """

    def __init__(
        self, name: str, *, channels: int, pretrained: bool = False, weights: str | None = None
    ) -> None:
        super().__init__()
        try:
            import timm
        except (ImportError, RuntimeError) as error:
            raise BackendMissingError(
                f"encoder {name!r} needs timm and a torchvision that fits torch: {error}; "
                "install both with `pip install -c constraints.txt timm torchvision`"
            ) from error
        overlay = {"file": weights} if weights else None
        self.body: Any
        try:
            self.body = timm.create_model(
                name,
                in_chans=channels,
                num_classes=0,
                pretrained=pretrained or weights is not None,
                pretrained_cfg_overlay=overlay,
            )
        except Exception as error:
            near = timm.list_models(f"*{name.split('.', 1)[0][:6]}*")[:5]
            hint = f"; similar names: {', '.join(near)}" if near else ""
            raise ConfigError(f"encoder {name!r}: {error}{hint}") from error
        if not hasattr(self.body, "forward_intermediates"):
            raise ConfigError(
                f"encoder {name!r} has no intermediate maps in this timm; choose another backbone"
            )
        self.stage_channels = tuple(stage["num_chs"] for stage in self.body.feature_info)
        self.feature_width = int(self.body.head_hidden_size)

    def forward(self, crops: Float[Tensor, "n c s s"]) -> Encoded:
        """Encode crops; the vector is what the backbone's classifier would get."""
        last, stages = self.body.forward_intermediates(crops)
        return Encoded(tuple(stages), self.body.forward_head(last, pre_logits=True))


def build_encoder(
    name: str, *, channels: int, pretrained: bool = False, weights: str | None = None
) -> SmallEncoder | TimmEncoder:
    """The encoder of a name: ``small``, or a timm backbone; see ``TimmEncoder``."""
    if name == "small":
        if pretrained or weights:
            raise ConfigError("the small encoder has no pretrained weights; choose a timm backbone for those")
        return SmallEncoder(channels=channels)
    return TimmEncoder(name, channels=channels, pretrained=pretrained, weights=weights)
