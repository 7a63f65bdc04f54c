"""What is wrong with a file is said, in words of ours that name it: a test per kind of bad input."""

import gzip
import io
import tarfile
import tracemalloc
import zipfile
from dataclasses import replace

import numpy as np
import pytest

from hiresattn.card import Domain
from hiresattn.config import InputConfig, ModelConfig
from hiresattn.errors import DomainError, NotFoundError, OpenError, ReadError, RegionError
from hiresattn.inference.classify import classify
from hiresattn.inference.domain import warnings_for
from hiresattn.pyramid import open_pyramid
from hiresattn.reading.estimate import advice
from hiresattn.reading.fetch import CropFetcher
from tests.images import (
    SHAPES,
    TILE,
    coded,
    edit_json,
    write_geotiff,
    write_image,
    write_ome_tiff,
    write_ome_zarr,
    write_pyramid_tiff,
    write_svs,
)
from tests.pyramid.damage import overwrite_tile, set_tag, zero_tile_entry

WRITERS = {"svs": write_svs, "ome-tiff": write_ome_tiff, "geotiff": write_geotiff, "tiff": write_pyramid_tiff}
STORES = {"Zarr 2": {}, "Zarr 3": {"version": "0.5"}, "sharded": {"version": "0.5", "shards": 256}}
RULE = InputConfig(size=64)
LARGE = InputConfig(size=200)  # looks at level 1


def refused(path, said, kind=OpenError):
    """Opening a path is an error that names it and says so."""
    with pytest.raises(kind, match=said) as error:
        open_pyramid(path)
    assert str(path) in str(error.value)


def whole(pyramid, level=0):
    """All of a level, with its mask."""
    has = pyramid.levels[level]
    return pyramid.read_masked(level, 0, 0, has.height, has.width)


def looked_at(path, rule=RULE, **rules):
    """A first look at a file, and what it cost."""
    with open_pyramid(path) as pyramid, CropFetcher([pyramid], rule, **rules) as fetch:
        side = min(pyramid.height, pyramid.width)
        crops = fetch(np.zeros(1, np.int64), np.array([[0, 0, side, side]]))
        return crops, fetch.stats[0]


def test_a_missing_path_and_a_folder_without_zarr_are_refused_and_nothing_is_made(tmp_path):
    refused(tmp_path / "absent.zarr", "no such file", NotFoundError)
    (tmp_path / "folder").mkdir()
    refused(tmp_path / "folder", "a directory without Zarr metadata")
    assert [path.name for path in tmp_path.rglob("*")] == ["folder"]


@pytest.mark.parametrize("content", [b"", b"Dear reader", b"\0" * 4096, b"II\x2a\0", b"\x89PNG\r\n\x1a\n"])
def test_empty_text_and_headless_files_are_refused(tmp_path, content):
    path = tmp_path / "image.tif"
    path.write_bytes(content)
    refused(path, "empty file|no reader knows|damaged or cut short|libpng: Read Error.*copy it anew")


@pytest.mark.parametrize("writer", WRITERS)
@pytest.mark.parametrize("kept", [0.5, 0.95])
def test_a_truncated_file_is_found_when_it_is_opened_with_counts(tmp_path, writer, kept):
    path = WRITERS[writer](tmp_path / "image.tif")
    content = path.read_bytes()
    path.write_bytes(content[: int(len(content) * kept)])
    refused(path, r"damaged or cut short: (\d+ of \d+ (tiles|strips) .* beyond its end|.* points to byte)")


@pytest.mark.parametrize("writer", WRITERS)
@pytest.mark.parametrize("harm", ["zeros", "header", "random"])
def test_a_corrupt_jpeg_tile_is_named_and_others_are_read(tmp_path, writer, harm):
    options = {} if writer == "svs" else {"compression": "jpeg"}
    path = WRITERS[writer](tmp_path / "image.tif", **options)
    overwrite_tile(path, level=0, row=1, column=2, harm=harm)
    with open_pyramid(path) as pyramid:
        with pytest.raises(ReadError, match="level 0, tile in row 1, column 2: damaged"):
            whole(pyramid)
        assert np.abs(pyramid.read_tile(0, 1, 1).data.astype(int) - coded()[128:256, 128:256]).mean() < 8


