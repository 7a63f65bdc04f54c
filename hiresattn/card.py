"""What a model's card says: how it is built, what the training images were like, how far its answers go. No weights."""

import hashlib
import json
import math
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from hiresattn.config import ModelConfig
from hiresattn.errors import CheckpointError, ConfigError, NotFoundError
from hiresattn.files import read_bounded
from hiresattn.model.hub import MODEL, fetch_all, named_by_item
from hiresattn.model.reference import REFERENCE, Reference, read_reference

FORMAT = "hiresattn-model"
FORMAT_VERSION = 1
#: Most bytes of a card.
_MOST_CARD = 64 << 20
#: What values of an unforeseen type or size raise, wherever they are used.
UNUSABLE = (LookupError, TypeError, ValueError, AttributeError, ArithmeticError, RecursionError)
WEIGHTS = "model.safetensors"
CARD = "card.json"
#: The network for ONNX Runtime; that of regions that are divided further, where they have an encoder of their own; and
#: what torch gave for some crops.
NETWORK, COARSE_NETWORK, PROBE = ("model.onnx", "coarse.onnx", "probe.safetensors")
#: The same networks, rounded to 8 bits.
INT8 = {NETWORK: "model-int8.onnx", COARSE_NETWORK: "coarse-int8.onnx"}
ONNX_FILES = (NETWORK, COARSE_NETWORK, PROBE, *INT8.values())


@dataclass(frozen=True)
class Domain:
    """Properties of the training images; a model that is used outside of them warns."""

    mpp: tuple[float, float] | None = None
    """Smallest and largest µm per level-0 px; None = not known of the images."""
    resolution: tuple[float, float] | None = None
    """Smallest and largest ground size of a level-0 px, in units of the CRS."""
    low: tuple[float, ...] | None = None
    """Smallest mean of each band over a whole image, stored values."""
    high: tuple[float, ...] | None = None
    """Largest mean of each band over a whole image, stored values."""
    channel_names: tuple[str, ...] | None = None
    """Names of the bands taken; None = not known, or not the same in all training images."""


@dataclass(frozen=True)
class Conformal:
    """Prediction sets: the classes that may be right, so that the right one is among them but for a share of the cases.

    Source:
        Split conformal prediction: Vovk, Gammerman and Shafer, "Algorithmic Learning in a Random World", 2005; sets of
        all classes above a threshold: Sadinle, Lei and Wasserman, "Least Ambiguous Set-Valued Classifiers with Bounded
        Error Levels", JASA 114, 2019.
    """

    risk: float
    """Largest share of cases whose class is not in their set, on average."""
    least: float
    """Least probability of a class that is in the set."""
    cases: int
    """Labelled cases, or groups of them, that the threshold rests on; with ``per_source`` on each of their images."""
    search: Mapping[str, Any]
    """Options of the searches that gave their probabilities, JSON types; the sets hold for such searches only."""

    def classes(self, scores: Mapping[str, float]) -> tuple[str, ...]:
        """The classes of a prediction set, the likeliest first; it may be empty.

        Args:
            scores: Probability of every class.
        """
        ordered = sorted(scores, key=lambda name: -scores[name])
        return tuple(name for name in ordered if scores[name] >= self.least)

    @classmethod
    def from_json(cls, stored: Any) -> "Conformal | None":
        """What a card holds; None = nothing.

        Raises:
            ValueError: If it is damaged.
        """
        if stored is None:
            return None
        found = cls(**stored)
        numbers = (found.risk, found.least)
        fine = all(isinstance(value, (int, float)) and 0 <= value <= 1 for value in numbers)
        if not fine or type(found.cases) is not int or not isinstance(found.search, Mapping):
            raise ValueError(
                f"conformal {stored!r} is not a risk, a probability, a number of cases and a search"
            )
        return found


def checked_domain(stored: Mapping[str, Any], bands: int) -> Domain:
    """The domain that a card holds.

    Raises:
        ValueError: If a span is no pair, or band values aren't one per band.
    """
    domain = Domain(**{key: tuple(v) if v else None for key, v in stored.items()})
    for name, length in {"mpp": 2, "resolution": 2, "low": bands, "high": bands}.items():
        values = getattr(domain, name)
        if values is not None and (
            len(values) != length or not all(isinstance(v, (int, float)) for v in values)
        ):
            raise ValueError(f"domain {name} is not {length} numbers")
    names = domain.channel_names
    if names is not None and (len(names) != bands or not all(isinstance(name, str) for name in names)):
        raise ValueError(f"domain channel_names is not {bands} names")
    return domain


