"""A composite reads like an array into which somebody pasted, at every level."""

import pickle

import numpy as np
import pytest

from hiresattn.config import InputConfig
from hiresattn.demo.needle import NeedlePyramid, NeedleScene
from hiresattn.errors import DomainError, RegionError
from hiresattn.pyramid import open_pyramid
from hiresattn.pyramid.array import ArrayPyramid
from hiresattn.pyramid.pasted import Pasted
from hiresattn.reading.fetch import CropFetcher
from tests import images
from tests.reading.test_fetch import Counting, coordinates, means

#: Crops keep native values.
NATIVE = {"low": (-1.0,) * 3, "high": (1.0,) * 3, "dtype": "float32"}


def pyramid_of(base, factors=(1, 2, 8)):
    return ArrayPyramid([base if factor == 1 else means(base, factor) for factor in factors])


def host_and_donor(donor_size=(256, 320)):
    """Two images whose px say which they are and where."""
    (host, *_), (donor, *_) = coordinates(256, 320), coordinates(*donor_size)
    return host, donor + 10_000


def mixed(host, donor, box, at):
    out = host.copy()
    y, x, height, width = box
    out[y : y + height, x : x + width] = donor[at[0] : at[0] + height, at[1] : at[1] + width]
    return out


BOX, AT = (64, 96, 120, 160), (40, 24)


def test_every_level_and_window_is_that_of_the_mixed_image():
    host, donor = host_and_donor()
    pasted = Pasted(pyramid_of(host), pyramid_of(donor), BOX, AT)
    whole = mixed(host, donor, BOX, AT)
    expected = [whole, means(whole, 2), means(whole, 8)]
    rng = np.random.default_rng(0)
    for level, wanted in enumerate(expected):
        assert np.array_equal(pasted.read(level, 0, 0, *wanted.shape[:2]), wanted)
        for _ in range(100):
            height, width = (int(rng.integers(1, side + 1)) for side in wanted.shape[:2])
            y, x = (
                int(rng.integers(0, side - part + 1))
                for side, part in zip(wanted.shape[:2], (height, width), strict=True)
            )
            found = pasted.read_masked(level, y, x, height, width)
            assert found.valid is None
            assert np.array_equal(found.data, wanted[y : y + height, x : x + width])
    assert wanted[10, 15, 0] > 10_000 > wanted[0, 0, 0]


@pytest.mark.parametrize(
    ("factors", "at"), [((1,), (40, 24)), ((1, 4), (40, 24)), ((1, 2, 8), (37, 22)), ((1, 2, 4, 8), (3, 5))]
)
def test_a_donor_of_other_levels_or_at_odd_places_is_averaged(factors, at):
    host, donor = host_and_donor()
    pasted = Pasted(pyramid_of(host), pyramid_of(donor, factors), BOX, at)
    whole = mixed(host, donor, BOX, at)
    for level, factor in enumerate((1, 2, 8)):
        wanted = means(whole, factor) if factor > 1 else whole
        found = pasted.read(level, 0, 0, *wanted.shape[:2])
        assert np.allclose(found, wanted, atol=2e-3, rtol=0)
        part = pasted.read(level, 11, 13, 9, 14)
        assert np.allclose(part, wanted[11:20, 13:27], atol=2e-3, rtol=0)


def test_large_steps_are_averaged_block_by_block(monkeypatch):
    host, donor = host_and_donor()
    whole = mixed(host, donor, BOX, AT)
    monkeypatch.setattr("hiresattn.pyramid.pasted._BLOCK", 24)
    donor_image = Counting([donor])
    pasted = Pasted(pyramid_of(host), donor_image, BOX, AT)
    assert np.allclose(pasted.read(2, 0, 0, 32, 40), means(whole, 8), atol=2e-3, rtol=0)
    assert max(max(window[3:]) for window in donor_image.windows) <= 24


def test_any_crop_is_that_of_the_mixed_image():
    host, donor = host_and_donor()
    whole = mixed(host, donor, BOX, AT)
    config = InputConfig(size=16, **NATIVE)
    rng = np.random.default_rng(1)
    sides = rng.integers(1, 257, 60)
    regions = np.array([[rng.integers(0, 257 - s), rng.integers(0, 321 - s), s, s] for s in sides])
    zeros = np.zeros(len(regions), np.int64)
    pasted = Pasted(pyramid_of(host), pyramid_of(donor), BOX, AT)
    with CropFetcher([pasted], config) as fetch, CropFetcher([pyramid_of(whole)], config) as wanted:
        found, expected = fetch(zeros, regions), wanted(zeros, regions)
    assert np.allclose(found.pixels, expected.pixels, atol=1e-2, rtol=0)
    assert (found.coverage == 1).all()


def test_only_needed_tiles_of_either_image_are_read():
    host, donor = (Counting(coordinates()) for _ in range(2))
    pasted = Pasted(host, donor, (64, 96, 96, 144), (0, 48))  # tiles are 32 x 48 px
    pasted.read_tile(0, 2, 2)
    assert (host.windows, donor.windows) == ([], [(0, 0, 48, 32, 48)])
    donor.windows.clear()
    pasted.read_tile(0, 1, 2)
    assert (host.windows, donor.windows) == ([(0, 32, 96, 32, 48)], [])
    host.windows.clear()
    config = InputConfig(size=16, **NATIVE)
    with CropFetcher([pasted], config) as fetch:
        fetch(np.zeros(1, np.int64), np.array([[70, 100, 16, 16]]))
        assert (host.windows, donor.windows) == ([], [(0, 0, 48, 32, 48)])
        fetch(np.zeros(1, np.int64), np.array([[0, 0, 256, 256]]))
    assert {window[0] for window in host.windows + donor.windows[1:]} == {2}
    assert len(host.windows) == 1  # one tile holds all of level 2


