"""Areas of interest become windows of scenes: the px around them, cut to the scene, and a clear error elsewhere."""

import geopandas
import numpy as np
import pyproj
import pytest
import rasterio
import shapely
from rasterio import Affine
from rasterio.enums import Resampling
from rasterio.features import geometry_mask

import hiresattn.geo
from hiresattn.card import read_card
from hiresattn.datasets.example import Example
from hiresattn.datasets.sources import Unusable
from hiresattn.errors import ConfigError
from hiresattn.geo.areas import areas_of, box_area, read_areas, windows_of
from hiresattn.inference.options import ClassifyOptions
from hiresattn.inference.records_file import RecordsFile
from hiresattn.pyramid import open_pyramid
from hiresattn.pyramid.clipped import Clipped
from tests.geo.scenes import DATA, MADE, SIDES, at, write_scene

MODEL = hiresattn.__path__[0] + "/demo/model"
WINDOW = (50, 100, 200, 300)


@pytest.fixture(params=MADE)
def scene(request, tmp_path):
    """The name of a made scene, and its file."""
    return request.param, write_scene(tmp_path / "scene.tif", *MADE[request.param])


def outline(name, window=WINDOW):
    """A window of a made scene as an area in its CRS."""
    crs, transform = MADE[name]
    y, x, height, width = window
    px = [(x, y), (x, y + height), (x + width, y + height), (x + width, y)]
    return geopandas.GeoSeries([shapely.Polygon([at(transform, *one) for one in px])], crs=crs)


def test_an_area_in_the_scenes_crs_is_exactly_its_px(scene):
    name, path = scene
    (found,) = windows_of([path], areas_of(outline(name)))
    assert (found.source, found.case) == (path, "0")
    near = 1 if name == "around the pole" else 0  # edges are far from straight in degrees
    assert np.array(found.region) == pytest.approx(WINDOW, abs=near)


def test_a_box_in_degrees_is_the_px_around_it(scene):
    name, path = scene
    if name == "around the pole":
        pytest.skip("a box in degrees is no box there")
    crs, transform = MADE[name]
    to_crs = pyproj.Transformer.from_crs("EPSG:4326", crs, always_xy=True)
    to_degrees = pyproj.Transformer.from_crs(crs, "EPSG:4326", always_xy=True)
    lon, lat = to_degrees.transform(*at(transform, SIDES[1] / 2, SIDES[0] / 2))
    lon = (lon + 180) % 360 - 180
    size = 50 * np.hypot(transform.a, transform.d) / (1 if crs == "EPSG:4326" else 111_000)
    west, east = ((lon + step + 180) % 360 - 180 for step in (-size, size))
    (found,) = windows_of([path], [box_area(west, lat - size, east, lat + size)])
    lon, lat = np.meshgrid(lon + np.linspace(-size, size, 99), lat + np.linspace(-size, size, 99))
    if crs == "EPSG:4326":
        lon = np.where(lon < 0, lon + 360, lon)
        x, y = lon.ravel(), lat.ravel()
    else:
        x, y = to_crs.transform(lon.ravel(), lat.ravel())
    columns, rows = at(~transform, x, y)
    y, x, height, width = found.region
    assert (y, x) == pytest.approx((rows.min(), columns.min()), abs=1.05)
    assert (y + height, x + width) == pytest.approx((rows.max(), columns.max()), abs=1.05)
    assert y <= rows.min() + 0.01
    assert y + height >= rows.max() - 0.01


def test_what_reaches_beyond_the_scene_is_cut(scene):
    name, path = scene
    (found,) = windows_of([path], areas_of(outline(name, (-100, -50, 150, 90))))
    assert found.region == (0, 0, 50, 40)
    (found,) = windows_of([path], areas_of(outline(name, (-1, -1, SIDES[0] + 2, SIDES[1] + 2))))
    assert found.region == (0, 0, *SIDES)


def with_holes(name):
    """Two polygons, one of them with a hole, in a made scene's CRS."""
    _, transform = MADE[name]
    rings = [
        [(120.3, 60.2), (380.7, 90.4), (340.1, 240.9), (150.5, 200.6)],
        [(200.2, 120.1), (280.4, 130.3), (230.6, 180.8)],
        [(385.1, 245.2), (399.6, 250.7), (390.2, 262.4)],
    ]
    outer, hole, other = ([at(transform, *point) for point in ring] for ring in rings)
    return shapely.MultiPolygon([shapely.Polygon(outer, [hole]), shapely.Polygon(other)])


