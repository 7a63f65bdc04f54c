"""Composed attention lies where the regions lie, in every format."""

import numpy as np
import pytest
import rasterio
from PIL import Image

from hiresattn.attention_maps.render import Attention, compose, write_attention
from hiresattn.errors import WriteError
from hiresattn.pyramid import open_pyramid
from tests import images

FRAME = (0, 0, 512, 701)


def ramp(region, shape):
    """A map whose values are the columns of its px centres, in thousands of level-0 px."""
    line = region[1] + (np.arange(shape[1]) + 0.5) * region[3] / shape[1]
    return np.tile(line / 1000, (shape[0], 1)).astype(np.float32)


def test_values_lie_where_their_region_lies():
    region = (100, 200, 256, 256)
    found = compose([(1, region, ramp(region, (8, 8)))], FRAME, ("a", "b", "c"))
    assert (found.classes, found.step) == (("b",), 8)
    assert found.values.shape == (1, 64, 88)
    y, x = ((np.arange(n) + 0.5) * 8 for n in found.values.shape[1:])
    inside = ((y >= 100) & (y < 356))[:, None] & ((x >= 200) & (x < 456))
    assert (found.values[0][~inside] == 0).all()
    wanted = np.clip(x, 200 + 16, 456 - 16) / 1000  # straight between the centres of the map's px
    assert np.allclose(found.values[0][inside], np.broadcast_to(wanted, inside.shape)[inside], atol=1e-6)


def test_of_regions_of_one_size_the_largest_counts_whatever_the_order():
    rng = np.random.default_rng(0)
    maps = [
        (int(rng.integers(2)), (y, x, side, side), rng.random((5, 5), np.float32))
        for side in (128, 127, 120, 114)  # as rounding, or being cut to the image, makes them
        for y, x in rng.integers(0, 512 - side + 1, (6, 2)).tolist()
    ]
    found = compose(maps, FRAME, ("a", "b"), 4)
    assert np.array_equal(compose(maps[::-1], FRAME, ("a", "b"), 4).values, found.values)
    wanted = np.zeros_like(found.values)
    for one in maps:
        wanted[one[0]] = np.maximum(wanted[one[0]], compose([one], FRAME, ("a", "b"), 4).values[0])
    assert np.array_equal(wanted, found.values)


@pytest.mark.parametrize("turn", [1, -1])
def test_a_closer_look_spreads_what_its_region_was_worth(turn):
    coarse = np.full((8, 8), 0.2)
    coarse[:4, :4] = 1
    fine = np.zeros((8, 8))
    fine[2, 5] = 1  # every map's own maximum is 1
    maps = [
        (0, (0, 0, 512, 512), coarse),
        (0, (32, 32, 128, 128), fine),  # in the hot quarter
        (0, (320, 320, 128, 128), fine),  # in the cold one
        (0, (400, 330, 32, 32), np.ones((8, 8))),  # where that says nothing
        (1, (320, 320, 128, 128), fine),  # a class without a coarse map
    ]
    a, b = compose(maps[::turn], (0, 0, 512, 512), ("a", "b"), 1).values
    hot, cold = a[32:160, 32:160], a[320:448, 320:448]
    assert hot.max() == pytest.approx(1, abs=0.07)  # no px's centre is that of the map's px
    assert np.allclose(cold, 0.2 * hot, atol=1e-6)
    assert np.unravel_index(cold.argmax(), cold.shape) == pytest.approx((2.5 * 16, 5.5 * 16), abs=1)
    assert (cold[:16] == 0).all()  # sharper than the coarse map, which is .2 there
    assert (a[400:432, 330:362] == 0).all()
    assert np.allclose(b[320:448, 320:448], hot, atol=1e-6)
    rest = np.ones((512, 512), bool)
    rest[32:160, 32:160] = rest[320:448, 320:448] = False
    assert np.array_equal(a[rest], compose(maps[:1], (0, 0, 512, 512), ("a",), 1).values[0][rest])
    assert (b[:320] == 0).all()


