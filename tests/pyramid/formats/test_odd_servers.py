"""Servers that answer oddly, slowly or for ever: read as GDAL reads them, or over within the deadline."""

import subprocess
import sys
import time
import tracemalloc
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pytest
import rasterio

import hiresattn
from hiresattn.errors import HiresattnError, NotFoundError
from hiresattn.inference.classify import classify_all
from hiresattn.pyramid import open_pyramid
from hiresattn.pyramid.storage.ranges import MOST_SECONDS
from tests.images import write_geotiff

SERVER = Path(__file__).parents[1] / "odd_server.py"


@pytest.fixture(scope="module")
def scene(tmp_path_factory):
    return write_geotiff(tmp_path_factory.mktemp("scene") / "a.tif")


@pytest.fixture(scope="module")
def at(scene):
    command = [sys.executable, str(SERVER), str(scene)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as server:  # noqa: S603 - this interpreter
        port = server.stdout.readline().strip()
        yield f"http://127.0.0.1:{port}"
        server.terminate()


@contextmanager
def seconds(limit):
    before = MOST_SECONDS.set(limit)
    try:
        yield
    finally:
        MOST_SECONDS.reset(before)


def whole(source):
    with open_pyramid(source) as pyramid:
        return pyramid.read(0, 0, 0, pyramid.height, pyramid.width)


@pytest.mark.parametrize(
    "name",
    [
        "plain/a.tif",
        "star/a.tif",
        "upper/a.tif",
        "bare/a.tif",
        "capped/a.tif",
        "weak/a.tif",
        "signed/a.tif",
        "plain/ü ö.tif",
        "plain/%C3%BC%20b.tif",
        "plain/a+b[1]!.tif?x=ü y&z=a//b",
    ],
)
def test_what_gdal_reads_is_read(at, scene, name):
    assert np.array_equal(whole(f"{at}/{name}"), whole(scene))


def test_the_scheme_may_be_in_capitals(at, scene):
    assert np.array_equal(whole(f"{at}/plain/a.tif".replace("http", "HTTP")), whole(scene))


def test_credentials_of_gdal_are_tried_before_it_is_said_that_there_is_no_file(at, scene, monkeypatch):
    with pytest.raises(NotFoundError):
        whole(f"{at}/secret/a.tif")
    with rasterio.Env(GDAL_HTTP_HEADERS="X-Token: open"):
        assert np.array_equal(whole(f"{at}/secret/b.tif"), whole(scene))
    monkeypatch.setenv("GDAL_HTTP_HEADERS", "X-Token: open")
    assert np.array_equal(whole(f"{at}/secret/c.tif"), whole(scene))


@pytest.mark.parametrize("way", ["drip", "dribble", "endless", "loop"])
def test_a_server_that_never_ends_is_over_within_the_deadline_and_takes_no_memory(at, way):
    tracemalloc.start()
    started = time.monotonic()
    try:
        with seconds(1.0), pytest.raises(HiresattnError, match=way):
            open_pyramid(f"{at}/{way}/a.tif")
        assert tracemalloc.get_traced_memory()[1] < 50e6
    finally:
        tracemalloc.stop()
    assert time.monotonic() - started < 10


def test_the_callers_rasterio_env_holds_in_every_thread_that_reads(at, scene):
    model = Path(hiresattn.__file__).parent / "demo" / "model"
    source = f"{at}/secret/threads.tif"
    truth = whole(scene)
    with rasterio.Env(GDAL_HTTP_HEADERS="X-Token: open"):
        records = list(
            classify_all(
                [f"{at}/secret/{n}.tif" for n in range(3)], model, bands=(1,), budget=4, on_error="record"
            )
        )
        assert {record.status for record in records} == {"ok"}, [record.error for record in records]
        pyramid = open_pyramid(source)
    with ThreadPoolExecutor(4) as pool:  # after the Env, in threads that never had one
        rows = list(pool.map(lambda y: pyramid.read(0, y, 0, 8, 64), range(0, 256, 8)))
    assert np.array_equal(np.concatenate(rows), truth[:256, :64])
    assert np.array_equal(np.asarray(pyramid.as_dask(0)[:64, :64]), truth[:64, :64])
    pyramid.close()
