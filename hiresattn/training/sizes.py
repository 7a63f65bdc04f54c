"""How large the images of a recipe are: which the teacher is trained on, and which the student searches."""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from hiresattn.datasets.example import Example, classes_in
from hiresattn.datasets.scales import opened
from hiresattn.errors import OpenError, ReadError
from hiresattn.geometry import Grid, depth_count, root_regions
from hiresattn.inference.cover import finest_count
from hiresattn.pyramid.rescaled import window_of
from hiresattn.training.options import TrainOptions

#: Finest regions of an image that the teacher is trained on, where there are smaller and larger ones: one label tells
#: less of each region, the more it is of.
FEW_REGIONS = 16
#: Images are trained on in groups, each of up to this many times more regions than the last.
GROWTH = 4


@dataclass(frozen=True)
class Sized:
    """An image, and how large it is."""

    example: Example
    regions: int
    """Finest regions that cover it."""
    short_side: int
    """Level-0 px, or px of the model's scale."""
    depths: int
    """Depths from its root regions to the finest."""


def finest_side(options: TrainOptions) -> int:
    """Side of the smallest region, level-0 px."""
    assert options.crop_size is not None  # noqa: S101 - chosen with the encoder
    return options.finest or options.crop_size


def sized(
    examples: Sequence[Example], options: TrainOptions, on_message: Callable[[str], None]
) -> list[Sized]:
    """Images and how large they are; those that can't be opened are left out where the options say so."""
    grid, finest, found = Grid(options.grid, options.fraction), finest_side(options), []
    at = None if isinstance(options.mpp, str) else options.mpp
    for example in examples:
        try:
            height, width = _extent(example, at)
        except (OpenError, ReadError) as error:
            if options.on_error == "raise":
                raise
            on_message(f"Skipped: {error}")
            continue
        depths = depth_count(root_regions(height, width, root_size=options.root_size), grid, finest)
        found.append(Sized(example, finest_count(height, width, finest), min(height, width), depths))
    return found


def _extent(example: Example, at: float | None) -> tuple[int, int]:
    """Height and width of an image, or of its window, px of a scale, or level-0 px."""
    if at is None and example.region is not None:
        return example.region[2:]
    with opened(example, at) as pyramid:
        return window_of(pyramid, example.region)[2:]


def size_groups(images: Sequence[Sized]) -> list[list[Sized]]:
    """Images that the teacher is trained on, from small to large, each group with at least half of the classes."""
    by_size: dict[int, list[Sized]] = {}
    for one in images:
        by_size.setdefault(math.ceil(math.log(one.regions, GROWTH) - 1e-9), []).append(one)
    classes = len({name for one in images for name in classes_in(one.example)})
    groups: list[list[Sized]] = []
    for _, same in sorted(by_size.items()):
        if groups and not all(2 * _class_count(group) >= classes for group in (groups[-1], same)):
            groups[-1] = groups[-1] + same
        else:
            groups.append(same)
    few = [group for group in groups if max(one.regions for one in group) <= FEW_REGIONS]
    return few or groups[:1]


def _class_count(group: Sequence[Sized]) -> int:
    return len({name for one in group for name in classes_in(one.example)})


def searched_images(images: Sequence[Sized], options: TrainOptions) -> list[Sized]:
    """Images that the student learns to search: those of at least a root region's size, if there are any."""
    several = [one for one in images if one.regions > 1]
    return [one for one in several if one.short_side >= (options.root_size or 0)] or several


def validating_images(val: Sequence[Sized], group: Sequence[Sized]) -> list[Example]:
    """Validation images as large as a group's; without any, the smallest of the larger ones, or all."""
    most = max(one.regions for one in group)
    least = min(one.regions for one in group)
    same = [one for one in val if least <= one.regions <= most]
    if not same:
        next_larger = min((one.regions for one in val if one.regions > most), default=0)
        same = [one for one in val if one.regions == next_larger] or list(val)
    return [one.example for one in same]


def largest_images(val: Sequence[Sized]) -> list[Example]:
    """Validation images of the largest size that most have in common."""
    if not val:
        return []
    counts = sorted(one.regions for one in val)
    return [one.example for one in val if one.regions >= counts[-max(len(counts) // 4, 1)]]
