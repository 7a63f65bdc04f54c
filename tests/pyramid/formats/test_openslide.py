"""Slides by OpenSlide, with native tiles and without."""

import numpy as np
import pytest

from hiresattn.conversion import convert
from hiresattn.errors import OpenError, ReadError
from hiresattn.pyramid import open_pyramid
from hiresattn.pyramid.formats.openslide import OpenSlidePyramid, _stored_size, _tile
from tests.images import SHAPES, TILE, coded, write_pyramid_tiff, write_scn, write_svs
from tests.pyramid.contract import PyramidContract
from tests.pyramid.damage import overwrite_tile, zero_tile_entry


class TestAperio(PyramidContract):
    backend = "openslide"
    tolerance = 20
    mean_tolerance = 1.5

    def write(self, folder):
        return write_svs(folder / "slide.svs")


class TestGenericTiff(PyramidContract):
    backend = "openslide"
    mpp = None

    def write(self, folder):
        return write_pyramid_tiff(folder / "slide.tif")


@pytest.fixture(scope="module")
def slide(tmp_path_factory):
    return write_svs(tmp_path_factory.mktemp("slide") / "slide.svs")


@pytest.fixture
def through_openslide(slide):
    """The same slide, its pixels read by OpenSlide."""
    with OpenSlidePyramid(str(slide)) as pyramid:
        pyramid._tiles = None
        yield pyramid


def test_native_tiles_and_openslide_give_the_same_pixels(slide, through_openslide):
    with open_pyramid(slide) as native:
        assert native.by_tile
        for level in (0, 1, 2):
            window = (level, 0, 0, *SHAPES[level])
            ours, theirs = native.read(*window).astype(int), through_openslide.read(*window).astype(int)
            # Levels whose sides were rounded are resampled by OpenSlide to a fraction of a pixel.
            assert np.abs(ours - theirs).max() <= 2
            assert abs(ours.mean() - theirs.mean()) < 0.1


def test_windows_through_openslide_are_where_they_were_asked(through_openslide):
    random = np.random.default_rng(0)
    wholes = [through_openslide.read(level, 0, 0, *shape).astype(int) for level, shape in enumerate(SHAPES)]
    for level, (height, width) in enumerate(SHAPES):
        for _ in range(20):
            y, x = int(random.integers(1, height - 61)), int(random.integers(1, width - 61))
            found = through_openslide.read(level, y, x, 60, 60).astype(int)

            def error(dy, dx, found=found, level=level, y=y, x=x):
                return np.abs(found - wholes[level][y + dy : y + dy + 60, x + dx : x + dx + 60]).mean()

            here = error(0, 0)
            assert here == 0 if level == 0 else here < 4
            assert here < min(error(dy, dx) for dy, dx in [(-1, 0), (1, 0), (0, -1), (0, 1)])


def test_eight_threads_through_openslide_read_what_one_reads(through_openslide):
    from concurrent.futures import ThreadPoolExecutor

    windows = [(0, y, x, 90, 70) for y in range(0, 400, 40) for x in range(0, 600, 60)]
    alone = [through_openslide.read(*window) for window in windows]
    with ThreadPoolExecutor(8) as pool:
        together = list(pool.map(lambda window: through_openslide.read(*window), windows))
    assert all(np.array_equal(a, b) for a, b in zip(alone, together, strict=True))


def test_a_slide_through_openslide_is_read_by_tile_so_that_bytes_are_counted_once(slide, monkeypatch):
    from hiresattn.config import InputConfig
    from hiresattn.reading.fetch import CropFetcher

    monkeypatch.setattr("hiresattn.pyramid.formats.openslide._native_tiles", lambda *_: None)
    with OpenSlidePyramid(str(slide)) as pyramid:
        assert pyramid.by_tile
        assert not pyramid.exact_bytes
        assert (pyramid.levels[0].tile_height, pyramid.levels[0].tile_width) == (TILE, TILE)
        everywhere = np.array([[y, x, 64, 64] for y in range(0, 454, 50) for x in range(0, 638, 70)])
        with CropFetcher([pyramid], InputConfig(size=64), threads=2) as fetch:
            for _ in range(2):
                fetch(np.zeros(len(everywhere), np.int64), everywhere)
            (stats,) = fetch.stats.values()
        level = pyramid.levels[0]
        assert stats.tiles == stats.unique_tiles == level.tile_rows * level.tile_columns
        assert 0.5 * slide.stat().st_size < stats.bytes < slide.stat().st_size


@pytest.mark.parametrize(
    ("height", "width", "announced"),
    [(8, 3968, (512, 512)), (256, 256, (256, 256)), (256, 240, (256, 240)), (None, None, (512, 512))],
)
def test_tiles_that_are_strips_or_unknown_are_announced_as_squares(height, width, announced):
    said = {} if height is None else {"tile-height": str(height), "tile-width": str(width)}
    assert _tile({f"openslide.level[1].{key}": value for key, value in said.items()}, 1) == announced


