"""Options of a training run, their defaults, and every check that needs no image."""

import math
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from hiresattn.config import InputConfig, LocationConfig, ModelConfig, ScorerConfig
from hiresattn.errors import ConfigError
from hiresattn.geometry import Grid
from hiresattn.model.presets import PRESETS as ARCHITECTURES
from hiresattn.option_types import check_scale_options, check_types, did_you_mean
from hiresattn.training.bands import check_bands

if TYPE_CHECKING:
    from hiresattn.model.encoders import EncoderSpec

#: Names that an option can have.
CHOICES = {
    "scorer": ("location", "context", "evidence", "mask", "saol", "ltpa", "oaa", "random"),
    "aggregator": ("attention", "mean"),
    "estimator": ("straight-through", "reinforce", "reinforce-loo", "none"),
    "select": ("sample", "best"),
    "augment": ("auto", "none", "mirror", "flips", "turns"),
    "optimizer": ("adamw", "adam"),
    "schedule": ("linear", "cosine", "step"),
    "class_weights": ("none", "balanced"),
    "on_error": ("raise", "skip"),
    "foreground": ("auto", "tissue", "none"),
}
RECIPES = ("distil",)
#: Options that are counts, sides, weights or amounts, by their smallest value.
_AT_LEAST_1 = "finest root_size grid glimpse_loss_depths epochs epoch_images batch_size accumulate squash"
_AT_LEAST_0 = "weight_decay glimpse_loss value_loss location_loss reinforce_weight jitter seed threads"
_SMALLEST = {8: "crop_size", 1: f"{_AT_LEAST_1} oversample", 0: f"{_AT_LEAST_0} stage_accuracy"}
_SHARES = ("cutmix", "warm_up", "jpeg", "image_share", "val_fraction")


