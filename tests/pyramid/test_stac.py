"""STAC items as sources."""

import json
import subprocess
import sys

import numpy as np
import pytest

import hiresattn
from hiresattn.config import InputConfig
from hiresattn.datasets.sources import images_of
from hiresattn.errors import ConfigError, HiresattnError, NotFoundError, OpenError
from hiresattn.pyramid import open_pyramid
from hiresattn.pyramid.stac import stac_sources
from hiresattn.reading.fetch import CropFetcher
from tests.pyramid import serve
from tests.pyramid.test_stacked import MODEL, write

TIFF = "image/tiff; application=geotiff; profile=cloud-optimized"


def item(**changes):
    """An item as STAC 1.0 has it, with a file per band and what isn't the image."""
    assets = {
        name: {
            "href": f"./{name}.tif",
            "type": TIFF,
            "roles": ["data"],
            "eo:bands": [{"name": f"B0{number}", "common_name": name}],
            "raster:bands": [{"nodata": 5, "scale": 0.0001}],
        }
        for number, name in enumerate(("red", "green"), start=1)
    }
    assets["thumbnail"] = {"href": "thumb.png", "type": "image/png", "roles": ["thumbnail"]}
    assets["info"] = {"href": "info.xml", "type": "application/xml"}
    return {
        "type": "Feature",
        "stac_version": "1.0.0",
        "id": "scene",
        "geometry": None,
        "properties": {"datetime": "2020-01-02T03:04:05Z", "proj:epsg": 32633},
        "links": [],
        "assets": assets,
    } | changes


def newer(old):
    """The same as STAC 1.1 has it."""
    for asset in old["assets"].values():
        eo, raster = asset.pop("eo:bands", None), asset.pop("raster:bands", None)
        if eo:
            asset["bands"] = [
                {"name": eo[0]["name"], "eo:common_name": eo[0]["common_name"], "nodata": raster[0]["nodata"]}
            ]
    return old | {"stac_version": "1.1.0"}


@pytest.fixture
def folder(tmp_path):
    for number, name in enumerate(("red", "green")):
        write(tmp_path / f"{name}.tif", number=number, nodata=None)
    return tmp_path


def put(folder, what, name="item.json"):
    path = folder / name
    path.write_text(json.dumps(what))
    return path


@pytest.mark.parametrize("version", [item, lambda: newer(item())])
def test_assets_are_chosen_by_key_band_or_common_name(folder, version):
    path = put(folder, version())
    for assets in (["red", "green"], ["B01", "B02"], ["red", "B02"]):
        (stack,) = stac_sources(path, assets)
        with open_pyramid(stack) as image, open_pyramid(folder / "green.tif") as green:
            assert (image.source, image.nodata, image.meta.acquired) == (str(path), 5, "2020-01-02T03:04:05Z")
            assert image.meta.colors == ("red", "green")
            assert np.array_equal(image.read(0, 0, 0, 50, 60)[..., 1:], green.read(0, 0, 0, 50, 60))
            data = image.read(0, 0, 0, 96, 96)
            assert np.array_equal(image.read_masked(0, 0, 0, 96, 96).valid, (data != 5).all(axis=2))
    with pytest.raises(ConfigError, match=r"called 'nir'; it has red \(B01\), green \(B02\)"):
        stac_sources(path, ["nir"])
    with pytest.raises(OpenError, match="several files: red"):
        open_pyramid(path)


def test_items_come_as_files_collections_json_and_objects(folder):
    pystac = pytest.importorskip("pystac")
    path = put(folder, item())
    both = put(folder, {"type": "FeatureCollection", "features": [item(), item(id="other")]}, "items.json")
    one = pystac.Item.from_dict(item(), href=str(path))
    for given in (path, str(path), one, [one], pystac.ItemCollection([one])):
        (stack,) = stac_sources(given, ["red"])
        assert open_pyramid(stack).width == 96
    assert [str(stack) for stack in stac_sources(both)] == [f"{both}#scene", f"{both}#other"]
    records = list(hiresattn.classify_all(str(both), MODEL, policy="lowres", bands=("red",)))
    assert [record.status for record in records] == ["ok", "ok"]
    alone = hiresattn.classify(folder / "red.tif", MODEL, policy="lowres", nodata=5)
    for given in (one, path, str(path)):
        record = hiresattn.classify(given, MODEL, policy="lowres", bands=("red",))
        assert dict(record.scores) == pytest.approx(dict(alone.scores), abs=1e-6)


