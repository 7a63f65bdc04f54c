"""What servers were asked is counted, whoever asks: this program, or GDAL for what only GDAL reads."""

import subprocess
import sys
from contextlib import contextmanager

import numpy as np
import pytest
import rasterio
import rasterio.shutil

import hiresattn
from hiresattn.errors import ReadError
from hiresattn.pyramid import open_pyramid
from hiresattn.pyramid.clipped import Clipped
from hiresattn.pyramid.rescaled import Rescaled
from tests.pyramid import serve

SIDE = 1024
MODEL = hiresattn.__path__[0] + "/demo/model"


class Log:
    """What a server noted down."""

    def __init__(self, address, path):
        self.address, self._path = address, path

    def total(self):
        """Requests, and bytes of their responses, since the last call."""
        lines = [line.split("\t") for line in self._path.read_text().splitlines()]
        self._path.write_text("")
        return len(lines), sum(int(size) for _, size in lines)


@contextmanager
def server_of(folder):
    log = folder.parent / "log"
    log.write_text("")
    words = [sys.executable, serve.__file__, str(folder), str(log)]
    with subprocess.Popen(words, stdout=subprocess.PIPE, text=True) as server:  # noqa: S603 - our own
        try:
            yield Log(f"http://127.0.0.1:{server.stdout.readline().strip()}", log)
        finally:
            server.terminate()


def write(path, left=0, driver="COG", band=0):
    pixels = np.random.default_rng(left + band).integers(0, 255, (1, SIDE, SIDE), dtype=np.uint8)
    shape = {"height": SIDE, "width": SIDE, "count": 1, "dtype": "uint8", "crs": "EPSG:32633"}
    place = rasterio.Affine(10, 0, 500000 + 10 * left, 0, -10, 5000000)
    with rasterio.open(path, "w", driver=driver, transform=place, **shape) as file:
        file.write(pixels)


def mosaic(path, address, names):
    """A virtual raster of files side by side, on a server."""
    bands = "".join(
        f'<SimpleSource><SourceFilename relativeToVRT="0">/vsicurl/{address}/{name}</SourceFilename>'
        f'<SourceBand>1</SourceBand><SourceProperties RasterXSize="{SIDE}" RasterYSize="{SIDE}" DataType="Byte" '
        f'BlockXSize="256" BlockYSize="256"/><SrcRect xOff="0" yOff="0" xSize="{SIDE}" ySize="{SIDE}"/>'
        f'<DstRect xOff="{SIDE * n}" yOff="0" xSize="{SIDE}" ySize="{SIDE}"/></SimpleSource>'
        for n, name in enumerate(names)
    )
    path.write_text(
        f'<VRTDataset rasterXSize="{SIDE * len(names)}" rasterYSize="{SIDE}"><SRS>EPSG:32633</SRS>'
        "<GeoTransform>500000, 10, 0, 5000000, 0, -10</GeoTransform>"
        f'<VRTRasterBand dataType="Byte" band="1">{bands}</VRTRasterBand></VRTDataset>'
    )


@pytest.mark.parametrize("kind", ["tiles", "strips", "jp2", "sources"])
def test_the_count_is_the_servers(tmp_path, monkeypatch, kind):
    folder = tmp_path / "served"
    folder.mkdir()
    with server_of(folder) as log:
        if kind == "sources":
            monkeypatch.setenv("HIRESATTN_VRT_ANYWHERE", "1")
            for n in (0, 1):
                write(folder / f"{n}.tif", n * SIDE)
            path = tmp_path / "mosaic.vrt"
            mosaic(path, log.address, ["0.tif", "1.tif"])
        elif kind == "jp2":
            write(folder / "0.jp2", driver="JP2OpenJPEG")
            path = f"{log.address}/0.jp2"
        else:
            how = {"driver": "GTiff"} if kind == "strips" else {}
            write(folder / "0.tif", **how)
            path = f"{log.address}/0.tif"
        log.total()
        with open_pyramid(path) as image:
            seen = Rescaled(Clipped(image, ((((0, 0), (0, 900), (900, 0)),),)), 5e6)
            image.read(0, 100, 200, 300, 400)
            first = image.requests
            asked = log.total()
            assert (first.count, first.bytes) == asked
            assert asked[1] > 300 * 400  # noise doesn't compress
            image.read(0, 500, 600, 300, 400)
            more = log.total()
            assert (seen.requests.count, seen.requests.bytes) == (asked[0] + more[0], asked[1] + more[1])


def test_a_record_says_what_servers_were_asked(tmp_path, monkeypatch):
    monkeypatch.setenv("HIRESATTN_VRT_ANYWHERE", "1")
    folder = tmp_path / "served"
    folder.mkdir()
    for n in (0, 1):
        write(folder / f"{n}.tif", n * SIDE)
    with server_of(folder) as log:
        mosaic(tmp_path / "mosaic.vrt", log.address, ["0.tif", "1.tif"])
        log.total()
        for source in (tmp_path / "mosaic.vrt", f"{log.address}/1.tif"):
            cost = hiresattn.classify(source, MODEL, budget=6).cost
            assert (cost.requests, cost.bytes_received) == log.total()
            assert cost.bytes_received > 0
        cost = hiresattn.classify(folder / "0.tif", MODEL, budget=6).cost
        assert (cost.requests, cost.bytes_received) == (None, None)
        assert log.total() == (0, 0)


def test_a_source_that_its_server_lacks_is_an_error_every_time(tmp_path, monkeypatch):
    monkeypatch.setenv("HIRESATTN_VRT_ANYWHERE", "1")
    folder = tmp_path / "served"
    folder.mkdir()
    write(folder / "0.tif")
    with server_of(folder) as log:
        mosaic(tmp_path / "whole.vrt", log.address, ["0.tif", "0.tif"])
        mosaic(tmp_path / "mosaic.vrt", log.address, ["0.tif", "gone.tif?sig=secret"])
        mosaic(tmp_path / "other.vrt", log.address, ["gone.tif?sig=secret"])
        with open_pyramid(
            tmp_path / "whole.vrt"
        ) as whole:  # while one is open, GDAL keeps what it failed to open
            whole.read(0, 0, 0, 50, 50)
            with open_pyramid(tmp_path / "mosaic.vrt") as image:
                image.read(0, 0, 0, 50, 50)
                for _ in range(3):
                    with pytest.raises(ReadError, match=r"404|gone\.tif could not be read before"):
                        image.read(0, 0, SIDE, 50, 50)
            with (
                open_pyramid(tmp_path / "other.vrt") as image,
                pytest.raises(ReadError, match=r"gone\.tif") as told,
            ):
                image.read(0, 0, 0, 50, 50)
            assert "secret" not in str(told.value)
            assert whole.read(0, 0, SIDE, 50, 50).any()


def test_what_was_asked_before_an_image_was_opened_is_not_its_own(tmp_path):
    write(tmp_path / "0.jp2", driver="JP2OpenJPEG")
    with server_of(tmp_path) as log:
        rasterio.open(f"/vsicurl/{log.address}/0.jp2").close()
        assert log.total()[0] > 0
        with open_pyramid(f"{log.address}/0.jp2") as image:
            image.read(0, 100, 200, 300, 400)
            assert (image.requests.count, image.requests.bytes) == log.total()
