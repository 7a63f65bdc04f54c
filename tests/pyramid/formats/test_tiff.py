"""OME-TIFF and other tiled TIFF, tiles read natively."""

import logging
import threading
from itertools import product

import numpy as np
import pytest
import tifffile

from hiresattn.errors import OpenError, ReadError
from hiresattn.pyramid import open_pyramid
from hiresattn.pyramid.formats.quiet import unlogged
from tests.images import (
    SHAPES,
    TILE,
    coded,
    write_channels_ome_tiff,
    write_ome_tiff,
    write_pyramid_tiff,
)
from tests.pyramid.contract import PyramidContract
from tests.pyramid.damage import overwrite_tile, tile_place, zero_tile_entry


class TestOmeTiff(PyramidContract):
    backend = "tiff"

    def write(self, folder):
        return write_ome_tiff(folder / "image.ome.tif")


class TestOmeTiffJpegYcbcr(PyramidContract):
    backend = "tiff"
    tolerance = 20
    mean_tolerance = 1.5

    def write(self, folder):
        return write_ome_tiff(folder / "image.ome.tif", compression="jpeg")


class TestOmeTiffJpegRgb(PyramidContract):
    backend = "tiff"
    tolerance = 12
    mean_tolerance = 1.5

    def write(self, folder):
        # No subsampling, colours stored as R, G, B.
        path = folder / "image.ome.tif"
        options = {"level": 95, "outcolorspace": "rgb"}
        return write_ome_tiff(path, compression="jpeg", compressionargs=options)


class TestOmeTiff16BitBigTiffPredictor(PyramidContract):
    backend = "tiff"
    dtype = "uint16"

    def write(self, folder):
        return write_ome_tiff(folder / "image.ome.tif", "uint16", "zstd", predictor=True)


class TestOmeTiffPlanar(PyramidContract):
    backend = "tiff"
    dtype = "float32"

    def write(self, folder):
        return write_ome_tiff(folder / "image.ome.tif", "float32", "lzw", planarconfig="separate")


class TestOmeTiffChannelPages(PyramidContract):
    backend = "tiff"
    dtype = "uint16"
    mpp = None

    def write(self, folder):
        return write_channels_ome_tiff(folder / "image.ome.tif")


class TestPyramidTiff16Bit(PyramidContract):
    """OpenSlide knows the layout but refuses 16 bits."""

    backend = "tiff"
    dtype = "uint16"
    mpp = None

    def write(self, folder):
        return write_pyramid_tiff(folder / "image.tif", "uint16", "deflate", predictor=True)


@pytest.mark.parametrize("compression", ["jpeg2000", "webp", "lzma", "packbits", "none", "jpegxl", "png"])
def test_lossless_codecs_give_the_pixels_written(tmp_path, compression):
    arguments = {"webp": {"lossless": True}, "jpegxl": {"lossless": True}, "jpeg2000": {"reversible": True}}
    path = write_ome_tiff(
        tmp_path / "image.ome.tif", compression=compression, compressionargs=arguments.get(compression)
    )
    with open_pyramid(path) as pyramid:
        assert pyramid.backend == "tiff"
        assert np.array_equal(pyramid.read(0, 0, 0, *SHAPES[0]), coded())


# JPEG 2000, WebP, LZW and zstd have no checksum: some damage inside still decodes, and no reader can tell.
@pytest.mark.parametrize(
    ("compression", "harm"),
    [
        *product(["jpeg", "deflate", "lzma"], ["random", "zeros", "header"]),
        *product(["webp", "jpeg2000", "zstd"], ["header"]),
        ("lzw", "zeros"),
        ("zstd", "zeros"),
    ],
)
def test_a_damaged_tile_is_a_read_error_and_the_others_are_read(tmp_path, compression, harm):
    path = write_ome_tiff(tmp_path / "image.ome.tif", compression=compression)
    with open_pyramid(path) as pyramid:
        before = pyramid.read_tile(0, 0, 0).data
    overwrite_tile(path, level=0, row=1, column=2, harm=harm)
    with open_pyramid(path) as pyramid:
        with pytest.raises(ReadError, match="level 0, tile in row 1, column 2: damaged"):
            pyramid.read(0, 0, 0, *SHAPES[0])
        assert np.array_equal(pyramid.read_tile(0, 0, 0).data, before)


