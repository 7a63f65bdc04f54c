"""Files from strangers: GDAL opens formats from a list, and virtual rasters only read what lies beside them."""

import numpy as np
import pytest
import rasterio
from rasterio.shutil import copy
from rasterio.vrt import WarpedVRT

from hiresattn.errors import OpenError
from hiresattn.pyramid import open_pyramid
from hiresattn.pyramid.formats.vrt import ANYWHERE
from tests.images import write_geotiff

RAW = """<VRTDataset rasterXSize="4" rasterYSize="4"><VRTRasterBand dataType="Byte" band="1"
subClass="VRTRawRasterBand"><SourceFilename relativetoVRT="1">secret</SourceFilename></VRTRasterBand></VRTDataset>"""
WMS = """<GDAL_WMS><Service name="TMS"><ServerUrl>http://127.0.0.1:9/${z}</ServerUrl></Service><DataWindow>
<UpperLeftX>0</UpperLeftX><UpperLeftY>1</UpperLeftY><LowerRightX>1</LowerRightX><LowerRightY>0</LowerRightY>
<TileLevel>2</TileLevel></DataWindow><BandsCount>3</BandsCount></GDAL_WMS>"""


@pytest.mark.parametrize(("text", "said"), [(RAW, "raw bands"), (WMS, "no reader knows this file")])
@pytest.mark.parametrize("name", ["a.vrt", "a.xml", "a.tif"])
def test_descriptions_of_raw_bytes_or_of_servers_are_refused_whatever_their_suffix(
    tmp_path, text, said, name
):
    (tmp_path / "secret").write_bytes(bytes(16))
    (tmp_path / name).write_text(text)
    with pytest.raises(OpenError, match=said):
        open_pyramid(tmp_path / name)


def test_a_virtual_raster_reads_what_lies_beside_it_and_counts_its_bytes(tmp_path, monkeypatch):
    inside, outside = tmp_path / "inside", tmp_path / "outside"
    inside.mkdir()
    outside.mkdir()
    own, other = write_geotiff(inside / "a.tif"), write_geotiff(outside / "b.tif")
    copy(own, inside / "a.vrt", driver="VRT")
    copy(other, inside / "b.vrt", driver="VRT")
    copy(inside / "b.vrt", inside / "c.vrt", driver="VRT")
    with open_pyramid(inside / "a.vrt") as pyramid, open_pyramid(own) as truth:
        assert np.array_equal(pyramid.read(0, 0, 0, 64, 64), truth.read(0, 0, 0, 64, 64))
        assert pyramid.meta.nbytes == own.stat().st_size
    for name in ("b.vrt", "c.vrt"):
        with pytest.raises(OpenError, match=f"doesn't lie beside it.*{ANYWHERE}=1"):
            open_pyramid(inside / name)
    monkeypatch.setenv(ANYWHERE, "1")
    open_pyramid(inside / "b.vrt").close()


def test_where_a_virtual_raster_has_no_source_it_is_not_valid(tmp_path):
    own = write_geotiff(tmp_path / "a.tif")
    with open_pyramid(own) as truth:
        height, width = truth.height, truth.width
        whole = truth.read(0, 0, 0, height, width)
    parts = [(1, 0), (1, width + 100), (2, 0)]  # band 2 has nothing on the right
    bands = "".join(
        f'<VRTRasterBand dataType="Byte" band="{band}">'
        + "".join(
            f'<SimpleSource><SourceFilename relativeToVRT="1">a.tif</SourceFilename><SourceBand>{band}</SourceBand>'
            f'<SrcRect xOff="0" yOff="0" xSize="{width}" ySize="{height}"/>'
            f'<DstRect xOff="{x}" yOff="0" xSize="{width}" ySize="{height}"/></SimpleSource>'
            for number, x in parts
            if number == band
        )
        + "</VRTRasterBand>"
        for band in (1, 2)
    )
    (tmp_path / "a.vrt").write_text(
        f'<VRTDataset rasterXSize="{2 * width + 100}" rasterYSize="{height}">{bands}</VRTDataset>'
    )
    with open_pyramid(tmp_path / "a.vrt") as pyramid:
        found = pyramid.read_by_band(0, 0, 0, height, 2 * width + 100)
        edge = pyramid.read_masked(0, 5, width - 3, 2, 6, bands=(0,))
    assert np.array_equal(found.data[:, -width:, 0], whole[:, :, 0])
    wanted = np.zeros(found.data.shape, bool)
    wanted[:, :width] = wanted[:, -width:, 0] = True
    assert np.array_equal(found.valid, wanted)
    assert edge.valid.tolist() == [[True] * 3 + [False] * 3] * 2


def test_where_the_source_of_a_source_has_no_source_it_is_not_valid(tmp_path):
    write_geotiff(tmp_path / "a.tif")
    with open_pyramid(tmp_path / "a.tif") as truth:
        height, width = truth.height, truth.width
        whole = truth.read(0, 0, 0, height, width)

    def vrt(name, source, size, of, to):
        rectangles = "".join(
            f'<{kind} xOff="{x}" yOff="{y}" xSize="{w}" ySize="{h}"/>'
            for kind, (y, x, h, w) in (("SrcRect", of), ("DstRect", to))
        )
        (tmp_path / name).write_text(
            f'<VRTDataset rasterXSize="{size[1]}" rasterYSize="{size[0]}"><VRTRasterBand dataType="Byte" band="1">'
            f'<SimpleSource><SourceFilename relativeToVRT="1">{source}</SourceFilename><SourceBand>1</SourceBand>'
            f"{rectangles}</SimpleSource></VRTRasterBand></VRTDataset>"
        )

    vrt("inner.vrt", "a.tif", (height, 2 * width), (0, 0, height, width), (0, width, height, width))
    vrt("outer.vrt", "inner.vrt", (height, 2 * width), (0, width // 2, height, width), (0, 8, height, width))
    with open_pyramid(tmp_path / "outer.vrt") as pyramid:
        found = pyramid.read_masked(0, 0, 0, height, 2 * width)
    wanted = np.zeros((height, 2 * width), bool)
    wanted[:, 8 + width - width // 2 : 8 + width] = True
    assert np.array_equal(found.valid, wanted)
    assert np.array_equal(found.data[wanted][:, 0], whole[:, : width // 2, 0].ravel())


@pytest.mark.parametrize("as_object", [False, True])
def test_where_the_source_of_a_warped_raster_does_not_reach_it_is_not_valid(tmp_path, as_object):
    utm = {"crs": "EPSG:32633", "transform": rasterio.transform.from_origin(200_000, 5_400_000, 10, 10)}
    shape = {"driver": "GTiff", "width": 256, "height": 256, "count": 2, "dtype": "uint16"}
    with rasterio.open(tmp_path / "a.tif", "w", **shape, **utm) as file:
        file.write(np.full((2, 256, 256), 900, np.uint16))
    with rasterio.open(tmp_path / "a.tif") as source, WarpedVRT(source, crs="EPSG:4326") as warped:
        copy(warped, tmp_path / "warped.vrt", driver="VRT")
        with open_pyramid(warped if as_object else tmp_path / "warped.vrt") as pyramid:
            found = pyramid.read_masked(0, 0, 0, pyramid.height, pyramid.width)
            assert pyramid.channels == 2
    assert found.valid is not None
    assert np.array_equal(found.valid, (found.data > 0).all(axis=2))
    assert 0.8 < found.valid.mean() < 0.95
