"""The colours of classes, and of looks by depth: in the report, in the viewer, and of QuPath's objects the same."""

import colorsys
from collections.abc import Iterable

#: Of the first classes of a model (after Okabe and Ito 2008).
_CLASSES = ("#0072b2", "#d55e00", "#009e73", "#cc79a7", "#e69f00", "#56b4e9")
#: Of further ones: hues that are this far apart, as parts of the circle.
_GOLDEN = 0.381966
#: Of looks by depth, the finest the darkest: greys, for colours are those of classes.
DEPTH_COLOURS = ("#a8a8a8", "#848484", "#585858", "#3c3c3c", "#242424")


def class_colours(classes: Iterable[str]) -> dict[str, str]:
    """A colour for each class, as ``#rrggbb``: one for the same class of a model in every case.

    Args:
        classes: All classes of a model, in its order.
    """
    return {name: _class_colour(number) for number, name in enumerate(classes)}


def _class_colour(number: int) -> str:
    if number < len(_CLASSES):
        return _CLASSES[number]
    red, green, blue = colorsys.hls_to_rgb((number * _GOLDEN) % 1, 0.45, 0.65)
    return f"#{round(255 * red):02x}{round(255 * green):02x}{round(255 * blue):02x}"


def depth_colour(depth: int) -> str:
    """The colour of looks of a depth, as ``#rrggbb``."""
    return DEPTH_COLOURS[min(depth, len(DEPTH_COLOURS) - 1)]


def rgb(colour: str) -> list[int]:
    """``#rrggbb`` as three numbers, 0 to 255."""
    return [int(colour[at : at + 2], 16) for at in (1, 3, 5)]
