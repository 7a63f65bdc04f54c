"""A model on disk: a directory of safetensors weights and a JSON card. Nothing is ever unpickled."""

import hashlib
import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save

import hiresattn
from hiresattn.card import Conformal, Domain, checked_domain, checked_temperature
from hiresattn.config import ModelConfig
from hiresattn.errors import CheckpointError, ConfigError, HiresattnError, NotFoundError
from hiresattn.files import atomic_write, read_bounded
from hiresattn.model.build import build_model
from hiresattn.model.embed import embed, scaled
from hiresattn.model.encoders import encoder_words
from hiresattn.model.hub import MODEL, fetch_all
from hiresattn.model.net import GlimpseNet
from hiresattn.model.reference import REFERENCE, Reference, read_reference, reference_facts, write_reference
from hiresattn.reading.crops import NativeCrops

FORMAT = "hiresattn-model"
FORMAT_VERSION = 1
#: Most bytes of a card.
_MOST_CARD = 64 << 20
WEIGHTS = "model.safetensors"
CARD = "card.json"


@dataclass(frozen=True, eq=False)
class Model:
    """A network with its card."""

    net: GlimpseNet
    config: ModelConfig
    name: str
    sha256: str
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

    @property
    def classes(self) -> tuple[str, ...]:
        """Class names, in the order of the logits."""
        return self.config.classes

    @property
    def encoder(self) -> str:
        """What the encoder is, in words: its name, the width of its vectors, and where its weights come from."""
        return encoder_words(
            self.config.encoder, self.net.encoder.feature_width, self.training.get("encoder")
        )

    def embed(self, crops: np.ndarray | NativeCrops, *, batch_size: int = 32) -> np.ndarray:
        """Compute the encoder's feature vectors of crops, for retrieval, clustering or a classifier of your own.

        Which encoder that is says ``encoder``. Features have no position. The model's mode and device stay as they are.

        Args:
            crops: Float32 ``[n c s s]``: the model's bands, scaled as ``config.input`` defines (-1 to 1, invalid px
                0). Or the result of ``read_crops`` of an image that the model can classify: stored values of all
                bands, which are selected and scaled here. The model was trained with crops of ``config.input.size``
                px.
            batch_size: Crops that are encoded at once.

        Returns:
            Float32 ``[n d]``, on the CPU.

        Raises:
            ConfigError: If ``batch_size`` is no number of crops.
            DomainError: If the crops' shape, bands or data type aren't the model's.
        """
        rule = self.config.input
        values = scaled(crops.pixels, rule) if isinstance(crops, NativeCrops) else np.asarray(crops)
        return embed(self.net, values, rule, batch_size)


class Card(NamedTuple):
    """A model without its weights."""

    config: ModelConfig
    k: tuple[int, ...]
    """Cells per region, per depth, in training."""
    training: Mapping[str, Any]
    """About the training."""


def save_model(model: Model, path: str | Path) -> Model:
    """Write a model directory; each file is replaced whole or not at all.

    Args:
        model: What to save.
        path: The directory; made if missing.

    Returns:
        The model, with the hash of the weights as written.

    Raises:
        CheckpointError: If the directory can't be written.
    """
    path = Path(path)
    weights = {name: value.detach().cpu().contiguous() for name, value in model.net.state_dict().items()}
    if not all(bool(torch.isfinite(value).all()) for value in weights.values()):
        raise CheckpointError(
            f"{path}: some weights are NaN or infinite; nothing was written. Train with a lower learning rate (lr)"
        )
    try:
        path.mkdir(parents=True, exist_ok=True)
        # The weights are replaced first and the card, which holds their hash, last.
        with atomic_write(path / CARD) as card_file, atomic_write(path / WEIGHTS) as weights_file:
            weights_file.write_bytes(save(weights))
            sha256 = _sha256(weights_file)
            write_reference(path, model.reference)
            _write_card(card_file, card_of(model, sha256))
    except (OSError, SafetensorError) as error:
        raise CheckpointError(f"{path}: the model can't be written: {error}") from error
    return replace(model, sha256=sha256)


def card_of(model: Model, sha256: str) -> dict[str, Any]:
    """The card of a model, as JSON types.

    Args:
        model: The model.
        sha256: Of its weights file.
    """
    rule = model.config.input
    return {
        "format": FORMAT,
        "format_version": FORMAT_VERSION,
        "name": model.name,
        "classes": list(model.classes),
        "scorer": model.config.scorer,
        "config": model.config.to_json(),
        "read": {
            "filter": rule.filter,
            "level": f"the coarsest with {rule.oversample:g} px or more per px of a crop",
        },
        "k": list(model.k),
        "domain": {name: list(value) if value else None for name, value in vars(model.domain).items()},
        "training": dict(model.training),
        "temperature": model.temperature,
        "conformal": None if model.conformal is None else asdict(model.conformal),
        "reference": reference_facts(model.reference),
        "weights": {"file": WEIGHTS, "sha256": sha256},
        "version": hiresattn.__version__,
    }


def update_training(path: str | Path, facts: Mapping[str, Any]) -> None:
    """Add to what the card of a model directory says about its training; nothing else changes.

    Args:
        path: The directory.
        facts: Names and values, JSON types; they replace those of the same name.

    Raises:
        NotFoundError: If there is no such directory.
        CheckpointError: If it isn't a hiresattn model, or the card can't be written.
    """
    card = _card(Path(path))
    _replace_card(Path(path), card | {"training": {**card.get("training", {}), **facts}})


