"""Which bands of an image a model takes, whether it can take them, and what their values measure."""

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np

from hiresattn.config import InputConfig
from hiresattn.errors import ConfigError, DomainError, ReadError, counted
from hiresattn.pyramid.base import Pyramid


def rule_for(pyramid: Pyramid, config: InputConfig) -> InputConfig:
    """The rule by which an image's px become input: ``low`` and ``high`` in its own stored values.

    Bands that the card has by name are those that are called so in this image.

    Where the card knows the scale and offset of the training images' values, those of the image are taken into account:
    the same quantity becomes the same input. Twice is as once.

    Args:
        pyramid: The image.
        config: What the model takes.

    Raises:
        DomainError: If the model can't take the image: see ``check_domain``; or it doesn't say what its values measure
            where the card does.
        ConfigError: If it has no bands of these names.
    """
    if config.band_names is not None:
        config = replace(config, bands=band_numbers(pyramid, config.band_names))
    if config.scales is None or config.offsets is None or pyramid.palette is not None:
        check_domain(pyramid, config)
        return config
    check_bands(pyramid, config)
    own = taken_scaling(pyramid, config.bands)
    if own is None:
        raise DomainError(
            f"{pyramid.source}: it doesn't say what its values measure, and the model knows scale and offset of those "
            "that it was trained on; write them into the file, as gdal_edit.py -scale -offset does, or give the stored "
            "values of darkest and brightest with value_range LO,HI"
        )
    scales, offsets = own
    if (scales, offsets) == (config.scales, config.offsets):
        check_domain(pyramid, config)
        return config
    before = [np.array(values) for values in (config.scales, config.offsets)]
    low, high = (
        tuple(((np.array(ends) * before[0] + before[1] - offsets) / scales).tolist())
        for ends in (config.low, config.high)
    )
    dtype = str(pyramid.dtype.newbyteorder("="))
    return replace(config, low=low, high=high, scales=scales, offsets=offsets, dtype=dtype)


def taken_scaling(
    pyramid: Pyramid, bands: tuple[int, ...]
) -> tuple[tuple[float, ...], tuple[float, ...]] | None:
    """Scale and offset of an image's values, per band taken; None = it doesn't say them, or they can't be meant."""
    scales, offsets = pyramid.meta.scales, pyramid.meta.offsets
    if scales is None or offsets is None or pyramid.palette is not None:
        return None
    taken = tuple(scales[band] for band in bands), tuple(offsets[band] for band in bands)
    return taken if np.isfinite(taken).all() and min(taken[0]) > 0 else None


def check_domain(pyramid: Pyramid, config: InputConfig) -> None:
    """Refuse an image that the model can't take.

    A palette image counts as three uint8 bands where the model takes bands 0, 1 and 2.

    Args:
        pyramid: The image.
        config: What the model takes.

    Raises:
        DomainError: If bands are absent, indices would be averaged, or the data type is another.
    """
    dtype = check_bands(pyramid, config)
    if dtype.newbyteorder("=") != np.dtype(config.dtype):
        raise DomainError(
            f"{pyramid.source}: its values are {dtype} and the model was made for {config.dtype}; give the "
            "values that stand for darkest and brightest with value_range LO,HI"
        )


def check_bands(pyramid: Pyramid, config: InputConfig) -> np.dtype[Any]:
    """Refuse an image without the bands that the model takes; returns the type of their values."""
    taken = ",".join(str(band + 1) for band in config.bands)
    needed = len(config.bands)
    channels, dtype = pyramid.channels, pyramid.dtype
    if pyramid.palette is not None:
        if config.bands != (0, 1, 2):
            raise DomainError(
                f"{pyramid.source}: a palette image has colours, bands 1,2,3, and the model takes {taken}; "
                "convert the image to the bands that the model takes"
            )
        channels, dtype = 3, np.dtype(np.uint8)
    if config.channels is not None and channels != config.channels:
        remedy = "it has too few"
        if channels >= needed:
            some = ",".join(map(str, range(1, needed + 1)))
            remedy = f"choose which {needed} to feed it, for example bands {some}"
        raise DomainError(
            f"{pyramid.source}: it has {counted(channels, 'band')} and the model was made for images "
            f"of {config.channels}; {remedy}"
        )
    if any(not 0 <= band < channels for band in config.bands):
        raise DomainError(
            f"{pyramid.source}: it has bands 1 to {channels}, and bands {taken} are asked for; name {needed} of "
            "those it has with the option bands"
        )
    return dtype


def band_numbers(pyramid: Pyramid, bands: Sequence[int | str]) -> tuple[int, ...]:
    """Numbers from 0 of bands that are given by number from 1, by name, or by what they show (``red``).

    Raises:
        ConfigError: If no band, or several, are called so.
    """
    names, colors = pyramid.channel_names or (), pyramid.meta.colors or ()
    found = []
    for band in bands:
        if isinstance(band, int):
            found.append(band - 1)
            continue
        called = [
            [at for at, own in enumerate(known) if own.lower() == band.lower()] for known in (names, colors)
        ]
        numbers = called[0] or called[1]
        if len(numbers) != 1:
            known = ", ".join(dict.fromkeys(own for own in (*names, *colors) if own and own != "undefined"))
            what = "several bands are" if numbers else "no band is"
            raise ConfigError(
                f"{pyramid.source}: {what} called {band!r}; it has {known or 'no names'}; give bands by number, from 1"
            )
        found += numbers
    return tuple(found)


def valid_bands(pyramid: Pyramid, bands: tuple[int, ...]) -> tuple[int, ...] | None:
    """Bands of the file in which a px must be measured, for a model that takes ``bands``; None = all of them."""
    return bands if pyramid.palette is None else None


def taken_bands(
    pyramid: Pyramid, data: np.ndarray, valid: np.ndarray | None, bands: tuple[int, ...]
) -> np.ndarray:
    """The bands of ``data [h w c]`` that a model takes; of a palette image the colours, not the indices.

    Args:
        pyramid: The image that was read.
        data: Its px.
        valid: Which of them were measured, bool ``[h w]``; None = all.
        bands: Bands to take, from 0.

    Returns:
        ``[h w bands]``; a view where the bands are neighbours.

    Raises:
        ReadError: If a measured px has a colour that the palette lacks.
    """
    if pyramid.palette is None:
        if bands == tuple(range(bands[0], bands[0] + len(bands))):
            return data[:, :, bands[0] : bands[0] + len(bands)]
        return data[:, :, list(bands)]
    check_colours(pyramid, data, valid)
    return np.take(pyramid.palette, data[:, :, 0], axis=0, mode="clip")


def check_colours(pyramid: Pyramid, data: np.ndarray, valid: np.ndarray | None) -> None:
    """Refuse px ``[h w 1]`` of a palette image that were measured and have a colour that the palette lacks.

    Raises:
        ReadError: If there are any.
    """
    colours = 0 if pyramid.palette is None else len(pyramid.palette)
    if colours > np.iinfo(data.dtype).max:
        return
    index = data[:, :, 0]
    unknown = index >= colours
    if unknown.any():
        unknown = unknown if valid is None else unknown & valid
        if unknown.any():
            raise ReadError(
                f"{pyramid.source}: a pixel has colour {index[unknown].max()} of a palette of {colours}; the file is "
                "damaged"
            )
