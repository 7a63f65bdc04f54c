"""Layers in files: whole, in each format's own terms, and read back as they were."""

import errno
import itertools
import json
import sqlite3
import warnings
from xml.etree import ElementTree as ET

import geopandas
import numpy as np
import pytest
from geopandas.testing import assert_geodataframe_equal
from pyarrow import parquet

from hiresattn.errors import BackendMissingError, ConfigError, WriteError
from hiresattn.geo import export, frames
from hiresattn.geo.outputs import FORMATS
from hiresattn.inference.record import CaseSource, Record
from tests.geo.scenes import MADE, record_of, source_of, write_scene


@pytest.fixture(scope="module")
def records(tmp_path_factory):
    """A record of each made scene, and one that failed."""
    folder = tmp_path_factory.mktemp("scenes")
    made = [record_of(source_of(write_scene(folder / f"{name}.tif", *MADE[name]))) for name in MADE]
    return [*made, Record(source="=gone.tif", status="error", error="=gone.tif: there is no such file")]


def read(path, layer=None):
    if path.suffix == ".parquet":
        return geopandas.read_parquet(path)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return geopandas.read_file(path, layer=layer) if layer else geopandas.read_file(path)


def layers(files):
    if len(files) == 1:
        return read(files[0], "scenes"), read(files[0], "regions")
    return tuple(map(read, files))


@pytest.mark.parametrize("suffix", [".gpkg", ".parquet", ".fgb"])
@pytest.mark.parametrize("which", [slice(1, 2), slice(None), slice(6, 7)], ids=["one", "several", "failed"])
def test_what_is_read_back_is_what_was_written(records, tmp_path, suffix, which):
    files = export(records[which], tmp_path / f"out{suffix}")
    names = ["out.gpkg"] if suffix == ".gpkg" else [f"out{suffix}", f"out.regions{suffix}"]
    assert [file.name for file in files] == names
    for again, expected in zip(layers(files), frames(records[which]), strict=True):
        assert (again.crs is None) == (expected.crs is None)
        assert again.crs is None or again.crs.equals(expected.crs)
        assert list(again.columns) == list(expected.columns)
        key = "region_id" if "region_id" in again else "scene"
        found = again.sort_values(["scene", key]).reset_index(drop=True)
        for name in expected.columns.drop("geometry"):
            assert found[name].isna().tolist() == expected[name].isna().tolist(), name
            assert found[name].dropna().tolist() == expected[name].dropna().tolist(), name
        assert found.geometry.isna().tolist() == expected.geometry.isna().tolist()
        assert found.geometry.dropna().geom_equals(expected.geometry.dropna()).all()


def test_a_geopackage_opens_in_qgis_coloured_by_attention(records, tmp_path):
    (file,) = export(records[:1], tmp_path / "out.gpkg")
    with sqlite3.connect(file) as package:
        styles = package.execute(
            "SELECT f_table_name, f_geometry_column, useAsDefault, styleQML FROM layer_styles"
        ).fetchall()
        columns = package.execute("SELECT table_name, column_name FROM gpkg_geometry_columns").fetchall()
        contents = package.execute("SELECT table_name, data_type FROM gpkg_contents").fetchall()
    package.close()
    ((table, column, default, qml),) = styles
    assert (table, column) in columns
    assert default == 1
    assert ("layer_styles", "attributes") in contents
    renderer = ET.fromstring(qml).find("renderer-v2")  # noqa: S314 - our own
    assert renderer.get("attr") == "attention"
    ranges = [(float(one.get("lower")), float(one.get("upper"))) for one in renderer.iter("range")]
    assert ranges[0][0] == 0
    assert all(a[1] == b[0] for a, b in itertools.pairwise(ranges))
    assert ranges[-1][1] == pytest.approx(max(region.attention for region in records[0].regions), rel=1e-5)
    symbols = {one.get("name") for one in renderer.iter("symbol")}
    assert {one.get("symbol") for one in renderer.iter("range")} == symbols


def test_geoparquet_says_where_its_rows_lie(records, tmp_path):
    files = export(records[:1], tmp_path / "out.parquet")
    for file in files:
        geo = json.loads(parquet.read_schema(file).metadata[b"geo"])
        assert geo["version"] == "1.1.0"
        assert "covering" in geo["columns"]["geometry"]


def check_position(position):
    lon, lat = position
    assert -180 <= lon <= 180
    assert -90 <= lat <= 90
    assert position == [round(lon, 7), round(lat, 7)]


def check_polygon(rings):
    for at, ring in enumerate(rings):
        assert len(ring) >= 4
        assert ring[0] == ring[-1]
        for position in ring:
            check_position(position)
        x, y = np.array(ring).T
        area = np.sum(x[:-1] * y[1:] - x[1:] * y[:-1])
        assert area > 0 if at == 0 else area < 0


def check_rfc7946(feature):
    """What RFC 7946 asks of a feature with an area, or without a place."""
    assert feature["type"] == "Feature"
    assert isinstance(feature["properties"], dict)
    assert {"geometry", "coordinates", "geometries", "features", "crs"} & feature.keys() == {"geometry"}
    geometry = feature["geometry"]
    if geometry is not None:
        assert geometry["type"] in ("Polygon", "MultiPolygon")
        several = geometry["type"] == "MultiPolygon"
        for rings in geometry["coordinates"] if several else [geometry["coordinates"]]:
            check_polygon(rings)


