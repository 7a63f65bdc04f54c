"""The options of ``classify``, ``locate`` and ``extract``, checked in one place."""

import math
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from hiresattn.datasets.features import FORMATS
from hiresattn.errors import ConfigError
from hiresattn.files import is_remote
from hiresattn.inference.budget import Budget
from hiresattn.option_types import check_types, did_you_mean

POLICIES = ("best-first", "top-k", "random", "lowres", "exhaustive")
ENGINES = ("auto", "torch", "onnx", "onnx-int8")
PRECISIONS = ("float32", "bfloat16")
FOREGROUND = ("tissue", "none")


@dataclass(frozen=True, kw_only=True)
class ClassifyOptions:
    """How images are classified.

    Raises:
        ConfigError: If a value can't be used.
    """

    budget: Budget | str | int = 64
    """What one image may cost: glimpses (``64``), stored bytes (``"50MB"``) or seconds (``"2s"``)."""
    stop: float | str | None = 0.95
    """Confidence at which the search ends early, above 0 and at most 1; None or ``"off"`` = spend the budget."""
    until_confidence: float | None = None
    """Confidence below which a search goes on beyond ``budget``, until it is that sure or has spent ``max_budget``; at
    most ``stop``, which ends it before. None = it ends with its budget."""
    max_budget: Budget | str | int | None = None
    """What an image of which the model isn't sure may cost in all; with ``until_confidence`` only."""
    policy: str = "best-first"
    """``best-first``; ``top-k`` (the training's k cells per region and depth, whatever the budget); to compare with:
    ``random`` cells, ``lowres`` (the root regions only), ``exhaustive`` (every finest region, whatever the budget)."""
    device: str = "auto"
    """``auto``, ``cpu``, ``cuda:N`` or ``mps``."""
    engine: str = "auto"
    """What runs the network: ``torch``, or ``onnx`` (ONNX Runtime; see ``export_onnx``). ``auto`` = ``onnx`` where the
    model is not loaded yet, its directory holds a network for it that agrees with torch, and no GPU is passed by; or
    where torch is not installed."""
    provider: str | None = None
    """Execution provider of ONNX Runtime, such as ``openvino``; None = by device."""
    precision: str = "float32"
    """``bfloat16``: PyTorch multiplies in it, which GPUs and some CPUs do faster; scores differ in the third digit."""
    bands: tuple[int | str, ...] | None = None
    """Bands to feed the model, counted from 1, or their names, or STAC's common names (``red``); None = the model's
    own."""
    value_range: tuple[float, float] | None = None
    """Native values that stand for the model's darkest and brightest, for images of another data type or range than
    the training's; None = the model's own."""
    mpp: float | None = None
    """Micrometres per level-0 px, in place of what manifests and files say."""
    assume_mpp: float | None = None
    """The same, of images of which the manifest says none, and the file none that can be meant."""
    nodata: float | None = None
    """Stored value of px that were not measured, in place of what files say."""
    foreground: str | None = None
    """What is looked at below the root regions: ``tissue``, ``none`` (all of it), or the path of a mask: an image of
    one band that shows the whole of the source, above 0 where it is foreground. None = as the model was trained."""
    strict: bool = False
    """Whether a tile that a file leaves out is an error; else it counts as not measured."""
    on_error: str = "raise"
    """``raise``, or ``record``: a source that fails gives a record with status ``error``."""
    seed: int = 0
    """Of random choices and scores."""
    threads: int | None = None
    """Threads that read; None = the machine's cores, at most 8."""
    nms: float = 1.0
    """Largest overlap (intersection over union) of two chosen cells of a region or, in a search, of two visited
    regions of a depth: at most .5 there, whatever this says. 1 = any."""
    per_source: bool = False
    """Whether each image is searched and answered for itself, also those of one case."""
    scorer: str | None = None
    """``random``: random scores in place of the model's, a control. None, or the model's own by name = the model's."""
    batch_images: int | str = "auto"
    """Images searched side by side, which share batches of the network; ``auto`` = by device, encoder and memory."""

    def __post_init__(self) -> None:
        check_types(self)
        self._set("budget", Budget.parse(self.budget))
        self._set("stop", None if self.stop == "off" else self.stop)
        if self.stop is not None and not (_is_number(self.stop) and 0 < self.stop <= 1):  # type: ignore[operator]
            raise ConfigError(f"stop is a confidence above 0 and at most 1, or None; got {self.stop!r}")
        self._check_until()
        self._check_engine()
        if self.policy not in POLICIES:
            raise ConfigError(f"unknown policy {self.policy!r}{did_you_mean(str(self.policy), POLICIES)}")
        if self.on_error not in ("raise", "record"):
            raise ConfigError(f"on_error must be 'raise' or 'record'; got {self.on_error!r}")
        if self.bands is not None and not names_bands(self.bands):
            raise ConfigError(f"bands are counted from 1; got {self.bands}")
        if self.value_range is not None:
            self._set("value_range", check_value_range(self.value_range))
        for name in ("mpp", "assume_mpp"):
            value = getattr(self, name)
            if value is not None and not 0 < value < math.inf:
                raise ConfigError(f"{name} is a number of micrometres above 0; got {value!r}")
        _check_foreground(self.foreground)
        if self.seed < 0:
            raise ConfigError(f"seed must be 0 or more; got {self.seed}")
        if self.threads is not None and self.threads < 0:
            raise ConfigError(f"threads must be 0 or more; got {self.threads}")
        if not 0 <= self.nms <= 1:
            raise ConfigError(f"nms is an intersection over union, 0 to 1; got {self.nms}")
        if self.nms < 1 and self.policy == "lowres":
            raise ConfigError(
                "nms keeps chosen cells apart, and the policy lowres chooses none; leave out nms"
            )
        whole = isinstance(self.batch_images, int) and self.batch_images >= 1
        if self.batch_images != "auto" and not whole:
            raise ConfigError(
                f"batch_images is 'auto' or a number of images from 1; got {self.batch_images!r}"
            )

    def _check_engine(self) -> None:
        """Check what runs the network."""
        if self.engine not in ENGINES:
            raise ConfigError(f"unknown engine {self.engine!r}{did_you_mean(str(self.engine), ENGINES)}")
        if self.provider is not None and self.engine == "torch":
            raise ConfigError("provider is ONNX Runtime's; leave it out, or take the engine onnx")
        if self.precision not in PRECISIONS:
            raise ConfigError(
                f"unknown precision {self.precision!r}{did_you_mean(str(self.precision), PRECISIONS)}"
            )
        if self.precision != "float32" and (self.engine.startswith("onnx") or self.provider is not None):
            raise ConfigError(
                f"precision {self.precision} is PyTorch's; leave out engine and provider, or export the network with "
                "int8"
            )

    def _check_until(self) -> None:
        """Check how a search goes on beyond its budget."""
        until = self.until_confidence
        if (until is None) != (self.max_budget is None):
            raise ConfigError(
                "until_confidence and max_budget go together: how sure, and what that may cost; give both"
            )
        if until is None or self.max_budget is None:
            return
        if not 0 < until <= 1:
            raise ConfigError(f"until_confidence is a confidence above 0 and at most 1; got {until!r}")
        if self.stop is not None and until > float(self.stop):
            raise ConfigError(
                f"until_confidence {until:g} is never reached: stop ends every search at {float(self.stop):g}; give a "
                "stop as large, or off"
            )
        most = Budget.parse(self.max_budget)
        self._set("max_budget", most)
        for name, first in vars(Budget.parse(self.budget)).items():
            last = getattr(most, name)
            if first is not None and last is not None and last <= first:
                raise ConfigError(f"max_budget, {last:g} {name}, must be more than budget, {first:g} {name}")

    @property
    def searches(self) -> bool:
        """Whether regions are chosen one after the other; else what is looked at is fixed."""
        return self.policy in ("best-first", "random")

    def _set(self, name: str, value: Any) -> None:
        object.__setattr__(self, name, value)


