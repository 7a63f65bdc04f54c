"""What a run starts from: the weights of a trained model."""

import json
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

from safetensors import SafetensorError, safe_open

from hiresattn.checkpoint import Model
from hiresattn.config import ModelConfig
from hiresattn.errors import CheckpointError
from hiresattn.model.net import GlimpseNet
from hiresattn.training.state import STATE


def load_weights(net: GlimpseNet, config: ModelConfig, start: Model, source: str) -> str:
    """Give a fresh network the weights of a trained one; with other classes the classifier stays fresh.

    Args:
        net: The fresh network.
        config: Its configuration.
        start: The trained model.
        source: Name of the trained model, for messages.

    Returns:
        A message that says what was loaded.

    Raises:
        CheckpointError: If the parts don't fit; names what differs.
    """
    wanted, given = net.state_dict(), dict(start.net.state_dict())
    message = f"Starts from the weights of {source}"
    if (config.classes, config.multi_label) != (start.config.classes, start.config.multi_label):
        given |= {name: value for name, value in wanted.items() if name.startswith("classifier.")}
        message += f"; its classes differ ({len(start.config.classes)} there), so the classifier is fresh"
    pretrained = (start.training.get("encoder") or {}).get("weights")
    if pretrained and config.coarse_encoder and not start.config.coarse_encoder:
        given |= {f"coarse_{name}": value for name, value in given.items() if name.startswith("encoder.")}
        message += "; its coarse encoder begins as a copy of its encoder, which was pretrained"
    for part in ("coarse_encoder", "scorer"):
        present = {name for name in given if name.startswith(f"{part}.")}
        fresh = {name: value for name, value in wanted.items() if name.startswith(f"{part}.")}
        if fresh and (not present or (part == "scorer" and start.config.scorer != config.scorer)):
            given = {name: value for name, value in given.items() if name not in present} | fresh
            message += f"; its {part.replace('_', ' ')} is fresh"
    misfits = [
        name
        for name in sorted(wanted.keys() | given.keys())
        if name not in wanted or name not in given or wanted[name].shape != given[name].shape
    ]
    if misfits:
        there, here = (_flat(asdict(one)) for one in (start.config, config))
        free = ("classes", "input.low", "input.high")
        other = start.config.encoder != config.encoder  # with arguments of its own
        differing = [
            f"{name} is {there.get(name)!r} there and {here.get(name)!r} here"
            for name in here | there
            if there.get(name) != here.get(name)
            and name not in free
            and not (other and name.startswith("encoder_args."))
        ]
        raise CheckpointError(
            f"{source}: the weights don't fit the model asked for ({len(misfits)} of them, such as {misfits[0]}): "
            f"{'; '.join(differing)}. {'Leave out encoder to take its own; ask' if other else 'Ask'} for the same "
            "parts, or train without init_from"
        )
    net.load_state_dict(given)
    return message


def load_baseline(path: str) -> float | None:
    """The running baseline of REINFORCE of a model directory's run; None if its state is not there."""
    file = Path(path) / STATE
    if not file.is_file():
        return None
    try:
        with safe_open(file, framework="pt") as stored:
            return float(json.loads(stored.metadata()["state"])["baseline"])
    except (SafetensorError, AttributeError, KeyError, TypeError, ValueError) as error:
        raise CheckpointError(
            f"{file}: the training state is damaged ({error}); delete it, or copy it anew"
        ) from error


def _flat(values: Mapping[str, Any], above: str = "") -> dict[str, Any]:
    """Nested names and values with dots between the names."""
    flat: dict[str, Any] = {}
    for name, value in values.items():
        flat |= _flat(value, f"{above}{name}.") if isinstance(value, Mapping) else {above + name: value}
    return flat
