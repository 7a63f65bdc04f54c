"""Files from strangers: GDAL opens formats from a list, and virtual rasters only read what lies beside them."""

import numpy as np
import pytest
from rasterio.shutil import copy

from hiresattn.errors import OpenError
from hiresattn.pyramid import open_pyramid
from hiresattn.pyramid.formats.gdaldrivers import ANYWHERE
from tests.images import write_geotiff

RAW = """<VRTDataset rasterXSize="4" rasterYSize="4"><VRTRasterBand dataType="Byte" band="1"
subClass="VRTRawRasterBand"><SourceFilename relativetoVRT="1">secret</SourceFilename></VRTRasterBand></VRTDataset>"""
WMS = """<GDAL_WMS><Service name="TMS"><ServerUrl>http://127.0.0.1:9/${z}</ServerUrl></Service><DataWindow>
<UpperLeftX>0</UpperLeftX><UpperLeftY>1</UpperLeftY><LowerRightX>1</LowerRightX><LowerRightY>0</LowerRightY>
<TileLevel>2</TileLevel></DataWindow><BandsCount>3</BandsCount></GDAL_WMS>"""


@pytest.mark.parametrize(("text", "said"), [(RAW, "raw bands"), (WMS, "not recognized")])
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
