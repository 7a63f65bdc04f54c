"""What is the same for every source: the model ready to run, the options, and what reads."""

import copy
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch

from hiresattn.checkpoint import Model, load_model
from hiresattn.errors import ConfigError
from hiresattn.inference.budget import Budget
from hiresattn.inference.image_search import MAX_OVERLAP, Policy
from hiresattn.inference.options import ClassifyOptions
from hiresattn.inference.torch_engine import TorchEngine
from hiresattn.model.device import pick_device
from hiresattn.model.net import GlimpseNet
from hiresattn.model.scorers import RandomScorer


@dataclass(frozen=True)
class Session:
    """What is the same for every source."""

    model: Model
    """As given, or with random scores in place of its own."""
    engine: TorchEngine
    options: ClassifyOptions
    policy: Policy

    @property
    def budget(self) -> Budget:
        """What one image may cost."""
        return Budget.parse(self.options.budget)

    @property
    def seconds(self) -> float | None:
        """How long a search may take in all, s; None = no limit."""
        return max(
            (one.seconds for one in (self.budget, self.policy.max_budget) if one.seconds), default=None
        )

    @property
    def reading(self) -> Mapping[str, Any]:
        """Options of what reads."""
        threads = self.options.threads
        return {"strict": self.options.strict} | ({} if threads is None else {"threads": threads})

    @property
    def nodata(self) -> float | None:
        """Stored value of px that were not measured: as asked for, else as in training; None = as files say."""
        asked = self.options.nodata
        return self.model.config.input.nodata if asked is None else asked

    @property
    def squash(self) -> int | None:
        """Side of the square that images are resized to, px; None = they aren't."""
        return self.model.config.input.squash


def start_session(model: Model | str | Path, options: ClassifyOptions) -> Session:
    """Load a model, and put it where it runs; a model that was given stays as it is.

    Raises:
        ConfigError: If the device or the scorer can't be had.
        HiresattnError: If the model can't be loaded.
    """
    device = pick_device(options.device)
    loaded = with_scorer(
        model if isinstance(model, Model) else load_model(model), options.scorer, options.seed
    )
    stop = options.stop
    policy = Policy(
        stop=None if stop is None else float(stop),
        until=options.until_confidence,
        max_budget=Budget() if options.max_budget is None else Budget.parse(options.max_budget),
        random=options.policy == "random",
        seed=options.seed,
        max_overlap=min(options.nms, MAX_OVERLAP),
        temperature=loaded.temperature,
    )
    return Session(loaded, TorchEngine(ready_net(loaded.net, device)), options, policy)


def ready_net(net: GlimpseNet, device: torch.device) -> GlimpseNet:
    """A network in evaluation mode on a device: the same where it is so already, else a copy."""
    there = device.type == net.device.type and device.index in (None, net.device.index)
    if there and not any(part.training for part in net.modules()):
        return net
    return copy.deepcopy(net).to(device).eval()


def with_scorer(model: Model, scorer: str | None, seed: int = 0) -> Model:
    """A model with another scorer, which can only be the random one: others are a part of what was trained.

    Args:
        model: Stays as it is.
        scorer: ``random``; or the model's own name or None, for the model itself.
        seed: Of the random scores.

    Raises:
        ConfigError: If it is another.
    """
    if scorer in (None, model.config.scorer):
        return model
    if scorer != "random":
        raise ConfigError(
            f"the model {model.name!r} was trained with the scorer {model.config.scorer!r}, not {scorer!r}; train "
            "one with it, or compare with 'random'"
        )
    if model.config.head == "scorer":
        raise ConfigError(
            f"the model {model.name!r} predicts with its scorer's own head; it can't be replaced"
        )
    net = copy.deepcopy(model.net)
    net.scorer = RandomScorer(grid=model.config.grid.size, seed=seed)
    return replace(model, net=net, config=replace(model.config, scorer="random"))
