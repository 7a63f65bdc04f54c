"""A model on disk: a directory of safetensors weights and a JSON card. Nothing is ever unpickled."""

import json
import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import load_file, save

import hiresattn
from hiresattn.card import (
    CARD,
    FORMAT,
    FORMAT_VERSION,
    ONNX_FILES,
    UNUSABLE,
    WEIGHTS,
    Card,
    Conformal,
    card_json,
    checked_temperature,
    local_files,
    read_card,
    sha256_of,
)
from hiresattn.errors import CheckpointError, ConfigError, HiresattnError
from hiresattn.files import atomic_write
from hiresattn.model.bounds import parameters_in_proportion
from hiresattn.model.build import build_model
from hiresattn.model.embed import embed, scaled
from hiresattn.model.encoders import encoder_words
from hiresattn.model.encoders.weights import misfit
from hiresattn.model.net import GlimpseNet
from hiresattn.model.reference import REFERENCE, Reference, reference_facts, write_reference
from hiresattn.reading.crops import NativeCrops


@dataclass(frozen=True, eq=False, init=False)
class Model(Card):
    """A network with its card.

    Args:
        net: The network.
        about: What the card says, as ``Card`` takes it.
        named: The same by name.
    """

    net: GlimpseNet = field(kw_only=True)

    def __init__(self, net: GlimpseNet, *about: Any, **named: Any) -> None:
        super().__init__(*about, **named)
        object.__setattr__(self, "net", net)

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
            sha256 = sha256_of(weights_file)
            write_reference(path, model.reference)
            for name in ONNX_FILES:  # of earlier weights
                (path / name).unlink(missing_ok=True)
            _write_card(card_file, card_of(model, sha256))
    except (OSError, SafetensorError) as error:
        raise CheckpointError(f"{path}: the model can't be written: {error}") from error
    return replace(model, sha256=sha256, onnx=None, path=str(path))


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
    card = card_json(Path(path))
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
    _replace_card(Path(path), card_json(Path(path)) | {"temperature": temperature, "conformal": sets})


def set_reference(path: str | Path, reference: Reference) -> None:
    """Write what the training images look like from afar into a model directory; nothing else changes.

    Raises:
        NotFoundError: If there is no such directory.
        CheckpointError: If it isn't a hiresattn model, or can't be written.
    """
    path = Path(path)
    card = card_json(path)
    try:
        facts = write_reference(path, reference)
    except OSError as error:
        raise CheckpointError(f"{path / REFERENCE}: can't be written: {error}") from error
    _replace_card(path, card | {"reference": facts})


def set_onnx(path: str | Path, facts: Mapping[str, Any]) -> None:
    """Name the network for ONNX Runtime in the card of a model directory; nothing else changes.

    Raises:
        NotFoundError: If there is no such directory.
        CheckpointError: If it isn't a hiresattn model, or the card can't be written.
    """
    _replace_card(Path(path), card_json(Path(path)) | {"onnx": dict(facts)})


def load_model(path: str | Path) -> Model:
    """Load a model directory, or one from the Hugging Face hub (``hf:owner/name``).

    Args:
        path: The directory, the hub name, or a STAC item (``.json``, MLM) whose weights lie in a directory here.

    Returns:
        The model, on the CPU, in evaluation mode.

    Raises:
        NotFoundError: If there is no such directory.
        CheckpointError: If it isn't a hiresattn model, is damaged, or was made by a newer version.

    Examples:
        >>> hiresattn.load_model("model").classes
    """
    card = read_card(path, reference=True)
    path = local_files(path, WEIGHTS)
    file = path / WEIGHTS
    if not file.is_file():
        raise CheckpointError(f"{path}: the card names {WEIGHTS}, which is missing; copy the whole directory")
    if sha256_of(file) != card.sha256:
        raise CheckpointError(
            f"{file}: not the weights that the card names (sha256 differs); copy the model directory anew"
        )
    try:
        with parameters_in_proportion(_values_in(file), card.config.encoder_args):
            net = build_model(card.config)
    except (HiresattnError, RuntimeError, MemoryError, *UNUSABLE) as error:
        raise CheckpointError(f"{path / CARD}: the model can't be built: {error}") from error
    try:
        net.load_state_dict(load_file(file))
    except (SafetensorError, RuntimeError) as error:
        raise CheckpointError(
            f"{file}: the weights don't fit the card; train it anew ({misfit(error)})"
        ) from error
    width = int(net.encoder.feature_width)  # type: ignore[arg-type]
    width = width if "features" in card.training else width + 2 * len(card.config.input.bands)
    if card.reference is not None and card.reference.mean.shape != (width,):
        raise CheckpointError(
            f"{path / REFERENCE}: the training images' features can't be used (they are of another width than "
            f"{width}); copy the model directory anew"
        )
    return Model(net.eval(), **vars(card))


def _values_in(file: Path) -> int:
    """How many values a safetensors file holds."""
    try:
        with safe_open(file, "pt") as weights:
            names = weights.keys()
            return sum(math.prod(weights.get_slice(name).get_shape()) for name in names)
    except SafetensorError as error:
        raise CheckpointError(
            f"{file}: the weights can't be read: {error}; copy the model directory anew"
        ) from error


def _write_card(file: Path, card: Mapping[str, Any]) -> None:
    file.write_text(json.dumps(card, indent=2) + "\n", encoding="utf-8")


def _replace_card(path: Path, card: Mapping[str, Any]) -> None:
    try:
        with atomic_write(path / CARD) as file:
            _write_card(file, card)
    except OSError as error:
        raise CheckpointError(f"{path / CARD}: the card can't be written: {error}") from error
