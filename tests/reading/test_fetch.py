import multiprocessing
import threading
from concurrent.futures import wait
from dataclasses import replace

import numpy as np
import pytest

from hiresattn.config import InputConfig
from hiresattn.errors import ConfigError, DomainError, ReadError, RegionError
from hiresattn.geometry import Grid, Level, cell_regions, root_regions
from hiresattn.pyramid.array import ArrayPyramid
from hiresattn.pyramid.base import Pyramid
from hiresattn.pyramid.metadata import Metadata
from hiresattn.pyramid.pixels import Pixels
from hiresattn.reading.bands import check_domain
from hiresattn.reading.fetch import CropFetcher

SIZE = 16
#: Crops keep native values: 2 * (v - 0) / (2 - 0) - 1 = v - 1.
NATIVE = {"size": SIZE, "low": (0.0,) * 3, "high": (2.0,) * 3, "dtype": "float32"}


class Counting(Pyramid):
    """Levels from arrays; notes every tile and window read, and can lack, spoil or hold back tiles."""

    backend = "counting"

    def __init__(
        self, arrays, tile=(32, 48), *, by_tile=True, valid=None, missing=(), broken=(), palette=None
    ):
        self.by_tile = by_tile
        self.arrays, self.valid = arrays, valid
        self.missing, self.broken = set(missing), set(broken)
        self.tiles, self.windows, self.threads = [], [], set()
        self.at_once, self.most_at_once, self.done = 0, 0, 0
        self.changed = threading.Condition()
        self.first_waits_for = 0  # so many other reads end before the first
        self.held, self.release = (
            lambda _: False,
            threading.Event(),
        )  # reads that wait until they are released
        height = arrays[0].shape[0]
        levels = tuple(Level(a.shape[1], a.shape[0], height / a.shape[0], tile[1], tile[0]) for a in arrays)
        super().__init__("scene.tif", Metadata(levels, arrays[0].shape[2], arrays[0].dtype, palette=palette))

    def _read(self, level, y, x, height, width):
        with self.changed:
            self.at_once += 1
            self.most_at_once = max(self.most_at_once, self.at_once)
            self.threads.add(threading.get_ident())
            self.windows.append((level, y, x, height, width))
            if len(self.windows) == 1:
                assert self.changed.wait_for(lambda: self.done >= self.first_waits_for, 60)
        if self.held((level, y, x)):
            assert self.release.wait(60)
        with self.changed:
            self.at_once -= 1
            self.done += 1
            self.changed.notify_all()
        part = np.s_[y : y + height, x : x + width]
        return Pixels(self.arrays[level][part], None if self.valid is None else self.valid[level][part])

    def read_tile(self, level, row, column, buffer=None, bands=None):
        with self.changed:
            self.tiles.append((level, row, column))
        if (level, row, column) in self.broken:
            raise ReadError(f"{self.source}: tile {row}, {column} of level {level} is damaged")
        pixels = super().read_tile(level, row, column, buffer, bands)
        if (level, row, column) in self.missing:
            return Pixels(np.zeros_like(pixels.data), np.zeros(pixels.data.shape[:2], bool), 1)
        return pixels


