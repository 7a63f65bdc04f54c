"""Arrays as pyramids: NumPy, Dask, xarray."""

import dask.array as da
import numpy as np
import pytest
import xarray as xr

from hiresattn.errors import OpenError, ReadError
from hiresattn.pyramid import open_pyramid
from tests.images import SHAPES, TILE, coded, coded_levels
from tests.pyramid.contract import PyramidContract


class _Arrays(PyramidContract):
    backend = "array"
    mpp = None
    exact_bytes = False

    def test_tile_bytes_add_up_to_less_than_the_file(self):
        pytest.skip("arrays have no file")


class TestNumpyLevels(_Arrays):
    tile = (512, 512)

    def write(self, folder):
        return coded_levels()


class TestDaskLevels(_Arrays):
    dtype = "uint16"

    def write(self, folder):
        return [da.from_array(level, chunks=(TILE, TILE, 3)) for level in coded_levels("uint16")]


class TestXarrayBandFirst(_Arrays):
    dtype = "float32"
    levels = 1
    tile = (512, 512)

    def write(self, folder):
        return xr.DataArray(np.moveaxis(coded(0, "float32"), 2, 0), dims=("band", "y", "x"))


def test_levels_that_disagree_are_an_open_error():
    fine, coarse = coded(), coded(1)
    for levels in ([fine, coarse[:, :, :2]], [fine, coarse.astype(np.uint16)], [coarse, fine], []):
        with pytest.raises(OpenError, match="levels"):
            open_pyramid(levels)


@pytest.mark.parametrize(
    "array", [np.zeros(5), np.zeros((2, 3, 4, 5)), np.zeros((0, 5)), np.zeros((5, 5), bool)]
)
def test_an_array_that_is_no_image_is_an_open_error(array):
    with pytest.raises(OpenError, match=r"an image is \[h w c\] or \[h w\]"):
        open_pyramid(array)


@pytest.mark.parametrize("dtype", [">u2", "<u2", ">f4", ">i4"])
def test_a_foreign_byte_order_is_read_in_this_machines(dtype):
    image = coded(0, "uint16").astype(dtype)
    native = np.dtype(dtype).newbyteorder("=")
    for array in (image, da.from_array(image, chunks=TILE), [image, coded(1, "uint16").astype(native)]):
        with open_pyramid(array) as pyramid:
            assert pyramid.dtype.isnative
            assert pyramid.dtype == native
            found = pyramid.read(0, 5, 6, 70, 80)
            assert found.dtype.isnative
            assert np.array_equal(found, image[5:75, 6:86])


@pytest.mark.parametrize("bands", [1, 3, 12])
def test_bands_first_are_an_open_error_unless_they_are_named(bands):
    image = np.ones((bands, 50, 60), np.uint8)
    for array in (image, da.from_array(image), [image, image[:, ::2, ::2]]):
        with pytest.raises(OpenError, match=r"looks like \[c h w\].*np\.moveaxis\(array, 0, -1\)"):
            open_pyramid(array)
    with open_pyramid(xr.DataArray(image, dims=("band", "y", "x"))) as pyramid:
        assert (pyramid.height, pyramid.width, pyramid.channels) == (50, 60, bands)
    with open_pyramid(xr.DataArray(image, dims=("y", "x", "band"))) as pyramid:
        assert (pyramid.height, pyramid.width, pyramid.channels) == (bands, 50, 60)


@pytest.mark.parametrize("shape", [(3, 60, 3), (2, 60, 4), (1, 1, 1), (4, 4, 4), (50, 60, 3), (2, 500)])
def test_few_rows_of_few_bands_are_an_image(shape):
    with open_pyramid(np.ones(shape, np.uint8)) as pyramid:
        assert (pyramid.height, pyramid.width) == shape[:2]


def test_only_the_chunks_of_the_window_are_computed():
    computed = []

    def block(block_info=None):
        computed.append(block_info[None]["chunk-location"])
        return np.zeros(block_info[None]["chunk-shape"], np.uint8)

    lazy = da.map_blocks(
        block, chunks=((100,) * 5, (100,) * 7, (3,)), dtype=np.uint8, meta=np.empty((0, 0, 0), "u1")
    )
    with open_pyramid(lazy) as pyramid:
        computed.clear()
        pyramid.read(0, 120, 220, 50, 150)
    assert sorted(computed) == [(1, 2, 0), (1, 3, 0)]


def test_a_chunk_that_cannot_be_computed_is_a_read_error():
    def fail(block_info=None):
        raise RuntimeError("the disk is gone")

    lazy = da.map_blocks(fail, chunks=((100,), (100,), (3,)), dtype=np.uint8, meta=np.empty((0, 0, 0), "u1"))
    with open_pyramid(lazy) as pyramid, pytest.raises(ReadError, match="the disk is gone"):
        pyramid.read(0, 0, 0, 5, 5)


def test_a_list_of_other_things_is_an_open_error():
    with pytest.raises(OpenError, match="is no array"):
        open_pyramid(["a.tif", "b.tif"])


def test_nodata_is_not_valid():
    image = coded()
    image[10:20, 30:40] = 7
    with open_pyramid(image, nodata=7) as pyramid:
        assert np.array_equal(pyramid.read_masked(0, 0, 0, *SHAPES[0]).valid, (image != 7).all(axis=2))


def test_names_of_an_xarrays_bands_are_known():
    xarray = pytest.importorskip("xarray")
    array = xarray.DataArray(coded(), dims=("y", "x", "band"), coords={"band": ["B04", "B03", "B02"]})
    assert open_pyramid(array).channel_names == ("B04", "B03", "B02")
    assert open_pyramid(array.drop_vars("band")).channel_names is None
    named = array.drop_vars("band").assign_attrs(long_name=("a", "b", "c"))
    assert open_pyramid(named).channel_names == ("a", "b", "c")


@pytest.mark.parametrize("name", ["_FillValue", "missing_value", "nodata"])
def test_an_xarray_arrays_nodata_value_is_its_own(name):
    xarray = pytest.importorskip("xarray")
    image = np.full((300, 300, 2), 5, np.int16)
    image[:50, :, 1] = -9999
    array = xarray.DataArray(np.moveaxis(image, 2, 0), dims=("band", "y", "x"), attrs={name: np.int16(-9999)})
    with open_pyramid(array) as pyramid:
        assert pyramid.nodata == -9999
        assert np.array_equal(pyramid.read_masked(0, 0, 0, 300, 300).valid, image[:, :, 1] == 5)
        assert pyramid.read_masked(0, 0, 0, 300, 300, bands=(0,)).valid is None
    with open_pyramid(array, nodata=5) as pyramid:
        assert pyramid.nodata == 5


@pytest.mark.parametrize("lazy", [False, True])
def test_the_mask_of_a_masked_array_says_what_is_valid_in_each_band(lazy):
    image = np.ma.masked_equal(np.full((300, 300, 2), 5, np.uint8), 0)
    image[:50, :, 1] = np.ma.masked
    array = pytest.importorskip("dask.array").from_array(image, chunks=(100, 100, 2)) if lazy else image
    with open_pyramid(array) as pyramid:
        found = pyramid.read_by_band(0, 0, 0, 300, 300)
        assert type(found.data) is np.ndarray
        assert np.array_equal(found.valid, ~image.mask)
