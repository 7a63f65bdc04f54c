"""How to train, and what is said of each epoch."""

import math
from collections.abc import Mapping
from dataclasses import dataclass, field, replace

from hiresattn.config import InputConfig, LocationConfig, ModelConfig, ScorerConfig, did_you_mean
from hiresattn.errors import ConfigError
from hiresattn.geometry import Grid
from hiresattn.model.presets import PRESETS as MODELS

#: How the task reaches the scores; see ``train.estimators``.
ESTIMATORS = ("straight-through", "reinforce", "reinforce-loo", "none")
#: The names that options can have.
_NAMES = {
    "optimizer": ("adamw", "adam"),
    "schedule": ("linear", "cosine", "step"),
    "class_weights": ("none", "balanced"),
    "on_error": ("raise", "skip"),
}
#: The smallest value of options that are counts, sides or weights.
_LEAST = {
    **dict.fromkeys(
        ("size", "finest", "root_size", "grid", "cap", "epochs", "epoch_images", "batch_size"), 1
    ),
    **dict.fromkeys(("squash", "oversample"), 1),
    **dict.fromkeys(("weight_decay", "clip", "glimpse_loss", "value_loss", "location_loss", "reinforce"), 0),
    **dict.fromkeys(("jitter", "jpeg", "cutmix", "warm_up"), 0),
    "accumulate": 1,
    **dict.fromkeys(("seed", "threads", "advance", "image_share"), 0),
}


