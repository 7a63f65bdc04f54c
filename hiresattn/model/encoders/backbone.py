"""timm backbones as encoders."""

from typing import Any

from jaxtyping import Float
from torch import Tensor, nn

from hiresattn.errors import BackendMissingError, ConfigError
from hiresattn.model.encoders.base import Encoded


class TimmEncoder(nn.Module):
    """Any timm backbone that can return its intermediate maps.

    Args:
        name: timm's name, such as ``efficientnet_b0`` or ``hf-hub:owner/name``.
        channels: Bands of a crop.
        pretrained: Load timm's pretrained weights (needs the network, or a filled cache).
        weights: Local weights file (safetensors) in place of a download.
        drop: Stochastic depth: probability that training skips the last block; that of earlier blocks grows
            linearly from the first.

    EfficientNets return the map of the stem and of every block stage. Those whose name begins with ``tf_`` are
    TensorFlow's: SAME padding, batch normalisation with momentum 0.01.

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
            raise ConfigError(
                f"encoder {name!r}: {error}{hint}; for one of your own call "
                f"hiresattn.register_encoder({name!r}, build) first"
            ) from error
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
        """Encode crops; the vector is the input of the backbone's classifier."""
        last, stages = self.body.forward_intermediates(crops, **self._more)
        return Encoded(tuple(stages), self.body.forward_head(last, pre_logits=True))


def _block_channels(body: Any) -> tuple[int, ...]:
    """Output channels of the stem and of the last block of every stage."""
    ends = [body.conv_stem, *(stage[-1] for stage in body.blocks)]
    return tuple([m for m in end.modules() if isinstance(m, nn.Conv2d)][-1].out_channels for end in ends)


def _drop_blocks(body: Any, most: float) -> None:
    """Let block b of n be skipped with probability most * b / n: the paper counts from 1, timm from 0."""
    blocks = [block for stage in body.blocks for block in stage]
    for number, block in enumerate(blocks, 1):
        if hasattr(block.drop_path, "drop_prob"):
            block.drop_path.drop_prob = most * number / len(blocks)
