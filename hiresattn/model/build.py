"""From a configuration to a network."""

from torch import nn

from hiresattn.config import ModelConfig, did_you_mean
from hiresattn.errors import ConfigError
from hiresattn.model.aggregators import AGGREGATORS
from hiresattn.model.encoders import build_encoder
from hiresattn.model.net import GlimpseNet
from hiresattn.model.position import PositionalEncoding
from hiresattn.model.scorers import SCORERS, LocationScorer, RandomScorer, Scorer


def build_model(config: ModelConfig, *, pretrained: bool = False, weights: str | None = None) -> GlimpseNet:
    """Build a network with fresh weights.

    Args:
        config: The parts.
        pretrained: Load timm's pretrained weights into the encoder.
        weights: Local weights file for the encoder.

    Returns:
        The network, on the CPU, in training mode.

    Raises:
        ConfigError: If a part's name is unknown, with its nearest neighbour.
    """
    for kind, name, known in (
        ("scorer", config.scorer, SCORERS),
        ("aggregator", config.aggregator, AGGREGATORS),
    ):
        if name not in known:
            raise ConfigError(f"unknown {kind} {name!r}{did_you_mean(name, known)}")
    if len(config.classes) < 2:
        raise ConfigError(f"a classifier needs at least two classes; got {list(config.classes)}")
    encoder = build_encoder(
        config.encoder, channels=len(config.input.bands), pretrained=pretrained, weights=weights
    )
    width = encoder.feature_width
    grid = config.grid.size
    scorer: Scorer
    if config.scorer == "random":
        scorer = RandomScorer(grid=grid)
    else:
        scorer = LocationScorer(channels=encoder.stage_channels[-1], grid=grid)
    return GlimpseNet(
        encoder=encoder,
        scorer=scorer,
        aggregator=AGGREGATORS[config.aggregator](width=width),
        classifier=nn.Linear(width, len(config.classes)),
        value=nn.Linear(width, 1),
        position=PositionalEncoding(width=width) if config.position else None,
        grid=config.grid,
        finest=config.finest_side,
    )
