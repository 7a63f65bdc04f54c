"""Boxes beside an image: JSON, or a GeoJSON file."""

import json
import logging
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from hiresattn.datasets.georeferenced import in_px, may_be_georeferenced
from hiresattn.datasets.rectangles import Polygon, rectangles
from hiresattn.errors import ConfigError
from hiresattn.files import is_remote, read_bounded

_log = logging.getLogger(__name__)

#: Most bytes of a GeoJSON file.
_MOST_BYTES = 256 << 20
#: Numbers of a box.
_NUMBERS = 4


class Boxes(NamedTuple):
    """Known targets and what they are."""

    boxes: tuple[tuple[int, int, int, int], ...]
    """``(y, x, height, width)`` each, level-0 px."""
    labels: tuple[str, ...] | None
    """Class of each; None = not known."""
    confidence: tuple[float, ...] | None = None
    """Probability that each shows its class; None = all are certain."""
    cropped: bool = False
    """Whether they count from the corner of a slide's scanned part, as QuPath does, rather than from its own."""

    polygons: tuple[tuple[Polygon, ...], ...] = ()
    """Polygons of each of a GeoJSON's features, where they may be other than px."""
    crs: str | None = None
    """Their CRS, where the file names it."""

    def placed(self, source: str) -> "Boxes":
        """The same boxes, as level-0 px of an image.

        Raises:
            ConfigError: If they can't be placed on it.
        """
        if self.polygons:
            return _of_polygons(in_px(self.polygons, self.crs, source), self.labels)
        down, right = _scanned_corner(source) if self.cropped else (0, 0)
        moved = tuple((y + down, x + right, height, width) for y, x, height, width in self.boxes)
        return Boxes(moved, self.labels)


def read_boxes(
    text: str,
    manifest: Path,
    where: str,
    *,
    source: str,
    known: dict[Any, Boxes | None],
    named: bool = False,
    strict: bool = True,
) -> Boxes | None:
    """Read boxes: JSON ``[[y, x, height, width(, "class")(, confidence)], …]``, or the name of a GeoJSON file.

    The coordinates of a GeoJSON are (x, y): px, or of a CRS where the image has one; see ``georeferenced.in_px``. A
    polygon is as many boxes as it takes to follow its outline; see ``rectangles.rectangles``. QuPath's ignored classes,
    whose names end in ``*``, are left out; objects within objects count.

    Args:
        text: JSON or a file's name; empty = boxes are not known.
        manifest: The manifest; the GeoJSON's path is relative to its folder.
        where: File and line, for messages.
        source: Path or address of the image.
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
                found = json.loads(read_bounded(manifest.parent / text, _MOST_BYTES))
                known[text, named, strict] = _geojson_boxes(found, text, named=named, strict=strict)
            boxes = known[text, named, strict]
            if boxes is None:
                return None
            if boxes.cropped or boxes.polygons:
                key = text, named, strict, source
                boxes = known[key] = known.get(key) or boxes.placed(source)
            return boxes
        rows = json.loads(text)
        given = tuple((int(y), int(x), int(h), int(w)) for y, x, h, w, *_ in rows)
        labels, confidence = _after_numbers([row[_NUMBERS:] for row in rows])
    except ConfigError as error:
        raise ConfigError(f"{where}: boxes {text[:60]!r}: {error}") from error
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
            "level-0 px, each perhaps with a class and a confidence after them, or the name of a GeoJSON file"
        ) from error
    if any(height < 1 or width < 1 for _, _, height, width in given):
        raise ConfigError(f"{where}: a box needs a height and width of at least 1 px: {text[:60]}")
    return Boxes(given, labels, confidence)


def _after_numbers(
    rest: Sequence[Sequence[Any]],
) -> tuple[tuple[str, ...] | None, tuple[float, ...] | None]:
    """Class and confidence of boxes, from what follows their numbers; None = they have none."""
    confidence = [row[-1] for row in rest if row and isinstance(row[-1], float)]
    names = [row[:-1] if row and isinstance(row[-1], float) else row for row in rest]
    labels = [_name(row[0]) for row in names if row]
    counts = {len(own) for own in (labels, confidence)}
    if any(len(row) > 1 for row in names) or not counts <= {0, len(rest)}:
        raise ValueError("all need four numbers, perhaps a class, perhaps a confidence, and all the same")
    if not all(0 < value <= 1 for value in confidence):
        raise ValueError("a confidence is a probability, above 0 to 1")
    return tuple(labels) or None, tuple(confidence) or None


def _geojson_boxes(found: Any, name: str, *, named: bool, strict: bool) -> Boxes | None:
    """The boxes of a GeoJSON's features; None = it has ignored ones only, which tell nothing of a label."""
    listed = list(_with_children(found if isinstance(found, list) else found.get("features", [found])))
    features = [feature for feature in listed if not _is_ignored(feature)]
    if len(features) < len(listed):
        _log.warning(
            "%s: left out %d of %d boxes: their classes end in *, which is how QuPath marks what is to be ignored",
            name, len(listed) - len(features), len(listed),
        )  # fmt: skip
        if not (features or named):
            return None
    polygons = tuple(tuple(_polygons(feature.get("geometry", feature))) for feature in features)
    labels = [_class_of(feature.get("properties") or {}) for feature in features] if named else []
    if not all(labels) and any(labels) and strict:
        raise ValueError(
            f"feature {labels.index(None) + 1} has no class, others have, and its row has no label"
        )
    names = tuple(map(_name, labels)) if labels and all(labels) else None
    by_qupath = any(map(_by_qupath, features))
    crs = None if isinstance(found, list) else _crs(found.get("crs"))
    if crs is not None or (not by_qupath and may_be_georeferenced(polygons, None)):
        return Boxes((), names, polygons=polygons, crs=crs)
    return _of_polygons(polygons, names)._replace(cropped=by_qupath)


