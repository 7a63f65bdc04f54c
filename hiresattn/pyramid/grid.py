"""Where xarray's arrays lie: CRS and transform, wherever rioxarray, odc-stac, stackstac and CF keep them."""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np

from hiresattn.errors import OpenError
from hiresattn.pyramid.placed import ControlPoints, crs_code

_Affine = tuple[float, float, float, float, float, float]

#: Names of dimensions, and CF's standard names of their coordinates.
_ROWS = ("y", "lat", "latitude", "northing", "projection_y_coordinate")
_COLUMNS = ("x", "lon", "longitude", "easting", "projection_x_coordinate")
_DEGREES = ("lat", "latitude")
#: By how much coordinates may lie off an even spacing, px: those in float32 are rounded.
_UNEVEN = 0.1
#: By how much a transform may be off the coordinates' and still be taken, px.
_SAME = 1e-3


def spatial_dims(array: Any) -> tuple[Any, ...]:
    """The dimensions of rows and columns; none where it has no such."""
    found = []
    for names in (_ROWS, _COLUMNS):
        named = [dim for dim in array.dims if str(dim).lower() in names]
        named += [dim for dim in array.dims if _standard_name(array, dim) in names]
        found += named[:1]
    return tuple(found) if len(found) == 2 else ()


def _standard_name(array: Any, dim: Any) -> str:
    return str(array.coords[dim].attrs.get("standard_name", "")) if dim in array.coords else ""


#: The transform of what lies in px.
_PX: _Affine = (1.0, 0.0, 0.0, 0.0, 1.0, 0.0)


