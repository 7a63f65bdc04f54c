"""The paper's models, and its baselines: an encoder alone."""

from dataclasses import dataclass, replace

from hiresattn.config import InputConfig, LocationConfig, ModelConfig
from hiresattn.geometry import Grid


@dataclass(frozen=True)
class Preset:
    """A model without class names, and the number of cells that it visits."""

    config: ModelConfig
    classes: int
    """Number of classes of its data set."""
    k: tuple[int, ...]
    """Cells per region and depth; the last one repeats."""

    def at(self, side: int) -> ModelConfig:
        """The model for images resized to ``side`` px; a baseline's crop is the whole image."""
        config = self.config
        rule = replace(config.input, squash=side, size=config.input.size if self.k else side)
        return replace(config, input=rule)

    def named(self) -> ModelConfig:
        """The model with numbers as class names."""
        return replace(self.config, classes=tuple(str(number) for number in range(self.classes)))


_PAPER = ModelConfig(aggregator="mean", value=False, location=LocationConfig(detach=True, normalize=True))


def _reading(side: int, size: int) -> InputConfig:
    """8-bit values scaled to -1 to 1, the image resized to a square of ``side`` px, crops of ``size`` px."""
    return InputConfig(size=size, squash=side, filter="bilinear")


def _alone(encoder: str, side: int, *, init: str, dropout: float = 0.0, drop: float) -> ModelConfig:
    """A baseline: an encoder of the whole image at ``side`` px, and a linear classifier."""
    return replace(
        _PAPER,
        input=_reading(side, side),
        encoder=encoder,
        encoder_drop=drop,
        init=init,
        scorer="random",
        position=None,
        dropout=dropout,
    )


PRESETS: dict[str, Preset] = {
    "tnet-imagenet": Preset(
        replace(
            _PAPER,
            input=_reading(224, 77),
            encoder="bagnet77",
            encoder_drop=0.5,
            init="glorot",
            scorer="context",
            location=replace(_PAPER.location, stage=3, units=(0, 2, 4, 6, 8), hidden=None),
            grid=Grid(5, 77 / 224, "tnet"),
            position="path-concat",
        ),
        classes=1000,
        k=(3,),
    ),
    "tnet-fmow": Preset(
        replace(
            _PAPER,
            input=_reading(896, 224),
            encoder="tf_efficientnet_b0",
            encoder_drop=0.5,
            init="fan-out",
            location=replace(_PAPER.location, stage=4, units=(2, 6, 10), hidden=None),
            grid=Grid(3, 0.5, "tnet"),
            position="path-sum",
            dropout=0.5,
        ),
        classes=62,
        k=(2, 1),
    ),
    "bagnet77": Preset(_alone("bagnet77", 224, init="glorot", drop=0.625), classes=1000, k=()),
    "efficientnet-b0": Preset(
        _alone("tf_efficientnet_b0", 224, init="fan-out", dropout=0.75, drop=0.5), classes=62, k=()
    ),
}
