"""netCDF and HDF5: one variable is an image; of several, one is asked for."""

import shutil

import numpy as np
import pytest
import rasterio
import rasterio.shutil

from hiresattn.datasets.sources import sources_of
from hiresattn.errors import NotFoundError, OpenError
from hiresattn.pyramid import open_pyramid
from tests.images import CRS, TRANSFORM, coded, write_geotiff

DRIVERS = {"netCDF", "HDF5"}


@pytest.fixture
def file(tmp_path):
    with rasterio.Env() as gdal:
        if not gdal.drivers().keys() >= DRIVERS:
            pytest.skip("this GDAL has no netCDF or HDF5")
        tiff = write_geotiff(tmp_path / "a.tif")
        rasterio.shutil.copy(tiff, tmp_path / "a.nc", driver="netCDF", FORMAT="NC4")
    shutil.copy(tmp_path / "a.nc", tmp_path / "a.h5")
    return tmp_path / "a.nc"


@pytest.mark.parametrize(
    ("suffix", "name"), [(".nc", "netcdf:.*a.nc:Band1"), (".h5", 'HDF5:.*a.h5"?://Band1')]
)
def test_variables_are_named(file, suffix, name):
    with pytest.raises(OpenError, match=f"3 variables; give the name of one: {name}"):
        open_pyramid(file.with_suffix(suffix))


@pytest.mark.parametrize("name", ["netcdf:{}.nc:Band2", 'NETCDF:"{}.nc":Band2', 'HDF5:"{}.h5"://Band2'])
def test_a_variable_opens(file, name):
    source = name.format(file.with_suffix(""))
    assert list(sources_of(source)) == [source]
    with open_pyramid(source) as image:
        np.testing.assert_array_equal(image.read(0, 0, 0, image.height, image.width)[..., 0], coded()[..., 1])
        if "HDF5" not in name:  # its driver knows no georeference
            assert (image.crs, image.transform) == (CRS, TRANSFORM)


def test_a_variable_or_file_that_is_missing_is_an_error(file):
    with pytest.raises(OpenError, match="Band9"):
        open_pyramid(f"netcdf:{file}:Band9")
    with pytest.raises(NotFoundError):
        open_pyramid(f"netcdf:{file}x:Band1")
