"""One source broken in any way costs no other: each has a record, in order."""

import contextlib
import json
import socket
import struct
from importlib.resources import files

import numpy as np
import pytest
from click.testing import CliRunner
from PIL import Image

from hiresattn.errors import HiresattnError, OpenError, ReadError
from hiresattn.pyramid import open_pyramid
from hiresattn_cli.main import cli
from tests import images

DEMO = files("hiresattn.demo") / "model"


def closed_port():
    with contextlib.closing(socket.socket()) as listener:
        listener.bind(("127.0.0.1", 0))
        return listener.getsockname()[1]


def write_broken(folder):
    """Sources that are broken, each in another way."""
    whole = images.write_geotiff(folder / "whole.tif")
    stored = whole.read_bytes()
    store = images.write_ome_zarr(folder / "whole.zarr")
    made = {
        "empty.tif": b"",
        "text.tif": b"hello",
        "magic.tif": b"II*\0",
        "loop.tif": b"II*\0\x08\0\0\0" + struct.pack("<HI", 0, 8),
        "far.tif": b"II*\0" + struct.pack("<I", 1 << 31),
        "cut.tif": stored[: len(stored) // 2],
        "zeros.tif": stored[:8] + bytes(len(stored) - 8),
        "empty.png": b"\x89PNG\r\n\x1a\n",
        "cut.jpg": images.write_image(folder / "w.jpg").read_bytes()[:300],
        "none.jp2": b"\0\0\0\x0cjP  \r\n\x87\n" + bytes(20),
        "gif.gif": b"GIF89a",
        "bmp.bmp": b"BM" + bytes(10),
        "zip.svs": b"PK\x03\x04" + bytes(100),
        "vrt.vrt": b"<VRTDataset rasterXSize='9' rasterYSize='9'></VRTDataset>",
        "vrt2.vrt": b"<VRTDataset",
        "dicom.dcm": bytes(128) + b"DICM",
    }
    for name, content in made.items():
        (folder / name).write_bytes(content)
    (folder / "plain").mkdir()
    for name, attributes in (
        ("a.zarr", "{"),
        ("b.zarr", "[]"),
        ("c.zarr", '{"multiscales": 5}'),
        ("d.zarr", '{"multiscales": [{"axes": null, "datasets": [{"path": 7}]}]}'),
        ("e.zarr", '{"multiscales": [{"axes": ["y", "x"], "datasets": [{"path": "x\\u0000y"}]}]}'),
    ):
        (folder / name).mkdir()
        (folder / name / ".zgroup").write_text('{"zarr_format": 2}')
        (folder / name / ".zattrs").write_text(attributes)
    (folder / "ring").symlink_to(folder / "ring")
    port = closed_port()
    addresses = [
        "http://127.0.0.1:99999999/a.tif",
        "http://127.0.0.1:port/a.tif",
        f"http://127.0.0.1:{port}/a.tif",
        "http://[::1/a.tif",
        "http:///a.tif",
        "https://127.0.0.1:port/a.tif",
        "http://127.0.0.1:-1/ü.zarr",
        "/vsizip/nothing.zip/a.tif",
        "ftp://127.0.0.1/a.tif",
        "nul\0.tif",
        "a" * 5000 + ".tif",
        str(folder / "absent.tif"),
    ]
    names = [*(folder / name for name in made), folder / "plain", folder / "ring", *folder.glob("?.zarr")]
    return [*map(str, names), *addresses], [str(whole), str(store)]


@pytest.mark.parametrize("count", [60, pytest.param(200, marks=pytest.mark.slow)])
def test_sources_broken_in_many_ways_each_have_a_record_and_cost_no_other(tmp_path, monkeypatch, count):
    monkeypatch.setattr("hiresattn.pyramid.storage.ranges._RETRIES", 0)
    broken, _ = write_broken(tmp_path)
    assert len(broken) >= 30
    good = str(tmp_path / "good.png")
    Image.fromarray(np.random.default_rng(0).integers(0, 255, (300, 300), np.uint8)).save(good)
    for source in broken:
        with pytest.raises(HiresattnError):
            open_pyramid(source)
    names = [name for name in broken if not {"\0", "\n"} & set(name)]
    sources = [source for n in range(count // 2) for source in (good, names[n % len(names)])]
    done = CliRunner().invoke(
        cli, ["classify", "-m", str(DEMO), "--budget", "1", "-"], input="\n".join(sources).encode()
    )
    assert isinstance(done.exception, SystemExit), done.exception
    assert (done.exit_code, "Traceback" in done.stderr) == (3, False)
    records = [json.loads(line) for line in done.stdout.splitlines()]
    assert [record["status"] for record in records] == ["ok" if name == good else "error" for name in sources]
    assert len(records) == count
    assert all(record["error"] for record in records if record["status"] == "error")


class SurpriseError(Exception):
    """What no library announces."""


def test_whatever_a_reader_raises_is_a_typed_error_that_names_the_source(tmp_path, monkeypatch):
    path = images.write_geotiff(tmp_path / "a.tif")
    pyramid = open_pyramid(path)

    def surprise(*_, **__):
        raise SurpriseError("at once")

    monkeypatch.setattr(type(pyramid), "_read", surprise)
    monkeypatch.setattr(pyramid, "native_tiles", None)
    for read in (lambda: pyramid.read(0, 0, 0, 8, 8), lambda: pyramid.read_tile(0, 0, 0)):
        with pytest.raises(ReadError, match=r"a.tif.*SurpriseError: at once"):
            read()
    monkeypatch.setattr("hiresattn.pyramid.open._file_readers", surprise)
    with pytest.raises(OpenError, match=r"a.tif.*SurpriseError: at once"):
        open_pyramid(path)
