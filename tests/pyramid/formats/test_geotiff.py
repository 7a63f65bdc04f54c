"""GeoTIFF and other rasters by GDAL."""

import subprocess
import sys
import warnings
from pathlib import Path

import numpy as np
import pytest

from hiresattn.conversion import convert
from hiresattn.errors import NotFoundError, OpenError, ReadError
from hiresattn.pyramid import open_pyramid
from hiresattn.pyramid.formats.vrt import ANYWHERE
from tests.images import CRS, SHAPES, TILE, TRANSFORM, coded, write_geotiff, write_pyramid_tiff
from tests.pyramid.contract import PyramidContract
from tests.pyramid.damage import overwrite_tile, zero_tile_entry


class TestGeoTiff(PyramidContract):
    backend = "rasterio"
    dtype = "uint16"
    crs = CRS
    mpp = None

    def write(self, folder):
        return write_geotiff(folder / "scene.tif", "uint16")

    def test_the_transform_is_that_of_level_0(self, pyramid):
        assert pyramid.transform == TRANSFORM


class TestGeoTiffByGdal(PyramidContract):
    backend = "rasterio"
    dtype = "uint16"
    crs = CRS
    mpp = None

    def write(self, folder):
        return write_geotiff(folder / "scene.tif", "uint16", compression="zstd")


class TestGeoTiffFloatByBand(PyramidContract):
    backend = "rasterio"
    dtype = "float32"
    crs = CRS
    mpp = None

    def write(self, folder):
        return _by_band(folder / "scene.tif")

    levels = 1


class TestCogJpeg(PyramidContract):
    """JPEG tiles of a local GeoTIFF are decoded natively."""

    backend = "rasterio"
    crs = CRS
    mpp = None
    tolerance = 20
    mean_tolerance = 1.5

    def write(self, folder):
        return write_geotiff(folder / "scene.tif", compression="jpeg")


def _by_band(path):
    """Each band in tiles of its own."""
    import rasterio

    image = coded(dtype="float32")
    options = {"driver": "GTiff", "width": image.shape[1], "height": image.shape[0], "count": 3}
    options |= {
        "tiled": True,
        "blockxsize": TILE,
        "blockysize": TILE,
        "interleave": "band",
        "compress": "zstd",
    }
    with rasterio.open(
        path, "w", dtype="float32", crs=CRS, transform=rasterio.Affine(*TRANSFORM), **options
    ) as new:
        new.write(np.moveaxis(image, 2, 0))
    return path


def _raster(path, image, **options):
    """Write ``[h w c]`` with rasterio."""
    import rasterio

    options = {"driver": "GTiff", "crs": CRS, "transform": rasterio.Affine(*TRANSFORM), **options}
    mask = options.pop("mask", None)
    meaning = options.pop("colorinterp", None)
    with (
        rasterio.Env(GDAL_TIFF_INTERNAL_MASK=True),
        rasterio.open(
            path,
            "w",
            width=image.shape[1],
            height=image.shape[0],
            count=image.shape[2],
            dtype=image.dtype,
            **options,
        ) as new,
    ):
        new.write(np.moveaxis(image, 2, 0))
        if meaning:
            new.colorinterp = meaning
        if mask is not None:
            new.write_mask(mask)
    return path


@pytest.mark.parametrize("dtype", ["uint16", "int16", "float32", ">u2"])
@pytest.mark.parametrize("predictor", [None, True])
def test_native_tiles_without_loss_are_gdals_pixels(tmp_path, dtype, predictor):
    order = dtype[0] if dtype[0] in "<>" else "<"
    path = write_geotiff(tmp_path / "scene.tif", np.dtype(dtype).name, predictor=predictor, byteorder=order)
    with open_pyramid(path) as pyramid:
        assert pyramid._tiles is not None
        native = [pyramid.read(level, 0, 0, *shape) for level, shape in enumerate(SHAPES)]
        pyramid._tiles = None
        for level, shape in enumerate(SHAPES):
            assert np.array_equal(pyramid.read(level, 0, 0, *shape), native[level])


def test_native_tiles_and_gdal_give_the_same_pixels(tmp_path):
    path = write_geotiff(tmp_path / "scene.tif", compression="jpeg")
    with open_pyramid(path) as pyramid:
        assert pyramid._tiles is not None
        native = [pyramid.read(level, 0, 0, *shape).astype(int) for level, shape in enumerate(SHAPES)]
        pyramid._tiles = None
        for level, shape in enumerate(SHAPES):
            gdal = pyramid.read(level, 0, 0, *shape).astype(int)
            assert np.abs(gdal - native[level]).max() <= 24
            assert abs(gdal.mean() - native[level].mean()) < 0.1


