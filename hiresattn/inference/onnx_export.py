"""Write the network of one step for ONNX Runtime, into the model directory, beside the weights."""

import warnings
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors.numpy import save
from torch import Tensor, nn

from hiresattn.card import COARSE_NETWORK, NETWORK, PROBE, read_card, sha256_of
from hiresattn.checkpoint import Model, load_model, set_onnx
from hiresattn.errors import BackendMissingError, CheckpointError, ConfigError, reason
from hiresattn.files import atomic_write
from hiresattn.inference.onnx_engine import OnnxEngine, import_onnxruntime
from hiresattn.model.net import GlimpseNet
from hiresattn.model.step import INPUTS, OUTPUTS, Step, step

#: Crops of the probe, and of the pass that is traced: two numbers, so that one that depends on it is found out.
_PROBED, _TRACED = 3, 2
_OPSET = 18


def export_onnx(path: str | Path) -> OnnxEngine:
    """Write a model's network for ONNX Runtime, and check that it gives what torch gives.

    The directory gets ``model.onnx`` (``coarse.onnx`` too, where regions that are divided have an encoder of their
    own), and a probe: a few crops, and torch's outputs. The card names them. Saving other weights removes them.

    Args:
        path: A model directory.

    Returns:
        An engine that runs it on the CPU.

    Raises:
        BackendMissingError: If onnx or ONNX Runtime isn't installed.
        ConfigError: If the network has a part that has no like in ONNX, or gives something else there.
        CheckpointError: If the model can't be loaded or written to.
    """
    import_onnxruntime()
    path, model = Path(path), load_model(path)
    net = model.net
    if model.config.scorer == "random":
        raise ConfigError(
            f"{path}: random scores are drawn by torch, and can't be put into a network for ONNX"
        )
    encoders: dict[str, nn.Module] = {NETWORK: net.encoder}
    if net.coarse_encoder is not None:
        encoders[COARSE_NETWORK] = net.coarse_encoder
    probe, stored = _inputs(model, _PROBED)
    files: dict[str, str] = {}
    try:
        with ExitStack() as stack:
            for name, encoder in encoders.items():
                file = stack.enter_context(atomic_write(path / name))
                _write(net, encoder, _inputs(model, _TRACED)[0], file)
                files[name] = sha256_of(file)
                for key, values in step(net, encoder, probe).items():
                    stored[f"{name}/{key}"] = values.contiguous().numpy()
            file = stack.enter_context(atomic_write(path / PROBE))
            file.write_bytes(save(stored))
            files[PROBE] = sha256_of(file)
    except OSError as error:
        raise CheckpointError(f"{path}: can't be written to: {error}") from error
    weight = net.prior_weight
    facts = {
        "files": files,
        "gate": net.scorer.gate,
        "prior_weight": 0.0 if weight is None else float(weight.detach()),
        "by_path": bool(net.position is not None and net.position.by_path),
    }
    try:
        engine = OnnxEngine(replace(read_card(path), onnx=facts), device="cpu")
    except CheckpointError as error:
        for name in files:
            (path / name).unlink(missing_ok=True)
        raise ConfigError(f"{path}: no network for ONNX was written: {error}") from error
    set_onnx(path, facts)
    return engine


def _inputs(model: Model, count: int) -> tuple[dict[str, Tensor], dict[str, np.ndarray]]:
    """Crops of noise, partly not measured, as the network takes them; and as they are stored."""
    rng, side = np.random.default_rng(count), model.config.input.size
    coverage = np.ones((count, side, side), np.float32)
    coverage[0, : side // 2] = 0
    stored = {
        "in.pixels": rng.integers(0, 256, (count, len(model.config.input.bands), side, side), np.uint8),
        "in.coverage": coverage,
        "in.fraction": np.full(count, model.config.grid.fraction, np.float32),
    }
    if model.net.position is not None:
        stored["in.position"] = rng.random((count, 3), np.float32)
    inputs = {name.removeprefix("in."): torch.from_numpy(values) for name, values in stored.items()}
    inputs["pixels"] = inputs["pixels"].float() / 127.5 - 1
    return inputs, stored


def _write(net: GlimpseNet, encoder: nn.Module, inputs: dict[str, Tensor], file: Path) -> None:
    """Trace a pass and write it.

    The tracer takes seconds where the exporter of ``torch.export`` takes a minute; that it fixes what depends on the
    values is seen by the probe.
    """
    names = [name for name in INPUTS if name in inputs]
    outputs = [name for name in OUTPUTS if name in step(net, encoder, inputs)]
    traced = _Ordered(Step(net, encoder), outputs)
    options: dict[str, Any] = {
        "input_names": names,
        "output_names": outputs,
        "dynamic_axes": {name: {0: "n"} for name in [*names, *outputs]},
        "opset_version": _OPSET,
        "dynamo": False,
    }
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            torch.onnx.export(traced.eval(), tuple(inputs[name] for name in names), str(file), **options)
    except ImportError as error:
        raise BackendMissingError("export-model needs onnx; pip install 'hiresattn[onnx]'") from error
    except (RuntimeError, ValueError, torch.onnx.errors.OnnxExporterError) as error:
        raise ConfigError(f"the network can't be written for ONNX: {reason(error)}") from error


class _Ordered(nn.Module):
    """A step whose outputs are a tuple."""

    def __init__(self, inner: Step, outputs: list[str]) -> None:
        super().__init__()
        self.inner = inner
        self.outputs = outputs

    def forward(self, *inputs: Tensor) -> tuple[Tensor, ...]:
        """The outputs in order."""
        found = self.inner(*inputs)
        return tuple(found[name] for name in self.outputs)
