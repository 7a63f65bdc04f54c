"""A network for ONNX Runtime beside the weights: it finds what torch finds, and needs no torch."""

import json
import shutil
import subprocess
import sys
from collections import Counter
from dataclasses import replace

import jaxtyping
import numpy as np
import onnx
import onnxruntime
import pytest
import torch
from click.testing import CliRunner

from hiresattn import classify
from hiresattn.card import NETWORK, PROBE, read_card
from hiresattn.checkpoint import Model, load_model, save_model
from hiresattn.config import InputConfig, LocationConfig, ModelConfig
from hiresattn.datasets.example import Example
from hiresattn.errors import BackendMissingError, CheckpointError, ConfigError
from hiresattn.inference import onnx_int8
from hiresattn.inference.engine import threads_for
from hiresattn.inference.onnx_engine import OnnxEngine, chosen_providers, difference
from hiresattn.inference.onnx_export import export_onnx
from hiresattn.inference.options import ClassifyOptions
from hiresattn.inference.session import start_session
from hiresattn.inference.torch_engine import TorchEngine
from hiresattn.model.build import build_model
from hiresattn_cli.main import cli

pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning")

SIZE = 32
RULE = InputConfig(size=SIZE, bands=(0,), low=(0.0,), high=(255.0,))


def saved(folder, **changes):
    """A model with fresh weights, some of them far from 0, on disk."""
    torch.manual_seed(0)
    config = ModelConfig(classes=("a", "b", "c"), input=RULE, **changes)
    net = build_model(config).eval()
    for part in (net.position, net.scorer):
        for weight in part.parameters():
            torch.nn.init.normal_(weight, std=0.3)
    save_model(Model(net, config, "test", ""), folder)
    return folder


def export(folder, written=export_onnx):
    """Export a model; shapes are not checked while a tracer stands in for them."""
    jaxtyping.config.update("jaxtyping_disable", value=True)
    try:
        return written(folder)
    finally:
        jaxtyping.config.update("jaxtyping_disable", value=False)


@pytest.fixture(scope="module")
def exported(tmp_path_factory):
    folder = saved(tmp_path_factory.mktemp("onnx") / "model", background="c")
    export(folder)
    return folder


@pytest.fixture
def model(exported, tmp_path):
    return shutil.copytree(exported, tmp_path / "model")


@pytest.fixture
def image():
    rng = np.random.default_rng(3)
    return np.kron(rng.integers(0, 256, (16, 24, 1), np.uint8), np.ones((16, 16, 1), np.uint8))


def regions(record):
    return [(one.y, one.x, one.height, one.width) for one in record.regions]


@pytest.mark.parametrize("policy", ["best-first", "top-k", "lowres", "exhaustive"])
def test_the_same_regions_are_looked_at(exported, image, policy):
    found = {
        engine: classify(image, exported, engine=engine, policy=policy, stop=None, budget=24)
        for engine in ("torch", "onnx")
    }
    assert regions(found["onnx"]) == regions(found["torch"])
    assert {name: one.model["engine"] for name, one in found.items()} == {"torch": "torch", "onnx": "onnx"}
    assert found["onnx"].scores == pytest.approx(found["torch"].scores, abs=1e-5)
    for name, shares in found["torch"].scores_after.items():
        assert found["onnx"].scores_after[name] == pytest.approx(shares, abs=2e-4)


@pytest.mark.parametrize(
    "changes",
    [
        {"scorer": "saol", "head": "scorer"},
        {"scorer": "ltpa"},
        {"scorer": "oaa", "position": "path-concat"},
        {"scorer": "evidence", "background": "b", "coarse_encoder": True},
        {"scorer": "mask", "aggregator": "mean", "value": False},
        {"scorer": "context", "location": LocationConfig(normalize=True)},
    ],
    ids=lambda changes: changes["scorer"],
)
def test_every_scorer_gives_what_torch_gives(tmp_path, changes):
    folder = saved(tmp_path / "model", **changes)
    engine, net = export(folder), load_model(folder).net
    rng = np.random.default_rng(1)
    side = net.finest
    given = (
        rng.uniform(-1, 1, (5, 1, SIZE, SIZE)).astype(np.float32),
        (rng.random((5, SIZE, SIZE)) < 0.8).astype(np.float32),
        np.array([[0, 0, 4 * side, 4 * side]] * 2 + [[side, 0, side, side]] * 3, np.int64),
        np.array([[0, 0, 4 * side, 4 * side]] * 5, np.int64),
        np.array([[0, 0, 0]] * 2 + [[1, 2, 1]] * 3, np.int64),
    )
    wanted, found = (one.look(*given, appearance=True) for one in (TorchEngine(net), engine))
    assert engine.facts == TorchEngine(net).facts
    assert {name for name, value in vars(found).items() if value is None} == {
        name for name, value in vars(wanted).items() if value is None
    }
    got, expected = (
        {name: value for name, value in vars(one).items() if value is not None} for one in (found, wanted)
    )
    assert difference(got, expected) < 1e-4


