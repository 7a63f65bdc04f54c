"""`doctor`: tries what is there, names what is missing with its command, and fails only for what is needed."""

import json
import sys
from types import SimpleNamespace

import numpy as np
import pytest

from hiresattn_cli import doctor as module


def test_everything_is_looked_at(run):
    result = run("doctor", "--json")
    found = {one["name"]: one for one in json.loads(result.stdout)["findings"]}
    assert {one["part"] for one in found.values()} == {
        "program", "readers", "codecs", "devices", "extras", "folders",
    }  # fmt: skip
    for name in (
        "openslide-python",
        "rasterio",
        "zarr",
        "imagecodecs",
        "simplejpeg",
        "torch",
        "temporary files",
    ):
        assert found[name]["state"] == "ok", found[name]
    assert (result.exit_code, result.stderr) == (0, "")
    table = run("doctor").stdout
    assert "  ok       openslide-python" in table


def test_what_is_optional_is_named_with_what_adds_it(run, monkeypatch):
    for name in ("openpyxl", "tensorboard"):
        monkeypatch.setitem(sys.modules, name, None)
    result = run("doctor")
    assert result.exit_code == 0
    assert "-> pip install 'hiresattn[excel]'" in result.stdout
    assert "-> pip install tensorboard" in result.stdout
    assert "All that is needed works." in result.stdout


def test_what_is_needed_and_broken_is_a_failure_and_no_traceback(run, monkeypatch):
    def load(name):
        if name == "rasterio":
            raise ImportError("libgdal.so.36: cannot open shared object file\nmore")
        return sys.modules.get(name)

    monkeypatch.setattr(module, "import_module", load)
    result = run("doctor")
    assert result.exit_code == 1
    assert "can't be used: libgdal.so.36: cannot open shared object file" in result.stdout
    assert "-> pip install rasterio" in result.stdout
    assert "Not usable as it is: rasterio." in result.stdout


def test_a_folder_that_cant_be_written_is_named(monkeypatch, tmp_path):
    def refuse(**_):
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(module.tempfile, "TemporaryFile", refuse)
    found = module._written("x", tmp_path / "absent", "do this")
    assert (found.state, found.fix) == ("broken", "do this")
    assert "Permission denied" in found.says


def gpu(architectures, value=1.0):
    """A torch with one device, and the code that it has."""
    facts = SimpleNamespace(name="Card", major=9, minor=0)
    cuda = SimpleNamespace(
        get_device_properties=lambda _: facts,
        mem_get_info=lambda _: (30e9, 40e9),
        get_arch_list=lambda: architectures,
    )
    return SimpleNamespace(
        cuda=cuda, ones=lambda *shape, device: np.full(shape, value) * (device == "cuda:0")
    )


def test_a_gpu_is_tried_and_its_fit_is_said():
    assert module._fits(gpu(["sm_80", "sm_90"]), 0) == "Card, 30 of 40 GB free, computes"
    assert "no code for it (sm_90)" in module._fits(gpu(["sm_80", "sm_100"]), 0)
    with pytest.raises(ValueError, match="computes wrongly"):
        module._fits(gpu(["sm_90"], value=2.0), 0)
