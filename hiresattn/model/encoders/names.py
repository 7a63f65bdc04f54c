"""Names of encoders that aren't built in: timm's, repositories of the hub, folders and files."""

import difflib
import json
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from hiresattn.errors import ConfigError, NotFoundError
from hiresattn.files import read_bounded
from hiresattn.model.encoders.published import PUBLISHED
from hiresattn.model.encoders.spec import EncoderSpec, checked_args, import_timm, spec_of
from hiresattn.model.hub import ENCODER, fetch

#: Prefix of a folder in timm's format.
FOLDER = "local-dir:"
CONFIG = "config.json"
#: Names of weights in a folder, the safest first.
WEIGHTS = ("model.safetensors", "pytorch_model.bin")
_MOST_CONFIG = 16 << 20


def timm_spec(name: str, *, pretrained: bool) -> EncoderSpec:
    """What the name of an encoder that isn't built in stands for. A repository's configuration and weights are fetched.

    Args:
        name: A backbone of timm; ``hf-hub:owner/name``; ``local-dir:FOLDER``; ``FILE.safetensors`` beside a
            ``config.json``; or ``ARCHITECTURE:FILE.safetensors``.
        pretrained: Start a backbone of timm from its published weights; the others always start from theirs.

    Raises:
        ConfigError: If there is no such encoder.
        NotFoundError: If a file or repository isn't there, or can't be reached.
        BackendMissingError: If timm can't be imported.
    """
    kind = name.partition(":")[0].lower().replace("_", "-") + ":"
    rest = name.partition(":")[2]
    if kind in (ENCODER, FOLDER) and not rest.strip():
        what = "owner/name" if kind == ENCODER else "FOLDER"
        raise ConfigError(f"{name} says nothing after the colon; write {kind}{what}")
    if kind == ENCODER:
        return _from_hub(name, rest)
    if kind == FOLDER:
        return _from_folder(name, Path(rest).expanduser())
    if name.lower().endswith(".safetensors"):
        return _from_file(name)
    spec, cfg = _known_to_timm(name)
    if not pretrained:
        return replace(spec, mean=None, std=None, license=None)
    if not cfg.has_weights:
        raise ConfigError(
            f"timm has no published weights of {name!r}; choose another, or leave out pretrained"
        )
    spec = replace(spec, published=True)
    if not cfg.hf_hub_id or cfg.custom_load == "hf":  # on no hub, or in a format that timm converts
        return spec
    file = cfg.hf_hub_filename
    safer = () if file is None else (f"{Path(file).stem.replace('pytorch_', '')}.safetensors", file)
    return replace(spec, weights=_weights(name, cfg.hf_hub_id, safer or WEIGHTS))


def _known_to_timm(name: str) -> tuple[EncoderSpec, Any]:
    """A backbone of timm, with the input of its published weights, and what timm knows of these."""
    timm, architecture = import_timm(name), name.partition(".")[0]
    if not timm.is_model(architecture):
        raise ConfigError(f"no encoder {name!r}{_hint(name)}")
    try:
        cfg = timm.get_pretrained_cfg(name) or timm.models.PretrainedCfg()
    except RuntimeError as error:
        tags = [known.partition(".")[2] for known in timm.list_models(f"{architecture}.*", pretrained=True)]
        raise ConfigError(
            f"{name!r}: timm has no such weights of {architecture}; it has {', '.join(tags) or 'none'}"
        ) from error
    return spec_of(name, architecture, cfg.to_dict()), cfg


def _from_hub(name: str, repository: str) -> EncoderSpec:
    config = fetch(repository, (CONFIG,), asked=name)
    if config is None:
        raise ConfigError(f"{name}: no {CONFIG} in it; an encoder's repository is in timm's format")
    spec = _configured(name, config, PUBLISHED.get(repository.partition("@")[0].lower(), {}))
    return replace(spec, weights=_weights(name, repository, WEIGHTS))