def test_a_sparse_tile_is_counted_and_not_valid(tmp_path):
    path = write_ome_tiff(tmp_path / "image.ome.tif")
    zero_tile_entry(path, level=0, row=1, column=2)
    with open_pyramid(path, nodata=7) as pyramid:
        assert pyramid.tile_bytes(0, 1, 2) == 0
        pixels = pyramid.read_masked(0, 0, 0, *SHAPES[0])
    gap = np.s_[TILE : 2 * TILE, 2 * TILE : 3 * TILE]
    assert pixels.missing_tiles == 1
    assert not pixels.valid[gap].any()
    assert (pixels.data[gap] == 7).all()
    pixels.data[gap] = coded()[gap]
    assert np.array_equal(pixels.data, coded())
    measured = (coded() != 7).all(axis=2)
    measured[gap] = False
    assert np.array_equal(pixels.valid, measured)


def test_tile_bytes_are_those_of_the_directory(tmp_path):
    path = write_ome_tiff(tmp_path / "image.ome.tif")
    with open_pyramid(path) as pyramid:
        for row, column in [(0, 0), (4, 5)]:
            assert pyramid.tile_bytes(0, row, column) == tile_place(path, 0, row, column)[1]


def test_alpha_says_what_is_valid(tmp_path):
    from tifffile import imwrite

    alpha = np.zeros((*SHAPES[0], 1), np.uint8)
    alpha[:100, :50] = 255
    image = np.concatenate([coded(), alpha], axis=2)
    imwrite(
        tmp_path / "image.ome.tif", image, tile=(TILE, TILE), photometric="rgb", extrasamples=["unassalpha"]
    )
    with open_pyramid(tmp_path / "image.ome.tif") as pyramid:
        pixels = pyramid.read_masked(0, 90, 40, 20, 20)
        assert pyramid.channels == 3
    assert np.array_equal(pixels.data, coded()[90:110, 40:60])
    assert np.array_equal(pixels.valid, alpha[90:110, 40:60, 0] > 0)


def test_a_palette_is_told_and_indices_are_read(tmp_path):
    from tifffile import imwrite

    colours = np.zeros((3, 256), np.uint16)
    colours[:, 5] = (0x1234, 0xFF00, 0x8000)
    image = np.full((300, 200), 5, np.uint8)
    imwrite(tmp_path / "image.ome.tif", image, tile=(TILE, TILE), photometric="palette", colormap=colours)
    with open_pyramid(tmp_path / "image.ome.tif") as pyramid:
        assert pyramid.palette[5].tolist() == [0x12, 0xFF, 0x80]
        assert (pyramid.read(0, 0, 0, 300, 200) == 5).all()


@pytest.mark.parametrize("axes", ["ZYX", "TYX"])
def test_a_stack_is_an_open_error_that_names_its_axis(tmp_path, axes):
    from tifffile import imwrite

    path = tmp_path / "stack.ome.tif"
    imwrite(path, np.zeros((4, 200, 300), np.uint8), tile=(TILE, TILE), metadata={"axes": axes})
    with pytest.raises(OpenError, match=f"pick one position of {axes[0]}"):
        open_pyramid(path)


def test_damaged_ome_xml_is_an_open_error_not_the_first_band(tmp_path, caplog):
    path = write_channels_ome_tiff(tmp_path / "image.ome.tif")
    whole = path.read_bytes()
    path.write_bytes(whole.replace(b"<Pixels", b"<Pix<ls", 1))
    with pytest.raises(OpenError, match="its OME-XML is damaged"):
        open_pyramid(path)
    assert not caplog.records


