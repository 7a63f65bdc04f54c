"""An encoder before it is built: an architecture, where its weights are, and the input it was trained with."""

import json
import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from hiresattn.errors import BackendMissingError, ConfigError, counted

#: Side of a crop of encoders that take any, px.
ANY_SIZE = 64
#: Arguments of timm that choose a file, a download or a wrapper; a configuration that was copied may not set them.
_KEPT_BACK = ("pretrained", "checkpoint", "cache", "feature", "out_", "scriptable", "exportable", "no_jit")
#: Arguments that the model's own configuration sets.
_OURS = ("in_chans", "num_classes", "drop_rate", "drop_path_rate")


@dataclass(frozen=True, eq=False)
class EncoderSpec:
    """An encoder that a name stands for, before it is built."""

    name: str
    """As it was asked for."""
    architecture: str
    """The built-in or registered encoder, or timm's name of the architecture."""
    args: Mapping[str, Any] = field(default_factory=dict)
    """Arguments of the architecture, for timm; JSON types."""
    size: int = ANY_SIZE
    """Side of a crop that it was made for, px."""
    mean: tuple[float, ...] | None = None
    """Mean of each band in its training, as a share of the largest value; None = fresh weights."""
    std: tuple[float, ...] | None = None
    """Standard deviation, likewise."""
    weights: Path | None = None
    """File of its weights; None = it has fresh ones, or timm looks for those of its name."""
    published: bool = False
    """Whether it has the weights that timm knows by its name."""
    license: str | None = None
    """Of the weights, as far as its configuration says."""

    @property
    def trained(self) -> bool:
        """Whether it starts from trained weights."""
        return self.published or self.weights is not None

    @property
    def origin(self) -> dict[str, Any]:
        """Where its weights are from, for a model's card."""
        return {"weights": self.name if self.trained else None, "license": self.license}

    def value_range(self, bands: int) -> tuple[tuple[float, ...], tuple[float, ...]]:
        """Values of uint8 that become -1 and +1, so that input is scaled as in the encoder's training.

        Args:
            bands: Number of bands. One band has the encoder's mean statistics; further bands repeat them in order,
                as timm repeats the weights.

        Raises:
            ConfigError: If the encoder has fresh weights.
        """
        if self.mean is None or self.std is None:
            raise ConfigError(
                f"the encoder {self.name!r} has fresh weights, so no range of values of its own"
            )
        mean, std = (_for_bands(values, bands) for values in (self.mean, self.std))
        low, high = (
            tuple(round(255 * (m + sign * s), 4) for m, s in zip(mean, std, strict=True)) for sign in (-1, 1)
        )
        return low, high


def encoder_words(name: str, features: Any, origin: Any) -> str:
    """What a model's encoder is, where its weights were from, their licence, and whether it was frozen.

    Args:
        name: The architecture.
        features: Width of its vectors.
        origin: About its weights, as a model's card has it; None = nothing is known.
    """
    origin = origin if isinstance(origin, Mapping) else {}
    license_ = f" ({origin['license']})" if origin.get("license") else ""
    start = f", started from {origin['weights']}{license_}" if origin.get("weights") else ""
    frozen = ", frozen" if origin.get("frozen") else ""
    return f"{name}{start}{frozen}, {counted(features, 'feature')}"


def import_timm(name: str) -> Any:
    """Import timm.

    Args:
        name: The encoder that needs it, for the message.

    Raises:
        BackendMissingError: If it can't be imported.
    """
    try:
        import timm
    except (ImportError, RuntimeError) as error:
        raise BackendMissingError(
            f"encoder {name!r} needs timm and a torchvision that fits torch: {error}; "
            "install both with `pip install -c constraints.txt timm torchvision`"
        ) from error
    return timm


def checked_args(args: Any, where: str) -> dict[str, Any]:
    """Arguments of an architecture, without those that the model's configuration sets.

    Raises:
        ConfigError: If they aren't JSON types by name, or one of them would choose a file or a download.
    """
    if not isinstance(args, Mapping) or not all(isinstance(name, str) for name in args):
        raise ConfigError(f"{where}: the arguments of an encoder are names and values; got {args!r:.80}")
    for name, value in args.items():
        if name.startswith(_KEPT_BACK):
            raise ConfigError(f"{where}: {name!r} is no argument of an encoder's architecture; leave it out")
        try:
            json.dumps(value, allow_nan=False)
        except (TypeError, ValueError) as error:
            raise ConfigError(
                f"{where}: argument {name!r} of the encoder is not JSON: {value!r:.80}"
            ) from error
    return {name: value for name, value in args.items() if name not in _OURS and value is not None}


def spec_of(
    name: str, architecture: str, about: Mapping[str, Any], args: Mapping[str, Any] | None = None
) -> EncoderSpec:
    """An encoder by timm's description of its weights."""
    args = dict(args or {})
    if about.get("global_pool"):
        args.setdefault("global_pool", about["global_pool"])
    shape = about.get("input_size") or (3, 224, 224)
    if "img_size" in args and "input_size" not in about:
        shape = (3, *(_pair(args["img_size"])))
    if (
        not isinstance(shape, (list, tuple))
        or len(shape) != len("CHW")
        or not all(isinstance(side, int) and side > 0 for side in shape)
        or shape[1] != shape[2]
    ):
        raise ConfigError(f"{name}: it takes input of {shape!r}; crops are square, [bands side side]")
    license_ = about.get("license")
    return EncoderSpec(
        name,
        architecture,
        args,
        size=shape[1],
        license=license_ if isinstance(license_, str) else None,
        **_statistics(about, shape[0], name),
    )


def _statistics(about: Mapping[str, Any], bands: int, name: str) -> dict[str, Any]:
    """Mean and standard deviation of the input, one per band."""
    from timm.data import IMAGENET_DEFAULT_MEAN, IMAGENET_DEFAULT_STD

    found: dict[str, Any] = {}
    for what, default in (("mean", IMAGENET_DEFAULT_MEAN), ("std", IMAGENET_DEFAULT_STD)):
        values = about.get(what) or default
        values = values if isinstance(values, (list, tuple)) else (values,)
        if not all(
            isinstance(v, (int, float)) and math.isfinite(v) and (what == "mean" or v > 0) for v in values
        ):
            raise ConfigError(f"{name}: the {what} of its input is {values!r}, which aren't numbers of use")
        found[what] = _for_bands(tuple(map(float, values)), bands)
    return found


def _for_bands(values: tuple[float, ...], bands: int) -> tuple[float, ...]:
    """One value per band: their mean for a single one, else repeated in order."""
    if bands == 1:
        return (sum(values) / len(values),)
    return tuple(values[number % len(values)] for number in range(bands))


def _pair(size: Any) -> tuple[Any, Any]:
    return tuple(size) if isinstance(size, (list, tuple)) and len(size) == 2 else (size, size)