@dataclass(frozen=True)
class Grid:
    """Where an xarray array lies."""

    array: Any
    """It."""
    whole: Any
    """The data set that it is of, or itself."""
    dims: tuple[Any, ...]
    """Its dimensions of rows and columns."""
    source: str
    """Name used in messages."""

    @property
    def crs(self) -> str | None:
        """The coordinate reference system, wherever a library keeps it; None = it has none.

        Raises:
            OpenError: If it can't be understood.
        """
        found: Any = "of its grid mapping"
        try:
            # rioxarray, where it is imported, knows CF's parameters
            found = next(iter(self._stated_crs()), None) or getattr(
                getattr(self.array, "rio", None), "crs", None
            )
            if found is not None:
                return crs_code(found)
        except Exception as error:
            raise OpenError(
                f"{self.source}: its CRS {str(found)[:80]!r} can't be understood; write it anew, as with "
                "rio.write_crs('EPSG:…')"
            ) from error
        rows, columns = self.dims
        coordinates = self.array.coords
        if str(rows).lower() in _DEGREES and rows in coordinates and columns in coordinates:
            ends = [float(np.abs(coordinates[dim].values).max()) for dim in (rows, columns)]
            return "EPSG:4326" if ends[0] <= 90 and ends[1] <= 360 else None
        return None

    def _stated_crs(self) -> list[Any]:
        mapping, array = self._grid_mapping, self.array
        coordinates = (array.coords.get(dim) for dim in self.dims)
        near = [one.attrs for one in coordinates if one is not None]
        places = (mapping, self.whole.attrs, array.attrs, *near)
        found = [
            place.get(name) for place in places for name in ("crs_wkt", "spatial_ref", "proj:wkt2", "crs")
        ]
        codes = [place.get(name) for place in places for name in ("proj:code", "proj:epsg", "epsg")]
        single = [array.coords.get(name) for name in ("proj:code", "proj:epsg", "epsg")]
        codes += [one.values.item() for one in single if one is not None and one.size == 1]
        return [one for one in (*found, *codes) if one is not None and str(one).strip() not in ("", "nan")]

    @cached_property
    def _grid_mapping(self) -> Mapping[str, Any]:
        """Attributes of the variable that says where the image lies."""
        array = self.array
        named = [one.get("grid_mapping") for one in (array.encoding, array.attrs)]
        for name in (*named, "spatial_ref", "crs"):
            for place in (array.coords, self.whole.coords, getattr(self.whole, "data_vars", {})):
                if name is not None and name in place and not place[name].dims:
                    return place[name].attrs
        return {}

    @property
    def gcps(self) -> int:
        """How many ground control points it has."""
        return len(self._points)

    @property
    def control(self) -> ControlPoints | None:
        """The ground control points that place an image without a transform."""
        crs = self.crs if self._points and self.transform is None else None
        _, _, x, _, _, y = self._spaced or _PX
        return None if crs is None else ControlPoints(tuple(self._points), crs).moved(y, x, 1)

    @cached_property
    def _points(self) -> list[tuple[float, float, float, float]]:
        """Ground control points as rioxarray keeps them: GeoJSON."""
        try:
            found = json.loads(self._grid_mapping["gcps"])["features"]
            return [
                (one["properties"]["row"], one["properties"]["col"], *one["geometry"]["coordinates"][:2])
                for one in found
            ]
        except (KeyError, TypeError, ValueError):
            return []

    @property
    def transform(self) -> _Affine | None:
        """Affine transform of px (column, row) to coordinates; None = it has none, or its coordinates are uneven.

        Of an image with ground control points coordinates may be px: no transform.
        """
        found = self._spaced
        a, b, _, d, e, _ = found or _PX
        return None if self._points and (a, b, d, e) == (1, 0, 0, 1) else found

    @property
    def _spaced(self) -> _Affine | None:
        """Affine transform by coordinates, and by what is stated.

        Coordinates say where middles of px lie; those of stackstac, corners, unless it was told otherwise. Of an array
        without coordinates (rotated, say) the transform that is stated is taken as it is.
        """
        stated = self._stated_transform()
        rows, columns = self.dims
        coordinates = self.array.coords
        rotated = stated is not None and (stated[1] or stated[3])
        if rotated or rows not in coordinates or columns not in coordinates:
            return stated
        steps = (stated[4], stated[0]) if stated is not None else (None, None)
        down, across = (
            _even(coordinates[dim], step) for dim, step in zip((rows, columns), steps, strict=True)
        )
        if down is None or across is None:
            return None
        share = self._share(across)
        if share is None:
            return None
        found = (across[1], 0.0, across[0] - share * across[1], 0.0, down[1], down[0] - share * down[1])
        if stated is not None and _close(stated, found, [self.array.sizes[dim] for dim in self.dims]):
            return stated
        return found

    def _share(self, across: tuple[float, float]) -> float | None:
        """How far into a px its coordinates lie; None = it can't be said."""
        spec = self.array.attrs.get("spec") or self.whole.attrs.get("spec")
        bounds = getattr(spec, "bounds", None)
        if bounds is None:
            return 0.5
        off = (
            (across[0] - bounds[0]) / across[1] + _UNEVEN
        ) % 1 - _UNEVEN  # of stackstac: on the lines of its grid, or between them
        return next((share for share in (0.0, 0.5) if abs(off - share) < _UNEVEN), None)

    def _stated_transform(self) -> _Affine | None:
        text = self._grid_mapping.get("GeoTransform")
        if text is not None:
            try:
                c, a, b, f, d, e = map(float, str(text).split())
            except ValueError as error:
                raise OpenError(f"{self.source}: its GeoTransform {text!r} isn't six numbers") from error
            return a, b, c, d, e, f
        stated = self.array.attrs.get("transform") or self.whole.attrs.get("transform")
        try:
            a, b, c, d, e, f = map(float, tuple(stated)[:6])
        except (TypeError, ValueError):
            return None
        return a, b, c, d, e, f


def _even(coordinate: Any, step: float | None) -> tuple[float, float] | None:
    """The first of evenly spaced coordinates, and their step; None = they are uneven, or a single one has no step."""
    values = np.asarray(coordinate.values)
    if values.ndim != 1 or values.dtype.kind not in "uif" or not np.isfinite(values).all():
        return None
    values = values.astype(np.float64)
    if len(values) == 1:
        step = step or coordinate.attrs.get("resolution")
        return (float(values[0]), float(step)) if step else None
    found = float(values[-1] - values[0]) / (len(values) - 1)
    off = np.abs(values - (values[0] + found * np.arange(len(values)))).max()
    return (float(values[0]), found) if found and off <= _UNEVEN * abs(found) else None


def _close(stated: _Affine, found: _Affine, shape: list[int]) -> bool:
    """Whether two transforms place all corners of an image alike."""
    height, width = shape
    a, b, c, d, e, f = np.subtract(stated, found)
    side = min(abs(found[0]), abs(found[4]))
    return all(
        max(abs(a * x + b * y + c), abs(d * x + e * y + f)) <= _SAME * side
        for x in (0, width)
        for y in (0, height)
    )
