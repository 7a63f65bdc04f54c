"""Which bands of an image a model takes and how their values become input, with what the caller says of it."""

from dataclasses import replace

from hiresattn.card import Card
from hiresattn.config import InputConfig
from hiresattn.datasets.example import Example
from hiresattn.errors import ConfigError
from hiresattn.inference.options import check_value_range
from hiresattn.pyramid import Pyramid
from hiresattn.pyramid.open import scene_of
from hiresattn.reading.bands import band_numbers, rule_for


def chosen(
    example: Example, bands: tuple[int | str, ...] | None, model: Card
) -> tuple[Example, tuple[int | str, ...] | None]:
    """An example, and which of its bands to take; of several files those that are named, or the model's by name.

    Args:
        example: Its source may be a stack, or a STAC item.
        bands: Those asked for; None = the model's.
        model: Knows the names of the bands that it was trained on.

    Raises:
        ConfigError: If a stack has none of that name.
    """
    stack = scene_of(example.source)
    if stack is None:
        return example, bands
    example = replace(example, source=stack)
    names = [band for band in bands or () if isinstance(band, str)]
    known = model.config.input.band_names or model.domain.channel_names or ()
    if not names and bands is None and stack.choose and known and all(map(stack.knows, known)):
        names = list(known)
    known_here = stack.choose or all(map(stack.knows, names))  # else its files know more names
    if not names or len(names) < len(bands or ()) or not known_here:
        return example, bands
    return replace(example, source=stack.chosen(names)), tuple(range(1, len(names) + 1))


def input_for(
    config: InputConfig,
    pyramid: Pyramid,
    bands: tuple[int | str, ...] | None,
    value_range: tuple[float, float] | None,
) -> InputConfig:
    """The model's input rule with what the caller says of this image.

    Args:
        config: The model's.
        pyramid: The image.
        bands: Bands to take, counted from 1, or their names; None = the model's.
        value_range: Native values that stand for darkest and brightest; None = the model's.

    Raises:
        ConfigError: If the number of bands is not the model's, or the range is empty.
        DomainError: If the model can't take the image.
    """
    if bands is not None:
        if len(bands) != len(config.bands):
            raise ConfigError(
                f"{pyramid.source}: bands named: {len(bands)}; the model takes {len(config.bands)}; name as "
                f"many, for example bands {','.join(str(b + 1) for b in config.bands)}"
            )
        config = replace(config, bands=band_numbers(pyramid, bands), band_names=None, channels=None)
    if value_range is not None:
        low, high = check_value_range(value_range)
        count = len(config.bands)
        config = replace(
            config,
            low=(low,) * count,
            high=(high,) * count,
            dtype=str(pyramid.dtype),
            scales=None,
            offsets=None,
        )
    return rule_for(pyramid, config)
