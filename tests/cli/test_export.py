"""`classify -o x.gpkg` and `export`: layers at the end of a run, and the records they are made from beside them."""

import errno
import json

import geopandas
import pytest
import shapely

from hiresattn.datasets.example import Example
from tests.geo.scenes import write_scene


def statuses(path):
    return geopandas.read_file(path, layer="scenes").status.tolist()


def test_classify_writes_layers_and_keeps_the_records(run, classified, tmp_path):
    result = run("classify", "a.tif", "bad.tif", "-m", "m", "-o", tmp_path / "x.gpkg")
    assert result.exit_code == 3
    assert f"{tmp_path}/x.gpkg, from the records in {tmp_path}/x.jsonl\n" in result.stderr
    assert statuses(tmp_path / "x.gpkg") == ["ok", "error"]
    assert len((tmp_path / "x.jsonl").read_text().splitlines()) == 2


def test_resume_classifies_what_is_missing_and_writes_all(run, classified, tmp_path):
    out = tmp_path / "x.gpkg"
    run("classify", "a.tif", "bad.tif", "-m", "m", "-o", out)
    assert run("classify", "b.tif", "-m", "m", "-o", out).exit_code == 1  # it is there
    assert run("classify", "a.tif", "c.tif", "-m", "m", "-o", out, "--resume").exit_code == 0
    assert classified.sources == ["c.tif"]
    assert statuses(out) == ["ok", "ok"]
    assert run("classify", "d.tif", "-m", "m", "-o", out, "--overwrite").exit_code == 0
    assert statuses(out) == ["ok"]


def test_resume_leaves_a_file_whose_records_are_not_there(run, classified, tmp_path):
    (tmp_path / "x.gpkg").write_text("mine")
    result = run("classify", "a.tif", "-m", "m", "-o", tmp_path / "x.gpkg", "--resume")
    assert result.exit_code == 1
    assert "its records" in result.stderr
    assert [path.name for path in tmp_path.iterdir()] == ["x.gpkg"]


def test_a_full_disk_leaves_the_records_and_says_how_to_go_on(run, classified, tmp_path, monkeypatch):
    def full(*_):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr("hiresattn.geo.outputs.add_style", full)
    out = tmp_path / "x.gpkg"
    result = run("classify", "a.tif", "-m", "m", "-o", out)
    assert result.exit_code == 1
    assert "No space left on device" in result.stderr
    assert f"hiresattn export {tmp_path}/x.jsonl -o {out}" in result.stderr
    assert [path.name for path in tmp_path.iterdir()] == ["x.jsonl"]
    monkeypatch.undo()
    assert run("export", tmp_path / "x.jsonl", "-o", out).exit_code == 0
    assert statuses(out) == ["ok"]


def test_a_dry_run_writes_no_layers(run, classified, tmp_path):
    result = run("classify", "a.tif", "-m", "m", "-o", tmp_path / "x.gpkg", "--dry-run")
    assert result.exit_code == 2
    assert ".jsonl" in result.stderr


def test_other_suffixes_are_refused_before_anything_is_loaded(run, tmp_path):
    result = run("classify", "a.tif", "-m", "m", "-o", tmp_path / "x.shp")
    assert result.exit_code == 1
    assert ".shp" in result.stderr


def test_export_joins_files_and_leaves_a_torn_last_line(run, classified, tmp_path):
    for name in ("a", "b"):
        run("classify", f"{name}.tif", "-m", "m", "-o", tmp_path / f"{name}.jsonl")
    with (tmp_path / "b.jsonl").open("a") as file:
        file.write('{"source": "c')
    out = tmp_path / "x.geojson"
    result = run("export", tmp_path / "a.jsonl", tmp_path / "b.jsonl", "-o", out)
    assert result.stderr == f"2 records in {out} and {tmp_path}/x.regions.geojson\n"
    sources = [one["properties"]["source"] for one in json.loads(out.read_text())["features"]]
    assert sources == ["a.tif", "b.tif"]
    assert run("export", tmp_path / "a.jsonl", "-o", out).exit_code == 1
    assert run("export", tmp_path / "a.jsonl", "-o", out, "--overwrite").exit_code == 0