def _check_foreground(name: str | None) -> None:
    if name in (None, "tissue", "none") or is_remote(str(name)) or Path(str(name)).exists():
        return
    raise ConfigError(f"foreground is 'tissue', 'none', or a mask's path, and there is no file {name!r}")


def check_value_range(value_range: tuple[float, float]) -> tuple[float, float]:
    """A pair of finite values, the lower one first.

    Raises:
        ConfigError: If it is not that.
    """
    pair = tuple(value_range)
    if len(pair) != 2 or not all(math.isfinite(value) for value in pair) or not pair[0] < pair[1]:
        raise ConfigError(f"a value range is two finite values, the lower one first; got {value_range}")
    return pair


def names_bands(bands: tuple[int | str, ...]) -> bool:
    """Whether these are bands: numbers from 1, or names."""
    return bool(bands) and all(bool(band) if isinstance(band, str) else band >= 1 for band in bands)


def _is_number(value: object) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool)


@dataclass(frozen=True, kw_only=True)
class LocateOptions:
    """How boxes are found.

    Raises:
        ConfigError: If a value can't be used.
    """

    bands: tuple[int | str, ...] | None = None
    """Bands to feed the model, counted from 1, or their names, or STAC's common names; None = the model's own."""
    value_range: tuple[float, float] | None = None
    """Native values that stand for the model's darkest and brightest; None = the model's own."""
    assume_mpp: float | None = None
    """Micrometres per level-0 px of images of which the manifest says none, and the file none that can be meant."""
    root: str | None = None
    """Folder that paths in the manifest are relative to; None = the manifest's."""
    label_column: str | None = None
    """Column of the manifest that holds the label; None = ``label``."""
    device: str = "auto"
    """``auto``, ``cpu``, ``cuda:N`` or ``mps``."""
    threads: int = 2
    """Threads that read."""
    on_error: str = "raise"
    """Unreadable image: ``raise``, or ``skip``: its row is copied as it is."""
    work: Callable[..., Any] | None = field(default=None, compare=False)
    """What searches images, such as ``hiresattn.cluster.locator(client)``; None = this process."""

    def __post_init__(self) -> None:
        check_types(self)
        if self.threads < 0:
            raise ConfigError(f"threads must be 0 or more; got {self.threads}")
        if self.bands is not None and not names_bands(self.bands):
            raise ConfigError(f"bands are counted from 1; got {self.bands}")
        if self.value_range is not None:
            object.__setattr__(self, "value_range", check_value_range(self.value_range))
        if self.on_error not in ("raise", "skip"):
            raise ConfigError(f"on_error must be 'raise' or 'skip'; got {self.on_error!r}")


