"""Builds a network from its configuration."""

import copy
from typing import Any

from torch import Tensor, nn
from torch.nn import functional

from hiresattn.config import ModelConfig
from hiresattn.errors import ConfigError
from hiresattn.model.aggregators import AGGREGATORS
from hiresattn.model.encoders import EncoderSpec, build_encoder
from hiresattn.model.init import INITS, initialise
from hiresattn.model.net import GlimpseNet, Parts
from hiresattn.model.position import POSITIONS
from hiresattn.model.scorers import SCORERS, Scorer
from hiresattn.option_types import did_you_mean


class Classifier(nn.Linear):
    """A linear layer with dropout of its input.

    Args:
        width: Width of the input.
        classes: Number of logits.
        drop: Share of the input's values that training drops.
    """

    def __init__(self, width: int, classes: int, *, drop: float = 0.0) -> None:
        super().__init__(width, classes)
        self.drop = drop

    def forward(self, input: Tensor) -> Tensor:  # noqa: A002 - nn.Linear's name
        """Logits of vectors."""
        return super().forward(functional.dropout(input, self.drop, training=self.training))


def build_model(config: ModelConfig, *, start: EncoderSpec | None = None) -> GlimpseNet:
    """Build a network with fresh weights.

    Args:
        config: The parts.
        start: Where the encoder's weights come from; None = fresh ones.

    Returns:
        The network, on the CPU, in training mode.

    Raises:
        ConfigError: If a part's name is unknown, with its nearest neighbour, or parts don't fit together.
    """
    for what, name, known in (
        ("scorer", config.scorer, SCORERS),
        ("aggregator", config.aggregator, AGGREGATORS),
        ("init", config.init, INITS),
        ("position", config.position or "frame", POSITIONS),
    ):
        if name not in known:
            raise ConfigError(f"unknown {what} {name!r}{did_you_mean(str(name), known)}")
    if len(config.classes) < 2 - config.multi_label:
        few = "one class" if config.multi_label else "two classes"
        raise ConfigError(f"a classifier needs at least {few}; got {list(config.classes)}")
    encoder = build_encoder(
        config.encoder,
        channels=len(config.input.bands),
        size=config.input.size,
        args=config.encoder_args,
        start=start,
        drop=config.encoder_drop,
    )
    width = encoder.feature_width
    if config.background is not None and config.background not in config.classes:
        raise ConfigError(
            f"background {config.background!r} is none of the classes{did_you_mean(config.background, config.classes)}"
        )
    parts = Parts(
        encoder=encoder,
        scorer=_scorer(config, encoder),
        aggregator=AGGREGATORS[config.aggregator](width=width),
        classifier=Classifier(width, len(config.classes), drop=config.dropout),
        value=nn.Linear(width, 1) if config.value else None,
        position=POSITIONS[config.position](width=width) if config.position else None,
        coarse_encoder=copy.deepcopy(encoder) if config.coarse_encoder else None,
    )
    net = GlimpseNet(
        parts,
        grid=config.grid,
        finest=config.finest_side,
        background=None if config.background is None else config.classes.index(config.background),
        multi_label=config.multi_label,
        head=config.head,
        pool_finest=config.pool_finest,
    )
    for name, part in net.named_children():
        if name not in ("encoder", "coarse_encoder") or start is None:
            initialise(part, config.init)
    return net


def _scorer(config: ModelConfig, encoder: Any) -> Scorer:
    grid, location, scoring = config.grid.size, config.location, config.scoring
    name, stage = config.scorer, location.stage
    if name == "oaa":
        stage = scoring.encoder_stages[-1]
    options: dict[str, Any] = {"grid": grid}
    if name in ("saol", "ltpa", "oaa", "evidence"):
        options["classes"] = len(config.classes)
    if name in ("saol", "ltpa"):
        options["encoder_stages"] = scoring.encoder_stages
        options["channels"] = [
            _channels(config, encoder, stage, "encoder stage") for stage in scoring.encoder_stages
        ]
    elif name != "random":
        options["channels"] = _channels(
            config, encoder, stage, "encoder stage" if name == "oaa" else "location stage"
        )
    if name in ("ltpa", "context"):
        options["context"] = encoder.feature_width
    if name in ("location", "context", "mask"):
        if location.units is not None and len(location.units) != grid:
            raise ConfigError(f"location units name {len(location.units)} rows; the grid has {grid}")
        options |= vars(location)
    own: dict[str, dict[str, Any]] = {
        "mask": {"area": scoring.area, "sparsity": scoring.sparsity},
        "evidence": {
            "background": None if config.background is None else config.classes.index(config.background),
            "hidden": location.hidden,
            "stage": stage,
        },
        "oaa": {"stage": stage, "negatives": scoring.negatives, "floor": scoring.floor},
        "ltpa": {
            "hidden": location.hidden,
            "compatibility": scoring.compatibility,
            "heads": scoring.heads,
        },
    }
    return SCORERS[name](**options, **own.get(name, {}))


def _channels(config: ModelConfig, encoder: Any, stage: int, what: str) -> int:
    """Channels of one of the encoder's maps."""
    try:
        return int(encoder.stage_channels[stage])
    except IndexError as error:
        raise ConfigError(
            f"{what} {stage}: the encoder {config.encoder!r} has {len(encoder.stage_channels)} maps, "
            "numbered from 0, or from -1 backwards"
        ) from error
