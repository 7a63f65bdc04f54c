"""Conversion: the same px in another format, exact levels, and nothing half-written."""

import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import rasterio

from hiresattn.config import InputConfig
from hiresattn.conversion import convert
from hiresattn.conversion.geotiff import CogWriter
from hiresattn.conversion.image import Image
from hiresattn.conversion.levels import level_sizes, make_levels
from hiresattn.conversion.omezarr import OmeZarrWriter
from hiresattn.errors import ConfigError, HiresattnError, OpenError, ReadError, RegionError, WriteError
from hiresattn.geometry import Level
from hiresattn.pyramid import Pixels, open_pyramid
from hiresattn.pyramid.base import Pyramid
from hiresattn.pyramid.metadata import Metadata
from hiresattn.reading.fetch import CropFetcher
from tests import images

SMALL = {"chunk": 32, "shard": 64}
TARGETS = ["out.zarr", "out.tif"]


def exact(data, valid, factor):
    """Means ``[h w c]`` of what is measured in ``factor`` squares, and where there is any; mask also ``[h w]``."""
    valid = np.broadcast_to(valid if valid.ndim == 3 else valid[..., None], data.shape)
    height, width = -(-data.shape[0] // factor), -(-data.shape[1] // factor)
    values = np.zeros((height * factor, width * factor, data.shape[2]))
    values[: data.shape[0], : data.shape[1]][valid] = data[valid]
    weight = np.zeros(values.shape)
    weight[: data.shape[0], : data.shape[1]] = valid
    count = weight.reshape(height, factor, width, factor, -1).sum(axis=(1, 3))
    total = values.reshape(height, factor, width, factor, -1).sum(axis=(1, 3))
    return total / np.maximum(count, 1), count > 0


def whole(pyramid, level=0):
    has = pyramid.levels[level]
    pixels = pyramid.read_by_band(level, 0, 0, has.height, has.width)
    valid = (
        True if pixels.valid is None else pixels.valid if pixels.valid.ndim == 3 else pixels.valid[..., None]
    )
    return pixels.data, np.broadcast_to(valid, pixels.data.shape)


def left_in(folder):
    return sorted(path.name for path in folder.iterdir())


class Masked(Pyramid):
    """An image that says apart from its px what is measured; ``broken`` px can't be read."""

    backend = "masked"

    def __init__(self, data, valid, nodata=None, broken=None, mpp=None):
        level = Level(data.shape[1], data.shape[0], 1.0, 32, 32)
        meta = Metadata(levels=(level,), channels=data.shape[2], dtype=data.dtype, nodata=nodata, mpp=mpp)
        super().__init__("masked", meta)
        self.pixels, self.valid, self.broken = data, valid, broken

    def _read(self, level, y, x, height, width):
        place = slice(y, y + height), slice(x, x + width)
        if self.broken is not None and self.broken[place].any():
            raise ReadError("masked: a tile is damaged")
        return Pixels(self.pixels[place].copy(), self.valid[place].copy())


@pytest.fixture
def masked(rng):
    def make(dtype="uint8", bands=3, nodata=None, shape=(150, 203), **more):
        data = rng.integers(0, 200, (*shape, bands)).astype(dtype)
        valid = rng.random(shape) < 0.7
        valid[:40, 60:140] = False
        return Masked(data, valid, nodata, **more)

    return make


@pytest.fixture
def rng():
    return np.random.default_rng(7)


WRITERS = {
    "ome-tiff": lambda path: images.write_ome_tiff(path / "a.ome.tif"),
    "svs": lambda path: images.write_svs(path / "a.svs"),
    "geotiff": lambda path: images.write_geotiff(path / "a.tif", dtype="uint16", nodata=0),
    "zarr": lambda path: images.write_ome_zarr(path / "a.zarr"),
    "png": lambda path: images.write_image(path / "a.png"),
}


@pytest.mark.parametrize("target", TARGETS)
@pytest.mark.parametrize("name", WRITERS)
def test_level_0_is_the_same_and_levels_are_exact_means(tmp_path, name, target):
    source = WRITERS[name](tmp_path)
    made = convert(source, tmp_path / target)
    assert made.largest_error <= 0.5
    with open_pyramid(source) as before, open_pyramid(tmp_path / target) as after:
        assert (after.dtype, after.channels, after.mpp) == (
            before.dtype,
            before.channels,
            pytest.approx(before.mpp),
        )
        assert (after.crs, after.transform, after.nodata) == (before.crs, before.transform, before.nodata)
        data, valid = whole(before)
        found, measured = whole(after)
        np.testing.assert_array_equal(measured, valid)
        np.testing.assert_array_equal(found[valid], data[valid])
        assert [(level.height, level.width) for level in after.levels] == [(517, 701), (259, 351), (130, 176)]
        assert [level.downsample for level in after.levels] == [1, 2, 4]
        for level, factor in ((1, 2), (2, 4)):
            found, measured = whole(after, level)
            mean, any_valid = exact(data, valid, factor)
            np.testing.assert_array_equal(measured, any_valid)
            assert np.abs(found - mean)[measured].max() <= 0.5 + 1e-9


def assembled(image, count, side, threads=1):
    """The levels of an image: px ``[h w c]`` and mask of each, and how often each px was written."""
    sizes = level_sizes(image.height, image.width, count)
    data = [np.zeros((*size, image.channels), image.dtype) for size in sizes]
    valid = [np.ones(size, bool) for size in sizes]
    times = [np.zeros(size, int) for size in sizes]
    for block in make_levels(image, count, side, threads):
        height, width = block.data.shape[1:]
        place = slice(block.y, block.y + height), slice(block.x, block.x + width)
        data[block.level][place] = np.moveaxis(block.data, 0, 2)
        times[block.level][place] += 1
        if block.valid is not None:
            valid[block.level][place] = block.valid
    return data, valid, times


MARKS = [
    ("uint8", None),
    ("uint8", 0),
    ("uint16", 65535),
    ("int16", -9999),
    ("float32", None),
    ("int64", None),
]
MARKS += [("float32", float("nan")), ("float64", -9999.0), ("float16", None)]


@pytest.mark.parametrize(("dtype", "nodata"), MARKS)
def test_what_is_not_measured_is_marked_and_never_averaged(masked, dtype, nodata):
    source = masked(dtype, bands=2, nodata=nodata)
    if source.dtype.kind == "f":
        source.pixels[60:90, 10:70, 0] = np.nan
    data, valid = whole(source)
    levels, masks, times = assembled(Image.of(source), 9, 32)
    for level in range(9):  # those above 5 are more than one block per px
        assert (times[level] == 1).all()
        mean, any_valid = exact(data, valid, 2**level)
        measured = masks[level][..., None] & np.isfinite(levels[level])
        if nodata is not None:
            measured &= levels[level] != nodata
        np.testing.assert_array_equal(measured, any_valid)
        off = np.abs(levels[level].astype(np.float64) - mean)[measured]
        rounding = {"f": 200 * np.finfo(source.dtype).eps if source.dtype.kind == "f" else 0}.get(
            source.dtype.kind, 0.5
        )
        if nodata is None:
            assert off.max() <= rounding + 1e-9
        else:  # a mean that happens to be the nodata value moves by one
            assert off.max() <= rounding + 0.5 + 1e-9
            assert (off <= rounding + 1e-9).mean() > 0.99


@pytest.mark.parametrize("target", TARGETS)
@pytest.mark.parametrize(("dtype", "nodata"), [("uint8", None), ("uint16", 65535), ("float32", None)])
def test_masks_nodata_and_nan_are_kept(tmp_path, masked, dtype, nodata, target):
    source = masked(dtype, bands=2, nodata=nodata)
    if source.dtype.kind == "f":
        source.pixels[60:90, 10:70, 0] = np.nan
    convert(source, tmp_path / target, levels=4)
    with open_pyramid(tmp_path / target) as after:
        assert after.nodata == nodata
        data, valid = whole(source)
        for level in range(4):
            found, measured = whole(after, level)
            mean, any_valid = exact(data, valid, 2**level)
            np.testing.assert_array_equal(measured, any_valid)
            assert np.abs(found - mean)[measured].max() <= 0.5 + 1e-4


@pytest.mark.parametrize("threads", [1, 3])
def test_every_px_is_read_once_whatever_the_threads(tmp_path, masked, threads):
    source = masked()
    reads = np.zeros(source.valid.shape, int)
    inner = source._read

    def counted(level, y, x, height, width):
        reads[y : y + height, x : x + width] += 1
        return inner(level, y, x, height, width)

    source._read = counted
    levels, _, times = assembled(Image.of(source), 4, 32, threads)
    assert (reads == 1).all()
    assert all((level == 1).all() for level in times)
    again, _, _ = assembled(Image.of(source), 4, 32, 1)
    assert all(np.array_equal(a, b) for a, b in zip(levels, again, strict=True))


@pytest.mark.parametrize("target", TARGETS)
def test_crops_of_the_result_are_crops_of_the_source(tmp_path, target):
    source = images.write_image(tmp_path / "a.png")
    convert(source, tmp_path / target)
    aligned = np.array([[0, 0, 64, 64], [201, 303, 64, 64], [64, 32, 128, 128], [256, 128, 256, 256]])
    anywhere = np.array([[3, 5, 200, 200], [17, 101, 500, 500]])
    crops = []
    for path in (source, tmp_path / target):
        with open_pyramid(path) as pyramid, CropFetcher([pyramid], InputConfig(size=64), threads=1) as fetch:
            crops.append([fetch(np.zeros(len(r), np.int64), r).pixels for r in (aligned, anywhere)])
    grey = 2 / 255
    np.testing.assert_array_equal(crops[1][0][:2], crops[0][0][:2])
    assert np.abs(crops[1][0] - crops[0][0]).max() <= 0.5 * grey + 1e-6
    # Elsewhere the edges of a crop's px part px of the level that is read.
    assert np.abs(crops[1][1] - crops[0][1]).mean() <= 8 * grey


def test_regions_shift_the_transform_and_hold_the_same_px(tmp_path):
    source = images.write_geotiff(tmp_path / "a.tif")
    for target in TARGETS:
        convert(source, tmp_path / target, region=(100, 30, 300, 400))
        with open_pyramid(tmp_path / target) as after:
            assert after.transform == (2, 0, 500000 + 60, 0, -2, 5000000 - 200)
            np.testing.assert_array_equal(after.read(0, 0, 0, 300, 400), images.coded()[100:400, 30:430])
    with pytest.raises(RegionError, match="ask for a region inside"):
        convert(source, tmp_path / "b.tif", region=(500, 0, 100, 100))


def test_a_palette_becomes_its_colours(tmp_path):
    profile = {"driver": "GTiff", "width": 90, "height": 70, "count": 1, "dtype": "uint8", "nodata": 3}
    index = np.random.default_rng(0).integers(0, 4, (70, 90), dtype=np.uint8)
    colours = {0: (10, 20, 30, 255), 1: (200, 0, 0, 255), 2: (0, 250, 9, 255), 3: (1, 2, 3, 255)}
    place = {"crs": images.CRS, "transform": rasterio.Affine(*images.TRANSFORM)}
    with rasterio.open(tmp_path / "p.tif", "w", **profile, **place) as out:
        out.write(index, 1)
        out.write_colormap(1, colours)
    for target in TARGETS:
        made = convert(tmp_path / "p.tif", tmp_path / target)
        assert "palette" in made.notes[0]
        with open_pyramid(tmp_path / target) as after:
            data, valid = whole(after)
            expected = np.array([colours[i][:3] for i in range(4)])[index]
            np.testing.assert_array_equal(valid.all(axis=2), index != 3)
            np.testing.assert_array_equal(data[valid], expected[valid])


def test_a_cog_is_one_and_keeps_what_gdal_knows(tmp_path):
    source = tmp_path / "a.tif"
    profile = {"driver": "GTiff", "width": 700, "height": 600, "count": 4, "dtype": "uint16", "nodata": 7}
    place = {"crs": images.CRS, "transform": rasterio.Affine(2, 0.5, 10, 0.25, -2, 20)}
    with rasterio.open(source, "w", photometric="minisblack", **profile, **place) as out:
        out.write(np.random.default_rng(0).integers(0, 9999, (4, 600, 700), dtype=np.uint16))
        out.update_tags(AUTHOR="somebody", AREA_OR_POINT="Point")
        out.update_tags(2, WAVELENGTH="865 nm")
        out.descriptions = ("blue", "green", "red", "nir")
        out.scales, out.offsets, out.units = (0.5,) * 4, (-3.0,) * 4, ("W",) * 4
    convert(source, tmp_path / "b.tif")
    with rasterio.open(source) as before, rasterio.open(tmp_path / "b.tif") as after:
        assert after.tags(ns="IMAGE_STRUCTURE")["LAYOUT"] == "COG"
        assert (after.block_shapes[0], after.overviews(1)) == ((256, 256), [2, 4])
        for name in (
            "crs",
            "transform",
            "nodata",
            "descriptions",
            "scales",
            "offsets",
            "units",
            "colorinterp",
        ):
            assert getattr(after, name) == getattr(before, name), name
        assert after.tags().items() >= {"AUTHOR": "somebody", "AREA_OR_POINT": "Point"}.items()
        assert after.tags(2)["WAVELENGTH"] == "865 nm"
        np.testing.assert_array_equal(after.read(), before.read())


def test_ground_control_points_are_kept(tmp_path):
    from rasterio.control import GroundControlPoint

    points = [GroundControlPoint(r, c, c * 0.1, r * 0.1) for r, c in ((0, 0), (0, 90), (60, 0), (60, 90))]
    profile = {"driver": "GTiff", "width": 90, "height": 60, "count": 1, "dtype": "uint16"}
    with rasterio.open(tmp_path / "a.tif", "w", gcps=points, crs="EPSG:4326", **profile) as out:
        out.write(np.ones((1, 60, 90), np.uint16))
    convert(tmp_path / "a.tif", tmp_path / "b.tif", region=(10, 20, 40, 50))
    with rasterio.open(tmp_path / "b.tif") as after:
        found, crs = after.gcps
        assert crs.to_epsg() == 4326
        assert [(p.row, p.col, p.x, p.y) for p in found] == [
            (p.row - 10, p.col - 20, p.x, p.y) for p in points
        ]


def test_jpeg_is_smaller_and_masks_stay_exact(tmp_path):
    y, x = np.mgrid[:512, :600]
    smooth = np.stack([y // 3, x // 3, (x + y) // 6], axis=2).astype(np.uint8) + 1
    valid = np.ones((512, 600), bool)
    valid[100:201, 50:333] = False
    smooth[~valid] = 0
    convert(Masked(smooth, valid, nodata=0), tmp_path / "plain.tif")
    made = convert(Masked(smooth, valid, nodata=0), tmp_path / "jpeg.tif", compression="jpeg", quality=90)
    assert made.largest_error is None
    assert any("JPEG" in note for note in made.notes)
    with open_pyramid(tmp_path / "jpeg.tif") as after:
        data, measured = whole(after)
        measured = measured.all(axis=2)
        np.testing.assert_array_equal(measured, valid)
        assert np.abs(data[valid].astype(int) - smooth[valid]).mean() < 3


@pytest.mark.filterwarnings("ignore::rasterio.errors.NotGeoreferencedWarning")
@pytest.mark.parametrize(
    ("bands", "holes", "placed"), [(3, False, True), (1, False, False), (3, True, True), (3, True, False)]
)
def test_a_jpeg_cog_has_the_levels_and_the_layout_that_gdal_would_write(tmp_path, bands, holes, placed):
    y, x = np.mgrid[:700, :1100]
    image = np.stack([y // 3, x // 5, (x + y) // 8], axis=2)[..., :bands].astype(np.uint8)
    valid = ~((y > 200) & (y < 460) & (x % 300 < 90)) if holes else np.ones(y.shape, bool)
    source = Masked(image, valid)
    if placed:
        source = tmp_path / "placed.tif"
        place = {"crs": "EPSG:32633", "transform": rasterio.Affine(2, 0, 500000, 0, -2, 5000000)}
        with (
            rasterio.Env(GDAL_TIFF_INTERNAL_MASK=True),
            rasterio.open(
                source, "w", driver="GTiff", width=1100, height=700, count=bands, dtype="uint8", **place
            ) as file,
        ):
            file.write(image.transpose(2, 0, 1))
            file.write_mask(valid)
    convert(source, tmp_path / "plain.tif")
    convert(source, tmp_path / "jpeg.tif", compression="jpeg", quality=95)
    with open_pyramid(tmp_path / "plain.tif") as plain, open_pyramid(tmp_path / "jpeg.tif") as jpeg:
        assert (plain.levels, plain.crs, plain.transform) == (jpeg.levels, jpeg.crs, jpeg.transform)
        for level, has in enumerate(plain.levels):
            exact, lossy = (one.read_masked(level, 0, 0, has.height, has.width) for one in (plain, jpeg))
            known = np.ones((has.height, has.width), bool) if exact.valid is None else exact.valid
            assert np.array_equal(known, np.ones_like(known) if lossy.valid is None else lossy.valid)
            assert np.abs(exact.data[known].astype(int) - lossy.data[known]).mean() < 1.5
    with rasterio.open(tmp_path / "jpeg.tif") as file:  # GDAL reads every tile, and its mask
        assert np.abs(file.read()[:, valid].astype(int) - image[valid].T).mean() < 1.5
        assert np.array_equal(file.dataset_mask() > 0, valid)
        assert not placed or file.tags(ns="IMAGE_STRUCTURE")["LAYOUT"] == "COG"
    assert set(left_in(tmp_path)) <= {"jpeg.tif", "placed.tif", "plain.tif"}
    cogeo = pytest.importorskip("rio_cogeo")
    found = cogeo.cog_validate(tmp_path / "jpeg.tif", strict=True)
    assert found[0] or not placed, found


@pytest.mark.parametrize("target", TARGETS)
def test_the_scale_survives_a_mask(tmp_path, masked, target):
    convert(masked(mpp=0.25), tmp_path / target)
    with open_pyramid(tmp_path / target) as after:
        assert after.mpp == pytest.approx(0.25)


@pytest.mark.parametrize("target", ["a.zarr", "a.tif"])
@pytest.mark.parametrize("between", [None, "b.zarr"])
def test_names_scales_and_offsets_of_bands_are_kept(tmp_path, target, between):
    source = tmp_path / "source.tif"
    place = {"crs": "EPSG:32633", "transform": rasterio.Affine(10, 0, 500000, 0, -10, 5000000)}
    with rasterio.open(
        source, "w", driver="GTiff", width=90, height=70, count=2, dtype="uint16", **place
    ) as file:
        file.write(np.ones((2, 70, 90), np.uint16))
        file.descriptions = ("B04", "B08")
        file.scales, file.offsets = (0.0001, 0.0002), (-0.1, 0)
    if between:
        convert(source, tmp_path / between)
        source = tmp_path / between
    convert(source, tmp_path / target)
    with open_pyramid(tmp_path / target) as after:
        meta = after.meta
    assert (meta.channel_names, meta.scales, meta.offsets) == (("B04", "B08"), (0.0001, 0.0002), (-0.1, 0))


def test_ome_zarr_is_0_5_and_every_chunk_has_a_checksum(tmp_path):
    import zarr

    source = images.write_ome_tiff(tmp_path / "a.ome.tif")
    convert(source, tmp_path / "a.zarr", chunk=64, shard=128)
    group = zarr.open_group(tmp_path / "a.zarr", mode="r")
    ome = group.attrs["ome"]
    assert ome["version"] == "0.5"
    (image,) = ome["multiscales"]
    assert [axis["name"] for axis in image["axes"]] == ["c", "y", "x"]
    assert [axis.get("unit") for axis in image["axes"]] == [None, "micrometer", "micrometer"]
    for k, dataset in enumerate(image["datasets"]):
        scale, *moved = dataset["coordinateTransformations"]
        assert scale["scale"] == [1, 0.5 * 2**k, 0.5 * 2**k]
        # The first px of a level shows the first 2**k: its centre lies further in.
        assert [m["translation"] for m in moved] == ([[0, 0.25 * (2**k - 1), 0.25 * (2**k - 1)]] if k else [])
        array = group[dataset["path"]]
        assert (array.metadata.zarr_format, array.chunks, array.shards) == (3, (3, 64, 64), (3, 128, 128))
        assert "Crc32c" in str(array.metadata.codecs[0].codecs)
    shard = tmp_path / "a.zarr" / "0" / "c" / "0" / "1" / "1"
    damaged = bytearray(shard.read_bytes())
    damaged[100] ^= 1
    shard.write_bytes(damaged)
    with open_pyramid(tmp_path / "a.zarr") as after, pytest.raises(ReadError, match="damaged"):
        after.read(0, 128, 128, 128, 128)


@pytest.mark.parametrize("target", TARGETS)
def test_a_damaged_source_leaves_nothing(tmp_path, masked, target):
    broken = np.zeros((150, 203), bool)
    broken[140, 200] = True
    (tmp_path / "out").mkdir()
    with pytest.raises(ReadError, match="a tile is damaged"):
        convert(masked(broken=broken), tmp_path / "out" / target, **SMALL)
    assert left_in(tmp_path / "out") == []


@pytest.mark.parametrize("target", TARGETS)
@pytest.mark.parametrize("error", [KeyboardInterrupt, OSError(28, "No space left on device"), MemoryError])
def test_whatever_stops_it_leaves_what_was_there(tmp_path, masked, target, error, monkeypatch):
    source = masked()
    convert(source, tmp_path / target)
    before = {p: p.read_bytes() for p in tmp_path.rglob("*") if p.is_file()}

    def stop(*_, **__):
        raise error

    monkeypatch.setattr(OmeZarrWriter if target == "out.zarr" else CogWriter, "finish", stop)
    with pytest.raises(KeyboardInterrupt if error is KeyboardInterrupt else WriteError, match=None):
        convert(source, tmp_path / target, overwrite=True)
    assert {p: p.read_bytes() for p in tmp_path.rglob("*") if p.is_file()} == before


@pytest.mark.parametrize("target", TARGETS)
def test_overwriting_replaces_the_whole(tmp_path, masked, target):
    convert(masked(), tmp_path / target, levels=4)
    with pytest.raises(ConfigError, match="overwrite"):
        convert(masked(), tmp_path / target)
    convert(masked(bands=1), tmp_path / target, levels=2, overwrite=True)
    with open_pyramid(tmp_path / target) as after:
        assert (after.channels, len(after.levels)) == (1, 2)
    assert left_in(tmp_path) == [target]


@pytest.mark.parametrize("target", TARGETS)
def test_a_result_that_differs_is_an_error_and_not_left(tmp_path, masked, target, monkeypatch):
    from hiresattn.conversion import levels

    def off_by_two(total, weight, offset, out):
        honest(total, weight, offset, out)
        out += 2

    honest = levels.means
    monkeypatch.setattr(levels, "means", off_by_two)
    with pytest.raises(WriteError, match="differ by 2"):
        convert(masked(), tmp_path / target, levels=3)
    assert left_in(tmp_path) == []


@pytest.mark.parametrize(
    ("target", "options", "message"),
    [
        ("s3://bucket/a.zarr", {}, "written here, not elsewhere"),
        ("/vsimem/a.tif", {}, "written here, not elsewhere"),
        ("a.jpg", {}, "its suffix names no format"),
        ("a.tif", {"format": "png"}, "possible are zarr, cog"),
        ("a.tif", {"compression": "blosc"}, "possible for cog are"),
        ("a.zarr", {"compression": "jpeg"}, "possible for zarr are"),
        ("a.zarr", {"chunk": 100}, "powers of two"),
        ("a.zarr", {"chunk": 64, "shard": 32}, "smaller than"),
        ("a.zarr", {"levels": 0}, "possible for 150 x 203 px are 1 to 9"),
        ("a.zarr", {"levels": 10}, "possible for 150 x 203 px are 1 to 9"),
        ("a.tif", {"quality": 0}, "1 to 100"),
        ("a.tif", {"threads": 0}, "at least one"),
    ],
)
def test_what_cannot_be_asked_is_refused(tmp_path, masked, target, options, message, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(ConfigError, match=message):
        convert(masked(), target, **options)
    assert left_in(tmp_path) == []


def test_targets_that_would_harm_are_refused(tmp_path):
    source = images.write_ome_zarr(tmp_path / "a.zarr")
    before = left_in(source)
    (tmp_path / "folder.zarr").mkdir()
    (tmp_path / "link.zarr").symlink_to(source)
    for target in (
        source,
        source / "b.zarr",
        tmp_path / "link.zarr",
        tmp_path,
        tmp_path / "x" / ".." / "a.zarr",
    ):
        with pytest.raises(
            ConfigError, match="source and result are the same file, or one lies in the other"
        ):
            convert(source, target, format="zarr", overwrite=True)
    with pytest.raises(ConfigError, match="a directory that is no Zarr"):
        convert(source, tmp_path / "folder.zarr", overwrite=True)
    with pytest.raises(WriteError, match="make it first"):
        convert(source, tmp_path / "absent" / "b.zarr")
    assert left_in(source) == before


def test_jpeg_and_geotiff_refuse_what_they_cannot_hold(tmp_path, masked):
    with pytest.raises(ConfigError, match="JPEG holds 1 or 3 bands of 8 bits"):
        convert(masked("uint16"), tmp_path / "a.tif", compression="jpeg")
    with pytest.raises(ConfigError, match="can't hold float16"):
        convert(masked("float16"), tmp_path / "a.tif")
    assert left_in(tmp_path) == []
    convert(masked("float16"), tmp_path / "a.zarr")


@pytest.mark.skipif(os.getuid() == 0, reason="root writes anywhere")
def test_a_folder_that_cannot_be_written_is_named(tmp_path, masked):
    folder = tmp_path / "locked"
    folder.mkdir()
    folder.chmod(0o500)
    with pytest.raises(WriteError, match=r"locked.a\.zarr: can't be written .*permissions of its folder"):
        convert(masked(), folder / "a.zarr")


@pytest.mark.parametrize("target", TARGETS)
def test_a_full_disk_is_one_clear_error(tmp_path, target):
    """A limit on file sizes stands for the full disk: both fail a write midway."""
    np.save(tmp_path / "a.npy", np.random.default_rng(0).integers(0, 255, (700, 700, 3), dtype=np.uint8))
    (tmp_path / "out").mkdir()
    code = (
        "import resource, sys, numpy as np\n"
        "from hiresattn.conversion import convert\n"
        "from hiresattn.errors import WriteError\n"
        "image = np.load(sys.argv[1])\n"
        "import rasterio, zarr, hiresattn.conversion.kernels\n"
        "resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, 100_000))\n"
        "try:\n    convert(image, sys.argv[2])\n"
        "except WriteError as error:\n    print('clear:', error)\n"
    )
    words = [sys.executable, "-c", code, str(tmp_path / "a.npy"), str(tmp_path / "out" / target)]
    done = subprocess.run(words, capture_output=True, text=True, check=False)  # noqa: S603
    assert done.stdout.startswith("clear: "), done.stderr
    assert "nothing was left there" in done.stdout
    assert left_in(tmp_path / "out") == []


def test_sources_that_do_not_open_are_typed_errors(tmp_path):
    (tmp_path / "a.tif").write_bytes(b"II*\0 and no more")
    (tmp_path / "empty.png").touch()
    for name in ("a.tif", "empty.png", "absent.svs"):
        with pytest.raises(OpenError, match=name):
            convert(tmp_path / name, tmp_path / "out.zarr")
    assert left_in(tmp_path) == ["a.tif", "empty.png"]


def test_a_lazy_array_larger_than_its_blocks_is_converted(tmp_path):
    da = pytest.importorskip("dask.array")
    lazy = da.random.default_rng(0).integers(0, 255, (500, 700, 3), chunks=(200, 200, 3), dtype=np.uint8)
    made = convert(lazy, tmp_path / "a.zarr", shard=256)
    assert made.levels == 3
    with open_pyramid(tmp_path / "a.zarr") as after:
        np.testing.assert_array_equal(after.read(0, 0, 0, 500, 700), lazy.compute())


def test_no_torch_is_loaded_by_a_conversion(tmp_path):
    source = images.write_image(tmp_path / "a.png")
    code = (
        "import sys; from hiresattn.conversion import convert; convert(sys.argv[1], sys.argv[2]);"
        "sys.exit(' '.join({'torch', 'timm', 'dask'} & set(sys.modules)) or 0)"
    )
    words = [sys.executable, "-c", code, str(source), str(tmp_path / "a.zarr")]
    done = subprocess.run(words, capture_output=True, text=True, check=False)  # noqa: S603
    assert done.returncode == 0, done.stderr


DATA = Path(__file__).parents[3] / "shared" / "data"
REAL = (
    sorted(p for p in (DATA / "geotiff").glob("*.*") if p.stat().st_size < 900_000) if DATA.exists() else []
)


@pytest.mark.slow
@pytest.mark.parametrize("target", TARGETS)
@pytest.mark.parametrize("path", REAL, ids=lambda path: path.name)
def test_real_geotiff_is_converted_or_refused(tmp_path, path, target):
    try:
        made = convert(path, tmp_path / target)
    except HiresattnError as error:
        assert path.name in str(error)  # noqa: PT017 - both ends are fine
        assert left_in(tmp_path) == []
        return
    assert made.windows_checked >= 16
    with open_pyramid(path) as before, open_pyramid(tmp_path / target) as after:
        assert (after.height, after.width, after.transform) == (before.height, before.width, before.transform)


@pytest.mark.parametrize("target", TARGETS)
def test_nodata_of_one_band_is_in_no_average_and_leaves_the_other_bands(tmp_path, target):
    import rasterio

    image = np.random.default_rng(0).uniform(1, 200, (2, 600, 640)).astype(np.float32)
    image[0, 100:201, 100:203] = image[1, 300:401, 300:402] = -9999
    profile = {
        "driver": "GTiff",
        "height": 600,
        "width": 640,
        "count": 2,
        "dtype": "float32",
        "nodata": -9999,
    }
    with rasterio.open(
        tmp_path / "in.tif", "w", crs="EPSG:32633", transform=rasterio.Affine(*images.TRANSFORM), **profile
    ) as file:
        file.write(image)
    convert(tmp_path / "in.tif", tmp_path / target)
    data = np.moveaxis(image, 0, 2)
    with open_pyramid(tmp_path / target) as after:
        for level, factor in ((0, 1), (1, 2)):
            found, measured = whole(after, level)
            mean, any_valid = exact(data, data != -9999, factor)
            np.testing.assert_array_equal(measured, any_valid)
            np.testing.assert_allclose(found[measured], mean[measured], rtol=1e-5)


@pytest.mark.parametrize("target", TARGETS)
def test_what_was_not_scanned_keeps_its_background_on_every_level(tmp_path, target):
    import tifffile

    data = np.random.default_rng(0).integers(0, 200, (1100, 1300, 3), dtype=np.uint8)
    valid = np.ones((1100, 1300), bool)
    valid[:600, :700] = False
    data[~valid] = 255
    convert(Masked(data, valid), tmp_path / target)
    with open_pyramid(tmp_path / target) as after:
        assert len(after.levels) > 2
        for level in range(len(after.levels)):
            found, measured = whole(after, level)
            _, any_valid = exact(data, valid, 2**level)
            np.testing.assert_array_equal(measured, any_valid)
            assert (found[~measured] == 255).all()
    if target.endswith(".tif"):  # OpenSlide takes what is called reduced for a level
        with tifffile.TiffFile(tmp_path / target) as tif:
            kinds = [int(page.aspage().subfiletype) for page in tif.pages]
        assert 5 not in kinds
        assert kinds.count(1) == len(after.levels) - 1


@pytest.mark.skipif(sys.platform == "win32", reason="signals of POSIX")
def test_what_a_killed_conversion_left_is_removed_by_the_next(tmp_path):
    source, target = tmp_path / "a.tif", tmp_path / "a.zarr"
    images.write_pyramid_tiff(source)
    code = """if True:
        import os, signal, sys
        from hiresattn import convert
        kill = lambda share, _: share > 0 and os.kill(os.getpid(), signal.SIGKILL)
        convert(sys.argv[1], sys.argv[2], progress=kill)
    """
    done = subprocess.run([sys.executable, "-c", code, source, target], check=False)  # noqa: S603
    assert done.returncode == -9
    assert len(list(tmp_path.glob(".a.zarr.*.part"))) == 1
    convert(source, target)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a.tif", "a.zarr"]
