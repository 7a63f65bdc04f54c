"""Boxes beside an image: JSON, or a GeoJSON file."""

import json
import math
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

from hiresattn.errors import ConfigError

#: Values of a box that says its class.
_WITH_CLASS = 5


class Boxes(NamedTuple):
    """Where targets are, and what they are."""

    places: tuple[tuple[int, int, int, int], ...]
    """``(y, x, height, width)`` each, level-0 px."""
    labels: tuple[str, ...] | None
    """Class of each; None = that isn't said."""


def read_boxes(text: str, manifest: Path, where: str, *, named: bool = False) -> Boxes | None:
    """Read boxes: JSON ``[[y, x, height, width(, "class")], …]``, or the name of a GeoJSON file in px (x, y).

    Args:
        text: The one or the other; empty = not known.
        manifest: What the file lies beside.
        where: What is being read, for messages.
        named: Whether the features of a GeoJSON must name their classes, as QuPath's ``classification`` does or a
            property ``label``; else they aren't asked.

    Returns:
        Places and classes; None = not known.

    Raises:
        ConfigError: If they can't be read, one is empty, or some have a class and others don't.
    """
    if not text:
        return None
    try:
        if not text.startswith("["):
            return _geojson_boxes(
                json.loads((manifest.parent / text).read_text(encoding="utf-8")), named=named
            )
        rows = json.loads(text)
        boxes = tuple((int(y), int(x), int(h), int(w)) for y, x, h, w, *_ in rows)
        labels = [str(row[4]) for row in rows if len(row) == _WITH_CLASS]
        if any(len(row) > _WITH_CLASS for row in rows) or len(labels) not in (0, len(rows)):
            raise ValueError("all need four numbers, or four numbers and a class")  # noqa: TRY301 - told below
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
            "level-0 px, each perhaps with a class after them, or the name of a GeoJSON file"
        ) from error
    if any(height < 1 or width < 1 for _, _, height, width in boxes):
        raise ConfigError(f"{where}: a box needs a height and width of at least 1 px: {text[:60]}")
    return Boxes(boxes, tuple(labels) or None)


def _geojson_boxes(found: Any, *, named: bool) -> Boxes:
    """The rectangles around a GeoJSON's features, whose coordinates are level-0 px (x, y), as QuPath's."""
    features = found if isinstance(found, list) else found.get("features", [found])
    boxes, labels = [], []
    for feature in features:
        points = list(_points(feature.get("geometry", feature)["coordinates"]))
        left, top = (math.floor(min(p[i] for p in points)) for i in (0, 1))
        right, bottom = (math.ceil(max(p[i] for p in points)) for i in (0, 1))
        boxes.append((top, left, max(bottom - top, 1), max(right - left, 1)))
        if named:
            said = feature.get("properties") or {}
            label = (said.get("classification") or {}).get("name") or said.get("label")
            if not label:
                raise ValueError(f"feature {len(boxes)} has no class, and its row no label")
            labels.append(str(label))
    return Boxes(tuple(boxes), tuple(labels) or None)


def _points(coordinates: Any) -> Iterator[tuple[float, float]]:
    if coordinates and isinstance(coordinates[0], (int, float)):
        yield float(coordinates[0]), float(coordinates[1])
    else:
        for part in coordinates:
            yield from _points(part)
