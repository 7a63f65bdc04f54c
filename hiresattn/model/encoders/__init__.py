"""Encoders: crops → feature maps (fine to coarse) and one vector per crop."""

from collections.abc import Callable
from typing import Any

from torch import nn

from hiresattn.errors import ConfigError
from hiresattn.model.encoders.backbone import TimmEncoder
from hiresattn.model.encoders.bagnet import BagNet77
from hiresattn.model.encoders.base import Encoded, OwnEncoder
from hiresattn.model.encoders.small import SmallEncoder

__all__ = [
    "BagNet77",
    "Encoded",
    "OwnEncoder",
    "SmallEncoder",
    "TimmEncoder",
    "build_encoder",
    "register_encoder",
]

#: Built-in small encoders: further convolutions of ``SmallEncoder``, and its norm.
_SMALL = {
    "small": (0, "group"),
    "small-6": (2, "group"),
    "small-bn": (0, "batch"),
    "small-6-bn": (2, "batch"),
}
_BUILT_IN = (*_SMALL, "bagnet77")
_REGISTERED: dict[str, Callable[[int], nn.Module]] = {}


def register_encoder(name: str, build: Callable[[int], nn.Module]) -> None:
    """Make an encoder of your own available by name, for training and for loading what was trained with it.

    The module is given crops ``[n c s s]``, float32, values about -1 to 1 (see ``InputConfig``), invalid px 0. It
    returns

    * one feature map ``[n d h w]``, or
    * a list of feature maps from fine to coarse, each ``[n d_i h_i w_i]``, or
    * ``hiresattn.model.encoders.Encoded(stages, features)``: such maps, and one vector per crop ``[n d]``.

    In the first two cases a crop's vector is the spatial mean of the last map. The scorer reads the maps, the
    classifier the vectors. Example::

        hiresattn.register_encoder("mine", lambda channels: MyBackbone(in_channels=channels))
        hiresattn.train("manifest.csv", "model", TrainOptions(encoder="mine"))

    A model directory holds the module's weights but not its code: register the encoder, under the same name,
    before you load the model. Registering a name again replaces it.

    Args:
        name: The name for ``TrainOptions.encoder``. It has precedence over a timm backbone of this name.
        build: ``build(channels)`` → the module with fresh weights; ``channels`` is the number of bands of a crop.

    Raises:
        ConfigError: If the name is that of a built-in encoder, or ``build`` can't be called with the number of bands.
    """
    if not isinstance(name, str) or not name:
        raise ConfigError(f"the name of an encoder is a text; got {name!r}")
    if isinstance(build, nn.Module) or not callable(build):
        raise ConfigError(
            f"register_encoder takes the module's class, or a function that makes one for a number of bands; got "
            f"{type(build).__name__}"
        )
    if name in _BUILT_IN:
        raise ConfigError(f"{name!r} is a built-in encoder; register yours under another name")
    _REGISTERED[name] = build


def build_encoder(
    name: str,
    *,
    channels: int,
    size: int = 64,
    pretrained: bool = False,
    weights: str | None = None,
    drop: float = 0.0,
) -> Any:
    """Build the encoder of a name, with fresh weights.

    Args:
        name: ``small`` (for crops of 64 px), ``small-6`` (128 px), ``small-bn``, ``small-6-bn`` (the same with batch
            in place of group normalisation), ``bagnet77``, a registered name, or a timm backbone's.
        channels: Bands of a crop.
        size: Side of a crop, px; used for registered encoders only.
        pretrained: Load timm's pretrained weights.
        weights: Local weights file (safetensors) for a timm backbone.
        drop: Largest share of blocks (timm) or of channels (``bagnet77``) left out in training.

    Raises:
        ConfigError: If the name is unknown, or the encoder has no such option.
    """
    if name not in _BUILT_IN and name not in _REGISTERED:
        return TimmEncoder(name, channels=channels, pretrained=pretrained, weights=weights, drop=drop)
    if pretrained or weights:
        raise ConfigError(f"the encoder {name} has no pretrained weights; choose a timm backbone for those")
    if name == "bagnet77":
        return BagNet77(channels=channels, drop=drop)
    if drop:
        raise ConfigError(f"encoder_drop is not for the encoder {name!r}; set it to 0")
    if name in _REGISTERED:
        return OwnEncoder(name, _REGISTERED[name](channels), channels=channels, size=size)
    more, norm = _SMALL[name]
    return SmallEncoder(channels=channels, more=more, norm=norm)
