"""Which bands of the training images are learnt from: by number, or by name in each image."""

from collections.abc import Iterable
from dataclasses import replace
from typing import Any

from hiresattn.datasets.example import Example
from hiresattn.errors import ConfigError
from hiresattn.pyramid.open import scene_of


def check_bands(bands: tuple[int | str, ...] | None, *, jpeg: float = 0, cutmix: float = 0) -> None:
    """Refuse bands that can't be meant.

    Args:
        bands: Numbers from 1, or names; None = all.
        jpeg: How often JPEG compression is imitated, which needs three bands.
        cutmix: How often images are mixed, whose bands must lie in the same order.

    Raises:
        ConfigError: If there are none, or numbers and names, or they don't go with the augmentations.
    """
    if bands is None:
        return
    named = named_bands(bands)
    if not bands or any(band < 1 for band in bands if isinstance(band, int)) or "" in bands:
        raise ConfigError(f"bands are counted from 1, such as 3, 2, 1, or named; got {list(bands)}")
    if named is not None and len(named) < len(bands):
        raise ConfigError(f"bands are given by number, or all by name; got {list(bands)}")
    if named is not None and cutmix:
        raise ConfigError("cutmix mixes images band by band; give bands by number, or leave out cutmix")
    if jpeg and len(bands) != len("RGB"):
        raise ConfigError(f"jpeg compresses three bands, and {len(bands)} are named; leave one out")


def named_bands(bands: tuple[int | str, ...] | None) -> tuple[str, ...] | None:
    """Bands that are given by name; None = they are given by number, or none is given."""
    return tuple(band for band in bands or () if isinstance(band, str)) or None


def of_files(examples: Iterable[Example], bands: tuple[int | str, ...] | None) -> list[Example]:
    """Examples whose scenes of several files (STAC items, folders of Sentinel-2) are those files that hold the bands.

    Raises:
        ConfigError: If a scene has none that is called so.
        HiresattnError: If its files can't be listed.
    """
    names, known = named_bands(bands), dict[Any, Any]()
    if names is None:
        return list(examples)
    found = []
    for example in examples:
        name = example.source if isinstance(example.source, str) else id(example.source)
        if name not in known:  # windows of one scene are one image
            stack = scene_of(example.source)
            known[name] = stack.chosen(names) if stack is not None and stack.choose else example.source
        found.append(replace(example, source=known[name]))
    return found
