"""Areas of interest as windows of scenes."""

import os
from collections.abc import Iterable, Sequence
from contextlib import nullcontext
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from hiresattn.datasets.example import Example
from hiresattn.datasets.sources import Unusable
from hiresattn.errors import ConfigError, HiresattnError, reason
from hiresattn.geo.extras import needed
from hiresattn.geo.outlines import LON_LAT, corners, lon_lat_polygons, polygon_on_earth
from hiresattn.pyramid import Pyramid, open_pyramid
from hiresattn.pyramid.clipped import Outline
from hiresattn.pyramid.placed import crs_code, transformed

#: Parts that an area's longer side is divided into before it is brought to another CRS.
_PARTS = 64
#: By how much a scene is widened before an area is cut to it, degrees; then it is cut to its px.
_WIDER = 2e-6
#: By how much an area may reach into a px that isn't taken, px.
_WITHIN = 0.01


@dataclass(frozen=True)
class Area:
    """A part of the Earth to classify."""

    name: str | None
    """What its case is called; None = it is the only one, and every scene must have it."""
    shape: Any
    """A shapely geometry, longitude and latitude."""
    own: Any = None
    """The same as it was given; None = in longitude and latitude."""
    crs: Any = LON_LAT
    """CRS of ``own``."""


@dataclass(frozen=True)
class Bounds:
    """A box in each scene's own CRS, all of which is one area."""

    left: float
    bottom: float
    right: float
    top: float
    name: None = None


def box_area(west: float, south: float, east: float, north: float) -> Area:
    """The area of a bounding box in degrees; west of more than east crosses the antimeridian.

    Raises:
        BackendMissingError: If shapely isn't installed.
    """
    shapely = needed("shapely")
    spans = [(west, east)] if west <= east else [(west, 180.0), (-180.0, east)]
    return Area(None, shapely.union_all([shapely.box(a, south, b, north) for a, b in spans]))


def areas_of(frame: Any) -> list[Area]:
    """The rows of a GeoDataFrame, in any CRS, as areas that are called by its index.

    Raises:
        ConfigError: If it has no CRS, or names in its index are there twice.
    """
    if frame.crs is None:
        raise ConfigError("the areas have no CRS; give them theirs, as with set_crs('EPSG:4326')")
    names = [str(name) for name in frame.index]
    twice = {name for name in names if names.count(name) > 1} if len(set(names)) < len(names) else ()
    if twice:
        raise ConfigError(
            f"the areas' index has {min(twice)!r} twice; give each a name of its own, as reset_index does"
        )
    crs = frame.crs.to_string()
    shapes = zip(names, frame.geometry, strict=True)
    return [Area(name, _on_earth(shape, crs), _polygons(shape), crs) for name, shape in shapes]


def read_areas(path: str | os.PathLike[str]) -> list[Area]:
    """The features of a file as areas; see ``read_frame``."""
    try:
        return areas_of(read_frame(path))
    except ConfigError as error:
        raise ConfigError(f"{os.fspath(path)}: {str(error).removeprefix(f'{os.fspath(path)}: ')}") from error


def read_frame(path: str | os.PathLike[str]) -> Any:
    """The features of a file (GeoJSON, GeoPackage, GeoParquet …) as a GeoDataFrame.

    They are called by the column ``id`` where all have one, else by their number in the file, from 1: its index.

    Raises:
        ConfigError: If it can't be read, or holds no features.
        BackendMissingError: If GeoPandas isn't installed.
    """
    geopandas = needed("geopandas")
    try:
        frame = geopandas.read_parquet(path) if Path(path).suffix == ".parquet" else geopandas.read_file(path)
        shapes = frame.geometry
    except Exception as error:
        raise ConfigError(
            f"{os.fspath(path)}: areas can't be read from it ({reason(error)}); give GeoJSON, GeoPackage or GeoParquet"
        ) from error
    if shapes.empty:
        raise ConfigError(f"{os.fspath(path)}: no areas are in it")
    ids = next((frame[name] for name in frame.columns if str(name).lower() == "id"), None)
    if ids is None or ids.isna().any() or not ids.is_unique:
        ids = range(1, len(frame) + 1)
    frame.index = [str(one) for one in ids]
    return frame


