"""The engine that runs a network with torch."""

import copy
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace

import numpy as np
import torch

from hiresattn.card import Card
from hiresattn.checkpoint import Model, load_model
from hiresattn.errors import ConfigError
from hiresattn.inference.engine import NetFacts, Outputs, threads_for
from hiresattn.inference.options import ClassifyOptions
from hiresattn.model.aggregators import MeanPooling
from hiresattn.model.device import pick_device
from hiresattn.model.net import GlimpseNet
from hiresattn.model.scorers import RandomScorer
from hiresattn.model.step import outputs_of
from hiresattn.reading.fetch import Crops


class TorchEngine:
    """Runs a ``GlimpseNet``, on the device where its weights are.

    Args:
        net: In evaluation mode; its weights must not change while a search runs.
        threads: That compute on the CPU; None = as torch is set.
        precision: ``float32``; or ``bfloat16``, in which it then multiplies (sums and logarithms stay in float32).
    """

    name = "torch"

    def __init__(self, net: GlimpseNet, threads: int | None = None, *, precision: str = "float32") -> None:
        self.net = net
        self._threads = threads
        self._half = precision == "bfloat16"
        self.facts = NetFacts(
            grid=net.grid,
            finest=net.finest,
            gate=net.scorer.gate,
            background=net.background,
            prior_weight=0.0 if net.prior_weight is None else float(net.prior_weight.detach()),
            multi_label=net.multi_label,
            head=net.head,
            pool_finest=net.pool_finest,
            aggregator="mean" if isinstance(net.aggregator, MeanPooling) else "attention",
        )

    @torch.inference_mode()
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
        with (
            _threads(self._threads),
            torch.autocast(self.net.device.type, torch.bfloat16, enabled=self._half),
        ):
            return self._look(pixels, coverage, regions, frames, paths, appearance=appearance)

    def _look(
        self,
        pixels: np.ndarray,
        coverage: np.ndarray,
        regions: np.ndarray,
        frames: np.ndarray,
        paths: np.ndarray,
        *,
        appearance: bool,
    ) -> Outputs:
        net = self.net
        found = net.glimpse(Crops(pixels, coverage), regions, frames, paths)
        outputs = outputs_of(
            net,
            found.features,
            found.cell_logits,
            found.value,
            found.scored.class_log_prob,
            found.scored.appearance if appearance else None,
        )
        return Outputs(**{name: value.cpu().numpy() for name, value in outputs.items()})

    @property
    def device(self) -> str:
        """``cpu``, or the kind of accelerator."""
        return self.net.device.type


@contextmanager
def _threads(count: int | None) -> Iterator[None]:
    """Let torch compute with as many threads, and then as before; None = as it is set."""
    before = torch.get_num_threads()
    if count is None or count == before:
        yield
        return
    torch.set_num_threads(max(count, 1))
    try:
        yield
    finally:
        torch.set_num_threads(before)


def start_torch(model: Card, options: ClassifyOptions) -> tuple[Card, TorchEngine]:
    """A model, loaded where it is not, with another scorer where one is asked for; and an engine for it.

    Raises:
        ConfigError: If the device or the scorer can't be had.
        HiresattnError: If the model can't be loaded.
    """
    device = pick_device(options.device)
    loaded = model if isinstance(model, Model) else load_model(model.path)
    loaded = with_scorer(loaded, options.scorer, options.seed)
    last = (
        device.type == "cuda" or options.precision == "bfloat16"
    )  # the order in which these convolve fastest
    net = ready_net(loaded.net, device, channels_last=last)
    return loaded, TorchEngine(net, threads_for(loaded.config, None), precision=options.precision)


def ready_net(net: GlimpseNet, device: torch.device, *, channels_last: bool = False) -> GlimpseNet:
    """A network in evaluation mode on a device: the same where it is so already, else a copy.

    Args:
        net: Stays as it is.
        device: Where.
        channels_last: Whether the weights of convolutions are stored with their channels last.
    """
    there = device.type == net.device.type and device.index in (None, net.device.index)
    if there and not channels_last and not any(part.training for part in net.modules()):
        return net
    ready = copy.deepcopy(net).to(device).eval()
    return ready.to(memory_format=torch.channels_last) if channels_last else ready


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
