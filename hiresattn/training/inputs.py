"""How pixels become a network's input: the encoder that is asked for, the side of its crops, the range of values."""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from hiresattn.card import CARD, Card, read_card
from hiresattn.config import InputConfig
from hiresattn.errors import ConfigError, DomainError, HiresattnError, OpenError, ReadError
from hiresattn.model.encoders import EncoderSpec, find_encoder, is_registered
from hiresattn.model.presets import PRESETS as ARCHITECTURES
from hiresattn.pyramid import Pyramid, open_pyramid
from hiresattn.reading.bands import band_numbers, rule_for, taken_scaling
from hiresattn.reading.foreground import is_slide
from hiresattn.training.bands import named_bands
from hiresattn.training.optim import largest_lr
from hiresattn.training.options import TrainOptions

#: Half of the narrowest measured value range, grey levels: a flat, dark scene's noise isn't blown up.
LEAST_REACH = 16.0
#: Images that are opened to learn what most of them are like.
MOST_OPENED = 64
#: Largest learning rate at which pretrained encoders are usually trained further.
MOST_LR = 5e-4


def earlier_card(options: TrainOptions, output: Path | None) -> Card | None:
    """The card of the model that is to be gone on with, or started from; None without any.

    Args:
        options: How to train.
        output: Directory of a run that is resumed; None = a new run.
    """
    if output is not None and (output / CARD).is_file():
        return read_card(output)
    return None if options.init_from is None else read_card(options.init_from)


def chosen_encoder(
    options: TrainOptions, earlier: Card | None, *, resume: bool
) -> tuple[EncoderSpec, TrainOptions]:
    """The encoder that is asked for, and the options with the side of its crops where they leave that open.

    Args:
        options: How to train.
        earlier: The model that training starts from, or goes on with; its weights replace the encoder's, and its
            encoder is taken where the options have the default.
        resume: Whether it goes on with it; then nothing is looked up, here or on a hub.

    Raises:
        ConfigError: If there is no such encoder, or it would be frozen with fresh weights.
        HiresattnError: If it can't be fetched or read.
    """
    published = ARCHITECTURES[options.architecture].config if options.architecture is not None else None
    name = options.encoder if published is None else published.encoder
    origin = (earlier.training.get("encoder") or {}) if earlier else {}
    if earlier is not None and not resume and published is None and name == TrainOptions.encoder:
        name = earlier.config.encoder  # which it was not asked to differ from
    if earlier is not None and (resume or name in (earlier.config.encoder, origin.get("weights"))):
        encoder = EncoderSpec(name, earlier.config.encoder, earlier.config.encoder_args)
    else:
        encoder = find_encoder(name, pretrained=options.pretrained and earlier is None)
    if options.freeze_encoder and earlier is None and not encoder.trained and not is_registered(name):
        raise ConfigError(
            f"the encoder {name!r} starts from fresh weights, which freeze_encoder would keep; name a trained one "
            "(hf-hub:owner/name, local-dir:FOLDER), or add pretrained or init_from"
        )
    size = encoder.size if published is None else published.input.size
    if earlier is not None:
        encoder, size = (
            replace(encoder, mean=None, std=None, weights=None, published=False),
            earlier.config.input.size,
        )
    return encoder, replace(options, crop_size=options.crop_size or size)


def warn_of_encoder(encoder: EncoderSpec, options: TrainOptions, on_message: Callable[[str], None]) -> None:
    """Report an option without effect, and a learning rate at which a pretrained encoder forgets what it knows."""
    lr = largest_lr(options)
    if options.pretrained and encoder.weights is not None and not encoder.published:
        on_message(
            f"The encoder {encoder.name!r} starts from its own weights; pretrained is for names of timm's"
        )
    if encoder.trained and not options.freeze_encoder and lr > MOST_LR:
        on_message(
            f"The encoder {encoder.name!r} is pretrained, and lr {lr:g} soon undoes that; take lr=1e-4 or so, "
            "or freeze_encoder"
        )


def encoder_origin(encoder: EncoderSpec, options: TrainOptions, earlier: Card | None) -> dict[str, Any]:
    """Where an encoder's weights come from, for the model's card."""
    before = (earlier.training.get("encoder") if earlier else None) or {}
    return {**encoder.origin, **({} if encoder.trained else before), "frozen": options.freeze_encoder}


def known_range(
    bands: tuple[int, ...], dtype: str, options: TrainOptions, earlier: Card | None, encoder: EncoderSpec
) -> tuple[tuple[float, ...], tuple[float, ...]] | None:
    """Low and high per band that need no measuring; None if there are none for such images.

    They are those asked for; else of the model that training starts from; else of a pretrained encoder's training.
    """
    if options.value_range is not None:
        low, high = options.value_range
        return (low,) * len(bands), (high,) * len(bands)
    if earlier is not None and (earlier.config.input.bands, earlier.config.input.dtype) == (bands, dtype):
        return _range_of(earlier)
    if encoder.trained and dtype == "uint8":
        return encoder.value_range(len(bands))
    return None


