"""rasterio's objects, bytes and open files as images."""

import io
import pickle
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
import rasterio
from rasterio.vrt import WarpedVRT

import hiresattn
from hiresattn.errors import OpenError
from hiresattn.pyramid import open_pyramid
from tests.geo.scenes import MADE, write_scene

MODEL = hiresattn.__path__[0] + "/demo/model"


@pytest.fixture
def path(tmp_path):
    return write_scene(tmp_path / "scene.tif", *MADE["north-up"], sides=(300, 400))


def same(found, path):
    with open_pyramid(path) as file:
        assert (found.crs, found.transform) == (file.crs, file.transform)
        assert np.array_equal(found.read(0, 10, 20, 200, 300), file.read(0, 10, 20, 200, 300))


@pytest.mark.parametrize(
    "kind", ["dataset", "memory file", "its dataset", "bytes", "file", "bytes as a file"]
)
def test_an_object_is_the_image_that_it_stands_for(path, kind):
    data = path.read_bytes()
    made = {
        "dataset": lambda: rasterio.open(path),
        "memory file": lambda: rasterio.MemoryFile(data),
        "its dataset": lambda: rasterio.MemoryFile(data).open(),
        "bytes": lambda: data,
        "file": lambda: path.open("rb"),
        "bytes as a file": lambda: io.BytesIO(data),
    }
    one = made[kind]()
    with open_pyramid(one) as found:
        same(found, path)
        record = hiresattn.classify(one, MODEL, policy="lowres")
        assert dict(record.scores) == dict(hiresattn.classify(path, MODEL, policy="lowres").scores)
        assert (record.source == str(path)) == (kind in ("dataset", "file"))
        if "bytes" in kind:
            same(pickle.loads(pickle.dumps(found)), path)  # noqa: S301 - our own
    if hasattr(one, "close"):
        one.close()


def test_a_warped_raster_is_read_by_many_threads(path):
    with rasterio.open(path) as file, WarpedVRT(file, crs="EPSG:3857", src_nodata=7) as warped:
        expected, transform = np.moveaxis(warped.read(), 0, 2), warped.transform
        valid = warped.read_masks(1) > 0
        with open_pyramid(warped) as found:
            assert (found.crs, found.transform, found.nodata) == ("EPSG:3857", tuple(transform)[:6], 7)
            again = pickle.loads(pickle.dumps(found))  # noqa: S301 - our own
            assert np.array_equal(again.read(0, 0, 0, *expected.shape[:2]), expected)

            def read(row):
                return found.read_masked(0, row, 0, 1, found.width)

            with ThreadPoolExecutor(8) as pool:
                rows = list(pool.map(read, range(found.height)))
    assert np.array_equal(np.concatenate([row.data for row in rows]), expected)
    found = [np.ones((1, len(row.data[0])), bool) if row.valid is None else row.valid for row in rows]
    assert np.array_equal(np.concatenate(found), valid)


def test_overviews_of_what_is_warped_are_levels(path):
    with rasterio.open(path, "r+") as file:
        file.build_overviews([2])
    with rasterio.open(path) as file, WarpedVRT(file, crs="EPSG:3857") as warped:
        assert len(open_pyramid(warped).levels) == 2


def test_what_is_no_file_as_it_is_stored_is_refused(path, tmp_path):
    with rasterio.open(path, "r+") as file:
        file.build_overviews([2])
        with pytest.raises(OpenError, match="open for writing"):
            open_pyramid(file)
    with rasterio.open(path, overview_level=0) as file, pytest.raises(OpenError, match="opened with options"):
        open_pyramid(file)
    with pytest.raises(OpenError, match=r"its bytes: read\(\)"):
        open_pyramid(io.BufferedReader(io.BytesIO(b"")))
    with pytest.raises(OpenError, match=r"<bytes>: "):
        open_pyramid(b"no image")
    virtual = (
        f'<VRTDataset rasterXSize="4" rasterYSize="4"><VRTRasterBand dataType="Byte" band="1"><SimpleSource>'
        f"<SourceFilename>{path}</SourceFilename></SimpleSource></VRTRasterBand></VRTDataset>"
    )
    with pytest.raises(OpenError, match=r"<bytes>: "):
        open_pyramid(virtual.encode())
