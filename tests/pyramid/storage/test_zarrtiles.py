"""Chunks decoded without zarr: the oracle is zarr."""

import numpy as np
import pytest
import zarr
from numcodecs import Zlib
from zarr.codecs import BloscCodec, Crc32cCodec, GzipCodec, ZstdCodec

from hiresattn import open_pyramid, read_crops
from hiresattn.errors import ReadError

PX = np.random.default_rng(0).integers(0, 4000, (150, 170, 3)).astype(np.uint16)


def write(path, zarr_format=3, **options):
    options = {"chunks": (32, 32, 3), "fill_value": 5, **options}
    array = zarr.create_array(path, shape=PX.shape, dtype=PX.dtype, zarr_format=zarr_format, **options)
    array[:] = PX
    return path


V2 = {"zarr_format": 2}
LAYOUTS = {
    "zstd": {},
    "none": {"compressors": None},
    "blosc": {"compressors": BloscCodec(cname="lz4", typesize=2)},
    "gzip and checksum": {"compressors": [GzipCodec(), Crc32cCodec()]},
    "big-endian": {"serializer": zarr.codecs.BytesCodec(endian="big")},
    "bands in groups": {"chunks": (32, 32, 2)},
    "sharded": {"shards": (64, 64, 3), "compressors": [ZstdCodec(), Crc32cCodec()]},
    "Zarr 2": V2,
    "Zarr 2 zlib": {**V2, "compressors": Zlib()},
}


@pytest.mark.parametrize("layout", LAYOUTS)
def test_chunks_are_decoded_as_zarr_does(tmp_path, layout):
    path = write(tmp_path / "a.zarr", **LAYOUTS[layout])
    yx = np.random.default_rng(1).integers(0, [130, 150], (40, 2))
    with open_pyramid(path) as pyramid:
        assert pyramid.native_tiles is not None
        found = read_crops(pyramid, yx, 20)
        whole = pyramid.read(0, 0, 0, 150, 170)
    assert np.array_equal(whole, zarr.open_array(path, mode="r")[:])
    assert np.array_equal(found.pixels, np.stack([PX[y : y + 20, x : x + 20] for y, x in yx.tolist()]))
    assert found.tiles == found.unique_tiles


@pytest.mark.parametrize(
    "options", [{**V2, "order": "F"}, {"filters": [zarr.codecs.TransposeCodec(order=(1, 0, 2))]}]
)
def test_what_only_zarr_decodes_is_left_to_zarr(tmp_path, options):
    with open_pyramid(write(tmp_path / "a.zarr", **options)) as pyramid:
        assert pyramid.native_tiles is None
        assert np.array_equal(pyramid.read(0, 0, 0, 150, 170), PX)