@pytest.mark.parametrize("writer", WRITERS)
def test_a_sparse_tile_is_background_and_counted_and_an_error_if_strict(tmp_path, writer):
    path = WRITERS[writer](tmp_path / "image.tif")
    with open_pyramid(path) as pyramid:
        zero_tile_entry(path, level := len(pyramid.levels) - 1, 0, 0)
    with open_pyramid(path) as pyramid:
        found = whole(pyramid, level)
        assert (found.valid is None or found.valid.all()) == (level > 0)  # filled from the finer level
        assert found.missing_tiles == 1
    _, stats = looked_at(path)
    assert stats.missing_tiles >= 1
    with pytest.raises(ReadError, match=r"missing tile \(row 0, column 0\)"):
        looked_at(path, strict=True)
    rows, columns = (-(-side // TILE) for side in SHAPES[level])
    for place in np.ndindex(rows, columns):
        zero_tile_entry(path, level, *place)
    with open_pyramid(path) as pyramid:
        assert len(pyramid.levels) == max(level, 1)
        if level:
            assert (
                f"declared levels without any tile are not used: {SHAPES[level][1]}" in pyramid.meta.notes[0]
            )


@pytest.mark.parametrize("store", STORES)
def test_a_missing_chunk_is_background_and_counted_and_an_error_if_strict(tmp_path, store):
    path = write_ome_zarr(tmp_path / "a.zarr", dtype="uint8", **STORES[store])
    files = {file for file in (path / "scale1").rglob("*") if file.is_file()}
    chunks = sorted(file for file in files if file.suffix != ".json" and file.name[:2] not in (".z", "zar"))
    chunks[0].unlink()
    _, stats = looked_at(path, LARGE)
    assert stats.missing_tiles >= 1
    with pytest.raises(ReadError, match="missing tile"):
        looked_at(path, LARGE, strict=True)
    for chunk in chunks[1:]:
        chunk.unlink()
    with open_pyramid(path) as pyramid:
        assert [level.downsample for level in pyramid.levels] == [1.0, 4.0]
        assert "declared levels without any tile are not used" in pyramid.meta.notes[0]


@pytest.mark.parametrize("place", ["first", "last"])
def test_a_damaged_shard_index_is_a_read_error(tmp_path, place):
    path = write_ome_zarr(tmp_path / "a.zarr", **STORES["sharded"])
    shard = path / "scale0" / "c" / "1" / "1" / "0"
    content = bytearray(shard.read_bytes())
    content[-4 - 16 * 4 if place == "first" else -5] ^= 1
    shard.write_bytes(content)
    with open_pyramid(path) as pyramid:
        with pytest.raises(ReadError, match=r"tile in row 2, column 2: .*checksum"):
            pyramid.read_tile(0, 2, 2)
        assert np.array_equal(pyramid.read_tile(0, 0, 0).data, coded(dtype="uint16")[:128, :128])


@pytest.mark.parametrize(
    ("tag", "value", "said"),
    [
        (259, 52479, "compression 52479, which no reader here decodes; possible are none"),
        (256, 60000, r"announces 60000 x 517 px, that is \d+ tiles, but lists 30"),
        (322, 65520, "can't be decoded"),
    ],
)
def test_an_unknown_compression_and_absurd_sizes_are_refused_before_anything_is_allocated(
    tmp_path, tag, value, said
):
    path = write_ome_tiff(tmp_path / "image.tif")
    set_tag(path, tag, value)
    tracemalloc.start()
    try:
        with pytest.raises((OpenError, ReadError), match=said), open_pyramid(path) as pyramid:
            pyramid.read_tile(0, 0, 0)
        assert tracemalloc.get_traced_memory()[1] < 100e6
    finally:
        tracemalloc.stop()


@pytest.mark.parametrize("codec", ["gzip", "zlib", "zstd"])
def test_a_chunk_that_unpacks_to_more_than_it_should_is_not_unpacked(tmp_path, codec):
    import zarr
    from numcodecs import GZip, Zlib, Zstd

    codecs = {"gzip": GZip(), "zlib": Zlib(), "zstd": Zstd()}
    pixels = np.random.default_rng(0).integers(0, 255, (64, 64, 3)).astype(np.uint8)
    array = zarr.create_array(
        tmp_path / "a.zarr", shape=pixels.shape, chunks=(32, 32, 3), dtype="uint8", zarr_format=2,
        compressors=codecs[codec],
    )  # fmt: skip
    array[:] = pixels
    bomb = bytes(1 << 26)
    (tmp_path / "a.zarr" / "1.1.0").write_bytes(codecs[codec].encode(bomb))
    del bomb
    with open_pyramid(tmp_path / "a.zarr") as pyramid:
        tracemalloc.start()
        with pytest.raises(ReadError, match="tile in row 1, column 1: damaged"):
            pyramid.read_tile(0, 1, 1)
        assert tracemalloc.get_traced_memory()[1] < 10e6
        tracemalloc.stop()
        assert np.array_equal(pyramid.read_tile(0, 0, 0).data, pixels[:32, :32])


def test_gzip_members_one_after_another_are_one_chunk(tmp_path):
    import zarr
    from numcodecs import GZip

    array = zarr.create_array(
        tmp_path / "a.zarr",
        shape=(32, 32, 3),
        chunks=(32, 32, 3),
        dtype="uint8",
        zarr_format=2,
        compressors=GZip(),
    )
    pixels = coded()[:32, :32]
    array[:] = pixels
    halves = pixels.tobytes()[:1000], pixels.tobytes()[1000:]
    (tmp_path / "a.zarr" / "0.0.0").write_bytes(b"".join(map(gzip.compress, halves)))
    with open_pyramid(tmp_path / "a.zarr") as pyramid:
        assert np.array_equal(pyramid.read_tile(0, 0, 0).data, pixels)


@pytest.mark.parametrize("compression", ["jpeg2000", "png"])
def test_a_tile_that_announces_another_size_is_not_decoded(tmp_path, compression, monkeypatch):
    import imagecodecs

    path = write_ome_tiff(tmp_path / "image.tif", compression=compression)
    encode = {"jpeg2000": imagecodecs.jpeg2k_encode, "png": imagecodecs.png_encode}[compression]
    with open_pyramid(path) as pyramid:
        large = encode(np.zeros((129, 128, 3), np.uint8))
        monkeypatch.setattr(pyramid.native_tiles, "stored", lambda *_: [large])
        with pytest.raises(ReadError, match="announces 128 x 129 px, more than a tile has"):
            pyramid.read_tile(0, 0, 0)


def test_twelve_bits_and_an_infinite_scale_are_refused_or_not_taken(tmp_path):
    from tifffile import imwrite

    options = {"tile": (TILE, TILE), "compression": "jpeg", "compressionargs": {"bitspersample": 12}}
    imwrite(tmp_path / "a.ome.tif", coded(dtype="uint16")[:, :, 0] // 4, **options)
    refused(tmp_path / "a.ome.tif", "JPEG with 1 bands of 12 bits")
    path = write_ome_zarr(tmp_path / "a.zarr")
    for bad in ("nan", 0, -1):

        def spoil(content, bad=bad):
            content["multiscales"][0]["datasets"][0]["coordinateTransformations"][0]["scale"] = [bad] * 3

        edit_json(path / ".zattrs", spoil)
        refused(path, "metadata are (damaged|wrong)|downsample")


def test_a_large_image_without_levels_is_told_how_to_get_some(tmp_path):
    from tifffile import imwrite

    imwrite(tmp_path / "a.ome.tif", np.zeros((5000, 5000), np.uint8), tile=(256, 256), compression="deflate")
    with open_pyramid(tmp_path / "a.ome.tif") as pyramid:
        assert f"hiresattn convert {tmp_path / 'a.ome.tif'} a.zarr" in advice(pyramid)


def test_a_scale_that_is_absent_or_implausible_is_not_taken_and_one_unlike_the_models_is_a_warning(tmp_path):
    path = write_pyramid_tiff(tmp_path / "a.tif", "uint16", resolution=(72, 72), resolutionunit="inch")
    with open_pyramid(path) as pyramid:
        assert pyramid.mpp is None
        assert "352.778" in pyramid.meta.mpp_source
    config = ModelConfig(classes=("a", "b"), input=RULE)
    with open_pyramid(write_ome_tiff(tmp_path / "b.ome.tif")) as pyramid:
        said = warnings_for(
            pyramid, Domain(mpp=(4.0, 8.0)), config.input, config.input, np.zeros(3), SHAPES[0][0]
        )
    assert any("µm/px" in warning for warning in said)


@pytest.mark.parametrize(
    ("names", "warned"),
    [
        (("DAPI", "CD3", "CD8"), False),
        (("CD8", "DAPI", "CD3"), True),
        (("a", "b", "c"), False),
        (None, False),
    ],
)
def test_names_of_bands_in_another_order_are_a_warning(tmp_path, names, warned):
    config = ModelConfig(classes=("a", "b"), input=RULE)
    with open_pyramid(write_image(tmp_path / "a.png")) as pyramid:
        pyramid.meta = replace(pyramid.meta, channel_names=names)
        domain = Domain(channel_names=("DAPI", "CD3", "CD8"))
        said = list(warnings_for(pyramid, domain, config.input, config.input, np.zeros(3), SHAPES[0][0]))
    assert [("the bands are CD8, DAPI, CD3" in sentence) for sentence in said] == [True] * warned


def test_levels_that_contradict_each_other_are_refused(tmp_path):
    path = write_ome_zarr(tmp_path / "a.zarr")

    def shrink(content):
        content["multiscales"][0]["datasets"][1]["coordinateTransformations"][0]["scale"][0] *= 1.5

    edit_json(path / ".zattrs", shrink)
    refused(path, "level 1 announces a downsample of 3")


def test_another_number_of_bands_or_another_type_than_the_models_is_refused(tmp_path):
    with open_pyramid(write_image(tmp_path / "a.png")) as pyramid:
        with pytest.raises(DomainError, match="bands"):
            CropFetcher([pyramid], replace(RULE, channels=4))
        with pytest.raises(DomainError, match="uint8"):
            CropFetcher([pyramid], replace(RULE, dtype="uint16"))


def test_an_image_without_a_valid_pixel_has_no_answer():
    from hiresattn.checkpoint import Model
    from hiresattn.model.build import build_model

    config = ModelConfig(classes=("a", "b"), input=RULE)
    model = Model(build_model(config), config, "untrained", "")
    blank = open_pyramid(np.full((200, 200, 3), 7, np.uint8), nodata=7)
    record = classify(blank, model, device="cpu")
    assert (record.status, record.class_name) == ("no_valid_pixels", None)


def test_windows_outside_and_levels_that_there_are_not_are_refused(tmp_path):
    with open_pyramid(write_svs(tmp_path / "a.svs")) as pyramid:
        for level, window in ((0, (-1, 0, 9, 9)), (0, (510, 0, 9, 9)), (7, (0, 0, 9, 9)), (-1, (0, 0, 9, 9))):
            with pytest.raises(RegionError, match=r"a\.svs"):
                pyramid.read(level, *window)


@pytest.mark.parametrize("path", ["../one.zarr/scale0", "{}/one.zarr/scale0", "scale0/../../one.zarr/scale0"])
@pytest.mark.parametrize("store", ["Zarr 2", "Zarr 3"])
def test_a_store_that_points_out_of_itself_is_refused(tmp_path, path, store):
    write_ome_zarr(tmp_path / "one.zarr", **STORES[store])
    two = write_ome_zarr(tmp_path / "two.zarr", **STORES[store])

    def lead_out(content):
        found = content if store == "Zarr 2" else content["attributes"]["ome"]
        found["multiscales"][0]["datasets"][0]["path"] = path.format(tmp_path)

    edit_json(two / (".zattrs" if store == "Zarr 2" else "zarr.json"), lead_out)
    refused(two, "its multiscales metadata are damaged")


def test_a_tiff_whose_planes_are_other_files_is_refused(tmp_path):
    from tifffile import TiffFile, tiffcomment

    other = write_ome_tiff(tmp_path / "other.ome.tif")
    path = write_ome_tiff(tmp_path / "image.ome.tif")
    with TiffFile(path) as tif:
        text = tif.ome_metadata
    plane = '<TiffData IFD="0"><UUID FileName="other.ome.tif">urn:uuid:1</UUID></TiffData>'
    start, stop = text.index("<TiffData"), text.index("</Pixels>")
    tiffcomment(path, text[:start] + plane + text[stop:])
    try:
        with open_pyramid(path) as pyramid:
            assert pyramid.source == str(path)
            other.unlink()
            assert np.array_equal(whole(pyramid).data, coded())
    except OpenError as error:
        assert str(path) in str(error)  # noqa: PT017 - either way nothing of the other file is read


def test_a_number_in_a_files_name_is_no_answer_of_a_server(tmp_path):
    folder = tmp_path / "404 No such file"
    folder.mkdir()
    (folder / "image.tif").write_text("Dear reader")
    with pytest.raises(OpenError, match=r"no reader knows|damaged or cut short") as caught:
        open_pyramid(folder / "image.tif")
    assert not isinstance(caught.value, NotFoundError)


@pytest.mark.parametrize("kind", ["zip", "tar", "tar.gz", "zarr.zip"])
def test_archives_are_refused_and_nothing_is_unpacked(tmp_path, kind):
    """So that no name in them, ``../x`` or a symbolic link, can lead anywhere."""
    content = write_ome_tiff(tmp_path / "image.ome.tif").read_bytes()
    archive = tmp_path / "folder" / f"a.{kind}"
    archive.parent.mkdir()
    if "zip" in kind:
        with zipfile.ZipFile(archive, "w") as opened:
            opened.writestr("../escaped.tif", content)
            link = zipfile.ZipInfo("link.tif")
            link.external_attr = 0o120777 << 16
            opened.writestr(link, str(tmp_path / "image.ome.tif"))
    else:
        with tarfile.open(archive, "w:gz" if kind == "tar.gz" else "w") as opened:
            member = tarfile.TarInfo("../escaped.tif")
            member.size = len(content)
            opened.addfile(member, io.BytesIO(content))
    refused(archive, "no reader knows this file")
    assert sorted(path.name for path in tmp_path.rglob("*")) == [f"a.{kind}", "folder", "image.ome.tif"]
