"""The plugin of rasterio's command line."""

import json
import subprocess
import sys
from importlib.metadata import entry_points

import pytest
import rasterio
from click.testing import CliRunner

import hiresattn
from hiresattn_cli.main import cli
from hiresattn_cli.rio import hiresattn as plugin
from tests.geo.scenes import MADE, write_scene

MODEL = hiresattn.__path__[0] + "/demo/model"


def run(*words, obj=None):
    return CliRunner().invoke(plugin, [*map(str, words)], obj=obj)


def test_it_has_the_commands_of_hiresattn():
    listed = run("--help")
    assert listed.exit_code == 0
    assert all(f"\n  {name} " in listed.output for name in cli.commands)


def test_it_classifies_with_rios_names_of_options(tmp_path):
    path = write_scene(tmp_path / "scene.tif", *MADE["north-up"], count=2)
    out = tmp_path / "x.geojsonl"
    how = ("-m", MODEL, "--policy", "lowres", "-o", out)
    words = ("--bidx", 2, "--nodata", 7, "--bounds", "500300,4490000,503000,4499000")
    done = run("classify", path, *words, *how, obj={"verbosity": 0, "env": rasterio.Env()})
    assert done.exit_code == 0, done.output
    (line,) = (tmp_path / "x.jsonl").read_text().splitlines()
    assert json.loads(line)["region"] == [33, 10, 301, 90]
    assert out.exists()
    assert run("classify", path, *how).exit_code == 1
    assert run("classify", path, *how, "--overwrite", "-b", 1).exit_code == 0


def test_what_it_exports_other_commands_of_rio_take(tmp_path):
    from rasterio.rio.main import main_group

    path = write_scene(tmp_path / "scene.tif", *MADE["north-up"])
    lines = run("classify", path, "-m", MODEL, "--policy", "lowres", "--json").stdout
    features = CliRunner().invoke(plugin, ["export", "-", "--collection"], input=lines).stdout
    words = ["rasterize", str(tmp_path / "out.tif"), "--res", "0.0005", "--default-value", "1"]
    done = CliRunner().invoke(main_group, words, input=features)
    assert done.exit_code == 0, done.output
    with rasterio.open(tmp_path / "out.tif") as raster:
        assert raster.crs.to_epsg() == 4326
        assert raster.read(1).mean() > 0.9  # it lies a little askew in longitude and latitude


@pytest.mark.parametrize(("names", "status"), [(["none.tif"], 1), (["scene.tif", "none.tif"], 3), ([], 2)])
def test_exit_statuses_say_how_it_ended(tmp_path, names, status):
    write_scene(tmp_path / "scene.tif", *MADE["north-up"])
    done = run("classify", *(tmp_path / name for name in names), "-m", MODEL, "--policy", "lowres")
    assert done.exit_code == status, done.output
    assert "Traceback" not in done.output


def test_rios_settings_hold_while_a_command_runs(monkeypatch):
    from rasterio.env import getenv

    seen = {}

    def info(**_):
        seen.update(getenv())

    monkeypatch.setattr(cli.commands["info"], "callback", info)
    with rasterio.Env(CPL_DEBUG="OFF") as env:
        pass
    assert (
        run("info", "a.tif", obj={"verbosity": 1, "env": rasterio.Env(GDAL_HTTP_USERAGENT="rio")}).exit_code
        == 0
    )
    assert seen["GDAL_HTTP_USERAGENT"] == "rio"
    assert env is not None


def test_rio_finds_it_and_asks_for_nothing_heavy():
    found = [one.value for one in entry_points(group="rasterio.rio_plugins") if one.name == "hiresattn"]
    if found:  # an installation from before has none
        assert found == ["hiresattn_cli.rio:hiresattn"]
    code = "import sys, hiresattn_cli.rio; print(*sorted({name.split('.')[0] for name in sys.modules}))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)  # noqa: S603
    heavy = {"numpy", "torch", "rasterio", "geopandas", "xarray", "pystac", "hiresattn"}
    assert set(done.stdout.split()) & heavy == set()
