import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from hiresattn.pyramid.area import accumulate
from hiresattn.reading.kernels import copy_scaled, copy_uint8, finish

ALL = np.ones((0, 0), bool)
ONE = np.ones(1)


def shares(start, length, size, count):
    """How much of source px k (of ``count``) lies in crop px i: a dense ``[size count]`` matrix."""
    edges = start + np.arange(size + 1) * length / size
    k = np.arange(count)
    return np.clip(np.minimum(edges[1:, None], k + 1) - np.maximum(edges[:-1, None], k), 0, None)


def oracle(data, valid, window, size):
    """Area average by two matrix products: sums ``[s s c]`` and areas ``[s s]``."""
    y, x, h, w = window
    rows, columns = shares(y, h, size, data.shape[0]), shares(x, w, size, data.shape[1])
    measured = np.where(valid[..., None], data, 0).astype(np.float64)
    return np.einsum("ik,klc,jl->ijc", rows, measured, columns), rows @ valid.astype(float) @ columns.T


def edges_of(window, size):
    edges = np.arange(size + 1.0)
    return [start + edges * (side / size) for start, side in zip(window[:2], window[2:], strict=True)]


def summed(data, window, size, valid=ALL, tile=(0, 0), run=None):
    total, weight = np.zeros((size, size, data.shape[2])), np.zeros((size, size))
    (run or accumulate.machine_code)(data, valid, *tile, *edges_of(window, size), total, weight)
    return total, weight


def finished(total, weight, area, low, high):
    size, _, channels = total.shape
    pixels, coverage = np.full((channels, size, size), 9, np.float32), np.full((size, size), 9, np.float32)
    finish.machine_code(total, weight, area, low, high, pixels, coverage)
    return pixels, coverage


@st.composite
def windows(draw, side=24):
    y, x = (draw(st.floats(0, side - 1.5)) for _ in range(2))
    return y, x, draw(st.floats(0.5, side - y)), draw(st.floats(0.5, side - x))


@given(windows(), st.integers(1, 9), st.integers(1, 4), st.booleans(), st.integers(0, 2**31))
@settings(max_examples=60)
def test_sums_equal_matrix_products_and_the_specification(window, size, channels, masked, seed):
    rng = np.random.default_rng(seed)
    data = rng.integers(0, 65536, (24, 24, channels)).astype(np.uint16)
    valid = rng.random((24, 24)) < 0.6 if masked else ALL
    total, weight = summed(data, window, size, valid)
    expected = oracle(data, valid if masked else np.ones((24, 24), bool), window, size)
    noise = 3e-6 * (window[2] / size + window[3] / size + 2)  # overlaps of 1e-6 px are left out
    np.testing.assert_allclose(weight, expected[1], atol=noise)
    np.testing.assert_allclose(total, expected[0], atol=noise * 65536)
    spelled_out = summed(data, window, size, valid, run=accumulate.py_func)
    np.testing.assert_allclose(total, spelled_out[0], rtol=1e-12, atol=1e-9)
    np.testing.assert_allclose(weight, spelled_out[1], rtol=1e-12, atol=1e-15)
    in_numpy = summed(data, window, size, valid, run=accumulate.numpy)
    assert np.array_equal(total, in_numpy[0])
    assert np.array_equal(weight, in_numpy[1])


@given(windows(), st.integers(1, 9), st.integers(1, 23), st.integers(1, 23))
@settings(max_examples=100)
def test_tiles_add_up_to_the_whole(window, size, row, column):
    data = np.random.default_rng(row).integers(0, 256, (24, 24, 3)).astype(np.uint8)
    total, weight = np.zeros((size, size, 3)), np.zeros((size, size))
    for y, y_stop in ((0, row), (row, 24)):
        for x, x_stop in ((0, column), (column, 24)):
            tile = np.ascontiguousarray(data[y:y_stop, x:x_stop])
            accumulate(tile, ALL, y, x, *edges_of(window, size), total, weight)
    whole = summed(data, window, size)
    np.testing.assert_allclose(total, whole[0], rtol=1e-9, atol=2e-3)
    np.testing.assert_allclose(weight, whole[1], rtol=1e-9, atol=8e-6)


