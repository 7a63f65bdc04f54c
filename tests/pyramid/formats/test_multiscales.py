"""Versions and layouts of OME-Zarr."""

import shutil

import numpy as np
import pytest
import zarr

from hiresattn.errors import OpenError
from hiresattn.pyramid import open_pyramid
from tests.images import MPP, coded, edit_json, write_ome_zarr

AXES = "tczyx"
NAMES = ("DAPI", "CD3", "CD8")


def write_group(group, change=None):
    """An OME-Zarr 0.4 image of all axes in a group."""
    array = np.moveaxis(coded(), 2, 0)[None, :, None]
    group.create_array("0", data=array, chunks=(1, 1, 1, 128, 128))
    axes = [{"name": axis, **({"unit": "micrometer"} if axis in "yx" else {})} for axis in AXES]
    scale = {"type": "scale", "scale": [1, 1, 1, MPP, MPP]}
    image = {
        "version": "0.4",
        "axes": axes,
        "datasets": [{"path": "0", "coordinateTransformations": [scale]}],
    }
    if change:
        change(image)
    group.attrs["multiscales"] = [image]


@pytest.mark.parametrize("version", ["0.1", "0.2", None])
def test_axes_of_old_versions_are_always_the_same(tmp_path, version):
    def old(image):
        image["version"] = version
        del image["axes"], image["datasets"][0]["coordinateTransformations"]

    write_group(zarr.open_group(tmp_path / "a.zarr", mode="w", zarr_format=2), old)
    with open_pyramid(tmp_path / "a.zarr") as image:
        np.testing.assert_array_equal(image.read(0, 0, 0, image.height, image.width), coded())


def test_a_later_version_is_named(tmp_path):
    path = write_ome_zarr(tmp_path / "a.zarr", version="0.5")
    edit_json(path / "zarr.json", lambda found: found["attributes"]["ome"].update(version="0.6"))
    with pytest.raises(OpenError, match=r"OME-Zarr 0\.6; possible are 0\.1 to 0\.5"):
        open_pyramid(path)


@pytest.mark.parametrize("listed", [True, False])
def test_the_only_series_of_bioformats_layout_is_opened_one_of_several_is_asked_for(tmp_path, listed):
    root = zarr.open_group(tmp_path / "a.zarr", mode="w", zarr_format=2)
    root.attrs["bioformats2raw.layout"] = 3
    write_group(root.require_group("0"))
    if listed:
        root.require_group("OME").attrs["series"] = ["0"]
    with open_pyramid(tmp_path / "a.zarr") as image:
        assert image.mpp == MPP
        np.testing.assert_array_equal(image.read(0, 9, 9, 50, 60), coded()[9:59, 9:69])
    write_group(root.require_group("1"))
    root.require_group("OME").attrs["series"] = ["0", "1"]
    with pytest.raises(OpenError, match=r"2 images; give the path of one of them: .*a\.zarr/0, .*a\.zarr/1"):
        open_pyramid(tmp_path / "a.zarr")


def test_a_plate_and_a_well_name_a_field(tmp_path):
    root = zarr.open_group(tmp_path / "a.zarr", mode="w", zarr_format=2)
    root.attrs["plate"] = {"wells": [{"path": "B/3"}]}
    well = root.require_group("B/3")
    well.attrs["well"] = {"images": [{"path": "7"}]}
    write_group(well.require_group("7"))
    for path in ("a.zarr", "a.zarr/B/3"):
        with pytest.raises(OpenError, match=r"such as .*a\.zarr/B/3/7$"):
            open_pyramid(tmp_path / path)


def test_a_zipped_store_is_named(tmp_path):
    path = write_ome_zarr(tmp_path / "a.zarr", version="0.5")
    shutil.move(shutil.make_archive(tmp_path / "b", "zip", path), tmp_path / "b.ozx")
    with pytest.raises(OpenError, match="a zipped Zarr store; unpack it"):
        open_pyramid(tmp_path / "b.ozx")


@pytest.mark.parametrize("labels", [NAMES, NAMES[:2]])
def test_names_of_channels_are_read_where_every_band_has_one(tmp_path, labels):
    group = zarr.open_group(tmp_path / "a.zarr", mode="w", zarr_format=2)
    write_group(group)
    group.attrs["omero"] = {"channels": [{"label": label} for label in labels]}
    with open_pyramid(tmp_path / "a.zarr") as image:
        assert image.meta.channel_names == (NAMES if labels == NAMES else None)