def _of_polygons(polygons: Sequence[Sequence[Polygon]], labels: Sequence[str] | None) -> Boxes:
    """The boxes of features, px; a feature's class is that of each of its boxes."""
    parts = [[box for polygon in feature for box in rectangles(polygon)] for feature in polygons]
    names = None if labels is None else [name for name, own in zip(labels, parts, strict=True) for _ in own]
    return Boxes(tuple(box for own in parts for box in own), None if names is None else tuple(names))


def _with_children(features: Sequence[Any]) -> Iterator[Any]:
    """Features, each before those that QuPath nests in it."""
    for feature in features:
        yield feature
        properties = feature.get("properties") or {}
        yield from _with_children(properties.get("childObjects") or properties.get("children") or ())


def _crs(member: Any) -> str | None:
    """The name in a GeoJSON's member ``crs``, which older writers have; None = it has none."""
    if member is None:
        return None
    return str(member["properties"]["name"])


def _scanned_corner(source: str) -> tuple[int, int]:
    """Corner ``(y, x)`` of the scanned part of a slide, level-0 px; (0, 0) where there is none, or no such file."""
    from hiresattn.pyramid.formats.openslide import scanned_part

    part = None if is_remote(source) else scanned_part(source)
    return (0, 0) if part is None else part[:2]


def _is_ignored(feature: Any) -> bool:
    return str(_class_of(feature.get("properties") or {}) or "").rstrip().endswith("*")


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


def _polygons(geometry: Any) -> Iterator[Polygon]:
    """The polygons of a GeoJSON geometry; of lines and points the rectangle around them."""
    if geometry.get("type") == "GeometryCollection":
        for part in geometry["geometries"]:
            yield from _polygons(part)
    elif geometry.get("type") in ("Polygon", "MultiPolygon"):
        found = geometry["coordinates"]
        for rings in [found] if geometry["type"] == "Polygon" else found:
            yield tuple(tuple(_points(ring)) for ring in rings)
    else:
        xs, ys = zip(*_points(geometry["coordinates"]), strict=True)
        left, top, right, bottom = min(xs), min(ys), max(xs), max(ys)
        yield (((left, top), (right, top), (right, bottom), (left, bottom)),)


def _points(coordinates: Any) -> Iterator[tuple[float, float]]:
    if coordinates and isinstance(coordinates[0], (int, float)):
        yield float(coordinates[0]), float(coordinates[1])
    else:
        for part in coordinates:
            yield from _points(part)
