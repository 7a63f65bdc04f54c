"""What is kept of a run: the state that resuming needs, in safetensors and JSON, and weights for the next stage."""

import errno
import hashlib
import json
import os
import platform
import sys
import tempfile
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field, fields, replace
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save
from torch import Tensor

from hiresattn.attention_maps.memory import AttentionMemory, load_attention, save_attention
from hiresattn.card import CARD, WEIGHTS
from hiresattn.checkpoint import Model, save_model
from hiresattn.errors import CheckpointError, ConfigError, WriteError
from hiresattn.files import absolute_source, atomic_write
from hiresattn.model.net import GlimpseNet
from hiresattn.pyramid import Pyramid
from hiresattn.report.units import human_bytes
from hiresattn.training.estimators import FIRST_BASELINE
from hiresattn.training.log import write_metrics
from hiresattn.training.options import TrainOptions
from hiresattn.training.samples import Sample

STATE = "state.safetensors"
#: Copies of learned weights in the state: the latest, and the optimiser's two moments.
_COPIES = 3
#: Options that a resumption may change, with what the fingerprint has in their place.
PASSING: dict[str, Any] = {
    "device": "", "threads": 0, "name": None, "root": None, "label_column": None, "epochs": 1,
}  # fmt: skip
#: What options meant that were left out before their defaults changed: runs of then go on.
FORMER: dict[str, Any] = {"lr": 2e-3, "augment": "none"}


@dataclass
class State:
    """What resuming needs besides tensors."""

    epoch: int = 0
    """Epochs done."""
    stage: int = 0
    """Stage of the curriculum, from 0."""
    stage_epochs: int = 0
    """Epochs done in it."""
    drawn: list[int] = field(default_factory=list)
    """Images drawn so far, per stage."""
    seconds: float = 0.0
    cpu_seconds: float = 0.0
    best: float = -1.0
    """Validation accuracy of the saved model; -1 = it isn't of the last stage."""
    threads: int = 0
    """Threads that compute, of which sums of floats depend in their last bits; 0 = not known."""
    baseline: float = FIRST_BASELINE
    """Running baseline of REINFORCE."""
    attention: int = 0
    """Maps in the attention memory."""
    records: list[dict[str, Any]] = field(default_factory=list)
    """``EpochRecord`` of every epoch."""


def save_state(
    output: Path,
    model: Model,
    optimizer: torch.optim.Optimizer,
    options: TrainOptions,
    state: State,
    memory: AttentionMemory,
    fingerprint: str,
) -> None:
    """Write the model (the best so far on the validation images, else the latest), the attention and the state.

    Args:
        output: The model directory.
        model: As it is now.
        optimizer: Of its weights.
        options: How it is trained.
        state: After the last epoch.
        memory: Attention accumulated so far.
        fingerprint: See ``fingerprint_of``.
    """
    record = state.records[-1]
    score = record["val_accuracy"] if record["val_accuracy"] is not None else 0.0
    if record["stage"] < record["stages"] or score >= state.best:
        state.best = score if record["stage"] == record["stages"] else -1.0
        training = {
            **model.training,
            "seed": options.seed,
            "epochs": state.epoch,
            "cpu_seconds": round(state.cpu_seconds, 1),
            "accuracy": record["accuracy"],
            "val_accuracy": record["val_accuracy"],
            "options": asdict(replace(options, device="auto", name=None)),
            "versions": {"torch": torch.__version__, "python": platform.python_version()},
        }
        save_model(replace(model, training=training), output)
    tensors = {f"net.{key}": value for key, value in model.net.learned_state().items()}
    for number, values in optimizer.state_dict()["state"].items():
        tensors |= {f"optimizer.{number}.{key}": torch.as_tensor(value) for key, value in values.items()}
    tensors = {key: value.detach().cpu().contiguous() for key, value in tensors.items()}
    state.attention = len(memory)
    metadata = {"state": json.dumps(asdict(state)), "fingerprint": fingerprint}
    attention = attention_file(output, state.epoch)
    previous = stored_attention(output)
    try:
        if state.attention:
            save_attention(memory, attention)
        _save_tensors(tensors, output / STATE, metadata)
        if previous is not None and (previous != attention or not state.attention):
            previous.unlink(missing_ok=True)
        write_metrics(output, state.records)
    except OSError as error:
        why = error.strerror or error
        how = "resume" if (output / STATE).is_file() else "train anew, with overwrite"
        raise CheckpointError(
            f"{output}: after epoch {state.epoch} the training state can't be written ({why}); make room there, "
            f"then {how}"
        ) from error


