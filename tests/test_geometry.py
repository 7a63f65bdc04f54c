from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from hiresattn.errors import ConfigError, RegionError
from hiresattn.geometry import (
    EXPAND_FROM,
    Grid,
    Level,
    cell_regions,
    check_region,
    depth_count,
    expandable,
    level_downsamples,
    locations,
    overlaps,
    root_regions,
    snapped_downsample,
)


@given(st.integers(1, 4000), st.integers(1, 4000), st.integers(0, 99), st.integers(0, 99))
def test_roots_are_the_fewest_squares_that_cover_the_rectangle_edge_to_edge(height, width, y, x):
    regions = root_regions(height, width, y, x)
    side = min(height, width)
    assert regions.dtype == np.int64
    assert (regions[:, 2:] == side).all()
    assert len(regions) == -(-max(height, width) // side)
    along = 0 if height >= width else 1
    starts = regions[:, along].tolist()
    assert starts[0] == (y, x)[along]
    assert starts[-1] + side == (y + height, x + width)[along]
    assert all(0 < b - a <= side for a, b in pairwise(starts))
    assert (regions[:, 1 - along] == (y, x)[1 - along]).all()


@given(st.integers(64, 3000), st.integers(64, 3000), st.integers(1, 64), st.floats(0, 0.9))
def test_root_regions_overlap_by_the_share_asked_for_and_are_the_fewest_that_do(height, width, side, overlap):
    regions = root_regions(height, width, root_size=side, overlap=overlap)
    step = max(round(side * (1 - overlap)), 1)
    assert (regions[:, 2:] == side).all()
    for axis, length in enumerate((height, width)):
        starts = np.unique(regions[:, axis])
        assert starts[0] == 0
        assert starts[-1] + side == length
        assert len(starts) == 1 or np.diff(starts).max() <= step
        assert (len(starts) - 2) * step < length - side or len(starts) == 1


@given(st.integers(1, 5000), st.integers(1, 9), st.floats(0.05, 0.95), st.integers(1, 300))
def test_cells_are_squares_inside_their_parent_that_start_and_end_at_its_edges(side, size, fraction, crop):
    parents = np.array([[0, 0, side, side], [17, 40, side, side]])
    cells = cell_regions(parents, Grid(size, fraction), crop)
    assert cells.shape == (2, size * size, 4)
    assert np.array_equal(cells[1] - cells[0], np.broadcast_to([17, 40, 0, 0], cells[0].shape))
    first = cells[0].reshape(size, size, 4)
    assert (first[..., 2:] == first[0, 0, 2]).all()
    assert (first[..., :2] >= 0).all()
    assert (first[..., :2] + first[..., 2:] <= side).all()
    assert (first[:, :, 0] == first[:, :1, 0]).all()
    assert (first[:, :, 1] == first[:1, :, 1]).all()
    assert tuple(first[0, 0, :2]) == (0, 0)
    if size > 1:
        assert tuple(first[-1, -1, :2] + first[-1, -1, 2:]) == (side, side)
        steps = np.diff(first[:, 0, 0])
        assert steps.max() - steps.min() <= 1


@given(st.integers(1, 10**6), st.floats(0.05, 0.95), st.integers(1, 300))
def test_the_side_of_a_cell_is_the_smallest_on_the_ladder_that_is_not_too_small(side, fraction, crop):
    cell = int(cell_regions(np.array([[0, 0, side, side]]), Grid(1, fraction), crop)[0, 0, 2])
    least = 0.8 * fraction * side
    rung = 0
    while crop / fraction**rung < least * (1 - 1e-6):
        rung += 1
    near = {rung, rung - 1, rung + 1} if abs(crop / fraction**rung / least - 1) < 1e-5 else {rung}
    assert cell in {min(round(crop / fraction**step), side) for step in near}


def test_a_region_on_the_ladder_has_cells_of_exactly_the_fraction():
    for rung in range(1, 8):
        cells = cell_regions(np.array([[0, 0, 64 * 4**rung, 64 * 4**rung]]), Grid(7, 0.25), 64)
        assert (cells[0, :, 2:] == 64 * 4 ** (rung - 1)).all()


def test_cells_of_the_default_grid_leave_no_gap():
    seen = np.zeros((1000, 1000), bool)
    for y, x, height, width in cell_regions(root_regions(1000, 1000), Grid(), 64)[0]:
        seen[y : y + height, x : x + width] = True
    assert seen.all()


def test_no_region_has_no_cells():
    assert cell_regions(np.zeros((0, 4), np.int64), Grid(3), 64).shape == (0, 9, 4)


def test_expandable_goes_by_the_shorter_side():
    size = 64
    edge = int(EXPAND_FROM * size)
    regions = np.array([[0, 0, edge, edge], [0, 0, edge - 1, 999], [0, 0, 999, edge - 1]])
    assert expandable(regions, size).tolist() == [True, False, False]


@pytest.mark.parametrize("side", [1, 64, 95, 96, 1000, 40960, 10**6])
def test_depth_count_is_how_often_cells_can_be_opened(side):
    region = root_regions(side, 2 * side)[:1]
    count = 1
    while region[0, 2] >= 96:
        region = cell_regions(region, Grid(), 64)[:, 24]
        count += 1
    assert depth_count(root_regions(side, 2 * side), Grid(), 64) == count


def test_locations_are_shares_of_the_frame_and_log2_of_the_zoom():
    frame = np.array([[100, 200, 400, 800]])
    regions = np.array([[100, 200, 400, 400], [200, 600, 100, 100]])
    expected = [[0.5, 0.25, 0.0], [150 / 400, 450 / 800, 2.0]]
    np.testing.assert_allclose(locations(regions, np.repeat(frame, 2, axis=0)), expected)


boxes = st.tuples(*[st.integers(0, 12)] * 2, *[st.integers(1, 9)] * 2)


def painted(box):
    y, x, height, width = box
    image = np.zeros((22, 22), bool)
    image[y : y + height, x : x + width] = True
    return image


@given(st.lists(st.tuples(boxes, boxes), min_size=1, max_size=5))
@settings(max_examples=50)
def test_overlaps_equal_counting_pixels(pairs):
    ours, theirs = np.array(pairs).transpose(1, 0, 2)
    found = overlaps(ours, theirs)
    for i, a in enumerate(map(painted, ours)):
        for j, b in enumerate(map(painted, theirs)):
            assert found[i, j] == pytest.approx((a & b).sum() / (a | b).sum())


def test_overlaps_takes_different_numbers_of_regions():
    assert overlaps(np.array([[0, 0, 2, 2]]), np.array([[0, 0, 2, 2], [0, 1, 2, 2]])).shape == (1, 2)


@pytest.mark.parametrize(
    ("sizes", "expected"),
    [
        ((1000, 1000, 1000, 1000), 1.0),
        ((2967, 2967, 1483, 1484), 2.0),
        ((40960, 40960, 640, 640), 64.0),
        ((3, 3, 1, 1), 3.0),
        ((1000, 1000, 249, 249), 1000 / 249),
        ((90, 90, 100, 100), 1.0),
        ((1000, 5, 10, 1), 100.0),
        ((5, 1000, 1, 10), 100.0),
        ((3, 100_000, 1, 48_000), 100_000 / 48_000),
    ],
)
def test_downsample_is_the_whole_factor_that_explains_the_rounding(sizes, expected):
    assert snapped_downsample(*sizes) == pytest.approx(expected)


@given(st.integers(1, 50_000), st.integers(1, 50_000), st.integers(1, 64), st.booleans(), st.booleans())
def test_downsample_of_a_level_rounded_down_or_up_is_exact(width, height, factor, down, right):
    stored = [
        max(side // factor, 1) if low else -(-side // factor)
        for side, low in ((width, down), (height, right))
    ]
    if min(width, height) > 2 * factor * factor:  # below that two factors can explain the same size
        assert snapped_downsample(width, height, *stored) == factor


@given(st.integers(1, 3000), st.integers(1, 600))
def test_tiles_of_a_level_cover_it(side, tile):
    level = Level(side, 2 * side, 1.0, tile, tile)
    assert (level.tile_columns - 1) * tile < side <= level.tile_columns * tile
    assert (level.tile_rows - 1) * tile < 2 * side <= level.tile_rows * tile


def test_what_can_not_be_is_an_error():
    for bad in ({"size": 0}, {"fraction": 0.0}, {"fraction": 1.0}):
        with pytest.raises(ConfigError, match="a grid needs"):
            Grid(**bad)
    for height, width in ((0, 5), (5, 0)):
        with pytest.raises(RegionError, match="at least one pixel"):
            root_regions(height, width)
    check_region((0, 0, 5, 6), 5, 6, "a.tif")
    for region in ((-1, 0, 1, 1), (0, -1, 1, 1), (0, 0, 6, 6), (0, 0, 5, 7), (0, 0, 0, 1), (0, 0, 1, 0)):
        with pytest.raises(RegionError, match=r"a\.tif"):
            check_region(region, 5, 6, "a.tif")


def test_whole_factors_that_explain_all_levels_together_are_taken():
    sizes = [(2399, 3001)]
    for _ in range(9):
        sizes.append((sizes[-1][0] // 2, sizes[-1][1] // 2))
    assert level_downsamples(sizes) == [
        2.0**k for k in range(10)
    ]  # 4 x 5 px for itself would be 600 times smaller
    assert level_downsamples([(1050, 1365), (350, 455), (210, 273), (70, 91)]) == [1, 3, 5, 15]
    assert level_downsamples([(1000, 1000), (400, 400), (200, 200)]) == [1, 2.5, 5]