@pytest.mark.parametrize("layout", ["zstd", "blosc", "gzip and checksum", "Zarr 2", "Zarr 2 zlib"])
def test_a_chunk_cut_short_is_an_error_that_names_it(tmp_path, layout):
    path = write(tmp_path / "a.zarr", **LAYOUTS[layout])
    chunk = path / ("1.2.0" if "Zarr 2" in layout else "c/1/2/0")
    whole = chunk.read_bytes()
    with open_pyramid(path) as pyramid:
        for kept in (0, 1, 10, len(whole) // 2, len(whole) - 1):
            chunk.write_bytes(whole[:kept])
            with pytest.raises(ReadError, match="level 0, tile in row 1, column 2"):
                pyramid.read_tile(0, 1, 2)
        assert np.array_equal(pyramid.read_tile(0, 0, 0).data, PX[:32, :32])


def test_a_flipped_bit_under_a_checksum_is_an_error(tmp_path):
    path = write(tmp_path / "a.zarr", **LAYOUTS["sharded"])
    shard = path / "c/0/0/0"
    whole = shard.read_bytes()
    with open_pyramid(path) as pyramid:
        for place in range(0, len(whole), 997):
            shard.write_bytes(whole[:place] + bytes([whole[place] ^ 4]) + whole[place + 1 :])
            failed = 0
            for row, column in [(0, 0), (0, 1), (1, 0), (1, 1)]:
                try:
                    tile = pyramid.read_tile(0, row, column).data
                except ReadError:
                    failed += 1
                else:
                    expected = PX[row * 32 :, column * 32 :][:32, :32]
                    assert np.array_equal(tile, expected)
            assert failed == 1


def test_a_missing_chunk_is_filled_as_declared_and_counted(tmp_path):
    path = write(tmp_path / "a.zarr")
    (path / "c/1/2/0").unlink()
    with open_pyramid(path) as pyramid:
        pixels = pyramid.read_masked(0, 30, 60, 40, 40)
    assert pixels.missing_tiles == 1
    assert (pixels.data[2:34, 4:36] == 5).all()
    assert not pixels.valid[2:34, 4:36].any()
    assert pixels.valid.sum() == 40 * 40 - 32 * 32


@pytest.mark.parametrize("axes", ["cyx", "tczyx", "cxy"])
@pytest.mark.parametrize(
    "options",
    [
        {"chunks": (1, 32, 32)},
        {"chunks": (2, 32, 32)},
        {"chunks": (1, 32, 32), "compressors": [GzipCodec(), Crc32cCodec()]},
        {"chunks": (1, 32, 32), "compressors": None, "serializer": zarr.codecs.BytesCodec(endian="big")},
        {"chunks": (1, 32, 32), "shards": (3, 64, 64), "compressors": BloscCodec(typesize=2)},
    ],
)
def test_bands_in_chunks_of_their_own_are_read_as_zarr_does(tmp_path, axes, options):
    image = PX.transpose(2, 1, 0) if axes == "cxy" else PX.transpose(2, 0, 1)
    chunks, shards = ([options[name]] if name in options else [] for name in ("chunks", "shards"))
    if axes == "tczyx":
        image = image[None, :, None]
        chunks, shards = ([(1, many[0], 1, *many[1:]) for many in known] for known in (chunks, shards))
    group = zarr.open_group(tmp_path / "a.zarr", mode="w")
    array = group.create_array(
        "0",
        shape=image.shape,
        dtype=image.dtype,
        fill_value=5,
        dimension_names=list(axes),
        **{**options, "chunks": chunks[0], **({"shards": shards[0]} if shards else {})},
    )
    array[:] = image
    scale = {"type": "scale", "scale": [1.0] * len(axes)}
    sets = [{"path": "0", "coordinateTransformations": [scale]}]
    named = [{"name": axis, "type": {"c": "channel", "t": "time"}.get(axis, "space")} for axis in axes]
    group.attrs["ome"] = {"version": "0.5", "multiscales": [{"axes": named, "datasets": sets}]}
    yx = np.random.default_rng(1).integers(0, [130, 150], (80, 2))
    with open_pyramid(tmp_path / "a.zarr") as pyramid:
        assert pyramid.native_tiles is not None
        for many in (80, 9):  # into memory used again, and into memory of their own
            found = read_crops(pyramid, yx[:many], 20).pixels
            assert all(
                np.array_equal(crop, PX[y : y + 20, x : x + 20])
                for crop, (y, x) in zip(found, yx.tolist(), strict=False)
            )
        if not shards:
            (tmp_path / "a.zarr/0/c" / {"cyx": "0/1/2", "cxy": "0/2/1", "tczyx": "0/0/0/1/2"}[axes]).unlink()
            lost = pyramid.read_by_band(0, 32, 64, 32, 32)
            absent = options["chunks"][0]
            assert (lost.data[..., :absent] == 5).all()
            assert np.array_equal(lost.data[..., absent:], PX[32:64, 64:96, absent:])
            assert np.array_equal(lost.valid[0, 0], np.arange(3) >= absent)
