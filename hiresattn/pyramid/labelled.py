"""What xarray's arrays and data sets say of an image: its axes, where it lies, what stands for "not measured"."""

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np

from hiresattn.errors import OpenError
from hiresattn.pyramid.grid import Grid, spatial_dims

_TIMES = ("time", "t", "date", "datetime")
_NODATA = ("_FillValue", "missing_value", "nodata", "nodatavals", "fill_value")


def is_labelled(source: Any) -> bool:
    """Whether this is an xarray array, data set or tree."""
    return hasattr(source, "coords") and (hasattr(source, "dims") or is_tree(source))


def is_tree(source: Any) -> bool:
    """Whether this is an xarray ``DataTree``."""
    return hasattr(source, "subtree") and hasattr(source, "to_dataset")


def tree_levels(tree: Any, source: str) -> list[Any]:
    """The data sets of a tree that hold an image, finest first.

    Raises:
        OpenError: If there are none.
    """
    found = []
    for node in tree.subtree:
        data = node.to_dataset()
        images = [array for array in data.data_vars.values() if spatial_dims(array)]
        if images:
            rows, _ = spatial_dims(images[0])
            found.append((images[0].sizes[rows], data))
    if not found:
        raise OpenError(f"{source}: no node of the tree has a variable with dimensions y and x")
    return [data for _, data in sorted(found, key=lambda pair: -pair[0])]


@dataclass(frozen=True)
class Labelled:
    """An xarray array or data set as an image.

    Args:
        array: It.
        source: Name used in messages.

    Raises:
        OpenError: If it isn't one image.
    """

    array: Any
    source: str

    @cached_property
    def planes(self) -> "Planes":
        """Its px, read window by window.

        Raises:
            OpenError: If its dimensions aren't those of one image.
        """
        variables = []
        for array in self._parts:
            rows, columns = spatial_dims(array)
            rest = [dim for dim in array.dims if dim not in (rows, columns)]
            band = self._band(array)
            if any(array.sizes[dim] != 1 for dim in rest if dim != band):
                raise OpenError(f"{self.source}: {self._too_many(array, rest)}")
            variable = array.variable.isel({dim: 0 for dim in rest if dim != band})
            variables.append(variable.transpose(rows, columns, *([band] if band else [])))
        return Planes(tuple(variables))

    @cached_property
    def _parts(self) -> list[Any]:
        """The arrays that hold its bands."""
        if not hasattr(self.array, "data_vars"):
            if not spatial_dims(self.array):
                raise OpenError(
                    f"{self.source}: dimensions {tuple(self.array.dims)}; an image has y and x (or lat and lon) and at "
                    "most one band dimension; rename them with da.rename"
                )
            return [self.array]
        found = {name: one for name, one in self.array.data_vars.items() if spatial_dims(one)}
        if not found:
            raise OpenError(
                f"{self.source}: a data set without a variable with dimensions y and x (or lat and lon); it has "
                f"{', '.join(map(str, self.array.data_vars)) or 'none at all'}"
            )
        kinds = {np.dtype(one.dtype) for one in found.values()}
        banded = [str(name) for name, one in found.items() if self._band(one)]
        if len(kinds) > 1 or (banded and len(found) > 1):
            why = f"several bands in {', '.join(banded)}" if len(kinds) == 1 else "variables of several types"
            listed = ", ".join(f"{name} ({one.dtype})" for name, one in found.items())
            raise OpenError(
                f"{self.source}: a data set with {why}: {listed}; choose those that are the image, as "
                f"ds[[{next(iter(found))!r}]]"
            )
        return list(found.values())

    def _band(self, array: Any) -> Any:
        """The dimension of an array's bands; None = it has one band."""
        rest = [dim for dim in array.dims if dim not in spatial_dims(array)]
        long = [dim for dim in rest if array.sizes[dim] != 1]
        bands = [dim for dim in long if str(dim).lower() not in _TIMES]
        if bands or not rest:
            return bands[0] if bands else None
        return next((dim for dim in rest if str(dim).lower() not in _TIMES), None)

    def _too_many(self, array: Any, rest: list[Any]) -> str:
        times = [dim for dim in rest if str(dim).lower() in _TIMES and array.sizes[dim] > 1]
        if times:
            count, dim = array.sizes[times[0]], times[0]
            return (
                f"{count} steps of {dim}; an image is one: choose it with isel({dim}=0), or give all as a case: "
                f"Case('place', [da.isel({dim}=n) for n in range({count})])"
            )
        return f"dimensions {tuple(array.dims)}; an image has y, x and at most one band dimension; choose with isel"

    @property
    def names(self) -> tuple[str, ...] | None:
        """Names of the bands: variables, coordinates that are text, or rioxarray's ``long_name``."""
        count = self.planes.shape[2]
        array = self._parts[0]
        if len(self._parts) > 1:
            return tuple(str(one.attrs.get("long_name", one.name)) for one in self._parts)
        along = self._along("band")
        if along is not None and along.dtype.kind in "UO":
            found = tuple(map(str, np.atleast_1d(along.values).tolist()))
        else:
            given = array.attrs.get("long_name")
            found = tuple(map(str, given)) if isinstance(given, tuple | list) else ()
            if not found and hasattr(self.array, "data_vars") and count == 1:
                found = (str(array.name),)
        return found if len(found) == count else None

    @property
    def colors(self) -> tuple[str, ...] | None:
        """What bands show, by STAC's common names, where the array says it."""
        along = self._along("common_name")
        found = () if along is None else tuple(map(str, np.atleast_1d(along.values).tolist()))
        return found if len(found) == self.planes.shape[2] else None

    def _along(self, name: str) -> Any:
        """A coordinate along the bands: their own, or one that is named."""
        array, band = self._parts[0], self._band(self._parts[0])
        return array.coords.get(band if name == "band" and band is not None else name)

    @property
    def nodata(self) -> tuple[float | None, ...]:
        """Per band, the value that stands for "not measured", wherever a library keeps it.

        What stood for it before values were decoded (xarray's ``encoding`` of floats) isn't taken: it is NaN now.
        """
        count = self.planes.shape[2]
        found: list[float | None] = []
        for array in self._parts:
            found += _nodata_of(array, count if len(self._parts) == 1 else 1)
        return tuple(found)

    @property
    def scaling(self) -> tuple[tuple[float, ...], tuple[float, ...]] | None:
        """Scale and offset per band that weren't applied, where any does something; 1 and 0 where they were applied."""
        count = self.planes.shape[2] if len(self._parts) == 1 else 1
        if all(_was_scaled(one) for one in self._parts):
            return (1.0,) * self.planes.shape[2], (0.0,) * self.planes.shape[2]
        pairs = [
            pair
            for one in self._parts
            for pair in zip(
                _each(one.attrs.get("scale_factor"), 1.0, count),
                _each(one.attrs.get("add_offset"), 0.0, count),
                strict=True,
            )
        ]
        if all(pair == (1.0, 0.0) for pair in pairs):
            return None
        return tuple(scale for scale, _ in pairs), tuple(offset for _, offset in pairs)

    @property
    def grid(self) -> "Grid":
        """Where it lies."""
        return Grid(self._parts[0], self.array, spatial_dims(self._parts[0]), self.source)


