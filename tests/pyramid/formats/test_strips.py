"""GeoTIFF in strips of a few rows: each strip is read once, and their masks many at a time."""

import numpy as np
import pytest
import rasterio

from hiresattn import open_pyramid, read_crops
from hiresattn.pyramid.formats.gdalmask import GdalMask

HEIGHT, WIDTH, ROWS = 400, 96, 3


@pytest.fixture
def scene(tmp_path):
    """Px that say where they are, and a mask of diagonal stripes; its last strip has fewer rows."""
    y, x = np.mgrid[:HEIGHT, :WIDTH]
    image = np.stack([y % 251, x, (y + x) % 256]).astype(np.uint8)
    mask = ((y + 2 * x) % 50 < 35) * np.uint8(255)
    path = tmp_path / "scene.tif"
    with (
        rasterio.Env(GDAL_TIFF_INTERNAL_MASK=True),
        rasterio.open(
            path, "w", driver="GTiff", width=WIDTH, height=HEIGHT, count=3, dtype="uint8", blockysize=ROWS,
            compress="deflate", transform=rasterio.Affine(2, 0, 0, 0, -2, 0), crs="EPSG:32633",
        ) as file,
    ):  # fmt: skip
        file.write(image)
        file.write_mask(mask)
    return path, image.transpose(1, 2, 0), mask > 0


def test_the_mask_of_every_strip_is_its_own_and_few_reads_bring_them(scene, monkeypatch):
    path, image, mask = scene
    reads = []
    plain = GdalMask.read

    def counted(self, open_level, level, window):
        reads.append(window)
        return plain(self, open_level, level, window)

    monkeypatch.setattr(GdalMask, "read", counted)
    with open_pyramid(path) as pyramid:
        many = pyramid.levels[0].tile_height
        assert many % ROWS == 0
        for row in range(-(-HEIGHT // many)):
            tile = pyramid.read_tile(0, row, 0)
            rows = slice(row * many, (row + 1) * many)
            assert np.array_equal(tile.data, image[rows])
            assert np.array_equal(tile.valid, mask[rows])
    assert len(reads) <= 4  # of 134 strips


def test_crops_of_strips_are_those_of_the_image(scene):
    path, image, _ = scene
    places = [(0, 0), (1, 7), (200, 32), (HEIGHT - 64, WIDTH - 64)]
    found = read_crops(path, places, 64)
    for crop, (y, x) in zip(found.pixels, places, strict=True):
        assert np.array_equal(crop, image[y : y + 64, x : x + 64])
    assert found.tiles == found.unique_tiles
