"""Outlines in degrees or in map coordinates, as px of the image that they lie on."""

from collections.abc import Sequence
from typing import Any

import numpy as np

from hiresattn.datasets.rectangles import Polygon, Ring
from hiresattn.errors import ConfigError, HiresattnError
from hiresattn.pyramid import Pyramid, open_pyramid
from hiresattn.pyramid.placed import transformed

#: Polygons of each feature of a file.
Features = Sequence[Sequence[Polygon]]

LON_LAT = "OGC:CRS84"
#: Coordinates from which on they may be those of a map; slides are seldom larger, px.
_FAR = 100_000


def may_be_georeferenced(features: Features, crs: str | None) -> bool:
    """Whether coordinates may be other than px: a CRS is named, or they look like degrees or like a map's."""
    points = [point for ring in _rings(features) for point in ring]
    return bool(points) and (
        crs is not None or _like_degrees(points) or any(v < 0 or v > _FAR for point in points for v in point)
    )


def in_px(features: Features, crs: str | None, source: Any) -> list[list[Polygon]]:
    """Polygons as level-0 px (x, y) of an image.

    Args:
        features: Polygons of each feature, corners (x, y).
        crs: Their CRS; None = not named: px, degrees (as GeoJSON should be) or coordinates of the image's CRS, of which
            what lies on the image is taken.
        source: Path or address of the image. If it can't be opened, px are taken; reading it will say why.

    Raises:
        ConfigError: If they can't be placed: the image has no CRS, none of them lies on it, or they may be px as well
            as degrees.
    """
    rings = _rings(features)
    try:
        with open_pyramid(source) as image:
            found = iter(_placed(rings, crs, image))
    except HiresattnError as error:
        if isinstance(error, ConfigError):
            raise
        found = iter(rings)
    return [[tuple(next(found) for _ in polygon) for polygon in feature] for feature in features]


def _rings(features: Features) -> list[Ring]:
    """All rings of all polygons, one after the other."""
    return [ring for feature in features for polygon in feature for ring in polygon]


def _placed(rings: Sequence[Ring], crs: str | None, image: Pyramid) -> tuple[Ring, ...]:
    degrees = _like_degrees([point for ring in rings for point in ring])
    if image.crs is None or image.transform is None:
        if crs is not None:
            raise ConfigError(
                f"they are in {crs}, and the image has no CRS to place them by; give px (x, y), and no crs"
            )
        if degrees and _tiny(rings):
            raise ConfigError(
                "they look like longitude and latitude, and the image has no CRS to place them by; give px (x, y)"
            )
        return tuple(rings)
    if crs is not None:
        found = _transformed(rings, crs, image)
        if not _on(found, image):
            raise ConfigError(f"none of them lies on the image, by their CRS {crs}; check both")
        return found
    if degrees and _on(found := _transformed(rings, LON_LAT, image), image):
        if _whole(rings) and _on(rings, image):
            raise ConfigError(
                'they may be px as well as degrees; name the CRS in the file ("crs": {"type": "name", "properties": '
                '{"name": "EPSG:4326"}}), or give px as JSON [[y, x, height, width], …]'
            )
        return found
    if _on(found := _transformed(rings, None, image), image) and not _on(rings, image):
        return found
    if _on(rings, image) and not (degrees and _tiny(rings)):
        return tuple(rings)
    raise ConfigError(
        "none of them lies on the image, be they longitude and latitude, coordinates of its CRS, or px; check that "
        "they are this image's"
    )


def _transformed(rings: Sequence[Ring], crs: str | None, image: Pyramid) -> tuple[Ring, ...]:
    """Rings of a CRS (None = the image's) as px."""
    assert image.crs is not None  # noqa: S101 - checked before
    found = []
    for ring in rings:
        xs, ys = np.array(ring, np.float64).T
        if crs is not None:
            xs, ys = transformed(crs, image.crs, xs, ys)
        rows, columns = image.rowcol(xs, ys)
        found.append(tuple(zip(columns.tolist(), rows.tolist(), strict=True)))
    return tuple(found)


def _like_degrees(points: Sequence[tuple[float, float]]) -> bool:
    return all(abs(x) <= 180 and abs(y) <= 90 for x, y in points)


def _on(rings: Sequence[Ring], image: Pyramid) -> bool:
    """Whether any of them touches the image."""
    for ring in rings:
        xs, ys = zip(*ring, strict=True)
        if min(xs) < image.width and max(xs) > 0 and min(ys) < image.height and max(ys) > 0:
            return True
    return False


def _tiny(rings: Sequence[Ring]) -> bool:
    """Whether none of them would be as much as 2 px large."""
    return all(max(values) - min(values) < 2 for ring in rings for values in zip(*ring, strict=True))


def _whole(rings: Sequence[Ring]) -> bool:
    return all(float(value).is_integer() for ring in rings for point in ring for value in point)