@dataclass(frozen=True)
class Planes:
    """xarray variables ``[y x]`` or ``[y x band]`` as one array ``[h w c]``, of which windows are read."""

    variables: tuple[Any, ...]

    @property
    def shape(self) -> tuple[int, int, int]:
        """Rows, columns, bands."""
        first = self.variables[0]
        bands = sum(one.shape[2] if one.ndim == 3 else 1 for one in self.variables)
        return first.shape[0], first.shape[1], bands

    @property
    def dtype(self) -> Any:
        """Type of the values."""
        return self.variables[0].dtype

    @property
    def ndim(self) -> int:
        """Always 3."""
        return 3

    @property
    def chunks(self) -> Any:
        """Those of Dask; None = it isn't."""
        return self.variables[0].chunks

    def __getitem__(self, window: tuple[slice, slice]) -> np.ndarray:
        """A window ``[h w c]``."""
        parts = []
        for variable in self.variables:
            part = variable[window]
            data = part.data.compute(scheduler="synchronous") if part.chunks is not None else part.values
            parts.append(data if data.ndim == 3 else data[:, :, None])
        return parts[0] if len(parts) == 1 else np.concatenate(parts, axis=2)


def _nodata_of(array: Any, bands: int) -> list[float | None]:
    """What stands for "not measured" in each band of one array."""
    places = [array.attrs.get(name) for name in _NODATA]
    if np.dtype(array.dtype).kind != "f":
        places += [array.encoding.get(name) for name in _NODATA]
    if "raster:bands" in array.coords:
        places.append([_of_bands(one) for one in np.atleast_1d(array.coords["raster:bands"].values).tolist()])
    rio = getattr(array, "rio", None)
    places.append(getattr(rio, "nodata", None))
    for place in places:
        values = [_number(value) for value in np.atleast_1d(np.asarray(place, object)).ravel().tolist()]
        if any(value is not None for value in values):
            if len(values) in (1, bands):
                return values * bands if len(values) == 1 else values
            if len(set(values)) == 1:
                return values[:1] * bands
    return [None] * bands


def _of_bands(entry: Any) -> Any:
    """The nodata value of one entry of STAC's ``raster:bands``."""
    entry = entry[0] if isinstance(entry, list | tuple) and len(entry) == 1 else entry
    return entry.get("nodata") if isinstance(entry, Mapping) else None


def _number(value: Any) -> float | None:
    try:
        number = float(value) if isinstance(value, str) else np.asarray(value)[()]
    except ValueError:
        return None
    return number.item() if isinstance(number, np.number) else number if isinstance(number, float) else None


def _was_scaled(array: Any) -> bool:
    """Whether a scale and offset were applied when values were decoded: xarray keeps them in the encoding."""
    kept = [array.encoding.get("scale_factor", 1), array.encoding.get("add_offset", 0)]
    does_something = bool(np.any(np.asarray(kept[0]) != 1) or np.any(np.asarray(kept[1]) != 0))
    return does_something and not {"scale_factor", "add_offset"} & set(array.attrs)


def _each(value: Any, default: float, count: int) -> list[float]:
    values = [float(one) for one in np.atleast_1d(default if value is None else value).ravel()]
    return values * count if len(values) == 1 else values
