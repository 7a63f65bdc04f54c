"""`classify --dry-run`: the cost of each source, no pixel read."""

import json

import pytest
import torch

from hiresattn.checkpoint import Model, save_model
from hiresattn.config import ModelConfig
from hiresattn.model.build import build_model
from hiresattn.pyramid.storage.tifftiles import LocalFile
from tests.images import write_ome_tiff


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    torch.manual_seed(0)
    config = ModelConfig(classes=("dark", "light"))
    folder = tmp_path_factory.mktemp("model")
    save_model(Model(build_model(config), config, "test", ""), folder)
    return folder


def test_a_plan_reads_no_pixel_and_says_what_a_run_would_cost(run, tmp_path, model, monkeypatch):
    path = write_ome_tiff(tmp_path / "image.ome.tif", compression="jpeg")
    monkeypatch.setattr(LocalFile, "pread", lambda *_: pytest.fail("a pixel was read"))
    words = ("classify", path, tmp_path / "absent.tif", "-m", model, "--dry-run")
    result = run(*words, "--budget", "16")
    assert result.exit_code == 3
    plan, missing = map(json.loads, result.stdout.splitlines())
    assert (plan["source"], plan["status"], plan["run"]["budget"]) == (str(path), "planned", 16)
    assert 0 < plan["run"]["requests"] <= plan["run"]["tiles"]
    assert 0 < plan["run"]["bytes"] <= path.stat().st_size
    assert missing["status"] == "error"
    assert "no such file" in result.stderr
    less = json.loads(run(*words[:2], *words[3:], "--budget", "1kB").stdout)["run"]
    assert less["bytes"] == 1000


def test_a_plan_of_a_window_stays_inside_it(run, tmp_path, model):
    path = write_ome_tiff(tmp_path / "image.ome.tif")
    words = ("classify", path, "-m", model, "--dry-run", "--region")
    window = json.loads(run(*words, "0,0,100,100").stdout)
    assert window["region"] == [0, 0, 100, 100]
    assert window["run"]["tiles"] == 1
    assert run(*words, "0,0,9999,9").exit_code == 1
