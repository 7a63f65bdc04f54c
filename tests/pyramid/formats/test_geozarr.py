"""Place, nodata and mask that a Zarr group states beside OME-Zarr."""

import json

import numpy as np
import pytest

from hiresattn.errors import OpenError
from hiresattn.pyramid import open_pyramid
from tests.images import SHAPES, coded, edit_json, write_ome_zarr


@pytest.fixture
def store(tmp_path):
    return write_ome_zarr(tmp_path / "a.zarr", version="0.5")


def say(store, **attributes):
    edit_json(store / "zarr.json", lambda content: content["attributes"].update(attributes))
    return store


def test_place_and_nodata_are_read(store):
    attributes = {
        "proj:code": "EPSG:32633",
        "spatial:transform": [2, 0, 5e5, 0, -2, 5e6],
        "hiresattn": {"nodata": 0},
    }
    with open_pyramid(say(store, **attributes)) as pyramid:
        assert (pyramid.crs, pyramid.nodata) == ("EPSG:32633", 0)
        assert pyramid.transform == (2, 0, 5e5, 0, -2, 5e6)
    with open_pyramid(store, nodata=7) as pyramid:
        assert pyramid.nodata == 7


def test_a_nodata_value_of_nan_is_read(store):
    with open_pyramid(say(store, hiresattn={"nodata": "nan"})) as pyramid:
        assert np.isnan(pyramid.nodata)


def test_a_mask_says_what_is_valid_and_its_absent_chunks_say_no(store):
    import zarr

    group = zarr.open_group(store, mode="r+")
    for k, shape in enumerate(SHAPES):
        mask = group.create_array(f"m/{k}", shape=shape, chunks=(64, 64), dtype="uint8", fill_value=0)
        mask[:64, :70] = 1
    say(store, hiresattn={"valid": "m"})
    with open_pyramid(store) as pyramid:
        found = pyramid.read_masked(0, 40, 60, 40, 40)
        assert found.missing_tiles == 0
        expected = np.zeros((40, 40), bool)
        expected[:24, :10] = True
        np.testing.assert_array_equal(found.valid, expected)
        np.testing.assert_array_equal(found.data, coded(dtype="uint16")[40:80, 60:100])


@pytest.mark.parametrize(
    "attributes",
    [
        {"hiresattn": {"nodata": "none of it"}},
        {"hiresattn": [1]},
        {"spatial:transform": [1, 2, 3]},
        {"spatial:transform": "here"},
        {"hiresattn": {"valid": "absent"}},
        {"hiresattn": {"valid": ""}},
    ],
    ids=json.dumps,
)
def test_damaged_attributes_are_refused_by_name(store, attributes):
    with pytest.raises(OpenError, match=r"a\.zarr: its (attributes of georeference|mask)"):
        open_pyramid(say(store, **attributes))