@pytest.mark.parametrize(
    ("compression", "harm"),
    [
        ("jpeg", "random"),
        ("jpeg", "zeros"),
        ("jpeg", "header"),
        ("deflate", "random"),
        ("deflate", "zeros"),
        ("deflate", "header"),
        ("deflate", "last"),  # of its checksum
        ("zstd", "zeros"),
        ("zstd", "header"),
    ],
)
def test_a_damaged_tile_is_a_read_error_and_the_others_are_read(tmp_path, compression, harm):
    path = write_geotiff(tmp_path / "scene.tif", compression=compression)
    with open_pyramid(path) as pyramid:
        before = pyramid.read_tile(0, 0, 0).data
    overwrite_tile(path, level=0, row=1, column=2, harm=harm)
    with open_pyramid(path) as pyramid:
        with pytest.raises(ReadError, match="damaged"):
            pyramid.read_tile(0, 1, 2)
        assert np.array_equal(pyramid.read_tile(0, 0, 0).data, before)


@pytest.mark.parametrize("compression", ["deflate", "jpeg", "zstd"])
def test_a_sparse_tile_is_counted_and_not_valid(tmp_path, compression):
    path = write_geotiff(tmp_path / "scene.tif", compression=compression)
    zero_tile_entry(path, level=0, row=1, column=0)
    with open_pyramid(path) as pyramid:
        pixels = pyramid.read_masked(0, 100, 90, 150, 200)
        assert pyramid.tile_bytes(0, 1, 0) == 0
    wanted = np.ones((150, 200), bool)
    wanted[TILE - 100 : 2 * TILE - 100, : TILE - 90] = False
    assert pixels.missing_tiles == 1
    assert np.array_equal(pixels.valid, wanted)


def test_nodata_in_any_band_that_is_asked_for_is_not_valid(tmp_path):
    image = np.ones((100, 120, 3), np.uint8)
    image[10:20, 10:20] = 0
    image[50:60, 50:60, 1] = 0
    with open_pyramid(_raster(tmp_path / "scene.tif", image, nodata=0)) as pyramid:
        assert pyramid.nodata == 0
        whole = 0, 0, 0, 100, 120
        assert np.array_equal(pyramid.read_masked(*whole).valid, image.all(axis=2))
        assert np.array_equal(pyramid.read_masked(*whole, bands=(0, 2)).valid, image[:, :, 0] > 0)
        assert np.array_equal(pyramid.read_by_band(*whole).valid, image > 0)


def test_a_given_nodata_value_takes_the_place_of_the_files(tmp_path):
    image = np.ones((100, 120, 1), np.int16)
    image[10:20] = -9999
    path = _raster(tmp_path / "scene.tif", image, nodata=1)
    with open_pyramid(path, nodata=-9999) as pyramid:
        assert np.array_equal(pyramid.read_masked(0, 0, 0, 100, 120).valid, image[:, :, 0] == 1)


def test_a_nodata_value_that_the_type_cannot_hold_masks_nothing(tmp_path):
    image = np.zeros((100, 120, 1), np.uint8)
    with open_pyramid(_raster(tmp_path / "scene.tif", image), nodata=-9999) as pyramid:
        assert pyramid.read_masked(0, 0, 0, 100, 120).valid is None


def test_one_nan_is_not_valid(tmp_path):
    image = np.ones((100, 120, 2), np.float32)
    image[3, 4, 1] = np.nan
    with open_pyramid(_raster(tmp_path / "scene.tif", image)) as pyramid:
        valid = pyramid.read_masked(0, 0, 0, 100, 120).valid
    assert np.argwhere(~valid).tolist() == [[3, 4]]


