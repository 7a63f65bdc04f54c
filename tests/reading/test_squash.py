"""The paper's reading: against PyTorch's own resizing and cropping in memory."""

import numpy as np
import pytest
import torch
from torch.nn import functional

from hiresattn import open_pyramid
from hiresattn.config import InputConfig
from hiresattn.errors import ConfigError, RegionError
from hiresattn.geometry import Grid, cell_regions
from hiresattn.reading.fetch import CropFetcher
from hiresattn.reading.squash import SquashFetcher, resize, squashed, unsquashed

ONE = np.zeros(1, np.int64)


def _image(height, width, seed=0):
    return np.random.default_rng(seed).integers(0, 256, (height, width, 3), dtype=np.uint8)


def _scaled(pixels):
    return torch.from_numpy(pixels.astype(np.float32)).permute(2, 0, 1)[None] / 127.5 - 1


@pytest.mark.parametrize(
    ("height", "width", "size"), [(90, 61, 40), (40, 40, 40), (30, 17, 45), (896, 448, 224)]
)
def test_bilinear_is_pytorchs_without_antialiasing(height, width, size):
    planes = np.random.default_rng(1).random((2, height, width), np.float32)
    expected = functional.interpolate(torch.from_numpy(planes)[None], (size, size), mode="bilinear")[0]
    assert np.allclose(resize(planes, size, "bilinear"), expected, atol=1e-5)


@pytest.mark.parametrize(("height", "width", "size"), [(90, 60, 30), (91, 61, 40), (20, 20, 33)])
def test_area_is_the_average_over_each_px(height, width, size):
    planes = np.random.default_rng(1).random((1, height, width), np.float32)
    fine = planes.repeat(size, 1).repeat(size, 2)  # every px of both divides this
    expected = fine.reshape(1, size, height, size, width).mean((2, 4))
    assert np.allclose(resize(planes, size, "area"), expected, atol=1e-5)


def test_crops_are_those_of_the_published_code_on_a_tensor():
    """Squash, pad with grey, cut, resize: with PyTorch on the whole image in memory."""
    pixels, side, size = _image(300, 250), 224, 77
    cells = cell_regions(np.array([[0, 0, side, side]]), Grid(5, 77 / 224, "tnet"), 77)[0]
    assert cells.min() == -1
    whole = functional.interpolate(_scaled(pixels), (side, side), mode="bilinear")
    padded = functional.pad(whole, (1, 0, 1, 0))
    with open_pyramid(pixels) as pyramid:
        fetcher = SquashFetcher(pyramid, InputConfig(size=size, squash=side, filter="bilinear"))
        root = fetcher(ONE, np.array([[0, 0, side, side]]))
        crops = fetcher(np.zeros(25, np.int64), cells)
    expected = functional.interpolate(whole, (size, size), mode="bilinear")
    assert np.allclose(root.pixels, expected, atol=1e-3)  # PyTorch places samples in float32
    for crop, measured, (y, x, h, w) in zip(*crops, cells.tolist(), strict=True):
        assert np.allclose(crop, padded[0, :, y + 1 : y + 1 + h, x + 1 : x + 1 + w], atol=1e-3)
        assert measured.min() == (0 if -1 in (y, x) else 1)


@pytest.mark.parametrize("factor", [1, 2])
def test_for_whole_factors_up_to_two_the_lazy_reader_gives_the_same(factor):
    pixels = _image(128, 128)
    region = np.array([[32, 16, 32 * factor, 32 * factor]])
    with open_pyramid(pixels) as pyramid:
        lazy = CropFetcher([pyramid], InputConfig(size=32), threads=0)(ONE, region)
        paper = SquashFetcher(pyramid, InputConfig(size=32, squash=128, filter="bilinear"))(ONE, region)
    assert np.allclose(lazy.pixels, paper.pixels, atol=1e-6)


def test_antialiased_squashing_agrees_with_the_lazy_reader_at_any_factor():
    pixels = _image(128, 128)
    region = np.array([[0, 0, 128, 128]])
    with open_pyramid(pixels) as pyramid:
        lazy = CropFetcher([pyramid], InputConfig(size=24), threads=0)(ONE, region)
        paper = SquashFetcher(pyramid, InputConfig(size=24, squash=128))(ONE, region)
    assert np.allclose(lazy.pixels, paper.pixels, atol=1e-5)


def test_a_window_is_squashed_by_itself_and_read_once():
    pixels = _image(200, 160)
    config = InputConfig(size=16, squash=64, filter="bilinear")
    with open_pyramid(pixels) as pyramid, open_pyramid(pixels[20:120, 40:90].copy()) as window:
        one = SquashFetcher(pyramid, config, (20, 40, 100, 50))
        other = SquashFetcher(window, config)
        for region in ([0, 0, 64, 64], [5, 9, 16, 16]):
            assert np.array_equal(one(ONE, np.array([region])).pixels, other(ONE, np.array([region])).pixels)
    assert one.stats[0].pixels == 5000
    assert one.stats[0].crops == 2


def test_nodata_is_not_averaged_in_and_not_measured(tmp_path):
    import rasterio

    pixels = np.full((64, 64), 200, np.uint8)
    pixels[:, 31:] = 0
    profile = {"driver": "GTiff", "width": 64, "height": 64, "count": 1, "dtype": "uint8", "nodata": 0}
    place = rasterio.Affine(2, 0, 500, 0, -2, 900)
    with rasterio.open(tmp_path / "holes.tif", "w", transform=place, **profile) as out:
        out.write(pixels[None])
    config = InputConfig(size=16, squash=32, filter="bilinear", bands=(0,), low=(0.0,), high=(255.0,))
    with open_pyramid(tmp_path / "holes.tif") as pyramid:
        crops = SquashFetcher(pyramid, config)(ONE, np.array([[0, 0, 32, 32]]))
    measured = crops.coverage[0] == 1
    assert np.allclose(crops.pixels[0, 0][measured], 200 / 127.5 - 1, atol=1e-5)
    assert (crops.coverage[0][:, 9:] == 0).all()
    assert (crops.pixels[0, 0][:, 9:] == 0).all()


def test_regions_go_back_to_where_they_were():
    frame = (100, 50, 300, 600)
    there = unsquashed(np.array([[0, 0, 224, 224], [-1, 111, 78, 77], [223, 223, 1, 1]]), frame, 224)
    assert there[0].tolist() == list(frame)
    assert (there[:, :2] >= [100, 50]).all()
    assert (there[:, :2] + there[:, 2:] <= [400, 650]).all()
    assert there[1].tolist() == [100, 50 + 297, 103, 207]
    boxes = np.array([[110, 70, 60, 120], [100, 50, 300, 600]])
    assert np.abs(unsquashed(squashed(boxes, frame, 224), frame, 224) - boxes).max() <= 3
    assert squashed(boxes, frame, 224)[1].tolist() == [0, 0, 224, 224]


def test_what_cannot_be_squashed_is_refused():
    with open_pyramid(_image(20, 20)) as pyramid:
        with pytest.raises(ConfigError, match="does not squash"):
            SquashFetcher(pyramid, InputConfig(size=16))
        with pytest.raises(RegionError):
            SquashFetcher(pyramid, InputConfig(size=16, squash=16), (0, 0, 21, 20))
