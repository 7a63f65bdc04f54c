"""Records as layers: where they lie, what they say, and in which coordinates."""

import subprocess
import sys
from dataclasses import replace

import numpy as np
import pyproj
import pytest
import rasterio
import shapely
from rasterio import Affine

import hiresattn
from hiresattn.errors import BackendMissingError, ConfigError
from hiresattn.geo import frames
from hiresattn.inference.record import CaseSource, Record
from tests.geo.scenes import DATA, MADE, SIDES, at, box_of, record_of, source_of, write_scene

GEOREFERENCED = (
    "float32_nan_and_nodata.tif", "hirise_mars_rgb.tif", "internal_mask_rgb.tif", "landsat_rgb_utm_nodata0.tif",
    "naip_rgbn_overview.tif", "palette_7168x8704.tif", "sentinel2_60m.jp2", "sentinel2_8band_uint16.tif",
    "umbra_sar_rotated.tif", "world_landmask_36000x18000.tif",
)  # fmt: skip


@pytest.fixture(params=[*MADE, *GEOREFERENCED])
def scene(request, tmp_path):
    """A made scene, or one of the shared data."""
    if request.param in MADE:
        return write_scene(tmp_path / "scene.tif", *MADE[request.param])
    if not DATA.exists():
        pytest.skip("needs the shared data")
    return DATA / request.param


@pytest.fixture
def made(tmp_path):
    """``made("rotated")``: a record of a made scene."""

    def made(name):
        path = write_scene(tmp_path / f"{name}.tif", *MADE[name])
        return record_of(source_of(path))

    return made


def test_corners_are_where_the_files_own_transform_puts_them(scene):
    record = record_of(source_of(scene))
    scenes, regions = frames([record])
    with rasterio.open(scene) as file:
        to_px, crs, sides = ~file.transform, file.crs, file.shape
    assert pyproj.CRS.from_user_input(crs.to_wkt()).equals(regions.crs, ignore_axis_order=True)
    boxes = [(0, 0, *sides), *map(box_of, record.regions)]
    for (y, x, height, width), geometry in zip(boxes, [*scenes.geometry, *regions.geometry], strict=True):
        found = np.array([at(to_px, *point) for point in geometry.exterior.coords])
        expected = [(x, y), (x, y + height), (x + width, y + height), (x + width, y), (x, y)]
        np.testing.assert_allclose(found, expected, atol=1e-6)


@pytest.mark.parametrize("name", MADE)
def test_in_longitude_and_latitude_edges_stay_where_they_are(made, name):
    record = made(name)
    _, regions = frames([record], lon_lat=True)
    assert regions.crs == "EPSG:4326"
    crs, transform = MADE[name]
    to_degrees = pyproj.Transformer.from_crs(crs, "EPSG:4326", always_xy=True)
    for region, geometry in zip(record.regions, regions.geometry, strict=True):
        assert geometry.is_valid
        y, x, height, width = box_of(region)
        inner = np.linspace(0.01, 0.99, 23)
        inside = [at(transform, x + a * width, y + b * height) for a in inner for b in inner]
        outside = [at(transform, x + a * width, y + b * height) for a in inner for b in (-0.01, 1.01)]
        for points, holds in ((inside, True), (outside, False)):
            lon, lat = to_degrees.transform(*np.array(points).T)
            lon = (lon + 180) % 360 - 180
            assert (shapely.intersects_xy(geometry, lon, lat) == holds).all()
        for part in shapely.get_parts(geometry):
            assert part.exterior.is_ccw
            assert part.bounds[0] >= -180
            assert part.bounds[2] <= 180


def test_what_crosses_the_antimeridian_is_cut_there(made):
    scenes, _ = frames([made("antimeridian in degrees")], lon_lat=True)
    (whole,) = scenes.geometry
    west, east = sorted(part.bounds for part in whole.geoms)
    assert west == pytest.approx((-180, 4, -176, 10), abs=1e-9)
    assert east == pytest.approx((176, 4, 180, 10), abs=1e-9)


def test_straight_edges_get_no_points(made):
    _, regions = frames([made("antimeridian in degrees")])
    assert {len(geometry.exterior.coords) for geometry in regions.geometry} == {5}


def test_scenes_of_several_crs_are_in_degrees_and_keep_their_code(made):
    scenes, regions = frames([made("north-up"), made("rotated")])
    assert scenes.crs == regions.crs == "EPSG:4326"
    assert list(scenes["crs"]) == ["EPSG:32618", "EPSG:32759"]
    for name, geometry in zip(("north-up", "rotated"), scenes.geometry, strict=True):
        crs, transform = MADE[name]
        middle = at(transform, SIDES[1] / 2, SIDES[0] / 2)
        lon, lat = pyproj.Transformer.from_crs(crs, "EPSG:4326", always_xy=True).transform(*middle)
        assert geometry.centroid.coords[0] == pytest.approx((lon, lat), abs=1e-3)
    assert list(regions.scene) == [0] * 4 + [1] * 4


def test_without_a_crs_geometries_are_in_px():
    source = CaseSource(source="slide.svs", region=(10, 20, 30, 40), height=100, width=200)
    scenes, regions = frames([record_of(source, regions=())])
    assert scenes.crs is None
    assert scenes.geometry[0].bounds == (20, 10, 60, 40)
    assert regions.empty
    assert regions.crs is None


def test_beside_scenes_with_a_crs_others_have_no_geometry(made, caplog):
    slide = record_of(CaseSource(source="slide.svs", height=100, width=200))
    scenes, regions = frames([made("north-up"), slide])
    assert scenes.crs == "EPSG:32618"
    assert list(scenes.geometry.isna()) == [False, True]
    assert list(regions.geometry.isna()) == [False] * 4 + [True] * 4
    assert "slide.svs" in caplog.text


