"""Tiles of JPEG 2000, each decoded by itself: the oracle is GDAL, which decodes the whole."""

import numpy as np
import pytest
import rasterio
from rasterio.shutil import copy

from hiresattn import open_pyramid, read_crops
from hiresattn.errors import ReadError
from hiresattn.pyramid.storage.jp2header import check_jp2
from hiresattn.pyramid.storage.jp2tiles import Jp2Tiles
from tests.images import coded

pytestmark = pytest.mark.filterwarnings("ignore::rasterio.errors.NotGeoreferencedWarning")

WAYS = {
    "lossless": {"REVERSIBLE": "YES", "QUALITY": "100"},
    "lossy": {"QUALITY": "20"},
    "by resolution": {"QUALITY": "20", "PROGRESSION": "RPCL", "TILEPARTS": "RESOLUTIONS"},
    "precincts": {"QUALITY": "20", "PRECINCTS": "{64,64},{32,32}", "PLT": "YES", "TLM": "YES"},
    "bare": {"QUALITY": "20", "CODEC": "J2K"},
}


def write(folder, image, tile=(75, 131), **options):
    """A file of tiles, odd ones unless others are asked for."""
    with rasterio.open(
        folder / "plain.tif", "w", driver="GTiff", width=image.shape[1], height=image.shape[0],
        count=image.shape[2], dtype=image.dtype,
    ) as new:  # fmt: skip
        new.write(np.moveaxis(image, 2, 0))
    path = folder / "image.jp2"
    sides = {"BLOCKYSIZE": str(tile[0]), "BLOCKXSIZE": str(tile[1])}
    copy(folder / "plain.tif", path, driver="JP2OpenJPEG", **sides, **options)
    return path


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize(("bands", "dtype"), [(3, "uint8"), (1, "uint16")])
def test_tiles_are_what_gdal_decodes(tmp_path, way, bands, dtype):
    path = write(tmp_path, coded(dtype=dtype)[:, :, :bands], **WAYS[way])
    with rasterio.open(path) as raster:
        wanted = np.moveaxis(raster.read(), 0, 2)
        coarse = [
            raster.read(out_shape=(bands, level.height, level.width))
            for level in open_pyramid(path).levels[1:]
        ]
    yx = np.random.default_rng(0).integers(0, [417, 601], (30, 2))
    with open_pyramid(path) as pyramid:
        assert isinstance(pyramid.native_tiles, Jp2Tiles)
        assert pyramid.native_tiles.sides[0] == (75, 131)
        assert np.array_equal(pyramid.read(0, 0, 0, 517, 701), wanted)
        found = read_crops(pyramid, yx, 100)
        for level, whole in enumerate(coarse, 1):
            read = pyramid.read(level, 0, 0, *whole.shape[1:])
            assert np.array_equal(read, np.moveaxis(whole, 0, 2))
    assert all(
        np.array_equal(crop, wanted[y : y + 100, x : x + 100])
        for crop, (y, x) in zip(found.pixels, yx.tolist(), strict=True)
    )
    stored = sum(length for parts in check_jp2(path).parts.values() for _, length in parts)
    assert 0 < found.bytes <= stored < path.stat().st_size


def test_a_tile_that_is_lost_after_opening_is_an_error_that_names_it(tmp_path):
    path = write(tmp_path, coded(), **WAYS["lossless"])
    with open_pyramid(path) as pyramid:
        (at, length), *_ = check_jp2(path).parts[8]  # of 6 a row
        whole = bytearray(path.read_bytes())
        whole[at : at + length] = bytes(length)
        path.write_bytes(whole)
        with pytest.raises(ReadError, match="level 0, tile in row 1, column 2: damaged"):
            pyramid.read_tile(0, 1, 2)
        assert pyramid.read_tile(0, 1, 1).data.any()


def test_large_tiles_and_one_tile_are_left_to_gdal(tmp_path):
    image = np.zeros((600, 1200, 1), np.uint8)
    for tile in [(600, 600), (1200, 1200)]:
        with open_pyramid(write(tmp_path, image, tile, **WAYS["lossless"])) as pyramid:
            assert pyramid.native_tiles is None
