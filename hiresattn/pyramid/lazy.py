"""A level of a pyramid as a lazy array of Dask's or xarray's."""

from pathlib import Path
from typing import Any

import numpy as np

from hiresattn.errors import BackendMissingError
from hiresattn.geometry import Level


def dask_level(pyramid: Any, has: Level, level: int) -> Any:
    """A ``dask.array.Array`` ``[h w c]`` of a pyramid's level, which is ``has``; its chunks are the tiles."""
    import dask.array as da
    from dask.base import tokenize

    return da.from_array(
        _LevelView(pyramid, level),
        chunks=(has.tile_height, has.tile_width, pyramid.channels),
        name=f"hiresattn-{tokenize(pyramid.source, pyramid.meta, level, _modified(pyramid.source))}",
        lock=False,
        meta=np.empty((0, 0, 0), pyramid.dtype),
    )


def xarray_level(pyramid: Any, level: int) -> Any:
    """A ``xarray.DataArray`` ``(band, y, x)`` of a pyramid's level; see ``Pyramid.to_xarray``."""
    try:
        import xarray
    except ImportError as error:
        raise BackendMissingError(
            f"to_xarray needs xarray, which can't be imported ({error}); pip install 'hiresattn[xarray]'"
        ) from error
    data = pyramid.as_dask(level).transpose(2, 0, 1)
    bands = pyramid.channel_names or range(1, pyramid.channels + 1)
    coordinates: dict[str, Any] = {"band": list(bands)}
    place: dict[str, Any] = {}
    if pyramid.transform is not None:
        step = pyramid.levels[level].downsample
        a, b, c, d, e, f = pyramid.transform
        a, b, d, e = a * step, b * step, d * step, e * step
        place["GeoTransform"] = " ".join(map(repr, (c, a, b, f, d, e)))
        if not (b or d):
            coordinates["y"] = f + (np.arange(data.shape[1]) + 0.5) * e
            coordinates["x"] = c + (np.arange(data.shape[2]) + 0.5) * a
    if pyramid.crs is not None:
        from rasterio.crs import CRS

        place["crs_wkt"] = place["spatial_ref"] = CRS.from_user_input(pyramid.crs).to_wkt()
    if place:
        coordinates["spatial_ref"] = ((), 0, place)
    attributes = {} if pyramid.nodata is None else {"_FillValue": pyramid.nodata}
    found = xarray.DataArray(data, coords=coordinates, dims=("band", "y", "x"), attrs=attributes)
    if place:
        found.encoding["grid_mapping"] = "spatial_ref"
    return found


class _LevelView:
    """What ``dask.array.from_array`` needs: shape, dtype, ndim and slicing."""

    def __init__(self, pyramid: Any, level: int) -> None:
        self.pyramid = pyramid
        self.level = level
        has = pyramid.levels[level]
        self.shape = (has.height, has.width, pyramid.channels)
        self.dtype = pyramid.dtype
        self.ndim = 3

    def __getitem__(self, index: tuple[slice, slice, slice]) -> np.ndarray:
        (y, y_stop, _), (x, x_stop, _) = (
            part.indices(side) for part, side in zip(index[:2], self.shape[:2], strict=True)
        )
        if y_stop <= y or x_stop <= x:
            empty = (max(y_stop - y, 0), max(x_stop - x, 0), self.shape[2])
            return np.empty(empty, self.dtype)[:, :, index[2]]
        return self.pyramid.read(self.level, y, x, y_stop - y, x_stop - x)[:, :, index[2]]


def _modified(source: str) -> float | None:
    try:
        return Path(source).stat().st_mtime
    except OSError:
        return None
