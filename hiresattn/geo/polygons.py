"""Polygons with classes as a manifest: windows or boxes in the scenes' px, split by place."""

import os
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from hiresattn.datasets.example import SPLITS, Example
from hiresattn.datasets.rectangles import rectangles
from hiresattn.datasets.sources import Unusable, sources_of
from hiresattn.datasets.splits import drawn_splits, rarest_labels
from hiresattn.datasets.write import write_manifest
from hiresattn.errors import ConfigError
from hiresattn.geo.areas import Area, areas_of, read_frame, windows_of
from hiresattn.geo.extras import needed
from hiresattn.option_types import changed, check_types

#: Metres of a degree of latitude.
_DEGREE = 111_195.0


@dataclass(frozen=True)
class PolygonOptions:
    """How a manifest is made of polygons.

    Raises:
        ConfigError: If a value is out of bounds.
    """

    class_column: str = "class"
    """Column that holds the class."""
    boxes: bool = False
    """Whether polygons are boxes on their scenes, a row per scene; else each is a window to classify."""
    distance: float = 1000.0
    """Metres between what is in different splits, at least."""
    val: float = 0.15
    """Share of the places that validates, class by class, 0 to below 1."""
    test: float = 0.15
    """Share of the places that is kept for testing."""
    seed: int = 0
    """Seed of the split."""
    overwrite: bool = False
    """Whether to replace a manifest that is there."""

    def __post_init__(self) -> None:
        check_types(self)
        if min(self.val, self.test) < 0 or not self.val + self.test < 1:
            raise ConfigError(
                f"val and test are shares that leave some to train on; got {self.val:g} and {self.test:g}"
            )
        if not 0 <= self.distance < np.inf:
            raise ConfigError(f"distance is in metres, 0 or more; got {self.distance!r}")


@dataclass(frozen=True)
class PolygonManifest:
    """What a manifest was made of."""

    manifest: str
    """The file."""
    rows: int
    """Rows in it: windows, or scenes with boxes."""
    scenes: int
    """Scenes that they are of."""
    places: int
    """Groups of them that lie closer together than ``distance``; each is in one split."""
    classes: dict[str, dict[str, int]]
    """Of each class the polygons on scenes in ``train``, ``val`` and ``test``."""
    left_out: tuple[str, ...]
    """What isn't in it, and why, a sentence each."""

    def to_json(self) -> dict[str, Any]:
        """The same as JSON types."""
        return asdict(self)


def manifest_of_polygons(
    scenes: str | os.PathLike[str],
    polygons: str | os.PathLike[str],
    output: str | os.PathLike[str],
    options: PolygonOptions | None = None,
    **changes: Any,
) -> PolygonManifest:
    """Make a manifest of scenes and of polygons that say what lies where.

    Each polygon is the rectangle of px around it (with ``boxes`` as many as follow its outline), on every scene that it
    lies on, whatever its CRS. What is closer
    together than ``distance`` is one group, so that no place is trained and tested on.

    Args:
        scenes: A folder, a file or a glob.
        polygons: GeoPackage, GeoJSON, GeoParquet …, with a class for each.
        output: The manifest, ``.csv``.
        options: How; None = the defaults.
        changes: Single options, in place of those of ``options``.

    Returns:
        What was made.

    Raises:
        ConfigError: If there is no such column, nothing lies on any scene, or all of it is one place.
        BackendMissingError: If GeoPandas isn't installed.

    Examples:
        >>> hiresattn.geo.manifest_of_polygons("scenes", "fields.gpkg", "manifest.csv", class_column="crop")
    """
    chosen = changed(options, changes, PolygonOptions)
    if Path(output).exists() and not chosen.overwrite:
        raise ConfigError(
            f"{os.fspath(output)}: is there already; overwrite replaces it, or give another file"
        )
    areas, classes, left_out = _labelled(polygons, chosen.class_column)
    sources = [one for one in sources_of(str(scenes)) if isinstance(one, str | Unusable)]
    windows = []
    for one in windows_of(sources, areas, clip=chosen.boxes):
        if isinstance(one, Unusable):
            left_out.append(one.error)
        else:
            windows.append(replace(one, label=classes[str(one.case)]))
    if not windows:
        raise ConfigError(
            f"{os.fspath(polygons)}: none of its polygons lies on a scene of {os.fspath(scenes)}"
        )
    shapes = {str(area.name): area.shape for area in areas}
    groups = _places([shapes[str(one.case)] for one in windows], windows, chosen)
    examples = _split(windows, groups, chosen)
    counts: dict[str, dict[str, int]] = defaultdict(lambda: dict.fromkeys(SPLITS, 0))
    for one in examples:
        counts[str(one.label)][one.split] += 1
    rows = _boxed(examples) if chosen.boxes else examples
    write_manifest(Path(output), [replace(one, case=None) for one in rows])
    return PolygonManifest(
        manifest=os.fspath(output),
        rows=len(rows),
        scenes=len({str(one.source) for one in rows}),
        places=len(set(groups)),
        classes={name: counts[name] for name in sorted(counts)},
        left_out=tuple(left_out),
    )


