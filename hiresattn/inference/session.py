"""What is the same for every source: the model ready to run, the options, and what reads."""

import logging
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from hiresattn.card import Card, read_card
from hiresattn.errors import BackendMissingError, CheckpointError, ConfigError
from hiresattn.inference.budget import Budget
from hiresattn.inference.engine import Engine
from hiresattn.inference.image_search import MAX_OVERLAP, Policy
from hiresattn.inference.options import ClassifyOptions

_log = logging.getLogger(__name__)
#: There where an NVIDIA driver is.
_NVIDIA = Path("/dev/nvidiactl")


@dataclass(frozen=True)
class Session:
    """What is the same for every source."""

    model: Card
    """As given, or with random scores in place of its own."""
    engine: Engine
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


def start_session(model: Card | str | Path, options: ClassifyOptions) -> Session:
    """Put a model where it runs; one that was given stays as it is.

    Raises:
        ConfigError: If the engine, the device or the scorer can't be had.
        HiresattnError: If the model can't be loaded.
    """
    card = model if isinstance(model, Card) else read_card(model, reference=True)
    card, engine = start_engine(card, options)
    stop = options.stop
    policy = Policy(
        stop=None if stop is None else float(stop),
        until=options.until_confidence,
        max_budget=Budget() if options.max_budget is None else Budget.parse(options.max_budget),
        random=options.policy == "random",
        seed=options.seed,
        max_overlap=min(options.nms, MAX_OVERLAP),
        temperature=card.temperature,
    )
    return Session(card, engine, options, policy)


def start_engine(card: Card, options: ClassifyOptions) -> tuple[Card, Engine]:
    """What runs a model, by the option ``engine``; and the model, with another scorer where one is asked for.

    Raises:
        ConfigError: If the engine, the device or the scorer can't be had.
        CheckpointError: If the model can't be loaded, or its ONNX network can't be used and was asked for.
        BackendMissingError: If neither engine is installed.
    """
    asked = options.engine.startswith("onnx")
    if options.engine != "torch" and (asked or _prefers_onnx(card, options)):
        from hiresattn.inference.onnx_engine import OnnxEngine

        if options.scorer not in (None, card.config.scorer):
            raise ConfigError(f"scorer {options.scorer!r} needs the engine torch; leave out engine")
        try:
            return card, OnnxEngine(
                card,
                device=options.device,
                provider=options.provider,
                threads=options.threads,
                int8=options.engine == "onnx-int8",
            )
        except (CheckpointError, BackendMissingError) as error:
            if asked or not _installed("torch"):
                raise
            _log.warning("%s; torch runs it", error)
    if not _installed("torch"):
        raise BackendMissingError(f"{card.path or card.name}: {_why_torch(card, options)}")
    from hiresattn.inference.torch_engine import start_torch

    return start_torch(card, options)


def _why_torch(card: Card, options: ClassifyOptions) -> str:
    """Why a model can't run without PyTorch, and what to do."""
    if card.onnx is None:
        return (
            "without an ONNX network beside its weights it needs torch; pip install torch, or run "
            "`hiresattn export-model` where torch is installed"
        )
    if (asked := _only_torch(card, options)) is not None:
        return (
            f"{asked} needs torch, which isn't installed; leave it out, for the model has a network for ONNX Runtime, "
            "or pip install torch"
        )
    return "neither ONNX Runtime nor torch is installed; pip install onnxruntime, for which it has a network"


def _only_torch(card: Card, options: ClassifyOptions) -> str | None:
    """What is asked for that ONNX Runtime can't do; None = nothing."""
    if options.engine == "torch":
        return "engine=torch"
    if options.scorer not in (None, card.config.scorer):
        return f"scorer={options.scorer}"
    return None if options.precision == "float32" else f"precision={options.precision}"


def _prefers_onnx(card: Card, options: ClassifyOptions) -> bool:
    """Whether the ONNX network is there, can do what is asked for, and no GPU is passed by that torch could use."""
    loaded = type(card) is not Card  # its network is in memory
    if loaded or card.onnx is None or _only_torch(card, options) is not None:
        return False
    if not _installed("onnxruntime"):
        return False
    if not _installed("torch"):  # nor anything else to run it
        return True
    if options.provider is not None or options.device == "cpu":
        return True
    return options.device == "auto" and not (_NVIDIA.exists() or sys.platform == "darwin")


def _installed(package: str) -> bool:
    """Whether a package can be imported; it is not."""
    try:
        return find_spec(package) is not None
    except (ImportError, ValueError):
        return False