def test_auto_takes_the_network_where_it_is(model, image):
    assert isinstance(start_session(model, ClassifyOptions(device="cpu")).engine, OnnxEngine)
    (model / NETWORK).write_bytes(b"other")
    record = classify(image, model, device="cpu", budget=4)
    assert (record.status, record.model["engine"]) == ("ok", "torch")
    with pytest.raises(CheckpointError, match="not what the card names"):
        classify(image, model, engine="onnx")


def test_a_loaded_model_runs_with_torch(model):
    assert isinstance(start_session(load_model(model), ClassifyOptions(device="cpu")).engine, TorchEngine)


def test_a_network_that_differs_from_torch_is_refused(model):
    from safetensors.numpy import load_file, save_file

    from hiresattn.card import sha256_of

    stored = load_file(model / PROBE)
    stored[f"{NETWORK}/value"] = stored[f"{NETWORK}/value"] + 0.5
    save_file(stored, model / PROBE)
    card = json.loads((model / "card.json").read_text())
    card["onnx"]["files"][PROBE] = sha256_of(model / PROBE)
    (model / "card.json").write_text(json.dumps(card))
    with pytest.raises(CheckpointError, match=r"differs from torch by 0\.[345]"):
        OnnxEngine(read_card(model))
    assert isinstance(start_session(model, ClassifyOptions(device="cpu")).engine, TorchEngine)


def test_other_weights_take_the_network_away(model):
    loaded = load_model(model)
    assert loaded.onnx is not None
    save_model(loaded, model)
    assert read_card(model).onnx is None
    assert not (model / NETWORK).exists()
    with pytest.raises(CheckpointError, match="hiresattn export-model"):
        classify(np.zeros((64, 64, 1), np.uint8), model, engine="onnx")


def test_random_scores_are_not_exported(tmp_path):
    with pytest.raises(ConfigError, match="random scores"):
        export_onnx(saved(tmp_path / "model", scorer="random"))


def test_options_that_do_not_fit(model, image):
    with pytest.raises(ConfigError, match="needs the engine torch"):
        classify(image, model, engine="onnx", scorer="random")
    with pytest.raises(ConfigError, match="unknown engine 'onx'; did you mean 'onnx'"):
        ClassifyOptions(engine="onx")
    with pytest.raises(ConfigError, match="provider is ONNX Runtime's"):
        ClassifyOptions(engine="torch", provider="openvino")


class Runtime:
    """An ONNX Runtime with these providers."""

    def __init__(self, *known):
        self._known = [f"{name}ExecutionProvider" for name in known]

    def get_available_providers(self):
        return self._known


def test_the_provider_is_that_of_the_device_or_the_one_named():
    cpu, cuda = "CPUExecutionProvider", "CUDAExecutionProvider"
    assert chosen_providers(Runtime("CPU"), "auto", None) == [cpu]
    assert chosen_providers(Runtime("CUDA", "CPU"), "auto", None) == [cuda, cpu]
    assert chosen_providers(Runtime("CUDA", "CPU"), "cpu", None) == [cpu]
    assert chosen_providers(Runtime("CUDA", "CPU"), "cuda:1", None) == [(cuda, {"device_id": 1}), cpu]
    assert chosen_providers(Runtime("OpenVINO", "CPU"), "auto", "openvino")[0] == "OpenVINOExecutionProvider"
    with pytest.raises(ConfigError, match="device cuda: this ONNX Runtime has cpu only"):
        chosen_providers(Runtime("CPU"), "cuda", None)
    with pytest.raises(ConfigError, match="this ONNX Runtime has cpu"):
        chosen_providers(Runtime("CPU"), "auto", "tensorrt")


#: Runs a command where torch and what belongs to it can't be imported.
WITHOUT = """
import sys

class Refused:
    def find_spec(self, name, path=None, target=None):
        if name.split(".")[0] in ("torch", "torchvision", "timm", "onnx", "onnxscript"):
            raise ImportError(f"{name} is refused")

sys.meta_path.insert(0, Refused())
sys.argv[0] = "hiresattn"
from hiresattn_cli.main import main

main()
"""


def without_torch(*words):
    return subprocess.run(  # noqa: S603 - this interpreter
        [sys.executable, "-c", WITHOUT, *map(str, words)], capture_output=True, text=True, check=False
    )


def test_classifying_needs_no_torch(exported, tmp_path, image):
    from PIL import Image

    Image.fromarray(image[..., 0]).save(tmp_path / "image.png")
    done = without_torch("classify", tmp_path / "image.png", "-m", exported, "--budget", "8", "--json")
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["status"] == "ok"


def test_without_torch_and_without_a_network_an_error_says_what_to_do(tmp_path, model, monkeypatch):
    monkeypatch.setattr("hiresattn.inference.session._installed", lambda name: name != "torch")
    save_model(load_model(model), tmp_path / "bare")
    with pytest.raises(BackendMissingError, match="export-model"):
        classify(np.zeros((64, 64, 1), np.uint8), tmp_path / "bare")


