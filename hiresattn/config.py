"""Configuration of a model and of its input: frozen values, JSON in and out.

Configurations are for the builders (``build_model``, ``train``); modules take plain parameters.
"""

import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, fields, is_dataclass
from typing import Any, Self

import numpy as np

from hiresattn.errors import ConfigError
from hiresattn.geometry import Grid
from hiresattn.option_types import check_types, did_you_mean

#: Largest side of a crop or of a squashed image: what memory holds.
_MOST_PX = 16_384


class _Json:
    """JSON in and out for the frozen dataclasses of this module."""

    def to_json(self) -> dict[str, Any]:
        """The values as JSON types."""
        assert is_dataclass(self)  # noqa: S101 - for the type checker
        return asdict(self)

    @classmethod
    def from_json(cls, values: Mapping[str, Any], where: str) -> Self:
        """Build from JSON types.

        Args:
            values: Names and values; what is absent keeps its default.
            where: What is being read, for error messages.

        Returns:
            The configuration.

        Raises:
            ConfigError: If a name is unknown (its nearest neighbour is given) or a value is unusable.
        """
        known = {f.name: f for f in fields(cls)}  # type: ignore[arg-type]
        if not isinstance(values, Mapping):
            raise ConfigError(f"{where}: expected names and values, got {type(values).__name__}")
        made: dict[str, Any] = {}
        for name, value in values.items():
            if name not in known:
                raise ConfigError(f"{where}: unknown key {name!r}{did_you_mean(name, known)}")
            if name in _NESTED:
                value = Grid(**value) if name == "grid" else _NESTED[name].from_json(value, where)  # noqa: PLW2901
            elif isinstance(value, list):
                value = tuple(value)  # noqa: PLW2901
            made[name] = value
        try:
            found = cls(**made)
            check_types(found)
        except (
            TypeError,
            ValueError,
            AttributeError,
            ArithmeticError,
        ) as error:  # ConfigError is a ValueError
            raise ConfigError(f"{where}: {error}") from error
        return found


