"""Round the network for ONNX Runtime to whole numbers of 8 bits, and say what that does to its answers."""

import logging
import tempfile
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from hiresattn.card import INT8, PROBE, read_card, sha256_of
from hiresattn.checkpoint import set_onnx
from hiresattn.errors import BackendMissingError, CheckpointError, ConfigError, reason
from hiresattn.files import atomic_write
from hiresattn.inference.classify import classify_in
from hiresattn.inference.onnx_engine import Network, OnnxEngine, apart_on_probe, no_network
from hiresattn.inference.options import ClassifyOptions
from hiresattn.inference.record import Record
from hiresattn.inference.session import start_session
from hiresattn.inference.sources import all_of

#: Looks whose crops set the ranges of values.
_LOOKS = 256


@dataclass(frozen=True)
class Int8:
    """What rounding the network to 8 bits does."""

    cases: int
    """Classified by both networks."""
    same_class: float
    """Share of them that get the same class."""
    score_apart: float
    """Largest difference of a probability."""
    accuracy: float | None
    """Share of the labelled cases whose class is right; None = no labels."""
    float_accuracy: float | None
    """The same of the network that wasn't rounded."""
    probe_apart: float
    """Largest difference of an output from PyTorch's on the stored probe, absolute or as a share of the value."""


def export_int8(path: str | Path, images: Any) -> Int8:
    """Write a network of 8-bit weights and values beside the one for ONNX Runtime; its answers differ a little.

    The ranges of values are those of the crops that the network looks at in ``images``, which both networks then
    classify. Nothing takes it unasked: ``engine="onnx-int8"`` does.

    Args:
        path: A model directory with a network for ONNX Runtime.
        images: Images like those it is meant for, as ``classify_all`` takes them; labelled, if its accuracy is to be
            known.

    Returns:
        What changes; the card has it, too.

    Raises:
        BackendMissingError: If onnx or ONNX Runtime isn't installed.
        CheckpointError: If there is no network for ONNX Runtime, or the directory can't be written to.
        ConfigError: If the network can't be rounded, or there are no images.
        HiresattnError: What is wrong with an image.
    """
    path, sources = Path(path), list(all_of(images))
    if not sources:
        raise ConfigError("int8 needs images whose crops set the ranges of values; got none")
    card = read_card(path, reference=True)
    if card.onnx is None:
        raise CheckpointError(no_network(card))
    session = start_session(card, _options("onnx"))
    assert isinstance(session.engine, OnnxEngine)  # noqa: S101 - it was asked for
    networks = session.engine.networks
    seen = {name: _Seen(network) for name, network in networks.items()}
    networks.update(seen)
    wanted = list(classify_in(session, sources))
    files: dict[str, str] = {}
    try:
        with ExitStack() as stack:
            for name, network in seen.items():
                file = stack.enter_context(atomic_write(path / INT8[name]))
                _quantise(path / name, network.inputs, file)
                files[INT8[name]] = sha256_of(file)
    except OSError as error:
        raise CheckpointError(f"{path}: can't be written to: {error}") from error
    whole = {key: value for key, value in card.onnx.items() if key != "int8"}
    session = start_session(replace(card, onnx={**whole, "int8": {"files": files}}), _options("onnx-int8"))
    assert isinstance(session.engine, OnnxEngine)  # noqa: S101
    found = list(classify_in(session, sources))
    facts = Int8(
        cases=len(wanted),
        same_class=float(np.mean([_answer(a) == _answer(b) for a, b in zip(wanted, found, strict=True)])),
        score_apart=max(
            abs(ours - b.scores[name])
            for a, b in zip(wanted, found, strict=True)
            for name, ours in a.scores.items()
        ),
        accuracy=_accuracy(found),
        float_accuracy=_accuracy(wanted),
        probe_apart=max(apart_on_probe(path / PROBE, session.engine.networks).values()),
    )
    set_onnx(path, {**whole, "int8": {"files": files, **asdict(facts)}})
    return facts


class _Seen(Network):
    """A network that keeps what it is asked for."""

    def __init__(self, network: Network) -> None:
        self._network = network
        self.inputs: list[dict[str, np.ndarray]] = []

    def __call__(self, inputs: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
        if len(self.inputs) < _LOOKS:
            self.inputs.append({name: inputs[name].copy() for name in self._network.asked})
        return self._network(inputs)


def _options(engine: str) -> ClassifyOptions:
    """A search without a stop rule, so that both networks look as often; one image at a time."""
    return ClassifyOptions(engine=engine, device="cpu", stop=None, batch_images=1)


def _quantise(source: Path, inputs: list[dict[str, np.ndarray]], file: Path) -> None:
    """Round weights and values of a network; their ranges are those of what it is asked for."""
    try:
        from onnxruntime.quantization import CalibrationDataReader, QuantType, quantize_static
        from onnxruntime.quantization.shape_inference import quant_pre_process
    except ImportError as error:
        raise BackendMissingError("int8 needs onnx; pip install 'hiresattn[onnx]'") from error

    class Looks(CalibrationDataReader):  # type: ignore[misc]
        """What ranges are taken from."""

        def __init__(self) -> None:
            self._left = iter(inputs)

        def get_next(self) -> dict[str, np.ndarray] | None:
            """The next inputs; None = there are no more."""
            return next(self._left, None)

    if not inputs:
        raise ConfigError(f"{source}: no crop of the images was looked at with it; give larger images")
    with tempfile.TemporaryDirectory() as folder, _quietly():
        folded = Path(folder) / "folded.onnx"
        try:
            quant_pre_process(str(source), str(folded), skip_symbolic_shape=True)
            # Of signed values convolutions run in floats on x86, between conversions.
            quantize_static(
                str(folded), str(file), Looks(), per_channel=True, activation_type=QuantType.QUInt8
            )
        except OSError:
            raise
        except Exception as error:  # of onnx, ONNX Runtime and their own
            raise ConfigError(
                f"{source}: ONNX Runtime can't round it to 8 bits ({reason(error)}); classify with the engine onnx"
            ) from error


@contextmanager
def _quietly() -> Iterator[None]:
    """ONNX Runtime's advice on quantising goes to the root logger: not within this."""
    root = logging.getLogger()
    handlers, root.handlers = root.handlers, [logging.NullHandler()]
    try:
        yield
    finally:
        root.handlers = handlers


def _answer(record: Record) -> Any:
    return record.class_name if record.labels is None else set(record.labels)


def _accuracy(records: list[Record]) -> float | None:
    """Share of the labelled cases whose answer is their label; None = no labels."""
    labelled = [record for record in records if record.label is not None]
    if not labelled:
        return None
    right = [
        _answer(one) == (set(one.label or ()) if one.labels is not None else one.label) for one in labelled
    ]
    return float(np.mean(right))