def test_features_go_to_stdout_as_rio_has_them(run, classified, tmp_path):
    lines = run("classify", "a.tif", "b.tif", "-m", "m", "--json").stdout
    features = [json.loads(line) for line in run("export", "-", stdin=lines).stdout.splitlines()]
    assert [one["properties"]["source"] for one in features] == ["a.tif", "b.tif"]
    assert {one["type"] for one in features} == {"Feature"}
    (tmp_path / "a.jsonl").write_text(lines)
    whole = json.loads(run("export", tmp_path / "a.jsonl", "--collection").stdout)
    assert whole["features"] == features
    regions = run("export", tmp_path / "a.jsonl", "--sequence", "--layer", "regions").stdout.splitlines()
    assert [json.loads(line)["properties"]["attention"] for line in regions] == [0.25, 0.75] * 2
    for wrong in (("--to", "csv"), ("-o", "x.gpkg", "--sequence"), ("-o", "x.gpkg", "--layer", "regions")):
        assert run("export", tmp_path / "a.jsonl", *wrong).exit_code == 2


@pytest.mark.parametrize("text", ["no JSON\n{}\n", '{"path": "a.tif"}\n', ""])
def test_export_refuses_what_holds_no_records(run, tmp_path, text):
    (tmp_path / "a.jsonl").write_text(text)
    result = run("export", tmp_path / "a.jsonl", "-o", tmp_path / "x.gpkg")
    assert result.exit_code == 1
    assert result.stderr.startswith("Error: ")
    assert not (tmp_path / "x.gpkg").exists()


def test_export_names_a_file_that_is_not_there(run, tmp_path):
    result = run("export", tmp_path / "a.jsonl", "-o", tmp_path / "x.gpkg")
    assert f"Error: {tmp_path}/a.jsonl: there is no such file" in result.stderr


@pytest.fixture
def scene(tmp_path):
    """A scene of 800 x 600 px of 0.01 degrees, from 10 E 50 N."""
    return str(write_scene(tmp_path / "scene.tif", "EPSG:4326", (0.01, 0, 10, 0, -0.01, 50)))


def test_bbox_and_aoi_are_windows_of_the_scenes(run, classified, scene, tmp_path):
    assert run("classify", scene, "-m", "m", "--bbox", "11,49,12,49.5").exit_code == 0
    assert classified.sources == [Example(scene, region=(50, 100, 50, 100))]
    frame = geopandas.GeoDataFrame(
        {"id": ["a", "b"]}, geometry=[shapely.box(9, 44, 10.5, 46), shapely.box(0, 0, 1, 1)], crs=4326
    )
    frame.to_file(tmp_path / "areas.geojson")
    out = tmp_path / "x.gpkg"
    result = run("classify", scene, "-m", "m", "--aoi", tmp_path / "areas.geojson", "-o", out)
    assert result.exit_code == 3
    assert classified.sources[0].examples == (Example(scene, region=(400, 0, 200, 50), case="a"),)
    assert "Error: area b: no part of it lies on the scene\n" in result.stderr
    assert geopandas.read_file(out, layer="scenes")["case"].tolist()[1] == "b"


def test_a_box_outside_of_a_scene_is_its_error(run, classified, scene):
    result = run("classify", scene, "-m", "m", "--bbox", "-75,40,-74,41")
    assert result.exit_code == 1
    assert f"Error: {scene}: the box -75,40,-74,41 (W,S,E,N) lies outside of it\n" in result.stderr


@pytest.mark.parametrize("box", ["1,2,3", "11,50,12,49", "200,0,201,1", "a,b,c,d"])
def test_a_box_that_is_none_is_wrong_usage(run, box):
    assert run("classify", "a.tif", "-m", "m", "--bbox", box).exit_code == 2


def test_one_way_to_say_where_is_enough(run, classified, scene):
    result = run("classify", scene, "-m", "m", "--bbox", "11,49,12,50", "--region", "0,0,9,9")
    assert result.exit_code == 2
    assert "give one of --region, --bbox, --bounds, --aoi" in result.stderr