@pytest.mark.parametrize("dtype", [np.uint8, np.int16, np.uint16, np.int32, np.float32, np.float64])
def test_ratio_one_copies_bit_for_bit(dtype):
    data = (np.random.default_rng(0).random((40, 50, 3)) * 60000).astype(dtype)
    total, weight = summed(data, (3, 4, 16, 16), 16)
    assert np.array_equal(total, data[3:19, 4:20])
    assert (weight == 1).all()


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16, np.float32])
def test_ratio_two_is_the_mean_of_two_by_two_bit_for_bit(dtype):
    data = (np.random.default_rng(0).random((40, 50, 3)) * 60000).astype(dtype)
    total, weight = summed(data, (3, 4, 32, 32), 16)
    blocks = data[3:35, 4:36].reshape(16, 2, 16, 2, 3).astype(np.float64)
    assert np.array_equal(
        total, (blocks[:, 0, :, 0] + blocks[:, 1, :, 0]) + (blocks[:, 0, :, 1] + blocks[:, 1, :, 1])
    )
    assert (weight == 4).all()


@given(windows(), st.integers(1, 9), st.integers(0, 255))
@settings(max_examples=60)
def test_constant_image_stays_constant(window, size, value):
    total, weight = summed(np.full((24, 24, 1), value, np.uint8), window, size)
    pixels, coverage = finished(total, weight, window[2] * window[3] / size**2, 0 * ONE, 255 * ONE)
    np.testing.assert_allclose(pixels, 2 * value / 255 - 1, atol=1e-6)
    np.testing.assert_allclose(coverage, 1, atol=1e-4)


def test_what_is_not_measured_is_never_looked_at():
    data = np.random.default_rng(0).random((24, 24, 2)).astype(np.float32)
    valid = np.random.default_rng(1).random((24, 24)) < 0.5
    holes = data.copy()
    holes[~valid] = np.nan
    total, weight = summed(holes, (0.3, 1.7, 20.1, 19), 7, valid)
    clean = summed(data, (0.3, 1.7, 20.1, 19), 7, valid)
    assert np.array_equal(total, clean[0])
    assert np.array_equal(weight, clean[1])


def test_enlarging_shows_the_pixels_covered():
    data = np.arange(16, dtype=np.uint8).reshape(4, 4, 1)
    total, weight = summed(data, (1, 1, 2, 2), 4)
    assert np.array_equal(total[..., 0] / weight, np.kron(data[1:3, 1:3, 0], np.ones((2, 2))))


@pytest.mark.parametrize("tile", [(100, 0), (0, 100), (-24, 0), (0, -24)])
def test_a_tile_beside_the_window_adds_nothing(tile):
    total, weight = summed(np.ones((24, 24, 1), np.uint8), (0, 0, 24, 24), 5, tile=tile)
    assert not total.any()
    assert not weight.any()


def test_finish_scales_and_leaves_zero_where_nothing_was_measured():
    rng = np.random.default_rng(0)
    total, weight = rng.random((5, 5, 2)) * 90, rng.random((5, 5))
    weight[2, 3] = 0
    total[2, 3] = 0
    low, high = np.array([3.0, -1.0]), np.array([50.0, 7.0])
    pixels, coverage = finished(total, weight, 1.25, low, high)
    mean = total / np.where(weight, weight, 1)[..., None]
    expected = np.where(weight[..., None] > 0, (mean - low) * (2 / (high - low)) - 1, 0).transpose(2, 0, 1)
    np.testing.assert_allclose(pixels, expected, rtol=1e-6)
    np.testing.assert_allclose(coverage, weight / 1.25, rtol=1e-6)
    for run in (finish.py_func, finish.numpy):
        again = np.empty_like(pixels), np.empty_like(coverage)
        run(total, weight, 1.25, low, high, *again)
        assert np.array_equal(again[0], pixels)
        assert np.array_equal(again[1], coverage)