def refuse(constant):
    raise AssertionError(f"{constant} is no JSON")


@pytest.mark.parametrize("suffix", [".geojson", ".geojsonl"])
def test_geojson_is_as_rfc_7946_wants_it(records, tmp_path, suffix):
    files = export(records, tmp_path / f"out{suffix}")
    for file, count in zip(files, (7, 24), strict=True):
        text = file.read_text(encoding="utf-8")
        if suffix == ".geojson":
            whole = json.loads(text, parse_constant=refuse)
            assert whole.keys() == {"type", "features"}
            assert whole["type"] == "FeatureCollection"
            features = whole["features"]
        else:
            features = [json.loads(line, parse_constant=refuse) for line in text.splitlines()]
        assert len(features) == count
        for feature in features:
            check_rfc7946(feature)


def test_geojson_is_cut_at_the_antimeridian(records, tmp_path):
    scenes, _ = export(records, tmp_path / "out.geojson")
    found = [one["geometry"] for one in json.loads(scenes.read_text())["features"]]
    assert [one and one["type"] for one in found] == [
        "Polygon", "Polygon", "Polygon", "MultiPolygon", "MultiPolygon", "Polygon", None,
    ]  # fmt: skip


def test_geojson_of_one_scene_is_in_degrees_too(records, tmp_path):
    scenes, _ = export(records[:1], tmp_path / "out.geojson")
    (feature,) = json.loads(scenes.read_text())["features"]
    check_rfc7946(feature)
    assert feature["properties"]["crs"] == "EPSG:32618"
    assert feature["properties"]["needs_review"] is None
    assert feature["properties"]["bytes_read"] == 2**40


def test_geojson_of_a_slide_is_in_px_and_says_so(tmp_path):
    slide = record_of(CaseSource(source="slide.svs", height=100, width=200), regions=())
    scenes, regions = export([slide], tmp_path / "out.geojson")
    found = json.loads(scenes.read_text())
    assert found["coordinates"] == "level-0 px (x, y), y down"
    assert found["features"][0]["geometry"]["coordinates"] == [
        [[0.0, 0.0], [0.0, 100.0], [200.0, 100.0], [200.0, 0.0], [0.0, 0.0]]
    ]
    assert json.loads(regions.read_text())["features"] == []


def test_csv_has_wkt_and_no_formula(records, tmp_path):
    scenes, regions = export(records, tmp_path / "out.csv")
    rows = scenes.read_text().splitlines()
    assert rows[0].split(",")[-1] == "geometry"
    assert '"POLYGON ((' in rows[1]
    assert rows[-1].startswith("6,'=gone.tif,")
    assert len(regions.read_text().splitlines()) == 25


@pytest.mark.parametrize("suffix", FORMATS)
def test_what_is_there_stays_where_writing_fails(records, tmp_path, suffix, monkeypatch):
    files = export(records[:1], tmp_path / f"out{suffix}")
    before = {file.name: file.read_bytes() for file in files}
    with pytest.raises(ConfigError, match="is there already"):
        export(records, tmp_path / f"out{suffix}")
    with pytest.raises(ConfigError, match="no records"):
        export([], tmp_path / f"out{suffix}", overwrite=True)

    def full(*_, **__):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr("hiresattn.geo.outputs.add_style", full)
    monkeypatch.setattr("hiresattn.geo.outputs._flatgeobuf", full)
    writers = dict.fromkeys(FORMATS, full)
    monkeypatch.setattr("hiresattn.geo.outputs._WRITERS", writers)
    with pytest.raises(WriteError, match="No space left on device"):
        export(records, tmp_path / f"out{suffix}", overwrite=True)
    assert {file.name: file.read_bytes() for file in tmp_path.iterdir()} == before


def test_other_suffixes_are_refused(records, tmp_path):
    with pytest.raises(ConfigError, match=r"\.gpkg, \.parquet, .*ends in \.shp"):
        export(records, tmp_path / "out.shp")


@pytest.mark.parametrize(("suffix", "package"), [(".gpkg", "pyogrio"), (".parquet", "pyarrow")])
def test_a_missing_package_is_named_before_anything_is_done(records, tmp_path, monkeypatch, suffix, package):
    monkeypatch.setitem(__import__("sys").modules, package, None)
    with pytest.raises(BackendMissingError, match=rf"{package}.*pip install 'hiresattn\[geo\]'"):
        export(records, tmp_path / f"out{suffix}")
    assert list(tmp_path.iterdir()) == []


def test_the_frames_can_be_written_by_their_own_methods(records, tmp_path):
    scenes, regions = frames(records)
    regions.to_file(tmp_path / "own.gpkg", layer="regions")
    again = read(tmp_path / "own.gpkg", "regions")
    assert_geodataframe_equal(
        again[["geometry"]], regions[["geometry"]], check_geom_type=False, normalize=True
    )
    scenes.to_parquet(tmp_path / "own.parquet")
