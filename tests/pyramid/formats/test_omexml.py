"""What OME-XML, and ImageJ's description, state of a TIFF file."""

import numpy as np
import pytest
import tifffile

from hiresattn.errors import OpenError
from hiresattn.pyramid import open_pyramid
from hiresattn.pyramid.formats import omexml
from tests.images import coded

NAMES = ("DAPI", "CD3", "CD8")
CHANNELS = "".join(f'<Channel ID="Channel:0:{k}" Name="{name}"/>' for k, name in enumerate(NAMES))
SCALE = "PhysicalSizeX='0.25' PhysicalSizeXUnit=\"&#181;m\" PhysicalSizeY='250' PhysicalSizeYUnit='nm'"
PLANES = "".join(f'<TiffData FirstC="{c}" IFD="{k}" PlaneCount="1"/>' for k, c in enumerate((2, 0, 1)))


def described(inside, size=3, head="", uuid=""):
    height, width = coded().shape[:2]
    return (
        f'<?xml version="1.0" encoding="UTF-8"?>{head}<OME xmlns="http://www.openmicroscopy.org/Schemas/OME/2016-06"'
        f'{uuid}><Image ID="Image:0" Name="a &lt;b&gt;"><Pixels ID="Pixels:0" DimensionOrder="XYZCT" Type="uint16" '
        f'SizeX="{width}" SizeY="{height}" SizeC="{size}" SizeZ="1" SizeT="1" {SCALE}>{inside}</Pixels></Image></OME>'
    )


def write(path, xml, order=(2, 0, 1)):
    """Bands of the coded image in pages of their own, in any order."""
    with tifffile.TiffWriter(path) as tif:
        for nth, band in enumerate(order):
            description = {"description": xml.encode(), "software": False} if nth == 0 else {}
            plane = coded(0, "uint16")[:, :, band]
            tif.write(
                plane,
                tile=(128, 128),
                photometric="minisblack",
                metadata=None,
                contiguous=False,
                **description,
            )
    return path


def test_planes_are_in_the_order_of_tiffdata_with_their_names_and_scale(tmp_path):
    with open_pyramid(write(tmp_path / "a.ome.tif", described(CHANNELS + PLANES))) as image:
        np.testing.assert_array_equal(image.read(0, 0, 0, image.height, image.width), coded(0, "uint16"))
        assert image.meta.channel_names == NAMES
        assert image.mpp == 0.25


@pytest.mark.parametrize("own", [True, False])
def test_planes_in_other_files_are_named_and_those_files_not_opened(tmp_path, own):
    uuids = [f"urn:uuid:{k}" for k in range(3)]
    planes = "".join(
        f'<TiffData FirstC="{k}" IFD="0" PlaneCount="1"><UUID FileName="c{k}.ome.tif">{uuid}</UUID></TiffData>'
        for k, uuid in enumerate(uuids)
    )
    xml = described(CHANNELS + planes, uuid=f' UUID="{uuids[2]}"' if own else "")
    with pytest.raises(
        OpenError, match=r"c0.ome.tif, c1.ome.tif hold planes of it, of which c0.ome.tif, c1"
    ) as error:
        open_pyramid(write(tmp_path / "c2.ome.tif", xml, order=(2,)))
    assert "c2.ome.tif," not in str(error.value)


def test_channels_that_the_file_lacks_are_an_error_that_names_them(tmp_path):
    with pytest.raises(OpenError, match="CD3"):
        open_pyramid(write(tmp_path / "a.ome.tif", described(CHANNELS + PLANES), order=(2, 0)))


def test_a_renamed_file_is_itself(tmp_path):
    planes = PLANES.replace("/>", '><UUID FileName="old.ome.tif">urn:uuid:0</UUID></TiffData>')
    xml = described(CHANNELS + planes, uuid=' UUID="urn:uuid:0"')
    with open_pyramid(write(tmp_path / "new.ome.tif", xml)) as image:
        assert image.channels == 3


@pytest.mark.parametrize(
    "head",
    [
        '<!DOCTYPE OME [<!ENTITY x SYSTEM "file:///etc/hostname">]>',
        '<!DOCTYPE OME [<!ENTITY a "aaaaaaaa"><!ENTITY b "&a;&a;&a;&a;">]>',
    ],
)
def test_entities_are_refused(tmp_path, head):
    with pytest.raises(OpenError, match="document type"):
        open_pyramid(write(tmp_path / "a.ome.tif", described(CHANNELS + PLANES, head=head)))


def test_text_beyond_bounds_is_refused(tmp_path, monkeypatch):
    monkeypatch.setattr(omexml, "MAX_CHARACTERS", 500)
    with pytest.raises(OpenError, match="at most 500"):
        open_pyramid(write(tmp_path / "a.ome.tif", described(CHANNELS + PLANES)))


@pytest.mark.parametrize("unit", ["um", "micron", "\\u00B5m", "µm"])
def test_imagejs_unit_is_read(tmp_path, unit):
    path = tmp_path / "a.tif"
    description = f"ImageJ=1.54f\nunit={unit}\n".encode()
    options = {"resolution": (4.0, 4.0), "resolutionunit": 1, "metadata": None, "description": description}
    tifffile.imwrite(path, coded(), photometric="rgb", **options)
    with open_pyramid(path) as image:
        assert image.mpp == 0.25


def test_an_imagej_stack_in_one_directory_is_refused(tmp_path):
    path = tmp_path / "a.tif"
    description = b"ImageJ=1.54f\nimages=4\nchannels=2\nslices=2\n"
    tifffile.imwrite(path, coded()[:, :, 0], metadata=None, description=description)
    with pytest.raises(OpenError, match=r"4 images \(2 channels, 2 slices\) in 1 image directory"):
        open_pyramid(path)