@pytest.mark.parametrize("compress", ["deflate", "jpeg"])
def test_an_internal_mask_says_what_is_valid_at_every_level(tmp_path, compress):
    import rasterio
    from rasterio.shutil import copy

    mask = np.zeros((1000, 1300), np.uint8)
    mask[200:700, 300:900] = 255
    image = np.full((1000, 1300, 3), 90, np.uint8)
    plain = _raster(tmp_path / "plain.tif", image, mask=mask)
    with rasterio.open(plain) as source:
        copy(source, tmp_path / "scene.tif", driver="COG", compress=compress, blocksize=256)
    with open_pyramid(tmp_path / "scene.tif") as pyramid:
        assert pyramid.channels == 3
        assert len(pyramid.levels) > 1
        for level, has in enumerate(pyramid.levels):
            step = 2**level
            pixels = pyramid.read_masked(level, 0, 0, has.height, has.width)
            inside = np.s_[200 // step + 1 : 700 // step - 1, 300 // step + 1 : 900 // step - 1]
            assert pixels.valid[inside].all()
            assert abs(pixels.valid.sum() / (600 * 500 / step**2) - 1) < 0.05


def test_alpha_says_what_is_valid_and_near_infrared_is_a_band(tmp_path):
    from rasterio.enums import ColorInterp

    image = np.full((100, 120, 4), 9, np.uint8)
    image[:50, :, 3] = 0
    rgb = [ColorInterp.red, ColorInterp.green, ColorInterp.blue]
    with open_pyramid(_raster(tmp_path / "a.tif", image, colorinterp=[*rgb, ColorInterp.alpha])) as pyramid:
        assert pyramid.channels == 3
        assert np.array_equal(pyramid.read_masked(0, 0, 0, 100, 120).valid, image[:, :, 3] > 0)
    with open_pyramid(_raster(tmp_path / "n.tif", image, photometric="rgb", alpha="no")) as pyramid:
        assert pyramid.channels == 4
        assert pyramid.read_masked(0, 0, 0, 100, 120).valid is None
    first = [ColorInterp.alpha, *rgb]
    with open_pyramid(_raster(tmp_path / "f.tif", image, colorinterp=first)) as pyramid:
        assert pyramid._bands == [2, 3, 4]


def test_complex_bands_are_an_open_error(tmp_path):
    path = _raster(tmp_path / "scene.tif", np.zeros((50, 60, 1), np.complex64))
    with pytest.raises(OpenError, match="bands of type complex64; possible"):
        open_pyramid(path)


def test_a_raster_without_place_opens_without_a_warning(tmp_path):
    import rasterio

    with warnings.catch_warnings():
        warnings.simplefilter("ignore", rasterio.errors.NotGeoreferencedWarning)
        path = _raster(tmp_path / "scene.tif", coded(), crs=None, transform=None)
    with open_pyramid(path) as pyramid:
        assert (pyramid.backend, pyramid.crs, pyramid.transform) == ("rasterio", None, None)
        assert np.array_equal(pyramid.read(0, 5, 6, 70, 80), coded()[5:75, 6:86])


def test_a_rotated_transform_is_kept(tmp_path):
    import rasterio

    rotated = (1.0, 0.5, 10.0, 0.5, -1.0, 20.0)
    path = _raster(tmp_path / "scene.tif", coded(), transform=rasterio.Affine(*rotated))
    with open_pyramid(path) as pyramid:
        assert pyramid.transform == rotated


def test_one_strip_for_all_is_read_in_rows(tmp_path):
    from tifffile import imwrite

    image = np.tile(coded(), (4, 1, 1))
    path = tmp_path / "scene.tif"
    imwrite(path, image, photometric="rgb", rowsperstrip=image.shape[0], compression="deflate", metadata=None)
    with open_pyramid(path) as pyramid:
        assert pyramid.levels[0].tile_height == 512
        assert not pyramid.exact_bytes
        assert np.array_equal(pyramid.read_tile(0, 1, 0).data, image[512:1024])


def test_a_virtual_raster_reads_its_sources_and_a_lost_one_is_an_error(tmp_path, monkeypatch):
    from rasterio.shutil import copy

    path = write_geotiff(tmp_path / "scene.tif", "uint16")
    copy(path, tmp_path / "scene.vrt", driver="VRT")
    with open_pyramid(tmp_path / "scene.vrt") as pyramid:
        assert np.array_equal(pyramid.read(0, 100, 200, 50, 60), coded(dtype="uint16")[100:150, 200:260])
    text = (tmp_path / "scene.vrt").read_text()
    (tmp_path / "lost.vrt").write_text(text.replace("scene.tif", "lost.tif"))
    (tmp_path / "junk.vrt").write_text(text.replace("scene.tif", "junk.tif"))
    (tmp_path / "junk.tif").write_bytes(bytes(range(256)))
    for anywhere in ("0", "1"):
        monkeypatch.setenv(ANYWHERE, anywhere)
        for name in ("lost", "junk"):  # GDAL returns zeros where it failed to open them before
            with pytest.raises(OpenError, match=rf"{name}\.vrt: .* source can't be opened: .*{name}\.tif"):
                open_pyramid(tmp_path / f"{name}.vrt")


def test_a_source_of_two_files_is_one_of_a_virtual_raster(tmp_path):
    from rasterio.shutil import copy

    copy(write_geotiff(tmp_path / "scene.tif", "uint16"), tmp_path / "scene.img", driver="ENVI")
    copy(tmp_path / "scene.img", tmp_path / "scene.vrt", driver="VRT")
    with open_pyramid(tmp_path / "scene.vrt") as pyramid:
        assert np.array_equal(pyramid.read(0, 100, 200, 50, 60), coded(dtype="uint16")[100:150, 200:260])
    (tmp_path / "scene.hdr").unlink()
    with pytest.raises(OpenError, match=r"source can't be opened: .*scene\.img"):
        open_pyramid(tmp_path / "scene.vrt")


def test_a_scene_cut_short_is_an_open_error(tmp_path):
    whole = write_geotiff(tmp_path / "scene.tif").read_bytes()
    for kept in (len(whole) // 2, len(whole) - 100):
        path = tmp_path / f"cut{kept}.tif"
        path.write_bytes(whole[:kept])
        with pytest.raises(OpenError, match="damaged or cut short"):
            open_pyramid(path)


@pytest.fixture(scope="module")
def served(tmp_path_factory):
    """A folder, its address, and the log of what was asked for."""
    folder = tmp_path_factory.mktemp("served")
    log = tmp_path_factory.mktemp("log") / "requests"
    command = [sys.executable, Path(__file__).parents[1] / "serve.py", folder, log]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as server:  # noqa: S603 - our own
        yield folder, f"http://127.0.0.1:{server.stdout.readline().strip()}", log
        server.terminate()


def test_a_scene_over_http_is_read_by_window_without_asking_for_its_neighbours(served):
    folder, address, log = served
    write_geotiff(folder / "scene.tif", "uint16")
    log.write_text("")  # what other tests asked for
    with open_pyramid(f"{address}/scene.tif") as pyramid:
        assert [(level.height, level.width) for level in pyramid.levels] == SHAPES
        assert np.array_equal(pyramid.read(1, 100, 120, 60, 70), coded(1, "uint16")[100:160, 120:190])
        assert pyramid.exact_bytes
    beside = {"/scene.tif.msk", "/scene.tif.aux.xml"}  # is there a mask, or a note?
    assert {line.split("\t")[0] for line in log.read_text().splitlines()} == {"/scene.tif", *beside}
    log.write_text("")
    with open_pyramid(f"{address}/scene.tif?signed=1"):
        assert {line.partition("?")[0] for line in log.read_text().splitlines()} == {"/scene.tif"}


@pytest.mark.parametrize("layout", ["COG", "GTiff"])
def test_what_lies_beside_a_remote_scene_counts_as_beside_a_local_one(served, layout):
    import rasterio
    from rasterio.shutil import copy

    folder, address, _ = served
    name = f"masked{layout}.tif"
    _raster(folder / "source.tif", coded()[:512, :512])
    copy(folder / "source.tif", folder / name, driver=layout)
    assert read_everywhere(f"{address}/{name}", folder / name)[0] is None
    mask = np.full((512, 512), 255, np.uint8)
    mask[:, :200] = 0
    with rasterio.Env(GDAL_TIFF_INTERNAL_MASK=False), rasterio.open(folder / "source.tif", "r+") as file:
        file.write_mask(mask)
    (folder / "source.tif.msk").rename(folder / f"{name}.msk")
    valid = read_everywhere(f"{address}/{name}", folder / name)
    assert np.array_equal(valid[0], mask > 0)


def read_everywhere(remote, local):
    """The masks of all levels, which are the same as of the local file."""
    masks = []
    with open_pyramid(remote) as one, open_pyramid(local) as other:
        assert (one.crs, one.transform) == (other.crs, other.transform)
        sizes = [
            [(level.height, level.width, level.downsample) for level in image.levels]
            for image in (one, other)
        ]  # strips of a local file come several at a time
        assert sizes[0] == sizes[1]
        for number, level in enumerate(one.levels):
            window = (number, 0, 0, level.height, level.width)
            found, wanted = one.read_masked(*window), other.read_masked(*window)
            assert np.array_equal(found.data, wanted.data)
            assert np.array_equal(found.valid, wanted.valid)
            masks.append(found.valid)
    return masks


def test_notes_beside_a_remote_image_say_where_it_lies(served):
    from PIL import Image

    folder, address, _ = served
    Image.fromarray(coded()[:64, :64]).save(folder / "placed.png")
    (folder / "placed.pgw").write_text("10\n0\n0\n-10\n500005\n4999995\n")
    with open_pyramid(f"{address}/placed.png") as pyramid:
        assert pyramid.transform == (10.0, 0.0, 500000.0, 0.0, -10.0, 5000000.0)


def test_overviews_beside_a_big_remote_scene_are_found(served):
    import rasterio

    folder, address, _ = served
    image = np.zeros((2500, 2100, 1), np.uint8)
    path = _raster(folder / "big.tif", image, tiled=True, compress="deflate")
    with rasterio.Env(TIFF_USE_OVR="YES"), rasterio.open(path, "r+") as raster:
        raster.build_overviews([2, 4])
    assert (folder / "big.tif.ovr").exists()
    with open_pyramid(f"{address}/big.tif") as pyramid:
        assert len(pyramid.levels) == 3


def test_a_remote_scene_that_goes_away_is_a_read_error_not_blank_pixels(served):
    folder, address, _ = served
    image = np.random.default_rng(0).integers(0, 255, (1024, 1024, 3), np.uint8)
    path = _raster(folder / "gone.tif", image, tiled=True, blockxsize=256, blockysize=256)
    with open_pyramid(f"{address}/gone.tif") as pyramid:
        pyramid.read(0, 0, 0, 5, 5)
        path.unlink()
        with pytest.raises(ReadError, match="out of reach"):
            pyramid.read(0, 800, 800, 200, 200)


def test_a_remote_scene_that_is_not_there_is_a_not_found_error(served):
    with pytest.raises(NotFoundError, match="no such file"):
        open_pyramid(f"{served[1]}/other.tif")


def test_a_tiff_of_16_bits_without_place_is_not_squeezed_to_8(tmp_path):
    with open_pyramid(write_pyramid_tiff(tmp_path / "image.tif", "uint16")) as pyramid:
        assert pyramid.dtype == np.uint16


def test_alpha_counts_beside_a_nodata_value_and_in_any_place(tmp_path):
    from rasterio.enums import ColorInterp

    image = np.full((100, 120, 5), 9, np.uint8)
    image[:50, :, 4] = 0
    image[60:70, :, 1] = 1
    colours = [ColorInterp.red, ColorInterp.green, ColorInterp.blue, ColorInterp.undefined, ColorInterp.alpha]
    path = _raster(tmp_path / "scene.tif", image, colorinterp=colours, nodata=1)
    with open_pyramid(path) as pyramid:
        assert pyramid.channels == 4
        found = pyramid.read_by_band(0, 0, 0, 100, 120).valid
    wanted = np.broadcast_to(image[:, :, 4:] > 0, (100, 120, 4)).copy()
    wanted[60:70, :, 1] = False
    assert np.array_equal(found, wanted)


def test_one_bands_absent_tiles_leave_the_other_bands(tmp_path):
    import rasterio

    image = coded()[:512, :512]
    profile = {"height": 512, "width": 512, "count": 3, "dtype": "uint8", "interleave": "band", "tiled": True}
    layout = {
        "blockxsize": TILE,
        "blockysize": TILE,
        "sparse_ok": True,
        "transform": rasterio.Affine(*TRANSFORM),
    }
    with rasterio.open(tmp_path / "scene.tif", "w", driver="GTiff", **profile, **layout) as file:
        file.write(image[:, :, 0], 1)
        file.write(image[:, :, 1], 2)
        file.write(image[:256, :, 2], 3, window=((0, 256), (0, 512)))
    with open_pyramid(tmp_path / "scene.tif") as pyramid:
        for native in (True, False):
            found = pyramid.read_masked(0, 0, 0, 512, 512, bands=(0, 1))
            assert np.array_equal(found.data[:, :, :2], image[:, :, :2])
            assert (found.valid, found.missing_tiles) == (None, 0)
            every = pyramid.read_masked(0, 0, 0, 512, 512)
            assert every.missing_tiles == 8
            assert np.array_equal(every.valid, np.arange(512)[:, None] < np.full(512, 256))
            assert native == (pyramid.native_tiles is not None)
            pyramid.native_tiles = pyramid._tiles = None


@pytest.mark.parametrize(
    ("dtype", "text", "value"),
    [
        ("float32", "-3.40282e+38", np.finfo(np.float32).min),
        ("int64", "-9.2233720368547758e+18", np.iinfo(np.int64).min),
        ("uint64", "18446744073709551615", np.iinfo(np.uint64).max),
    ],
)
def test_a_nodata_tag_that_is_rounded_still_marks_its_pixels(tmp_path, dtype, text, value):
    import tifffile

    image = np.ones((100, 120, 1), dtype)
    image[10:20] = value
    path = _raster(tmp_path / "scene.tif", image, nodata=7)
    with tifffile.TiffFile(path, mode="r+b") as tif:
        tif.pages[0].tags[42113].overwrite(text)
    with open_pyramid(path) as pyramid:
        assert np.array_equal(pyramid.read_masked(0, 0, 0, 100, 120).valid, image[:, :, 0] == 1)


@pytest.mark.parametrize("compress", ["LERC", "LERC_DEFLATE", "LERC_ZSTD"])
@pytest.mark.parametrize("interleave", ["pixel", "band"])
def test_the_mask_of_a_lerc_tile_is_kept(tmp_path, compress, interleave):
    image = np.random.default_rng(0).random((300, 256, 2)).astype(np.float32)
    image[:100] = np.nan
    layout = {
        "tiled": True,
        "blockxsize": TILE,
        "blockysize": TILE,
        "interleave": interleave,
        "max_z_error": 0,
    }
    path = _raster(tmp_path / "scene.tif", image, compress=compress, nodata=np.nan, **layout)
    with open_pyramid(path) as pyramid:
        assert pyramid.native_tiles is not None
        found = pyramid.read_masked(0, 0, 0, 300, 256)
    np.testing.assert_array_equal(found.data, image)
    assert np.array_equal(found.valid, np.isfinite(image[:, :, 0]))


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("nodata", [-9999.0, 0.0, 1.0, -32768.0, 3e9, -1e38])
def test_of_floats_nodata_is_what_gdal_takes_for_it(tmp_path, nodata, dtype):
    import rasterio

    inwards = np.dtype(dtype).type(1 if not nodata else 0)
    beside = [np.dtype(dtype).type(nodata)]
    for _ in range(12):
        beside.append(np.nextafter(beside[-1], inwards))
    values = np.array([*beside, nodata * (1 - 4e-7), nodata * (1 - 1e-6), 5, np.nan], dtype)
    image = np.broadcast_to(values[None, :, None], (64, len(values), 1))
    path = _raster(tmp_path / "scene.tif", image, nodata=nodata)
    with rasterio.open(path) as raster, open_pyramid(path) as pyramid:
        wanted = (raster.read_masks(1) > 0) & np.isfinite(image[:, :, 0])
        assert np.array_equal(pyramid.read_masked(0, 0, 0, *wanted.shape).valid, wanted)
        target = tmp_path / "new.tif"
        convert(pyramid, target)
    with open_pyramid(target) as pyramid:
        assert np.array_equal(pyramid.read_masked(0, 0, 0, *wanted.shape).valid, wanted)


def test_masks_of_lerc_count_for_whole_numbers_too(tmp_path):
    import imagecodecs
    from tifffile import TiffWriter

    image = np.random.default_rng(0).integers(0, 4000, (256, 256), np.uint16)
    known = np.random.default_rng(1).random(image.shape) > 0.3
    tiles = [np.s_[y : y + 128, x : x + 128] for y in (0, 128) for x in (0, 128)]
    encoded = [imagecodecs.lerc_encode(image[at], masks=known[at], version=4) for at in tiles]
    with TiffWriter(tmp_path / "scene.tif") as tif:
        tif.write(
            iter(encoded), shape=image.shape, dtype=image.dtype, tile=(128, 128), compression="lerc",
            photometric="minisblack", extratags=[(33550, 12, 3, (1.0, 1.0, 0.0), True)],
        )  # fmt: skip
    with open_pyramid(tmp_path / "scene.tif") as pyramid:
        found = pyramid.read_masked(0, 100, 90, 120, 140)
        tile = pyramid.read_tile(0, 1, 0)
    assert np.array_equal(found.valid, known[100:220, 90:230])
    assert np.array_equal(found.data[found.valid][:, 0], image[100:220, 90:230][found.valid])
    assert np.array_equal(tile.valid, known[128:, :128])