@dataclass(frozen=True)
class InputConfig(_Json):
    """How px become the network's input, in training and in use.

    A value ``v`` of band ``b`` becomes ``2 * (v - low[b]) / (high[b] - low[b]) - 1``; invalid px (nodata, absent
    tiles) become 0, the middle. For a mean and a standard deviation, ``low = mean - std`` and ``high = mean + std``.
    Values are stored ones, of images with the card's ``scales`` and ``offsets``; of an image with others ``low`` and
    ``high`` are converted, so that one quantity measured becomes one input.
    """

    size: int = 64
    """Side of a crop, px."""
    bands: tuple[int, ...] = (0, 1, 2)
    """Bands of the image that the model uses, counted from 0, in this order."""
    low: tuple[float, ...] = (0.0, 0.0, 0.0)
    """Stored value that becomes -1, per band used."""
    high: tuple[float, ...] = (255.0, 255.0, 255.0)
    """Stored value that becomes +1, per band used."""
    scales: tuple[float, ...] | None = None
    """Per band used: a stored value times this, plus its offset, is the quantity measured; None = it isn't known."""
    offsets: tuple[float, ...] | None = None
    """Per band used; see ``scales``."""
    dtype: str = "uint8"
    """Data type of the images."""
    filter: str = "area"
    """Resampling filter: ``area``, the antialiased average over valid pixels; or, with ``squash``, ``bilinear``
    without antialiasing, as the paper resizes."""
    squash: int | None = None
    """Side, px, of the square that a whole image is first resized to, whatever its proportions, as the paper does;
    None = crops are read from the file, proportions kept."""
    oversample: float = 1.0
    """Least number of stored px per px of a crop, along a side. 1 reads the coarsest level that isn't upsampled; 2
    reads up to four times the px and averages them, for files whose overviews lost small objects."""

    channels: int | None = None
    """Number of bands that an image must have; None = any that has ``bands``."""
    nodata: float | None = None
    """Stored value of px that were not measured, in place of what files say; None = as they say."""
    mpp: float | None = None
    """Micrometres per px that regions are counted in, whatever those of an image's level 0 are; None = regions are in
    level-0 px."""
    foreground: str | None = None
    """What of an image is looked at below the root regions: ``tissue``; None = all of it."""
    band_names: tuple[str, ...] | None = None
    """What the bands are called, or what they show (``red``): those of each image are taken; None = by number."""

    def __post_init__(self) -> None:
        _check_whole("size", self.size, 1, _MOST_PX)
        for band in self.bands:
            _check_whole("a band", band, 0)
        if self.channels is not None:
            _check_whole("channels", self.channels, 1)
        if not all(_finite(value) for value in (*self.low, *self.high, self.oversample)):
            raise ConfigError(f"low, high and oversample are finite numbers; got {self.low} and {self.high}")
        if self.nodata is not None and (
            isinstance(self.nodata, bool) or not isinstance(self.nodata, (int, float))
        ):
            raise ConfigError(f"nodata is a number; got {self.nodata!r}")
        try:
            np.dtype(self.dtype)
        except TypeError as error:
            raise ConfigError(f"dtype {self.dtype!r} is not a data type of NumPy's") from error
        if not len(self.bands) == len(self.low) == len(self.high) >= 1:
            raise ConfigError(
                f"bands, low and high need one entry per band; got {self.bands}, {self.low} and {self.high}"
            )
        self._check_per_band()
        if any(not high > low for low, high in zip(self.low, self.high, strict=True)):
            raise ConfigError(f"each high must lie above its low; got low={self.low}, high={self.high}")
        if not 1 <= self.oversample <= 64:
            raise ConfigError(f"oversample must be 1 to 64; got {self.oversample}")
        if self.squash is not None:
            _check_whole("squash", self.squash, 1, _MOST_PX)
        if self.mpp is not None and not (_finite(self.mpp) and self.mpp > 0 and self.squash is None):
            raise ConfigError(f"mpp is above 0, and goes without squash; got {self.mpp!r}")
        if self.foreground not in (None, "tissue"):
            raise ConfigError(f"foreground is 'tissue' or None; got {self.foreground!r}")
        if self.filter not in (("area",) if self.squash is None else ("area", "bilinear")):
            raise ConfigError(f"filter must be 'area', or with squash 'bilinear'; got {self.filter!r}")

    def _check_per_band(self) -> None:
        """Check what there is of each band, where it is known: name, scale, offset."""
        names = self.band_names
        if names is not None and not (
            len(names) == len(self.bands) and all(isinstance(n, str) and n for n in names)
        ):
            raise ConfigError(f"band_names needs a name per band; got {names!r}")
        for given in (self.scales or (), self.offsets or ()):
            if len(given) not in (0, len(self.bands)) or not all(map(_finite, given)):
                raise ConfigError(f"scales and offsets are finite numbers, one per band; got {given}")
        if (self.scales is None) != (self.offsets is None) or not all(each > 0 for each in self.scales or ()):
            raise ConfigError(f"scales lie above 0 and go with offsets; got {self.scales} and {self.offsets}")


@dataclass(frozen=True)
class LocationConfig(_Json):
    """Settings of TNet's location module, the scorers ``location``, ``context`` and ``mask``."""

    stage: int = -1
    """Which of the encoder's maps is scored, by index; -1 = the coarsest."""
    units: tuple[int, ...] | None = None
    """Rows, and columns, of that map that represent the cells, one per row of the grid, as the paper picks them;
    None = area averages over the cells."""
    hidden: int | None = 64
    """Width inside; None = as wide as the map (``location``) or the feature (``context``)."""
    detach: bool = False
    """Detach the encoder's features before the scorer, as the paper does."""
    normalize: bool = False
    """Divide the logits by their norm over the grid, as the paper does; else a learned temperature."""

    def __post_init__(self) -> None:
        if self.hidden is not None:
            _check_whole("hidden", self.hidden, 2)
        for unit in self.units or ():
            _check_whole("a unit", unit, 0)


