"""timm backbones as encoders."""

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn

from hiresattn.errors import ConfigError, reason
from hiresattn.model.encoders.base import Encoded
from hiresattn.model.encoders.spec import EncoderSpec, checked_args, import_timm
from hiresattn.model.encoders.weights import misfit, read_weights
from hiresattn.model.hub import hub_error
from hiresattn.shapes import Float

#: Maps of an encoder whose maps all have the same side, such as a vision transformer's blocks.
SAME_SIDE = 4
#: Layers that an argument can name.
_LAYERS = ("Mlp", "GluMlp", "SwiGLU", "SwiGLUPacked")


class TimmEncoder(nn.Module):
    """Any timm backbone that can return its intermediate maps.

    Args:
        architecture: timm's name, such as ``efficientnet_b0``.
        channels: Bands of a crop.
        size: Side of a crop, px; None = not checked, and the architecture's own where that is built in.
        args: Arguments of the architecture, for timm.
        start: Where its weights come from; None = fresh ones.
        drop: Stochastic depth: probability that training skips the last block; that of earlier blocks grows
            linearly from the first.

    EfficientNets return the map of the stem and of every block stage; vision transformers those of four blocks. Those
    whose name begins with ``tf_`` are TensorFlow's: SAME padding, batch normalisation with momentum 0.01.

    A crop's vector is the input of the backbone's classifier. A transformer that leaves pooling to its user
    (``global_pool=""``) gives its class token, followed by the mean of its patch tokens; registers are left out.

    Raises:
        ConfigError: If timm does not know the architecture, it has no intermediate maps or can't take such crops, or
            the weights are of another one.
        CheckpointError: If the weights can't be read.
        NotFoundError: If published weights can't be fetched.
        BackendMissingError: If timm can't be imported.
    """

    def __init__(
        self,
        architecture: str,
        *,
        channels: int,
        size: int | None = None,
        args: Mapping[str, Any] | None = None,
        start: EncoderSpec | None = None,
        drop: float = 0.0,
    ) -> None:
        super().__init__()
        timm = import_timm(architecture)
        self.name = architecture if start is None else start.name
        args = checked_args(args or {}, f"encoder {self.name!r}")
        if not timm.is_model(architecture):
            raise ConfigError(
                f"no encoder {architecture!r} in timm {timm.__version__}; upgrade timm, or for one of your own call "
                f"hiresattn.register_encoder({architecture!r}, build) first"
            )
        if size is not None and _has_fixed_input(timm, architecture, args):
            args["img_size"] = size
        more: dict[str, Any] = {"drop_path_rate": drop} if drop else {}
        if architecture.startswith("tf_efficientnet"):
            more["bn_momentum"] = 0.01
        self.body: Any
        self.body = _created(timm, architecture, {**args, **more, "in_chans": channels}, start, size)
        if not hasattr(self.body, "forward_intermediates"):
            raise ConfigError(
                f"encoder {self.name!r} has no intermediate maps in this timm; choose another backbone"
            )
        info: list[dict[str, Any]] = list(self.body.feature_info)
        self._more: dict[str, Any] = {}
        if isinstance(self.body, timm.models.EfficientNet):
            self._more = {"extra_blocks": True}
            self.stage_channels = _block_channels(self.body)
            _drop_blocks(self.body, drop)
        else:
            if len(info) > SAME_SIDE and len({stage["reduction"] for stage in info}) == 1:
                taken = [(number + 1) * len(info) // SAME_SIDE - 1 for number in range(SAME_SIDE)]
                self._more = {"indices": taken, "norm": True}
                info = [info[number] for number in taken]
            self.stage_channels = tuple(stage["num_chs"] for stage in info)
        self.feature_width = int(self.body.head_hidden_size)
        if size is not None:
            self._check_crop(channels, size)

    def forward(self, crops: Float[Tensor, "n c s s"]) -> Encoded:
        """Encode crops."""
        last, stages = self.body.forward_intermediates(crops, **self._more)
        features = self.body.forward_head(last, pre_logits=True)
        if features.ndim == 3:
            prefix = int(getattr(self.body, "num_prefix_tokens", 0))
            pooled = features[:, prefix:].mean(1)
            features = torch.cat([features[:, 0], pooled], 1) if prefix else pooled
        elif features.ndim == 4:
            last_axis = features.shape[1] != self.body.num_features
            features = features.mean((1, 2) if last_axis else (2, 3))
        return Encoded(tuple(stages), features)

    def _check_crop(self, channels: int, size: int) -> None:
        """Encode a crop on the meta device, which computes shapes only: does it fit, and how wide is the output?"""
        first = getattr(self.body, "patch_embed", None) or getattr(self.body, "stem", None)
        patch = getattr(first, "patch_size", None)
        side = max(patch) if isinstance(patch, (tuple, list)) else patch
        if isinstance(side, int) and size % side:
            raise ConfigError(
                f"the encoder {self.name!r} can't take crops of {size} px: their side must be a multiple of its "
                f"patches' {side} px; give another crop_size, or none to take the encoder's own"
            )
        meta = {
            name: value.detach().to("meta")
            for name, value in [*self.named_parameters(), *self.named_buffers()]
        }
        training = self.training
        try:
            with torch.no_grad():
                crop = torch.empty((1, channels, size, size), device="meta")
                encoded = torch.func.functional_call(self.eval(), meta, (crop,))
        except (RuntimeError, ValueError, AssertionError, TypeError, IndexError) as error:
            if isinstance(error, NotImplementedError) or "meta tensor" in str(error):
                return  # an operation that needs values
            raise _unfit(self.name, size, error) from error
        finally:
            self.train(training)
        self.feature_width = int(encoded.features.shape[1])
        self.stage_channels = tuple(stage.shape[1] for stage in encoded.stages)


def _created(
    timm: Any, architecture: str, args: dict[str, Any], start: EncoderSpec | None, size: int | None
) -> nn.Module:
    """The backbone, with its weights."""
    args = {name: _layer(timm, value) if name.endswith("_layer") else value for name, value in args.items()}
    asked = architecture if start is None else start.name
    overlay = _weights(timm, architecture, start)
    try:
        body: nn.Module = timm.create_model(
            start.name if start is not None and start.published else architecture,
            num_classes=0,
            pretrained=start is not None and start.trained,
            pretrained_cfg_overlay=overlay,
            **args,
        )
    except MemoryError:
        raise
    except Exception as error:
        if overlay and not isinstance(error, (TypeError, AssertionError, ValueError)):
            raise ConfigError(
                f"{asked}: its weights aren't those of {architecture}; name the right architecture, or give its "
                f"arguments as model_args in config.json ({misfit(error)})"
            ) from error
        if start is not None and start.published and start.weights is None:
            raise hub_error(asked, asked, error) from error
        if size is not None and isinstance(error, (RuntimeError, ValueError, AssertionError)):
            raise _unfit(asked, size, error) from error
        raise ConfigError(f"encoder {asked!r} can't be built with {args}: {reason(error)}") from error
    return body


def _weights(timm: Any, architecture: str, start: EncoderSpec | None) -> dict[str, Any] | None:
    """What timm takes weights from, in place of what it knows of the architecture; None = it looks for them itself."""
    if start is None or start.weights is None:
        return None
    state = read_weights(start.weights)
    if start.published:  # timm knows what its own weights lack
        return {"state_dict": state, "custom_load": False}
    about = timm.get_pretrained_cfg(architecture)
    heads = (about and about.classifier) or ()
    heads = tuple(f"{head}." for head in ([heads] if isinstance(heads, str) else heads))
    return {
        "state_dict": {key: value for key, value in state.items() if not key.startswith(heads)},
        "custom_load": False,
        "num_classes": 0,  # so that timm asks for every weight
        "label_offset": 0,
        "input_size": (len(start.mean or ()), start.size, start.size),
    }


def _unfit(name: str, size: int, error: Exception) -> ConfigError:
    return ConfigError(
        f"the encoder {name!r} can't take crops of {size} px ({reason(error)}); give another crop_size, or none to "
        "take the encoder's own"
    )


def _has_fixed_input(timm: Any, architecture: str, args: Mapping[str, Any]) -> bool:
    """Whether the architecture is built for one size of crops."""
    about = timm.get_pretrained_cfg(architecture)
    any_size = args.get("dynamic_img_size") or args.get("use_naflex") or args.get("strict_img_size") is False
    return bool(about and about.fixed_input_size) and not any_size


def _layer(timm: Any, value: Any) -> Any:
    """A layer's class by its name, where timm takes no name."""
    return getattr(timm.layers, value) if value in _LAYERS else value


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
