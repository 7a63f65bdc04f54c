"""Polygons as rectangles that follow their outlines."""

import math
from collections.abc import Sequence
from typing import Any

import numpy as np

from hiresattn.pyramid.formats.quiet import quiet

#: Corners (x, y) of one ring, as GeoJSON has them.
Ring = tuple[tuple[float, float], ...]
#: The outer ring, then those of holes.
Polygon = tuple[Ring, ...]
Box = tuple[int, int, int, int]

#: Least share of a rectangle that lies within the polygon; a circle fills .79 of the rectangle around it.
_FILLED = 0.75
#: Most rectangles of a polygon.
_MOST = 16
#: Steps along the longer side of a polygon, to which its rectangles follow it.
_STEPS = 128


def _around(ring: Ring) -> Box:
    """The rectangle of whole px around corners (x, y): ``(y, x, height, width)``."""
    left, top = (math.floor(min(point[i] for point in ring)) for i in (0, 1))
    right, bottom = (math.ceil(max(point[i] for point in ring)) for i in (0, 1))
    return top, left, max(bottom - top, 1), max(right - left, 1)


def rectangles(polygon: Polygon) -> tuple[Box, ...]:
    """Cover a polygon with rectangles, and little beside it.

    The rectangle around it, where most of that lies within; else this is divided where the parts are smallest, time and
    again, to 1/128 of its longer side. Holes are not covered.

    Args:
        polygon: Its rings, px.

    Returns:
        ``(y, x, height, width)`` each, px; they don't overlap.
    """
    whole = _around(polygon[0])
    _, _, height, width = whole
    if len(polygon[0]) < 4 or min(height, width) < 4 or _area(polygon) >= _FILLED * height * width:
        return (whole,)
    inside = _raster(polygon, whole)
    parts = [_tight(inside, (0, 0, *inside.shape))]
    while len(parts) < _MOST:
        empty = [_size(part) - int(_cut(inside, part).sum()) for part in parts]
        loose = [n for n, part in enumerate(parts) if empty[n] > (1 - _FILLED) * _size(part)]
        if not loose:
            break
        worst = max(loose, key=empty.__getitem__)
        parts[worst : worst + 1] = _divided(inside, parts[worst])
    return tuple(_in_px(part, inside.shape, whole) for part in parts)


def _raster(polygon: Polygon, whole: Box) -> np.ndarray:
    """Which of the cells of a raster over a rectangle the polygon touches: bool, at least one."""
    from rasterio.errors import NotGeoreferencedWarning
    from rasterio.features import rasterize
    from rasterio.transform import from_bounds

    y, x, height, width = whole
    step = max(height, width, _STEPS) / _STEPS
    size = max(1, round(height / step)), max(1, round(width / step))
    rings = [[*ring, ring[0]] for ring in polygon if len(ring) > 2]
    geometry: dict[str, Any] = {"type": "Polygon", "coordinates": rings}
    place = from_bounds(x, y + height, x + width, y, size[1], size[0])
    with quiet(NotGeoreferencedWarning):  # where a step is a px
        found = rasterize([geometry], out_shape=size, transform=place, all_touched=True, dtype=np.uint8)
    return np.asarray(found.astype(bool) if found.any() else np.ones(size, bool))


def _divided(inside: np.ndarray, part: Box) -> list[Box]:
    """Two parts of one, where together they are smallest."""
    y, x, height, width = part
    own = _cut(inside, part)
    down, across = (
        _growing(cut)[:-1] + _growing(cut[::-1])[-2::-1] if len(cut) > 1 else np.array([np.inf])
        for cut in (own, own.T)
    )
    if down.min() <= across.min():
        at = 1 + int(down.argmin())
        two = (y, x, at, width), (y + at, x, height - at, width)
    else:
        at = 1 + int(across.argmin())
        two = (y, x, height, at), (y, x + at, height, width - at)
    return [_tight(inside, one) for one in two]


def _growing(inside: np.ndarray) -> np.ndarray:
    """Sizes of the rectangles around what the first 1, 2, … rows hold."""
    some, width = inside.any(axis=1), inside.shape[1]
    first = np.where(some, inside.argmax(axis=1), width)
    last = np.where(some, width - inside[:, ::-1].argmax(axis=1), 0)
    height = np.where(some, np.arange(1, len(inside) + 1), 0)
    across = np.maximum.accumulate(last) - np.minimum.accumulate(first)
    return np.asarray(np.maximum.accumulate(height) * across)


def _tight(inside: np.ndarray, part: Box) -> Box:
    """The rectangle around what lies within the polygon, of a part whose every row and column has some."""
    rows, columns = (np.flatnonzero(_cut(inside, part).any(axis=axis)) for axis in (1, 0))
    return (
        part[0] + int(rows[0]),
        part[1] + int(columns[0]),
        int(rows[-1] - rows[0]) + 1,
        int(columns[-1] - columns[0]) + 1,
    )


def _cut(inside: np.ndarray, part: Box) -> np.ndarray:
    y, x, height, width = part
    return inside[y : y + height, x : x + width]


def _size(part: Box) -> int:
    return part[2] * part[3]


def _in_px(part: Box, size: Sequence[int], whole: Box) -> Box:
    """A part of the raster, as px."""
    (top, bottom), (left, right) = (
        tuple(
            whole[axis] + round(at * whole[2 + axis] / size[axis]) for at in (start, start + part[2 + axis])
        )
        for axis, start in ((0, part[0]), (1, part[1]))
    )
    return top, left, max(bottom - top, 1), max(right - left, 1)


def _area(polygon: Polygon) -> float:
    """Area of a polygon without its holes, by the shoelace formula."""
    found = []
    for ring in polygon:
        x, y = np.array(ring, np.float64).T
        found.append(abs(float(np.dot(x, np.roll(y, -1)) - np.dot(y, np.roll(x, -1)))) / 2)
    return found[0] - sum(found[1:])
