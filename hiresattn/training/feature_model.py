"""The model that a head on features becomes: what the features say of it, and what of the options contradicts them."""

import re
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from statistics import median_high
from typing import Any

from torch import nn

from hiresattn.card import CARD, Domain
from hiresattn.checkpoint import Model, load_model
from hiresattn.config import InputConfig, ModelConfig
from hiresattn.errors import CheckpointError, ConfigError
from hiresattn.inference.extract import absolute
from hiresattn.model.build import build_model
from hiresattn.model.encoders import load_encoder
from hiresattn.pyramid.rescaled import SAME
from hiresattn.training.bands import check_bands, named_bands
from hiresattn.training.options import TrainOptions, model_config
from hiresattn.training.presets import RECIPES

#: What features of one model have in common, as far as they say it.
_COMMON = ("encoder_sha256", "asked", "size", "bands", "low", "high", "scaling", "dtype")
#: Options that a head on any features has.
_OF_HEADS: dict[str, Any] = {"architecture": None, "init_from": None, "coarse_encoder": False, "overlap": 0.0}
#: Options that change nothing where no image is read and all regions are seen, with the values that then hold.
_WITHOUT_IMAGES: dict[str, Any] = {
    "position": False,
    "k": (0,),
    "assume_mpp": None,
    "augment": "none",
    "jitter": 0.0,
    "jpeg": 0.0,
    "cutmix": 0.0,
    "epoch_images": None,
    "accumulate": 1,
    "amp": False,
}


def common_facts(facts: Sequence[dict[str, Any]], options: TrainOptions) -> dict[str, Any]:
    """What all features have in common: those of the first image, and ``tissue`` and ``micrometres`` of all.

    ``micrometres`` is the side of a region, µm; None = regions are as large in level-0 px, whatever the images' scales.

    Raises:
        ConfigError: If they are of several encoders or scales, which don't go together.
    """
    first = facts[0]
    names = _COMMON if first.get("encoder_sha256") else ("encoder", *_COMMON)
    for name in names:
        for other in facts:
            if other.get(name) != first.get(name):
                raise ConfigError(
                    f"{other['path']}: its features have {name} {other.get(name)!r}, those of {first['path']} "
                    f"{first.get(name)!r}; extract all alike"
                )
    stated = [one["tissue"] for one in facts if "tissue" in one]
    tissue = any(stated) if stated else options.foreground == "tissue"
    return first | {"tissue": tissue, "micrometres": _common_side(facts)}


def _common_side(facts: Sequence[dict[str, Any]]) -> float | None:
    """Side of a region of all images, µm; None = they have the same in level-0 px."""
    sides = [_micrometres(one) for one in facts]
    known = [side for side in sides if side is not None]
    if len(known) == len(facts) and max(known) <= SAME * min(known):
        return median_high(known)
    first = facts[0]
    for other in facts:
        if other["side"] != first["side"]:
            raise ConfigError(
                f"{other['path']}: its features are of regions of {_side_words(other)}, those of {first['path']} of "
                f"{_side_words(first)}; extract all at one scale, or give the scale of each image in a column mpp"
            )
    return None


def _micrometres(facts: dict[str, Any]) -> float | None:
    """Side of a region, µm; None = it isn't known, or was asked for in px.

    A magnification stands for 10 µm/px over it: 20 for 0.5 µm/px.
    """
    if "asked" in facts:
        scale = _asked_mpp(facts)
        return None if scale is None else scale * facts["size"]
    px, magnification = facts.get("patch_size"), facts.get("target_magnification")
    if not (px and magnification):
        px, magnification = facts["side"], facts.get("level0_magnification")
    if magnification:
        return float(px) * 10 / float(magnification)
    return None if facts.get("mpp") is None else float(facts["side"] * facts["mpp"])


def _asked_mpp(facts: dict[str, Any]) -> float | None:
    """Micrometres per px of a crop that were asked for; None = the side of a region was, in level-0 px."""
    scale = re.fullmatch(r"(\S+) µm/px", str(facts.get("asked", "")))
    return None if scale is None else float(scale[1])


def _side_words(facts: dict[str, Any]) -> str:
    side = _micrometres(facts)
    return f"{facts['side']} level-0 px" + (", of unknown scale" if side is None else f" ({side:g} µm)")