@dataclass(frozen=True)
class ScorerConfig(_Json):
    """Settings of single scorers, each named in its description."""

    area: float = 0.08
    """``mask``: mean share of a region's cells that may be selected, above 0 and up to 1."""
    sparsity: tuple[float, float, float] | None = None
    """``mask``: alpha, beta and lambda of the sparsity loss of stats.stackexchange 384355, in place of ``area``."""
    encoder_stages: tuple[int, ...] = (-3, -1)
    """``saol``, ``ltpa``: which of the encoder's maps they use, by index, fine to coarse; ``oaa``: the last of them."""
    compatibility: str = "dot"
    """``ltpa``: how local features are compared with the region's vector: ``dot``, ``gated``, or ``parametrised`` as
    published, which under softmax does not depend on that vector."""
    heads: str = "concat"
    """``ltpa``: one classifier for all ``encoder_stages`` (``concat``) or one each (``indep``)."""
    negatives: str = "present"
    """``oaa``: which classes the integral maps' loss covers: ``present`` ones, or ``all``."""
    floor: float = 0.0
    """``oaa``: accumulated attention below this counts as 0; at least 0 and below 1."""

    def __post_init__(self) -> None:
        if not _finite(self.area) or not 0 < self.area <= 1:
            raise ConfigError(f"area must be above 0 and at most 1; got {self.area!r}")
        if not _finite(self.floor) or not 0 <= self.floor < 1:
            raise ConfigError(f"floor must be at least 0 and below 1; got {self.floor!r}")
        if not self.encoder_stages or not all(isinstance(stage, int) for stage in self.encoder_stages):
            raise ConfigError(
                f"encoder_stages are indices of maps, such as -3 and -1; got {self.encoder_stages!r}"
            )
        for name, known in _SCORING.items():
            if getattr(self, name) not in known:
                raise ConfigError(f"unknown {name} {getattr(self, name)!r}; known are {', '.join(known)}")
        if self.sparsity is not None:
            good = len(self.sparsity) == 3 and all(_finite(value) and value >= 0 for value in self.sparsity)
            if not good or self.sparsity[0] > 1 or not self.sparsity[2]:
                raise ConfigError(
                    "sparsity is alpha (0 to 1), beta (0 or more) and lambda (above 0), such as 0.5, 1 and 1e-6; "
                    f"got {self.sparsity!r}"
                )


