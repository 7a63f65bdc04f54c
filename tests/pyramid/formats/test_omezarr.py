"""OME-Zarr and plain Zarr arrays."""

import os
import shutil

import numcodecs
import numpy as np
import pytest
import zarr

from hiresattn.errors import NotFoundError, OpenError, ReadError
from hiresattn.pyramid import open_pyramid
from hiresattn.pyramid.formats.omezarr import ZarrPyramid
from tests.images import MPP, SHAPES, TILE, coded, edit_json, write_ome_zarr
from tests.pyramid.contract import PyramidContract


class TestOmeZarr04(PyramidContract):
    backend = "zarr"
    dtype = "uint16"

    def write(self, folder):
        return write_ome_zarr(folder / "image.zarr")


class TestOmeZarr05ChannelsFirst(PyramidContract):
    backend = "zarr"

    def write(self, folder):
        return write_ome_zarr(folder / "image.zarr", "0.5", "uint8", axes="tczyx")


class TestOmeZarr05Sharded(PyramidContract):
    backend = "zarr"
    dtype = "float32"

    def write(self, folder):
        return write_ome_zarr(folder / "image.zarr", "0.5", "float32", shards=2 * TILE)


class TestPlainZarr(PyramidContract):
    backend = "zarr"
    levels = 1
    mpp = None

    def write(self, folder):
        return _plain(folder / "image.zarr", coded())


def _plain(path, image, **options):
    chunks = tuple(min(TILE, side) for side in image.shape)
    array = zarr.create_array(path, shape=image.shape, chunks=chunks, dtype=image.dtype, **options)
    array[:] = image
    return path


def _chunk(path, row, column, level=0):
    """The file of a chunk of a 0.4 store."""
    return path / f"scale{level}" / f"{row}.{column}.0"


@pytest.fixture
def store(tmp_path):
    return write_ome_zarr(tmp_path / "image.zarr")


def test_a_missing_chunk_is_counted_and_not_valid(store):
    _chunk(store, 1, 2).unlink()
    with open_pyramid(store) as pyramid:
        pixels = pyramid.read_masked(0, 100, 200, 180, 200)
        assert pyramid.tile_bytes(0, 1, 2) == 0
        assert pyramid.tile_bytes(0, 1, 1) == _chunk(store, 1, 1).stat().st_size
    wanted = np.ones((180, 200), bool)
    wanted[TILE - 100 : 2 * TILE - 100, 2 * TILE - 200 : 3 * TILE - 200] = False
    assert pixels.missing_tiles == 1
    assert np.array_equal(pixels.valid, wanted)
    assert np.array_equal(pixels.data[wanted], coded(0, "uint16")[100:280, 200:400][wanted])


def test_a_chunk_missing_inside_a_shard_is_seen_too(tmp_path):
    path = tmp_path / "image.zarr"
    shape, chunks = (512, 512, 3), (TILE, TILE, 3)
    array = zarr.create_array(path, shape=shape, chunks=chunks, shards=(256, 256, 3), dtype="uint8")
    array[:TILE, :TILE] = 9  # one chunk of one shard
    array[300:400, 300:400] = 7
    with open_pyramid(path) as pyramid:
        pixels = pyramid.read_masked(0, 0, 0, 512, 512)
        assert pyramid.tile_bytes(0, 0, 0) > 0
        assert pyramid.tile_bytes(0, 0, 1) == 0
    wanted = np.zeros((512, 512), bool)
    wanted[:TILE, :TILE] = True
    wanted[256:, 256:] = True  # touched, all four
    assert pixels.missing_tiles == 16 - 5
    assert np.array_equal(pixels.valid, wanted)


@pytest.mark.parametrize("level", [0, 1, 2])
@pytest.mark.parametrize("version", ["0.4", "0.5"])
def test_a_level_without_one_chunk_is_not_used_and_an_open_error_at_level_0(tmp_path, version, level):
    store = write_ome_zarr(tmp_path / "image.zarr", version)
    for file in list((store / f"scale{level}").rglob("*")):
        if file.is_file() and file.name not in ("zarr.json", ".zarray", ".zattrs"):
            file.unlink()
    if level:
        with open_pyramid(store) as pyramid:
            assert len(pyramid.levels) == 2
            assert pyramid.meta.notes[0].startswith("declared levels without any tile are not used")
        return
    with pytest.raises(OpenError, match="all tiles of level 0 are missing"):
        open_pyramid(store)


