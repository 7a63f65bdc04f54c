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
    """Four convolutions: trains on a laptop's CPU in minutes.

    Args:
        channels: Bands of a crop.
        width: Channels of the first stage; later stages have 2, 4 and 4 times as many.
        more: Further convolutions at the last scale, each added to what it was given. A px of the last map sees
            33 + 16 * ``more`` px of the crop across.
        norm: ``group`` normalises each crop as a whole, which small batches don't disturb. With ``batch`` a place
            looks the same whatever lies around it: better where places are to be compared.
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


class TimmEncoder(nn.Module):
    """Any timm backbone that hands out its intermediate maps.

    Args:
        name: timm's name, such as ``efficientnet_b0`` or ``hf-hub:owner/name``.
        channels: Bands of a crop.
        pretrained: Load timm's pretrained weights (needs the network, or a filled cache).
        weights: Local weights file (safetensors) in place of a download.
        drop: Stochastic depth: how often training skips the last block; earlier ones less, in proportion.

    EfficientNets hand out the map of every block stage, after that of the stem. Those whose name begins with
    ``tf_`` are TensorFlow's: SAME padding, batch statistics that move by a hundredth.

    Raises:
        ConfigError: If timm does not know the name, or the backbone has no intermediate maps.
        BackendMissingError: If timm can't be imported.
    """

    def __init__(
        self,
        name: str,
        *,
        channels: int,
        pretrained: bool = False,
        weights: str | None = None,
        drop: float = 0.0,
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
        extra: dict[str, Any] = {"drop_path_rate": drop} if drop else {}
        if name.startswith("tf_efficientnet"):
            extra["bn_momentum"] = 0.01
        self.body: Any
        try:
            self.body = timm.create_model(
                name,
                in_chans=channels,
                num_classes=0,
                pretrained=pretrained or weights is not None,
                pretrained_cfg_overlay=overlay,
                **extra,
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
        self._more: dict[str, Any] = {}
        if isinstance(self.body, timm.models.EfficientNet):
            self._more = {"extra_blocks": True}
            self.stage_channels = _block_channels(self.body)
            _drop_blocks(self.body, drop)
        self.feature_width = int(self.body.head_hidden_size)

    def forward(self, crops: Float[Tensor, "n c s s"]) -> Encoded:
        """Encode crops; the vector is what the backbone's classifier would get."""
        last, stages = self.body.forward_intermediates(crops, **self._more)
        return Encoded(tuple(stages), self.body.forward_head(last, pre_logits=True))


#: Built-in encoders: further convolutions of ``SmallEncoder``, and its norm.
_SMALL = {
    "small": (0, "group"),
    "small-6": (2, "group"),
    "small-bn": (0, "batch"),
    "small-6-bn": (2, "batch"),
}


def build_encoder(
    name: str, *, channels: int, pretrained: bool = False, weights: str | None = None, drop: float = 0.0
) -> Any:
    """The encoder of a name: a timm backbone, ``bagnet77``, or ``small`` (for crops of 64 px) and ``small-6`` (128 px).

    ``small-bn`` and ``small-6-bn`` have batch in place of group normalisation.

    Raises:
        ConfigError: If the name is unknown, or the encoder has no such option.
    """
    if name in (*_SMALL, "bagnet77"):
        if pretrained or weights:
            raise ConfigError(
                f"the encoder {name} has no pretrained weights; choose a timm backbone for those"
            )
        if name == "bagnet77":
            from hiresattn.model.bagnet import BagNet77

            return BagNet77(channels=channels, drop=drop)
        if drop:
            raise ConfigError("the small encoder leaves nothing out in training; set encoder_drop to 0")
        more, norm = _SMALL[name]
        return SmallEncoder(channels=channels, more=more, norm=norm)
    return TimmEncoder(name, channels=channels, pretrained=pretrained, weights=weights, drop=drop)


def _block_channels(body: Any) -> tuple[int, ...]:
    """Channels that the stem and the last block of every stage give."""
    ends = [body.conv_stem, *(stage[-1] for stage in body.blocks)]
    return tuple([m for m in end.modules() if isinstance(m, nn.Conv2d)][-1].out_channels for end in ends)


def _drop_blocks(body: Any, most: float) -> None:
    """Let block b of n be skipped with probability most * b / n: the paper counts from 1, timm from 0."""
    blocks = [block for stage in body.blocks for block in stage]
    for number, block in enumerate(blocks, 1):
        if hasattr(block.drop_path, "drop_prob"):
            block.drop_path.drop_prob = most * number / len(blocks)
