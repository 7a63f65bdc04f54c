"""A model's card as a STAC item of the Machine Learning Model extension (MLM)."""

import json
import os
import re
from pathlib import Path
from typing import TYPE_CHECKING, Any

from hiresattn.card import CARD, WEIGHTS
from hiresattn.config import InputConfig
from hiresattn.errors import ConfigError, WriteError
from hiresattn.files import atomic_write

if TYPE_CHECKING:
    from hiresattn.checkpoint import Model

_MLM = "https://stac-extensions.github.io/mlm/v1.5.2/schema.json"
_RASTER = "https://stac-extensions.github.io/raster/v2.0.0/schema.json"
_FILE = "https://stac-extensions.github.io/file/v2.1.0/schema.json"
#: What a checksum begins with where it is SHA-256: multihash's code and length.
_SHA256 = "1220"
_EVERYWHERE = (-180.0, -90.0, 180.0, 90.0)


def mlm_item(path: str | os.PathLike[str], folder: str | os.PathLike[str] | None = None) -> dict[str, Any]:
    """A model directory as a STAC item of MLM 1.5: what it takes, what it answers, where its weights are.

    The item's place and time are all of the Earth and any: a card doesn't say where training images lie. Values are
    scaled as the card says, band by band (``z-score``: to -1 to 1). Settings of the network are hyperparameters.

    Args:
        path: A model directory.
        folder: Where the item will lie; the addresses of its assets are relative to that. None = they are absolute.

    Returns:
        JSON types.

    Raises:
        NotFoundError: If there is no such directory.
        CheckpointError: If it is no model.

    Examples:
        >>> json.dumps(hiresattn.geo.mlm_item("model"))
    """
    from hiresattn.checkpoint import load_model

    path = Path(path)
    model = load_model(path)
    west, south, east, north = _EVERYWHERE
    properties = _properties(model)
    ring = [[west, south], [east, south], [east, north], [west, north], [west, south]]
    return {
        "type": "Feature",
        "stac_version": "1.1.0",
        "stac_extensions": [_MLM, _FILE, *([_RASTER] if model.config.input.scales else [])],
        "id": identifier(f"{model.name}-{model.sha256[:12]}"),
        "geometry": {"type": "Polygon", "coordinates": [ring]},
        "bbox": list(_EVERYWHERE),
        "properties": properties,
        "links": [],
        "assets": {
            "weights": {
                "href": _address(path / WEIGHTS, folder),
                "type": "application/octet-stream; framework=pytorch",
                "roles": ["mlm:model", "mlm:weights"],
                "mlm:artifact_type": "safetensors.torch.save_file",
                "bands": properties["bands"],  # STAC wants bands at an asset, MLM at the item
                "file:size": (path / WEIGHTS).stat().st_size,
                "file:checksum": _SHA256 + model.sha256,
            },
            "card": {
                "href": _address(path / CARD, folder),
                "type": "application/json",
                "roles": ["metadata", "mlm:model-card"],
                "title": "How the model is built, and what it was trained on",
            },
        },
    }


def write_mlm_item(
    path: str | os.PathLike[str], output: str | os.PathLike[str], *, overwrite: bool = False
) -> None:
    """Write a model directory's item to a file; see ``mlm_item``. ``load_model`` takes that file, too.

    Args:
        path: A model directory.
        output: The file, ``.json``; the addresses of the assets are relative to it.
        overwrite: Replace what is there.

    Raises:
        ConfigError: If the file is there, or is called otherwise.
        HiresattnError: As ``mlm_item``.
        WriteError: If it can't be written.
    """
    file = Path(output)
    if file.suffix != ".json":
        raise ConfigError(f"{file}: an item is a .json file; give another name")
    if file.exists() and not overwrite:
        raise ConfigError(f"{file}: is there already; overwrite replaces it, or give another file")
    item = mlm_item(path, file.parent)
    try:
        with atomic_write(file) as part:
            part.write_text(json.dumps(item, indent=2, allow_nan=False) + "\n", encoding="utf-8")
    except OSError as error:
        raise WriteError(
            f"{file}: can't be written ({error.strerror}); check its folder and the disk"
        ) from error


def _properties(model: "Model") -> dict[str, Any]:
    import torch

    rule, config = model.config.input, model.config
    names = list(rule.band_names or model.domain.channel_names or (f"B{band + 1}" for band in rule.bands))
    scaling = [
        {"type": "z-score", "mean": (low + high) / 2, "stddev": (high - low) / 2}
        for low, high in zip(rule.low, rule.high, strict=True)
    ]
    stored = config.to_json()
    stored.pop("classes", None)
    classes = [
        {"value": number, "name": identifier(name), "title": name, "description": name}
        for number, name in enumerate(model.classes)
    ]
    task = "scene-classification"
    return {
        "datetime": None,
        "start_datetime": "1900-01-01T00:00:00Z",
        "end_datetime": "9999-12-31T23:59:59Z",
        "bands": [{"name": name} | measure for name, measure in zip(names, _measures(rule), strict=True)],
        "title": model.name,
        "mlm:name": _mlm_name(model.name),
        "mlm:architecture": "hiresattn",
        "mlm:tasks": [task],
        "mlm:framework": "PyTorch",
        "mlm:framework_version": _version(torch.__version__),
        "mlm:total_parameters": sum(parameter.numel() for parameter in model.net.parameters()),
        "mlm:batch_size_suggestion": 1,
        "mlm:hyperparameters": stored | {"top_k": list(model.k)},
        "mlm:input": [
            {
                "name": "crops of a pyramid",
                "bands": names,
                "input": {
                    "shape": [-1, len(names), rule.size, rule.size],
                    "dim_order": ["batch", "bands", "height", "width"],
                    "data_type": "float32",
                },
                "value_scaling": scaling,
                "resize_type": None,
            }
        ],
        "mlm:output": [
            {
                "name": "labels" if config.multi_label else "class",
                "tasks": [task],
                "result": {
                    "shape": [-1, len(model.classes)],
                    "dim_order": ["batch", "class"],
                    "data_type": "float32",
                },
                "classification:classes": classes,
            }
        ],
    }


def _measures(rule: InputConfig) -> list[dict[str, float]]:
    """What the stored values of each band measure, as the raster extension says it; empty = it isn't known."""
    if rule.scales is None or rule.offsets is None:
        return [{} for _ in rule.bands]
    pairs = zip(rule.scales, rule.offsets, strict=True)
    return [{"raster:scale": scale, "raster:offset": offset} for scale, offset in pairs]


def _address(file: Path, folder: str | os.PathLike[str] | None) -> str:
    if folder is None:
        return str(file.absolute())
    return Path(os.path.relpath(file, folder)).as_posix()


def _mlm_name(name: str) -> str:
    """A name as MLM has them: three or more letters, digits, ``_``, ``-``, ``.`` and spaces, the first a letter."""
    found = re.sub(r"[^0-9A-Za-z_. -]+", "-", name).strip("-_. ")
    return found if re.fullmatch(r"[A-Za-z].+[0-9A-Za-z]", found) else f"model-{found or 'unnamed'}"


def _version(text: str) -> str:
    """The three numbers that a version begins with."""
    numbers = re.match(r"\d+\.\d+\.\d+", text)
    return numbers[0] if numbers else "0.0.0"


def identifier(name: str) -> str:
    """A name of letters, digits, ``-`` and ``_``, as classes of items have."""
    return re.sub(r"[^0-9A-Za-z_-]+", "-", name).strip("-") or "unnamed"
