"""The same scene at other resolutions: the same regions, the same crops."""

import pickle
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest

from hiresattn.config import InputConfig
from hiresattn.errors import DomainError, RegionError
from hiresattn.geometry import Grid, cell_regions, depth_count, root_regions
from hiresattn.pyramid import open_pyramid
from hiresattn.pyramid.area import area_means
from hiresattn.pyramid.array import ArrayPyramid
from hiresattn.pyramid.mpp import MIN_GROUND, ground_mpp, implausible
from hiresattn.pyramid.pasted import Pasted
from hiresattn.pyramid.rescaled import Rescaled, Scale, at_scale, known_scale, to_scaled, to_stored
from hiresattn.reading.fetch import CropFetcher
from tests import images

#: Micrometres of the scene, and px of it that the model counts in.
HEIGHT, WIDTH, AT = 240.0, 192.0, 0.5
#: Crops keep native values.
GRID = Grid(5, 0.25)
NATIVE = InputConfig(size=32, low=(-1.0,) * 3, high=(1.0,) * 3, dtype="float32")


def scene(mpp, factors=(1, 2, 4), height=HEIGHT, width=WIDTH):
    """A scene whose px hold their own place in micrometres, at some resolution: red its row, green its column."""
    levels = []
    for factor in factors:
        side = mpp * factor
        rows, columns = round(height / side), round(width / side)
        y, x = np.mgrid[:rows, :columns]
        levels.append(
            np.stack([(y + 0.5) * side, (x + 0.5) * side, np.full_like(y, 7.0, float)], 2).astype(np.float32)
        )
    return ArrayPyramid(levels, f"scene at {mpp:g}", mpp=mpp)


def traversed(image, finest=32):
    """Regions of all depths: the root region, and the cells of every second cell."""
    found = [root_regions(image.height, image.width)]
    for _ in range(depth_count(found[0], GRID, finest) - 1):
        found.append(cell_regions(found[-1][::2], GRID, finest).reshape(-1, 4))
    return found


def micrometres(image, regions):
    """First and last row and column of regions, by the image's own px."""
    own = to_stored(image, regions).astype(float) * known_scale(getattr(image, "stored", image)).mpp
    return np.concatenate([own[:, :2], own[:, :2] + own[:, 2:]], axis=1)


@pytest.mark.parametrize("mpp", [AT, AT / 2, AT / 3.7, 0.25, 0.4, 1.0])
def test_an_image_has_the_regions_and_depths_of_the_scene_at_the_models_scale(mpp):
    wanted, found = scene(AT), at_scale(scene(mpp), AT)
    assert (found.height, found.width) == (wanted.height, wanted.width)
    for theirs, ours in zip(traversed(wanted), traversed(found), strict=True):
        assert np.array_equal(theirs, ours)
        gap = np.abs(micrometres(wanted, theirs) - micrometres(found, ours))
        assert gap.max() <= max(mpp, AT)


@pytest.mark.parametrize("mpp", [AT / 2, AT / 3.7, 0.4, 1.0])
@pytest.mark.parametrize("factors", [(1,), (1, 2, 4), (1, 4)])
def test_crops_show_the_micrometres_asked_for(mpp, factors):
    image = at_scale(scene(mpp, factors), AT)
    regions = np.concatenate(traversed(image))[::7]
    with CropFetcher([image], NATIVE) as fetch:
        crops = fetch(np.zeros(len(regions), np.int64), regions)
    assert (crops.coverage > 0.999).all()
    steps = (np.arange(32) + 0.5) / 32
    for region, pixels in zip(regions, crops.pixels, strict=True):
        y, x, height, width = (region * AT).tolist()
        # stored px are steps: a mean over parts of them is off by a quarter at most, an enlarged px by half
        off = (mpp / 2 if mpp > AT else height / 32 / 4) + 1e-2
        assert np.abs(pixels[0] - (y + steps * height)[:, None]).max() <= off
        assert np.abs(pixels[1] - (x + steps * width)[None]).max() <= off
        assert (pixels[2] == 7).all()


def test_a_crop_is_the_area_average_of_the_stored_px():
    base = np.random.default_rng(0).random((407, 518, 3)).astype(np.float32)
    image = Rescaled(ArrayPyramid([base], mpp=0.3), 0.7)
    region = np.array([[31, 12, 96, 96]])
    with CropFetcher([image], NATIVE) as fetch:
        crop = fetch(np.zeros(1, np.int64), region).pixels[0]
    rows, columns = ((start + np.arange(33) * 3) * 0.7 / 0.3 for start in (31, 12))
    wanted, _ = area_means(base, None, rows, columns)
    assert np.allclose(crop, wanted.transpose(2, 0, 1), atol=1e-5)


