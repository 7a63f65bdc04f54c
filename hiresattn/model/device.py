"""Where the network runs."""

import re

import numpy as np
import torch
from torch import Tensor

from hiresattn.errors import ConfigError


def pick_device(name: str) -> torch.device:
    """The device of a name; ``auto`` takes CUDA, then MPS, then the CPU.

    Raises:
        ConfigError: If the name is unknown, or there is no such device here.
    """
    if not isinstance(name, str) or not re.fullmatch(r"auto|cpu|mps|cuda(:\d+)?", name):
        raise ConfigError(f"unknown device {name!r}; known are auto, cpu, cuda:N and mps")
    if name == "auto":
        if torch.cuda.is_available():
            return torch.device("cuda")
        return torch.device("mps" if torch.backends.mps.is_available() else "cpu")
    if name == "mps" and not torch.backends.mps.is_available():
        raise ConfigError("device mps: there is none here; use auto or cpu")
    if name.startswith("cuda"):
        count = torch.cuda.device_count() if torch.cuda.is_available() else 0
        if int(name.partition(":")[2] or 0) >= count:
            raise ConfigError(f"device {name}: there are {count} CUDA devices here; use auto or cpu")
    return torch.device(name)


def to_device(array: np.ndarray, device: torch.device) -> Tensor:
    """Copy to a device; asynchronously, from pinned memory, if that is CUDA."""
    tensor = torch.from_numpy(array)
    if device.type == "cuda":
        return tensor.pin_memory().to(device, non_blocking=True)
    return tensor.to(device)