def test_tifffile_is_quiet_only_in_the_thread_that_opens_and_only_while_it_does(caplog):
    logger = logging.getLogger("tifffile")
    with unlogged("tifffile"):
        logger.error("ours")
        other = threading.Thread(target=logger.error, args=("another thread's",))
        other.start()
        other.join()
    logger.error("after it")
    assert [record.message for record in caplog.records] == ["another thread's", "after it"]


def test_twelve_bit_jpeg_is_refused_since_damage_would_not_show(tmp_path):
    from tifffile import imwrite

    path = tmp_path / "image.ome.tif"
    image = coded(dtype="uint16")[:, :, 0] // 4
    imwrite(path, image, tile=(TILE, TILE), compression="jpeg", compressionargs={"bitspersample": 12})
    with pytest.raises(OpenError, match="JPEG with 1 bands of 12 bits"):
        open_pyramid(path)


def test_an_implausible_scale_is_not_taken_and_said(tmp_path):
    path = write_pyramid_tiff(tmp_path / "image.tif", "uint16", resolution=(72, 72), resolutionunit="inch")
    with open_pyramid(path) as pyramid:
        assert pyramid.mpp is None
        assert "352.778" in pyramid.meta.mpp_source


def test_a_scale_in_the_resolution_tags_is_taken(tmp_path):
    path = write_pyramid_tiff(
        tmp_path / "image.tif", "uint16", resolution=(40000, 40000), resolutionunit="centimeter"
    )
    with open_pyramid(path) as pyramid:
        assert pyramid.mpp == pytest.approx(0.25)
        assert pyramid.meta.mpp_source == "TIFF resolution"


def test_tiles_are_decoded_where_the_decoder_keeps_them_in_the_caches(tmp_path):
    path = write_ome_tiff(tmp_path / "image.ome.tif", compression="jpeg")
    with open_pyramid(path) as pyramid:
        for _ in range(5):
            buffer = pyramid.native_tiles.buffer(0)
            assert buffer.shape == (TILE, TILE, 3)
            tiles = pyramid.read_tile(0, 0, 0, buffer).data, pyramid.read_tile(0, 0, 0).data
            assert np.shares_memory(tiles[0], buffer)
            for tile in tiles:
                assert tile.ctypes.data % 32 == 16


@pytest.mark.parametrize(("first", "second"), [("uint16", "int16"), ("float32", "uint32")])
def test_a_page_of_another_data_type_of_the_same_size_is_no_level(tmp_path, first, second):
    for dtype, count in ((first, 2), (second, 1)):
        path = tmp_path / f"{dtype}.tif"
        with tifffile.TiffWriter(path) as writer:
            writer.write(np.ones((64, 64), first), tile=(32, 32))
            writer.write(np.ones((32, 32), dtype), tile=(32, 32), subfiletype=1)
        with open_pyramid(path) as pyramid:
            assert len(pyramid.levels) == count
            assert pyramid.read(0, 0, 0, 64, 64).dtype == first


def test_a_hole_in_a_coarse_level_is_read_from_the_finer_one_and_still_counted(tmp_path):
    path = write_ome_tiff(tmp_path / "image.ome.tif")
    with open_pyramid(path) as pyramid:
        before = [pyramid.read(level, 0, 0, *SHAPES[level]) for level in (0, 1)]
    zero_tile_entry(path, level=1, row=0, column=1)
    with open_pyramid(path) as pyramid:
        whole = pyramid.read_masked(1, 0, 0, *SHAPES[1])
        tile = pyramid.read_tile(1, 0, 1)
    assert whole.missing_tiles == tile.missing_tiles == 1
    means = before[0][:256, 256:512].reshape(128, 2, 128, 2, 3).mean(axis=(1, 3))
    np.testing.assert_allclose(tile.data, np.rint(means), atol=1e-9)
    assert tile.valid is None
    np.testing.assert_array_equal(whole.data[:128, :128], before[1][:128, :128])
    np.testing.assert_array_equal(whole.data[:128, 128:256], tile.data)
