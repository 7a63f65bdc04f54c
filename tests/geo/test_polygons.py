"""Polygons with classes as a manifest."""

import json

import geopandas
import numpy as np
import pytest
import shapely
from click.testing import CliRunner
from rasterio import Affine

import hiresattn
from hiresattn.errors import ConfigError
from hiresattn.geo import manifest_of_polygons
from hiresattn_cli.main import cli
from tests.geo.scenes import write_scene

CRS = "EPSG:32633"
RES = 10
#: Corner of each scene, metres east of 400000: two side by side, one 100 km off.
CORNERS = {"a": 0, "b": 8000, "c": 100_000}
NEAR = 1e-4


@pytest.fixture
def scenes(tmp_path):
    folder = tmp_path / "scenes"
    folder.mkdir()
    for name, east in CORNERS.items():
        write_scene(folder / f"{name}.tif", CRS, Affine(RES, 0, 400000 + east, 0, -RES, 5000000))
    return folder


def labels(tmp_path, places, crs="EPSG:4326", **columns):
    """A file of squares of 200 m, by the metres of their corner."""
    shapes = [shapely.box(400000 + x, 5000000 - y - 200, 400000 + x + 200, 5000000 - y) for x, y in places]
    names = ["wheat" if n % 2 else "rye" for n in range(len(places))]
    frame = geopandas.GeoDataFrame({"use": names} | columns, geometry=shapes, crs=CRS).to_crs(crs)
    frame.to_file(tmp_path / "labels.gpkg")
    return tmp_path / "labels.gpkg"


PLACES = [
    (100, 100),
    (400, 100),
    (3000, 3000),
    (3300, 3000),
    (8500, 500),
    (8900, 500),
    (100500, 100),
    (100900, 100),
]


