"""What GDAL decodes although it noticed, or could have noticed, damage: an error here."""

import numpy as np
import pytest
import rasterio
import tifffile
from affine import Affine
from PIL import Image

from hiresattn.errors import ReadError
from hiresattn.pyramid import open_pyramid
from tests.images import CRS


def smooth(bands):
    """256 x 512 px that JPEG keeps."""
    y, x = np.mgrid[:256, :512]
    return np.stack([(np.sin(x / 37) + np.cos(y / 23) + 2) * 50 + 5 * i for i in range(bands)], 2).astype(
        "uint8"
    )


def write(path, bands, **options):
    """A GeoTIFF of 256 x 512 px."""
    pixels = smooth(bands)
    options = {"compress": "JPEG", "tiled": True, "blockxsize": 256, "blockysize": 256, **options}
    with rasterio.open(
        path, "w", driver="GTiff", width=512, height=256, count=bands, dtype="uint8", crs=CRS,
        transform=Affine(10, 0, 500000, 0, -10, 5000000), interleave="pixel", **options,
    ) as raster:  # fmt: skip
        raster.write(np.moveaxis(pixels, 2, 0))
    return pixels


def harm(path, segment=0):
    """Overwrite the second half of a tile or strip with zeros, but for its end."""
    with tifffile.TiffFile(path) as tif:
        start, count = tif.pages[0].dataoffsets[segment], tif.pages[0].databytecounts[segment]
    content = bytearray(path.read_bytes())
    content[start + count // 2 : start + count - 2] = bytes(count - 2 - count // 2)
    path.write_bytes(content)


@pytest.mark.parametrize("layout", [{}, {"tiled": False, "blockxsize": 512, "blockysize": 64}])
@pytest.mark.parametrize(
    ("bands", "photometric", "native"),
    [
        (1, "MINISBLACK", True),
        (2, "MINISBLACK", False),
        (3, "RGB", True),
        (4, "MINISBLACK", True),
        (4, "RGB", True),
    ],
)
def test_a_damaged_jpeg_tile_or_strip_is_an_error_every_time(tmp_path, bands, photometric, native, layout):
    path = tmp_path / "a.tif"
    truth = write(path, bands, photometric=photometric, **layout)
    with open_pyramid(path) as pyramid:
        whole = pyramid.read(0, 0, 0, 256, 512)
        assert np.abs(whole.astype(int) - truth[:, :, : pyramid.channels]).mean() < 3
        assert (pyramid.native_tiles is not None) == native
    harm(path)
    with open_pyramid(path) as pyramid:
        for _ in range(2):
            with pytest.raises(ReadError, match=r"a\.tif.*Corrupt JPEG data"):
                pyramid.read(0, 0, 0, 64, 64)
        assert layout or np.array_equal(pyramid.read(0, 0, 256, 64, 256), whole[:64, 256:])


def test_a_damaged_cmyk_jpeg_is_an_error_where_gdal_returns_rows_all_the_same(tmp_path):
    path = tmp_path / "a.jpg"
    Image.fromarray(smooth(4), "CMYK").save(path)
    content = bytearray(path.read_bytes())
    content[len(content) // 2 : -2] = bytes(len(content) - 2 - len(content) // 2)
    path.write_bytes(content)
    with open_pyramid(path) as pyramid, pytest.raises(ReadError):
        pyramid.read(0, 0, 0, pyramid.height, pyramid.width)


@pytest.mark.parametrize("predictor", [1, 2])
@pytest.mark.parametrize("rows", [1, 16, 100])
def test_a_strip_whose_deflate_checksum_is_wrong_is_an_error(tmp_path, rows, predictor):
    path = tmp_path / "a.tif"
    options = {"tiled": False, "blockysize": rows, "compress": "DEFLATE", "predictor": predictor}
    truth = write(path, 3, **{**options, "blockxsize": 512})
    with open_pyramid(path) as pyramid:
        assert np.array_equal(pyramid.read(0, 0, 0, 256, 512), truth)
        assert pyramid.native_tiles is not None
    with tifffile.TiffFile(path) as tif:
        start, count = tif.pages[0].dataoffsets[1], tif.pages[0].databytecounts[1]
    content = bytearray(path.read_bytes())
    content[start + count - 1] ^= 1
    path.write_bytes(content)
    with open_pyramid(path) as pyramid, pytest.raises(ReadError, match="damaged"):
        pyramid.read(0, rows, 0, 1, 8)
