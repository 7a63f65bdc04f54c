"""What resuming needs: weights, the optimiser's memory, and where the training was. Safetensors and JSON."""

import hashlib
import json
import platform
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor

from hiresattn.attention_maps.memory import AttentionMemory, load_attention, save_attention
from hiresattn.checkpoint import CARD, Domain, Model, save_model, save_tensors
from hiresattn.config import ModelConfig
from hiresattn.errors import CheckpointError
from hiresattn.model.net import GlimpseNet
from hiresattn.pyramid import Pyramid
from hiresattn.training.estimators import FIRST_BASELINE
from hiresattn.training.log import write_journal
from hiresattn.training.options import TrainOptions
from hiresattn.training.samples import Item

STATE = "state.safetensors"
#: Options that a resumption may change, with what the fingerprint has in their place.
PASSING: dict[str, Any] = {"device": "", "threads": 0, "name": None}


@dataclass
class State:
    """What resuming needs besides tensors."""

    epoch: int = 0
    stage: int = 0
    stage_epochs: int = 0
    drawn: list[int] = field(default_factory=list)
    seconds: float = 0.0
    cpu_seconds: float = 0.0
    best: float = -1.0
    baseline: float = FIRST_BASELINE
    attention: int = 0
    """Maps in the attention memory."""
    records: list[dict[str, Any]] = field(default_factory=list)


def save_state(
    output: Path,
    net: GlimpseNet,
    optimizer: torch.optim.Optimizer,
    config: ModelConfig,
    domain: Domain,
    options: TrainOptions,
    state: State,
    name: str,
    fingerprint: str,
    memory: AttentionMemory,
) -> None:
    """Write the model (the best so far on the validation images, else the latest), the memory and the state."""
    record = state.records[-1]
    score = record["val_accuracy"] if record["val_accuracy"] is not None else 0.0
    if record["stage"] < record["stages"] or score >= state.best:
        state.best = score if record["stage"] == record["stages"] else -1.0
        training = {
            "seed": options.seed,
            "epochs": state.epoch,
            "cpu_seconds": round(state.cpu_seconds, 1),
            "accuracy": record["accuracy"],
            "val_accuracy": record["val_accuracy"],
            "options": asdict(replace(options, device="auto", name=None)),
            "versions": {"torch": torch.__version__, "python": platform.python_version()},
        }
        save_model(Model(net, config, name, "", domain, options.k, training), output)
    tensors = {f"net.{key}": value for key, value in net.state_dict().items()}
    for number, values in optimizer.state_dict()["state"].items():
        tensors |= {f"optimizer.{number}.{key}": torch.as_tensor(value) for key, value in values.items()}
    tensors = {key: value.detach().cpu().contiguous() for key, value in tensors.items()}
    state.attention = len(memory)
    words = {"state": json.dumps(asdict(state)), "fingerprint": fingerprint}
    held = attention_file(output, state.epoch)
    try:
        if state.attention:
            save_attention(memory, held)
        save_tensors(tensors, output / STATE, words)
        for old in output.glob("attention-*.npz"):
            if old != held or not state.attention:
                old.unlink()
        write_journal(output, state.records)
    except OSError as error:
        raise CheckpointError(f"{output}: the training state can't be written: {error}") from error


def attention_file(output: Path, epoch: int) -> Path:
    """Where the attention memory is: named after its epoch, so that an interrupted write leaves a pair that fits."""
    return output / f"attention-{epoch:04d}.npz"


def load_state(
    file: Path, net: GlimpseNet, optimizer: torch.optim.Optimizer, fingerprint: str, options: TrainOptions
) -> tuple[State, AttentionMemory]:
    """Read the state of a run into its network and optimiser; returned with the attention that it accumulated.

    Raises:
        CheckpointError: If there is none, it is damaged, or of other images or options (which are named).
    """
    if not file.is_file():
        raise CheckpointError(f"{file}: no training state to resume; train without --resume first")
    try:
        with safe_open(file, framework="pt") as stored:
            words = stored.metadata()
            tensors = {key: stored.get_tensor(key) for key in stored.keys()}  # noqa: SIM118 - not a dict
        if words["fingerprint"] != fingerprint:
            raise CheckpointError(
                f"{file}: the training state is of {_difference(file.parent, options)}, or train into another directory"
            )
        net.load_state_dict({k[4:]: v for k, v in tensors.items() if k.startswith("net.")})
        slots: dict[int, dict[str, Tensor]] = {}
        for key, value in tensors.items():
            if key.startswith("optimizer."):
                _, number, name = key.split(".", 2)
                slots.setdefault(int(number), {})[name] = value
        optimizer.load_state_dict({"state": slots, "param_groups": optimizer.state_dict()["param_groups"]})
        state = State(**json.loads(words["state"]))
    except (SafetensorError, KeyError, TypeError, ValueError, RuntimeError) as error:
        if isinstance(error, CheckpointError):
            raise
        raise CheckpointError(f"{file}: the training state is damaged ({error}); train anew") from error
    if not state.attention:
        return state, AttentionMemory()
    return state, load_attention(attention_file(file.parent, state.epoch))


def _difference(folder: Path, options: TrainOptions) -> str:
    """What a run that can't be resumed differs in, by the card that it left, and what to do."""
    usual, here = (json.loads(json.dumps(asdict(one))) for one in (TrainOptions(), options))
    try:
        there = usual | json.loads((folder / CARD).read_text(encoding="utf-8"))["training"]["options"]
    except (OSError, ValueError, KeyError, TypeError):  # a copy without the model
        return "other images or options; resume with the same manifest and options"
    differing = [
        f"{name} is {there[name]!r} there and {value!r} here"
        for name, value in here.items()
        if repr(there[name]) != repr(value) and name not in PASSING  # the fingerprint tells 2 from 2.0
    ]
    if differing:
        return f"other options: {'; '.join(differing)}. Resume with the same"
    return "other images (or labels, windows or boxes of them); resume with the same manifest"


def fingerprint_of(items: list[Item], val_items: list[Item], options: TrainOptions) -> str:
    """What must not change between a run and its resumption."""
    digest = hashlib.sha256()
    for item in [*items, *val_items]:
        source = item.example.source
        name = source.source if isinstance(source, Pyramid) else str(source)
        digest.update(f"{name}|{item.label}|{item.region}|{item.example.boxes}\n".encode())
        if item.example.box_labels:
            digest.update(f"{item.example.box_labels}\n".encode())
    words = asdict(replace(options, **PASSING))
    digest.update(json.dumps(words, sort_keys=True).encode())
    return digest.hexdigest()