def windows_of(sources: Iterable[Any], areas: Sequence[Area | Bounds], *, clip: bool = False) -> list[Any]:
    """The areas as windows of the scenes that they lie on: what ``classify_all`` takes.

    A window is the rectangle of px around an area, cut to the scene. Windows of one area on several scenes are a case.

    Args:
        sources: Paths, open pyramids, examples; what can't be used stays as it is.
        areas: The areas.
        clip: Whether px of a window that lie outside its area aren't valid, and aren't looked at.

    Returns:
        An ``Example`` per area and scene; in place of a scene that can't be placed, and of an area that lies on no
        scene, an ``Unusable`` that says so.
    """
    found: list[Any] = []
    seen: set[str | None] = set()
    listed = list(sources)
    for source in listed:
        if isinstance(source, Unusable):
            found.append(source)
            continue
        example = source if isinstance(source, Example) else Example(source)
        name = str(getattr(example.source, "source", example.source))
        try:
            windows = _windows(example, areas, clip=clip)
        except HiresattnError as error:
            found.append(Unusable(name, str(error), example.label, example.region, example.case))
            continue
        for area, window in zip(areas, windows, strict=True):
            if window is not None:
                seen.add(area.name)
                case = "/".join(filter(None, (example.case, area.name))) or None
                region, outline = window
                found.append(replace(example, region=region, outline=outline, case=case))
            elif area.name is None:
                found.append(
                    Unusable(name, f"{name}: the box {_words(area)} lies outside of it", example.label)
                )
    some = "the scene" if len(listed) == 1 else f"any of the {len(listed)} scenes"
    found += [
        Unusable(f"area {name}", f"area {name}: no part of it lies on {some}", case=name)
        for name in (area.name for area in areas)
        if name is not None and name not in seen
    ]
    return found


def _words(area: Area | Bounds) -> str:
    if isinstance(area, Bounds):
        return f"{area.left:g},{area.bottom:g},{area.right:g},{area.top:g} (left, bottom, right, top)"
    return ",".join(f"{value:g}" for value in area.shape.bounds) + " (W,S,E,N)"


def _windows(
    example: Example, areas: Sequence[Area | Bounds], *, clip: bool
) -> list[tuple[tuple[int, int, int, int], Outline | None] | None]:
    """The window of each area on a scene, and its outline where it is clipped to it; None = it isn't on it."""
    source = example.source
    with nullcontext(source) if isinstance(source, Pyramid) else open_pyramid(source) as image:
        if image.place_crs is None:
            raise ConfigError(
                f"{image.source}: it has no coordinate system, so that areas have no place on it; give a region in px"
            )
        y, x, height, width = example.region or (0, 0, image.height, image.width)
        boxes = [area for area in areas if isinstance(area, Bounds)]
        if boxes:
            around = [_box(image, box, (y, x, height, width)) for box in boxes]
            return [None if window is None else (window, None) for window in around]
        frame = corners([(y, x, height, width)], image.place)
        shapely = needed("shapely")
        try:
            (scene,) = shapely.buffer(lon_lat_polygons(frame, image.place_crs), _WIDER, join_style="mitre")
        except HiresattnError as error:
            raise ConfigError(f"{image.source}: {error}") from error
        return [
            _window(image, area, scene, (y, x, height, width), clip=clip)
            for area in areas
            if isinstance(area, Area)
        ]


def _window(
    image: Pyramid, area: Area, scene: Any, within: tuple[int, int, int, int], *, clip: bool
) -> tuple[tuple[int, int, int, int], Outline | None] | None:
    """The px around what of an area lies on a scene (its polygon in degrees), and its outline."""
    assert image.place_crs is not None  # noqa: S101 - it was asked before
    shapely = needed("shapely")
    outline = _outline(image, shapely.intersection(scene, area.shape), LON_LAT)
    points = [np.array(ring) for rings in outline for ring in rings]
    if not points:
        return None
    low, high = np.min([one.min(0) for one in points], 0), np.max([one.max(0) for one in points], 0)
    window = _around(low, high, within)
    if window is None or not clip:
        return None if window is None else (window, None)
    if area.own is not None and crs_code(area.crs) == image.place_crs:  # as it was given, to the last digit
        y, x, height, width = window
        (frame,) = corners([(y - 1, x - 1, height + 2, width + 2)], image.place)
        outline = _outline(image, shapely.intersection(area.own, shapely.Polygon(frame)), image.place_crs)
    return window, outline