def _labelled(path: str | os.PathLike[str], column: str) -> tuple[list[Area], dict[str, str], list[str]]:
    """The polygons of a file, their classes by name, and what has none."""
    frame = read_frame(path)
    if column not in frame.columns:
        has = ", ".join(str(name) for name in frame.columns if name != frame.geometry.name)
        raise ConfigError(
            f"{os.fspath(path)}: no column {column!r}; it has {has or 'none'}; name one with class_column"
        )
    names = frame[column].astype("string").str.strip()
    known = names.notna() & (names != "")
    left_out = [f"{int((~known).sum())} polygons have no class in {column!r}"] if not known.all() else []
    areas = areas_of(frame[known])
    return (
        areas,
        {str(area.name): str(name) for area, name in zip(areas, names[known], strict=True)},
        left_out,
    )


def _places(shapes: Sequence[Any], windows: Sequence[Example], options: PolygonOptions) -> list[int]:
    """A number for each window, the same for what is closer together than the distance; with boxes, for a scene."""
    parent = list(range(len(shapes)))

    def top(number: int) -> int:
        while parent[number] != number:
            parent[number] = parent[parent[number]]
            number = parent[number]
        return number

    for one, other in _near(shapes, options.distance):
        parent[top(one)] = top(other)
    first: dict[Any, int] = {}
    for number, window in enumerate(windows):
        keys = [("polygon", window.case)] + ([("scene", str(window.source))] if options.boxes else [])
        for key in keys:
            parent[top(number)] = top(first.setdefault(key, number))
    return [top(number) for number in range(len(shapes))]


def _near(shapes: Sequence[Any], distance: float) -> Iterator[tuple[int, int]]:
    """Pairs of shapes in longitude and latitude that are closer together than so many metres."""
    shapely = needed("shapely")
    bounds = shapely.bounds(np.array(shapes, object))
    up = distance / _DEGREE
    latitude = np.minimum(np.abs(bounds[:, [1, 3]]).max(axis=1) + up, 89.9)
    aside = up / np.cos(np.radians(latitude))
    wide = np.stack(
        [bounds[:, 0] - aside, bounds[:, 1] - up, bounds[:, 2] + aside, bounds[:, 3] + up], axis=1
    )
    tree = shapely.STRtree(np.array(shapes, object))
    for turn in (0.0, 360.0, -360.0):  # across the antimeridian
        boxes = shapely.box(wide[:, 0] + turn, wide[:, 1], wide[:, 2] + turn, wide[:, 3])
        for one, other in tree.query(boxes).T.tolist():
            if (one < other or turn) and _metres(shapes[one], shapes[other], turn) < max(distance, 1e-9):
                yield one, other


def _metres(one: Any, other: Any, turn: float) -> float:
    """About how far apart two near shapes are."""
    shapely = needed("shapely")
    latitude = np.radians((one.centroid.y + other.centroid.y) / 2)
    scale = np.array([_DEGREE * np.cos(latitude), _DEGREE])
    near, far = (
        shapely.transform(shape, lambda points, by=by: (points + np.array([by, 0])) * scale)
        for shape, by in ((one, turn), (other, 0.0))
    )
    return float(shapely.distance(near, far))


def _split(windows: Sequence[Example], groups: Sequence[int], options: PolygonOptions) -> list[Example]:
    """The windows with their splits, drawn by place and class, and the place as their group."""
    numbers = {group: number for number, group in enumerate(dict.fromkeys(groups), start=1)}
    names = [f"place-{numbers[group]}" for group in groups]
    members: dict[str, list[Example]] = defaultdict(list)
    for name, window in zip(names, windows, strict=True):
        members[name].append(window)
    if len(members) < 2 and options.val + options.test:
        raise ConfigError(
            f"all of it lies within {options.distance:g} m, so that nothing can be kept apart; give a smaller "
            "distance, or val and test of 0"
        )
    drawn = [*rarest_labels(members).items()]
    splits = dict(zip(members, drawn_splits(drawn, options.val, options.test, options.seed), strict=True))
    return [replace(one, split=splits[name], group=name) for name, one in zip(names, windows, strict=True)]


def _boxed(examples: Sequence[Example]) -> list[Example]:
    """A row per scene, with what lies on it as boxes along the outlines."""
    scenes: Mapping[str, list[Example]] = defaultdict(list)
    for one in examples:
        scenes[str(one.source)].append(one)
    shown = {name: [*dict.fromkeys(str(one.label) for one in own)] for name, own in scenes.items()}
    several = any(len(labels) > 1 for labels in shown.values())
    rows = []
    for name, own in scenes.items():
        boxes = [(box, str(one.label)) for one in own for box in _along(one)]
        rows.append(
            replace(
                own[0],
                region=None,
                outline=None,
                label=tuple(shown[name]) if several else shown[name][0],
                boxes=tuple(box for box, _ in boxes),
                box_labels=tuple(label for _, label in boxes),
            )
        )
    return rows


def _along(window: Example) -> list[tuple[int, int, int, int]]:
    """The boxes along an outline, within its window."""
    assert window.region is not None  # noqa: S101 - windows have one
    top, left, height, width = window.region
    found = []
    for polygon in window.outline or ():
        for y, x, rows, columns in rectangles(tuple(tuple((x, y) for y, x in ring) for ring in polygon)):
            start = max(y, top), max(x, left)
            end = min(y + rows, top + height), min(x + columns, left + width)
            if start[0] < end[0] and start[1] < end[1]:
                found.append((*start, end[0] - start[0], end[1] - start[1]))
    return found or [window.region]