@dataclass(frozen=True)
class TrainOptions:
    """How to train. The defaults are the recipe for two CPU cores."""

    architecture: str | None = None
    """One of the paper's models (``model.presets``), in place of the parts and the grid named here."""
    encoder: str = "small"
    encoder_drop: float | None = None
    """See ``ModelConfig``; None = the architecture's, else 0."""
    scorer: str = "location"
    area: float = 0.08
    """For the scorer ``mask``: share of a region's cells that may be open, in the mean."""
    sparsity: tuple[float, float, float] | None = None
    """For ``mask``: the historical loss in place of that; see ``ScorerConfig``."""
    encoder_stages: tuple[int, ...] = (-3, -1)
    """For ``saol`` and ``ltpa``: which of the encoder's maps they see; for ``oaa``: the last of them."""
    compatibility: str = "dot"
    """For ``ltpa``: ``dot``, ``gated`` or ``plain``; see ``ScorerConfig``."""
    negatives: str = "present"
    """For ``oaa``: which classes its integral maps are told of: ``present`` ones, or ``all``: absent ones everywhere
    off, as the authors' code. Where some images show none of what is looked for, ``all`` is better."""
    floor: float = 0.0
    """For ``oaa``: accumulated attention below it is taken for none; raise it for small things, 0.5 to 0.8."""
    head: str = "classifier"
    """Which head predicts: the ``classifier`` of the pooled glimpses, or the ``scorer``'s own; see ``ModelConfig``."""
    aggregator: str = "attention"
    background: str | None = None
    """Class that means that there is nothing to find; see ``ModelConfig``."""
    coarse_encoder: bool = False
    """Whether regions that are divided further have an encoder of their own."""
    position: bool = True
    size: int = 64
    """Side of a crop, px."""
    grid: int = 7
    """Cells along a side."""
    fraction: float = 0.25
    """Side of a cell over the side of its region."""
    finest: int | None = None
    """Side of the smallest region, level-0 px; None = a crop's side, which is native resolution."""
    root_size: int | None = None
    """Largest side of a region of the first look, level-0 px; None = the image's short side. With ``root_size``
    at ``finest`` every place is looked at: exhaustive attention pooling."""
    overlap: float = 0.0
    """Least share of its side that a region of the first look has in common with the next."""
    k: tuple[int, ...] = (4, 2)
    """Most cells visited per region, per depth; each batch draws from 1 to this many. 0 = no closer look."""
    vary_k: bool = True
    """Whether it does; else it always visits the most."""
    select: str = "sample"
    """Which cells training visits: ``sample`` without replacement, or the ``best``, as the paper does."""
    estimator: str = "straight-through"
    """How the task reaches the scores: ``straight-through``; ``reinforce``, the paper's whole loss; or
    ``reinforce-loo``: sampling without replacement (gates or not), the siblings as baseline, probabilities as rewards.
    ``none``: not at all; the scorer learns from its own losses and from boxes."""
    reinforce: float | None = None
    """Weight of the estimator's part of the loss; None = 0.1 for ``reinforce``, 1 for ``reinforce-loo``."""
    image_share: float = 0.3
    """For ``reinforce``: share of the image in its cross-entropy and reward; the rest is its glimpses'."""
    cap: int | None = None
    """For ``reinforce``: depths whose glimpses count on their own; None = all."""
    normalize_scores: bool = False
    """Divide a region's scores by their norm, as the paper does; else they have a learned temperature."""
    stop_location_gradient: bool = False
    """Whether what trains the scorer ends at it, or goes on into the encoder."""
    epochs: int = 20
    epoch_images: int | None = None
    """Images per epoch; None = all of the curriculum's stage."""
    batch_size: int = 32
    accumulate: int = 1
    """Batches whose gradients are averaged before the weights move."""
    optimizer: str = "adamw"
    """``adamw``, or ``adam``: weight decay is a part of the loss then, but for norms, and epsilon 1e-7, as the
    paper's."""
    schedule: str = "linear"
    """How the learning rate falls: ``linear`` to zero over the last 40 %, ``cosine``, or in one ``step`` to a tenth
    at 80 %, as the paper's."""
    warm_up: float = 0.03
    """Share of the training over which the learning rate rises from a tenth; 0 = at once."""
    class_weights: str = "none"
    """What images count in the cross-entropies: all alike (``none``), or more the rarer their class
    (``balanced``)."""
    amp: bool = False
    """Whether training computes in bfloat16 where that is safe; for CUDA."""
    lr: float = 2e-3
    weight_decay: float = 1e-2
    clip: float | None = 2.0
    """Largest norm of the gradient; None = any."""
    glimpse_loss: float = 1.0
    """Weight of the per-glimpse cross-entropy."""
    value_loss: float = 0.3
    """Weight of the loss that tells the network which regions are worth a closer look."""
    scorer_loss: tuple[float, ...] = (1.0, 0.3, 0.1)
    """What a region's label counts in the scorer's own losses, by depth; the last repeats."""
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
    squash: int | None = None
    """Side that images are squashed to; see ``InputConfig``."""
    filter: str = "area"
    """Resampling filter; see ``InputConfig``."""
    oversample: float = 1.0
    """Px of the stored level per px of a crop, at least; see ``InputConfig``."""
    augment: str = "none"
    """Turns of the training images, the same at every depth: ``none``, ``mirror`` (left and right swapped, as the
    paper does), ``flips`` or ``turns`` (flips and quarter turns)."""
    jitter: float = 0.0
    """How much the bands' brightness and contrast vary, the same at every depth of an image: gains of
    exp(-jitter) to exp(jitter) and offsets of -jitter to jitter, of values of -1 to 1. 0.1 is mild."""
    jpeg: float = 0.0
    """Share of training images whose crops pass JPEG compression, of quality 40 to 95, colours in full or at half
    the resolution: for images of other files, or of other compression, than those trained on. 8-bit RGB only."""
    multi_label: bool = False
    """Whether an image may have any number of labels; examples whose label is a tuple say so themselves."""
    fold: int | str | None = None
    """The manifest's fold that validates (``read_manifest(fold=…)``); kept in the card."""
    cutmix: float = 0.0
    """Probability that a rectangle of another image of its batch is pasted into a training image, before it is
    turned; what is looked for is then either's label, each weighed by its share of what is looked at."""
    on_error: str = "raise"
    """What becomes of images that can't be read: ``raise``, or ``skip`` them and count them."""
    pretrained: bool = False
    weights: str | None = None
    init_from: str | None = None
    """Model (a directory, or ``hf:owner/name``) whose weights training starts from, in stages; its classifier
    too if the classes are the same. It also gives the range of values, where ``value_range`` doesn't, and for
    ``reinforce`` the baseline."""
    device: str = "auto"
    threads: int = 2
    tensorboard: bool = False
    """Whether TensorBoard must be there; where it is installed, its scalars are written anyway."""
    name: str | None = None
    """Name of the model; None = the directory's."""

    def __post_init__(self) -> None:
        for name, least in _LEAST.items():
            value = getattr(self, name)
            if value is not None and not least <= value < math.inf:
                raise ConfigError(f"{name} must be at least {least}; got {value!r}")
        for name, known in _NAMES.items():
            if getattr(self, name) not in known:
                near = did_you_mean(str(getattr(self, name)), known)
                raise ConfigError(f"unknown {name} {getattr(self, name)!r}{near}")
        if self.cutmix > 1:
            raise ConfigError(f"cutmix is a probability, 0 to 1; got {self.cutmix!r}")
        if self.warm_up > 1:
            raise ConfigError(f"warm_up is a share of the training, 0 to 1; got {self.warm_up!r}")
        if self.jpeg > 1:
            raise ConfigError(f"jpeg is a share of the images, 0 to 1; got {self.jpeg!r}")
        if not 0 < self.lr < math.inf:
            raise ConfigError(f"lr, the learning rate, must be above 0; got {self.lr!r}")
        if not self.k or min(self.k) < 0:
            raise ConfigError(f"k needs a number of cells per depth, 0 or more each; got {list(self.k)}")
        if not self.scorer_loss or not all(0 <= value < math.inf for value in self.scorer_loss):
            raise ConfigError(
                f"scorer_loss needs a weight per depth, 0 or more each; got {list(self.scorer_loss)}"
            )
        if self.value_range is not None and not self.value_range[0] < self.value_range[1]:
            raise ConfigError(
                f"value_range: the first must lie below the second; got {list(self.value_range)}"
            )
        self._check_together()

    def _check_together(self) -> None:
        """Refuse what can't go together."""
        if self.cutmix and (self.background is not None or self.estimator.startswith("reinforce")):
            raise ConfigError(
                "cutmix mixes labels, which neither a background class nor the estimators reinforce and "
                "reinforce-loo can take; leave one of the two out"
            )