def means(array, factor):
    h, w, c = array.shape
    return array.reshape(h // factor, factor, w // factor, factor, c).mean(axis=(1, 3)).astype(array.dtype)


def coordinates(height=256, width=320):
    """Every px holds where its centre is: y, x and y + x, level-0 px; exact at every level."""
    y, x = np.mgrid[0.5:height, 0.5:width].astype(np.float32)
    base = np.stack([y, x, y + x], axis=2)
    return [base, means(base, 2), means(base, 8)]


def noise(height=256, width=320, dtype=np.uint8, bands=3, seed=0):
    base = np.random.default_rng(seed).integers(0, 256, (height, width, bands)).astype(dtype)
    return [base, means(base, 2), means(base, 8)]


def zeros(count):
    return np.zeros(count, np.int64)


def some_regions(count=40, height=256, width=320, seed=1):
    rng = np.random.default_rng(seed)
    side = rng.integers(1, 200, (count, 2))
    start = (rng.random((count, 2)) * ([height, width] - side)).astype(np.int64)
    return np.concatenate([start, side], axis=1)


def shares(start, length, count):
    edges = start + np.arange(SIZE + 1) * length / SIZE
    k = np.arange(count)
    return np.clip(np.minimum(edges[1:, None], k + 1) - np.maximum(edges[:-1, None], k), 0, None)


def oracle(levels, region, valid=None):
    """The crop and its coverage, by matrix products over whole levels."""
    y, x, h, w = region
    factors = [levels[0].shape[0] // level.shape[0] for level in levels]
    number = max((n for n, f in enumerate(factors) if f <= min(h, w) / SIZE * 1.01), default=0)
    level, factor = levels[number].astype(np.float64), factors[number]
    known = np.ones(level.shape[:2]) if valid is None else valid[number].astype(float)
    rows, columns = (
        shares(y / factor, h / factor, level.shape[0]),
        shares(x / factor, w / factor, level.shape[1]),
    )
    weight = rows @ known @ columns.T
    total = np.einsum("ik,klc,jl->cij", rows, level * known[..., None], columns, optimize=True)
    full = shares(0, h / factor, level.shape[0] + 1).sum(axis=1)[:, None] * w / factor / SIZE
    return np.where(weight > 1e-9, total / np.maximum(weight, 1e-9), np.nan), weight / full


@pytest.mark.parametrize("by_tile", [True, False])
@pytest.mark.parametrize("threads", [0, 1, 3])
def test_crops_equal_area_averages_of_the_whole_levels(by_tile, threads):
    levels, regions = noise(), some_regions()
    with CropFetcher([Counting(levels, by_tile=by_tile)], InputConfig(size=SIZE), threads=threads) as fetch:
        crops = fetch(zeros(len(regions)), regions)
    assert crops.pixels.shape == (len(regions), 3, SIZE, SIZE)
    assert crops.pixels.dtype == crops.coverage.dtype == np.float32
    for crop, region in enumerate(regions.tolist()):
        np.testing.assert_allclose((crops.pixels[crop] + 1) * 127.5, oracle(levels, region)[0], atol=0.01)
    np.testing.assert_allclose(crops.coverage, 1, atol=1e-5)


def test_coordinates_come_out_where_they_belong_at_every_level():
    side = np.array([16, 20, 32, 50, 100, 128, 160, 256])
    regions = np.stack([256 - side, 0 * side, side, side], axis=1)
    fetch = CropFetcher([Counting(coordinates())], InputConfig(**NATIVE))
    pixels = fetch(zeros(len(side)), regions).pixels + 1
    assert {tile[0] for tile in fetch._images[0]._seen} == {0, 1, 2}
    for crop, (y, x, h, w) in zip(pixels, regions.tolist(), strict=True):
        down = y + (np.arange(SIZE) + 0.5) * h / SIZE
        right = x + (np.arange(SIZE) + 0.5) * w / SIZE
        ratio = h / SIZE / max(f for f in (1, 2, 8) if f <= h / SIZE * 1.01)
        near = 1e-4 if ratio == int(ratio) else h / SIZE / ratio / 2  # else a stored px lies in two crop px
        assert np.abs(crop[0] - down[:, None]).max() <= near
        assert np.abs(crop[1] - right[None, :]).max() <= near
        np.testing.assert_allclose(crop[2], crop[0] + crop[1], rtol=1e-5)


def test_native_crops_are_copies_bit_for_bit():
    levels = noise()
    regions = np.array([[3, 5, SIZE, SIZE], [100, 200, SIZE, SIZE], [20, 40, SIZE * 2, SIZE * 2]])
    crops = CropFetcher([Counting(levels)], InputConfig(size=SIZE))(zeros(3), regions)
    for crop, part in enumerate(
        (levels[0][3:19, 5:21], levels[0][100:116, 200:216], levels[1][10:26, 20:36])
    ):
        expected = (2 * part.astype(np.float64) / 255 - 1).astype(np.float32).transpose(2, 0, 1)
        assert np.array_equal(crops.pixels[crop], expected)
    assert (crops.coverage == 1).all()


def test_threads_do_not_change_a_bit():
    levels, regions = noise(), some_regions(80)
    image = np.arange(80) % 2
    results = []
    for threads in (1, 2, 8):
        pyramids = [Counting(levels), Counting(noise(seed=5), by_tile=False)]
        pyramids[0].first_waits_for = 2 * threads - 1 if threads > 1 else 0
        with CropFetcher(pyramids, InputConfig(size=SIZE), threads=threads) as fetch:
            results.append(fetch(image, regions))
            results.append(fetch(image, regions))
    for pixels, coverage in results[1:]:
        assert np.array_equal(pixels, results[0].pixels)
        assert np.array_equal(coverage, results[0].coverage)


@pytest.mark.parametrize("threads", [1, 4])
def test_each_tile_is_decoded_once_over_a_whole_search(threads):
    pyramid = Counting(noise())
    fetch = CropFetcher([pyramid], InputConfig(size=SIZE), threads=threads)
    regions = root_regions(256, 320)
    for _ in range(3):
        fetch(zeros(len(regions)), regions)
        regions = cell_regions(regions, Grid(), SIZE)[:, ::5].reshape(-1, 4)
    fetch.close()
    stats = fetch.stats[0]
    assert len(pyramid.tiles) == len(set(pyramid.tiles)) == stats.tiles == stats.unique_tiles
    assert set(pyramid.tiles) == fetch._images[0]._seen
    assert stats.pixels == sum(h * w for _, _, _, h, w in pyramid.windows)
    assert stats.bytes == sum(pyramid.tile_bytes(*tile) for tile in pyramid.tiles)
    assert not stats.bytes_exact
    assert stats.seconds > 0


def test_tiles_that_no_crop_touches_are_not_decoded():
    pyramid = Counting(noise())
    CropFetcher([pyramid], InputConfig(size=SIZE))(zeros(1), np.array([[32, 96, 32, 48]]))
    assert pyramid.tiles == [(1, 0, 1)]
    assert pyramid.windows == [(1, 0, 48, 32, 48)]


@pytest.mark.parametrize("limit", [0, 5000, 20_000])
def test_the_cache_keeps_to_its_limit_and_does_not_change_crops(limit):
    pyramid, regions = Counting(noise()), some_regions()
    fetch = CropFetcher([pyramid], InputConfig(size=SIZE), cache_bytes=limit, threads=2)
    free = CropFetcher([Counting(noise())], InputConfig(size=SIZE))
    for part in np.array_split(regions, 8):
        assert np.array_equal(fetch(zeros(5), part).pixels, free(zeros(5), part).pixels)
        assert fetch._images[0]._cache.nbytes <= limit
        for tile in fetch._images[0]._cache._tiles.values():
            assert tile.data.base is None or tile.data.base.nbytes == tile.data.nbytes
    assert fetch.stats[0].tiles == len(pyramid.tiles) > fetch.stats[0].unique_tiles
    assert fetch.stats[0].unique_tiles == free.stats[0].tiles
    fetch.close()
    free.close()


def test_few_tiles_are_on_their_way_at_once():
    pyramid = Counting(noise(), tile=(8, 8))
    with CropFetcher([pyramid], InputConfig(size=SIZE), threads=3) as fetch:
        stream = fetch._stream(_reads(pyramid))
        next(stream)
        fetch._pool.shutdown()  # ends when all that was begun has been read
        assert len(pyramid.tiles) == 2 * 3
        stream.close()
    assert pyramid.most_at_once <= 3
    assert threading.get_ident() not in pyramid.threads


def _reads(pyramid):
    from hiresattn.reading.plan import plan_reads, tile_reads

    plan = plan_reads(np.array([[0, 0, 31, 320]]), pyramid.levels, SIZE)
    return list(tile_reads(0, pyramid.levels, plan, np.arange(1)))


@pytest.mark.parametrize("by_tile", [True, False])
def test_what_is_not_measured_does_not_bleed_and_is_not_covered(by_tile):
    levels = noise(dtype=np.float32)
    rng = np.random.default_rng(3)
    valid = [rng.random(level.shape[:2]) < 0.7 for level in levels]
    for level, known in zip(levels, valid, strict=True):
        known[: len(known) // 3] = False
        level[~known] = np.nan
    regions = some_regions()
    config = InputConfig(**NATIVE)
    crops = CropFetcher([Counting(levels, by_tile=by_tile)], config)(zeros(len(regions)), regions)
    clean = [np.nan_to_num(level) for level in levels]
    for crop, region in enumerate(regions.tolist()):
        mean, coverage = oracle(clean, region, valid)
        np.testing.assert_allclose(crops.coverage[crop], coverage, atol=1e-4)
        sure = coverage > 1e-3
        np.testing.assert_allclose(crops.pixels[crop][:, sure] + 1, mean[:, sure], atol=0.5)
        assert (crops.pixels[crop][:, crops.coverage[crop] == 0] == 0).all()
    assert (crops.coverage == 0).any()


@pytest.mark.parametrize("threads", [1, 3])
def test_missing_tiles_are_counted_and_not_measured(threads):
    pyramid = Counting(noise(), missing=[(0, 0, 0), (0, 1, 1)])
    with CropFetcher([pyramid], InputConfig(size=SIZE), threads=threads) as fetch:
        crops = fetch(zeros(2), np.array([[24, 40, SIZE, SIZE], [0, 0, SIZE, SIZE]]))
    assert fetch.stats[0].missing_tiles == 2
    assert np.array_equal(crops.coverage[0], np.kron([[0, 1], [1, 0]], np.ones((8, 8))))
    assert not crops.pixels[1].any()


@pytest.mark.parametrize("threads", [1, 3])
def test_strict_names_the_missing_tile(threads):
    pyramid = Counting(noise(), missing=[(0, 1, 1)])
    with (
        CropFetcher([pyramid], InputConfig(size=SIZE), threads=threads, strict=True) as fetch,
        pytest.raises(ReadError, match=r"scene\.tif, level 0: missing tile \(row 1, column 1\)"),
    ):
        fetch(zeros(1), np.array([[24, 40, SIZE, SIZE]]))


@pytest.mark.parametrize("threads", [1, 3])
def test_a_damaged_tile_is_an_error_and_the_fetcher_works_on(threads, monkeypatch):
    def released(futures):
        pyramid.release.set()
        return wait(futures)

    pyramid = Counting(noise(), broken=[(0, 3, 3)])
    pyramid.held = lambda at: threads > 1 and at > (0, 96, 144)  # under way when the error is met
    monkeypatch.setattr("hiresattn.reading.fetch.wait", released)
    everything = np.array([[0, 0, 31, 320], [100, 100, 31, 220]])
    with CropFetcher([pyramid], InputConfig(size=SIZE), threads=threads) as fetch:
        for _ in range(3):
            pyramid.release.clear()
            with pytest.raises(ReadError, match="is damaged"):
                fetch(zeros(2), everything)
            assert pyramid.at_once == 0  # nothing goes on behind the caller's back
        good = fetch(zeros(1), everything[:1]).pixels
        assert fetch._images[0]._cache.nbytes == sum(
            tile.nbytes for tile in fetch._images[0]._cache._tiles.values()
        )
    pyramid.broken.clear()
    assert np.array_equal(
        good, CropFetcher([pyramid], InputConfig(size=SIZE))(zeros(1), everything[:1]).pixels
    )


def test_regions_and_images_that_do_not_exist_are_errors_before_anything_is_read():
    pyramid = Counting(noise())
    fetch = CropFetcher([pyramid, pyramid], InputConfig(size=SIZE))
    with pytest.raises(RegionError, match=r"scene\.tif: asked for rows 0 to 257"):
        fetch(np.array([0, 1]), np.array([[0, 0, 9, 9], [0, 0, 257, 9]]))
    for image, words in (
        ([0], "1 indices for 2 regions"),
        ([0, 2], "no image 2"),
        ([-1, 0], "no image -1; there are images 0, 1"),
    ):
        with pytest.raises(RegionError, match=words):
            fetch(np.array(image), np.array([[0, 0, 9, 9]] * 2))
    assert not pyramid.windows
    assert [stats.crops for stats in fetch.stats.values()] == [0, 0]


def test_errors_name_the_image_that_they_are_about():
    images = [Counting(noise()), Counting(noise(), broken=[(0, 0, 0)])]
    where = np.repeat([[0, 0, SIZE, SIZE]], 2, axis=0)
    with CropFetcher(images, InputConfig(size=SIZE)) as fetch:
        with pytest.raises(ReadError, match="is damaged") as caught:
            fetch(np.array([0, 1]), where)
        assert caught.value.image == 1
        with pytest.raises(RegionError, match="257") as caught:
            fetch(np.array([0, 1]), np.array([[0, 0, 9, 9], [0, 0, 257, 9]]))
        assert caught.value.image == 1
        images[1]._read = None
        images[1].broken.clear()
        with pytest.raises(
            ReadError, match=r"scene\.tif, level 0: the counting reader failed \(TypeError"
        ) as caught:
            fetch(np.array([0, 1]), where)
        assert caught.value.image == 1
        fetch(np.array([0]), where[:1])
    assert images[0].tiles == [(0, 0, 0)]  # not again after an error of another image


def test_images_come_and_go_and_the_others_keep_their_tiles():
    first, second, third = (Counting(noise(seed=seed)) for seed in range(3))
    where = np.array([[0, 0, SIZE, SIZE], [64, 64, SIZE, SIZE]])
    with CropFetcher([first, second], InputConfig(size=SIZE), threads=2) as fetch:
        together = fetch(np.array([0, 1]), where)
        assert fetch.remove(0).tiles == 1
        assert list(fetch.stats) == [1]
        with pytest.raises(RegionError, match="no image 0; there are images 1"):
            fetch(np.array([0, 1]), where)
        with pytest.raises(RegionError, match="no image 0"):
            fetch.remove(0)
        added = fetch.add(third)
        assert added == 2
        again = fetch(np.array([1, added]), where[::-1])
        assert np.array_equal(again.pixels[0], together.pixels[1])
        assert second.tiles == [(0, 2, 1)]
        assert [stats.tiles for stats in fetch.stats.values()] == [1, 1]
        with pytest.raises(DomainError, match="uint16"):
            fetch.add(Counting(noise(dtype=np.uint16)))
        with pytest.raises(ConfigError, match="crops of 8 px"):
            fetch.add(first, InputConfig(size=8))


def test_with_a_part_of_the_cache_for_each_image_the_others_change_nothing():
    regions = some_regions()
    read = []
    for others in (0, 1, 3):
        with CropFetcher([], InputConfig(size=SIZE), cache_bytes=4 * 20_000, at_once=4, threads=2) as fetch:
            image = np.array([fetch.add(Counting(noise(seed=seed))) for seed in range(others + 1)])
            for part in np.array_split(regions, 8):
                fetch(np.repeat(image, len(part)), np.tile(part, (len(image), 1)))
                assert sum(reader._cache.nbytes for reader in fetch._images.values()) <= 4 * 20_000
            read.append(fetch.stats[0].tiles)
            assert read[-1] > fetch.stats[0].unique_tiles
            while len(fetch.stats) < 4:
                fetch.add(Counting(noise()))
            with pytest.raises(ConfigError, match="4 images already"):
                fetch.add(Counting(noise()))
    assert read[0] == read[1] == read[2]


def test_each_image_may_have_a_scale_of_its_own():
    levels = noise()
    wide = [level.astype(np.uint16) * 16 for level in levels]
    with CropFetcher([Counting(levels)], InputConfig(size=SIZE)) as fetch:
        config = InputConfig(size=SIZE, dtype="uint16", high=(255.0 * 16,) * 3)
        image = np.array([0, fetch.add(Counting(wide), config)])
        for region in ([8, 8, SIZE, SIZE], [3, 5, 100, 120]):
            crops = fetch(image, np.array([region] * 2))
            np.testing.assert_allclose(crops.pixels[0], crops.pixels[1], atol=1e-6)


def test_what_was_prepared_is_not_read_again_until_closed():
    images = [Counting(noise(seed=seed), by_tile=False) for seed in range(2)]
    where = np.array([[0, 0, SIZE, SIZE], [64, 64, SIZE, SIZE], [9, 9, 40, 40]])
    with CropFetcher(images, InputConfig(size=SIZE), threads=2) as fetch:
        plain = fetch(np.array([0, 1, 0]), where)
        for image in images:
            image.windows.clear()
        fetch.prepare(np.array([0, 0]), where[[0, 2]])
        assert len(images[0].windows) == 2
        got = fetch(np.array([0, 1, 0]), where)
        assert np.array_equal(got.pixels, plain.pixels)
        assert np.array_equal(got.coverage, plain.coverage)
        assert (len(images[0].windows), len(images[1].windows)) == (2, 1)
        fetch(np.array([0, 0]), where[[0, 2]])  # once only
        assert len(images[0].windows) == 4
        fetch.prepare(np.array([1]), where[1:2])
        fetch.close()
        images[1].arrays = noise(seed=7)
        changed = fetch(np.array([1]), where[1:2])
        assert not np.array_equal(changed.pixels[0], plain.pixels[1])


def test_crops_of_a_levels_own_size_between_its_pixels_are_averaged():
    levels = noise()
    for region in ([3, 5, 2 * SIZE, 2 * SIZE], [4, 7, 2 * SIZE, 2 * SIZE], [5, 8, 2 * SIZE, 2 * SIZE]):
        crops = CropFetcher([Counting(levels)], InputConfig(size=SIZE))(zeros(1), np.array([region]))
        mean, coverage = oracle(levels, region)
        np.testing.assert_allclose((crops.pixels[0] + 1) * 127.5, mean, atol=1e-4)
        np.testing.assert_allclose(crops.coverage[0], coverage, atol=1e-6)


def test_no_crops_is_no_work():
    crops = CropFetcher([Counting(noise())], InputConfig(size=SIZE))(zeros(0), np.zeros((0, 4), np.int64))
    assert crops.pixels.shape == (0, 3, SIZE, SIZE)
    assert crops.coverage.shape == (0, SIZE, SIZE)


def test_images_are_kept_apart():
    levels = [noise(seed=seed) for seed in range(3)]
    fetch = CropFetcher([Counting(level) for level in levels], InputConfig(size=SIZE))
    image = np.array([2, 0, 1, 0, 2])
    regions = np.repeat([[8, 8, SIZE, SIZE]], 5, axis=0)
    crops = fetch(image, regions)
    for crop, number in zip(crops.pixels, image.tolist(), strict=True):
        np.testing.assert_allclose(
            (crop + 1) * 127.5, levels[number][0][8:24, 8:24].transpose(2, 0, 1), atol=1e-4
        )
    assert [stats.crops for stats in fetch.stats.values()] == [2, 1, 2]
    assert [stats.tiles for stats in fetch.stats.values()] == [1, 1, 1]


@pytest.mark.parametrize("bands", [(0, 1, 2), (1, 2), (3, 0, 0), (2,)])
@pytest.mark.parametrize("by_tile", [True, False])
def test_the_bands_that_the_model_takes_in_its_order(bands, by_tile):
    levels = noise(bands=4)
    config = InputConfig(size=SIZE, bands=bands, low=(0.0,) * len(bands), high=(255.0,) * len(bands))
    crops = CropFetcher([Counting(levels, by_tile=by_tile)], config)(zeros(1), np.array([[8, 8, SIZE, SIZE]]))
    expected = levels[0][8:24, 8:24][:, :, list(bands)].transpose(2, 0, 1)
    np.testing.assert_allclose((crops.pixels[0] + 1) * 127.5, expected, atol=1e-4)


@pytest.mark.parametrize("dtype", ["uint16", "int16", "int32", "float32", "float64", "float16", ">u2", ">f4"])
def test_every_data_type_gives_the_same_crops(dtype):
    regions = some_regions(10)
    expected = CropFetcher([Counting(noise())], InputConfig(size=SIZE))(zeros(10), regions)
    pyramid = Counting([level.astype(dtype) for level in noise()])
    config = InputConfig(size=SIZE, dtype=np.dtype(dtype).newbyteorder("=").name)
    crops = CropFetcher([pyramid], config)(zeros(10), regions)
    assert np.array_equal(crops.pixels, expected.pixels)


def test_read_only_pixels_are_taken():
    levels = noise()
    for level in levels:
        level.flags.writeable = False
    CropFetcher([Counting(levels, tile=(256, 320))], InputConfig(size=SIZE))(
        zeros(1), np.array([[8, 8, SIZE, SIZE]])
    )


@pytest.mark.parametrize("by_tile", [True, False])
def test_palette_indices_become_colours_before_they_are_averaged(by_tile):
    palette = np.array([[0, 0, 0], [200, 100, 50], [10, 20, 30]], np.uint8)
    index = np.random.default_rng(0).integers(0, 3, (64, 64, 1)).astype(np.uint8)
    fetch = CropFetcher([Counting([index], by_tile=by_tile, palette=palette)], InputConfig(size=SIZE))
    crops = fetch(zeros(1), np.array([[0, 0, 64, 64]]))
    expected = means(palette[index[..., 0]].astype(np.float64), 4).transpose(2, 0, 1)
    np.testing.assert_allclose((crops.pixels[0] + 1) * 127.5, expected, atol=1e-4)
    crops = fetch(zeros(2), np.array([[8, 24, SIZE, SIZE], [0, 0, 64, 64]]))  # px for px, beside an average
    native = palette[index[8 : 8 + SIZE, 24 : 24 + SIZE, 0]].transpose(2, 0, 1)
    np.testing.assert_allclose((crops.pixels[0] + 1) * 127.5, native, atol=1e-4)
    np.testing.assert_allclose((crops.pixels[1] + 1) * 127.5, expected, atol=1e-4)


def test_a_colour_that_the_palette_lacks_is_an_error_unless_it_was_not_measured():
    index = np.full((64, 64, 1), 9, np.uint8)
    palette = np.zeros((3, 3), np.uint8)
    with pytest.raises(ReadError, match="colour 9 of a palette of 3"):
        CropFetcher([Counting([index], palette=palette)], InputConfig(size=SIZE))(
            zeros(1), root_regions(64, 64)
        )
    pyramid = Counting([index], palette=palette, valid=[np.zeros((64, 64), bool)])
    crops = CropFetcher([pyramid], InputConfig(size=SIZE))(zeros(1), root_regions(64, 64))
    assert not crops.coverage.any()
    partly = np.zeros((64, 64), bool)
    partly[9, 9] = True
    with pytest.raises(ReadError, match="colour 9 of a palette of 3"):
        CropFetcher([Counting([index], palette=palette, valid=[partly])], InputConfig(size=SIZE))(
            zeros(1), root_regions(64, 64)
        )


def test_an_image_that_the_model_can_not_take_is_refused_with_the_remedy():
    rgb, config = Counting(noise()), InputConfig(size=SIZE)
    check_domain(rgb, config)
    with pytest.raises(
        DomainError, match=r"scene\.tif: it has bands 1 to 3, and bands 1,2,4 are asked for.*bands"
    ):
        check_domain(rgb, replace(config, bands=(0, 1, 3)))
    with pytest.raises(DomainError, match=r"values are uint16.* made for uint8.*value_range LO,HI"):
        CropFetcher([Counting(noise(dtype=np.uint16))], config)
    for has, takes in (("int16", "uint16"), ("float32", "uint32"), ("uint8", "int8")):
        with pytest.raises(DomainError, match=f"values are {has} and the model was made for {takes}"):
            check_domain(Counting(noise(dtype=has)), replace(config, dtype=takes))
    coloured = Counting([np.zeros((64, 64, 1), np.uint16)], palette=np.zeros((9, 3), np.uint8))
    check_domain(coloured, config)
    with pytest.raises(DomainError, match="palette"):
        check_domain(coloured, replace(config, bands=(0,), low=(0.0,), high=(1.0,)))


def test_window_reads_count_the_tiles_of_the_plan():
    by_tile, by_window = Counting(noise()), Counting(noise(), by_tile=False)
    regions = some_regions()
    fetches = [CropFetcher([pyramid], InputConfig(size=SIZE)) for pyramid in (by_tile, by_window)]
    for fetch in fetches:
        fetch(zeros(len(regions)), regions)
    tiled, windowed = (fetch.stats[0] for fetch in fetches)
    assert not by_window.tiles
    assert (windowed.tiles, windowed.unique_tiles, windowed.bytes) == (
        tiled.tiles,
        tiled.unique_tiles,
        tiled.bytes,
    )
    assert windowed.pixels == sum(h * w for _, _, _, h, w in by_window.windows)


def test_closing_stops_the_threads_and_a_later_call_starts_anew():
    fetch = CropFetcher([Counting(noise())], InputConfig(size=SIZE), threads=4)
    first = fetch(zeros(40), some_regions())
    workers = list(fetch._pool._threads)
    assert len(workers) > 1
    fetch.close()
    assert not any(worker.is_alive() for worker in workers)
    assert fetch._images[0]._cache.nbytes == 0
    assert np.array_equal(fetch(zeros(40), some_regions()).pixels, first.pixels)
    fetch.close()
    fetch.close()


def test_one_read_starts_no_threads():
    pyramid = Counting(noise())
    CropFetcher([pyramid], InputConfig(size=SIZE), threads=4)(zeros(1), np.array([[0, 0, SIZE, SIZE]]))
    assert pyramid.threads == {threading.get_ident()}


def _in_child(fetch, regions, queue):
    queue.put(fetch(zeros(len(regions)), regions).pixels)


@pytest.mark.skipif("fork" not in multiprocessing.get_all_start_methods(), reason="no fork here")
@pytest.mark.filterwarnings("ignore:.*fork.*:DeprecationWarning")
def test_a_forked_child_uses_threads_of_its_own():
    fetch = CropFetcher([Counting(noise())], InputConfig(size=SIZE), threads=2, cache_bytes=0)
    regions = some_regions()
    expected = fetch(zeros(40), regions).pixels
    context = multiprocessing.get_context("fork")
    queue = context.Queue()
    child = context.Process(target=_in_child, args=(fetch, regions, queue), daemon=True)
    child.start()
    assert np.array_equal(queue.get(timeout=60), expected)
    child.join(60)
    assert child.exitcode == 0
    fetch.close()


def test_oversampling_reads_a_finer_level_and_averages_it():
    rng = np.random.default_rng(0)
    fine = rng.integers(0, 255, (256, 256, 3)).astype(np.uint8)
    poor = fine[::4, ::4]  # an overview that took every fourth px
    pyramid = ArrayPyramid([fine, poor])
    regions = np.array([[0, 0, 256, 256]])
    plain = CropFetcher([pyramid], InputConfig(size=64))(zeros(1), regions).pixels[0]
    averaged = CropFetcher([pyramid], InputConfig(size=64, oversample=4))(zeros(1), regions).pixels[0]
    mean = fine.reshape(64, 4, 64, 4, 3).mean((1, 3)).transpose(2, 0, 1)
    assert np.allclose((plain + 1) * 127.5, poor.transpose(2, 0, 1), atol=1e-3)
    assert np.allclose((averaged + 1) * 127.5, mean, atol=1e-3)


def test_only_the_bands_that_the_model_takes_decide_what_is_measured():
    image = np.full((256, 256, 2), 100, np.uint8)
    image[:128, :, 0], image[:, :128, 1] = 0, 0
    region = np.array([[0, 0, 256, 256]])
    for bands, rows, columns in (((0,), 16, 0), ((1,), 0, 16), ((0, 1), 16, 16)):
        config = InputConfig(
            size=32, bands=bands, low=(0.0,) * len(bands), high=(200.0,) * len(bands), channels=None
        )
        with CropFetcher([ArrayPyramid(image, nodata=0)], config, threads=1) as fetch:
            crops = fetch(np.zeros(1, np.int64), region)
        wanted = np.ones((32, 32), np.float32)
        wanted[:rows] = wanted[:, :columns] = 0
        assert np.array_equal(crops.coverage[0], wanted)
        assert (crops.pixels[0] == 0).all()  # 100 is the middle of the range; nodata is in no average