def _outline(image: Pyramid, shape: Any, crs: str) -> Outline:
    """The polygons of a geometry in px of an image: rings of points (y, x)."""
    assert image.place_crs is not None  # noqa: S101 - it was asked before
    shapely, turn = needed("shapely"), _turn(image)
    found = []
    for one in shapely.get_parts(shapely.get_parts(shape)):
        if one.is_empty or one.geom_type != "Polygon":
            continue
        rings, shift = [], None
        for ring in (one.exterior, *one.interiors):
            x, y = shapely.get_coordinates(ring if crs == image.place_crs else _finely(ring)).T
            rows, columns = image.rowcol(
                *((x, y) if crs == image.place_crs else transformed(crs, image.place_crs, x, y))
            )
            if turn is not None:  # the scene's longitudes may go on beyond 180
                shift = turn * np.rint((image.width / 2 - columns.mean()) / turn) if shift is None else shift
                columns = columns + shift
            rings.append(tuple(zip(rows.tolist(), columns.tolist(), strict=True)))
        found.append(tuple(rings))
    return tuple(found)


def _box(image: Pyramid, box: Bounds, within: tuple[int, int, int, int]) -> tuple[int, int, int, int] | None:
    """The px around a box in the image's CRS."""
    xs, ys = [box.left, box.left, box.right, box.right], [box.bottom, box.top, box.top, box.bottom]
    at = np.array(image.rowcol(xs, ys))
    return _around(at.min(axis=1), at.max(axis=1), within)


def _around(
    low: np.ndarray, high: np.ndarray, within: tuple[int, int, int, int]
) -> tuple[int, int, int, int] | None:
    """The whole px between two corners (row, column), cut to a window; None = none are."""
    first = np.floor(low + _WITHIN).astype(int)
    last = np.ceil(high - _WITHIN).astype(int)
    corner = np.maximum(first, within[:2])
    end = np.minimum(np.maximum(last, first + 1), np.add(within[:2], within[2:]))
    if (end <= corner).any():
        return None
    (y, x), (height, width) = corner.tolist(), (end - corner).tolist()
    return y, x, height, width


def _turn(image: Pyramid) -> float | None:
    """Columns that 360 degrees have on an image in degrees, north up; None = it is no such image."""
    from rasterio.crs import CRS

    if image.transform is None:
        return None
    a, b, _, d, _, _ = image.transform
    return 360 / abs(a) if not b and not d and CRS.from_user_input(image.place_crs).is_geographic else None


def _on_earth(shape: Any, crs: str) -> Any:
    """The polygons of a geometry in longitude and latitude; empty where it has none."""
    shapely = needed("shapely")
    found = []
    for part in shapely.get_parts(_polygons(shape)):
        outer, *holes = (_ring_on_earth(ring, crs) for ring in (part.exterior, *part.interiors))
        if outer is not None:
            found.append(
                shapely.difference(outer, shapely.union_all([one for one in holes if one is not None]))
            )
    return shapely.union_all(found)


def _polygons(shape: Any) -> Any:
    """The polygons of a geometry as one, without what else is in it."""
    shapely = needed("shapely")
    parts = [] if shape is None else shapely.get_parts(shapely.get_parts(shapely.make_valid(shape)))
    return shapely.MultiPolygon([one for one in parts if one.geom_type == "Polygon" and not one.is_empty])


def _ring_on_earth(ring: Any, crs: str) -> Any:
    """What a ring encloses, longitude and latitude; None where it has no place there."""
    points = needed("shapely").get_coordinates(_finely(ring))
    points = np.stack(transformed(crs, LON_LAT, *points.T), axis=1)
    points[:, 0] = np.unwrap(points[:, 0], period=360.0)
    return polygon_on_earth(points) if np.isfinite(points).all() else None


def _finely(shape: Any) -> Any:
    """A geometry with points close enough that straight edges stay in place in another CRS."""
    if shape.is_empty:
        return shape
    west, south, east, north = shape.bounds
    side = max(east - west, north - south)
    return needed("shapely").segmentize(shape, side / _PARTS) if side > 0 else shape