def test_addresses_are_signed_when_they_are_opened(folder):
    asked = []

    def sign(address):
        asked.append(address)
        return address

    (stack,) = stac_sources(put(folder, item()), ["red", "green"], patch_url=sign)
    assert asked == []
    open_pyramid(stack)
    assert asked == [str(folder / "red.tif"), str(folder / "green.tif")]
    (broken,) = stac_sources(folder / "item.json", ["red"], patch_url=lambda _: 1 / 0)
    with pytest.raises(OpenError, match="can't be signed"):
        open_pyramid(broken)


def test_items_on_a_server_name_files_beside_them(folder):
    put(folder, item())
    words = [sys.executable, serve.__file__, str(folder), str(folder / "log")]
    with subprocess.Popen(words, stdout=subprocess.PIPE, text=True) as server:  # noqa: S603 - our own
        try:
            url = f"http://127.0.0.1:{server.stdout.readline().strip()}"
            (stack,) = stac_sources(f"{url}/item.json", ["red", "green"])
            assert stack.layers[0].path == f"{url}/red.tif"
            assert open_pyramid(stack).channels == 2
            with pytest.raises(NotFoundError):
                stac_sources(f"{url}/none.json")
            (folder / "log").write_text("")
            rule = InputConfig(bands=(0, 1), low=(0, 0), high=(255, 255), size=32)
            with open_pyramid(stack) as image, CropFetcher([image], rule, threads=1) as fetch:
                fetch(np.zeros(1, np.int64), np.array([[0, 0, 96, 96]]))
                asked = (folder / "log").read_text().splitlines()
                assert image.requests.count == len(asked)
                assert len(asked) <= 3 * len(stack.layers)
        finally:
            server.terminate()


@pytest.mark.parametrize(
    ("text", "error", "says"),
    [
        ("{", OpenError, "JSON"),
        ("[1]", ConfigError, "no STAC item"),
        ('{"type": "Catalog"}', ConfigError, "Catalog"),
        (json.dumps(item(assets={})), ConfigError, "none of its assets"),
    ],
)
def test_what_is_no_item_is_an_error_that_names_it(tmp_path, text, error, says):
    (tmp_path / "item.json").write_text(text)
    with pytest.raises(error, match=says):
        stac_sources(tmp_path / "item.json")
    (record,) = hiresattn.classify_all(str(tmp_path / "item.json"), MODEL, on_error="record")
    assert record.status == "error"
    with pytest.raises(NotFoundError, match=r"none\.json"):
        stac_sources(tmp_path / "none.json")


@pytest.mark.parametrize(
    "text",
    [
        '{"type": "Feature", "stac_version": "1.0.0", "assets": 5}',
        '{"type": "Feature", "stac_version": "1.0.0", "assets": {"x": 7}}',
        '{"type": "Feature", "stac_version": "1.0.0", "assets": {"x": {"href": "http://[bad/x.tif"}}}',
        '{"type": "Feature", "stac_version": "1.0.0", "assets": {"x": {"href": "x.tif"}}, "links": 3}',
        '{"type": "FeatureCollection", "features": 7}',
        "[1, 2]",
        "7",
        "{",
    ],
)
def test_what_is_no_item_is_an_error_that_names_the_file(tmp_path, text):
    path = tmp_path / "items.json"
    path.write_text(text)
    with pytest.raises(HiresattnError):
        open_pyramid(path)
    (wrong,) = images_of(str(path))
    assert "items.json" in wrong.error


def test_items_may_come_a_line_each(folder):
    lines = [json.dumps(item(id=name)) for name in ("first", "second")]
    (folder / "found.ndjson").write_text("\n".join([*lines, ""]))
    stacks = stac_sources(folder / "found.ndjson", ["red"])
    assert [open_pyramid(stack).channels for stack in stacks] == [1, 1]
    assert len(list(images_of(str(folder / "found.ndjson")))) == 2
    (folder / "bad.ndjson").write_text(lines[0] + "\n{")
    with pytest.raises(OpenError, match=r"bad\.ndjson"):
        stac_sources(folder / "bad.ndjson")