@pytest.mark.parametrize("native", [True, False])
def test_a_missing_chunk_of_an_array_without_fill_value_is_not_valid(tmp_path, native):
    import json

    store = write_ome_zarr(tmp_path / "image.zarr", "0.4", dtype="uint8")
    described = json.loads((store / "scale0" / ".zarray").read_text())
    (store / "scale0" / ".zarray").write_text(json.dumps({**described, "fill_value": None}))
    chunks = sorted(
        file for file in (store / "scale0").rglob("*") if file.is_file() and file.name[:2] != ".z"
    )
    chunks[0].unlink()
    with open_pyramid(store) as pyramid:
        if not native:
            pyramid.native_tiles = None
        found = pyramid.read_masked(0, 0, 0, TILE, TILE)
    assert found.missing_tiles == 1
    assert not found.valid.any()
    assert not found.data.any()


@pytest.mark.parametrize("harm", ["short", "empty", "noise"])
def test_a_damaged_chunk_is_a_read_error_that_names_it(store, harm):
    file = _chunk(store, 1, 2)
    stored = file.read_bytes()
    noise = np.random.default_rng(0).bytes(len(stored))
    file.write_bytes({"short": stored[: len(stored) // 2], "empty": b"", "noise": noise}[harm])
    with open_pyramid(store) as pyramid:
        with pytest.raises(ReadError, match="level 0, tile in row 1, column 2: damaged"):
            pyramid.read(0, 0, 0, *SHAPES[0])
        assert np.array_equal(
            pyramid.read_tile(0, 1, 1).data, coded(0, "uint16")[TILE : 2 * TILE, TILE : 2 * TILE]
        )


def _compressed(path, codec, layout):
    """Noise in four chunks of a plain array; returns it and the file of its first chunk or shard."""
    from zarr.codecs import BloscCodec, GzipCodec, ZstdCodec

    if layout == "v2":
        known = {
            "blosc": numcodecs.Blosc("lz4"),
            "blosc zstd": numcodecs.Blosc("zstd"),
            "zstd": numcodecs.Zstd(),
            "gzip": numcodecs.GZip(),
        }
    else:
        known = {
            "blosc": BloscCodec(cname="lz4"),
            "blosc zstd": BloscCodec(cname="zstd"),
            "zstd": ZstdCodec(),
            "gzip": GzipCodec(),
        }
    options = {"shards": {"shape": (128, 128, 3), "index_location": "start"}} if layout == "shards" else {}
    image = np.random.default_rng(1).integers(0, 200, (128, 128, 3), np.uint8)
    array = zarr.create_array(
        path,
        shape=image.shape,
        chunks=(64, 64, 3),
        dtype="uint8",
        compressors=known.get(codec),
        zarr_format=2 if layout == "v2" else 3,
        **options,
    )
    array[:] = image
    return image, path / {"v2": "0.0.0", "v3": "c/0/0/0", "shards": "c/0/0/0"}[layout]


@pytest.mark.parametrize("layout", ["v2", "v3", "shards"])
@pytest.mark.parametrize("codec", ["blosc", "blosc zstd", "zstd", "gzip", "none"])
@pytest.mark.parametrize("lost", [1, 5, 1000, 0.5, 0.9, 0.999])
def test_a_chunk_cut_short_is_a_read_error_whatever_its_codec(tmp_path, layout, codec, lost):
    image, file = _compressed(tmp_path / "image.zarr", codec, layout)
    with open_pyramid(tmp_path / "image.zarr") as pyramid:
        assert np.array_equal(pyramid.read(0, 0, 0, 128, 128), image)
        chunks = pyramid._chunks[0]
        index = chunks._shard_index((0, 0, 0)).reshape(4, 2) if layout == "shards" else np.zeros((4, 2))
    last = int(index[:, 0].argmax())
    size = file.stat().st_size
    whole = int(index[last, 1]) or size
    os.truncate(file, size - (lost if lost >= 1 else int(whole * lost)))
    with open_pyramid(tmp_path / "image.zarr") as pyramid:
        row, column = divmod(last, 2)
        with pytest.raises(ReadError, match=f"level 0, tile in row {row}, column {column}: damaged"):
            pyramid.read_tile(0, row, column)
        with pytest.raises(ReadError, match=f"level 0, tile in row {row}, column {column}: damaged"):
            pyramid.read(0, 0, 0, 128, 128)
        row, column = divmod(3 - last, 2)
        there = np.s_[64 * row : 64 * row + 64, 64 * column : 64 * column + 64]
        assert np.array_equal(pyramid.read_tile(0, row, column).data, image[there])


@pytest.mark.parametrize("layout", ["v2", "v3"])
@pytest.mark.parametrize("codec", ["blosc", "blosc zstd", "zstd", "gzip", "none"])
@pytest.mark.parametrize("kept", [0, 1, 15, 16, 17])
def test_a_chunk_of_which_little_is_left_is_a_read_error(tmp_path, layout, codec, kept):
    _, file = _compressed(tmp_path / "image.zarr", codec, layout)
    os.truncate(file, kept)
    with (
        open_pyramid(tmp_path / "image.zarr") as pyramid,
        pytest.raises(ReadError, match="level 0, tile in row 0, column 0: damaged"),
    ):
        pyramid.read(0, 10, 10, 5, 5)


@pytest.mark.parametrize("kept", [0, 30])
def test_a_shard_cut_short_is_a_read_error(tmp_path, kept):
    path = write_ome_zarr(tmp_path / "image.zarr", "0.5", shards=2 * TILE)
    shard = path / "scale0" / "c" / "0" / "0" / "0"
    shard.write_bytes(shard.read_bytes()[:kept])
    with open_pyramid(path) as pyramid:
        with pytest.raises(ReadError, match="level 0, tile in row 0, column 0: damaged"):
            pyramid.read_tile(0, 0, 0)
        assert np.array_equal(
            pyramid.read_tile(0, 3, 3).data, coded(0, "uint16")[3 * TILE : 4 * TILE, 384:512]
        )


def test_nothing_is_made_where_nothing_was(tmp_path):
    with pytest.raises(NotFoundError, match="no such file"):
        open_pyramid(tmp_path / "image.zarr")
    with pytest.raises(OpenError, match="directory without Zarr metadata"):
        open_pyramid(tmp_path)
    assert list(tmp_path.iterdir()) == []


def test_a_store_elsewhere_that_is_not_there_says_what_to_check():
    with pytest.raises(OpenError, match="check the address, the network and the credentials"):
        ZarrPyramid("memory://nothing/image.zarr")


def test_a_scale_that_contradicts_the_shapes_is_an_open_error(store):
    def change(attributes):
        attributes["multiscales"][0]["datasets"][1]["coordinateTransformations"][0]["scale"] = [1.1, 1.1, 1]

    edit_json(store / ".zattrs", change)
    with pytest.raises(OpenError, match=r"level 1 announces a downsample of 2\.2, but 517 px became 258"):
        open_pyramid(store)


def test_levels_listed_coarsest_first_are_an_open_error(store):
    edit_json(store / ".zattrs", lambda attributes: attributes["multiscales"][0]["datasets"].reverse())
    with pytest.raises(OpenError, match="finest first"):
        open_pyramid(store)


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (lambda a: a["multiscales"][0].pop("axes"), "multiscales metadata are damaged"),
        (
            lambda a: a["multiscales"][0]["datasets"][0].update(path="other"),
            "multiscales metadata are damaged",
        ),
        (lambda a: a["multiscales"][0]["datasets"][0].pop("path"), "multiscales metadata are damaged"),
        (lambda a: a["multiscales"][0].update(datasets=[]), "don't describe its arrays"),
        (lambda a: a["multiscales"][0]["axes"][0].update(name="w"), "don't describe its arrays"),
        (lambda a: a.pop("multiscales"), "holds scale0, scale1, scale2"),
    ],
)
def test_damaged_metadata_are_an_open_error(store, change, said):
    edit_json(store / ".zattrs", change)
    with pytest.raises(OpenError, match=said):
        open_pyramid(store)


def test_malformed_or_lost_array_metadata_are_an_open_error(store):
    (store / "scale1" / ".zarray").write_text("{")
    with pytest.raises(OpenError, match=r"image\.zarr"):
        open_pyramid(store)
    (store / "scale1" / ".zarray").unlink()
    with pytest.raises(OpenError, match=r"image\.zarr"):
        open_pyramid(store)
    (store / ".zgroup").write_text("{")
    with pytest.raises(OpenError, match=r"image\.zarr"):
        open_pyramid(store)


@pytest.mark.parametrize("axis", ["z", "t"])
def test_a_stack_is_an_open_error_that_names_its_axis(tmp_path, axis):
    group = zarr.open_group(tmp_path / "image.zarr", mode="w", zarr_format=2)
    group.create_array("0", shape=(5, 30, 40), dtype="uint8")
    axes = [{"name": axis}, {"name": "y"}, {"name": "x"}]
    group.attrs["multiscales"] = [{"version": "0.4", "axes": axes, "datasets": [{"path": "0"}]}]
    with pytest.raises(OpenError, match=f"pick one position of {axis}"):
        open_pyramid(tmp_path / "image.zarr")


def test_a_scale_without_unit_is_not_taken(store):
    def change(attributes):
        for axis in attributes["multiscales"][0]["axes"]:
            axis.pop("unit", None)

    edit_json(store / ".zattrs", change)
    with open_pyramid(store) as pyramid:
        assert pyramid.mpp is None
        assert "no unit" in pyramid.meta.mpp_source
    with open_pyramid(store, mpp=MPP) as pyramid:
        assert pyramid.mpp == MPP


def test_plain_arrays_are_read_by_name_or_refused_where_bands_may_come_first(tmp_path):
    first = np.ascontiguousarray(np.moveaxis(coded(), 2, 0))
    _plain(tmp_path / "named.zarr", first, dimension_names=["band", "y", "x"])
    with open_pyramid(tmp_path / "named.zarr") as pyramid:
        assert np.array_equal(pyramid.read(0, 5, 6, 70, 80), coded()[5:75, 6:86])
    _plain(tmp_path / "bare.zarr", first)
    with pytest.raises(OpenError, match=r"looks like \[c h w\]"):
        open_pyramid(tmp_path / "bare.zarr")
    _plain(tmp_path / "grey.zarr", coded()[:, :, 0])
    with open_pyramid(tmp_path / "grey.zarr") as pyramid:
        assert np.array_equal(pyramid.read(0, 5, 6, 70, 80), coded()[5:75, 6:86, :1])


def test_pixels_that_are_not_numbers_are_an_open_error(tmp_path):
    _plain(tmp_path / "image.zarr", np.ones((50, 60), bool))
    with pytest.raises(OpenError, match="pixels of type bool"):
        open_pyramid(tmp_path / "image.zarr")


def test_a_store_that_vanished_is_missing_everywhere_not_black(store):
    with open_pyramid(store) as pyramid:
        shutil.rmtree(store)
        pixels = pyramid.read_masked(0, 0, 0, 50, 60)
    assert not pixels.valid.any()
    assert pixels.missing_tiles == 1


@pytest.mark.parametrize(("first", "second"), [("uint16", "int16"), ("float32", "uint32")])
def test_levels_of_two_data_types_of_the_same_size_are_an_open_error(tmp_path, first, second):
    group = zarr.open_group(str(tmp_path / "a.zarr"), mode="w", zarr_format=3)
    for name, side, dtype in (("0", 64, first), ("1", 32, second)):
        group.create_array(name, shape=(3, side, side), chunks=(3, 32, 32), dtype=dtype)[:] = 1
    axes = [{"name": "c", "type": "channel"}, *({"name": name, "type": "space"} for name in "yx")]
    scales = [{"type": "scale", "scale": [1, factor, factor]} for factor in (1, 2)]
    datasets = [{"path": str(n), "coordinateTransformations": [scale]} for n, scale in enumerate(scales)]
    group.attrs["ome"] = {"version": "0.5", "multiscales": [{"axes": axes, "datasets": datasets}]}
    with pytest.raises(OpenError, match="differ in bands or type"):
        open_pyramid(tmp_path / "a.zarr")
