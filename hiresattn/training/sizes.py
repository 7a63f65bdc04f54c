"""How large the images, or cases, of a recipe are: which the teacher is trained on, and which the student searches."""

import math
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass

from hiresattn.datasets.cases import cases_of, examples_of
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
    """An image, or the images of a case, and how large they are."""

    examples: tuple[Example, ...]
    regions: int
    """Finest regions that cover them."""
    short_side: int
    """Of the largest; level-0 px, or px of the model's scale."""
    depths: int
    """Depths from root regions to the finest."""


def examples_in(some: Iterable[Sized]) -> list[Example]:
    """The images, case by case."""
    return [example for one in some for example in one.examples]


def finest_side(options: TrainOptions) -> int:
    """Side of the smallest region, level-0 px."""
    assert options.crop_size is not None  # noqa: S101 - chosen with the encoder
    return options.finest or options.crop_size


def sized(
    examples: Sequence[Example], options: TrainOptions, on_message: Callable[[str], None]
) -> list[Sized]:
    """Images, or cases, and how large they are; what can't be opened is left out where the options say so."""
    at = None if isinstance(options.mpp, str) else options.mpp
    found = []
    for source in examples if options.per_source else cases_of(examples):
        each = []
        for example in examples_of(source):
            try:
                each.append((example, _extent(example, at)))
            except (OpenError, ReadError) as error:
                if options.on_error == "raise":
                    raise
                on_message(f"Skipped: {error}")
        if each:
            found.append(_measured(each, options))
    return found


def _measured(each: Sequence[tuple[Example, tuple[int, int]]], options: TrainOptions) -> Sized:
    """The images of a case, of which heights and widths are known."""
    grid, finest = Grid(options.grid, options.fraction), finest_side(options)
    extents = [extent for _, extent in each]
    return Sized(
        tuple(example for example, _ in each),
        sum(finest_count(height, width, finest) for height, width in extents),
        max(min(extent) for extent in extents),
        max(
            depth_count(root_regions(height, width, root_size=options.root_size), grid, finest)
            for height, width in extents
        ),
    )


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
    classes = _class_count(images)
    groups: list[list[Sized]] = []
    for _, same in sorted(by_size.items()):
        if groups and not all(2 * _class_count(group) >= classes for group in (groups[-1], same)):
            groups[-1] = groups[-1] + same
        else:
            groups.append(same)
    few = [group for group in groups if max(one.regions for one in group) <= FEW_REGIONS]
    return few or groups[:1]


def _class_count(group: Sequence[Sized]) -> int:
    return len({name for example in examples_in(group) for name in classes_in(example)})


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
    return examples_in(same)


def largest_images(val: Sequence[Sized]) -> list[Example]:
    """Validation images of the largest size that most have in common."""
    if not val:
        return []
    counts = sorted(one.regions for one in val)
    return examples_in(one for one in val if one.regions >= counts[-max(len(counts) // 4, 1)])
