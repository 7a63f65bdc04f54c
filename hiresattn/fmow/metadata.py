"""Reads the JSON file of a view, of any fMoW release."""

import json
import re
from dataclasses import dataclass
from typing import Any

from hiresattn.errors import ConfigError
from hiresattn.fmow.classes import FALSE_DETECTION, OLD_FALSE_DETECTION

#: ID of the crowd's box in the ground truth: no target.
CROWD = -1

_NUMBER = r"[-+]?(?:\d+\.?\d*|\.\d+)(?:[eE][-+]?\d+)?"
_POINT = re.compile(rf"({_NUMBER})\s+({_NUMBER})")


@dataclass(frozen=True, slots=True)
class Box:
    """A target's box, px of the image; it may reach beyond the image."""

    id: int
    """Of the target, the same in all views of its place; ``CROWD`` = the crowd's box."""
    y: int
    x: int
    height: int
    width: int
    category: str | None
    """None = not said, as in the test set."""


@dataclass(frozen=True, slots=True)
class Metadata:
    """The contents of a view's JSON file."""

    height: int
    """Rows of the image, px."""
    width: int
    boxes: tuple[Box, ...]
    """As listed; the crowd's too."""
    bounds: tuple[float, float, float, float] | None = None
    """West, south, east, north of the image, degrees (EPSG:4326); None = not said: only the ground truth does."""
    gsd: float | None = None
    """Ground sample distance of the sensor, m; not the px size of the image delivered."""
    timestamp: str = ""
    country_code: str = ""
    cloud_cover: str = ""
    """Percent."""


def parse_metadata(text: str | bytes, where: str) -> Metadata:
    """Parse the text of a JSON file.

    Args:
        text: The text.
        where: Its file, for error messages.

    Returns:
        What it says. ``bounding_boxes`` may be a list or, as in release 1.0, a single box.

    Raises:
        ConfigError: If it isn't JSON, or has no image size or unusable boxes.
    """
    try:
        values = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise ConfigError(f"{where}: damaged, it is no JSON ({error}); fetch it again") from error
    try:
        listed = values.get("bounding_boxes") or []
        boxes = tuple(map(_box, [listed] if isinstance(listed, dict) else listed))
        height, width = int(values["img_height"]), int(values["img_width"])
        gsd = values.get("gsd")
        found = Metadata(
            height=height,
            width=width,
            boxes=boxes,
            bounds=_bounds(values.get("raw_location")),
            gsd=None if gsd is None else float(gsd),
            timestamp=str(values.get("timestamp") or ""),
            country_code=str(values.get("country_code") or ""),
            cloud_cover="" if values.get("cloud_cover") is None else str(values["cloud_cover"]),
        )
    except (AttributeError, TypeError, ValueError, LookupError, OverflowError) as error:
        said = f"no {error}" if isinstance(error, KeyError) else str(error)
        raise ConfigError(
            f"{where}: not the metadata of an fMoW view ({said}); it needs img_height, img_width and "
            "bounding_boxes with ID and box [left, top, width, height]"
        ) from error
    if height < 1 or width < 1:
        raise ConfigError(f"{where}: an image of {width} x {height} px; fetch the file again")
    return found


def category_of(name: Any) -> str | None:
    """A category as it is called now; None = not said."""
    if not name:
        return None
    return FALSE_DETECTION if name == OLD_FALSE_DETECTION else str(name)


def _box(values: Any) -> Box:
    left, top, width, height = (int(value) for value in values["box"])
    return Box(int(values["ID"]), top, left, height, width, category_of(values.get("category")))


def _bounds(text: Any) -> tuple[float, float, float, float] | None:
    """The rectangle around a WKT polygon's corners."""
    if not text:
        return None
    corners = [(float(x), float(y)) for x, y in _POINT.findall(text)]
    if not text.lstrip().upper().startswith(("POLYGON", "MULTIPOLYGON")) or len(corners) < 3:
        raise ValueError(f"raw_location {text[:40]!r} is no polygon")
    xs, ys = zip(*corners, strict=True)
    west, south, east, north = min(xs), min(ys), max(xs), max(ys)
    if not (west < east and south < north):
        raise ValueError(f"raw_location {text[:40]!r} has no area")
    return west, south, east, north