@pytest.mark.parametrize("crs", ["EPSG:4326", CRS, "EPSG:3857"])
def test_polygons_in_any_crs_are_windows_of_their_scenes(tmp_path, scenes, crs):
    path = tmp_path / "manifest.csv"
    made = manifest_of_polygons(scenes, labels(tmp_path, PLACES, crs), path, class_column="use")
    examples = hiresattn.read_manifest(path)
    assert (made.rows, made.scenes, made.places, made.left_out) == (8, 3, 4, ())
    for one, (x, y), label in zip(examples, PLACES, ["rye", "wheat"] * 4, strict=True):
        name = next(name for name, east in [*CORNERS.items()][::-1] if x >= east)
        assert (one.source.endswith(f"{name}.tif"), one.label) == (True, label)
        expected = (y // RES, (x - CORNERS[name]) // RES, 20, 20)
        assert np.abs(np.subtract(one.region, expected)).max() <= 1  # turned a little in other CRS
        if crs == CRS:
            assert one.region == expected
    assert sum(sum(own.values()) for own in made.classes.values()) == 8


def test_no_place_is_in_two_splits(tmp_path, scenes):
    rng = np.random.default_rng(0)
    places = [(float(x), float(y)) for x, y in rng.integers(0, 5500, (80, 2))]
    for distance in (0, 300, 700):
        path = tmp_path / f"{distance}.csv"
        manifest_of_polygons(
            scenes, labels(tmp_path, places), path, class_column="use", distance=distance, val=0.3
        )
        examples = hiresattn.read_manifest(path)
        boxes = [shapely.box(x, y, x + w, y + h) for y, x, h, w in (one.region for one in examples)]
        splits = {one.split for one in examples}
        for one, box in zip(examples, boxes, strict=True):
            for other, far in zip(examples, boxes, strict=True):
                if one.split != other.split and one.source == other.source:
                    assert box.distance(far) * RES >= distance - 2 * RES
        assert len(splits) > 1 or distance == 700


def test_polygons_are_boxes_of_their_scene(tmp_path, scenes):
    path = tmp_path / "manifest.csv"
    how = {"class_column": "use", "boxes": True, "val": 0.4, "test": 0, "distance": 10_000}
    made = manifest_of_polygons(scenes, labels(tmp_path, PLACES, CRS), path, **how)
    examples = hiresattn.read_manifest(path)
    assert (made.rows, made.places) == (3, 2)
    assert [len(one.boxes) for one in examples] == [4, 2, 2]
    assert examples[0].boxes[0] == (10, 10, 20, 20)
    assert examples[0].box_labels == ("rye", "wheat", "rye", "wheat")
    assert examples[0].split == examples[1].split  # side by side
    assert set(examples[0].label) == {"rye", "wheat"}


def test_boxes_follow_the_outline_of_a_polygon(tmp_path, scenes):
    x, y = 400_000 + 1000, 5_000_000 - 2000
    corners = [(0, 0), (800, 0), (800, -200), (200, -200), (200, -800), (0, -800)]
    bent = shapely.Polygon([(x + right, y + up) for right, up in corners])
    frame = geopandas.GeoDataFrame({"use": ["rye"]}, geometry=[bent], crs=CRS)
    frame.to_file(tmp_path / "labels.gpkg")
    how = {"class_column": "use", "boxes": True, "val": 0, "test": 0}
    manifest_of_polygons(scenes, tmp_path / "labels.gpkg", tmp_path / "manifest.csv", **how)
    (example,) = hiresattn.read_manifest(tmp_path / "manifest.csv")
    assert example.boxes == ((200, 100, 20, 80), (220, 100, 60, 20))
    assert example.box_labels == ("rye", "rye")


def test_a_polygon_on_two_scenes_is_in_one_split(tmp_path):
    folder = tmp_path / "dates"
    folder.mkdir()
    for name in "ab":
        write_scene(folder / f"{name}.tif", CRS, Affine(RES, 0, 400000, 0, -RES, 5000000))
    manifest_of_polygons(
        folder, labels(tmp_path, PLACES[:4]), tmp_path / "m.csv", class_column="use", val=0.5
    )
    examples = hiresattn.read_manifest(tmp_path / "m.csv")
    assert len(examples) == 8
    for window in {one.region for one in examples}:
        assert len({one.split for one in examples if one.region == window}) == 1


def test_what_cannot_be_used_is_said(tmp_path, scenes):
    file = labels(tmp_path, [*PLACES, (50000, 0)])
    frame = geopandas.read_file(file)
    frame.loc[0, "use"] = None
    frame.to_file(file)
    made = manifest_of_polygons(scenes, file, tmp_path / "m.csv", class_column="use")
    assert [one.split(":")[0] for one in made.left_out] == ["1 polygons have no class in 'use'", "area 9"]
    with pytest.raises(ConfigError, match="no column 'crop'; it has use"):
        manifest_of_polygons(scenes, file, tmp_path / "n.csv", class_column="crop")
    with pytest.raises(ConfigError, match="is there already"):
        manifest_of_polygons(scenes, file, tmp_path / "m.csv", class_column="use")
    with pytest.raises(ConfigError, match="none of its polygons lies on a scene"):
        manifest_of_polygons(scenes, labels(tmp_path, [(50000, 0)]), tmp_path / "n.csv", class_column="use")
    with pytest.raises(ConfigError, match="within 1000 m"):
        manifest_of_polygons(scenes, labels(tmp_path, PLACES[:2]), tmp_path / "n.csv", class_column="use")


def test_the_command_says_what_it_made(tmp_path, scenes):
    file = labels(tmp_path, PLACES)

    def run(*words):
        return CliRunner().invoke(cli, ["init", str(scenes), str(file), *map(str, words)])

    done = run("--class-column", "use", "-o", tmp_path / "m.csv")
    assert done.exit_code == 0, done.output
    assert "8 windows of 3 scenes in 4 places" in done.output
    done = run("--class-column", "use", "-o", tmp_path / "n.csv", "--json", "--boxes")
    assert json.loads(done.stdout)["rows"] == 3
    assert run("-o", tmp_path / "o.csv").exit_code == 2
    assert run("--class-column", "use", "--label-column", "x", "-o", tmp_path / "o.csv").exit_code == 2
