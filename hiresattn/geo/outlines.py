"""Outlines of regions: corners in px, in the coordinates of an image's CRS, and in longitude and latitude."""

from typing import Any

import numpy as np

from hiresattn.errors import HiresattnError
from hiresattn.geo.extras import needed
from hiresattn.inference.record import CaseSource
from hiresattn.pyramid.placed import ControlPoints, crs_name, transformed
from hiresattn.shapes import Float64

LON_LAT = "EPSG:4326"
#: Parts that edges are divided into before they are brought to longitude and latitude, where they are bent: of most
#: regions, and of those that need more, such as near a pole.
_PARTS = (16, 256)
#: Largest distance of a line in longitude and latitude from the edge that it stands for, degrees (0.1 m).
_NEAR = 1e-6


#: What places px: an affine transform, or ground control points; None = nothing does.
Place = tuple[float, ...] | ControlPoints | None


def place_of(source: CaseSource) -> Place:
    """What places the px of an image of a record in its CRS."""
    if source.crs is None or source.transform is not None:
        return None if source.crs is None else source.transform
    return ControlPoints(source.gcps, source.crs) if source.gcps else None


def corners(regions: Any, place: Place) -> Float64[np.ndarray, "n 4 2"]:
    """The corners (x, y) of regions: top left, bottom left, bottom right, top right, as the image is stored.

    Args:
        regions: ``(y, x, height, width)`` each, level-0 px.
        place: What brings px to coordinates; None = px stay px.
    """
    y, x, height, width = np.asarray(regions, np.float64).reshape(-1, 4).T
    columns = np.stack([x, x, x + width, x + width], axis=1)
    rows = np.stack([y, y + height, y + height, y], axis=1)
    if place is None:
        return np.stack([columns, rows], axis=2)
    if isinstance(place, ControlPoints):
        return np.stack(place.xy(rows, columns), axis=2)
    a, b, c, d, e, f = place
    return np.stack([a * columns + b * rows + c, d * columns + e * rows + f], axis=2)


def polygons(outlines: Float64[np.ndarray, "n 4 2"]) -> list[Any]:
    """One polygon per outline."""
    return list(needed("shapely").polygons(outlines)) if len(outlines) else []


def lon_lat_polygons(outlines: Float64[np.ndarray, "n 4 2"], crs: str) -> list[Any]:
    """The polygons in longitude and latitude, as RFC 7946 wants them.

    Edges have as many points as they need to stay where they are. Exteriors run counter-clockwise. What crosses the
    antimeridian is cut there; what holds a pole reaches up to it.

    Args:
        outlines: Corners (x, y) of each, coordinates of the CRS.
        crs: An authority code or WKT.

    Returns:
        A polygon or multipolygon each.

    Raises:
        HiresattnError: If the CRS can't be brought to longitude and latitude on Earth.
    """
    found: dict[int, Any] = {}
    for parts in _PARTS:
        left = [number for number in range(len(outlines)) if number not in found]
        if left:
            for number, ring in zip(left, _lon_lat(outlines[left], crs, parts), strict=True):
                thinned = _thinned(ring, parts)
                if thinned is not None or parts == _PARTS[-1]:
                    found[number] = polygon_on_earth(ring if thinned is None else thinned)
    return [found[number] for number in range(len(outlines))]


def _lon_lat(outlines: np.ndarray, crs: str, parts: int) -> np.ndarray:
    """Closed rings ``[n, 4 parts + 1, 2]`` of longitudes, without jumps, and latitudes."""
    share = np.arange(parts)[:, None] / parts
    ends = np.roll(outlines, -1, axis=1)
    dense = outlines[:, :, None] + share * (ends - outlines)[:, :, None]  # [n 4 parts 2]
    dense = dense.reshape(len(outlines), -1, 2)
    lon, lat = transformed(crs, LON_LAT, dense[..., 0].ravel(), dense[..., 1].ravel())
    points = np.stack([lon, lat], axis=1).reshape(dense.shape)
    if not np.isfinite(points).all():
        raise HiresattnError(f"part of it lies where {crs_name(crs)} has no longitude and latitude")
    closed = np.concatenate([points, points[:, :1]], axis=1)
    closed[..., 0] = np.unwrap(closed[..., 0], period=360.0, axis=1)
    return closed


def _thinned(closed: np.ndarray, parts: int) -> np.ndarray | None:
    """A ring with as few points per edge as keep it in place; None = it needs more than it has."""
    count = 1
    while count < parts:
        step = parts // count
        kept = closed[::step]
        share = (np.arange(len(closed) - 1) % step / step)[:, None]
        at = np.arange(len(closed) - 1) // step
        lines = kept[at] + share * (kept[at + 1] - kept[at])
        off = np.abs(lines - closed[:-1]).max()
        if off <= _NEAR:
            return kept
        count *= 2
    return closed if off <= 4 * _NEAR else None  # with twice the points it is off by a fourth


def polygon_on_earth(closed: np.ndarray) -> Any:
    """The polygon of a closed ring ``[m 2]`` of longitudes, without jumps, and latitudes."""
    shapely = needed("shapely")
    turns = round((closed[-1, 0] - closed[0, 0]) / 360)
    if turns:  # around a pole
        pole = 90.0 if closed[:, 1].mean() > 0 else -90.0
        closed = np.concatenate([closed, [[closed[-1, 0], pole], [closed[0, 0], pole], closed[0]]])
    whole = shapely.Polygon(closed)
    west, _, east, _ = whole.bounds
    if west < -180 or east > 180:
        first, last = (int(np.floor((end + 180) / 360)) for end in (west, np.nextafter(east, west)))
        worlds = [_moved(whole, 360.0 * world) for world in range(first, last + 1)]
        if turns:
            worlds = [shapely.union_all(worlds)]
        parts = [one for world in worlds for one in shapely.get_parts(world) if one.geom_type == "Polygon"]
        whole = parts[0] if len(parts) == 1 else shapely.MultiPolygon(parts)
    return _counter_clockwise(whole)


def _moved(whole: Any, by: float) -> Any:
    """What of a polygon lies in one turn of the Earth, moved to -180 to 180."""
    shapely = needed("shapely")
    part = shapely.intersection(whole, shapely.box(by - 180, -90, by + 180, 90))
    return shapely.transform(part, lambda points: points - [by, 0])


def _counter_clockwise(geometry: Any) -> Any:
    shapely = needed("shapely")
    orient = needed("shapely.geometry.polygon").orient
    if geometry.geom_type == "Polygon":
        return orient(geometry)
    return shapely.MultiPolygon([orient(part) for part in shapely.get_parts(geometry)])
