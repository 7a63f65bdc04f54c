"""Files behind a web server, read by ranges: few requests, and damage on the way is an error."""

import http.server
import threading

import numpy as np
import pytest

from hiresattn import open_pyramid, read_crops
from hiresattn.config import InputConfig
from hiresattn.errors import NotFoundError, OpenError, ReadError
from hiresattn.geometry import root_regions
from hiresattn.pyramid.storage import ranges
from hiresattn.pyramid.storage.ranges import RangeFile, RefusedError
from hiresattn.reading.fetch import CropFetcher

SIDE = 2048


class Handler(http.server.BaseHTTPRequestHandler):
    """Serves one file; ``server.ills`` says how the next answers go wrong."""

    protocol_version = "HTTP/1.1"

    def log_message(self, *_):
        pass

    def do_GET(self):
        server = self.server
        first, last = map(int, self.headers["Range"].removeprefix("bytes=").split("-"))
        if self.path not in ("/scene.tif", "/elsewhere.tif"):  # what may lie beside it
            server.beside.append(self.path)
            return self.head(404, b"")
        server.asked.append((first, last + 1))
        ill = server.ills.pop(0) if server.ills else server.always
        body = server.content[first : last + 1]
        if self.path == "/elsewhere.tif":
            return self.head(302, b"", Location="/scene.tif")
        if isinstance(ill, int):
            return self.head(ill, b"")
        if ill == "slow":
            server.released.wait(60)
        start = first + (ill == "shifted")
        content_range = f"bytes {start}-{start + len(body) - 1}/{len(server.content)}"
        headers = {"Content-Range": content_range, "ETag": f'"{server.tag}"'}
        if ill == "short":
            self.send_response(206)
            for name, value in headers.items():
                self.send_header(name, value)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body[: len(body) // 2])
            self.close_connection = True
            return None
        if ill == "cut":
            body = body[: len(body) // 2]
        return self.head(200 if ill == "whole" else 206, body, **headers)

    def head(self, status, body, **headers):
        self.send_response(status)
        for name, value in headers.items():
            self.send_header(name, value)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)


def image():
    """Smooth enough for small tiles, and no two tiles alike."""
    y, x = np.mgrid[:SIDE, :SIDE]
    planes = [y // 8 % 256, x // 8 % 256, (y // 64 * 37 + x // 64) % 256]
    return np.stack(planes, axis=-1).astype(np.uint8)


@pytest.fixture(scope="module")
def scene(tmp_path_factory):
    import rasterio
    from rasterio.shutil import copy

    folder = tmp_path_factory.mktemp("scene")
    profile = {"driver": "GTiff", "width": SIDE, "height": SIDE, "count": 3, "dtype": "uint8"}
    place = {"crs": "EPSG:32633", "transform": rasterio.Affine(10, 0, 500000, 0, -10, 5000000)}
    with rasterio.open(folder / "plain.tif", "w", **profile, **place) as raster:
        raster.write(np.moveaxis(image(), 2, 0))
    options = {"BLOCKSIZE": 128, "COMPRESS": "DEFLATE", "OVERVIEW_RESAMPLING": "AVERAGE"}
    copy(folder / "plain.tif", folder / "scene.tif", driver="COG", **options)
    return folder / "scene.tif"


@pytest.fixture
def server(scene, monkeypatch):
    monkeypatch.setattr(ranges, "_WAIT", 0.001)
    monkeypatch.setattr(ranges, "FIRST", 32 << 10)
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        server.daemon_threads = True
        server.content, server.ills, server.always, server.tag = scene.read_bytes(), [], None, 1
        server.released = threading.Event()
        server.asked, server.beside = [], []
        server.url = f"http://127.0.0.1:{server.server_port}/scene.tif"
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        yield server
        server.shutdown()
        thread.join()


def test_a_remote_scene_is_the_local_one(server, scene):
    yx = np.random.default_rng(0).integers(0, SIDE - 100, (20, 2))
    with open_pyramid(server.url) as remote, open_pyramid(scene) as local:
        assert (remote.crs, remote.transform, remote.levels) == (local.crs, local.transform, local.levels)
        assert remote.meta.nbytes == local.meta.nbytes
        for threads in (1, 4):
            found = read_crops(remote, yx, 100, threads=threads).pixels
            assert np.array_equal(found, read_crops(local, yx, 100).pixels)
        for level in range(len(local.levels)):
            assert np.array_equal(remote.read_tile(level, 0, 0).data, local.read_tile(level, 0, 0).data)
    assert np.array_equal(found[0], image()[yx[0, 0] :, yx[0, 1] :][:100, :100])


def test_opening_and_the_first_glance_take_three_requests_at_most(server):
    with (
        open_pyramid(server.url) as pyramid,
        CropFetcher([pyramid], InputConfig(size=224), threads=2) as fetch,
    ):
        fetch(np.zeros(1, np.int64), root_regions(SIDE, SIDE))
        assert 1 <= len(server.asked) <= 3
        assert len(server.beside) == 2
        assert pyramid.requests.count == len(server.asked) + len(server.beside)
        assert pyramid.requests.bytes == sum(min(b, len(server.content)) - a for a, b in server.asked)
        assert pyramid.requests.bytes <= ranges.FIRST + 1.02 * fetch.stats[0].bytes


def test_neighbours_come_in_one_request_and_nothing_twice(server):
    with open_pyramid(server.url) as pyramid:
        before = len(server.asked)
        read_crops(pyramid, [(1024, 1024)], (100, 900), threads=4)  # eight tiles in a row
        assert len(server.asked) == before + 1
        read_crops(pyramid, [(1024, 1024)], (100, 900))
        assert len(server.asked) == before + 1


@pytest.mark.parametrize("ill", ["short", "cut", "shifted", 500, 503, 429])
def test_what_fails_on_the_way_is_asked_for_again(server, scene, ill):
    with open_pyramid(server.url) as remote, open_pyramid(scene) as local:
        server.ills = [ill, ill]
        assert np.array_equal(remote.read_tile(0, 9, 9).data, local.read_tile(0, 9, 9).data)
        assert not server.ills


@pytest.mark.parametrize("ill", ["short", "cut", "shifted", 500, 403, 404, "whole"])
def test_what_goes_on_failing_is_a_read_error_that_names_the_bytes_and_later_reads_work(server, scene, ill):
    with open_pyramid(server.url) as remote, open_pyramid(scene) as local:
        server.always = ill
        with pytest.raises(ReadError, match=r"scene\.tif.*bytes \d+ to \d+: out of reach"):
            remote.read(0, 1000, 1000, 300, 300)
        server.always = None
        assert np.array_equal(remote.read(0, 1000, 1000, 300, 300), local.read(0, 1000, 1000, 300, 300))


def test_a_server_that_takes_too_long_is_a_read_error(server, monkeypatch):
    with open_pyramid(server.url) as remote:
        monkeypatch.setattr(ranges, "_TIMEOUT", 0.05)
        remote.close()
        server.always = "slow"
        try:
            with pytest.raises(ReadError, match="timed out"):
                remote.read_tile(0, 9, 9)
        finally:
            server.released.set()


def test_a_file_that_changes_is_a_read_error_not_a_mixture(server):
    with open_pyramid(server.url) as remote:
        server.tag = 2
        with pytest.raises(ReadError, match="changed while it was read"):
            remote.read_tile(0, 9, 9)


def test_what_is_not_there_or_out_of_reach_is_said_when_it_is_opened(server):
    with pytest.raises(NotFoundError, match="no such file"):
        open_pyramid(server.url.replace("scene", "other"))
    server.always = 500
    with pytest.raises(OpenError, match=r"out of reach.*500"):
        open_pyramid(server.url)
    server.always = "whole"
    with pytest.raises(RefusedError, match="byte ranges"):
        RangeFile(server.url)


def test_redirects_are_followed_but_not_out_of_the_web(server, scene):
    with open_pyramid(server.url.replace("scene", "elsewhere")) as remote, open_pyramid(scene) as local:
        assert np.array_equal(remote.read_tile(0, 5, 5).data, local.read_tile(0, 5, 5).data)


def test_fetched_bytes_are_bounded(server, monkeypatch):
    monkeypatch.setattr(ranges, "KEPT", 50_000)
    monkeypatch.setattr("hiresattn.pyramid.storage.spans.MOST", 20_000)
    with open_pyramid(server.url) as pyramid:
        yx = np.random.default_rng(0).integers(0, SIDE - 100, (80, 2))
        read_crops(pyramid, yx, 100)
        spans = pyramid.native_tiles._file._spans
        assert 0 < sum(len(span.data) for span in spans if span.data) <= 50_000
