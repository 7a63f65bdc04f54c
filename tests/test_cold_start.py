"""What a run doesn't need is not imported: by what is loaded, not by how long it takes."""

import shutil
import subprocess
import sys

import numpy as np
import pytest
from PIL import Image

from tests.test_layers import ROOT

DEMO = ROOT / "hiresattn" / "demo" / "model"
CODE = """
import atexit, sys
atexit.register(lambda: print(*sorted(sys.modules), file=sys.stderr))
sys.argv[0] = "hiresattn"
from hiresattn_cli.main import main
main()
"""


def modules_of(*words):
    done = subprocess.run(  # noqa: S603 - this interpreter
        [sys.executable, "-c", CODE, *map(str, words)], capture_output=True, text=True, check=True
    )
    return set(done.stderr.splitlines()[-1].split())


def loaded_by(*words):
    return {name.split(".")[0] for name in modules_of(*words)}


@pytest.fixture(scope="module")
def image(tmp_path_factory):
    path = tmp_path_factory.mktemp("cold") / "image.png"
    Image.fromarray(np.full((64, 64), 90, np.uint8)).save(path)
    return path


#: Takes a tenth of a second or more, and serves training, compiling or whole levels.
HEAVY = {
    "torch",
    "torchvision",
    "timm",
    "jaxtyping",
    "numba",
    "dask",
    "distributed",
    "zarr",
    "pandas",
    "huggingface_hub",
}


#: What asks servers, and what only pages and tables of results, manifests and slides need.
ELSEWHERE = {"http", "ssl", "email", "html", "colorsys", "openslide", "rasterio"}
NOT_OURS = {
    "hiresattn.datasets.manifest",
    "hiresattn.datasets.boxes",
    "hiresattn.datasets.georeferenced",
    "hiresattn.report.results",
    "hiresattn.inference.classify",
}


def test_info_loads_its_own_command_and_what_reads_the_file(image):
    found = modules_of("info", image)
    assert {name.split(".")[0] for name in found} & (HEAVY | ELSEWHERE) == set()
    assert found & NOT_OURS == set()
    names = {name.rpartition(".")[2] for name in found if name.startswith("hiresattn_cli.")}
    assert names == {"main", "groups", "output", "info", "help", "options", "sources"}


def test_a_dry_run_loads_no_network_no_compiler_and_nothing_that_writes_results(image):
    found = modules_of("classify", image, "-m", DEMO, "--dry-run")
    assert {name.split(".")[0] for name in found} & (HEAVY | ELSEWHERE) == set()
    assert found & NOT_OURS == set()


def test_a_model_with_a_built_in_encoder_loads_no_other_encoders(image):
    found = loaded_by("classify", image, "-m", DEMO, "--engine", "torch", "--policy", "lowres")
    assert "torch" in found
    assert found & {"torchvision", "timm", "jaxtyping", "dask", "huggingface_hub"} == set()


def test_onnx_on_a_small_image_loads_no_torch_and_no_compiler(image, tmp_path):
    pytest.importorskip("onnxruntime")
    pytest.importorskip("onnx")
    model = tmp_path / "model"
    shutil.copytree(DEMO, model)
    export = [
        sys.executable,
        "-c",
        CODE,
        "export-model",
        str(model),
    ]  # apart: torch's tracer and checked shapes
    subprocess.run(export, check=True, capture_output=True)  # noqa: S603 - this interpreter
    found = loaded_by("classify", image, "-m", model, "--engine", "onnx")
    assert "onnxruntime" in found
    assert found & HEAVY == set()