@dataclass(frozen=True)
class ModelConfig(_Json):
    """The parts of a model, by name and size."""

    classes: tuple[str, ...] = ()
    """Class names, in the order of the logits."""
    multi_label: bool = False
    """Whether an image may have any number of the classes, each with a probability of its own; else exactly one."""
    input: InputConfig = field(default_factory=InputConfig)
    """How pixels become the network's input."""
    encoder: str = "small"
    """``small``, ``small-6``, either with ``-bn``, ``bagnet77``, a name given to ``register_encoder``, or an
    architecture of timm."""
    encoder_args: dict[str, Any] = field(default_factory=dict)
    """Arguments of an architecture of timm, JSON types."""
    encoder_drop: float = 0.0
    """Largest drop rate inside the encoder in training: of blocks (timm: stochastic depth) or of channels
    (``bagnet77``)."""
    init: str = "torch"
    """Initialisation of the weights: ``torch`` (each library's own), ``glorot`` or ``fan-out`` (the paper's)."""
    scorer: str = "location"
    """Network that scores the cells of a region; see ``hiresattn.model.scorers``."""
    location: LocationConfig = field(default_factory=LocationConfig)
    """Settings of TNet's location module."""
    scoring: ScorerConfig = field(default_factory=ScorerConfig)
    """Settings of single scorers."""
    grid: Grid = field(default_factory=Grid)
    """How a region is divided into cells."""
    aggregator: str = "attention"
    """``attention`` (gated attention, Ilse 2018) or ``mean``."""
    position: str | None = "frame"
    """Positional encoding of a glimpse's feature: ``frame`` (centre and zoom, added), ``path-sum`` or ``path-concat``
    (the paper's path indices, for fMoW and ImageNet); None = none."""
    background: str | None = None
    """Class of images that show nothing to find. With it, the evidence of single glimpses is pooled: the prediction is
    the sum of their likelihood ratios, each class against this one."""
    pool_finest: bool = False
    """Whether only finest glimpses are pooled, as long as there is one: where coarse ones have an encoder of their own,
    whose vectors mean something else. With a background class it is always so."""
    head: str = "classifier"
    """Which head predicts: the ``classifier`` of the pooled glimpses; or the ``scorer``'s own (saol, ltpa, oaa), its
    probabilities averaged over glimpses with the aggregator's weights."""
    coarse_encoder: bool = False
    """Whether regions that are divided further have an encoder of their own."""
    dropout: float = 0.0
    """Share of a vector's values dropped before the classifier, in training."""
    value: bool = True
    """Whether the network has a value head, which predicts whether a region is worth dividing."""
    finest: int | None = None
    """Side of the smallest region, level-0 px; None = a crop's side, which is native resolution."""
    root_size: int | None = None
    """Largest side of a root region, level-0 px; None = the image's short side."""
    overlap: float = 0.0
    """Least share of its side that a root region has in common with the next."""

    def __post_init__(self) -> None:
        if not _finite(self.overlap) or not 0 <= self.overlap < 1:
            raise ConfigError(f"overlap must be at least 0 and below 1; got {self.overlap!r}")
        for name in ("finest", "root_size"):
            if getattr(self, name) is not None:
                _check_whole(name, getattr(self, name), 1)
        if not all(
            isinstance(name, str) for name in (*self.classes, self.encoder, self.scorer, self.aggregator)
        ):
            raise ConfigError("classes, encoder, scorer and aggregator are names")
        for name in ("encoder_drop", "dropout"):
            if not _finite(getattr(self, name)) or not 0 <= getattr(self, name) < 1:
                raise ConfigError(f"{name} is a share of at least 0 and below 1; got {getattr(self, name)!r}")
        if self.multi_label and self.background is not None:
            raise ConfigError(
                f"background {self.background!r} excludes all other classes, which does not go with several labels per "
                "image; leave out background or multi_label"
            )
        if self.head not in ("classifier", "scorer"):
            raise ConfigError(f"head is 'classifier' or 'scorer'; got {self.head!r}")
        if self.head == "scorer" and self.scorer not in CLASSIFYING:
            raise ConfigError(
                f"the scorer {self.scorer!r} is no classifier; head 'scorer' needs one of {', '.join(CLASSIFYING)}"
            )
        if self.head == "scorer" and (self.background is not None or self.multi_label):
            raise ConfigError(
                "head 'scorer' predicts exactly one class; leave out background and multi-label, or use head "
                "'classifier'"
            )
        if len(set(self.classes)) < len(self.classes):
            raise ConfigError(f"two classes have the same name: {', '.join(self.classes)}")

    @property
    def finest_side(self) -> int:
        """Side of the smallest region, level-0 px."""
        return self.finest or self.input.size


def _check_whole(name: str, value: Any, least: int, most: int | None = None) -> None:
    if isinstance(value, bool) or not isinstance(value, int) or not least <= value <= (most or value):
        bounds = f"at least {least}" if most is None else f"{least} to {most:,}"
        raise ConfigError(f"{name} must be a whole number of {bounds}; got {value!r}")


def _finite(value: Any) -> bool:
    return isinstance(value, (int, float)) and math.isfinite(value)


#: Scorers with a classification head of their own.
CLASSIFYING = ("saol", "ltpa", "oaa")
_SCORING = {
    "compatibility": ("dot", "gated", "parametrised"),
    "heads": ("concat", "indep"),
    "negatives": ("present", "all"),
}
_NESTED: dict[str, Any] = {
    "input": InputConfig,
    "grid": Grid,
    "location": LocationConfig,
    "scoring": ScorerConfig,
}
