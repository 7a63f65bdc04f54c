"""JPEG to COG: the same px, at the right place, readable in parts."""

import shutil

import numpy as np
import pytest
import rasterio

from hiresattn import open_pyramid
from hiresattn.errors import ConfigError
from hiresattn.fmow.cog import Converted, convert
from hiresattn.fmow.index import Row, rows
from hiresattn.fmow.tree import Skipped, View, scan


@pytest.fixture
def views(tree):
    """The views of val, whose place is known."""
    return [view for view in scan(tree.root, splits=("val",)) if isinstance(view, View)]


@pytest.fixture
def copied(views, tmp_path):
    """A view whose files may be spoilt."""
    from dataclasses import replace

    image = tmp_path / "in" / views[-1].image.name
    image.parent.mkdir()
    shutil.copy(views[-1].image, image)
    return replace(views[-1], image=image)


def pixels(source, level=0):
    with open_pyramid(source) as pyramid:
        size = pyramid.levels[level]
        return pyramid.read(level, 0, 0, size.height, size.width)


def test_px_stay_as_they_are_and_overviews_are_averages(views, tmp_path):
    (made,) = convert(views[:1], tmp_path)
    assert made.output == tmp_path / "val" / "airport" / "airport_1" / f"{views[0].image.stem}.tif"
    fine = pixels(views[0].image)
    np.testing.assert_array_equal(pixels(made.output), fine)
    rows, columns = (side // 2 * 2 for side in fine.shape[:2])
    means = fine[:rows, :columns].reshape(rows // 2, 2, columns // 2, 2, 3).mean((1, 3))
    coarse = pixels(made.output, 1)[: rows // 2, : columns // 2]
    assert np.abs(coarse - means).mean() < 3  # stripes of 6 px: nearest neighbours are 20 off
    assert np.abs(fine[:rows:2, :columns:2] - means).mean() > np.abs(coarse - means).mean()


def test_it_is_tiled_with_overviews_and_says_where_it_comes_from(views, tmp_path):
    (made,) = convert(views[:1], tmp_path)
    with rasterio.open(made.output) as image:
        assert image.tags(ns="IMAGE_STRUCTURE")["LAYOUT"] == "COG"
        assert image.block_shapes == [(256, 256)] * 3
        assert image.overviews(1)[0] == 2
        assert image.tags()["HIRESATTN_SOURCE"] == views[0].image.name
        assert image.tags()["FMOW_TIMESTAMP"] == views[0].metadata.timestamp
        assert image.crs == "EPSG:4326"


def test_a_boxs_polygon_is_its_px(tree, views, tmp_path):
    for made, view in zip(convert(views, tmp_path), views, strict=True):
        with rasterio.open(made.output) as image:
            for box in view.metadata.boxes:
                if box.id < 0 or "false" in box.category:
                    continue
                west, south, east, north = tree.boxes[box.id]["bounds"][view.frame]
                window = rasterio.windows.from_bounds(west, south, east, north, image.transform)
                found = (window.row_off, window.col_off, window.height, window.width)
                assert found == pytest.approx((box.y, box.x, box.height, box.width), abs=0.01)


def test_the_new_tree_is_indexed_with_the_old_ones_metadata(tree, tmp_path):
    made = [one for one in convert(scan(tree.root, splits=("test",)), tmp_path) if isinstance(one, Converted)]
    assert made
    assert all(one.georeferenced and not one.existed for one in made)
    before, after = (
        [
            row
            for row in rows(scan(tree.root, splits=("test",), **where), window="context")
            if isinstance(row, Row)
        ]
        for where in ({}, {"images": tmp_path})
    )
    assert {row.view.image.suffix for row in after} == {".tif"}
    assert [(row.label, row.region) for row in after] == [(row.label, row.region) for row in before]


def test_an_image_of_no_known_place_is_converted_without(views, tmp_path):
    from dataclasses import replace

    lost = replace(views[0], metadata=replace(views[0].metadata, bounds=None))
    (made,) = convert([lost], tmp_path)
    assert not made.georeferenced
    np.testing.assert_array_equal(pixels(made.output), pixels(views[0].image))


def test_what_is_there_is_left_unless_asked(views, tmp_path):
    (made,) = convert(views[:1], tmp_path)
    before = made.output.stat().st_mtime_ns
    (again,) = convert(views[:1], tmp_path)
    assert (again.existed, made.output.stat().st_mtime_ns) == (True, before)
    (anew,) = convert(views[:1], tmp_path, overwrite=True)
    assert not anew.existed
    assert made.output.stat().st_mtime_ns > before


def test_jpeg_is_smaller_and_about_the_same(views, tmp_path):
    (lossless,) = convert(views[:1], tmp_path / "a")
    (lossy,) = convert(views[:1], tmp_path / "b", compress="jpeg")
    assert lossy.output.stat().st_size < lossless.output.stat().st_size / 2
    difference = pixels(lossy.output).astype(int) - pixels(lossless.output)
    assert 0 < np.abs(difference).mean() < 5


@pytest.mark.parametrize("kept", [0.5, 0.0])
def test_a_damaged_jpeg_is_left_out_and_leaves_nothing_behind(copied, tmp_path, kept):
    data = copied.image.read_bytes()
    copied.image.write_bytes(data[: int(len(data) * kept)])
    (skipped,) = convert([copied], tmp_path / "out")
    assert isinstance(skipped, Skipped)
    assert skipped.reason == "can't be converted"
    assert skipped.detail.startswith(f"{copied.image}: damaged or cut short")
    assert [path for path in (tmp_path / "out").rglob("*") if path.is_file()] == []


def test_an_image_of_another_size_than_its_metadata_says_is_left_out(copied, tmp_path):
    from dataclasses import replace

    wrong = replace(copied, metadata=replace(copied.metadata, height=copied.metadata.height + 1))
    (skipped,) = convert([wrong], tmp_path / "out")
    assert "boxes and place would be wrong" in skipped.detail


def test_a_geotiff_is_converted_as_it_is(copied, tmp_path):
    from dataclasses import replace

    (first,) = convert([copied], tmp_path / "a")
    (second,) = convert([replace(copied, image=first.output)], tmp_path / "b")
    np.testing.assert_array_equal(pixels(second.output), pixels(copied.image))
    with rasterio.open(first.output) as one, rasterio.open(second.output) as two:
        assert one.transform == two.transform
    (bad,) = convert([replace(copied, image=first.output.with_name("none.tif"))], tmp_path / "c")
    assert "none.tif" in bad.detail


def test_options_that_cant_be_used(views, tmp_path):
    with pytest.raises(ConfigError, match="did you mean 'deflate'"):
        list(convert(views, tmp_path, compress="deflated"))
    with pytest.raises(ConfigError, match="1 to 100"):
        list(convert(views, tmp_path, quality=0))
    (tmp_path / "val").touch()
    with pytest.raises(ConfigError, match="can't be written"):
        list(convert(views, tmp_path))
