import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from hiresattn.errors import RegionError
from hiresattn.geometry import Level
from hiresattn.reading.plan import BLOCK_PX, block_reads, plan_reads, tile_reads


def stored(height, width, factors=(1, 2, 4, 8), tile=(7, 5)):
    return [Level(-(-width // f), -(-height // f), float(f), tile[1], tile[0]) for f in factors]


@st.composite
def problems(draw):
    height, width = draw(st.integers(1, 90)), draw(st.integers(1, 90))
    levels = stored(
        height,
        width,
        draw(st.sampled_from([(1,), (1, 2), (1, 4, 16), (1, 3, 5)])),
        draw(st.sampled_from([(7, 5), (16, 16), (64, 3)])),
    )
    regions = []
    for _ in range(draw(st.integers(0, 8))):
        y, x = draw(st.integers(0, height - 1)), draw(st.integers(0, width - 1))
        regions.append((y, x, draw(st.integers(1, height - y)), draw(st.integers(1, width - x))))
    return np.array(regions, np.int64).reshape(-1, 4), levels, draw(st.integers(1, 20))


def brute(regions, levels, size):
    """Tile by tile: which crops overlap it."""
    feeds = {}
    chosen = []
    for crop, (y, x, h, w) in enumerate(regions.tolist()):
        fit = [n for n, level in enumerate(levels) if level.downsample <= min(h, w) / size * 1.01]
        number = max(fit, default=0)
        chosen.append(number)
        level = levels[number]
        d = level.downsample
        for row in range(level.tile_rows):
            for column in range(level.tile_columns):
                top, left = row * level.tile_height, column * level.tile_width
                tall = min((y + h) / d, top + level.tile_height, level.height) - max(y / d, top)
                wide = min((x + w) / d, left + level.tile_width, level.width) - max(x / d, left)
                if tall > 1e-5 and wide > 1e-5:
                    feeds.setdefault((number, row, column), []).append(crop)
    return chosen, feeds


@given(problems())
@settings(max_examples=300)
def test_plan_equals_enumeration_of_every_tile_and_crop(problem):
    regions, levels, size = problem
    plan = plan_reads(regions, levels, size)
    chosen, feeds = brute(regions, levels, size)
    assert plan.level.tolist() == chosen
    tiles = [tuple(tile) for tile in plan.tiles.tolist()]
    assert tiles == sorted(set(feeds))
    for nth, tile in enumerate(tiles):
        assert plan.feed_crop[plan.feed_start[nth] : plan.feed_start[nth + 1]].tolist() == feeds[tile]
    assert plan.feed_start[-1] == len(plan.feed_crop)
    d = np.array([levels[n].downsample for n in chosen])[:, None]
    extents = np.array([(levels[n].height, levels[n].width) for n in chosen]).reshape(-1, 2)
    stop = np.minimum((regions[:, :2] + regions[:, 2:]) / d, extents)
    np.testing.assert_allclose(plan.windows[:, :2], regions[:, :2] / d, atol=2e-6)
    np.testing.assert_allclose(plan.windows[:, :2] + plan.windows[:, 2:], stop, atol=2e-6)
    for array, dtype in ((plan.level, np.int64), (plan.tiles, np.int64), (plan.feed_crop, np.int64)):
        assert array.dtype == dtype
    assert plan.windows.dtype == np.float64


@given(problems())
@settings(max_examples=100)
def test_reads_cover_every_window_once(problem):
    regions, levels, size = problem
    plan = plan_reads(regions, levels, size)
    crops = np.arange(len(regions)) + 100
    for reads, exact in ((tile_reads, False), (block_reads, True)):
        painted = {
            crop: np.zeros((levels[n].height, levels[n].width), int)
            for crop, n in zip(crops, plan.level, strict=True)
        }
        for read in reads(3, levels, plan, crops):
            assert read.image == 3
            y, x, h, w = read.window
            for crop in read.crops:
                painted[crop][y : y + h, x : x + w] += 1
        for crop, (y, x, h, w) in zip(crops, plan.windows, strict=True):
            inside = np.zeros_like(painted[crop], dtype=bool)
            inside[
                int(np.floor(y + 1e-6)) : int(np.ceil(y + h - 1e-6)),
                int(np.floor(x + 1e-6)) : int(np.ceil(x + w - 1e-6)),
            ] = True
            assert (painted[crop][inside] == 1).all()
            assert painted[crop].max() == 1
            assert not exact or not painted[crop][~inside].any()


def test_level_is_the_coarsest_that_does_not_enlarge_within_one_percent():
    levels = [
        Level(40000, 40000, 1.0, 256, 256),
        Level(9960, 9960, 4.016, 256, 256),
        Level(2500, 2500, 16.0, 256, 256),
    ]
    sides = np.array([32, 64, 250, 254, 256, 1023, 1024, 40000])
    regions = np.stack([0 * sides, 0 * sides, sides, sides], axis=1)
    assert plan_reads(regions, levels, 64).level.tolist() == [0, 0, 0, 0, 1, 2, 2, 2]


def test_level_follows_the_shorter_side():
    plan = plan_reads(np.array([[0, 0, 16, 64], [0, 0, 64, 16]]), stored(64, 64), 16)
    assert plan.level.tolist() == [0, 0]


def test_edges_within_rounding_of_a_tile_do_not_touch_it():
    levels = [Level(900, 900, 1.0, 256, 256), Level(300, 300, 3 * (1 + 1e-12), 10, 10)]
    plan = plan_reads(np.array([[30, 60, 30, 30]]), levels, 10)
    assert plan.tiles.tolist() == [[1, 1, 2]]
    assert plan.windows.tolist() == [[10, 20, 10, 10]]


def test_window_at_the_edge_of_a_level_that_ends_early_keeps_a_pixel():
    levels = [Level(2967, 2967, 1.0, 256, 256), Level(1480, 1483, 2.0, 256, 256)]
    plan = plan_reads(np.array([[2965, 2965, 2, 2], [0, 0, 2967, 2967]]), levels, 1)
    assert plan.windows.tolist() == [[1482, 1479, 1, 1], [0, 0, 1483, 1480]]
    assert (plan.tiles[:, 1:] <= [5, 5]).all()


@pytest.mark.parametrize(
    "region", [(-1, 0, 5, 5), (0, -1, 5, 5), (0, 0, 0, 5), (0, 0, 5, 0), (30, 0, 11, 5), (0, 45, 5, 6)]
)
def test_region_outside_the_image_is_an_error_that_names_it(region):
    with pytest.raises(RegionError, match=r"slide\.svs: asked for rows"):
        plan_reads(np.array([(0, 0, 5, 5), region]), stored(40, 50), 8, "slide.svs")


def test_regions_of_another_type_are_refused():
    with pytest.raises(RegionError, match="int64"):
        plan_reads(np.zeros((1, 4)), stored(40, 50), 8)


def test_no_regions_is_an_empty_plan():
    plan = plan_reads(np.zeros((0, 4), np.int64), stored(40, 50), 8)
    assert plan.tiles.shape == (0, 3)
    assert plan.feed_start.tolist() == [0]


@pytest.mark.parametrize("tile", [(256, 256), (1, 9000), (9000, 9000), (8, 9000), (512, 3000)])
def test_blocks_of_a_large_window_are_bounded_and_cut_along_tiles(tile):
    levels = [Level(9000, 3000, 1.0, tile[1], tile[0])]
    plan = plan_reads(np.array([[10, 20, 2900, 8900]]), levels, 1)
    reads = list(block_reads(0, levels, plan, np.arange(1)))
    assert all(read.window[2] * read.window[3] <= BLOCK_PX for read in reads)
    assert sum(read.window[2] * read.window[3] for read in reads) == 2900 * 8900
    assert len(reads) < 4 * 2900 * 8900 / BLOCK_PX
    if tile[0] * tile[1] <= BLOCK_PX:
        for read in reads:
            assert read.window[0] == 10 or read.window[0] % tile[0] == 0
            assert read.window[1] == 20 or read.window[1] % tile[1] == 0


def test_equal_windows_are_read_once():
    levels = stored(64, 64)
    plan = plan_reads(np.array([[3, 3, 9, 9], [40, 40, 9, 9], [3, 3, 9, 9]]), levels, 8)
    assert [read.crops for read in block_reads(0, levels, plan, np.arange(3))] == [[0, 2], [1]]
