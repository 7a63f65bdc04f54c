"""How crops are usually read without this library: one call per crop of the library for the file's format."""

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from typing import Any

import numpy as np

from hiresattn.pyramid.base import Pyramid
from hiresattn.pyramid.formats.omezarr import ZarrPyramid
from hiresattn.pyramid.formats.quiet import quiet

#: ``cut(y, x) -> [h w c]``, a crop of level 0.
Cut = Callable[[int, int], np.ndarray]


@contextmanager
def _by_openslide(pyramid: Pyramid, size: int) -> Iterator[Cut]:
    import openslide

    with openslide.OpenSlide(pyramid.source) as slide:
        yield lambda y, x: np.asarray(slide.read_region((x, y), 0, (size, size)).convert("RGB"))


@contextmanager
def _by_rasterio(pyramid: Pyramid, size: int) -> Iterator[Cut]:
    import rasterio
    from rasterio.windows import Window

    bands = list(range(1, pyramid.channels + 1))
    with quiet(rasterio.errors.NotGeoreferencedWarning):
        raster = rasterio.open(pyramid.source)
    with raster:
        yield lambda y, x: np.moveaxis(raster.read(bands, window=Window(x, y, size, size)), 0, 2)


@contextmanager
def _by_tifffile(pyramid: Pyramid, size: int) -> Iterator[Cut]:
    import tifffile
    import zarr

    with tifffile.TiffFile(pyramid.source) as tif:
        series = max(tif.series, key=lambda series: int(np.prod(series.shape)))
        with series.aszarr(level=0) as store:
            yield _slices(zarr.open_array(store, mode="r"), series.axes.replace("S", "C"), pyramid, size)


@contextmanager
def _by_zarr(pyramid: Pyramid, size: int) -> Iterator[Cut]:
    import zarr

    assert isinstance(pyramid, ZarrPyramid)  # noqa: S101 - the backend's name says so
    array, axes = pyramid.array(0)
    yield _slices(zarr.open_array(array.store_path, mode="r"), axes.upper(), pyramid, size)


@contextmanager
def _by_pillow(pyramid: Pyramid, size: int) -> Iterator[Cut]:
    from PIL import Image

    with Image.open(pyramid.source) as image:
        yield lambda y, x: np.asarray(image.crop((x, y, x + size, y + size))).reshape(size, size, -1)


def _slices(array: Any, axes: str, pyramid: Pyramid, size: int) -> Cut:
    """``z[y:y+h, x:x+w]``, whatever the order of the axes."""
    order = [axes.replace("T", "").replace("Z", "").index(axis) for axis in "YXC" if axis in axes]

    def cut(y: int, x: int) -> np.ndarray:
        slices = {"Y": slice(y, y + size), "X": slice(x, x + size), "C": slice(None)}
        part = array[tuple(slices.get(axis, 0) for axis in axes)]
        return part.transpose(order).reshape(size, size, -1)[:, :, : pyramid.channels]

    return cut


#: Backend → name of the usual way to read crops of such a file, and what opens the file for it.
BASELINES: dict[str, tuple[str, Callable[[Pyramid, int], AbstractContextManager[Cut]]]] = {
    "openslide": ("openslide read_region", _by_openslide),
    "rasterio": ("rasterio windows", _by_rasterio),
    "tiff": ("tifffile + zarr", _by_tifffile),
    "zarr": ("zarr z[y:y+h, x:x+w]", _by_zarr),
    "image": ("Pillow crop", _by_pillow),
}
