"""The accessor ``.hiresattn`` of xarray's arrays and data sets; registered by ``import hiresattn.xarray``."""

from pathlib import Path
from typing import TYPE_CHECKING, Any

from hiresattn.datasets.example import Example
from hiresattn.errors import BackendMissingError, HiresattnError
from hiresattn.pyramid import Pyramid, open_pyramid
from hiresattn.pyramid.labelled import Labelled

if TYPE_CHECKING:
    from hiresattn.checkpoint import Model
    from hiresattn.inference.options import ClassifyOptions
    from hiresattn.inference.record import Record

try:
    import xarray
except ImportError as error:
    raise BackendMissingError(
        f"hiresattn.xarray needs xarray, which can't be imported ({error}); pip install 'hiresattn[xarray]'"
    ) from error

#: How the layers of Dask's graph are named that only read, cut out and order px.
_OPENED = ("open_rasterio-", "open_dataset-")
_READING = (*_OPENED, *(f"original-{name}" for name in _OPENED), "getitem", "rechunk", "transpose", "squeeze")
#: By how much px of an array may lie off those of its file, px.
_ALIGNED = 1e-3


@xarray.register_dataset_accessor("hiresattn")
@xarray.register_dataarray_accessor("hiresattn")
class Accessor:
    """``da.hiresattn``: an array, or a data set whose variables are bands, as an image.

    Args:
        array: It; see ``open_pyramid`` for what it may be.
    """

    def __init__(self, array: Any) -> None:
        self._array = array

    def pyramid(self, *, mpp: float | None = None, nodata: float | None = None) -> Pyramid:
        """The array as a pyramid of one level; see ``open_pyramid``."""
        return open_pyramid(self._array, mpp=mpp, nodata=nodata)

    def source(self) -> Any:
        """What is classified: the file that the array shows unchanged, with its overviews; else the array.

        An array has no overviews: a first look at it reads all of it. Where it was opened from a file (by rioxarray),
        isn't loaded, and all bands, the type, the CRS and the grid are still the file's, the file is read instead; of
        a part of it that window.

        Returns:
            An ``Example`` of the file, or the array.
        """
        return _file_of(self._array) or self._array

    def classify(
        self, model: "Model | str | Path", options: "ClassifyOptions | None" = None, **changes: Any
    ) -> "Record":
        """Classify the array; its file where that may be read in its place: see ``source``.

        Args:
            model: A model directory, a hub name (``hf:owner/name``) or a loaded model.
            options: As of ``hiresattn.classify``.
            changes: Single options, in place of those of ``options``.

        Returns:
            The record; regions are in px of what was read: of the array, or of the file that the record names.

        Raises:
            HiresattnError: As ``hiresattn.classify``.

        Examples:
            >>> import hiresattn.xarray
            >>> record = rioxarray.open_rasterio("scene.tif").hiresattn.classify("model")
        """
        from hiresattn.inference.classify import classify

        return classify(self.source(), model, options, **changes)


def _file_of(array: Any) -> Example | None:
    """The file whose px an array shows, or a window of it; None = it may show others."""
    name = array.encoding.get("source")
    if not isinstance(name, str) or hasattr(array, "data_vars") or not _unchanged(array.variable):
        return None
    label = Labelled(array, "<array>")
    try:
        with open_pyramid(name) as image:
            grid, (height, width, bands) = label.grid, label.planes.shape
            same = (grid.crs, array.dtype, bands) == (image.crs, image.dtype, image.channels)
            numbers = array.coords["band"].values.tolist() if "band" in array.coords else []
            same = same and numbers == list(range(1, bands + 1)) and set(label.nodata) == {image.nodata}
            if not same or len(image.levels) == 1 or grid.transform is None or image.transform is None:
                return None
            corners = [image.rowcol(*_at(grid.transform, x, y)) for y, x in ((0, 0), (height, width))]
    except HiresattnError:
        return None
    (top, left), (bottom, right) = ([round(value) for value in corner] for corner in corners)
    off = max(abs(value - round(value)) for corner in corners for value in corner)
    inside = min(top, left) >= 0 and bottom <= image.height and right <= image.width
    if off > _ALIGNED or not inside or (bottom - top, right - left) != (height, width):
        return None
    whole = (height, width) == (image.height, image.width)
    return Example(name, region=None if whole else (top, left, height, width))


def _unchanged(variable: Any) -> bool:
    """Whether its px are still to be read from a file, and nothing is computed of them."""
    if variable.chunks is None:
        return not variable._in_memory  # noqa: SLF001 - xarray has no public name for it
    return all(str(name).startswith(_READING) for name in variable.data.dask.layers)


def _at(transform: tuple[float, ...], x: float, y: float) -> tuple[float, float]:
    a, b, c, d, e, f = transform
    return a * x + b * y + c, d * x + e * y + f