@pytest.mark.parametrize("name", ["north-up", "rotated", "south-up", "antimeridian in degrees"])
@pytest.mark.parametrize("own", [True, False], ids=["in its CRS", "in another"])
def test_what_lies_outside_of_an_area_is_not_valid_when_clipped(name, own, tmp_path):
    crs, transform = MADE[name]
    path = write_scene(tmp_path / "scene.tif", crs, transform)
    with rasterio.open(path, "r+") as file:
        file.build_overviews([2, 4], Resampling.average)
    shape = with_holes(name)
    frame = geopandas.GeoSeries([shape], crs=crs)
    if not own:
        frame = frame.segmentize(transform.a).to_crs(3857 if crs == "EPSG:4326" else 4326)
    (found,) = windows_of([path], areas_of(frame), clip=True)
    (around,) = windows_of([path], areas_of(frame))
    assert (found.region, around.outline) == (around.region, None)
    with open_pyramid(path) as image, Clipped(image, found.outline) as clipped:
        assert len(clipped.levels) == 3
        for number, level in enumerate(clipped.levels):
            step = transform @ Affine.scale(level.downsample)
            inside = geometry_mask([shape], (level.height, level.width), step, invert=True)
            valid = clipped.read_masked(number, 0, 0, level.height, level.width).valid
            near = np.argwhere(valid != inside) + 0.5  # where points of an edge in another CRS are rounded
            edges = shapely.distance(
                shape.boundary, shapely.points(np.reshape([at(step, x, y) for y, x in near], (-1, 2)))
            )
            assert (edges < 0.01 * abs(transform.a)).all()
            assert not own or not len(near)
            y, x = 40 // (number + 1), 90 // (number + 1)
            part = clipped.read_masked(number, y, x, 64, 64).valid
            assert np.array_equal(
                np.ones((64, 64), bool) if part is None else part, valid[y : y + 64, x : x + 64]
            )
        tile = clipped.read_tile(0, 0, 0)
        assert np.array_equal(tile.valid, valid_of(clipped)[: tile.data.shape[0], : tile.data.shape[1]])


def valid_of(image):
    """Which px of level 0 are valid."""
    return image.read_masked(0, 0, 0, image.height, image.width).valid


def test_regions_outside_of_an_area_are_not_looked_at(tmp_path):
    path = write_scene(tmp_path / "scene.tif", *MADE["north-up"])
    corner = [(100, 50), (700, 50), (700, 80), (130, 80), (130, 550), (100, 550)]
    bent = shapely.Polygon([at(MADE["north-up"][1], *point) for point in corner])
    fields = geopandas.GeoDataFrame(geometry=[bent], crs=MADE["north-up"][0])
    inside = geometry_mask(fields.geometry, SIDES, MADE["north-up"][1], invert=True)
    for policy in ("best-first", "exhaustive"):
        how = {"policy": policy, "budget": 200, "stop": None, "bands": (1,)}
        _, whole = hiresattn.geo.classify(path, MODEL, regions=fields, **how)
        _, looked_at = hiresattn.geo.classify(path, MODEL, regions=fields, clip=True, **how)
        assert 1 < len(looked_at) < len(whole)
        for one in looked_at.itertuples():
            assert inside[one.y : one.y + one.height, one.x : one.x + one.width].any()


def test_the_same_window_with_another_outline_is_another_question(tmp_path):
    path = str(write_scene(tmp_path / "scene.tif", *MADE["north-up"], count=3))
    areas = areas_of(outline("north-up"))
    asked = [*windows_of([path], areas, clip=True), *windows_of([path], areas)]
    with RecordsFile(tmp_path / "r.jsonl", read_card(MODEL), ClassifyOptions()) as file:
        assert file.key(asked[0]) != file.key(asked[1])


def test_an_area_elsewhere_is_an_error_with_its_name(tmp_path):
    path = write_scene(tmp_path / "scene.tif", *MADE["north-up"])
    areas = areas_of(geopandas.GeoSeries([shapely.box(0, 0, 1, 1)], index=["sea"], crs=4326))
    (found,) = windows_of([path], areas)
    assert found == Unusable("area sea", "area sea: no part of it lies on the scene", case="sea")
    (found,) = windows_of([path], [box_area(0, 0, 1, 1)])
    assert found.source == str(path)
    assert "the box 0,0,1,1 (W,S,E,N) lies outside of it" in found.error


def test_what_can_not_be_placed_is_an_error_of_its_own(tmp_path):
    good = write_scene(tmp_path / "good.tif", *MADE["north-up"])
    unplaced = np.zeros((64, 64, 3), np.uint8)
    gone = Unusable("gone.tif", "gone.tif: there is no such file")
    found = windows_of([unplaced, tmp_path / "no.tif", gone, good], areas_of(outline("north-up")))
    assert [type(one) for one in found] == [Unusable, Unusable, Unusable, Example]
    assert "no coordinate system" in found[0].error
    assert "no.tif" in found[1].error


