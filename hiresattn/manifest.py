"""Manifests: which images (or windows of images), with which labels, in which split."""

import csv
import io
import json
import math
import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from hiresattn.config import did_you_mean
from hiresattn.errors import ConfigError, NotFoundError

SPLITS = ("train", "val", "test")
#: Columns that say what belongs together, such as the slides of a patient; the first of them that is there counts.
GROUPS = ("group", "case_id", "patient")
#: Columns that stand for ``path`` where there is none.
SOURCES = ("slide", "slide_id")
_REGION = ("y", "x", "height", "width")
#: Most characters of one value; a list of boxes can be long.
_LONGEST = 1 << 26


@dataclass(frozen=True)
class Example:
    """One image, or one window of one, to train on or to classify."""

    source: Any
    """A path or URL, an array, or an open pyramid."""
    label: str | None = None
    """Class name, where known."""
    split: str = "train"
    """``train``, ``val`` or ``test``."""
    region: tuple[int, int, int, int] | None = None
    """``(y, x, height, width)``, level-0 px; None = the whole image."""
    boxes: tuple[tuple[int, int, int, int], ...] | None = None
    """Where what decides the class is: ``(y, x, height, width)`` each, level-0 px of the image; None = not
    known, empty = nowhere."""
    group: str | None = None
    """What it belongs to, such as a patient: never in two splits, and resampled as one; None = itself."""


def read_manifest(path: str | Path, *, labels: bool = False) -> list[Example]:
    """Read a CSV: ``path, label[, split][, y, x, height, width][, boxes][, group]``; other columns are ignored.

    The path may also be called ``slide`` or ``slide_id``, the group ``case_id`` or ``patient``.

    Args:
        path: The CSV. Paths in it are relative to it, unless absolute or URLs.
        labels: Whether labels are needed, as in training: the column must be there, and filled in the rows of
            ``train`` and ``val``; and no image, window of one, or group may be in two splits.

    Returns:
        One example per row, in order.

    Raises:
        NotFoundError: If there is no such file.
        ConfigError: If a column is missing or a value unusable; the message names the line.
    """
    path = Path(path)
    columns, rows = _rows(path)
    if "path" not in columns:
        near = ", ".join(columns) or "nothing"
        raise ConfigError(
            f"{path}: no column 'path'{did_you_mean('path', columns) if columns else ''}; "
            f"the first line has {near}, a manifest needs path,label[,split][,y,x,height,width]"
        )
    if labels and "label" not in columns:
        raise ConfigError(
            f"{path}: no column 'label'; the first line has {', '.join(columns)}, and training needs the class "
            "of every image"
        )
    given = [name for name in _REGION if name in columns]
    if given and len(given) < len(_REGION):
        raise ConfigError(
            f"{path}: a window needs all of y,x,height,width; the first line has {', '.join(given)}"
        )
    group = next((name for name in GROUPS if name in columns), None)
    examples = [_example(row, path, line, group) for line, row in rows]
    if not examples:
        raise ConfigError(f"{path}: no rows below the header")
    for (line, _), example in zip(rows, examples, strict=True):
        if labels and example.label is None and example.split != "test":
            raise ConfigError(f"{path}, line {line}: no label; training needs the class of every image")
    if labels:
        lines = [line for line, _ in rows]
        _check_splits(path, lines, examples, [(_same(e), str(e.source)) for e in examples])
        _check_splits(path, lines, examples, [(e.group, f"{group} {e.group!r}") for e in examples])
    return examples


def _same(example: Example) -> tuple[str, tuple[int, int, int, int] | None]:
    """What makes two rows the same image or window."""
    source = str(example.source)
    return source if "://" in source else os.path.normpath(source), example.region


def _check_splits(path: Path, lines: list[int], examples: list[Example], keys: list[tuple[Any, str]]) -> None:
    """Refuse what is in two splits: a model would be tested on what it was trained on."""
    seen: dict[Any, tuple[int, str]] = {}
    for line, example, (key, name) in zip(lines, examples, keys, strict=True):
        first, split = seen.setdefault(key, (line, example.split))
        if key is not None and split != example.split:
            raise ConfigError(
                f"{path}: {name} is in split {split!r} (line {first}) and in {example.split!r} (line {line}); "
                "what is in two splits tests a model on what it was trained on; give it one split"
            )


def _rows(path: Path) -> tuple[list[str], list[tuple[int, dict[str, str]]]]:
    """The columns, and of each row the line that it ends on and its values."""
    columns = "path,label[,split]"
    try:
        text = path.read_bytes().decode("utf-8-sig")
    except FileNotFoundError as error:
        raise NotFoundError(f"{path}: no such manifest; give a CSV with the columns {columns}") from error
    except IsADirectoryError as error:
        raise NotFoundError(
            f"{path}: a folder, no manifest; give a CSV with the columns {columns}"
        ) from error
    except UnicodeDecodeError as error:
        raise ConfigError(
            f"{path}: not a text file in UTF-8 ({error.reason}); a manifest is a CSV"
        ) from error
    except (OSError, ValueError) as error:
        why = getattr(error, "strerror", None) or error
        raise ConfigError(
            f"{path}: the manifest can't be read ({why}); check name and permissions"
        ) from error
    reader = csv.DictReader(io.StringIO(text, newline=""), strict=True)
    usual = csv.field_size_limit(_LONGEST)
    try:
        names = [name.strip() for name in reader.fieldnames or []]
        alias = next((name for name in SOURCES if name in names), None)
        if alias and "path" not in names:
            names[names.index(alias)] = "path"
        reader.fieldnames = names
        return names, [(reader.line_num, row) for row in reader]
    except csv.Error as error:
        raise ConfigError(f"{path}, line {reader.reader.line_num}: not readable as CSV ({error})") from error
    finally:
        csv.field_size_limit(usual)


def _example(row: dict[str, str], manifest: Path, line: int, group: str | None) -> Example:
    where = f"{manifest}, line {line}"
    source = (row["path"] or "").strip()
    if not source:
        raise ConfigError(f"{where}: the path is empty")
    if "://" not in source and not source.startswith("/vsi"):
        source = str(manifest.parent / source)
    split = (row.get("split") or "").strip() or "train"
    if split not in SPLITS:
        raise ConfigError(
            f"{where}: split {split!r} is none of {', '.join(SPLITS)}{did_you_mean(split, SPLITS)}"
        )
    label = (row.get("label") or "").strip()
    return Example(
        source=source,
        label=label or None,
        split=split,
        region=_region(row, where),
        boxes=_boxes((row.get("boxes") or "").strip(), manifest, where),
        group=((row.get(group) or "").strip() or None) if group else None,
    )


def _region(row: dict[str, str], where: str) -> tuple[int, int, int, int] | None:
    """The window of a row: all of its values, or none."""
    values = [(row.get(name) or "").strip() for name in _REGION]
    if not any(values):
        return None
    if not all(values):
        empty = ",".join(name for name, value in zip(_REGION, values, strict=True) if not value)
        raise ConfigError(f"{where}: a window needs all of y,x,height,width, or none; {empty} is empty")
    try:
        y, x, height, width = map(int, values)
    except ValueError as error:
        raise ConfigError(f"{where}: y,x,height,width must be whole numbers of px: {error}") from error
    return y, x, height, width


def _boxes(text: str, manifest: Path, where: str) -> tuple[tuple[int, int, int, int], ...] | None:
    """Boxes of a row: JSON ``[[y, x, height, width], …]``, or the name of a GeoJSON file in px (x, y)."""
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
