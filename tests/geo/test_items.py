"""STAC items of scenes and of models."""

import json
import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import rasterio
from click.testing import CliRunner

import hiresattn
from hiresattn.checkpoint import load_model
from hiresattn.errors import CheckpointError, ConfigError, NotFoundError
from hiresattn.geo import mlm_item, stac_sources, write_items, write_mlm_item
from hiresattn_cli.main import cli
from tests.geo.scenes import MADE, record_of, source_of, write_scene

ROOT = Path(__file__).parents[2]
MODEL = hiresattn.__path__[0] + "/demo/model"
TAKEN = "2020-01-02T03:04:05Z"


def validate(item):
    """By the schema of STAC's core that pystac ships; its extensions' schemas lie on servers."""
    pystac = pytest.importorskip("pystac")
    pytest.importorskip("jsonschema")
    from pystac.validation import validate_dict

    validate_dict(item | {"stac_extensions": []})
    return pystac.Item.from_dict(item)


@pytest.mark.parametrize("name", [*MADE])
def test_a_scenes_item_is_valid_and_says_where_it_lies(tmp_path, name):
    import shapely

    path = write_scene(tmp_path / "scene.tif", *MADE[name])
    record = record_of(source_of(path, (40, 60, 300, 200)))
    files = write_items([record], tmp_path / "items", acquired=TAKEN)
    item = json.loads(files[0].read_text())
    found = validate(item)
    crs, transform = MADE[name]
    assert item["properties"]["proj:code"] == crs
    assert item["properties"]["proj:shape"] == [300, 200]
    corner = transform * (60, 40) if not hasattr(transform, "__matmul__") else transform @ (60, 40)
    a, b, c, d, e, f = item["properties"]["proj:transform"]
    assert (a, b, c, d, e, f) == pytest.approx(
        (transform.a, transform.b, corner[0], transform.d, transform.e, corner[1])
    )
    assert found.datetime.isoformat() == "2020-01-02T03:04:05+00:00"
    shape = shapely.geometry.shape(item["geometry"])
    assert shape.is_valid
    west, south, east, north = item["bbox"]
    assert (west > east) == (shape.geom_type == "MultiPolygon")
    assert (south, north) == pytest.approx((shape.bounds[1], shape.bounds[3]), abs=1e-7)
    assert json.loads(files[-1].read_text())["features"] == [item]


def test_items_are_linked_to_source_and_model_and_hold_what_was_found(tmp_path):
    import geopandas

    paths = [write_scene(tmp_path / f"{name}.tif", *MADE["north-up"]) for name in "ab"]
    records = [record_of(source_of(path)) for path in paths]
    *files, _ = write_items(records, tmp_path / "items", model="model.json", acquired=TAKEN)
    for path, record, file in zip(paths, records, files, strict=True):
        item = json.loads(file.read_text())
        assert [link["href"] for link in item["links"]] == [str(path), "model.json"]
        assert {link["rel"] for link in item["links"]} == {"derived_from"}
        properties = item["properties"]
        assert properties["processing:expression"] == {"format": "stac-mlm", "expression": "model.json"}
        assert (properties["processing:level"], properties["hiresattn:class_name"]) == (
            "L4",
            record.class_name,
        )
        regions = geopandas.read_parquet(file.parent / item["assets"]["regions"]["href"])
        assert len(regions) == len(record.regions)
        with rasterio.open(file.parent / item["assets"]["attention"]["href"]) as raster:
            assert raster.crs.to_epsg() == 32618
    with pytest.raises(ConfigError, match="is there already"):
        write_items(records, tmp_path / "items", acquired=TAKEN)


