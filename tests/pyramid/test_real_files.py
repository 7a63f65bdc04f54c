"""Real slides and scenes, beside the checkout where it was given them."""

import warnings
from pathlib import Path

import numpy as np
import pytest

from hiresattn.config import InputConfig
from hiresattn.errors import OpenError
from hiresattn.pyramid import open_pyramid
from hiresattn.reading.fetch import CropFetcher

DATA = Path(__file__).parents[2].parent / "shared" / "data"

pytestmark = pytest.mark.skipif(not DATA.is_dir(), reason="no real files beside this checkout")


def _sizes(*pairs):
    """Levels as (width, height), the way the files' notes give them."""
    return [tuple(pair) for pair in pairs]


SLIDES = {
    # file: backend, sizes of all levels, mpp, whether tiles are read natively
    "CMU-1-Small-Region.svs": ("openslide", _sizes((2220, 2967)), 0.499, True),
    "hamamatsu_TRITC.ndpi": (
        "openslide",
        _sizes(*[(3968 >> k, 4864 >> k) for k in range(7)]),
        0.2281750559028887,
        False,
    ),
    "camelyon_jpeg_tiled.dcm": ("openslide", _sizes((1152, 700)), None, False),
    "OS-1-detail_HE.ome.tif": ("tiff", _sizes((1101, 1101)), 0.2271, True),
    "OS-2-ndpi_Ki67.ome.tif": ("tiff", _sizes((2202, 2202)), 0.2271, True),
    "he_field_2500.jpeg": ("image", _sizes((2500, 2500)), None, False),
}

SCENES = {
    # file: width, height, bands, dtype, CRS, nodata, number of levels, block (rows, columns)
    "geotiff/landsat_rgb_utm_nodata0.tif": (791, 718, 3, "uint8", "EPSG:32618", 0, 1, (3, 791)),
    "geotiff/sentinel2_8band_uint16.tif": (578, 379, 8, "uint16", "EPSG:32633", None, 1, (1, 578)),
    "geotiff/naip_rgbn_overview.tif": (934, 723, 4, "uint8", "EPSG:26914", 0, 2, (512, 512)),
    "geotiff/umbra_sar_rotated.tif": (1000, 1000, 1, "uint8", "EPSG:32759", None, 1, (8, 1000)),
    "geotiff/sentinel1_gcps_no_transform.tif": (1280, 837, 1, "uint16", None, None, 4, (512, 512)),
    "geotiff/landsat_uint16_no_crs.tif": (2658, 2667, 1, "uint16", None, None, 1, (24, 2658)),
    "geotiff/float32_nan_and_nodata.tif": (549, 549, 1, "float32", "EPSG:32610", 0, 2, (512, 512)),
    "geotiff/hirise_mars_rgb.tif": (1118, 1683, 3, "uint8", "Equirectangular", None, 3, (512, 512)),
    "geotiff/internal_mask_rgb.tif": (383, 232, 3, "uint8", "EPSG:26913", None, 1, (512, 512)),
    "geotiff/palette_7168x8704.tif": (7168, 8704, 1, "uint8", "EPSG:3857", 0, 5, (512, 512)),
    "geotiff/world_landmask_36000x18000.tif": (36000, 18000, 1, "uint8", "EPSG:4326", 0, 7, (512, 512)),
    "geotiff/sentinel2_60m.jp2": (1830, 1830, 1, "uint16", "EPSG:32632", None, 5, (192, 192)),
    "earth/earth_west_10800x7500.tif": (10800, 7500, 3, "uint8", "EPSG:4326", None, 6, (512, 512)),
}

# Files whose tiles are JPEG: ours keep libjpeg's chroma upsampling, GDAL has its own.
LOSSY = {"geotiff/hirise_mars_rgb.tif", "earth/earth_west_10800x7500.tif"}


def _middle(level, side=500):
    """A window around the middle of a level."""
    height, width = min(level.height, side), min(level.width, side + 100)
    return (level.height - height) // 2, (level.width - width) // 2, height, width


@pytest.mark.parametrize("name", SLIDES)
def test_a_real_slide_opens_as_documented(name):
    backend, sizes, mpp, exact = SLIDES[name]
    with open_pyramid(DATA / "slides" / name) as pyramid:
        assert pyramid.backend == backend
        assert [(level.width, level.height) for level in pyramid.levels] == sizes
        assert [level.downsample for level in pyramid.levels] == [2.0**k for k in range(len(sizes))]
        assert pyramid.mpp == (None if mpp is None else pytest.approx(mpp, rel=1e-4))
        assert (pyramid.channels, pyramid.dtype) == (3, np.uint8)
        assert pyramid.exact_bytes is exact


@pytest.mark.parametrize("name", [name for name, row in SLIDES.items() if row[0] == "openslide"])
def test_a_real_slide_gives_openslides_pixels(name):
    import openslide

    path = DATA / "slides" / name
    with open_pyramid(path) as pyramid, openslide.OpenSlide(path) as oracle:
        for k, level in enumerate(pyramid.levels):
            y, x, height, width = _middle(level)
            scale = int(level.downsample)
            wanted = np.asarray(oracle.read_region((x * scale, y * scale), k, (width, height)))[:, :, :3]
            found = pyramid.read(k, y, x, height, width)
            assert np.abs(found.astype(int) - wanted).max() <= 2


