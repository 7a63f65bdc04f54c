"""Boxes beside an image: JSON, or a GeoJSON file."""

import json
import math
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from hiresattn.errors import ConfigError


def read_boxes(text: str, manifest: Path, where: str) -> tuple[tuple[int, int, int, int], ...] | None:
    """Read boxes: JSON ``[[y, x, height, width], …]``, or the name of a GeoJSON file in px (x, y).

    Args:
        text: The one or the other; empty = not known.
        manifest: What the file lies beside.
        where: What is being read, for messages.

    Returns:
        ``(y, x, height, width)`` each, level-0 px; None = not known.

    Raises:
        ConfigError: If they can't be read, or one is empty.
    """
    if not text:
        return None
    try:
        if not text.startswith("["):
            return _geojson_boxes(json.loads((manifest.parent / text).read_text(encoding="utf-8")))
        boxes = tuple((int(y), int(x), int(h), int(w)) for y, x, h, w in json.loads(text))
    except (
        OSError,
        ValueError,
        TypeError,
        LookupError,
        AttributeError,
        ArithmeticError,
        RecursionError,
    ) as error:
        raise ConfigError(
            f"{where}: boxes {text[:60]!r} can't be read ({error}); give JSON [[y, x, height, width], …] in "
            "level-0 px, or the name of a GeoJSON file"
        ) from error
    if any(height < 1 or width < 1 for _, _, height, width in boxes):
        raise ConfigError(f"{where}: a box needs a height and width of at least 1 px: {text[:60]}")
    return boxes


def _geojson_boxes(found: Any) -> tuple[tuple[int, int, int, int], ...]:
    """The rectangles around a GeoJSON's features, whose coordinates are level-0 px (x, y), as QuPath's."""
    features = found if isinstance(found, list) else found.get("features", [found])
    boxes = []
    for feature in features:
        points = list(_points(feature.get("geometry", feature)["coordinates"]))
        left, top = (math.floor(min(p[i] for p in points)) for i in (0, 1))
        right, bottom = (math.ceil(max(p[i] for p in points)) for i in (0, 1))
        boxes.append((top, left, max(bottom - top, 1), max(right - left, 1)))
    return tuple(boxes)


def _points(coordinates: Any) -> Iterator[tuple[float, float]]:
    if coordinates and isinstance(coordinates[0], (int, float)):
        yield float(coordinates[0]), float(coordinates[1])
    else:
        for part in coordinates:
            yield from _points(part)