@dataclass(frozen=True)
class TrainOptions:
    """How to train. The defaults are a recipe for two CPU cores.

    Raises:
        ConfigError: If a value is out of bounds, a name is unknown, or two options exclude each other.
    """

    recipe: str | None = None
    """Several trainings in a row: ``distil`` learns where to look from image labels alone, from a teacher that looks
    everywhere. None = one training."""

    # The model
    architecture: str | None = None
    """One of the published models (``model.presets``), in place of the encoder, scorer and grid named here."""
    encoder: str = "small"
    """Encoder of the crops: ``small``, ``small-6``, either with ``-bn`` for batch normalisation, ``bagnet77``, or a
    backbone of timm's; or one with trained weights: ``hf-hub:owner/name``, ``local-dir:FOLDER`` (timm's
    ``config.json`` and ``model.safetensors``), ``FILE.safetensors`` beside such a ``config.json``, or
    ``ARCHITECTURE:FILE.safetensors``."""
    encoder_drop: float | None = None
    """Largest drop rate inside the encoder in training, 0 to 1: stochastic depth of timm backbones, dropped channels
    of ``bagnet77``. None = the architecture's own, else 0."""
    pretrained: bool = False
    """Start a timm backbone from its published weights."""
    freeze_encoder: bool = False
    """Keep a trained encoder as it is, batch statistics included, and train the rest: faster, and in less memory. A
    coarse encoder is trained."""
    init_from: str | None = None
    """Model directory, or ``hf:owner/name``, to start from: all its weights, and its encoder and value range where
    none are given. The parts must be the same; with other classes the classifier starts fresh."""
    features: str | None = None
    """Folder of features that ``extract`` made, or CLAM or TRIDENT: a head is trained on them, and no image is read.
    None = images are read."""
    scorer: str = "location"
    """Network that scores the cells of a region: ``location``, ``context``, ``evidence`` (learns from boxes),
    ``mask``, ``saol``, ``ltpa``, ``oaa`` or ``random``."""
    detach_scorer: bool = False
    """Detach the encoder's features before the scorer, so that the scorer's losses do not train the encoder."""
    normalize_scores: bool = False
    """Divide the scores of a region by their norm, as TNet does, in place of a learned temperature."""
    area: float = 0.08
    """Scorer ``mask``: mean share of a region's cells that may be open, above 0 to 1."""
    sparsity: tuple[float, float, float] | None = None
    """Scorer ``mask``: alpha, beta and lambda of the sparsity loss of stats.stackexchange 384355, in place of ``area``.
    For comparison only: all gates close under it."""
    encoder_stages: tuple[int, ...] = (-3, -1)
    """Scorers ``saol`` and ``ltpa``: the encoder's feature maps that they use, by index, fine to coarse; ``oaa`` uses
    the last of them."""
    compatibility: str = "dot"
    """Scorer ``ltpa``: how local and global features are compared: ``dot``, ``gated`` or ``parametrised``."""
    heads: str = "concat"
    """Scorer ``ltpa``: one classifier on all encoder stages (``concat``) or one for each (``indep``)."""
    negatives: str = "present"
    """Scorer ``oaa``: classes whose integral maps are trained: those ``present`` in the image, or ``all``, with empty
    targets for absent ones; ``all`` is better where some images show no class at all."""
    floor: float = 0.0
    """Scorer ``oaa``: accumulated attention below this counts as none, 0 to below 1; 0.5 to 0.8 for small objects."""
    head: str = "classifier"
    """Which head predicts: the ``classifier`` of the pooled glimpses, or the ``scorer``'s own (saol, ltpa, oaa)."""
    pool_finest: bool = False
    """Pool finest glimpses only, as long as there is one; always so with a background class."""
    aggregator: str = "attention"
    """How an image's glimpses are pooled: ``attention`` (gated attention) or ``mean``."""
    background: str | None = None
    """Class that means that the image holds nothing to find. Glimpses then vote by their likelihood ratio against it.
    None = there is no such class."""
    coarse_encoder: bool = False
    """Give regions that are divided further an encoder of their own."""
    position: bool = True
    """Add the position and zoom of a glimpse to its feature."""

    # Regions and glimpses
    crop_size: int | None = None
    """Side of a crop, the network's input, px. None = the encoder's own: 64 for the built-in ones."""
    grid: int = 7
    """Cells along each side of a region."""
    fraction: float = 0.25
    """Side of a cell as a share of its region's side, above 0 and below 1."""
    k: tuple[int, ...] = (4, 2)
    """Largest number of cells visited per region, one number per depth; 0 = only the root regions are seen."""
    vary_k: bool = True
    """Draw the number of cells of each batch from 1 to ``k``; else it is always ``k``."""
    finest: int | None = None
    """Side of the smallest region, level-0 px, or px of ``mpp``; None = ``crop_size``, which is native resolution."""
    root_size: int | None = None
    """Largest side of a root region, px as of ``finest``; None = the image's short side. With ``root_size`` equal to
    ``finest`` the whole image is read at the finest scale."""
    overlap: float = 0.0
    """Smallest share of its side that a root region has in common with the next, 0 to below 1."""
    squash: int | None = None
    """Resize each image to a square of this side first, px, as the published models do; reads all of it. None = crops
    are read from the file, proportions kept."""
    filter: str = "area"
    """Resampling filter: ``area`` (antialiased); with ``squash`` also ``bilinear``, as the published models use."""
    oversample: float = 1.0
    """Smallest number of stored px per px of a crop, 1 to 64; 2 or 4 where stored overviews lost small objects."""

    # Values and augmentation
    bands: tuple[int | str, ...] | None = None
    """Bands that the model uses, in this order: counted from 1; or all by name or by what they show (``red``), which
    the card keeps, so that those of each image are taken. None = all."""
    value_range: tuple[float, float] | None = None
    """Stored values that become -1 and +1. None = of uint8 images mean -/+ the standard deviation that a pretrained
    encoder was trained with, else mean -/+ 2 standard deviations of each band, measured on the training images; other
    data types need it."""
    nodata: float | None = None
    """Stored value of px that were not measured, in place of what files say; kept in the card. None = as they say."""
    foreground: str = "auto"
    """What of an image is looked at below the root regions: ``tissue``, or all of it (``none``); kept in the card.
    ``auto`` = tissue where the images are slides: three bands of uint8, a known size of a px below 20 µm and no
    coordinate system."""
    mpp: float | str = "auto"
    """Scale that images are seen at, ever after: µm of a px that regions are counted in. ``auto``: the median of the
    training images' scales where most are known, else ``off``: level-0 px, whatever their size."""
    assume_mpp: float | None = None
    """µm per level-0 px of images of which the manifest says none, and the file none that can be meant."""
    augment: str = "auto"
    """Random orientation of each training image: ``none``, ``mirror`` (left and right), ``flips`` (both axes) or
    ``turns`` (flips and quarter turns); ``auto`` = ``turns`` where tissue is looked at, else ``none``."""
    jitter: float = 0.0
    """Random contrast and brightness of each band and image: gain exp(-jitter) to exp(jitter), offset -jitter to
    jitter of values of -1 to 1. 0.1 is mild."""
    jpeg: float = 0.0
    """Share of training images whose crops are JPEG-compressed at quality 40 to 95, 0 to 1: for files that are
    compressed otherwise than the training images. Three bands of uint8 only."""
    cutmix: float = 0.0
    """Probability that a rectangle of another image of the batch is pasted into a training image, 0 to 1; its label
    counts by its share of the area."""

    # Labels
    multi_label: bool = False
    """Images may have any number of classes, each with a probability of its own; else exactly one."""
    class_weights: str = "none"
    """Weight of images in the classification loss: all alike (``none``), or by the inverse frequency of their class
    (``balanced``)."""
    label_column: str | None = None
    """Column of the manifest that holds the label, or labels. None = ``label``, or ``labels``."""
    root: str | None = None
    """Folder that paths in the manifest are relative to. None = the manifest's."""
    fold: int | str | None = None
    """Fold of the manifest that validates; the others train. None = as the column ``split`` says."""
    val_fraction: float = 0.0
    """Share of each class's training cases that validates where no row is of split ``val``, 0 to below 1. Drawn by
    ``seed``; a case, a group and an image stays whole."""

    # Losses
    estimator: str = "straight-through"
    """Gradient estimator for the discrete cell choice: ``straight-through``, ``reinforce`` (TNet's loss),
    ``reinforce-loo`` (sampling without replacement, sibling cells as baseline) or ``none`` (the classification loss
    does not train the scorer)."""
    select: str = "sample"
    """How training chooses cells: ``sample`` without replacement, or the ``best``, as TNet does."""
    reinforce_weight: float | None = None
    """Weight of the estimator's term of the loss; None = 0.1 for ``reinforce``, 1 for ``reinforce-loo``."""
    image_share: float = 0.3
    """Estimator ``reinforce``: share of the image's own terms in cross-entropy and reward, 0 to 1; the rest is its
    glimpses'."""
    glimpse_loss_depths: int | None = None
    """Estimator ``reinforce``: number of depths, from the root regions down, whose glimpses have terms of their own;
    None = all."""
    glimpse_loss: float = 1.0
    """Weight of the cross-entropy of single glimpses; unused by ``reinforce``."""
    value_loss: float = 0.3
    """Weight of the loss of the value head, which predicts whether a region is worth dividing."""
    scorer_loss: tuple[float, ...] = (1.0, 0.3, 0.1)
    """Weight of a region's label in the scorer's own losses, one number per depth; the last repeats."""
    location_loss: float = 1.0
    """Weight of the loss that raises the scores of cells on known boxes."""

    # Optimisation
    epochs: int = 20
    """Passes over the training images."""
    epoch_images: int | None = None
    """Images in an epoch; None = all that the curriculum's stage has."""
    batch_size: int | None = None
    """Cases per batch; None = 32, and of few cases fewer, down to 4, so that an epoch has 16 steps. More where an image
    is one glimpse, fewer where it has many root regions."""
    accumulate: int = 1
    """Batches whose gradients are averaged for one step."""
    sync_batch_norms: bool = False
    """Let batch norms see the crops of all processes, in place of their own process's."""
    optimizer: str = "adamw"
    """``adamw``; or ``adam`` as TNet uses it, with L2 decay of all but norms and epsilon 1e-7."""
    lr: float | None = None
    """Largest learning rate; None = 2e-3, and less where ``batch_size`` is None, too, and small for few cases: down to
    5e-4."""
    weight_decay: float = 1e-2
    """Weight decay."""
    schedule: str = "linear"
    """Decay of the learning rate: ``linear`` to zero over the last 40 %, ``cosine``, or one ``step`` to a tenth at
    80 %."""
    warm_up: float = 0.03
    """Share of the training in which the learning rate rises from a tenth, 0 to 1."""
    clip: float | None = 2.0
    """Largest norm of the gradient; None = it is not clipped."""
    stage_accuracy: float = 0.95
    """Training accuracy at which the curriculum goes on to images of one more depth, before its share of the epochs."""
    seed: int = 0
    """Seed of all random numbers."""

    # The run
    per_source: bool = False
    """Whether each image is learnt from for itself, also where the manifest names cases."""
    on_error: str = "raise"
    """An image that can't be read, or has other bands or another type than most: ``raise``, or ``skip`` it."""
    device: str = "auto"
    """Where to compute: ``auto``, ``cpu``, ``cuda``, ``cuda:N`` or ``mps``."""
    amp: bool = False
    """Compute in bfloat16 where that is safe; for CUDA and CPU."""
    threads: int = 2
    """Threads that read images; below 2 nothing is read ahead."""
    name: str | None = None
    """Name of the model in its card; None = the directory's name."""

    def __post_init__(self) -> None:
        check_types(self)
        _check_bounds(self)
        for name, known in {**CHOICES, "recipe": RECIPES, "architecture": tuple(ARCHITECTURES)}.items():
            if getattr(self, name) is not None:
                _check_name(name, getattr(self, name), known)
        check_scale_options(self.mpp, self.assume_mpp, squash=self.squash is not None)
        for name, what in (("lr", "the learning rate"), ("clip", "the largest norm of the gradient")):
            if getattr(self, name) is not None and not 0 < getattr(self, name) < math.inf:
                raise ConfigError(f"{name}, {what}, must be above 0; got {getattr(self, name)!r}")
        finest = self.finest or self.crop_size or 1
        if self.root_size is not None and self.root_size < finest:
            raise ConfigError(
                f"root_size={self.root_size} is less than the finest region's side ({finest} px); make it at least that"
            )
        if not self.k or min(self.k) < 0:
            raise ConfigError(f"k needs a number of cells per depth, 0 or more each; got {list(self.k)}")
        if not self.scorer_loss or not all(0 <= value < math.inf for value in self.scorer_loss):
            raise ConfigError(
                f"scorer_loss needs a weight per depth, 0 or more each; got {list(self.scorer_loss)}"
            )
        check_bands(self.bands, jpeg=self.jpeg, cutmix=self.cutmix)
        if self.value_range is not None and not self.value_range[0] < self.value_range[1]:
            raise ConfigError(
                f"value_range: the first must lie below the second; got {list(self.value_range)}"
            )
        if self.cutmix and (self.background is not None or self.estimator.startswith("reinforce")):
            raise ConfigError(
                "cutmix mixes labels, which neither a background class nor the estimators reinforce and "
                "reinforce-loo can use; leave one of the two out"
            )
        rule = InputConfig(self.crop_size or 64, filter=self.filter, squash=self.squash)
        model_config(self, (), replace(rule, oversample=self.oversample))


