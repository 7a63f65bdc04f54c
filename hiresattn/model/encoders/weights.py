"""Weights of encoders, read from files without unpickling anything but tensors."""

import hashlib
import pickle
import re
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file
from torch import Tensor, nn

from hiresattn.errors import CheckpointError, reason

#: Keys under which training scripts keep a model's weights, the averaged ones first.
_WRAPPERS = ("state_dict_ema", "model_ema", "state_dict", "model")


def read_weights(file: Path) -> dict[str, Tensor]:
    """Read the tensors of a safetensors file, or of one of PyTorch's; of that, tensors are all that is unpickled.

    Raises:
        CheckpointError: If it isn't such a file, or holds other things than tensors.
    """
    try:
        found: Any = (
            load_file(file)
            if file.suffix == ".safetensors"
            else torch.load(file, map_location="cpu", weights_only=True)
        )
    except pickle.UnpicklingError as error:
        raise CheckpointError(
            f"{file}: holds more than tensors, which isn't loaded, for it could run code; convert it to safetensors"
        ) from error
    except Exception as error:  # of any type: a damaged pickle or archive
        raise CheckpointError(f"{file}: not readable as weights ({reason(error)}); copy it anew") from error
    for key in _WRAPPERS:
        if isinstance(found, dict) and isinstance(found.get(key), dict):
            found = found[key]
            break
    if not isinstance(found, dict) or not found or not all(isinstance(v, Tensor) for v in found.values()):
        raise CheckpointError(f"{file}: holds no tensors by name, so it isn't the weights of an encoder")
    return {str(key).removeprefix("module."): value for key, value in found.items()}


def misfit(error: Exception) -> str:
    """What of some weights doesn't fit a network, in few words, by what ``load_state_dict`` raised."""
    first = str(error).split("\n\t")[1:2]
    keys = re.findall(r'"([^"]+)"', first[0]) if first else []
    if not keys:
        return " ".join(first[0].split())[:200] if first else reason(error)
    more = f" and {len(keys) - 2} more" if len(keys) > 2 else ""
    lacking = first[0].lstrip().startswith("Missing")
    return f"{'they lack' if lacking else 'they have besides'} {', '.join(keys[:2])}{more}"


def sha256_of(module: nn.Module) -> str:
    """SHA-256 of a module's weights and their names: the identity of features that it computes."""
    digest = hashlib.sha256()
    for name, value in sorted(module.state_dict().items()):
        digest.update(f"{name}|{value.dtype}|{tuple(value.shape)}\n".encode())
        digest.update(value.detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy())
    return digest.hexdigest()
