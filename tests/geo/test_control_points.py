"""Scenes that only ground control points place: coordinates, layers, areas and the raster of attention."""

import json
import warnings
from dataclasses import replace

import geopandas
import numpy as np
import pytest
import rasterio
import shapely
from rasterio import Affine
from rasterio.control import GroundControlPoint
from rasterio.errors import NotGeoreferencedWarning

import hiresattn
from hiresattn.geo import frames, write_attention
from hiresattn.geo.areas import areas_of, windows_of
from hiresattn.inference.read_records import record_from_json
from hiresattn.inference.record import CaseSource
from hiresattn.pyramid import open_pyramid
from hiresattn.pyramid.rescaled import Rescaled
from tests.geo.scenes import DATA, SIDES, at, box_of, record_of, source_of

pytestmark = pytest.mark.filterwarnings("ignore::rasterio.errors.NotGeoreferencedWarning")
MODEL = hiresattn.__path__[0] + "/demo/model"
STRAIGHT = Affine(0.0003, 0.0001, 16.0, 0.0001, -0.0003, 48.0)


def bent(x, y):
    """Coordinates of px, by polynomials of the second order."""
    lon, lat = at(STRAIGHT, x, y)
    return lon + 3e-8 * x * y + 2e-8 * y * y, lat - 4e-8 * x * x + 1e-8 * x * y


def write(path, place, number=3):
    """A scene with ``number`` x ``number`` ground control points."""
    rows, columns = (np.linspace(0, side, number) for side in SIDES)
    points = [GroundControlPoint(y, x, *place(x, y)) for y in rows for x in columns]
    shape = {"height": SIDES[0], "width": SIDES[1], "count": 1, "dtype": "uint8", "tiled": True}
    with rasterio.open(path, "w", driver="GTiff", gcps=points, crs="EPSG:4326", **shape) as file:
        file.write(np.random.default_rng(0).integers(1, 255, (1, *SIDES), dtype=np.uint8))
    return path


@pytest.fixture(params=[lambda x, y: at(STRAIGHT, x, y), bent], ids=["affine", "second order"])
def scene(request, tmp_path):
    """A scene, and the coordinates of its px."""
    return write(tmp_path / "scene.tif", request.param), request.param


def test_places_have_coordinates_and_coordinates_places(scene):
    path, place = scene
    y, x = np.mgrid[0:601:50, 0:801:50].astype(float)
    with open_pyramid(path) as image:
        assert (image.place_crs, image.transform, image.meta.gcps) == ("EPSG:4326", None, 9)
        np.testing.assert_allclose(image.xy(y, x), place(x, y), atol=1e-10)
        rows, columns = image.rowcol(*image.xy(y, x))
        np.testing.assert_allclose([rows, columns], [y, x], atol=1e-6)
        assert image.xy(0, 0) == pytest.approx(place(0, 0))
        assert isinstance(image.xy(0, 0)[0], float)
        coarse = Rescaled(replace_mpp(image, 10.0), 20.0)
        np.testing.assert_allclose(coarse.xy(y / 2, x / 2), place(x, y), atol=1e-10)


def replace_mpp(image, mpp):
    """An image that says its scale."""
    image.mpp, image.meta = mpp, replace(image.meta, mpp=mpp)
    return image


def test_layers_are_where_the_points_put_them(scene):
    path, place = scene
    record = hiresattn.classify(path, MODEL, budget=8)
    (source,) = record.sources
    assert (source.crs, source.transform, len(source.gcps)) == ("EPSG:4326", None, 9)
    again = record_from_json(json.dumps(record.to_json()).encode(), "line")
    assert np.array_equal(again.sources[0].gcps, source.gcps)
    scenes, regions = frames([again])
    assert scenes.crs == regions.crs == "EPSG:4326"
    boxes = [(0, 0, *SIDES), *map(box_of, record.regions)]
    for (y, x, height, width), shape in zip(boxes, [*scenes.geometry, *regions.geometry], strict=True):
        expected = [(x, y), (x, y + height), (x + width, y + height), (x + width, y), (x, y)]
        np.testing.assert_allclose(shape.exterior.coords, [place(*point) for point in expected], atol=1e-10)


def test_an_area_is_found_on_it(scene):
    path, place = scene
    down, across = np.linspace(50, 250, 101), np.linspace(100, 400, 151)
    sides = [(np.full(101, 100), down), (across, np.full(151, 250)), (np.full(101, 400), down[::-1])]
    edges = [place(*side) for side in [*sides, (across[::-1], np.full(151, 50))]]
    area = geopandas.GeoSeries([shapely.Polygon(np.concatenate(edges, axis=1).T)], crs=4326)
    (found,) = windows_of([path], areas_of(area), clip=True)
    assert found.region == (50, 100, 200, 300)


def test_the_raster_of_attention_has_the_points_too(scene, tmp_path):
    path, place = scene
    window = (40, 60, 400, 500)
    source = replace(source_of(path), region=window, crs="EPSG:4326", gcps=control(path))
    record = record_of(source)
    write_attention(replace(record, regions=(replace(record.regions[0], y=40, x=60),)), tmp_path / "a.tif")
    with rasterio.open(tmp_path / "a.tif") as file:
        points, crs = file.gcps
        step = int(file.tags()["HIRESATTN_STEP"])
        assert (crs, len(points), step > 1) == ("EPSG:4326", 9, True)
        for point in points:
            x, y = point.col * step + 60, point.row * step + 40
            assert (point.x, point.y) == pytest.approx(place(x, y), abs=1e-9)


def control(path):
    """The points of a file."""
    with open_pyramid(path) as image:
        return image.control.points


def test_an_array_of_rioxarray_has_them_too(scene):
    rioxarray = pytest.importorskip("rioxarray")
    path, place = scene
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", NotGeoreferencedWarning)
        array = rioxarray.open_rasterio(path)
    with open_pyramid(array) as image:
        assert image.place_crs == "EPSG:4326"
        assert image.xy(30, 70) == pytest.approx(place(70, 30), abs=1e-10)
    part = array.assign_coords(x=np.arange(800) + 0.5, y=np.arange(600) + 0.5)
    with open_pyramid(part.isel(x=slice(100, 300), y=slice(40, 200))) as image:
        assert image.xy(30, 70) == pytest.approx(place(170, 70), abs=1e-10)


def test_points_without_a_crs_place_nothing():
    assert frames([record_of(CaseSource("a.tif", height=9, width=9, gcps=((0, 0, 1, 1),)))])[0].crs is None


@pytest.mark.skipif(not DATA.exists(), reason="needs the shared data")
def test_a_radar_scene_lies_where_gdal_warps_it():
    path = DATA / "sentinel1_gcps_no_transform.tif"
    with open_pyramid(path) as image, rasterio.open(path) as file:
        from rasterio.vrt import WarpedVRT
        from rasterio.warp import transform_bounds

        y, x = np.array([0, image.height, image.height, 0]), np.array([0, 0, image.width, image.width])
        lon, lat = image.xy(y, x)
        with WarpedVRT(file, crs=image.place_crs) as warped:
            bounds = transform_bounds(warped.crs, image.place_crs, *warped.bounds)
            size = max(warped.res)
        assert (lon.min(), lat.min(), lon.max(), lat.max()) == pytest.approx(bounds, abs=2 * size)