def model_of(
    classes: tuple[str, ...], facts: dict[str, Any], options: TrainOptions, folder: Path
) -> tuple[Model, TrainOptions]:
    """An ordinary model with the encoder of the features, and a fresh head; and the options as they are used.

    Args:
        classes: Names of the classes.
        facts: From ``common_facts``.
        options: As given.
        folder: Of the model, which has its name where the options give none.

    Raises:
        ConfigError: If nothing names the encoder, or the options contradict the features.
        CheckpointError: If the encoder is no longer the one that computed the features.
        HiresattnError: If it can't be loaded.
    """
    name = _encoder_name(facts, options)
    spec: dict[str, Any]
    if (Path(name) / CARD).is_file() or name.startswith("hf:"):
        start = load_model(name)
        state, rule, sha256 = start.net.encoder.state_dict(), start.config.input, start.sha256
        spec = {field: getattr(start.config, field) for field in ("encoder", "encoder_args", "encoder_drop")}
        origin = start.training.get("encoder") or {}
    else:
        count = len(facts.get("bands") or "RGB")
        size = facts.get("size") or options.crop_size
        loaded = load_encoder(name, bands=range(1, count + 1), size=size)
        state, rule, sha256 = loaded.module.state_dict(), loaded.input, loaded.sha256
        spec = {"encoder": loaded.spec.architecture, "encoder_args": dict(loaded.spec.args)}
        origin = loaded.spec.origin
    if facts.get("encoder_sha256") not in (None, sha256):
        if name != facts.get("encoder"):
            raise ConfigError(
                f"encoder={name} didn't compute the features in {options.features} (its weights differ); that was "
                f"{facts.get('encoder')}; leave the option out"
            )
        raise CheckpointError(
            f"{name}: not the encoder that computed the features (its weights differ); extract them anew"
        )
    rule, side = _rule(rule, facts), int(facts["side"])
    if facts["micrometres"] is not None:  # of whatever px an image has, a crop's px are of this size
        mpp = _asked_mpp(facts) or facts["micrometres"] / rule.size
        rule, side = replace(rule, mpp=mpp), rule.size
    used = _used_options(options, rule, side, name)
    config: ModelConfig = replace(model_config(used, classes, rule), **spec)
    net = build_model(config)
    net.encoder.load_state_dict(state)
    net.encoder.requires_grad_(requires_grad=False)
    classifier: Any = net.classifier
    nn.init.zeros_(classifier.weight)  # all regions count alike at first: none is missed by a random start
    nn.init.zeros_(classifier.bias)
    about = {"encoder": {**origin, "frozen": True}}
    return Model(net, config, options.name or folder.resolve().name, "", Domain(), (0,), about), used


def _encoder_name(facts: dict[str, Any], options: TrainOptions) -> str:
    """The encoder that computed the features: as the options name it, else as they do."""
    stated = facts.get("encoder")
    given = None if options.encoder == TrainOptions.encoder else absolute(options.encoder)
    if given is None and stated is None:
        raise ConfigError(
            f"{options.features}: the features don't name the encoder that computed them; name it, such as "
            "encoder=hf-hub:MahmoodLab/UNI"
        )
    if None not in (given, stated) and given != stated and not facts.get("encoder_sha256"):
        raise ConfigError(
            f"encoder={given} didn't compute the features in {options.features}; that was {stated}; leave the option "
            "out"
        )
    return str(given or stated)


def _rule(rule: InputConfig, facts: dict[str, Any]) -> InputConfig:
    """How pixels become input, and where is looked at, as the features were computed."""
    rule = replace(rule, mpp=None, foreground="tissue" if facts["tissue"] else None)
    if "low" not in facts:
        return rule
    bands = tuple(facts["bands"])
    check_bands(bands)
    names = named_bands(bands)
    numbers = tuple(range(len(bands))) if names else tuple(band - 1 for band in bands)
    scaling, count = tuple(map(float, facts.get("scaling") or ())), len(bands)
    return replace(
        rule,
        bands=numbers,
        band_names=names,
        low=tuple(map(float, facts["low"])),
        high=tuple(map(float, facts["high"])),
        scales=scaling[:count] or None,
        offsets=scaling[count:] or None,
        dtype=str(facts.get("dtype", rule.dtype)),
        channels=None if names else rule.channels,
    )


def head_options(options: TrainOptions) -> TrainOptions:
    """Options of a recipe as those of its head on features: without what is for the model that reads images."""
    plain = TrainOptions()
    names = ("root_size", *_OF_HEADS, *_WITHOUT_IMAGES)
    searches = {name: getattr(plain, name) for name in names if name != "init_from"}
    encoder = plain.encoder if options.encoder == RECIPES["distil"].encoder else options.encoder
    return replace(options, encoder=encoder, **searches)


def _used_options(options: TrainOptions, rule: InputConfig, side: int, encoder: str) -> TrainOptions:
    """The options as the model has them.

    Raises:
        ConfigError: If others were given; names them.
    """
    ends = {*zip(rule.low, rule.high, strict=True)}
    decided: dict[str, Any] = {
        **_OF_HEADS,
        "crop_size": rule.size,
        "finest": side,
        "root_size": side,
        "bands": rule.band_names or tuple(band + 1 for band in rule.bands),
        "value_range": ends.pop() if len(ends) == 1 else None,
        "nodata": rule.nodata,
        "mpp": rule.mpp or "off",
        "foreground": rule.foreground or "none",
        "squash": rule.squash,
        "filter": rule.filter,
        "oversample": rule.oversample,
    }
    if wrong := _others(options, decided):
        words = ", ".join(
            f"{name}={_shown(given)} (theirs is {_shown(decided[name])})" for name, given in wrong.items()
        )
        raise ConfigError(
            f"{options.features}: the features decide what the model is, and not {words}; leave that out"
        )
    return replace(options, encoder=encoder, freeze_encoder=True, **decided, **_WITHOUT_IMAGES)


def idle_options(options: TrainOptions) -> str | None:
    """Which options change nothing in a training on features, in words; None = none."""
    idle = _others(options, _WITHOUT_IMAGES)
    if not idle:
        return None
    words = ", ".join(f"{name}={_shown(given)}" for name, given in idle.items())
    return f"No image is read, so these change nothing: {words}"


def _others(options: TrainOptions, values: dict[str, Any]) -> dict[str, Any]:
    """Options that were given, as it seems, and have other values than these."""
    plain = TrainOptions()
    given = {name: getattr(options, name) for name in values}
    return {name: own for name, own in given.items() if own not in (getattr(plain, name), values[name])}


def _shown(value: Any) -> str:
    if isinstance(value, tuple):
        return ",".join(map(str, value))
    return "none" if value is None else f"{value:g}" if isinstance(value, float) else str(value)
