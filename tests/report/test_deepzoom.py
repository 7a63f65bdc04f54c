"""Tiles for viewers: put together they are the image, reduced by whole powers of two."""

import io

import numpy as np
import pytest
from PIL import Image

from hiresattn.errors import RegionError
from hiresattn.pyramid.array import ArrayPyramid
from hiresattn.report.deepzoom import TILE, DeepZoom


def reduced(pixels, step):
    """Averages of ``step x step`` px; what is left at the far edges is cut."""
    height, width = (side // step * step for side in pixels.shape[:2])
    blocks = pixels[:height, :width].reshape(height // step, step, width // step, step, -1)
    return blocks.mean((1, 3), dtype=np.float64)


def stitched(zoom, level):
    step = 1 << (zoom.levels - 1 - level)
    rows, columns = (-(-side // (TILE * step)) for side in (zoom.height, zoom.width))
    tiles = [[zoom._view(level, row, column).values for column in range(columns)] for row in range(rows)]
    return np.concatenate([np.concatenate(row, axis=1) for row in tiles])


@pytest.mark.parametrize("shape", [(600, 1100), (1024, 512), (257, 256), (1500, 1501)])
def test_tiles_of_every_level_make_up_the_image(shape):
    pixels = np.random.default_rng(0).integers(0, 255, (*shape, 3), dtype=np.uint8)
    coarse = reduced(pixels, 4).round().astype(np.uint8)
    with DeepZoom(ArrayPyramid([pixels, coarse])) as zoom:
        assert zoom.levels == 1 + int(np.ceil(np.log2(max(shape) / TILE)))
        for level in range(1 + int(np.ceil(np.log2(max(shape) / min(shape)))), zoom.levels):
            step = 1 << (zoom.levels - 1 - level)
            seen = stitched(zoom, level)
            wanted = reduced(pixels, step)
            height, width = min(len(seen), len(wanted)), min(seen.shape[1], wanted.shape[1])
            assert abs(seen.shape[0] - shape[0] / step) < 1
            assert abs(seen.shape[1] - shape[1] / step) < 1
            assert np.abs(seen[:height, :width] - wanted[:height, :width]).max() < 1
        whole = zoom._view(0, 0, 0)
        assert max(whole.valid.shape) <= TILE
        assert whole.values.mean() == pytest.approx(pixels.mean(), abs=1)


def test_a_tile_is_a_jpeg_of_what_is_there_and_nothing_else_is_a_tile():
    y, x = np.mgrid[:700, :900]
    pixels = np.stack([y * 255 // 700, x * 255 // 900, np.zeros_like(y)], 2).astype(np.uint8)
    with DeepZoom(ArrayPyramid(pixels)) as zoom:
        tile = np.asarray(Image.open(io.BytesIO(zoom.tile(zoom.levels - 1, 2, 3)))).astype(int)
        assert tile.shape == (700 - 512, 900 - 768, 3)
        assert np.abs(tile - pixels[512:, 768:]).max() < 12
        for place in ((-1, 0, 0), (zoom.levels, 0, 0), (zoom.levels - 1, 3, 0), (0, 0, 1)):
            with pytest.raises(RegionError, match="no tile in row"):
                zoom.tile(*place)


def test_what_was_not_measured_is_hatched_and_values_can_be_given():
    pixels = np.full((300, 300, 1), 100, np.uint16)
    pixels[:, 150:] = 0
    with DeepZoom(ArrayPyramid(pixels, nodata=0), values=(0, 200)) as zoom:
        tile = np.asarray(Image.open(io.BytesIO(zoom.tile(zoom.levels - 1, 0, 0)))).astype(int)
    assert np.abs(tile[:, :140] - 127).max() <= 2
    assert tile[:, 170:].std() > 10