def test_no_closer_look_exceeds_what_was_there():
    rng = np.random.default_rng(1)
    maps = [(0, (0, 0, 512, 512), rng.random((6, 6)))]
    for side in (128, 32):
        before = compose(maps, FRAME, ("a",), 2).values[0]
        places = [(y, x) for y in range(0, 512, side) for x in range(0, 512, side) if rng.random() < 0.7]
        maps += [(0, (y, x, side, side), rng.random((6, 6)) ** 3) for y, x in places]
        after = compose(maps, FRAME, ("a",), 2).values[0]
        assert not np.array_equal(after, before)
        for y, x in places:
            inside = slice(y // 2, (y + side) // 2), slice(x // 2, (x + side) // 2)
            assert after[inside].max() <= before[inside].max() + 1e-6


def test_a_window_and_regions_that_overhang_are_cut_and_tiny_ones_are_not_lost():
    frame = (1000, 2000, 20_000, 40_000)
    maps = [(0, (900, 1900, 400, 400), np.ones((4, 4))), (0, (9000, 9000, 4, 4), np.full((4, 4), 0.5))]
    found = compose(maps, frame, ("a",))
    assert max(found.values.shape) <= 4096
    assert found.step == 16
    assert np.allclose(found.values[0, :18, :18], 1)
    assert found.values[0].sum() == pytest.approx(19 * 19 + 0.5, abs=40)
    assert found.values[0, 500, 437] == 0.5


def test_no_maps_make_no_classes():
    assert compose([], FRAME, ("a",)).values.shape[0] == 0


@pytest.fixture
def attention():
    values = np.zeros((2, 65, 88), np.float32)
    values[0, 10:20, 30:50] = 1
    values[1] = np.linspace(0, 1, 88)
    return Attention(values, ("a cell/odd", "b"), (0, 0, 517, 701), 8)


def test_a_geotiff_lies_on_its_image(tmp_path, attention):
    with open_pyramid(images.write_geotiff(tmp_path / "scene.tif")) as pyramid:
        files = write_attention(pyramid, attention, tmp_path, "out")
        a, _, c, _, e, f = pyramid.transform
        crs = pyramid.crs
    assert [file.name for file in files] == ["out.a_cell_odd.png", "out.b.png", "out.tif"]
    with rasterio.open(files[-1]) as raster:
        assert np.array_equal(raster.read(), attention.values)
        assert raster.descriptions == attention.classes
        assert str(raster.crs) == crs
        for row, column in [(0, 0), (10, 30), (65, 88)]:
            wanted = c + a * column * 8, f + e * row * 8
            assert raster.xy(row, column, offset="ul") == pytest.approx(wanted)


def test_a_window_keeps_its_place_on_earth(tmp_path):
    moved = Attention(np.ones((1, 16, 16), np.float32), ("a",), (200, 300, 64, 64), 4)
    with open_pyramid(images.write_geotiff(tmp_path / "scene.tif")) as pyramid:
        *_, file = write_attention(pyramid, moved, tmp_path, "out")
        a, _, c, _, e, f = pyramid.transform
    with rasterio.open(file) as raster:
        assert raster.xy(0, 0, offset="ul") == pytest.approx((c + a * 300, f + e * 200))


@pytest.mark.parametrize("mpp", [0.5, None])
def test_an_ome_zarr_lies_on_its_image(tmp_path, attention, mpp):
    import zarr

    with open_pyramid(images.coded_levels(), mpp=mpp) as pyramid:
        *_, file = write_attention(pyramid, attention, tmp_path, "out")
    group = zarr.open_group(file, mode="r")
    assert np.array_equal(group["0"][:], attention.values)
    (multiscale,) = group.attrs["ome"]["multiscales"]
    scale, move = (step[step["type"]] for step in multiscale["datasets"][0]["coordinateTransformations"])
    unit = mpp or 1.0
    centres = np.arange(8) * unit  # of the level-0 px under the first px of the map
    assert scale == [1.0, 8 * unit, 8 * unit]
    assert move[1:] == [centres.mean()] * 2
    assert ("unit" in multiscale["axes"][1]) == (mpp is not None)
    with open_pyramid(file) as again:
        assert again.channels == 2
        assert again.mpp == (None if mpp is None else pytest.approx(4.0))


def test_a_picture_is_hot_where_the_values_are_and_grey_elsewhere(tmp_path, attention):
    with open_pyramid(images.coded_levels()) as pyramid:
        file, *_ = write_attention(pyramid, attention, tmp_path, "out")
    heat = np.asarray(Image.open(file)).astype(int)
    spread = np.ptp(heat, axis=2)  # 0 = grey
    scale = 768 / 701
    y0, y1, x0, x1 = (round(place * 8 * scale) for place in (10, 20, 30, 50))
    assert spread[y0 + 8 : y1 - 8, x0 + 8 : x1 - 8].min() > 30
    spread[y0 - 8 : y1 + 8, x0 - 8 : x1 + 8] = 0
    assert spread.max() == 0


def test_nothing_half_written_is_left(tmp_path, attention, monkeypatch):
    import zarr

    monkeypatch.setattr(zarr.Group, "create_array", lambda *_, **__: 1 / 0)
    with open_pyramid(images.coded_levels()) as pyramid, pytest.raises(WriteError, match=r"out\.ome\.zarr"):
        write_attention(pyramid, attention, tmp_path, "out")
    assert sorted(file.name for file in tmp_path.iterdir()) == ["out.a_cell_odd.png", "out.b.png"]
