"""One JSON file, of whichever release."""

import json

import pytest

from hiresattn.errors import ConfigError
from hiresattn.fmow.index import ground_px
from hiresattn.fmow.metadata import Box, parse_metadata

#: As the facts give it: fountain_514_1, with a polygon made up for it at 47.4 degrees north.
SAMPLE = {
    "gsd": 0.468,
    "img_filename": "fountain_514_1_rgb.tif",
    "img_width": 977,
    "img_height": 663,
    "cloud_cover": 0,
    "country_code": "CHE",
    "timestamp": "2012-04-02T10:32:22Z",
    "bounding_boxes": [{"ID": 47768, "box": [466, 299, 72, 60], "category": "fountain", "visible": "True"}],
}


def parse(**changes):
    values = {name: value for name, value in {**SAMPLE, **changes}.items() if value is not ...}
    return parse_metadata(json.dumps(values), "here.json")


def test_boxes_are_left_top_width_height_in_the_file_and_rows_first_here():
    found = parse()
    assert (found.height, found.width, found.gsd) == (663, 977, 0.468)
    assert found.boxes == (Box(47768, 299, 466, 60, 72, "fountain"),)
    assert (found.timestamp, found.country_code, found.cloud_cover) == ("2012-04-02T10:32:22Z", "CHE", "0")


def test_a_single_box_may_stand_without_its_list():
    assert parse(bounding_boxes=SAMPLE["bounding_boxes"][0]) == parse()


def test_the_test_sets_boxes_have_no_category_and_older_files_call_nothing_unknown():
    boxes = [{"ID": 1, "box": [0, 0, 9, 9]}, {"ID": 2, "box": [0, 0, 9, 9], "category": "unknown"}]
    assert [box.category for box in parse(bounding_boxes=boxes).boxes] == [None, "false_detection"]


@pytest.mark.parametrize("boxes", [[], None, ...])
def test_no_boxes_is_none(boxes):
    assert parse(bounding_boxes=boxes).boxes == ()


def test_bounds_are_the_polygons_whatever_its_order_and_notation():
    text = "POLYGON((7.5 47.4, 7.5045 4.7403e1, 7.5045 47.4, 7.5 47.403, 7.5 47.4))"
    assert parse(raw_location=text).bounds == (7.5, 47.4, 7.5045, 47.403)
    assert parse().bounds is None


def test_a_px_on_the_ground_is_the_mean_of_its_oblong_sides():
    # The facts: 4.597e-6 x 4.595e-6 degrees are 0.346 m x 0.511 m there.
    west, south = 7.5, 47.4
    east, north = west + 977 * 4.597e-6, south + 663 * 4.595e-6
    corners = ", ".join(f"{x} {y}" for x, y in [(west, north), (east, north), (east, south), (west, south)])
    size = ground_px(parse(raw_location=f"POLYGON (({corners}))"))
    assert size == pytest.approx(1e6 * (0.346 * 0.511) ** 0.5, rel=3e-3)
    assert ground_px(parse()) is None


@pytest.mark.parametrize(
    ("changes", "complaint"),
    [
        ({"img_width": ...}, "no 'img_width'"),
        ({"img_height": 0}, "977 x 0 px"),
        ({"img_height": "tall"}, "not the metadata"),
        ({"bounding_boxes": [[1, 2, 3, 4]]}, "not the metadata"),
        ({"bounding_boxes": [{"ID": 1, "box": [1, 2, 3]}]}, "not the metadata"),
        ({"bounding_boxes": [{"ID": 1}]}, "no 'box'"),
        ({"raw_location": "POINT (1 2)"}, "is no polygon"),
        ({"raw_location": "POLYGON ((1 2, 3 2, 5 2, 1 2))"}, "has no area"),
        ({"raw_location": 7}, "not the metadata"),
    ],
)
def test_what_cant_be_used_names_the_file(changes, complaint):
    with pytest.raises(ConfigError, match=complaint) as raised:
        parse(**changes)
    assert str(raised.value).startswith("here.json: ")


@pytest.mark.parametrize("text", ["", "{", "[" * 100_000, b"\xff\xfe\x00", "[1]", "null"])
def test_what_is_no_json_of_a_view_names_the_file(text):
    with pytest.raises(ConfigError, match=r"^here\.json: "):
        parse_metadata(text, "here.json")
