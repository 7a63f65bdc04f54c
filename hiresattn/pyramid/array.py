"""Arrays as pyramids: NumPy, Dask and xarray. The reference backend of the contract tests."""

from collections.abc import Sequence
from dataclasses import replace
from itertools import pairwise
from typing import Any, ClassVar

import numpy as np

from hiresattn.errors import OpenError, ReadError
from hiresattn.geometry import Level, level_downsamples
from hiresattn.pyramid.base import Pyramid
from hiresattn.pyramid.labelled import Labelled, is_labelled, is_tree, tree_levels
from hiresattn.pyramid.metadata import Metadata
from hiresattn.pyramid.pixels import Pixels, known_by_band

#: Tile side given to arrays that have no chunks of their own, px.
PLAIN_TILE = 512

#: No more rows than this, and more columns and bands than that, are bands taken for rows.
_FEW = 16


class ArrayPyramid(Pyramid):
    """One array ``[h w c]`` or ``[h w]`` per level, finest first; anything sliceable with shape and dtype.

    An xarray array is read by the names of its dimensions (``y``/``x``, ``lat``/``lon``, a band dimension; others of
    length 1 are left out), in any order; a data set's variables are its bands; of a tree each node with an image is a
    level. CRS, transform, names and nodata values are taken from wherever rioxarray, odc-stac, stackstac and xarray
    itself keep them. The mask of a NumPy masked array says what is valid. Values are given in this machine's byte
    order.

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
        if is_tree(levels):
            levels = tree_levels(levels, source)
        arrays = list(levels) if isinstance(levels, Sequence) else [levels]
        if not arrays:
            raise OpenError(f"{source}: no levels; pass at least one array [h w c]")
        for array in arrays:
            if type(array).__module__.partition(".")[0] == "torch":
                raise OpenError(
                    f"{source}: a torch tensor; give a NumPy array [h w c], such as tensor.numpy()"
                )
        labels = [Labelled(array, source) if is_labelled(array) else None for array in arrays]
        self._arrays = [
            _image_axes(array, source) if label is None else label.planes
            for array, label in zip(arrays, labels, strict=True)
        ]
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
            nbytes=sum(int(np.prod(array.shape)) * first.dtype.itemsize for array in self._arrays),
        )
        values = () if labels[0] is None or nodata is not None else labels[0].nodata
        if len({repr(value) for value in values}) == 1:
            nodata = values[0]
        self._by_band = values if nodata is None and any(value is not None for value in values) else ()
        meta = replace(meta, nodata=nodata, **({} if labels[0] is None else _stated(labels[0])))
        super().__init__(source, meta)

    def _read(self, level: int, y: int, x: int, height: int, width: int) -> Pixels:
        try:
            part = self._arrays[level][y : y + height, x : x + width]
            if hasattr(part, "compute"):
                part = part.compute(scheduler="synchronous")
            mask = np.ma.getmaskarray(part) if isinstance(part, np.ma.MaskedArray) else None
            valid = None if mask is None or not mask.any() else ~mask
            pixels = Pixels(np.ascontiguousarray(np.ma.getdata(part), self._native), valid)
        except Exception as error:
            raise ReadError(
                f"{self.source}, level {level}, rows {y} to {y + height}, columns {x} to {x + width}: "
                f"can't be computed ({error!r})"
            ) from error
        return replace(pixels, valid=known_by_band(pixels.data, self._by_band)) if self._by_band else pixels

    def __reduce__(self) -> tuple[Any, ...]:
        return object.__new__, (type(self),), self.__dict__  # the arrays themselves; there is no file


def _image_axes(array: Any, source: str) -> Any:
    """Bring an array to ``[h w c]``."""
    if not (hasattr(array, "ndim") and hasattr(array, "shape") and hasattr(array, "dtype")):
        raise OpenError(f"{source}: a {type(array).__name__} is no array; an image is [h w c] or [h w]")
    if array.ndim == 3 and array.shape[0] <= _FEW < min(array.shape[1:]):
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


def _stated(label: Labelled) -> dict[str, Any]:
    """What an xarray array or data set says besides its px, as fields of ``Metadata``."""
    grid = label.grid
    scales, offsets = label.scaling or (None, None)
    return {
        "crs": grid.crs,
        "transform": grid.transform,
        "channel_names": label.names,
        "colors": label.colors,
        "scales": scales,
        "offsets": offsets,
        "gcps": grid.gcps,
        "control": grid.control,
    }