def _save_tensors(tensors: dict[str, Tensor], file: Path, metadata: dict[str, str]) -> None:
    """Write a safetensors file whole or not at all."""
    try:
        with atomic_write(file) as part:
            part.write_bytes(save(tensors, metadata))
    except SafetensorError as error:
        raise OSError(f"{file}: {error}") from error


def check_folder(output: Path, *, resume: bool, overwrite: bool) -> None:
    """Refuse a directory whose content would be lost, unless that was asked for.

    Raises:
        CheckpointError: If there is nothing to resume.
        ConfigError: If a file is in the way, or the directory isn't empty and neither ``resume`` nor ``overwrite`` is
            asked for.
    """
    if output.exists() and not output.is_dir():
        raise ConfigError(f"{output}: a file is in the way; give another directory")
    filled = output.is_dir() and any(output.iterdir())
    if resume and not filled:
        raise CheckpointError(f"{output}: nothing to resume there; leave out resume to start anew")
    if filled and not (resume or overwrite):
        held = (output / STATE).is_file()
        can = "resume goes on with the run in it, " if held else ""
        cannot = "" if held else "; it holds no run to resume"
        raise ConfigError(
            f"{output}: the directory is not empty; {can}overwrite trains anew in it, or give another{cannot}"
        )


def check_output(output: Path, net: GlimpseNet) -> None:
    """Refuse, before the first step, a model directory that can't take the model and its state; it isn't made.

    Raises:
        ConfigError: If a file is in the way.
        WriteError: If nothing can be written there, or there isn't the room.
    """
    there = next(path for path in (output, *output.absolute().parents) if path.exists())
    if not there.is_dir():
        raise ConfigError(f"{there}: a file is in the way; give another directory")
    weights, learned = (
        sum(value.numel() * value.element_size() for value in state.values())
        for state in (net.state_dict(), net.learned_state())
    )
    needed = weights + _COPIES * learned
    try:
        with tempfile.TemporaryFile(dir=there) as file:
            if not _reserved(file.fileno(), needed):
                file.write(bytes(needed))
                file.flush()
    except OSError as error:
        raise WriteError(
            f"{output}: the model and its training state need {human_bytes(needed)} there, which can't be written "
            f"({error.strerror}); make room, or give another directory"
        ) from error


def _reserved(file: int, size: int) -> bool:
    """Whether room was made for a file at once; False = the system can't do that.

    Raises:
        OSError: If there isn't the room.
    """
    if sys.platform in ("win32", "darwin"):
        return False
    try:
        os.posix_fallocate(file, 0, size)
    except OSError as error:
        if error.errno in (errno.EINVAL, errno.EOPNOTSUPP):
            return False
        raise
    return True


def attention_file(output: Path, epoch: int) -> Path:
    """The file of the attention memory: named after its epoch, so that it fits the state after an interrupted write."""
    return output / f"attention-{epoch:04d}.npz"


def stored_attention(output: Path) -> Path | None:
    """The file of the attention memory that the state in a model directory names; None if it names none."""
    try:
        with safe_open(output / STATE, framework="pt") as stored:
            state = json.loads(stored.metadata()["state"])
        return attention_file(output, state["epoch"]) if state["attention"] else None
    except (
        OSError,
        SafetensorError,
        AttributeError,
        KeyError,
        TypeError,
        ValueError,
    ):  # none, or it is damaged
        return None