def test_of_levels_between_the_scales_own_finer_ones_are_averaged():
    """Fine stripes lose less of their contrast than by px that average one stored px and a part of another."""
    side = 1 / 3.7
    stripes = (
        np.sin((np.arange(2048) + 0.5) * side * 2 * np.pi / 5)[:, None, None].repeat(2048, 1).repeat(3, 2)
    )
    levels = [
        stripes.reshape(2048 // f, f, 2048 // f, f, 3).mean((1, 3)).astype(np.float32) for f in (1, 2, 4)
    ]
    image = Rescaled(ArrayPyramid(levels, mpp=side), 1.0)
    region = np.array([[64, 64, 64, 64]])
    with CropFetcher([image], NATIVE) as fetch:
        crop = fetch(np.zeros(1, np.int64), region).pixels[0, 0]
    lines = 64 + np.arange(33) * 2.0
    wanted = -np.diff(np.cos(lines * 2 * np.pi / 5)) * 5 / (2 * np.pi) / 2
    assert np.abs(crop[:, 0] - wanted).max() < 0.05
    even = Rescaled(ArrayPyramid(levels, mpp=0.5), 1.0)
    with CropFetcher([even], NATIVE) as fetch:
        fetch(np.zeros(1, np.int64), region)
        assert fetch.stats[0].pixels == 512 * 512  # one tile of the level that serves


def test_where_a_level_has_the_models_scale_its_px_are_read_as_they_are():
    image = scene(0.2528, height=0.2528 * 1000, width=0.2528 * 1000)
    found = at_scale(image, AT)
    assert [level.downsample for level in found.levels] == [0.5, 1.0, 2.0]
    with CropFetcher([found], NATIVE) as fetch:
        crop = fetch(np.zeros(1, np.int64), np.array([[10, 20, 32, 32]])).pixels[0]
        assert fetch.stats[0].pixels == 500 * 500
    assert np.array_equal(crop.transpose(1, 2, 0), image.read(1, 10, 20, 32, 32))


@pytest.mark.parametrize("mpp", [0.5, 0.491, 0.509])
def test_an_image_of_the_models_scale_is_left_alone(mpp):
    image = scene(mpp, (1,))
    assert at_scale(image, AT) is image
    assert at_scale(image, None) is image


def test_regions_go_there_and_back():
    image = Rescaled(scene(0.13, (1,)), AT)
    regions = np.concatenate(traversed(image))
    assert np.array_equal(to_scaled(image, to_stored(image, regions)), regions)
    assert to_stored(image, np.array([[0, 0, image.height, image.width]])).tolist() == [
        [0, 0, image.stored.height, image.stored.width]
    ]
    coarse = Rescaled(scene(4.0, (1,)), AT)
    tiny = to_stored(coarse, np.array([[coarse.height - 1, 0, 1, 1]]))
    assert tiny.tolist() == [[coarse.stored.height - 1, 0, 1, 1]]


def test_the_image_is_as_its_own_but_for_its_px(tmp_path):
    own = open_pyramid(images.write_svs(tmp_path / "a.svs"))
    image = Rescaled(own, 1.0)
    assert (image.mpp, own.mpp) == (1.0, images.MPP)
    assert image.channels == own.channels
    assert image.exact_bytes == own.exact_bytes
    assert image.native_tiles is own.native_tiles
    for level in range(len(own.levels)):
        assert np.array_equal(image.read(level, 3, 5, 40, 30), own.read(level, 3, 5, 40, 30))
        assert np.array_equal(image.read_tile(level, 0, 1).data, own.read_tile(level, 0, 1).data)
        assert image.tile_bytes(level, 0, 0) == own.tile_bytes(level, 0, 0)
    with pytest.raises(RegionError):
        image.read(0, 0, 0, 10_000, 3)
    again = pickle.loads(pickle.dumps(image))  # noqa: S301 - our own
    assert [level.downsample for level in again.levels] == [0.5, 1.0, 2.0]
    regions = np.concatenate(traversed(image))
    rule = InputConfig(size=32)
    crops = []
    for one, threads in ((image, 1), (image, 8), (again, 3)):
        with CropFetcher([one], rule, threads=threads) as fetch:
            crops.append(fetch(np.zeros(len(regions), np.int64), regions).pixels)
    assert np.array_equal(crops[0], crops[1])
    assert np.array_equal(crops[0], crops[2])
    with ThreadPoolExecutor(4) as pool:
        parts = list(pool.map(lambda _: image.read(1, 7, 9, 50, 60), range(16)))
    assert all(np.array_equal(part, own.read(1, 7, 9, 50, 60)) for part in parts)


@pytest.mark.parametrize(("host", "donor"), [(0.25, 0.5), (0.5, 0.25), (0.25, 1.0), (1.0, 0.3)])
def test_images_of_other_scales_are_pasted_at_one(host, donor):
    shifted = scene(donor)
    shifted = ArrayPyramid([level + 1000 for level in shifted._arrays], mpp=donor)
    box, at = (100, 60, 200, 280), (80, 40)
    mixed = Pasted(at_scale(scene(host), AT), at_scale(shifted, AT), box, at)
    assert (mixed.height, mixed.width) == (480, 384)
    regions = np.array([[140, 100, 64, 64], [100, 60, 192, 192], [320, 200, 128, 128]])
    copy = pickle.loads(pickle.dumps(mixed))  # noqa: S301 - our own
    with CropFetcher([mixed, copy], NATIVE) as fetch:
        first, second = (fetch(np.full(3, image), regions).pixels for image in (0, 1))
    assert np.array_equal(first, second)
    steps = (np.arange(32) + 0.5) / 32
    off = max(host, donor) / 2 + max(
        host, AT
    )  # of an enlarged px, and of the box's edges on the host's levels
    for crop, (y, _, height, _), pasted in zip(first, regions.tolist(), (True, True, False), strict=True):
        wanted = (y + steps * height) * AT
        wanted = wanted + 1000 + (at[0] - box[0]) * AT if pasted else wanted
        assert np.abs(crop[0][:, 4:28] - wanted[:, None]).max() <= off


def test_a_scale_that_is_not_known_or_not_meant_is_refused():
    bare = ArrayPyramid(np.zeros((80, 80, 3), np.uint8), "bare.png")
    with pytest.raises(DomainError, match=r"bare.png: its scale isn't known .*works at 0.5 µm/px"):
        at_scale(bare, AT)
    assert at_scale(bare, AT, Scale(0.25, "given")).height == 40
    with pytest.raises(DomainError, match="250 µm/px is neither"):
        at_scale(bare, AT, Scale(250, "given"))
    with pytest.raises(DomainError, match="10 m/px is a scene's scale"):
        at_scale(bare, AT, Scale(1e7, "given"))
    assert implausible(MIN_GROUND, 1e6) is None


def test_ground_px_are_metres_in_any_crs():
    """Against the same grid in UTM, whose scale is 0.9996 at its central meridian."""
    from rasterio.warp import transform_bounds

    utm = (10.0, 0.0, 499000.0, 0.0, -10.0, 6651000.0)  # 60 degrees north
    assert ground_mpp("EPSG:32633", utm, 200, 200) == pytest.approx(10e6 / 0.9996, rel=1e-4)
    for crs in ("EPSG:3857", "EPSG:4326"):
        west, south, east, north = transform_bounds("EPSG:32633", crs, 499000, 6649000, 501000, 6651000)
        made = ((east - west) / 100, 0.0, west, 0.0, (south - north) / 200, north)
        side = ground_mpp(crs, made, 200, 100)
        assert side == pytest.approx(
            np.sqrt(10e6 * 20e6) / 0.9996, rel=2e-3
        )  # of oblong px the geometric mean
    feet = (1.0, 0.0, 1e6, 0.0, -1.0, 2e5)
    assert ground_mpp("EPSG:2263", feet, 100, 100) == pytest.approx(304800, rel=1e-3)
    assert ground_mpp("no such crs", feet, 100, 100) is None


def test_a_scene_is_rescaled_by_its_crs(tmp_path):
    own = open_pyramid(images.write_geotiff(tmp_path / "a.tif"))
    mpp, where = known_scale(own)
    assert mpp == pytest.approx(2e6, rel=1e-3)
    assert where == f"CRS {images.CRS}"
    assert at_scale(own, 2e6) is own
    image = at_scale(own, 4e6)
    assert image.levels[0].downsample == 0.5
    assert image.transform[0] == 2 * own.transform[0]
    assert image.transform[2] == own.transform[2]