def model_config(options: TrainOptions, classes: tuple[str, ...], rule: InputConfig) -> ModelConfig:
    """The model that options ask for.

    Raises:
        ConfigError: If there is no such architecture.
    """
    if options.architecture is not None:
        if options.architecture not in MODELS:
            raise ConfigError(
                f"unknown architecture {options.architecture!r}{did_you_mean(options.architecture, MODELS)}"
            )
        config = replace(MODELS[options.architecture].config, classes=classes, input=rule)
        config = replace(config, multi_label=options.multi_label)
        return config if options.encoder_drop is None else replace(config, encoder_drop=options.encoder_drop)
    return ModelConfig(
        classes=classes,
        multi_label=options.multi_label,
        input=rule,
        encoder=options.encoder,
        encoder_drop=options.encoder_drop or 0.0,
        scorer=options.scorer,
        scoring=ScorerConfig(
            area=options.area,
            sparsity=options.sparsity,
            encoder_stages=options.encoder_stages,
            compatibility=options.compatibility,
            negatives=options.negatives,
            floor=options.floor,
        ),
        head=options.head,
        location=LocationConfig(detach=options.stop_location_gradient, normalize=options.normalize_scores),
        grid=Grid(options.grid, options.fraction),
        aggregator=options.aggregator,
        background=options.background,
        coarse_encoder=options.coarse_encoder,
        position=options.position,
        finest=options.finest,
        root_size=options.root_size,
        overlap=options.overlap,
    )


#: The paper's way to train, where ours differs.
_PAPER = TrainOptions(
    vary_k=False,
    select="best",
    estimator="reinforce",
    batch_size=64,
    optimizer="adam",
    schedule="step",
    warm_up=0.0,
    weight_decay=0.0,
    clip=None,
    value_range=(0.0, 255.0),
    filter="bilinear",
    augment="mirror",
)
_FMOW = replace(_PAPER, architecture="tnet-fmow", size=224, lr=1e-3)

#: Named starting points for ``hiresattn train --preset``.
PRESETS: dict[str, TrainOptions] = {
    "small": TrainOptions(),
    "quick": TrainOptions(epochs=6),
    "timm": TrainOptions(
        encoder="efficientnet_b0", size=224, grid=5, fraction=0.34375, k=(3, 2), batch_size=8, lr=3e-4
    ),
    "tnet-imagenet": replace(
        _PAPER, architecture="tnet-imagenet", size=77, squash=224, k=(3,), epochs=200, lr=1e-4
    ),
    "bagnet77": replace(
        _PAPER, architecture="bagnet77", size=224, squash=224, k=(0,), image_share=1.0, epochs=200, lr=1e-4
    ),
    "tnet-fmow-448": replace(_FMOW, squash=448, k=(2,), image_share=0.2, encoder_drop=0.3, epochs=40),
    "tnet-fmow": replace(_FMOW, squash=896, k=(2, 1), image_share=0.05, cap=2, epochs=10),
    "efficientnet-b0": replace(
        _FMOW,
        architecture="efficientnet-b0",
        squash=224,
        k=(0,),
        image_share=1.0,
        weight_decay=2e-5,  # the gradient of 1e-5 times the sum of squares
        epochs=60,
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
    accuracy: float | None
    """On the training images of this stage that have labels, with sampled glimpses; None without any."""
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
    entropy: float | None = None
    """How undecided the scores are, 0 to 1; see ``estimators.Choices``. None if nothing was chosen."""
    spread: float | None = None
    """How varied the chosen cells of a batch are, 0 to 1."""
    distinct: float | None = None
    """Share of an image's chosen regions that differ."""
    open: float | None = None
    """Share of a region's cells whose gates are open; 1 for scorers without gates."""
    skipped: int = 0
    """Images left out because they couldn't be read, training and validation; see ``TrainOptions.on_error``."""
    losses: Mapping[str, float] = field(default_factory=dict)
    """What the scorer's own losses (``Scorer.losses``), ``location`` and ``value`` add to the loss, by name: means over
    the epoch's images, weights included; 0 of images that have no such part."""