def test_time_is_that_of_the_source_or_given_and_never_now(tmp_path):
    path = write_scene(tmp_path / "scene.tif", *MADE["north-up"])
    with pytest.raises(ConfigError, match="doesn't say when it was taken"):
        write_items([record_of(source_of(path))], tmp_path / "items")
    with rasterio.open(path, "r+") as file:
        file.update_tags(ns="IMAGERY", ACQUISITIONDATETIME="2019-08-07 06:05:04")
    record = hiresattn.classify(path, MODEL, policy="lowres")
    assert record.sources[0].acquired == "2019-08-07T06:05:04Z"
    assert (
        json.loads(write_items([record], tmp_path / "items")[0].read_text())["properties"]["datetime"]
        == "2019-08-07T06:05:04Z"
    )
    bare = write_scene(tmp_path / "bare.tif", None, rasterio.Affine.scale(2))
    with pytest.raises(ConfigError, match="no coordinate system"):
        write_items([record_of(source_of(bare))], tmp_path / "more", acquired=TAKEN)


def test_what_was_made_of_an_item_names_it_and_its_time(tmp_path):
    write_scene(tmp_path / "scene.tif", *MADE["north-up"])
    source = {
        "stac_version": "1.0.0",
        "type": "Feature",
        "id": "s",
        "properties": {"datetime": TAKEN},
        "links": [],
    }
    source["assets"] = {"visual": {"href": "scene.tif", "type": "image/tiff"}}
    (tmp_path / "s.json").write_text(json.dumps(source))
    record = hiresattn.classify(stac_sources(tmp_path / "s.json")[0], MODEL, policy="lowres")
    item = json.loads(write_items([record], tmp_path / "items")[0].read_text())
    assert item["properties"]["datetime"] == TAKEN
    assert item["links"][0] == {"rel": "derived_from", "href": str(tmp_path / "s.json")}


def test_a_model_is_an_item_by_the_rules_of_mlm(tmp_path):
    write_mlm_item(MODEL, tmp_path / "model.json")
    item = json.loads((tmp_path / "model.json").read_text())
    validate(item)
    properties, model = item["properties"], load_model(MODEL)
    assert {"mlm:name", "mlm:architecture", "mlm:tasks", "mlm:input", "mlm:output"} <= properties.keys()
    assert "https://stac-extensions.github.io/mlm/v1.5.2/schema.json" in item["stac_extensions"]
    (given,), (answer,) = properties["mlm:input"], properties["mlm:output"]
    named = {band["name"] for band in properties["bands"]}
    assert set(given["bands"]) <= named
    assert "bands" in given["input"]["dim_order"]
    assert len(given["input"]["shape"]) == len(given["input"]["dim_order"])
    assert len(given["value_scaling"]) == len(given["bands"])
    assert answer["result"]["shape"] == [-1, len(model.classes)]
    assert [one["title"] for one in answer["classification:classes"]] == list(model.classes)
    weights = [one for one in item["assets"].values() if "mlm:model" in one["roles"]]
    assert len(weights) == 1
    assert weights[0]["mlm:artifact_type"]
    assert (tmp_path / weights[0]["href"]).resolve() == Path(MODEL, "model.safetensors").resolve()
    low, high = model.config.input.low[0], model.config.input.high[0]
    mean, spread = (given["value_scaling"][0][name] for name in ("mean", "stddev"))
    values = np.linspace(low, high, 5)
    assert (values - mean) / spread == pytest.approx(2 * (values - low) / (high - low) - 1)
    assert mlm_item(MODEL)["assets"]["card"]["href"] == str(Path(MODEL, "card.json").absolute())


@pytest.mark.parametrize("name", ["needle", "m", "7", "Große Modelle (neu)", "..", "v2.1_", "モデル"])
def test_a_models_item_is_valid_by_mlms_schema(tmp_path, name):
    jsonschema = pytest.importorskip("jsonschema")
    text = (ROOT / "tests/data/mlm-1.5.0.schema.json").read_text(encoding="utf-8")
    rules = jsonschema.Draft7Validator(json.loads(text.replace("/mlm/v1.5.0/", "/mlm/v1.5.2/")))
    shutil.copytree(MODEL, tmp_path / "model")
    card = json.loads((tmp_path / "model/card.json").read_text())
    card["name"] = name
    card["config"]["input"] |= {"scales": [1e-4], "offsets": [-0.1]}
    (tmp_path / "model/card.json").write_text(json.dumps(card))
    item = mlm_item(tmp_path / "model")
    assert [error.message for error in rules.iter_errors(item)] == []
    assert item["properties"]["title"] == name
    for spoilt in (
        {"mlm:tasks": ["guessing"]},
        {"mlm:name": "m"},
        {"mlm:input": [{}]},
        {"mlm:artifact_type": "x"},
    ):
        assert not rules.is_valid(item | {"properties": item["properties"] | spoilt})
    assert not rules.is_valid(item | {"assets": {"card": item["assets"]["card"]}})


