"""Where px lie: coordinates of an image's CRS, and from one CRS to another."""

from dataclasses import dataclass
from typing import Any

import numpy as np

from hiresattn.errors import ConfigError, reason

#: Most steps from coordinates to px by ground control points, and what is near enough, px.
_STEPS, _NEAR = 20, 1e-9


@dataclass(frozen=True)
class ControlPoints:
    """Ground control points of an image without a transform: px between them lie by the polynomials that GDAL fits."""

    points: tuple[tuple[float, float, float, float], ...]
    """Row and column, level-0 px, and coordinates (x, y) of each."""
    crs: str
    """CRS of the coordinates: an authority code or WKT."""

    def xy(self, y: Any, x: Any) -> tuple[np.ndarray, np.ndarray]:
        """Coordinates (x, y) of places in px, in the shape given; 0 is the upper edge of the first row."""
        with self._fitted() as fitted:
            found = fitted.xy(np.ravel(y), np.ravel(x), offset="ul")
        return np.reshape(found[0], np.shape(y)), np.reshape(found[1], np.shape(y))

    def rowcol(self, x: Any, y: Any) -> tuple[np.ndarray, np.ndarray]:
        """Row and column of coordinates (x, y), in the shape given: ``xy`` undone.

        GDAL fits other polynomials for this way; what they leave of ``xy`` is taken off step by step.
        """
        with self._fitted() as fitted:

            def inverse(x: Any, y: Any) -> np.ndarray:
                return np.array(fitted.rowcol(x, y, op=float))

            wanted = inverse(np.ravel(x), np.ravel(y))
            found = wanted
            for _ in range(_STEPS):
                off = wanted - inverse(*fitted.xy(*found, offset="ul"))
                found = found + off
                if not (np.abs(off) > _NEAR).any():
                    break
        return np.reshape(found[0], np.shape(x)), np.reshape(found[1], np.shape(x))

    def moved(self, y: float, x: float, scale: float) -> "ControlPoints":
        """The same for px that are counted from (y, x) and are ``scale`` times as many."""
        points = (((row - y) * scale, (column - x) * scale, *at) for row, column, *at in self.points)
        return ControlPoints(tuple(points), self.crs)  # type: ignore[arg-type]

    def gdal(self) -> list[Any]:
        """As rasterio has them."""
        from rasterio.control import GroundControlPoint

        return [GroundControlPoint(*point) for point in self.points]

    def _fitted(self) -> Any:
        from rasterio.transform import GCPTransformer

        return GCPTransformer(self.gdal())


