"""What every backend promises. Subclass it with a ``write`` that writes the coded image."""

import os
import pickle
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest

from hiresattn.errors import RegionError
from hiresattn.pyramid import open_pyramid
from tests.images import MPP, SHAPES, TILE, coded_levels


class PyramidContract:
    """Facts that hold for the coded image in any format."""

    backend = ""
    dtype = "uint8"
    tolerance = 0
    """Greatest difference from the pixels written (lossy formats)."""
    mean_tolerance = 0.0
    levels = len(SHAPES)
    tile = (TILE, TILE)
    mpp: float | None = MPP
    crs: str | None = None
    exact_bytes = True

    def write(self, folder):
        """Write the coded image into a folder; returns the source to open."""
        raise NotImplementedError

    @pytest.fixture(scope="class")
    @classmethod
    def source(cls, tmp_path_factory):
        return cls().write(tmp_path_factory.mktemp("image"))

    @pytest.fixture(scope="class")
    @classmethod
    def pyramid(cls, source):
        with open_pyramid(source) as pyramid:
            yield pyramid

    @pytest.fixture(scope="class")
    @classmethod
    def expected(cls):
        return coded_levels(cls.dtype)[: cls.levels]

    def same(self, found, expected):
        assert found.shape == expected.shape
        assert found.dtype == expected.dtype
        difference = np.abs(found.astype(np.float64) - expected)
        assert difference.max() <= self.tolerance
        if difference.size > 5000:  # noise evens out
            assert difference.mean() <= self.mean_tolerance

    def windows(self, pyramid, count=25):
        """Random windows, and those at every corner, as (level, y, x, height, width)."""
        random = np.random.default_rng(7)
        for level, has in enumerate(pyramid.levels):
            for _ in range(count):
                height, width = random.integers(1, (has.height + 1, has.width + 1))
                height, width = (
                    int(side) if random.random() < 0.2 else int(side) % 90 + 1 for side in (height, width)
                )
                y = int(random.integers(0, has.height - height + 1)) if height <= has.height else 0
                x = int(random.integers(0, has.width - width + 1)) if width <= has.width else 0
                yield level, y, x, min(height, has.height), min(width, has.width)
            for y in (0, has.height - 1):
                for x in (0, has.width - 1):
                    yield level, y, x, 1, 1

    def test_metadata_are_those_written(self, pyramid):
        assert pyramid.backend == self.backend
        assert [(level.height, level.width) for level in pyramid.levels] == SHAPES[: self.levels]
        assert [level.downsample for level in pyramid.levels] == [1.0, 2.0, 4.0][: self.levels]
        assert all((level.tile_height, level.tile_width) == self.tile for level in pyramid.levels)
        assert (pyramid.channels, pyramid.dtype) == (3, np.dtype(self.dtype))
        assert pyramid.mpp == (pytest.approx(self.mpp) if self.mpp else None)
        assert pyramid.crs == self.crs
        assert pyramid.exact_bytes is self.exact_bytes

    def test_any_window_is_a_slice_of_its_level(self, pyramid, expected):
        for level, y, x, height, width in self.windows(pyramid):
            found = pyramid.read(level, y, x, height, width)
            self.same(found, expected[level][y : y + height, x : x + width])

    def test_everything_written_is_valid(self, pyramid):
        pixels = pyramid.read_masked(0, 0, 0, pyramid.height, pyramid.width)
        assert pixels.valid is None
        assert pixels.missing_tiles == 0

    def test_a_window_that_leaves_its_level_is_a_region_error(self, pyramid):
        has = pyramid.levels[-1]
        for y, x, height, width in [
            (-1, 0, 5, 5),
            (0, -1, 5, 5),
            (0, 0, 0, 5),
            (0, 0, 5, 0),
            (0, 0, -3, 5),
            (has.height - 4, 0, 5, 5),
            (0, has.width - 4, 5, 5),
        ]:
            with pytest.raises(RegionError, match="ask for a region inside"):
                pyramid.read(self.levels - 1, y, x, height, width)

    def test_a_level_or_tile_that_is_not_there_is_a_region_error(self, pyramid):
        for level in (-1, self.levels):
            with pytest.raises(RegionError, match="no level"):
                pyramid.read(level, 0, 0, 1, 1)
            with pytest.raises(RegionError, match="no level"):
                pyramid.as_dask(level)
        for row, column in [(-1, 0), (0, -1), (pyramid.levels[0].tile_rows, 0)]:
            with pytest.raises(RegionError, match="no tile"):
                pyramid.read_tile(0, row, column)
            with pytest.raises(RegionError, match="no tile"):
                pyramid.tile_bytes(0, row, column)

    def test_what_is_no_whole_number_is_a_region_error(self, pyramid):
        for wrong in (0.0, 1.5, "1", None, np.float32(0), np.zeros(2, int)):
            with pytest.raises(RegionError, match="in whole numbers; got"):
                pyramid.read(wrong, 0, 0, 1, 1)
            with pytest.raises(RegionError, match="in whole numbers; got"):
                pyramid.as_dask(wrong)
            for place in range(4):
                window = [0, 0, 1, 1]
                window[place] = wrong
                with pytest.raises(RegionError, match="in whole numbers; got"):
                    pyramid.read(0, *window)
            with pytest.raises(RegionError, match="in whole numbers; got"):
                pyramid.read_tile(0, wrong, 0)
        assert np.array_equal(pyramid.read(np.int64(0), *np.array([0, 0, 5, 5])), pyramid.read(0, 0, 0, 5, 5))

    def test_tiles_assemble_to_the_level(self, pyramid, expected):
        for level, has in enumerate(pyramid.levels):
            rows = [
                np.concatenate(
                    [pyramid.read_tile(level, row, column).data for column in range(has.tile_columns)], axis=1
                )
                for row in range(has.tile_rows)
            ]
            self.same(np.concatenate(rows, axis=0), expected[level])

    def test_tile_bytes_add_up_to_less_than_the_file(self, pyramid, source):
        total = sum(
            pyramid.tile_bytes(level, row, column)
            for level, has in enumerate(pyramid.levels)
            for row in range(has.tile_rows)
            for column in range(has.tile_columns)
        )
        files = [source] if source.is_file() else [path for path in source.rglob("*") if path.is_file()]
        stored = sum(path.stat().st_size for path in files)
        assert 0.3 * stored < total < 1.01 * stored

    def test_dask_levels_are_lazy_and_equal(self, pyramid, expected, monkeypatch):
        def refuse(*_):
            raise AssertionError("read while the array was made")

        for level, has in enumerate(pyramid.levels):
            with monkeypatch.context() as patched:
                patched.setattr(pyramid, "_read", refuse)
                array = pyramid.as_dask(level)
            assert array.chunksize == (min(has.tile_height, has.height), min(has.tile_width, has.width), 3)
            self.same(array.compute(scheduler="threads", num_workers=2), expected[level])

    def test_eight_threads_read_what_one_reads(self, source, pyramid):
        windows = list(self.windows(pyramid))
        alone = [pyramid.read(*window) for window in windows]
        with open_pyramid(source) as shared, ThreadPoolExecutor(8) as pool:
            together = list(pool.map(lambda window: shared.read(*window), windows * 2))
        for found, wanted in zip(together, alone * 2, strict=True):
            assert np.array_equal(found, wanted)

    def test_it_survives_pickling(self, pyramid):
        again = pickle.loads(pickle.dumps(pyramid))  # noqa: S301 - our own
        assert again.levels == pyramid.levels
        assert np.array_equal(again.read(0, 100, 90, 60, 200), pyramid.read(0, 100, 90, 60, 200))
        again.close()

    def test_it_reads_again_after_it_was_closed(self, source):
        pyramid = open_pyramid(source)
        before = pyramid.read(0, 3, 4, 50, 60)
        pyramid.close()
        assert np.array_equal(pyramid.read(0, 3, 4, 50, 60), before)
        pyramid.close()

    @pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork here")
    @pytest.mark.filterwarnings("ignore:.*multi-threaded.*fork:DeprecationWarning")
    def test_a_forked_child_reads_the_same(self, pyramid):
        before = pyramid.read(0, 100, 90, 60, 200)
        child = os.fork()
        if child == 0:
            try:
                os._exit(0 if np.array_equal(pyramid.read(0, 100, 90, 60, 200), before) else 1)
            finally:
                os._exit(2)
        assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
        assert np.array_equal(pyramid.read(0, 100, 90, 60, 200), before)

    def test_a_given_scale_wins_and_says_so(self, source):
        with open_pyramid(source, mpp=0.25) as pyramid:
            assert (pyramid.mpp, pyramid.meta.mpp_source) == (0.25, "given")

    def test_a_given_nodata_value_says_what_is_valid(self, source, pyramid):
        value = float(pyramid.read(0, 0, 0, 1, 1)[0, 0, 0])
        with open_pyramid(source, nodata=value) as masked:
            pixels = masked.read_masked(0, 0, 0, 200, 200)
            wanted = (pixels.data != value).all(axis=2)
            assert masked.nodata == value
            assert np.array_equal(np.ones((200, 200), bool) if pixels.valid is None else pixels.valid, wanted)