@pytest.mark.parametrize("name", ["hamamatsu_TRITC.ndpi", "camelyon_jpeg_tiled.dcm"])
def test_looking_everywhere_at_a_real_slide_reads_no_more_than_the_file(name):
    path = DATA / "slides" / name
    with open_pyramid(path) as pyramid, CropFetcher([pyramid], InputConfig(size=64)) as fetch:
        for side in (64, 600):
            places = [(y, x) for y in range(0, 700 - side, 50) for x in range(0, 1150 - side, 50)]
            looks = np.array([(y, x, side, side) for y, x in places])
            fetch(np.zeros(len(looks), np.int64), looks)
        (stats,) = fetch.stats.values()
        assert pyramid.by_tile
        assert stats.tiles == stats.unique_tiles
        assert 0 < stats.bytes <= 1.01 * path.stat().st_size


@pytest.mark.parametrize("name", [name for name, row in SLIDES.items() if row[0] == "tiff"])
def test_a_real_ome_tiff_gives_tifffiles_pixels(name):
    import tifffile

    path = DATA / "slides" / name
    with open_pyramid(path) as pyramid:
        assert np.array_equal(pyramid.read(0, 0, 0, pyramid.height, pyramid.width), tifffile.imread(path))


@pytest.mark.parametrize(
    "path", sorted((DATA / "slides" / "dicom_series_jpeg").glob("*.dcm")), ids=lambda p: p.stem[-4:]
)
def test_a_dicom_file_that_openslide_rejects_is_an_open_error_with_its_reason(path):
    with pytest.raises(
        OpenError, match=r"Unsupported photometric interpretation YBR_FULL.*export it as an OME-TIFF"
    ):
        open_pyramid(path)


@pytest.mark.parametrize("name", SCENES)
def test_a_real_scene_opens_as_documented(name):
    width, height, bands, dtype, crs, nodata, levels, block = SCENES[name]
    with open_pyramid(DATA / name) as pyramid:
        assert pyramid.backend == "rasterio"
        assert (pyramid.width, pyramid.height, pyramid.channels, pyramid.dtype) == (
            width,
            height,
            bands,
            dtype,
        )
        assert (crs or "") in (pyramid.crs or "")
        assert (pyramid.crs is None) == (crs is None)
        assert (pyramid.transform is None) == (crs is None)
        assert pyramid.nodata == nodata
        assert [level.downsample for level in pyramid.levels] == [2.0**k for k in range(levels)]
        rows, columns = pyramid.levels[0].tile_height, pyramid.levels[0].tile_width
        assert (rows % block[0], columns) == (0, block[1])  # strips of few rows come several at a time
        assert rows == block[0] or block[0] < 32
        assert (pyramid.palette is not None) == name.startswith("geotiff/palette")


@pytest.mark.parametrize("name", SCENES)
def test_a_real_scene_gives_gdals_pixels_and_mask(name):
    import rasterio
    from rasterio.windows import Window

    path = DATA / name
    with open_pyramid(path) as pyramid, warnings.catch_warnings():
        warnings.simplefilter("ignore", rasterio.errors.NotGeoreferencedWarning)
        for k, level in enumerate(pyramid.levels):
            y, x, height, width = _middle(level)
            found = pyramid.read_masked(k, y, x, height, width)
            options = {} if k == 0 else {"overview_level": k - 1}
            with rasterio.open(path, **options) as oracle:
                window = Window(x, y, width, height)
                wanted = np.moveaxis(oracle.read(window=window), 0, 2)
                measured = (oracle.read_masks(window=window) > 0).all(axis=0)
            if name in LOSSY:
                difference = found.data.astype(float) - wanted
                assert np.abs(difference).max() <= 24
                assert abs(difference.mean()) < 0.05
            else:
                assert np.array_equal(found.data, wanted, equal_nan=pyramid.dtype.kind == "f")
            measured &= np.isfinite(wanted).all(axis=2)  # GDAL takes NaN for measured, where nodata is 0
            valid = np.ones((height, width), bool) if found.valid is None else found.valid
            assert np.array_equal(valid, measured)


def test_the_four_nan_pixels_and_the_nodata_half_are_not_valid():
    with open_pyramid(DATA / "geotiff" / "float32_nan_and_nodata.tif") as pyramid:
        pixels = pyramid.read_masked(0, 0, 0, pyramid.height, pyramid.width)
    assert np.isnan(pixels.data).sum() == 4
    assert not pixels.valid[np.isnan(pixels.data[:, :, 0])].any()
    assert (~pixels.valid).mean() == pytest.approx(0.51, abs=0.01)


def test_near_infrared_is_a_band_and_not_alpha():
    with open_pyramid(DATA / "geotiff" / "naip_rgbn_overview.tif") as pyramid:
        pixels = pyramid.read_masked(0, 0, 0, pyramid.height, pyramid.width)
    assert pixels.data.shape[2] == 4
    assert pixels.valid is None


def test_a_rotated_transform_is_kept():
    with open_pyramid(DATA / "geotiff" / "umbra_sar_rotated.tif") as pyramid:
        assert pyramid.transform[1] == pytest.approx(-0.5767759)


@pytest.mark.parametrize("name", ["slides/CMU-1-Small-Region.svs", "geotiff/palette_7168x8704.tif"])
def test_a_real_file_cut_short_is_an_open_error(tmp_path, name):
    whole = (DATA / name).read_bytes()
    path = tmp_path / Path(name).name
    for kept in (len(whole) // 2, len(whole) - 2000):
        path.write_bytes(whole[:kept])
        with pytest.raises(OpenError, match="damaged or cut short"):
            open_pyramid(path)