def test_the_stored_size_is_that_of_all_files_of_a_slide(tmp_path):
    def put(name, content):
        path = tmp_path / name
        path.parent.mkdir(exist_ok=True)
        path.write_bytes(content)
        return str(path)

    main = put("a.mrxs", bytes(10))
    put("a/Data0000.dat", bytes(500))
    put("a/Slidedat.ini", bytes(7))
    put("b.mrxs", bytes(99))
    assert _stored_size(main, {"openslide.vendor": "mirax"}) == 517
    head = bytes(128) + b"DICM" + bytes(20)
    main = put("1.dcm", head + b"1.2.3" + bytes(100))
    put("2.dcm", head + b"1.2.3" + bytes(1000))
    put("3.dcm", head + b"1.2.4" + bytes(9000))
    put("notes 1.2.3", b"1.2.3" * 50)
    said = {"openslide.vendor": "dicom", "dicom.SeriesInstanceUID": "1.2.3"}
    assert _stored_size(main, said) == 2 * (152 + 5) + 1100
    assert _stored_size(put("a.vms", b"x"), {"openslide.vendor": "hamamatsu"}) == 0
    assert _stored_size(put("a.ndpi", b"xyz"), {"openslide.vendor": "hamamatsu"}) == 3


def test_label_and_macro_are_not_levels(slide):
    with open_pyramid(slide) as pyramid:
        assert [(level.height, level.width) for level in pyramid.levels] == SHAPES
        assert pyramid.meta.mpp_source == "openslide.mpp"


@pytest.mark.parametrize("mpp", [0.0, 352.8])
def test_an_implausible_scale_is_not_taken_and_said(tmp_path, mpp):
    with open_pyramid(write_svs(tmp_path / "slide.svs", mpp=mpp)) as pyramid:
        assert pyramid.mpp is None
        assert pyramid.meta.mpp_source.startswith("not taken: openslide.mpp says")


@pytest.mark.parametrize("harm", ["random", "zeros", "header"])
def test_a_damaged_tile_of_a_slide_is_a_read_error_not_wrong_pixels(tmp_path, harm):
    path = write_svs(tmp_path / "slide.svs")
    with open_pyramid(path) as pyramid:
        before = pyramid.read_tile(1, 0, 0).data
    overwrite_tile(path, level=1, row=1, column=1, harm=harm)
    with open_pyramid(path) as pyramid:
        with pytest.raises(ReadError, match="level 1, tile in row 1, column 1: damaged"):
            pyramid.read(1, 100, 100, 50, 50)
        assert np.array_equal(pyramid.read_tile(1, 0, 0).data, before)


def test_after_an_error_openslide_is_opened_anew(tmp_path):
    path = write_svs(tmp_path / "slide.svs")
    overwrite_tile(path, level=0, row=0, column=0, harm="header")
    with OpenSlidePyramid(str(path)) as pyramid:
        pyramid._tiles = None
        with pytest.raises(ReadError, match="OpenSlide can't read this"):
            pyramid.read(0, 0, 0, 50, 50)
        found = pyramid.read(0, 2 * TILE, 2 * TILE, TILE, TILE).astype(int)
    assert np.abs(found - coded()[2 * TILE : 3 * TILE, 2 * TILE : 3 * TILE]).mean() < 2.5


def test_a_sparse_tile_of_a_slide_is_background_and_not_valid(tmp_path):
    path = write_pyramid_tiff(tmp_path / "slide.tif")
    zero_tile_entry(path, level=0, row=1, column=2)
    with open_pyramid(path) as pyramid:
        assert pyramid.backend == "openslide"
        native = pyramid.read_masked(0, 0, 0, *SHAPES[0])
        pyramid._tiles = None
        through_openslide = pyramid.read_masked(0, 0, 0, *SHAPES[0])
    gap = np.s_[TILE : 2 * TILE, 2 * TILE : 3 * TILE]
    for pixels in (native, through_openslide):
        assert (pixels.data[gap] == 255).all()
        assert not pixels.valid[gap].any()
        assert pixels.valid.sum() == pixels.valid.size - TILE * TILE
    assert native.missing_tiles == 1
    assert np.array_equal(native.data, through_openslide.data)


def test_a_slide_cut_short_is_an_open_error_not_blank_pixels(slide, tmp_path):
    whole = slide.read_bytes()
    for kept in (len(whole) // 2, len(whole) - 40_000, 9, 200):
        path = tmp_path / f"cut{kept}.svs"
        path.write_bytes(whole[:kept])
        with pytest.raises(OpenError, match=f"cut{kept}.svs"):
            open_pyramid(path)
    path.write_bytes(whole[:-2000])  # only the macro image is cut
    with open_pyramid(path) as cut, open_pyramid(slide) as uncut:
        for level, has in enumerate(cut.levels):
            window = (level, 0, 0, has.height, has.width)
            np.testing.assert_array_equal(cut.read(*window), uncut.read(*window))


def test_openslides_reason_is_repeated(tmp_path):
    path = tmp_path / "slide.svs"
    path.write_bytes(b"nothing")
    with pytest.raises(
        OpenError, match=r"OpenSlide can't open this slide \(Unsupported or missing image file\)"
    ):
        OpenSlidePyramid(str(path))


def test_the_scanned_part_is_known_and_the_rest_is_not_valid(tmp_path):
    with open_pyramid(write_scn(tmp_path / "a.scn")) as slide:
        y, x, height, width = slide.meta.bounds
        assert (y, x, height, width) == (400, 700, *SHAPES[0])
        pixels = slide.read_masked(0, 0, 0, slide.height, slide.width)
    assert pixels.valid.sum() == height * width
    assert np.abs(pixels.data[y : y + height, x : x + width] - coded().astype(int)).mean() < 2
    convert(tmp_path / "a.scn", tmp_path / "a.zarr")
    with open_pyramid(tmp_path / "a.zarr") as after:
        assert after.bounds == (y, x, height, width)
