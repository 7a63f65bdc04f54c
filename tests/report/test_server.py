"""The server of the viewer: only what was named, only for who knows the token."""

import http.client
import io
import json
import threading
from contextlib import contextmanager

import numpy as np
import pytest
from PIL import Image

from hiresattn.errors import ConfigError
from hiresattn.inference.record import CaseSource, Cost, Record, VisitedRegion
from hiresattn.report.server import Viewed, ViewerServer, images_to_view


@contextmanager
def serving(images):
    with ViewerServer(images) as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        try:
            yield server
        finally:
            server.shutdown()
            thread.join()


def get(server, path, host=None):
    connection = http.client.HTTPConnection("127.0.0.1", server.server_port, timeout=20)
    connection.request("GET", path, headers={"Host": host} if host else {})
    answer = connection.getresponse()
    body = answer.read()
    connection.close()
    return answer.status, body, answer.headers


def found(source, **changes):
    regions = (
        VisitedRegion(0, None, 0, 0, 0, 300, 300, 0.2, 0.0),
        VisitedRegion(1, 0, 1, 4, 8, 64, 64, 0.8, 0.0),
    )
    values = {"class_name": "sea", "score": 0.9, "regions": regions, "cost": Cost(glimpses=2)}
    return Record(source, "ok", **{**values, "sources": (CaseSource(source),), **changes})


@pytest.fixture
def image(tmp_path):
    pixels = np.zeros((300, 400, 3), np.uint8)
    pixels[:, 200:] = (250, 10, 10)
    path = tmp_path / "a b.png"
    Image.fromarray(pixels).save(path)
    return path


def test_the_page_the_list_the_facts_and_tiles_are_served(image):
    with serving(images_to_view([str(image)], [found(str(image))])) as server:
        base = f"/{server.token}"
        status, page, headers = get(server, f"{base}/")
        assert (status, page[:15]) == (200, b"<!doctype html>")
        assert headers["Cache-Control"] == "no-store"
        assert "default-src 'none'" in headers["Content-Security-Policy"]
        assert get(server, f"{base}/openseadragon.js")[1].startswith(b"//! openseadragon 5")
        (row,) = json.loads(get(server, f"{base}/list")[1])
        assert row == {"name": str(image), "answers": ["sea"], "review": False}
        facts = json.loads(get(server, f"{base}/image/0")[1])
        assert (facts["height"], facts["width"], facts["levels"]) == (300, 400, 2)
        assert facts["answers"][0]["regions"][1][:7] == [1, 0, 1, 4, 8, 64, 64]
        status, tile, headers = get(server, f"{base}/image/0/1/0_1.jpg", f"localhost:{server.server_port}")
        assert (status, headers["Content-Type"]) == (200, "image/jpeg")
        pixels = np.asarray(Image.open(io.BytesIO(tile)))
        assert pixels.shape == (256, 144, 3)
        assert np.abs(pixels.astype(int) - (250, 10, 10)).max() < 5


def test_nothing_else_can_be_reached(image, tmp_path):
    (tmp_path / "secret").write_text("secret")
    with serving([Viewed(str(image))]) as server:
        base, port = f"/{server.token}", server.server_port
        paths = [
            "/",
            "/list",
            "/image/0",
            "//list",
            f"/{'x' * len(server.token)}/",
            f"{base}x/list",
        ]
        paths += [
            f"{base}/{name}"
            for name in ("../secret", "%2e%2e/secret", "image/1", "image/0/1/0_1.png", "page.html")
        ]
        paths += [
            f"{base}{tmp_path}/secret",
            f"{base}/image/0/../../secret",
            f"{base}/image/-1",
            f"http://x{base}/list",
        ]
        for path in paths:
            status, body, _ = get(server, path)
            assert (status, body) == (404, b"not here"), path
        for host in ("evil.example", f"evil.example:{port}", "127.0.0.1"):
            assert get(server, f"{base}/list", host)[0] == 404, host
        assert server.server_address[0] == "127.0.0.1"
        with ViewerServer([Viewed(str(image))]) as another:
            assert another.token != server.token


def test_what_cant_be_read_is_said_and_costs_no_other(image, tmp_path):
    absent = tmp_path / "absent.svs"
    with serving(images_to_view([str(absent), str(image)])) as server:
        status, body, _ = get(server, f"/{server.token}/image/0")
        assert (status, b"there is no such file" in body) == (500, True)
        assert get(server, f"/{server.token}/image/1")[0] == 200
        status, body, _ = get(server, f"/{server.token}/image/1/0/5_5.jpg")
        assert (status, b"no tile in row 5" in body) == (500, True)


def test_few_images_are_open_at_once_and_many_may_ask(image, tmp_path):
    paths = [tmp_path / f"{number}.png" for number in range(7)]
    for path in paths:
        path.write_bytes(image.read_bytes())
    with serving([Viewed(str(path)) for path in paths]) as server:
        sizes = []

        def ask(number):
            sizes.append(len(get(server, f"/{server.token}/image/{number % 7}/1/0_0.jpg")[1]))

        threads = [threading.Thread(target=ask, args=(number,)) for number in range(28)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert len(sizes) == 28
        assert len(set(sizes)) == 1
        ask(0)
        assert len(server._zooms) <= 5


def test_images_and_records_are_joined_by_file(image, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    other = found(
        "P1",
        case="P1",
        sources=(CaseSource("x.svs"), CaseSource("y.svs", error="broken"), CaseSource("a b.png")),
    )
    second = VisitedRegion(2, None, 0, 0, 0, 9, 9, 0.1, 0.0, source=2)
    other = Record(**{**vars(other), "regions": (*other.regions, second)})
    (shown,) = images_to_view([str(image)], [other, found("z.svs")])
    assert [[region.id for region in one.regions] for one in shown.answers] == [[2]]
    everything = images_to_view([], [other, found("z.svs")])
    assert [one.source for one in everything] == ["x.svs", "a b.png", "z.svs"]
    assert [region.id for region in everything[0].answers[0].regions] == [0, 1]
    with pytest.raises(ConfigError, match="no images to show"):
        ViewerServer([])
    with ViewerServer([shown]) as server, pytest.raises(ConfigError, match="can't be used"):
        ViewerServer([shown], server.server_port)