def model_config(
    options: TrainOptions, classes: tuple[str, ...], rule: InputConfig, encoder: "EncoderSpec | None" = None
) -> ModelConfig:
    """The configuration of the model that options ask for.

    Args:
        options: How to train.
        classes: Names of the classes.
        rule: How pixels become the network's input.
        encoder: What ``options.encoder`` stands for; None = the name is that of an architecture.

    Raises:
        ConfigError: If parts don't go together.
    """
    if options.architecture is not None:
        config = replace(ARCHITECTURES[options.architecture].config, classes=classes, input=rule)
        config = replace(config, multi_label=options.multi_label)
        return config if options.encoder_drop is None else replace(config, encoder_drop=options.encoder_drop)
    return ModelConfig(
        classes=classes,
        multi_label=options.multi_label,
        input=rule,
        encoder=encoder.architecture if encoder else options.encoder,
        encoder_args=dict(encoder.args) if encoder else {},
        encoder_drop=options.encoder_drop or 0.0,
        scorer=options.scorer,
        scoring=ScorerConfig(
            area=options.area,
            sparsity=options.sparsity,
            encoder_stages=options.encoder_stages,
            compatibility=options.compatibility,
            heads=options.heads,
            negatives=options.negatives,
            floor=options.floor,
        ),
        head=options.head,
        location=LocationConfig(detach=options.detach_scorer, normalize=options.normalize_scores),
        grid=Grid(options.grid, options.fraction),
        aggregator=options.aggregator,
        pool_finest=options.pool_finest,
        background=options.background,
        coarse_encoder=options.coarse_encoder,
        position="frame" if options.position else None,
        finest=options.finest,
        root_size=options.root_size,
        overlap=options.overlap,
    )


def _check_bounds(options: TrainOptions) -> None:
    for least, names in _SMALLEST.items():
        for name in names.split():
            value = getattr(options, name)
            if value is not None and not least <= value < math.inf:
                raise ConfigError(f"{name} must be at least {least}; got {value!r}")
    for name in _SHARES:
        if not 0 <= getattr(options, name) <= 1:
            raise ConfigError(f"{name} must be 0 to 1; got {getattr(options, name)!r}")


def _check_name(option: str, name: str, known: tuple[str, ...]) -> None:
    if name not in known:
        raise ConfigError(f"unknown {option} {name!r}{did_you_mean(str(name), known)}")
