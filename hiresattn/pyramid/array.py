"""Arrays as pyramids: NumPy, Dask and xarray. The reference backend of the contract tests."""

from collections.abc import Sequence
from itertools import pairwise
from typing import Any, ClassVar

import numpy as np

from hiresattn.errors import OpenError, ReadError
from hiresattn.geometry import Level, level_downsamples
from hiresattn.pyramid.base import Metadata, Pyramid
from hiresattn.pyramid.pixels import Pixels

#: Tile side given to arrays that have no chunks of their own, px.
PLAIN_TILE = 512

#: No more rows than this, and more columns and bands than that, are bands taken for rows.
_FEW = 16


class ArrayPyramid(Pyramid):
    """One array ``[h w c]`` or ``[h w]`` per level, finest first; anything sliceable with shape and dtype.

    An xarray array is read by its dimension names (``y``/``x``/``band`` or ``c``), in any order, and keeps
    its ``rio`` CRS and transform where rioxarray has set them, and its nodata value (``_FillValue``,
    ``missing_value`` or ``nodata`` of its attributes, else what ``rio`` knows). The mask of a NumPy masked array
    says what is valid. Values are given in this machine's byte order.

    Args:
        levels: The arrays; a single array is a pyramid of one level.
        source: Name used in messages and records.
        mpp: Micrometres per level-0 px.
        nodata: Value that stands for "nothing measured here", in place of what the array says.

    Raises:
        OpenError: If an array isn't an image, or the levels don't belong together.
    """

    backend: ClassVar[str] = "array"

    def __init__(
        self, levels: Any, source: str = "<array>", *, mpp: float | None = None, nodata: float | None = None
    ) -> None:
        arrays = list(levels) if isinstance(levels, Sequence) else [levels]
        if not arrays:
            raise OpenError(f"{source}: no levels; pass at least one array [h w c]")
        for array in arrays:
            if type(array).__module__.partition(".")[0] == "torch":
                raise OpenError(
                    f"{source}: a torch tensor; give a NumPy array [h w c], such as tensor.numpy()"
                )
        self._arrays = [_image_axes(array, source) for array in arrays]
        crs, transform = _georeference(arrays[0])
        first = self._arrays[0]
        self._native = np.dtype(first.dtype).newbyteorder("=")
        for array in self._arrays:
            if array.shape[2] != first.shape[2] or np.dtype(array.dtype).newbyteorder("=") != self._native:
                raise OpenError(
                    f"{source}: levels disagree: {first.shape} {first.dtype} and {array.shape} "
                    f"{array.dtype}; "
                    "give every level the same bands and dtype"
                )
        downsamples = level_downsamples([array.shape[:2] for array in self._arrays])
        described = [_level(*pair) for pair in zip(self._arrays, downsamples, strict=True)]
        if any(b.downsample <= a.downsample for a, b in pairwise(described)):
            raise OpenError(f"{source}: levels must come finest first, each smaller than the one before")
        meta = Metadata(
            levels=tuple(described),
            channels=first.shape[2],
            dtype=self._native,
            mpp=mpp,
            mpp_source="given" if mpp is not None else None,
            crs=crs,
            transform=transform,
            nodata=_nodata(arrays[0]) if nodata is None else nodata,
            channel_names=_names(arrays[0], first.shape[2]),
            nbytes=sum(int(np.prod(array.shape)) * first.dtype.itemsize for array in self._arrays),
        )
        super().__init__(source, meta)

    def _read(self, level: int, y: int, x: int, height: int, width: int) -> Pixels:
        part = self._arrays[level][y : y + height, x : x + width]
        try:
            if hasattr(part, "compute"):
                part = part.compute(scheduler="synchronous")
            mask = np.ma.getmaskarray(part) if isinstance(part, np.ma.MaskedArray) else None
            valid = None if mask is None or not mask.any() else ~mask
            return Pixels(np.ascontiguousarray(np.ma.getdata(part), self._native), valid)
        except Exception as error:
            raise ReadError(
                f"{self.source}, level {level}, rows {y} to {y + height}, columns {x} to {x + width}: "
                f"can't be computed ({error!r})"
            ) from error

    def __reduce__(self) -> tuple[Any, ...]:
        return object.__new__, (type(self),), self.__dict__  # the arrays themselves; there is no file


