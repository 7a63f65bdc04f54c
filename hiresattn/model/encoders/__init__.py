"""Encoders: crops → feature maps (fine to coarse) and one vector per crop."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

from torch import nn

from hiresattn.config import InputConfig
from hiresattn.errors import ConfigError
from hiresattn.model.encoders.backbone import TimmEncoder
from hiresattn.model.encoders.bagnet import BagNet77
from hiresattn.model.encoders.base import Encoded, OwnEncoder
from hiresattn.model.encoders.names import timm_spec
from hiresattn.model.encoders.small import SmallEncoder
from hiresattn.model.encoders.spec import ANY_SIZE, EncoderSpec, encoder_words
from hiresattn.model.encoders.weights import sha256_of

__all__ = [
    "BagNet77",
    "Encoded",
    "EncoderSpec",
    "LoadedEncoder",
    "OwnEncoder",
    "SmallEncoder",
    "TimmEncoder",
    "build_encoder",
    "encoder_words",
    "find_encoder",
    "is_registered",
    "load_encoder",
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


def is_registered(name: str) -> bool:
    """Whether the name was given to ``register_encoder``; such an encoder may have trained weights from the start."""
    return name in _REGISTERED


def find_encoder(name: str, *, pretrained: bool = False) -> EncoderSpec:
    """What the name of an encoder stands for. Fetches from the hub if the name, or ``pretrained``, asks for it.

    Args:
        name: A built-in or registered encoder; a backbone of timm; ``hf-hub:owner/name``; ``local-dir:FOLDER``, a
            folder in timm's format; ``FILE.safetensors`` beside a ``config.json``; ``ARCHITECTURE:FILE.safetensors``.
        pretrained: Start a backbone of timm from its published weights; the last four always start from theirs.

    Raises:
        ConfigError: If there is no such encoder, or it has no pretrained weights.
        NotFoundError: If a file or repository isn't there, or can't be reached.
        BackendMissingError: If timm is needed and can't be imported.
    """
    if name not in _BUILT_IN and name not in _REGISTERED:
        return timm_spec(name, pretrained=pretrained)
    if pretrained:
        raise ConfigError(f"the encoder {name} has no pretrained weights; choose a timm backbone for those")
    return EncoderSpec(name, name)


def build_encoder(
    name: str,
    *,
    channels: int,
    size: int | None = None,
    args: Mapping[str, Any] | None = None,
    start: EncoderSpec | None = None,
    drop: float = 0.0,
) -> Any:
    """Build an encoder, with fresh weights or those that ``find_encoder`` found.

    Args:
        name: ``small`` (for crops of 64 px), ``small-6`` (128 px), ``small-bn``, ``small-6-bn`` (the same with batch
            in place of group normalisation), ``bagnet77``, a registered name, or an architecture of timm.
        channels: Bands of a crop.
        size: Side of a crop, px; None = 64 for registered encoders, else not checked.
        args: Arguments of an architecture of timm.
        start: Where the weights come from; None = fresh ones.
        drop: Largest share of blocks (timm) or of channels (``bagnet77``) left out in training.

    Raises:
        ConfigError: If the name is unknown, or the encoder has no such option or can't take such crops.
        HiresattnError: If its weights can't be read.
    """
    if name not in _BUILT_IN and name not in _REGISTERED:
        return TimmEncoder(name, channels=channels, size=size, args=args, start=start, drop=drop)
    if args:
        raise ConfigError(f"the encoder {name} takes no arguments; got {dict(args)}")
    if name == "bagnet77":
        return BagNet77(channels=channels, drop=drop)
    if drop:
        raise ConfigError(f"encoder_drop is not for the encoder {name!r}; set it to 0")
    if name in _REGISTERED:
        return OwnEncoder(name, _REGISTERED[name](channels), channels=channels, size=size or ANY_SIZE)
    more, norm = _SMALL[name]
    return SmallEncoder(channels=channels, more=more, norm=norm)


@dataclass(frozen=True, eq=False)
class LoadedEncoder:
    """An encoder without a model: what computes features, and how its input is made."""

    module: Any
    """Crops ``[n c s s]``, float32, scaled as ``input`` says → ``Encoded``. On the CPU, in evaluation mode, without
    gradients. ``feature_width`` is the width of its vectors."""
    spec: EncoderSpec
    """What it is, with the licence of its weights."""
    input: InputConfig
    """How px become its input."""

    @cached_property
    def sha256(self) -> str:
        """Of its weights: encoders that have it in common compute the same features of the same input."""
        return sha256_of(self.module)


def load_encoder(name: str, *, bands: Sequence[int] = (1, 2, 3), size: int | None = None) -> LoadedEncoder:
    """Load a pretrained encoder by itself.

    Args:
        name: As for ``find_encoder``; a backbone of timm has its published weights.
        bands: Bands of the images that it is for, counted from 1. Where their number isn't the encoder's, the weights
            of its first layer are repeated or summed.
        size: Side of a crop, px; None = the encoder's own.

    Returns:
        The encoder. Its ``input`` has the mean and standard deviation that it was trained with; a registered
        encoder's the whole range of uint8, as it may have weights of its own.

    Raises:
        ConfigError: If there is no such encoder, it has no trained weights, or can't take such crops.
        HiresattnError: If it can't be fetched or read.

    Examples:
        >>> encoder = load_encoder("local-dir:encoders/uni")
        >>> features = encoder.module(crops).features
    """
    if name in _BUILT_IN:
        raise ConfigError(
            f"the encoder {name!r} has no weights until a model is trained; name a pretrained one, or use a model"
        )
    spec = find_encoder(name, pretrained=name not in _REGISTERED)
    taken = tuple(band - 1 for band in bands)
    rule = InputConfig(spec.size, taken, (0.0,) * len(taken), (255.0,) * len(taken))
    if spec.trained:
        low, high = spec.value_range(len(taken))
        rule = replace(rule, low=low, high=high)
    rule = replace(rule, size=size or spec.size)
    module = build_encoder(
        spec.architecture,
        channels=len(taken),
        size=rule.size,
        args=spec.args,
        start=spec if spec.trained else None,
    )
    module.requires_grad_(requires_grad=False).eval()
    return LoadedEncoder(module, spec, rule)