def set_calibration(path: str | Path, temperature: float, conformal: Conformal | None = None) -> None:
    """Replace the calibration in the card of a model directory; nothing else changes.

    Args:
        path: The directory.
        temperature: Divisor of the logits; finite and above 0.
        conformal: Prediction sets at this temperature; None = there are none, those of another one are removed.

    Raises:
        ConfigError: If the temperature is not finite or not above 0.
        NotFoundError: If there is no such directory.
        CheckpointError: If it isn't a hiresattn model, or the card can't be written.
    """
    try:
        checked_temperature(temperature)
    except ValueError as error:
        raise ConfigError(str(error)) from error
    sets = None if conformal is None else asdict(conformal)
    _replace_card(Path(path), _card(Path(path)) | {"temperature": temperature, "conformal": sets})


def set_reference(path: str | Path, reference: Reference) -> None:
    """Write what the training images look like from afar into a model directory; nothing else changes.

    Raises:
        NotFoundError: If there is no such directory.
        CheckpointError: If it isn't a hiresattn model, or can't be written.
    """
    path = Path(path)
    card = _card(path)
    try:
        facts = write_reference(path, reference)
    except OSError as error:
        raise CheckpointError(f"{path / REFERENCE}: can't be written: {error}") from error
    _replace_card(path, card | {"reference": facts})


def load_model(path: str | Path) -> Model:
    """Load a model directory, or one from the Hugging Face hub (``hf:owner/name``).

    Args:
        path: The directory, or the hub name.

    Returns:
        The model, on the CPU, in evaluation mode.

    Raises:
        NotFoundError: If there is no such directory.
        CheckpointError: If it isn't a hiresattn model, is damaged, or was made by a newer version.

    Examples:
        >>> hiresattn.load_model("model").classes
    """
    asked, path = path, _local(path, CARD, WEIGHTS)
    card = _card(path)
    try:
        config = ModelConfig.from_json(card["config"], str(path / CARD))
        name, k, sha256 = str(card["name"]), tuple(int(n) for n in card["k"]), str(card["weights"]["sha256"])
        domain = checked_domain(card["domain"], len(config.input.bands))
        if list(card["classes"]) != list(config.classes) or card["scorer"] != config.scorer:
            raise ValueError("classes or scorer differ from those in config")  # noqa: TRY301 - as the rest
        training, temperature = dict(card["training"]), checked_temperature(card["temperature"])
        conformal = Conformal.from_json(card.get("conformal"))
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        if isinstance(error, ConfigError):
            raise CheckpointError(f"{error}; the model was made by another version or edited") from error
        raise CheckpointError(
            f"{path / CARD}: the card is damaged ({type(error).__name__}: {error}); train or copy it anew"
        ) from error
    file = path / WEIGHTS
    if not file.is_file():
        raise CheckpointError(f"{path}: the card names {WEIGHTS}, which is missing; copy the whole directory")
    if _sha256(file) != sha256:
        raise CheckpointError(
            f"{file}: not the weights that the card names (sha256 differs); copy the model directory anew"
        )
    try:
        net = build_model(config)
    except HiresattnError as error:
        raise CheckpointError(f"{path / CARD}: the model can't be built: {error}") from error
    try:
        net.load_state_dict(load_file(file))
    except (SafetensorError, RuntimeError) as error:
        why = " ".join(str(error).split("\n\t", 1)[-1].split())[:200]
        raise CheckpointError(f"{file}: the weights don't fit the card: {why}; train it anew") from error
    reference = None
    if (facts := card.get("reference")) is not None:
        width = int(net.encoder.feature_width) + 2 * len(config.input.bands)  # type: ignore[arg-type]
        reference = read_reference(_local(asked, REFERENCE), facts, width)
    return Model(net.eval(), config, name, sha256, domain, k, training, temperature, conformal, reference)


def read_card(path: str | Path) -> Card:
    """Read what the card of a model directory, or of one on the hub (``hf:owner/name``), says; no weights.

    Raises:
        NotFoundError: If there is no such directory.
        CheckpointError: If it isn't a hiresattn model, or its card is damaged.
    """
    path = _local(path, CARD)
    card = _card(path)
    try:
        config = ModelConfig.from_json(card["config"], str(path / CARD))
        return Card(config, tuple(int(n) for n in card["k"]), dict(card["training"]))
    except (KeyError, TypeError, ValueError) as error:
        raise CheckpointError(
            f"{path / CARD}: the card is damaged ({error}); train or copy it anew"
        ) from error


def _local(path: str | Path, *files: str) -> Path:
    """A model directory; of one on the hub, where these files of it were fetched to."""
    if not str(path).startswith(MODEL):
        return Path(path)
    return fetch_all(str(path).removeprefix(MODEL), files, asked=str(path))


def _write_card(file: Path, card: Mapping[str, Any]) -> None:
    file.write_text(json.dumps(card, indent=2) + "\n", encoding="utf-8")


def _replace_card(path: Path, card: Mapping[str, Any]) -> None:
    try:
        with atomic_write(path / CARD) as file:
            _write_card(file, card)
    except OSError as error:
        raise CheckpointError(f"{path / CARD}: the card can't be written: {error}") from error


def _card(path: Path) -> dict[str, Any]:
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


def _sha256(file: Path) -> str:
    with file.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()