def checked_temperature(value: Any) -> float:
    """The temperature that a card holds.

    Raises:
        ValueError: If it is not a finite number above 0.
    """
    if isinstance(value, bool) or not isinstance(value, (int, float)) or not 0 < value < math.inf:
        raise ValueError(f"temperature {value!r} is not a finite number above 0")
    return float(value)


@dataclass(frozen=True, eq=False)
class Card:
    """A model without its weights."""

    config: ModelConfig
    name: str = ""
    sha256: str = ""
    """Of the weights file; empty for a model that was never saved."""
    domain: Domain = field(default_factory=Domain)
    k: tuple[int, ...] = (4, 2)
    """Cells per region, per depth, in training."""
    training: Mapping[str, Any] = field(default_factory=dict)
    """About the training: seed, accuracy, options, versions."""
    temperature: float = 1.0
    """Divisor of the logits, from calibration."""
    conformal: Conformal | None = None
    """Prediction sets, from calibration; None = it was not calibrated for them."""
    reference: Reference | None = None
    """What the training images look like from afar; None = not known."""
    onnx: Mapping[str, Any] | None = None
    """The network for ONNX Runtime that lies beside the weights; None = there is none."""
    path: str = ""
    """Where it was read: a directory, or a name on the hub; empty for a model that was never saved."""

    @property
    def classes(self) -> tuple[str, ...]:
        """Class names, in the order of the logits."""
        return self.config.classes


def read_card(path: str | Path, *, reference: bool = False) -> Card:
    """What the card of a model directory, or of one on the hub (``hf:owner/name``), says; no weights.

    Args:
        path: The directory, or the hub name.
        reference: Whether to read what the training images look like, too.

    Raises:
        NotFoundError: If there is no such directory.
        CheckpointError: If it isn't a hiresattn model, or its card is damaged.
    """
    asked, path = path, local_files(path, CARD)
    card = card_json(path)
    try:
        config = ModelConfig.from_json(card["config"], str(path / CARD))
        if list(card["classes"]) != list(config.classes) or card["scorer"] != config.scorer:
            raise ValueError("classes or scorer differ from those in config")
        found = Card(
            config,
            str(card["name"]),
            str(card["weights"]["sha256"]),
            checked_domain(card["domain"], len(config.input.bands)),
            tuple(int(n) for n in card["k"]),
            dict(card["training"]),
            checked_temperature(card["temperature"]),
            Conformal.from_json(card.get("conformal")),
            onnx=None if card.get("onnx") is None else dict(card["onnx"]),
            path=str(asked),
        )
    except UNUSABLE as error:
        if isinstance(error, ConfigError):
            raise CheckpointError(f"{error}; the model was made by another version or edited") from error
        raise CheckpointError(
            f"{path / CARD}: the card is damaged ({type(error).__name__}: {error}); train or copy it anew"
        ) from error
    if not reference or (facts := card.get("reference")) is None:
        return found
    return replace(found, reference=read_reference(local_files(asked, REFERENCE), facts))


def local_files(path: str | Path, *files: str) -> Path:
    """A model directory, that which a STAC item names; of one on the hub, where these files of it were fetched to."""
    if str(path).endswith(".json"):
        return named_by_item(path)
    if not str(path).startswith(MODEL):
        return Path(path)
    return fetch_all(str(path).removeprefix(MODEL), files, asked=str(path))


def card_json(path: Path) -> dict[str, Any]:
    """The card of a model directory, as JSON types.

    Raises:
        NotFoundError: If there is no such directory.
        CheckpointError: If it isn't a hiresattn model, or its card isn't readable.
    """
    if not path.exists():
        raise NotFoundError(
            f"{path}: no such model directory; `hiresattn train MANIFEST -o {path}` makes one"
        )
    file = path / CARD
    if not file.is_file():
        raise CheckpointError(
            f"{path}: no {CARD} in it, so not a hiresattn model; a model is a directory with "
            f"{CARD} and {WEIGHTS}"
        )
    try:
        card = json.loads(read_bounded(file, _MOST_CARD))
    except (ValueError, OSError, RecursionError) as error:
        raise CheckpointError(
            f"{file}: not readable as JSON ({error}); copy the model directory anew"
        ) from error
    if not isinstance(card, dict) or card.get("format") != FORMAT:
        raise CheckpointError(f"{file}: not the card of a hiresattn model (no format {FORMAT!r})")
    version = card.get("format_version")
    if version != FORMAT_VERSION:
        raise CheckpointError(
            f"{file}: format version {version}, this hiresattn reads version {FORMAT_VERSION}; upgrade hiresattn"
        )
    return card


def sha256_of(file: Path) -> str:
    """The hash of a file."""
    with file.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()
