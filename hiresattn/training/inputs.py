"""How pixels become a network's input: the encoder that is asked for, the side of its crops, the range of values."""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from typing import Any

import numpy as np

from hiresattn.checkpoint import Model
from hiresattn.config import InputConfig
from hiresattn.errors import ConfigError, DomainError, HiresattnError, OpenError, ReadError
from hiresattn.model.encoders import EncoderSpec, find_encoder
from hiresattn.model.presets import PRESETS as ARCHITECTURES
from hiresattn.pyramid import Pyramid, open_pyramid
from hiresattn.reading.bands import check_domain
from hiresattn.training.options import TrainOptions

#: Half of the narrowest measured value range, grey levels: a flat, dark scene's noise isn't blown up.
LEAST_REACH = 16.0


def chosen_encoder(options: TrainOptions, start: Model | None) -> tuple[EncoderSpec, TrainOptions]:
    """The encoder that is asked for, and the options with the side of its crops where they leave that open.

    Args:
        options: How to train.
        start: The model that training starts from; its weights replace the encoder's.

    Raises:
        ConfigError: If there is no such encoder.
        HiresattnError: If it can't be fetched or read.
    """
    name = options.encoder
    if options.architecture is not None:
        published = ARCHITECTURES[options.architecture].config
        name = published.encoder
    if start is not None and name == start.config.encoder:
        encoder = EncoderSpec(name, name, start.config.encoder_args)
    else:
        encoder = find_encoder(name, pretrained=options.pretrained and start is None)
    if start is not None:
        encoder = replace(encoder, mean=None, std=None, weights=None)
    size = options.crop_size
    if size is None and start is not None:
        size = start.config.input.size
    if size is None and options.architecture is not None:
        size = published.input.size
    return encoder, replace(options, crop_size=size or encoder.size)


def known_range(
    bands: tuple[int, ...], dtype: str, options: TrainOptions, start: Model | None, encoder: EncoderSpec
) -> tuple[tuple[float, ...], tuple[float, ...]] | None:
    """Low and high per band that need no measuring; None if there are none for such images.

    They are those asked for; else of the model that training starts from; else of a pretrained encoder's training.
    """
    if options.value_range is not None:
        low, high = options.value_range
        return (low,) * len(bands), (high,) * len(bands)
    if start is not None and (start.config.input.bands, start.config.input.dtype) == (bands, dtype):
        return start.config.input.low, start.config.input.high
    if encoder.trained and dtype == "uint8":
        return encoder.value_range(len(bands))
    return None


def input_rule(source: Any, options: TrainOptions, start: Model | None, encoder: EncoderSpec) -> InputConfig:
    """How the pixels of the training images become the network's input, by one of them.

    Values are scaled as ``options.value_range`` says; else as the model that training starts from scales them,
    if it takes images like these; else as in the training of a pretrained encoder.

    Raises:
        DomainError: If it has not the bands, or its value range has to be given.
        HiresattnError: If it can't be opened.
    """
    with _opened(source) as pyramid:
        palette = pyramid.palette is not None
        dtype = "uint8" if palette else str(pyramid.dtype)
        bands = (
            tuple(range(3 if palette else pyramid.channels))
            if options.bands is None
            else tuple(band - 1 for band in options.bands)
        )
        known = known_range(bands, dtype, options, start, encoder)
        if known is None and dtype != "uint8":
            raise DomainError(
                f"{pyramid.source}: values are {dtype}; say which become darkest and brightest with "
                "value_range LO,HI, for example 0,10000 for Sentinel-2"
            )
        count = len(bands)
        low, high = known or ((0.0,) * count, (255.0,) * count)
        rule = InputConfig(
            size=options.crop_size or encoder.size,
            bands=bands,
            low=low,
            high=high,
            dtype=dtype,
            oversample=options.oversample,
            squash=options.squash,
            filter=options.filter,
            channels=None if options.bands else count,
        )
        check_domain(pyramid, rule)
        return rule


def first_rule(
    sources: Sequence[Any],
    options: TrainOptions,
    start: Model | None,
    encoder: EncoderSpec,
    on_skip: Callable[[HiresattnError], None] | None,
) -> InputConfig:
    """``input_rule`` of the first image that can be opened; of the first one where none may be skipped."""
    for source in sources:
        try:
            return input_rule(source, options, start, encoder)
        except (OpenError, ReadError) as error:
            if on_skip is None:
                raise
            on_skip(error)
    raise ConfigError("none of the training images can be opened; check their paths")


def with_measured_range(rule: InputConfig, measured: np.ndarray) -> InputConfig:
    """A rule whose values of -1 to 1 span most of the images' px: mean -/+ 2 standard deviations of each band."""
    mean, spread = measured
    reach = np.maximum(2 * spread, LEAST_REACH)
    low, high = (tuple(np.round(v, 3).tolist()) for v in (mean - reach, mean + reach))
    return replace(rule, low=low, high=high)


@contextmanager
def _opened(source: Any) -> Iterator[Pyramid]:
    """An image, closed again if it was opened here."""
    pyramid = open_pyramid(source)
    try:
        yield pyramid
    finally:
        if pyramid is not source:
            pyramid.close()
