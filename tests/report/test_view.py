"""Pictures of regions: the right place, honest about what was not measured, for any data type."""

import numpy as np
import pytest

from hiresattn import open_pyramid
from hiresattn.report.view import display_range, read_view, to_image


def test_a_view_of_the_same_size_is_the_region_itself():
    pixels = np.random.default_rng(0).integers(0, 255, (60, 90, 3), dtype=np.uint8)
    view = read_view(open_pyramid(pixels), (10, 20, 32, 32), 32)
    np.testing.assert_allclose(view.values, pixels[10:42, 20:52], atol=1e-4)
    assert view.valid.all()


@pytest.mark.parametrize("shape", [(64, 200), (200, 64), (33, 1000)])
def test_a_view_of_an_oblong_region_is_its_area_average_everywhere(shape):
    y, x = np.mgrid[: shape[0], : shape[1]]
    ramp = (y * 3.0 + x).astype(np.float32)[..., None]
    view = read_view(open_pyramid(ramp), (0, 0, *shape), max(shape) // 2)
    height, width = view.valid.shape
    assert height / width == pytest.approx(shape[0] / shape[1], rel=0.05)
    scale_y, scale_x = shape[0] / height, shape[1] / width
    expected = (np.arange(height)[:, None] + 0.5) * scale_y * 3 + (np.arange(width) + 0.5) * scale_x - 2
    np.testing.assert_allclose(view.values[..., 0], expected, atol=4)


@pytest.mark.parametrize("dtype", ["uint8", "uint16", "int16", "float32", "float64"])
def test_values_stay_the_images_own(dtype):
    pixels = np.full((40, 40, 1), 100, dtype)
    assert read_view(open_pyramid(pixels), (0, 0, 40, 40), 20).values.max() == pytest.approx(100)


@pytest.mark.parametrize(("bands", "shown"), [(1, 1), (2, 1), (3, 3), (8, 3)])
def test_the_first_three_bands_or_the_first_are_shown(bands, shown):
    pixels = np.arange(bands, dtype=np.uint8)[None, None].repeat(16, 0).repeat(16, 1)
    view = read_view(open_pyramid(pixels), (0, 0, 16, 16), 16)
    assert view.values[0, 0].tolist() == list(range(shown))
    low, high = np.zeros(shown), np.full(shown, 255.0)
    assert to_image(view, low, high).mode == "RGB"


def test_what_was_not_measured_is_hatched_not_black():
    pixels = np.full((32, 32, 1), 50.0, np.float32)
    pixels[:, :16] = np.nan
    view = read_view(open_pyramid(pixels), (0, 0, 32, 32), 32)
    shown = np.asarray(to_image(view, np.zeros(1), np.full(1, 100.0)))
    assert view.valid.tolist() == [[False] * 16 + [True] * 16] * 32
    assert set(np.unique(shown[:, :16])) == {150, 195}
    assert set(np.unique(shown[:, 16:])) == {127}


def test_the_range_is_that_of_uint8_or_percentiles_of_what_was_measured():
    bright = read_view(open_pyramid(np.full((16, 16, 3), 200, np.uint8)), (0, 0, 16, 16), 16)
    assert display_range(bright, np.dtype("uint8"))[1].tolist() == [255, 255, 255]
    dark = read_view(open_pyramid(np.full((16, 16, 3), 80, np.uint8)), (0, 0, 16, 16), 16)
    assert display_range(dark, np.dtype("uint8"))[1].tolist() == [80, 80, 80]
    wide = np.linspace(0, 10000, 10000, dtype=np.float32).reshape(100, 100, 1)
    low, high = display_range(read_view(open_pyramid(wide), (0, 0, 100, 100), 100), np.dtype("float32"))
    assert low[0] == pytest.approx(200, rel=0.1)
    assert high[0] == pytest.approx(9800, rel=0.01)
    nothing = read_view(open_pyramid(np.full((16, 16, 1), np.nan, np.float32)), (0, 0, 16, 16), 16)
    assert np.isfinite(display_range(nothing, np.dtype("float32"))).all()