def test_a_crs_of_another_planet_has_no_place_in_degrees(caplog):
    wkt = pyproj.CRS.from_proj4("+proj=eqc +R=3396190 +units=m").to_wkt("WKT1_GDAL")
    mars = CaseSource("mars.tif", height=9, width=9, crs=wkt, transform=(1.0, 0.0, 0.0, 0.0, -1.0, 0.0))
    scenes, regions = frames([record_of(mars)], lon_lat=True)
    assert scenes.geometry.isna().all()
    assert regions.geometry.isna().all()
    assert "mars.tif: it has no geometry in longitude and latitude" in caplog.text
    assert frames([record_of(mars)])[0].geometry[0].bounds == (0, -9, 9, 0)


def test_a_row_says_what_the_record_says(tmp_path):
    path = write_scene(tmp_path / "a.tif", *MADE["north-up"])
    first, second = source_of(path, region=(1, 2, 30, 40)), source_of(path)
    broken = CaseSource(source="b.tif", error="b.tif: broken")
    record = record_of(
        first, second, broken, case="P1", prediction_set=("port", "airport"), needs_review=True,
        review_reasons=("several classes",), label="port", warnings=("left out: b.tif: broken",),
    )  # fmt: skip
    failed = Record(source="c.tif", status="error", error="c.tif: no such file", region=(0, 0, 5, 5))
    scenes, regions = frames([record, failed])
    assert list(scenes.scene) == [0, 1, 2, 3]
    assert list(scenes.status) == ["ok", "ok", "error", "error"]
    assert list(scenes.source) == [str(path), str(path), "b.tif", "c.tif"]
    row = scenes.iloc[0]
    assert (row.case, row.class_name, row.score, row.prediction_set) == ("P1", "port", 0.75, "port|airport")
    assert row.scores == '{"port": 0.75, "airport": 0.25}'
    assert (row.needs_review, row.review_reasons, row.label, row.bytes_read) == (
        True, "several classes", "port", 2**40,
    )  # fmt: skip
    assert (row.y, row.x, row.height, row.width) == (1, 2, 30, 40)
    assert scenes.class_name.isna().tolist() == [False, False, True, True]
    assert scenes.error.tolist()[2:] == ["b.tif: broken", "c.tif: no such file"]
    assert scenes.geometry.isna().tolist() == [False, False, True, True]
    assert scenes.geometry[0].bounds == (500060, 4499070, 501260, 4499970)
    assert list(regions.scene) == [0] * 4 + [1] * 4
    assert list(regions.parent_id.isna()) == [True, False, False, False] * 2
    assert regions.attention.tolist() == [region.attention for region in record.regions]


def test_an_image_that_failed_after_it_was_opened_has_a_place(tmp_path):
    source = replace(source_of(write_scene(tmp_path / "a.tif", *MADE["north-up"])), error="a.tif: cut short")
    record = Record(source=source.source, status="error", error="a.tif: cut short", sources=(source,))
    scenes, regions = frames([record])
    assert scenes.geometry[0].bounds == (500000, 4482000, 524000, 4500000)
    assert regions.empty


def test_a_missing_package_is_named_with_the_command(monkeypatch):
    monkeypatch.setitem(sys.modules, "geopandas", None)
    with pytest.raises(BackendMissingError, match=r"geopandas.*pip install 'hiresattn\[geo\]'"):
        frames([Record(source="a", status="ok")])


def test_importing_it_loads_no_geopandas():
    code = "import sys, hiresattn.geo; print({'geopandas', 'pandas', 'shapely', 'torch'} & {*sys.modules})"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)  # noqa: S603
    assert done.stdout.strip() == "set()"


@pytest.mark.parametrize("name", MADE)
def test_a_pyramid_gives_coordinates_of_px_and_px_of_coordinates(tmp_path, name):
    crs, transform = MADE[name]
    with hiresattn.open_pyramid(write_scene(tmp_path / "a.tif", crs, transform)) as image:
        rows, columns = np.array([0, 1.5, 600, -3]), np.array([0, 7.25, 800, 900])
        x, y = image.xy(rows, columns)
        np.testing.assert_allclose(
            np.stack([x, y]).T, [at(transform, *px) for px in zip(columns, rows, strict=True)]
        )
        np.testing.assert_allclose(image.rowcol(x, y), [rows, columns], atol=1e-6)
        assert image.rowcol(*image.xy(2, 3)) == pytest.approx((2, 3), abs=1e-6)


def test_an_image_without_a_transform_has_no_coordinates():
    image = hiresattn.open_pyramid(np.zeros((9, 9, 3), np.uint8))
    with pytest.raises(ConfigError, match="no transform"):
        image.xy(0, 0)
    image.transform = (1.0, 2.0, 0.0, 2.0, 4.0, 0.0)
    with pytest.raises(ConfigError, match="can't be inverted"):
        image.rowcol(0, 0)


def test_px_of_a_rescaled_image_are_placed_by_its_own_transform(tmp_path):
    from hiresattn.pyramid.rescaled import at_scale

    path = write_scene(tmp_path / "a.tif", "EPSG:32618", Affine(30, 0, 500000, 0, -30, 4500000))
    with hiresattn.open_pyramid(path) as image:
        half = at_scale(image, 60e6)
        assert (half.height, half.width) == (300, 400)
        assert half.xy(300, 400) == pytest.approx(image.xy(600, 800), abs=20)