@pytest.mark.parametrize("masked", [False, True])
@pytest.mark.parametrize("dtype", ["uint8", "uint16", "float32"])
def test_px_for_px_crops_are_what_sums_and_means_give_bit_for_bit(dtype, masked):
    rng = np.random.default_rng(4)
    size, corners = 9, np.array([[0, 0], [3, 5], [-4, 20], [28, -3], [15, 15], [40, 40]])
    data = rng.integers(0, 255, (32, 28, 3)).astype(dtype)
    valid = rng.random((32, 28)) < 0.6 if masked else ALL
    low, high = np.array([0.0, 3.5, -20.0]), np.array([255.0, 77.0, 1000.0])
    table = ((np.arange(256.0) - low[:, None]) * (2 / (high - low))[:, None] - 1).astype(np.float32)
    fed = np.array([4, 0, 1, 2, 3])
    out = [np.full((6, 3, size, size), 7, np.float32), np.full((6, size, size), 7, np.float32)]
    kinds = ["machine_code", "py_func", "numpy"]
    runs = [(getattr(copy_scaled, kind), (low, high)) for kind in kinds]
    if dtype == "uint8":
        runs += [(getattr(copy_uint8, kind), (table,)) for kind in kinds]
    at = 100, 200, corners + np.array([100, 200]), fed
    for run, scale in runs:
        pixels, coverage = (part.copy() for part in out)
        run(data, valid, *at, *scale, pixels, coverage)
        assert (pixels[5] == 7).all()
        assert (coverage[5] == 7).all()
        for crop in fed.tolist():
            total, weight = np.zeros((size, size, 3)), np.zeros((size, size))
            edges = edges_of((*corners[crop], size, size), size)
            accumulate(data, valid, 0, 0, *edges, total, weight)
            mean, cover = np.empty((3, size, size), np.float32), np.empty((size, size), np.float32)
            finish(total, weight, 1.0, low, high, mean, cover)
            y, x = corners[crop]
            here = np.s_[max(-y, 0) : min(32 - y, size), max(-x, 0) : min(28 - x, size)]
            assert np.array_equal(pixels[crop][:, *here], mean[:, *here])
            assert np.array_equal(coverage[crop][here], cover[here])
            elsewhere = np.ones((size, size), bool)
            elsewhere[here] = False
            assert (pixels[crop][:, elsewhere] == 7).all()


def test_bands_stored_as_planes_and_indices_give_the_same_crops():
    rng = np.random.default_rng(5)
    index, table = rng.integers(0, 256, (40, 50, 1), np.uint8), rng.random((3, 256)).astype(np.float32)
    data = rng.permuted(np.tile(np.arange(256, dtype=np.uint8), (3, 1)), axis=1).T[
        index[:, :, 0]
    ]  # their colours
    corners = np.array([[95, 190], [110, 230], [130, 245]])  # the tile starts at 100, 200
    looked_up = np.take_along_axis(table, np.zeros((3, 256), np.int64), axis=1)
    for band in range(3):
        looked_up[band, index[:, :, 0]] = table[band, data[:, :, band]]
    planes = np.ascontiguousarray(data.transpose(2, 0, 1)).transpose(1, 2, 0)
    found = []
    for run, tile, values in (
        (copy_uint8.machine_code, data, table),
        (copy_uint8.machine_code, planes, table),
        (copy_uint8.machine_code, index, looked_up),
        (copy_uint8.numpy, index, looked_up),
        (copy_uint8.numpy, planes, table),
    ):
        pixels, coverage = np.full((3, 3, 16, 16), -9, np.float32), np.full((3, 16, 16), -9, np.float32)
        run(tile, ALL, 100, 200, corners, np.array([0, 1, 2]), values, pixels, coverage)
        found.append((pixels, coverage))
    for pixels, coverage in found[1:]:
        assert np.array_equal(found[0][0], pixels)
        assert np.array_equal(found[0][1], coverage)
    assert (found[0][1] == 1).any()