def _range_of(earlier: Card) -> tuple[tuple[float, ...], tuple[float, ...]]:
    return earlier.config.input.low, earlier.config.input.high


def input_rule(
    source: Any, options: TrainOptions, earlier: Card | None, encoder: EncoderSpec, at: float | None = None
) -> InputConfig:
    """How the pixels of the training images become the network's input, by one of them.

    Values are scaled as ``options.value_range`` says; else as the model that training starts from scales them,
    if it takes images like these; else as in the training of a pretrained encoder. They are stored values of this
    image: of images with another scale and offset they are converted. Regions are counted in px of ``at`` micrometres;
    None = in level-0 px.

    Raises:
        DomainError: If it has not the bands, or its value range has to be given.
        HiresattnError: If it can't be opened.
    """
    with _opened(source, options.nodata) as pyramid:
        palette = pyramid.palette is not None
        dtype = "uint8" if palette else str(pyramid.dtype)
        bands = (
            tuple(range(3 if palette else pyramid.channels))
            if options.bands is None
            else band_numbers(pyramid, options.bands)
        )
        known = known_range(bands, dtype, options, earlier, encoder)
        if known is None and dtype != "uint8":
            raise DomainError(
                f"{pyramid.source}: values are {dtype}; say which become darkest and brightest with "
                "value_range LO,HI, for example 0,10000 for Sentinel-2"
            )
        count = len(bands)
        low, high = known or ((0.0,) * count, (255.0,) * count)
        scaling = taken_scaling(pyramid, bands) if max(bands) < pyramid.channels else None
        if earlier is not None and options.value_range is None and known == _range_of(earlier):
            before = earlier.config.input
            scaling = (
                None if before.scales is None or before.offsets is None else (before.scales, before.offsets)
            )
        rule = InputConfig(
            size=options.crop_size or encoder.size,
            bands=bands,
            band_names=named_bands(options.bands),
            low=low,
            high=high,
            scales=scaling and scaling[0],
            offsets=scaling and scaling[1],
            dtype=dtype,
            oversample=options.oversample,
            squash=options.squash,
            filter=options.filter,
            channels=None if options.bands else count,
            nodata=options.nodata,
            mpp=at,
            foreground=_foreground(pyramid, options, earlier, at),
        )
        rule_for(pyramid, rule)
        return rule


def _foreground(
    pyramid: Pyramid, options: TrainOptions, earlier: Card | None, at: float | None
) -> str | None:
    """What of the images is looked at, where the options leave that open: as the earlier model does, else by one."""
    if options.foreground != "auto":
        return None if options.foreground == "none" else options.foreground
    if earlier is not None:
        return earlier.config.input.foreground
    return "tissue" if is_slide(pyramid, at) else None


def first_rule(
    sources: Sequence[Any],
    options: TrainOptions,
    earlier: Card | None,
    encoder: EncoderSpec,
    on_skip: Callable[[HiresattnError], None] | None,
    at: float | None = None,
) -> InputConfig:
    """``input_rule`` of the first image; where images may be skipped, of the first with the bands and type of most.

    Up to ``MOST_OPENED`` images, from the first to the last, tell what most are like.
    """
    if on_skip is None:
        return input_rule(sources[0], options, earlier, encoder, at)
    count = len(sources)
    some = dict.fromkeys(np.linspace(0, count - 1, min(count, MOST_OPENED)).astype(int).tolist())
    kinds: dict[Any, list[Any]] = {}
    for number in [*some, *(number for number in range(count) if number not in some)]:
        if kinds and number not in some:
            break
        try:
            with _opened(sources[number], options.nodata) as pyramid:
                kind = pyramid.palette is not None, str(pyramid.dtype), options.bands or pyramid.channels
        except (OpenError, ReadError) as error:
            on_skip(error)
        else:
            kinds.setdefault(kind, []).append(sources[number])
    if not kinds:
        raise ConfigError("none of the training images can be opened; check their paths")
    return input_rule(max(kinds.values(), key=len)[0], options, earlier, encoder, at)


def with_measured_range(rule: InputConfig, measured: np.ndarray) -> InputConfig:
    """A rule whose values of -1 to 1 span most of the images' px: mean -/+ 2 standard deviations of each band."""
    mean, spread = measured
    reach = np.maximum(2 * spread, LEAST_REACH)
    low, high = (tuple(np.round(v, 3).tolist()) for v in (mean - reach, mean + reach))
    return replace(rule, low=low, high=high)


@contextmanager
def _opened(source: Any, nodata: float | None) -> Iterator[Pyramid]:
    """An image, closed again if it was opened here."""
    pyramid = open_pyramid(source, nodata=nodata)
    try:
        yield pyramid
    finally:
        if pyramid is not source:
            pyramid.close()