def test_an_area_on_several_scenes_is_a_case(tmp_path):
    paths = [write_scene(tmp_path / f"{name}.tif", *MADE["north-up"]) for name in "ab"]
    found = windows_of(paths, areas_of(outline("north-up").set_axis(["field"])))
    assert [(one.source, one.region, one.case) for one in found] == [
        (path, WINDOW, "field") for path in paths
    ]


def test_an_area_is_cut_to_the_window_of_an_example(tmp_path):
    path = write_scene(tmp_path / "scene.tif", *MADE["north-up"])
    (found,) = windows_of([Example(path, region=(0, 0, 100, 150), case="P")], areas_of(outline("north-up")))
    assert (found.region, found.case) == ((50, 100, 50, 50), "P/0")


def test_areas_of_a_file_are_called_by_their_id_or_number(tmp_path):
    frame = geopandas.GeoDataFrame({"id": ["a", "b"]}, geometry=[shapely.box(0, 0, 1, 1)] * 2, crs=4326)
    frame.to_file(tmp_path / "a.gpkg")
    assert [area.name for area in read_areas(tmp_path / "a.gpkg")] == ["a", "b"]
    frame.assign(id=["a", "a"]).to_parquet(tmp_path / "a.parquet")
    assert [area.name for area in read_areas(tmp_path / "a.parquet")] == ["1", "2"]
    with pytest.raises(ConfigError, match=r"no\.gpkg: areas can't be read"):
        read_areas(tmp_path / "no.gpkg")
    frame.set_crs(None, allow_override=True).to_parquet(tmp_path / "b.parquet")
    with pytest.raises(ConfigError, match="have no CRS"):
        read_areas(tmp_path / "b.parquet")


def test_names_that_are_there_twice_are_refused():
    twice = geopandas.GeoSeries([shapely.box(0, 0, 1, 1)] * 2, index=["a", "a"], crs=4326)
    with pytest.raises(ConfigError, match="'a' twice"):
        areas_of(twice)


def test_bow_ties_and_empty_rows_cost_no_other(tmp_path):
    path = write_scene(tmp_path / "scene.tif", *MADE["north-up"])
    good = outline("north-up")[0]
    ring = list(good.exterior.coords)
    tie = shapely.Polygon([ring[0], ring[2], ring[1], ring[3]])
    frame = geopandas.GeoSeries([None, tie, good], crs="EPSG:32618")
    found = windows_of([path], areas_of(frame))
    assert [one.case for one in found] == ["1", "2", "0"]
    assert found[1].region == WINDOW
    assert isinstance(found[2], Unusable)


def test_polygons_in_rows_out(tmp_path):
    model = hiresattn.load_model(MODEL)
    path = write_scene(tmp_path / "scene.tif", *MADE["south-up"])
    fields = geopandas.GeoDataFrame(
        {"crop": ["rye", "oats", "none"]},
        geometry=[
            outline("south-up")[0],
            outline("south-up", (300, 400, 120, 130))[0],
            outline("south-up", (9000, 9000, 9, 9))[0],
        ],
        index=[7, 3, 5],
        crs="EPSG:32633",
    ).to_crs(3857)
    scenes, looked_at = hiresattn.geo.classify(
        path, model, regions=fields, attention=tmp_path / "maps", policy="lowres"
    )
    rows = scenes.set_index("area").loc[fields.index]
    assert rows.status.tolist() == ["ok", "ok", "error"]
    for (y, x, height, width), row in zip([WINDOW, (300, 400, 120, 130)], rows.itertuples(), strict=False):
        found = np.array([row.y, row.x, row.y + row.height, row.x + row.width])
        assert found == pytest.approx((y, x, y + height, x + width), abs=1)
    assert scenes.crs == "EPSG:32633"
    assert set(looked_at.case) == {"7", "3"}
    names = [
        f"scene.tif_{row.y}_{row.x}_{row.height}_{row.width}.attention.tif" for row in rows.itertuples()
    ][:2]
    assert sorted(file.name for file in (tmp_path / "maps").iterdir()) == sorted(names)
    whole, _ = hiresattn.geo.classify([path], model, policy="lowres")
    assert whole.status.tolist() == ["ok"]


@pytest.mark.skipif(not DATA.exists(), reason="needs the shared data")
def test_a_rotated_real_scene_in_degrees():
    path = DATA / "umbra_sar_rotated.tif"
    with hiresattn.open_pyramid(path) as image:
        x, y = image.xy(np.array([200, 200, 300, 300]), np.array([400, 500, 500, 400]))
        area = geopandas.GeoSeries([shapely.Polygon(np.stack([x, y], 1))], crs=image.crs).to_crs(4326)
    (found,) = windows_of([path], areas_of(area))
    assert np.array(found.region) == pytest.approx((200, 400, 100, 100), abs=1)