def _image_axes(array: Any, source: str) -> Any:
    """Bring an array to ``[h w c]``."""
    if not (hasattr(array, "ndim") and hasattr(array, "shape") and hasattr(array, "dtype")):
        raise OpenError(f"{source}: a {type(array).__name__} is no array; an image is [h w c] or [h w]")
    dims = getattr(array, "dims", None)
    if dims is not None:
        named = [
            dims[[str(d).lower() for d in dims].index(axis)]
            for axis in ("y", "x")
            if axis in map(str.lower, dims)
        ]
        rest = [d for d in dims if d not in named]
        if len(named) != 2 or len(rest) > 1:
            raise OpenError(f"{source}: dimensions {dims}; an image has y, x and at most one band dimension")
        array = array.transpose(*named, *rest).data
    elif array.ndim == 3 and array.shape[0] <= _FEW < min(array.shape[1:]):
        raise OpenError(
            f"{source}: shape {tuple(array.shape)} looks like [c h w]; an image is [h w c], so give "
            "np.moveaxis(array, 0, -1), or an xarray array whose dimensions are named"
        )
    if array.ndim == 2:
        array = array[:, :, None]
    if array.ndim != 3 or 0 in array.shape or np.dtype(array.dtype).kind not in "uif":
        raise OpenError(
            f"{source}: shape {tuple(array.shape)} of {array.dtype}; an image is [h w c] or [h w] "
            "of integers or floats"
        )
    return array


def _level(array: Any, downsample: float) -> Level:
    height, width = array.shape[:2]
    chunks = getattr(array, "chunks", None) or getattr(array, "chunksize", None)
    tile = (PLAIN_TILE, PLAIN_TILE)
    if chunks is not None:
        tile = tuple(max(c) if isinstance(c, tuple) else c for c in chunks[:2])
    return Level(
        width=width,
        height=height,
        downsample=downsample,
        tile_width=int(tile[1]),
        tile_height=int(tile[0]),
    )


def _names(array: Any, bands: int) -> tuple[str, ...] | None:
    """Names of an xarray's bands: coordinates that are text, or rioxarray's ``long_name``."""
    coordinates = getattr(array, "coords", {})
    rest = [dim for dim in getattr(array, "dims", ()) if str(dim).lower() not in ("y", "x")]
    if len(rest) == 1 and rest[0] in coordinates and coordinates[rest[0]].dtype.kind in "UO":
        names = tuple(map(str, coordinates[rest[0]].values.tolist()))
    else:
        found = getattr(array, "attrs", {}).get("long_name")
        names = tuple(map(str, found)) if isinstance(found, tuple | list) else ()
    return names if len(names) == bands else None


def _nodata(array: Any) -> float | None:
    """The nodata value that an xarray array states, wherever its library keeps it."""
    attributes = getattr(array, "attrs", None)
    found = [attributes.get(name) for name in ("_FillValue", "missing_value", "nodata")] if attributes else []
    for accessor, name in (("rio", "nodata"), ("odc", "nodata"), ("rio", "encoded_nodata")):
        found.append(getattr(getattr(array, accessor, None), name, None))
    for value in found:
        number = np.asarray(value).reshape(-1) if value is not None else np.empty(0)
        if number.size and number.dtype.kind in "uif" and (number == number[0]).all():
            return number[0].item()
    return None


def _georeference(array: Any) -> tuple[str | None, tuple[float, float, float, float, float, float] | None]:
    rio = getattr(array, "rio", None)
    if rio is None or rio.crs is None:
        return None, None
    a, b, c, d, e, f = tuple(rio.transform())[:6]
    return str(rio.crs), (a, b, c, d, e, f)