@dataclass(frozen=True, kw_only=True)
class ExtractOptions:
    """How features are extracted.

    Raises:
        ConfigError: If a value can't be used.
    """

    mpp: float | None = None
    """Micrometres per px of a crop; None = ``side``."""
    side: int | None = None
    """Side of a region, level-0 px; None = as ``mpp`` says, else a crop's side (native resolution), or a model's."""
    format: str = "zarr"
    """``zarr``, or ``h5`` as CLAM and TRIDENT have it."""
    overwrite: bool = False
    """Replace features of the images that are there by another encoder, at another scale or in the other format."""
    batch_size: int = 64
    """Crops that are read and encoded at once."""
    foreground: str | None = None
    """Which regions: ``tissue``, those that hold some; ``none``, all. None = as the model was trained; of other
    encoders, tissue of slides (three bands of uint8, a known size of a px below 20 µm, no coordinate system)."""
    bands: tuple[int | str, ...] | None = None
    """Bands that the encoder is given, counted from 1, or their names, or STAC's common names; None = 1, 2, 3, or the
    model's."""
    value_range: tuple[float, float] | None = None
    """Stored values that become -1 and +1; None = as in the encoder's training."""
    device: str = "auto"
    """Where the encoder runs: ``auto``, ``cpu``, ``cuda``, ``cuda:N`` or ``mps``."""
    threads: int = 2
    """Threads that read."""

    def __post_init__(self) -> None:
        check_types(self)
        if self.format not in FORMATS:
            raise ConfigError(f"unknown format {self.format!r}{did_you_mean(self.format, FORMATS)}")
        if self.foreground not in (None, *FOREGROUND):
            raise ConfigError(
                f"unknown foreground {self.foreground!r}{did_you_mean(str(self.foreground), FOREGROUND)}"
            )
        if self.mpp is not None and self.side is not None:
            raise ConfigError("mpp and side both say how large a region is; give one of them")
        if not (self.mpp is None or self.mpp > 0) or not (self.side is None or self.side > 0):
            raise ConfigError("mpp and side are above 0")
        if self.batch_size < 1 or self.threads < 0:
            raise ConfigError("batch_size is at least 1, and threads 0 or more")
        if self.bands is not None and not names_bands(self.bands):
            raise ConfigError(f"bands are counted from 1; got {self.bands}")
        if self.value_range is not None:
            object.__setattr__(self, "value_range", check_value_range(self.value_range))
