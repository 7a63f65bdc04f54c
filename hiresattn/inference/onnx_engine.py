"""The engine that runs a network with ONNX Runtime: no torch."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from safetensors import SafetensorError
from safetensors.numpy import load_file

from hiresattn.card import COARSE_NETWORK, INT8, NETWORK, PROBE, Card, local_files, sha256_of
from hiresattn.config import ModelConfig
from hiresattn.errors import BackendMissingError, CheckpointError, ConfigError, reason
from hiresattn.geometry import cell_sides, expandable, locations
from hiresattn.inference.engine import NetFacts, Outputs, threads_for
from hiresattn.option_types import did_you_mean

#: Largest difference from torch that is put down to rounding: absolute, or as a share of the value.
TOLERANCE = 2e-3
#: Execution providers of devices.
_PROVIDERS = {
    "cpu": "CPUExecutionProvider",
    "cuda": "CUDAExecutionProvider",
    "mps": "CoreMLExecutionProvider",
}
_SUFFIX = "ExecutionProvider"


class OnnxEngine:
    """Runs the ONNX network that lies in a model directory, beside the weights.

    Args:
        card: Of the model; it names the network.
        device: ``auto``, ``cpu``, ``cuda:N`` or ``mps``.
        provider: Name of an execution provider of ONNX Runtime, such as ``openvino``, in place of the device's.
        threads: That compute; None = chosen by the encoder.
        int8: Whether it is the network that was rounded to 8 bits, whose outputs are not compared with torch's.

    Raises:
        ConfigError: If there is no such provider here.
        CheckpointError: If the network is missing, damaged, of other weights, or gives something else than torch.
        BackendMissingError: If ONNX Runtime isn't installed.
    """

    def __init__(
        self,
        card: Card,
        *,
        device: str = "auto",
        provider: str | None = None,
        threads: int | None = None,
        int8: bool = False,
    ) -> None:
        facts = card.onnx
        if facts is None:
            raise CheckpointError(no_network(card))
        if int8 and "int8" not in facts:
            raise CheckpointError(no_network(card, int8=True))
        runtime = import_onnxruntime()
        files = facts["int8"]["files"] if int8 else facts["files"]
        folder = local_files(card.path, *files)
        self.facts = facts_of(card.config, facts)
        providers = chosen_providers(runtime, device, provider)
        self.device = (
            "cpu" if providers[0] in ("CPUExecutionProvider", "OpenVINOExecutionProvider") else "gpu"
        )
        self.name = "onnx-int8" if int8 else "onnx"
        self._by_path = bool(facts["by_path"])
        threads = threads_for(card.config, threads)
        self.networks = {
            name: _network(runtime, folder / file, files[file], providers, threads)
            for name, file in (INT8 if int8 else {name: name for name in INT8}).items()
            if file in files
        }
        """By name: that of all regions, and that of those which are divided further, if they have one."""
        if not int8:
            _check(folder / PROBE, files[PROBE], self.networks)

    def look(
        self,
        pixels: np.ndarray,
        coverage: np.ndarray,
        regions: np.ndarray,
        frames: np.ndarray,
        paths: np.ndarray,
        *,
        appearance: bool = False,
    ) -> Outputs:
        """Encode and score crops; see ``Engine.look``."""
        sides = cell_sides(regions, self.facts.grid, self.facts.finest)
        inputs = {
            "pixels": pixels,
            "coverage": coverage,
            "fraction": (sides[:, 0] / regions[:, 2]).astype(np.float32),
            "position": (paths if self._by_path else locations(regions, frames)).astype(np.float32),
        }
        coarse, fine = self.networks.get(COARSE_NETWORK), self.networks[NETWORK]
        wide = expandable(regions, self.facts.finest) if coarse is not None else np.zeros(1, bool)
        if coarse is None or not wide.any():
            found = fine(inputs)
        elif wide.all():
            found = coarse(inputs)
        else:
            parts = [
                network({key: values[rows] for key, values in inputs.items()})
                for network, rows in ((coarse, wide), (fine, ~wide))
            ]
            order = np.concatenate([np.flatnonzero(wide), np.flatnonzero(~wide)]).argsort()
            found = {name: np.concatenate([part[name] for part in parts])[order] for name in parts[0]}
        if not appearance:
            found.pop("appearance", None)
        return Outputs(**found)


def no_network(card: Card, *, int8: bool = False) -> str:
    """Says that a model has no ONNX network, or none of 8 bits, and what to do."""
    return (
        f"{card.path or card.name}: there is no network {'of 8 bits ' * int8}for ONNX Runtime beside its weights; "
        f"`hiresattn export-model {card.path or 'MODEL'} --to onnx{' --int8 IMAGES' * int8}` makes one"
    )


def import_onnxruntime() -> Any:
    """ONNX Runtime.

    Raises:
        BackendMissingError: If it isn't installed.
    """
    try:
        import onnxruntime
    except ImportError as error:
        raise BackendMissingError(
            "the engine onnx needs ONNX Runtime; pip install 'hiresattn[onnx]'"
        ) from error
    return onnxruntime


def chosen_providers(runtime: Any, device: str, provider: str | None) -> list[Any]:
    """The execution providers of a session, the first that can run an operator runs it.

    Args:
        runtime: ONNX Runtime.
        device: ``auto``, ``cpu``, ``cuda:N`` or ``mps``.
        provider: Name of a provider, in place of the device's; with or without ``ExecutionProvider``, in any case.

    Raises:
        ConfigError: If it can't be had.
    """
    known = runtime.get_available_providers()
    short = {name.removesuffix(_SUFFIX).lower(): name for name in known}
    if provider is not None:
        asked = provider.removesuffix(_SUFFIX).lower()
        if asked not in short:
            raise ConfigError(
                f"provider {provider!r}: this ONNX Runtime has {', '.join(short)}{did_you_mean(asked, short)}; another "
                "build of it may have more, such as onnxruntime-gpu or onnxruntime-openvino"
            )
        wanted = short[asked]
    else:
        kind, _, number = device.partition(":")
        wanted = _PROVIDERS[
            "cuda" if kind == "auto" and _PROVIDERS["cuda"] in known else kind.replace("auto", "cpu")
        ]
        if wanted not in known:
            raise ConfigError(
                f"device {device}: this ONNX Runtime has {', '.join(short)} only; install another build of it "
                "(onnxruntime-gpu), or take the engine torch"
            )
        if number:
            return [(wanted, {"device_id": int(number)}), _PROVIDERS["cpu"]]
    return [wanted] if wanted == _PROVIDERS["cpu"] else [wanted, _PROVIDERS["cpu"]]


def facts_of(config: ModelConfig, facts: Any) -> NetFacts:
    """What a search needs to know of a network.

    Args:
        config: How it is built.
        facts: What only the built network knows, from the card.
    """
    return NetFacts(
        grid=config.grid,
        finest=config.finest_side,
        gate=None if facts["gate"] is None else float(facts["gate"]),
        background=None if config.background is None else config.classes.index(config.background),
        prior_weight=float(facts["prior_weight"]),
        multi_label=config.multi_label,
        head=config.head,
        pool_finest=config.pool_finest,
        aggregator=config.aggregator,
    )


class Network:
    """A network that was loaded: arrays by name in, arrays by name out.

    Args:
        session: ONNX Runtime's; it names what goes in and what comes out.
    """

    def __init__(self, session: Any) -> None:
        self._session = session
        self.asked = [one.name for one in session.get_inputs()]
        """Names of the inputs that it takes."""
        self._given = [one.name for one in session.get_outputs()]

    def __call__(self, inputs: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
        """Its outputs; it takes of the inputs what it asks for."""
        found = self._session.run(self._given, {name: inputs[name] for name in self.asked})
        return dict(zip(self._given, found, strict=True))


def _network(runtime: Any, file: Path, sha256: str, providers: Sequence[Any], threads: int | None) -> Network:
    """A network whose hash is known."""
    _check_file(file, sha256)
    options = runtime.SessionOptions()
    options.log_severity_level = 3
    if threads is not None:
        options.intra_op_num_threads = max(threads, 1)
    # Threads that wait without sleeping take the cores from the readers.
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    try:
        return Network(runtime.InferenceSession(str(file), options, providers=list(providers)))
    except Exception as error:  # ONNX Runtime's own types
        raise CheckpointError(
            f"{file}: ONNX Runtime can't load it ({reason(error)}); export it anew"
        ) from error


def _check_file(file: Path, sha256: str) -> None:
    if not file.is_file():
        raise CheckpointError(f"{file}: the card names it, and it is missing; copy the whole directory")
    if sha256_of(file) != sha256:
        raise CheckpointError(f"{file}: not what the card names (sha256 differs); export it anew")


def _check(file: Path, sha256: str, networks: dict[str, Network]) -> None:
    """Run the stored crops, and compare with what torch gave."""
    _check_file(file, sha256)
    for name, apart in apart_on_probe(file, networks).items():
        if not apart <= TOLERANCE:
            raise CheckpointError(
                f"{file.parent / name}: it differs from torch by {apart:.2g} here, more than rounding explains"
            )


def apart_on_probe(file: Path, networks: dict[str, Network]) -> dict[str, float]:
    """How far each network is from what torch gave for the stored crops; see ``difference``.

    Raises:
        CheckpointError: If they can't be read.
    """
    try:
        stored = load_file(file)
    except (OSError, SafetensorError) as error:
        raise CheckpointError(f"{file}: can't be read ({reason(error)}); export it anew") from error
    apart = {}
    for name, network in networks.items():
        inputs = {key.removeprefix("in."): values for key, values in stored.items() if key.startswith("in.")}
        inputs["pixels"] = inputs["pixels"].astype(np.float32) / 127.5 - 1
        wanted = {
            key.partition("/")[2]: values for key, values in stored.items() if key.startswith(f"{name}/")
        }
        apart[name] = difference(network(inputs), wanted)
    return apart


def difference(found: dict[str, np.ndarray], wanted: dict[str, np.ndarray]) -> float:
    """The largest difference of outputs, absolute or as a share of the value; infinite where they don't match."""
    if found.keys() != wanted.keys():
        return float("inf")
    most = 0.0
    for name, values in wanted.items():
        both = np.isfinite(values)
        if found[name].shape != values.shape or not np.array_equal(both, np.isfinite(found[name])):
            return float("inf")
        apart = np.abs(found[name][both] - values[both]) / np.maximum(np.abs(values[both]), 1)
        most = max(most, float(apart.max(initial=0)))
    return most