class Placed:
    """Coordinates of an image by its affine transform, or its ground control points."""

    source: str
    crs: str | None
    transform: tuple[float, float, float, float, float, float] | None
    meta: Any

    @property
    def control(self) -> ControlPoints | None:
        """The ground control points that place an image without a transform; None = there are none, or no need."""
        found: ControlPoints | None = self.meta.control
        return found if self.transform is None else None

    @property
    def place(self) -> tuple[float, float, float, float, float, float] | ControlPoints | None:
        """What places px in ``place_crs``: the transform, or ground control points; None = nothing does."""
        return self.control or (None if self.crs is None else self.transform)

    @property
    def place_crs(self) -> str | None:
        """CRS that px have coordinates in: the image's, or that of its ground control points; None = they have none."""
        if self.control is not None:
            return self.control.crs
        return None if self.transform is None else self.crs

    def xy(self, y: Any, x: Any) -> tuple[Any, Any]:
        """Coordinates (x, y) in the image's CRS, or that of its ground control points, of a place in px.

        Args:
            y: Row, level-0 px, a number or an array; 0 is the upper edge of the first row, 0.5 its middle.
            x: Column, likewise.

        Raises:
            ConfigError: If the image has neither a transform nor ground control points.
        """
        if self.control is not None:
            found = self.control.xy(*np.broadcast_arrays(y, x))
            return _plain(found[0]), _plain(found[1])
        a, b, c, d, e, f = self._affine()
        y, x = np.asarray(y, np.float64), np.asarray(x, np.float64)
        return _plain(a * x + b * y + c), _plain(d * x + e * y + f)

    def rowcol(self, x: Any, y: Any) -> tuple[Any, Any]:
        """Row and column, level-0 px, of coordinates (x, y) in the image's CRS; the inverse of ``xy``.

        Args:
            x: First coordinate (easting, longitude), a number or an array.
            y: Second coordinate.

        Returns:
            Fractional px, perhaps outside of the image; rounded down, the px that holds the place.

        Raises:
            ConfigError: If the image has neither a transform nor ground control points, or one that can't be inverted.
        """
        if self.control is not None:
            found = self.control.rowcol(*np.broadcast_arrays(x, y))
            return _plain(found[0]), _plain(found[1])
        a, b, c, d, e, f = self._affine()
        area = a * e - b * d
        if not area:
            raise ConfigError(
                f"{self.source}: its transform {self.transform} can't be inverted; mend the file"
            )
        right, down = np.asarray(x, np.float64) - c, np.asarray(y, np.float64) - f
        return _plain((a * down - d * right) / area), _plain((e * right - b * down) / area)

    def to_xarray(self, level: int = 0) -> Any:
        """A level as a lazy xarray array ``(band, y, x)`` whose chunks are the file's tiles.

        Its coordinates are the middles of px, in the image's CRS; where the transform is rotated, there are none, and
        only ``spatial_ref`` says where it lies. CRS and nodata value are where rioxarray, odc-geo and GDAL look for
        them. What masks and alpha bands say isn't in it: see ``read_masked``.

        Args:
            level: Index into ``levels``.

        Returns:
            A ``DataArray``; nothing is read before it is computed.

        Raises:
            BackendMissingError: If xarray isn't installed.
            RegionError: If the level doesn't exist.
        """
        from hiresattn.pyramid.lazy import xarray_level

        return xarray_level(self, level)

    def _affine(self) -> tuple[float, float, float, float, float, float]:
        if self.transform is None:
            raise ConfigError(
                f"{self.source}: it has no transform, so that px have no coordinates; give the file one (a world file, "
                "or gdal_translate -a_ullr)"
            )
        return self.transform


def transformed(source_crs: str, target_crs: str, xs: Any, ys: Any) -> tuple[np.ndarray, np.ndarray]:
    """Coordinates of one CRS in another; x is easting or longitude in both.

    Args:
        source_crs: An authority code or WKT.
        target_crs: Likewise.
        xs: Coordinates ``[n]``.
        ys: Likewise.

    Returns:
        Coordinates ``[n]`` each; infinite where the target has no place for one.

    Raises:
        ConfigError: If there is no way from one to the other.
    """
    from rasterio.crs import CRS
    from rasterio.warp import transform

    try:
        found = transform(CRS.from_user_input(source_crs), CRS.from_user_input(target_crs), xs, ys)
    except Exception as error:  # GDAL's errors have no common base that is public
        why = reason(error).split(" from '")[0]  # what follows are definitions, of pages
        raise ConfigError(
            f"coordinates can't be brought from {crs_name(source_crs)} to {crs_name(target_crs)} ({why})"
        ) from error
    return np.asarray(found[0], np.float64), np.asarray(found[1], np.float64)


def crs_code(crs: Any) -> str:
    """A CRS in any spelling as an authority code such as ``EPSG:32618``, else WKT. Raises what rasterio does."""
    from rasterio.crs import CRS

    known = CRS.from_user_input(crs.item() if isinstance(crs, np.generic) else crs)
    authority = known.to_authority()
    return ":".join(authority) if authority else known.to_wkt()


def crs_name(crs: str) -> str:
    """A short name: the authority code, or what the WKT calls it."""
    return crs.split('"')[1] if crs.count('"') > 1 else crs[:60]


def _plain(value: np.ndarray) -> Any:
    return value if value.ndim else float(value)
