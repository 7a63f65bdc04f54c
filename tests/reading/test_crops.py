"""Crops as stored: oracles are whole levels, cut by NumPy."""

import os
import threading

import numpy as np
import pytest
import tifffile

from hiresattn import open_pyramid, read_crops
from hiresattn.config import InputConfig
from hiresattn.errors import ReadError, RegionError
from hiresattn.pyramid.storage.tifftiles import LocalFile
from hiresattn.reading.crops import kept_tiles
from hiresattn.reading.fetch import CropFetcher
from tests.images import SHAPES, coded, write_geotiff, write_ome_tiff, write_ome_zarr, write_svs
from tests.pyramid.damage import overwrite_tile, zero_tile_entry


def places(count=60, size=50, level=0, seed=0):
    room = np.array(SHAPES[level]) - size
    return np.random.default_rng(seed).integers(0, room + 1, (count, 2))


def cut(image, yx, height, width):
    return np.stack([image[y : y + height, x : x + width] for y, x in yx.tolist()])


@pytest.fixture(scope="module")
def tiff(tmp_path_factory):
    return write_ome_tiff(tmp_path_factory.mktemp("crops") / "image.ome.tif")


@pytest.mark.parametrize("threads", [1, 3])
@pytest.mark.parametrize("write", [write_ome_tiff, write_geotiff, write_ome_zarr, None])
def test_crops_are_what_the_file_holds(tmp_path, write, threads):
    dtype = "uint16"
    source = coded(dtype=dtype) if write is None else write(tmp_path / "image.ome.tif", dtype=dtype)
    yx = places()
    with open_pyramid(source) as pyramid:
        found = read_crops(pyramid, yx, 50, threads=threads)
    assert np.array_equal(found.pixels, cut(coded(dtype=dtype), yx, 50, 50))
    assert found.missing_tiles == 0


def test_oblong_crops_of_any_level_into_an_array_of_the_callers(tiff):
    yx = places(20, 60, level=1)
    out = np.zeros((20, 40, 60, 3), np.uint8)
    with open_pyramid(tiff) as pyramid:
        found = read_crops(pyramid, yx, (40, 60), level=1, out=out)
    assert found.pixels is out
    assert np.array_equal(out, cut(coded(1), yx, 40, 60))