@pytest.mark.parametrize(
    ("asked", "named"),
    [
        ({"engine": "torch"}, "engine=torch"),
        ({"scorer": "random"}, "scorer=random"),
        ({"precision": "bfloat16"}, "precision=bfloat16"),
    ],
)
def test_without_torch_what_needs_it_is_named_and_not_the_network_that_is_there(
    exported, monkeypatch, asked, named
):
    monkeypatch.setattr("hiresattn.inference.session._installed", lambda name: name != "torch")
    words = f"{named} needs torch, which isn't installed; leave it out"
    with pytest.raises(BackendMissingError, match=words):
        start_session(exported, ClassifyOptions(**asked))


def test_without_torch_no_device_keeps_onnx_from_the_network(exported, monkeypatch, tmp_path):
    monkeypatch.setattr("hiresattn.inference.session._installed", lambda name: name != "torch")
    monkeypatch.setattr("hiresattn.inference.session._NVIDIA", tmp_path)  # there is a driver
    assert isinstance(start_session(exported, ClassifyOptions()).engine, OnnxEngine)
    with pytest.raises(ConfigError, match="device cuda: this ONNX Runtime has"):
        start_session(exported, ClassifyOptions(device="cuda"))
    monkeypatch.setattr("hiresattn.inference.session._installed", lambda _: False)
    with pytest.raises(BackendMissingError, match="neither ONNX Runtime nor torch is installed"):
        start_session(exported, ClassifyOptions())


def test_the_command_says_that_it_agrees(model, monkeypatch):
    monkeypatch.setattr("hiresattn.inference.onnx_export.export_onnx", export)
    done = CliRunner().invoke(cli, ["export-model", str(model), "--to", "onnx"])
    assert done.exit_code == 0, done.output
    assert done.stderr == f"{model}/model.onnx: agrees with PyTorch\n"


def test_a_built_in_encoder_computes_in_one_thread_and_torchs_number_stays(exported, image, monkeypatch):
    loaded, before, seen = load_model(exported), torch.get_num_threads(), set()
    assert threads_for(loaded.config, 3) == 3
    assert threads_for(replace(loaded.config, encoder="efficientnet_b0"), None) is None
    monkeypatch.setattr(loaded.net.encoder, "forward", _watched(loaded.net.encoder.forward, seen))
    torch.set_num_threads(2)
    try:
        classify(image, loaded, stop=None, budget=4, device="cpu")
        assert (seen, torch.get_num_threads()) == ({1}, 2)
    finally:
        torch.set_num_threads(before)


def _watched(forward, seen):
    return lambda *given: seen.add(torch.get_num_threads()) or forward(*given)


def operators(file):
    """How often ONNX Runtime runs each operator of a network here."""
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3
    options.optimized_model_filepath = str(file.with_name("optimised.onnx"))
    onnxruntime.InferenceSession(file, options)
    return Counter(node.op_type for node in onnx.load(options.optimized_model_filepath).graph.node)


def test_a_network_of_8_bits_says_what_it_changes_and_is_taken_where_it_is_named(model, image, monkeypatch):
    labelled = [Example(np.roll(image, 31 * n, axis=0), "abc"[n % 3]) for n in range(4)]
    with pytest.raises(CheckpointError, match=r"no network of 8 bits .* --int8 IMAGES` makes one"):
        start_session(model, ClassifyOptions(engine="onnx-int8"))
    monkeypatch.setattr("hiresattn.inference.onnx_export.export_onnx", export)
    monkeypatch.setattr(onnx_int8, "all_of", lambda images: images and labelled)
    told = CliRunner().invoke(cli, ["export-model", str(model), "--int8", "images"], catch_exceptions=False)
    facts = read_card(model).onnx["int8"]
    assert f"of 4 cases {facts['same_class']:.1%} get the same class" in told.output
    assert facts["accuracy"] in (0, 0.25, 0.5, 0.75, 1)
    assert 0 < facts["probe_apart"] < 1
    assert (model / "model-int8.onnx").stat().st_size < 0.8 * (model / "model.onnx").stat().st_size
    records = {
        engine: [classify(one, model, engine=engine, stop=None, device="cpu") for one in labelled]
        for engine in ("auto", "onnx", "onnx-int8")
    }
    assert [one.scores for one in records["auto"]] == [one.scores for one in records["onnx"]]
    assert {one.model["engine"] for one in records["onnx-int8"]} == {"onnx-int8"}
    worst = max(
        abs(one.scores[name] - other.scores[name])
        for one, other in zip(records["onnx"], records["onnx-int8"], strict=True)
        for name in one.scores
    )
    assert 0 < worst == pytest.approx(facts["score_apart"], abs=1e-6)
    run = operators(model / "model-int8.onnx")
    assert run["QLinearConv"] > 0 == run["Conv"] + run["FusedConv"]
    (model / "model-int8.onnx").write_bytes(b"other")
    with pytest.raises(CheckpointError, match="not what the card names"):
        start_session(model, ClassifyOptions(engine="onnx-int8"))
    with pytest.raises(ConfigError, match="int8 needs images"):
        onnx_int8.export_int8(model, [])
