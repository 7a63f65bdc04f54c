"""What would never end, or costs far more than its size says, is refused with numbers before it is begun."""

import json
import os
import struct
import zlib
from io import BytesIO
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from hiresattn.config import InputConfig
from hiresattn.datasets.boxes import read_boxes
from hiresattn.errors import CheckpointError, ConfigError, HiresattnError, OpenError, ReadError
from hiresattn.geometry import root_regions
from hiresattn.inference.classify import classify
from hiresattn.pyramid import open_pyramid
from hiresattn.pyramid.storage.tiffdecode import check_scans
from hiresattn.reading.estimate import check_first_look
from tests import images

pytestmark = pytest.mark.timeout(60)


@pytest.mark.parametrize("name", ["a.tif", "a.png", "a.svs", "a"])
def test_a_pipe_or_a_device_is_no_image(tmp_path, name):
    os.mkfifo(tmp_path / name)
    with pytest.raises(OpenError, match="a pipe or a device"):
        open_pyramid(tmp_path / name)
    with pytest.raises(OpenError, match="a pipe or a device"):
        open_pyramid("/dev/zero")


@pytest.mark.parametrize("version", ["0.4", "0.5"])
def test_pipes_in_a_store_are_refused_wherever_they_lie(tmp_path, version):
    store = images.write_ome_zarr(tmp_path / "a.zarr", version=version)
    with open_pyramid(store) as pyramid:
        finest = store / pyramid.array(0)[0].path
    for path in (finest / METADATA[version], next(path for path in finest.rglob("*") if is_chunk(path))):
        held = path.read_bytes()
        path.unlink()
        os.mkfifo(path)
        with pytest.raises(HiresattnError, match="no regular file"), open_pyramid(store) as pyramid:
            pyramid.read(0, 0, 0, pyramid.height, pyramid.width)
        path.unlink()
        path.write_bytes(held)


METADATA = {"0.4": ".zarray", "0.5": "zarr.json"}


def is_chunk(path):
    return path.is_file() and path.name not in {"zarr.json", ".zarray", ".zattrs", ".zgroup"}


def test_boxes_and_cards_are_bounded_regular_files(tmp_path, monkeypatch):
    os.mkfifo(tmp_path / "pipe.geojson")
    with pytest.raises(ConfigError, match="no regular file"):
        read_boxes("pipe.geojson", tmp_path / "m.csv", "m.csv, line 2", source="a.tif", known={})
    (tmp_path / "big.geojson").write_text(json.dumps({"features": [], "more": "x" * 100}))
    monkeypatch.setattr("hiresattn.datasets.boxes._MOST_BYTES", 50)
    with pytest.raises(ConfigError, match="at most 50 are read"):
        read_boxes("big.geojson", tmp_path / "m.csv", "m.csv, line 2", source="a.tif", known={})


def bomb(path, side=16384, tiles=16):
    """A TIFF of ``tiles ** 2`` tiles that are all the same few stored bytes."""
    deflate = zlib.compressobj(9)
    row = bytes(side)
    stored = b"".join(deflate.compress(row) for _ in range(side)) + deflate.flush()
    count = tiles**2
    tags = [
        (256, 4, 1, side * tiles), (257, 4, 1, side * tiles), (258, 3, 1, 8), (259, 3, 1, 8), (262, 3, 1, 1),
        (277, 3, 1, 1), (322, 4, 1, side), (323, 4, 1, side), (324, 4, count, 0), (325, 4, count, 0),
    ]  # fmt: skip
    start = 8 + 2 + 12 * len(tags) + 4
    places = {324: start, 325: start + 4 * count}
    head = b"II*\0" + struct.pack("<I", 8) + struct.pack("<H", len(tags))
    for number, kind, many, value in tags:
        head += struct.pack("<HHII", number, kind, many, places.get(number, value))
    at = start + 8 * count
    head += struct.pack("<I", 0) + struct.pack("<I", at) * count + struct.pack("<I", len(stored)) * count
    path.write_bytes(head + stored)
    return path


def test_a_first_look_out_of_proportion_to_the_file_is_refused_with_numbers(tmp_path):
    path = bomb(tmp_path / "bomb.tif", side=4096, tiles=16)
    with open_pyramid(path) as pyramid:
        roots = root_regions(pyramid.height, pyramid.width)
        with pytest.raises(OpenError, match=r"bomb\.tif.*would decode 4\.3 GB of 4\.2 MB stored"):
            check_first_look(pyramid, roots, InputConfig(bands=(0,), low=(0.0,), high=(255.0,)))
    model = Path(__file__).parents[2] / "hiresattn" / "demo" / "model"
    with pytest.raises(OpenError, match="out of proportion"):
        classify(path, model, budget=1)


def test_a_tile_too_big_for_memory_is_refused_with_numbers(tmp_path):
    with pytest.raises(OpenError, match="tiles of 40000 x 40000 px"):
        open_pyramid(bomb_header(tmp_path / "a.tif"))


def bomb_header(path):
    content = bytearray(bomb(path, side=64, tiles=1).read_bytes())
    for at in range(10, 10 + 12 * 10, 12):
        number = struct.unpack_from("<H", content, at)[0]
        if number in (256, 257, 322, 323):
            struct.pack_into("<I", content, at + 8, 40000)
    path.write_bytes(content)
    return path


def test_a_chunk_too_big_for_memory_is_refused_with_numbers(tmp_path):
    import zarr

    zarr.create_array(
        tmp_path / "a.zarr", shape=(60000, 60000), chunks=(52000, 52000), dtype="uint8", fill_value=0
    )
    with pytest.raises(OpenError, match=r"chunks of 52000 x 52000, 2\.7 GB each"):
        open_pyramid(tmp_path / "a.zarr")


def test_hundreds_of_progressive_scans_are_refused_with_numbers(tmp_path):
    stored = BytesIO()
    Image.fromarray(np.zeros((64, 64), np.uint8)).save(stored, "JPEG", progressive=True)
    content = stored.getvalue()
    check_scans(content)
    last = content.rindex(b"\xff\xda")
    (tmp_path / "a.jpg").write_bytes(content[:-2] + content[last:-2] * 600 + content[-2:])
    with (
        open_pyramid(tmp_path / "a.jpg") as pyramid,
        pytest.raises(ReadError, match=r"60. scans, and at most 100"),
    ):
        pyramid.read(0, 0, 0, 64, 64)


def test_a_card_that_nests_for_ever_is_a_checkpoint_error(tmp_path):
    from hiresattn.checkpoint import CARD, load_model

    (tmp_path / CARD).write_text("[" * 200_000)
    with pytest.raises(CheckpointError):
        load_model(tmp_path)
