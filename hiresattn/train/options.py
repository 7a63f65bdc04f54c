"""How to train, and what is said of each epoch."""

from dataclasses import dataclass

from hiresattn.config import InputConfig, ModelConfig
from hiresattn.geometry import Grid


@dataclass(frozen=True)
class TrainOptions:
    """How to train. The defaults are the recipe for two CPU cores."""

    encoder: str = "small"
    scorer: str = "location"
    aggregator: str = "attention"
    position: bool = True
    size: int = 64
    """Side of a crop, px."""
    grid: int = 7
    """Cells along a side."""
    fraction: float = 0.25
    """Side of a cell over the side of its region."""
    finest: int | None = None
    """Side of the smallest region, level-0 px; None = a crop's side, which is native resolution."""
    glance: int | None = None
    """Largest side of a region of the first look, level-0 px; None = the image's short side. With ``glance``
    at ``finest`` every place is looked at: exhaustive attention pooling."""
    overlap: float = 0.0
    """Least share of its side that a region of the first look has in common with the next."""
    k: tuple[int, ...] = (4, 2)
    """Most cells visited per region, per depth; each batch draws from 1 to this many. 0 = no closer look."""
    epochs: int = 20
    epoch_images: int | None = None
    """Images per epoch; None = all of the curriculum's stage."""
    batch_size: int = 32
    lr: float = 2e-3
    weight_decay: float = 1e-2
    clip: float = 2.0
    """Largest norm of the gradient."""
    glimpse_loss: float = 1.0
    """Weight of the per-glimpse cross-entropy."""
    value_loss: float = 0.3
    """Weight of the loss that tells the network which regions are worth a closer look."""
    location_loss: float = 1.0
    """Weight of the loss that tells the scorer where the target is, for images whose boxes are known."""
    advance: float = 0.95
    """Training accuracy at which the curriculum goes on to images of one more depth."""
    seed: int = 0
    bands: tuple[int, ...] | None = None
    """Bands to take, counted from 0; None = all."""
    value_range: tuple[float, float] | None = None
    """Native values that become -1 and +1; None = measured on the training images (mean -/+ 2 standard
    deviations of each band) for uint8, an error otherwise."""
    oversample: float = 1.0
    """Px of the stored level per px of a crop, at least; see ``InputConfig``."""
    augment: str = "none"
    """Turns of the training images, the same at every depth: ``none``, ``flips`` or ``turns`` (flips and
    quarter turns)."""
    pretrained: bool = False
    weights: str | None = None
    device: str = "auto"
    threads: int = 2
    name: str | None = None
    """Name of the model; None = the directory's."""


def model_config(options: TrainOptions, classes: tuple[str, ...], rule: InputConfig) -> ModelConfig:
    """The model that options ask for."""
    return ModelConfig(
        classes=classes,
        input=rule,
        encoder=options.encoder,
        scorer=options.scorer,
        grid=Grid(options.grid, options.fraction),
        aggregator=options.aggregator,
        position=options.position,
        finest=options.finest,
        glance=options.glance,
        overlap=options.overlap,
    )


#: Named starting points for ``hiresattn train --preset``.
PRESETS: dict[str, TrainOptions] = {
    "small": TrainOptions(),
    "quick": TrainOptions(epochs=6),
    "timm": TrainOptions(
        encoder="efficientnet_b0", size=224, grid=5, fraction=0.34375, k=(3, 2), batch_size=8, lr=3e-4
    ),
}


@dataclass(frozen=True)
class EpochRecord:
    """What one epoch gave."""

    epoch: int
    """From 1."""
    epochs: int
    stage: int
    """Stage of the curriculum, from 1: images of more and more depths."""
    stages: int
    images: int
    loss: float
    accuracy: float
    """On the training images of this stage, with sampled glimpses."""
    val_accuracy: float | None
    """On the validation images, with the best glimpses; None without any."""
    glimpses: float
    """Mean glimpses per image of this stage."""
    hit: float | None
    """Share of the validation images (without any: of the training images, guided) with known boxes in which
    a finest visited region holds the centre of one; None without boxes."""
    seconds: float
    """Wall time since the training began, earlier sessions included."""
    cpu_seconds: float