def _weights(name: str, repository: str, files: Sequence[str]) -> Path:
    """The file of weights in a repository of the hub."""
    found = fetch(repository, files, asked=name)
    if found is None:
        raise ConfigError(
            f"{name}: the repository holds none of {', '.join(files)}, so no weights in timm's format"
        )
    return found


def _from_folder(name: str, folder: Path) -> EncoderSpec:
    if not folder.is_dir():
        raise NotFoundError(
            f"{name}: no such folder; give one with {CONFIG} and {WEIGHTS[0]} in timm's format"
        )
    spec = _configured(name, folder / CONFIG, {})
    for file in WEIGHTS:
        if (folder / file).is_file():
            return replace(spec, weights=folder / file)
    raise NotFoundError(f"{name}: the folder holds none of {', '.join(WEIGHTS)}")


def _from_file(name: str) -> EncoderSpec:
    """A file of weights: of a named architecture, or with a configuration beside it."""
    architecture, _, rest = name.partition(":")
    named = bool(rest) and import_timm(name).is_model(architecture.partition(".")[0])
    file = Path(rest if named else name).expanduser()
    if not file.is_file():
        if rest and not named and Path(rest).expanduser().is_file():
            raise ConfigError(f"{name}: timm has no architecture {architecture!r}{_similar(architecture)}")
        raise NotFoundError(f"{name}: no such file {file}" if named else f"{name}: no such file")
    if named:
        spec, _ = _known_to_timm(architecture)
        return replace(spec, name=name, weights=file, license=None)
    if not (file.parent / CONFIG).is_file():
        raise ConfigError(
            f"{name}: nothing says which architecture these weights are of; put timm's {CONFIG} beside the file, or "
            f"name it, such as vit_small_patch16_224:{file}"
        )
    return replace(_configured(name, file.parent / CONFIG, {}), weights=file)


def _configured(name: str, file: Path, published: Mapping[str, Any]) -> EncoderSpec:
    """What a configuration in timm's format says, and what its publisher says elsewhere."""
    try:
        config = json.loads(read_bounded(file, _MOST_CONFIG))
    except FileNotFoundError as error:
        raise NotFoundError(f"{name}: no {CONFIG} there, which names the architecture") from error
    except (OSError, ValueError, RecursionError) as error:
        raise ConfigError(f"{name}: its {CONFIG} isn't readable as JSON ({error})") from error
    architecture = config.get("architecture") if isinstance(config, dict) else None
    timm = import_timm(name)
    if not isinstance(architecture, str) or not timm.is_model(architecture.partition(".")[0]):
        which = f"{architecture!r}, which timm {timm.__version__} hasn't" if architecture else "none"
        raise ConfigError(
            f"{name}: the architecture that its {CONFIG} names is {which}; give an encoder in timm's format"
        )
    about = config.get("pretrained_cfg", config)
    if not isinstance(about, dict):
        raise ConfigError(f"{name}: pretrained_cfg in its {CONFIG} isn't names and values")
    args = checked_args(config.get("model_args") or {}, f"{name}: {CONFIG}")
    about = {**about, **published.get("pretrained_cfg", {})}
    return spec_of(name, architecture.partition(".")[0], about, {**args, **published.get("model_args", {})})


def _hint(name: str) -> str:
    """End of a message about a name that timm doesn't know."""
    if Path(name).expanduser().is_dir():
        return f"; to take a folder in timm's format, write {FOLDER}{name}"
    if "/" in name or "\\" in name or ":" in name:
        return f"; write {ENCODER}owner/name for one on the hub, {FOLDER}FOLDER for a folder, or name a .safetensors"
    if name.lower().endswith((".pth", ".pt", ".bin", ".ckpt")):
        return (
            f"; a single file of weights has to be a .safetensors; or give {FOLDER}FOLDER, in timm's format"
        )
    return f"{_similar(name)}; for one of your own call hiresattn.register_encoder({name!r}, build) first"


def _similar(name: str) -> str:
    """Part of a message: the names of timm's that are nearest to one that it doesn't know."""
    near = difflib.get_close_matches(name.partition(".")[0], import_timm(name).list_models(), n=5)
    return f"; similar names: {', '.join(near)}" if near else ""
