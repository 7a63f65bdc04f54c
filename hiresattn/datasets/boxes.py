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
    """Known targets and what they are."""

    boxes: tuple[tuple[int, int, int, int], ...]
    """``(y, x, height, width)`` each, level-0 px."""
    labels: tuple[str, ...] | None
    """Class of each; None = not known."""
    cropped: bool = False
    """Whether they count from the corner of a slide's scanned part, as QuPath does, rather than from its own."""

    def placed(self, corner: tuple[int, int]) -> "Boxes":
        """The same boxes, counted from the slide's corner; ``corner`` is that of the scanned part, ``(y, x)``."""
        if not self.cropped:
            return self
        down, right = corner
        moved = tuple((y + down, x + right, height, width) for y, x, height, width in self.boxes)
        return Boxes(moved, self.labels)


def read_boxes(
    text: str,
    manifest: Path,
    where: str,
    *,
    known: dict[Any, Boxes],
    named: bool = False,
    strict: bool = True,
) -> Boxes | None:
    """Read boxes: JSON ``[[y, x, height, width(, "class")], …]``, or the name of a GeoJSON file in px (x, y).

    Args:
        text: JSON or a file's name; empty = boxes are not known.
        manifest: The manifest; the GeoJSON's path is relative to its folder.
        where: File and line, for messages.
        known: GeoJSON files that were read for other rows of the same manifest; this one is added.
        named: Whether to read the classes of a GeoJSON's features: QuPath's ``classification``, or a property
            ``label``.
        strict: Whether it is an error if some features have a class and others don't; else none counts.

    Returns:
        Boxes and classes; None = not known.

    Raises:
        ConfigError: If they can't be read, one is empty, or some have a class and others don't.
    """
    if not text:
        return None
    try:
        if not text.startswith("["):
            if (text, named, strict) not in known:
                found = json.loads((manifest.parent / text).read_text(encoding="utf-8"))
                known[text, named, strict] = _geojson_boxes(found, named=named, strict=strict)
            return known[text, named, strict]
        rows = json.loads(text)
        boxes = tuple((int(y), int(x), int(h), int(w)) for y, x, h, w, *_ in rows)
        labels = [_name(row[4]) for row in rows if len(row) == _WITH_CLASS]
        if any(len(row) > _WITH_CLASS for row in rows) or len(labels) not in (0, len(rows)):
            raise ValueError("all need four numbers, or four numbers and a class")  # noqa: TRY301 - worded below
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


def _geojson_boxes(found: Any, *, named: bool, strict: bool) -> Boxes:
    """The rectangles around a GeoJSON's features, whose coordinates are level-0 px (x, y), as QuPath's."""
    features = found if isinstance(found, list) else found.get("features", [found])
    boxes = []
    for feature in features:
        points = list(_points(feature.get("geometry", feature)["coordinates"]))
        left, top = (math.floor(min(p[i] for p in points)) for i in (0, 1))
        right, bottom = (math.ceil(max(p[i] for p in points)) for i in (0, 1))
        boxes.append((top, left, max(bottom - top, 1), max(right - left, 1)))
    labels = [_class_of(feature.get("properties") or {}) for feature in features] if named else []
    if all(labels) or not (any(labels) and strict):
        names = tuple(map(_name, labels)) if labels and all(labels) else None
        return Boxes(tuple(boxes), names, any(map(_by_qupath, features)))
    raise ValueError(f"feature {labels.index(None) + 1} has no class, others have, and its row has no label")


def _by_qupath(feature: Any) -> bool:
    properties = feature.get("properties") or {}
    return "objectType" in properties or isinstance(properties.get("classification"), dict)


def _class_of(properties: Any) -> Any:
    """The class that a feature's properties name; None = none. QuPath's derived classes have several names."""
    found = properties.get("classification") or {}
    if isinstance(found, str):
        return found
    return found.get("name") or ": ".join(found.get("names") or ()) or properties.get("label") or None


def _name(label: Any) -> str:
    """A class's name."""
    name = str(label).strip() if isinstance(label, str | int) else ""
    if not name:
        raise ValueError(f"the class of a box is a name, not {label!r}")
    return name


def _points(coordinates: Any) -> Iterator[tuple[float, float]]:
    if coordinates and isinstance(coordinates[0], (int, float)):
        yield float(coordinates[0]), float(coordinates[1])
    else:
        for part in coordinates:
            yield from _points(part)