@pytest.mark.parametrize("threads", [1, 4])
def test_every_tile_is_read_and_decoded_once(tiff, monkeypatch, threads):
    reads, lock = [], threading.Lock()
    pread = LocalFile.pread

    def counted(self, count, offset):
        with lock:
            reads.append((offset, count))
        return pread(self, count, offset)

    yx = places()
    with open_pyramid(tiff) as pyramid:
        monkeypatch.setattr(LocalFile, "pread", counted)
        found = read_crops(pyramid, yx, 50, threads=threads)
        touched = {
            (y // 128, x // 128)
            for top, left in yx.tolist()
            for y in range(top, top + 50)
            for x in range(left, left + 50)
        }
        stored = sum(pyramid.tile_bytes(0, *tile) for tile in touched)
    assert len(reads) == len(set(reads)) == found.tiles == found.unique_tiles == len(touched)
    assert sum(count for _, count in reads) == found.bytes == stored


def test_a_missing_tile_is_counted_and_an_error_if_strict(tmp_path):
    path = write_ome_tiff(tmp_path / "image.ome.tif")
    zero_tile_entry(path, level=0, row=1, column=2)
    with open_pyramid(path, nodata=9) as pyramid:
        found = read_crops(pyramid, [(128, 256), (0, 0)], 40)
        assert found.missing_tiles == 1
        assert (found.pixels[0] == 9).all()
        assert np.array_equal(found.pixels[1], coded()[:40, :40])
        with pytest.raises(ReadError, match="level 0, tile in row 1, column 2: missing"):
            read_crops(pyramid, [(128, 256)], 40, strict=True)


@pytest.mark.parametrize("threads", [1, 3])
def test_a_damaged_tile_is_an_error_that_names_it(tmp_path, threads):
    path = write_ome_tiff(tmp_path / "image.ome.tif", compression="jpeg")
    overwrite_tile(path, level=0, row=1, column=2, harm="zeros")
    with (
        open_pyramid(path) as pyramid,
        pytest.raises(ReadError, match="level 0, tile in row 1, column 2: damaged"),
    ):
        read_crops(pyramid, places(), 50, threads=threads)


def test_what_does_not_exist_is_an_error_before_anything_is_read(tiff):
    with open_pyramid(tiff) as pyramid:
        for yx, size, level, words in [
            ([(0, 0)], 50, 3, "no level 3"),
            ([(0, 0), (468, 0)], 50, 0, "row 468"),
            ([(-1, 0)], 50, 0, "row -1"),
            ([(0, 0)], 0, 0, "0 x 0 px"),
            ([(0.5, 0.0)], 50, 0, "whole numbers"),
            ([(0, 0, 0)], 50, 0, r"\[n 2\]"),
        ]:
            with pytest.raises(RegionError, match=words):
                read_crops(pyramid, yx, size, level=level)
        for out in (np.zeros((1, 50, 50, 3), np.int8), np.zeros((2, 50, 50, 3), np.uint8)):
            with pytest.raises(RegionError, match="out must be"):
                read_crops(pyramid, [(0, 0)], 50, out=out)


def test_no_places_are_no_crops(tiff):
    with open_pyramid(tiff) as pyramid:
        found = read_crops(pyramid, [], 50)
    assert found.pixels.shape == (0, 50, 50, 3)
    assert (found.tiles, found.bytes) == (0, 0)


def test_a_slide_that_only_openslide_reads_is_read_window_by_window(tmp_path, monkeypatch):
    path, yx = write_svs(tmp_path / "slide.svs"), places()
    with open_pyramid(path) as pyramid:
        assert not pyramid.by_window
        expected = read_crops(pyramid, yx, 50)
    monkeypatch.setattr("hiresattn.pyramid.formats.openslide._native_tiles", lambda *_: None)
    with open_pyramid(path) as pyramid:
        assert pyramid.by_window
        for threads in (1, 3):
            found = read_crops(pyramid, yx, 50, threads=threads)
            assert np.abs(found.pixels.astype(int) - expected.pixels).max() <= 2
            assert found.tiles == found.unique_tiles > 0
        many = np.repeat(yx, 40, axis=0)  # more px than the tiles under them
        found = read_crops(pyramid, many, 50)
        assert np.abs(found.pixels[::40].astype(int) - expected.pixels).max() <= 2
        assert found.tiles == found.unique_tiles == expected.tiles


def test_bands_stored_as_planes_give_the_same_crops_ready_and_as_stored(tmp_path):
    regions = np.array([[3, 5, 64, 64], [130, 200, 64, 64], [0, 0, 256, 256]])
    ready, stored = [], []
    for axes in ("yxc", "cyx"):
        path = tmp_path / f"{axes}.zarr"
        write_ome_zarr(path, axes=axes, dtype="uint8")
        with open_pyramid(path) as pyramid, CropFetcher([pyramid], InputConfig()) as fetch:
            ready.append(fetch(np.zeros(3, np.int64), regions))
            stored.append(read_crops(pyramid, regions[:, :2], 64).pixels)
    assert np.array_equal(ready[0].pixels, ready[1].pixels)
    assert np.array_equal(ready[0].coverage, ready[1].coverage)
    assert np.array_equal(*stored)


def test_calls_for_few_crops_decode_a_tile_once(tmp_path):
    path = tmp_path / "image.tif"
    write_ome_tiff(path)
    yx = places(96)
    with open_pyramid(path) as pyramid:
        whole = read_crops(pyramid, yx, 50)
        parts = [read_crops(pyramid, yx[n : n + 32], 50) for n in range(0, 96, 32)]
    assert np.array_equal(np.concatenate([part.pixels for part in parts]), whole.pixels)
    assert sum(part.tiles for part in parts) == whole.tiles


def test_kept_tiles_are_bounded(tmp_path, monkeypatch):
    path = tmp_path / "image.tif"
    write_ome_tiff(path)
    monkeypatch.setattr("hiresattn.reading.crops._KEPT_BYTES", 100_000)
    with open_pyramid(path) as pyramid:
        read_crops(pyramid, places(30), 50)
        assert 0 < kept_tiles(pyramid).nbytes <= 100_000


@pytest.mark.parametrize("seen", [True, False])
def test_a_file_that_is_overwritten_while_it_is_open_is_refused_and_not_mixed(tmp_path, seen):
    path = tmp_path / "image.tif"

    def write(value):
        tifffile.imwrite(path, np.full((128, 128, 3), value, np.uint8), tile=(64, 64), photometric="rgb")

    write(10)
    os.utime(path, ns=(0, 10**18))
    with open_pyramid(path) as pyramid:
        if seen:
            read_crops(pyramid, [(0, 0)], 32)  # its tile is kept
        write(200)
        with pytest.raises(
            ReadError, match=r"image\.tif: it changed while it was open; close it and open it"
        ):
            read_crops(pyramid, [(40, 40)], 64)
    assert (read_crops(path, [(40, 40)], 64).pixels == 200).all()


def test_a_file_that_is_removed_while_it_is_open_is_the_same_file(tmp_path):
    path = write_ome_tiff(tmp_path / "image.ome.tif")
    with open_pyramid(path) as pyramid:
        first = read_crops(pyramid, [(0, 0)], 32).pixels
        path.unlink()
        assert np.array_equal(read_crops(pyramid, [(0, 0)], 32).pixels, first)