def test_the_raster_of_attention_says_its_own_grid(tmp_path):
    path = write_scene(
        tmp_path / "scene.tif", "+proj=sinu +lon_0=7", rasterio.Affine(30, 0, 5e5, 0, -30, 4e6)
    )
    record = record_of(source_of(path, (40, 60, 300, 200)))
    record = replace(record, regions=record.regions[:1])
    item = json.loads(write_items([record], tmp_path / "items", acquired=TAKEN)[0].read_text())
    asset = item["assets"]["attention"]
    with rasterio.open(tmp_path / "items" / asset["href"]) as raster:
        assert (asset["proj:shape"], asset["proj:transform"]) == ([*raster.shape], [*raster.transform][:6])
        assert asset["proj:shape"] != item["properties"]["proj:shape"]
        assert rasterio.CRS.from_wkt(item["properties"]["proj:wkt2"]) == raster.crs
    assert item["properties"]["proj:wkt2"].startswith("PROJCRS[")  # WKT2, as the first version is PROJCS
    assert item["properties"]["proj:code"] is None


def test_pystac_reads_a_models_item():
    mlm = pytest.importorskip("pystac.extensions.mlm")
    pystac = pytest.importorskip("pystac")
    item = mlm_item(MODEL)
    known = item | {
        "stac_extensions": [mlm.SCHEMA_URI_PATTERN.format(version=mlm.DEFAULT_VERSION)]
    }  # it knows an earlier version
    found = mlm.MLMExtension.ext(pystac.Item.from_dict(known))
    assert (found.mlm_name, found.architecture) == ("needle", "hiresattn")
    assert found.input[0].input.shape == [-1, 1, 64, 64]
    assert len(found.output[0].classes) == 10


def test_a_model_is_loaded_by_its_item(tmp_path):
    write_mlm_item(MODEL, tmp_path / "model.json")
    assert load_model(tmp_path / "model.json").sha256 == load_model(MODEL).sha256
    with pytest.raises(NotFoundError):
        load_model(tmp_path / "none.json")
    item = json.loads((tmp_path / "model.json").read_text())
    item["assets"]["weights"]["href"] = "https://example.com/model.safetensors"
    (tmp_path / "far.json").write_text(json.dumps(item))
    with pytest.raises(CheckpointError, match=r"https://example\.com"):
        load_model(tmp_path / "far.json")
    (tmp_path / "other.json").write_text("{}")
    with pytest.raises(CheckpointError, match="no asset has the role"):
        load_model(tmp_path / "other.json")


def test_export_writes_items(tmp_path):
    path = write_scene(tmp_path / "scene.tif", *MADE["north-up"])

    def run(*words):
        done = CliRunner().invoke(cli, [*map(str, words)])
        assert done.exit_code == 0, done.output
        return done.output

    run("classify", path, "-m", MODEL, "--policy", "lowres", "-o", tmp_path / "r.jsonl")
    run("export", MODEL, "--to", "mlm", "-o", tmp_path / "model.json")
    how = ("--to", "stac", "--model-item", "model.json", "--datetime", TAKEN)
    assert "1 item in" in run("export", tmp_path / "r.jsonl", *how, "-o", tmp_path / "items")
    names = {file.name for file in (tmp_path / "items").iterdir()}
    assert names == {"scene.tif.json", "scene.tif.attention.tif", "scene.tif.regions.parquet", "items.json"}