def load_state(
    file: Path, net: GlimpseNet, optimizer: torch.optim.Optimizer, fingerprint: str, options: TrainOptions
) -> tuple[State, AttentionMemory]:
    """Load the state of a run into its network and optimiser.

    Returns:
        The state, and the attention accumulated so far.

    Raises:
        CheckpointError: If there is none, it is damaged, or of other images or options (which are named).
    """
    if not file.is_file():
        raise CheckpointError(
            f"{file}: no training state, so no run to resume; overwrite in place of resume trains anew in "
            "the directory, or train into another"
        )
    try:
        with safe_open(file, framework="pt") as stored:
            metadata = stored.metadata()
            tensors = {key: stored.get_tensor(key) for key in stored.keys()}  # noqa: SIM118 - not a dict
        if metadata["fingerprint"] != fingerprint:
            raise CheckpointError(
                f"{file}: the training state is of {_difference(file.parent, options)}, or train into another directory"
            )
        learned = {k[4:]: v for k, v in tensors.items() if k.startswith("net.")}
        net.load_state_dict(learned | _frozen_state(net, file.parent))
        slots: dict[int, dict[str, Tensor]] = {}
        for key, value in tensors.items():
            if key.startswith("optimizer."):
                _, number, name = key.split(".", 2)
                slots.setdefault(int(number), {})[name] = value
        optimizer.load_state_dict({"state": slots, "param_groups": optimizer.state_dict()["param_groups"]})
        state = State(**json.loads(metadata["state"]))
    except (SafetensorError, KeyError, TypeError, ValueError, RuntimeError) as error:
        if isinstance(error, CheckpointError):
            raise
        raise CheckpointError(f"{file}: the training state is damaged ({error}); train anew") from error
    if not state.attention:
        return state, AttentionMemory()
    return state, load_attention(attention_file(file.parent, state.epoch))


def _frozen_state(net: GlimpseNet, folder: Path) -> dict[str, Tensor]:
    """The state of a frozen encoder, which is kept in the model alone."""
    names = net.state_dict().keys() - net.learned_state().keys()
    if not names:
        return {}
    if not (folder / WEIGHTS).is_file():
        raise CheckpointError(
            f"{folder}: {WEIGHTS} is missing, which holds the frozen encoder; copy the directory anew"
        )
    with safe_open(folder / WEIGHTS, framework="pt") as stored:
        return {name: stored.get_tensor(name) for name in names}


def options_of_run(folder: Path) -> TrainOptions | None:
    """The options that the run in a model directory was begun with; None where its card doesn't say.

    Options that this version doesn't know are left out.
    """
    known = {one.name for one in fields(TrainOptions)}
    try:
        there = json.loads((folder / CARD).read_text(encoding="utf-8"))["training"]["options"]
        return TrainOptions(**{name: value for name, value in there.items() if name in known})
    except (OSError, ValueError, KeyError, TypeError, AttributeError, ConfigError):
        return None


def _difference(folder: Path, options: TrainOptions) -> str:
    """What a run that can't be resumed differs in, by the card that it left, and what to do."""
    begun = options_of_run(folder)
    if begun is None:  # a copy without the model
        return "other images or options; resume with the same manifest and options"
    compared = (options, begun, type(options)())
    here, there, plain = (json.loads(json.dumps(_compared(one))) for one in compared)
    there = plain | there  # a later version may have added options
    differing = [
        f"{name} is {there[name]!r} there and {value!r} here"
        for name, value in here.items()
        if repr(there[name]) != repr(value)  # the fingerprint tells 2 from 2.0
    ]
    if differing:
        return f"other options: {'; '.join(differing)}. Resume with the same"
    return "other images (or labels, windows or boxes of them); resume with the same manifest"


def _compared(options: TrainOptions) -> dict[str, Any]:
    """The options that must not change, as a run and its resumption compare them: wherever the models lie."""
    start = options.init_from
    name = None if start is None else Path(start).name
    return asdict(replace(options, **PASSING, init_from=name))


def fingerprint_of(samples: Sequence[Sample], val_samples: Sequence[Sample], options: TrainOptions) -> str:
    """Hash of what must not change between a run and its resumption: images, labels, boxes and options."""
    digest = hashlib.sha256()
    for sample in (image for one in [*samples, *val_samples] for image in one.images):
        source = sample.example.source
        name = source.source if isinstance(source, Pyramid) else absolute_source(str(source))
        digest.update(f"{name}|{sample.label}|{sample.region}|{sample.example.boxes}\n".encode())
        if sample.example.box_confidence:
            digest.update(f"{sample.example.box_confidence}\n".encode())
        if sample.example.box_labels:
            digest.update(f"{sample.example.box_labels}\n".encode())
        if sample.example.case is not None:
            digest.update(f"{sample.example.case}\n".encode())
    # options that a later version adds, at their defaults, change nothing
    plain = asdict(type(options)()) | FORMER
    given = {name: value for name, value in _compared(options).items() if value != plain[name]}
    digest.update(json.dumps(given, sort_keys=True).encode())
    return digest.hexdigest()