def test_what_is_not_measured_in_either_stays_so():
    host, donor = host_and_donor()
    host[:20] = np.nan
    donor[51:60] = -1
    donor_image = ArrayPyramid([donor], nodata=-1)
    pasted = Pasted(ArrayPyramid([host]), donor_image, BOX, AT)
    valid = pasted.read_masked(0, 0, 0, 256, 320).valid
    wanted = np.ones((256, 320), bool)
    wanted[:20] = False
    wanted[75:84, 96:256] = False
    assert np.array_equal(valid, wanted)
    coarse = Pasted(pyramid_of(coordinates()[0]), donor_image, BOX, AT).read_masked(1, 0, 0, 128, 160)
    wanted[:20] = True
    assert np.array_equal(coarse.valid, wanted[::2, ::2] | wanted[1::2, ::2])
    assert coarse.data[37, 60, 0] == 10_050.5  # of the measured px only: row 50 of the donor


def test_whole_numbers_are_rounded_not_cut():
    host = np.zeros((64, 64, 1), np.uint8)
    donor = np.tile(np.array([[[3], [4]]], np.uint8), (64, 32, 1))
    pasted = Pasted(pyramid_of(host, (1, 8)), ArrayPyramid([donor]), (0, 0, 64, 64), (0, 0))
    assert (pasted.read(1, 0, 0, 8, 8) == 4).all()  # of 3.5
    assert pasted.dtype == np.uint8


def test_edges_between_px_are_rounded_and_the_image_edge_stays():
    host, donor = np.zeros((129, 131, 1), np.float32), np.ones((129, 131, 1), np.float32)
    levels = [host, host[:65, :66], host[:33, :33]]
    pasted = Pasted(ArrayPyramid(levels), ArrayPyramid([donor]), (3, 2, 126, 129), (3, 2))
    for level, (y, x) in enumerate([(3, 2), (2, 1), (1, 0)]):
        found = pasted.read(level, 0, 0, *levels[level].shape[:2])[..., 0]
        assert (found[y:, x:] == 1).all()
        assert (found[:y] == 0).all()
        assert (found[:, :x] == 0).all()


def test_files_of_two_formats_paste_alike(tmp_path):
    tiff, png = images.write_pyramid_tiff(tmp_path / "host.tif"), tmp_path / "donor.png"
    from PIL import Image

    Image.fromarray(np.ascontiguousarray(images.coded()[::-1, ::-1])).save(png)
    box, at = (128, 128, 256, 384), (100, 60)
    with open_pyramid(tiff) as host, open_pyramid(png) as donor, Pasted(host, donor, box, at) as pasted:
        wanted = mixed(images.coded(), images.coded()[::-1, ::-1], box, at)
        assert np.array_equal(pasted.read(0, 0, 0, 517, 701), wanted)
        again = pickle.loads(pickle.dumps(pasted))  # noqa: S301 - our own
        assert np.array_equal(again.read(0, 100, 100, 300, 200), wanted[100:400, 100:300])
        assert len(pasted.levels) == 3
        assert pasted.source == host.source


def test_images_that_do_not_belong_together_and_boxes_that_leave_are_errors():
    host, donor = host_and_donor((96, 120))
    pair = ArrayPyramid([host]), ArrayPyramid([donor])
    with pytest.raises(DomainError, match="convert one"):
        Pasted(pair[0], ArrayPyramid([donor.astype(np.uint16)]), BOX, AT)
    with pytest.raises(RegionError, match="ask for a region inside"):
        Pasted(*pair, (200, 0, 100, 10), (0, 0))
    with pytest.raises(RegionError, match="ask for a region inside"):
        Pasted(*pair, (0, 0, 80, 90), (20, 0))


def test_scenes_that_are_drawn_when_read_paste_alike_however_large():
    host, donor = (NeedlePyramid(NeedleScene(seed, 65_536)) for seed in (1, 2))
    coarsest = round(host.levels[-1].downsample)
    box, at = (32 * coarsest, 16 * coarsest, 20 * coarsest, 24 * coarsest), (8 * coarsest, 40 * coarsest)
    pasted = Pasted(host, donor, box, at)
    shift = np.array([at[0] - box[0], at[1] - box[1], 0, 0])
    inside = np.array([[y, x, s, s] for y, x, s in [(box[0] + 96, box[1] + 64, 64), (*box[:2], box[2])]])
    outside = np.array([[10, 20, 64, 64], [0, 0, box[0], box[0]]])
    config = InputConfig(size=64, bands=tuple(range(host.channels)), low=(0.0,) * host.channels,
                         high=(255.0,) * host.channels)  # fmt: skip
    two = np.zeros(2, np.int64)
    with (
        CropFetcher([pasted], config) as mixed,
        CropFetcher([host], config) as one,
        CropFetcher([donor], config) as other,
    ):
        assert np.array_equal(mixed(two, inside).pixels, other(two, inside + shift).pixels)
        assert np.array_equal(mixed(two, outside).pixels, one(two, outside).pixels)
        whole = np.array([[0, 0, 65_536, 65_536]])
        found = mixed(two[:1], whole).pixels
        assert not np.array_equal(found, one(two[:1], whole).pixels)
        assert mixed.stats[0].pixels < 65_536**2 / 1000
