"""Plain images, held whole."""

import imagecodecs
import numpy as np
import pytest
from PIL import Image

from hiresattn.errors import OpenError, ReadError
from hiresattn.pyramid import open_pyramid
from hiresattn.pyramid.formats import image as module
from tests.images import SHAPES, coded, write_image
from tests.pyramid.contract import PyramidContract


class _Plain(PyramidContract):
    backend = "image"
    levels = 1
    tile = (512, 512)
    mpp = None
    exact_bytes = False


class TestPng(_Plain):
    def write(self, folder):
        return write_image(folder / "image.png")


class TestJpeg(_Plain):
    tolerance = 20
    mean_tolerance = 1.5

    def write(self, folder):
        return write_image(folder / "image.jpeg", quality=95, subsampling=0)


def test_nothing_is_decoded_before_the_first_read_and_only_once(tmp_path, monkeypatch):
    path = write_image(tmp_path / "image.png")
    calls = []
    decode = module.ImagePyramid._decoded
    monkeypatch.setattr(module.ImagePyramid, "_decoded", lambda self: calls.append(1) or decode(self))
    with open_pyramid(path) as pyramid:
        assert not calls
        pyramid.read(0, 0, 0, 5, 5)
        pyramid.read(0, 9, 9, 5, 5)
    assert len(calls) == 1


@pytest.mark.parametrize("name", ["image.png", "image.jpg"])
@pytest.mark.parametrize("share", [0.3, 0.9])
def test_an_image_cut_short_is_a_read_error_not_grey_pixels(tmp_path, name, share):
    path = write_image(tmp_path / name)
    whole = path.read_bytes()
    path.write_bytes(whole[: int(len(whole) * share)])
    with open_pyramid(path) as pyramid, pytest.raises(ReadError, match="damaged or cut short"):
        pyramid.read(0, 0, 0, 5, 5)


@pytest.mark.parametrize("name", ["image.png", "image.jpg"])
def test_a_damaged_image_is_a_read_error(tmp_path, name):
    path = write_image(tmp_path / name)
    whole = bytearray(path.read_bytes())
    middle = len(whole) // 2
    whole[middle : middle + 300] = np.random.default_rng(0).bytes(300)
    path.write_bytes(whole)
    with open_pyramid(path) as pyramid, pytest.raises(ReadError, match="damaged or cut short"):
        pyramid.read(0, 0, 0, 5, 5)


def test_sixteen_bits_stay_sixteen(tmp_path):
    grey = coded(0, "uint16")[:, :, 0]
    Image.fromarray(grey).save(tmp_path / "image.png")
    with open_pyramid(tmp_path / "image.png") as pyramid:
        assert pyramid.dtype == np.uint16
        assert np.array_equal(pyramid.read(0, 0, 0, *SHAPES[0])[:, :, 0], grey)


def test_alpha_says_what_is_valid(tmp_path):
    alpha = np.zeros((*SHAPES[0], 1), np.uint8)
    alpha[:100, :50] = 255
    Image.fromarray(np.concatenate([coded(), alpha], axis=2)).save(tmp_path / "image.png")
    with open_pyramid(tmp_path / "image.png") as pyramid:
        pixels = pyramid.read_masked(0, 90, 40, 20, 20)
    assert np.array_equal(pixels.data, coded()[90:110, 40:60])
    assert np.array_equal(pixels.valid, alpha[90:110, 40:60, 0] > 0)


def test_a_palette_is_told_and_indices_are_read(tmp_path):
    indices = np.arange(200, dtype=np.uint8).reshape(10, 20)
    image = Image.fromarray(indices).convert("P")
    image.putpalette(np.repeat(np.arange(256, dtype=np.uint8)[::-1], 3).tobytes())
    image.save(tmp_path / "image.png")
    with open_pyramid(tmp_path / "image.png") as pyramid:
        assert pyramid.palette[3].tolist() == [252, 252, 252]
        assert np.array_equal(pyramid.read(0, 0, 0, 10, 20)[:, :, 0], indices)


def test_an_image_too_big_to_hold_is_an_open_error_that_says_what_to_do(tmp_path, monkeypatch):
    path = write_image(tmp_path / "image.png")
    monkeypatch.setattr(module, "MAX_PX", 1000)
    with pytest.raises(OpenError, match="convert it to a tiled, pyramidal TIFF or OME-Zarr"):
        module.ImagePyramid(str(path))
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 1000)
    with pytest.raises(OpenError, match="convert it to a tiled, pyramidal TIFF or OME-Zarr"):
        module.ImagePyramid(str(path))


def test_a_cmyk_image_is_an_open_error(tmp_path):
    Image.new("CMYK", (30, 20)).save(tmp_path / "image.jpg")
    with pytest.raises(OpenError, match="colour mode CMYK"):
        module.ImagePyramid(str(tmp_path / "image.jpg"))


def test_a_grey_jpeg_has_one_band(tmp_path):
    grey = coded()[:, :, 0]
    Image.fromarray(grey).save(tmp_path / "image.jpg", quality=95)
    with open_pyramid(tmp_path / "image.jpg") as pyramid:
        assert pyramid.channels == 1
        assert np.abs(pyramid.read(0, 0, 0, *SHAPES[0])[:, :, 0].astype(int) - grey).mean() < 1


def test_a_changed_byte_in_the_pixels_of_a_png_is_a_read_error(tmp_path):
    path = write_image(tmp_path / "image.png")
    whole = path.read_bytes()
    start = whole.index(b"IDAT") + 4
    for place in range(start, len(whole), 293):
        path.write_bytes(whole[:place] + bytes([whole[place] ^ 32]) + whole[place + 1 :])
        with pytest.raises((ReadError, OpenError)), open_pyramid(path) as pyramid:
            pyramid.read(0, 0, 0, *SHAPES[0])


@pytest.mark.parametrize("bands", [1, 2, 3, 4])
def test_png_of_16_bits_keeps_them(tmp_path, bands):
    stored = np.dstack([coded(0, "uint16"), coded(0, "uint16")[:, :, 0]])[:, :, :bands]
    path = tmp_path / "a.png"
    path.write_bytes(imagecodecs.png_encode(np.ascontiguousarray(stored.squeeze())))
    with open_pyramid(path) as image:
        seen = stored[:, :, : bands - 1] if bands in (2, 4) else stored
        np.testing.assert_array_equal(image.read(0, 0, 0, *stored.shape[:2]), seen)
