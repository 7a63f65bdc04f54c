"""Feature vectors of crops, outside of a search."""

import numpy as np
import torch
from torch import Tensor, nn

from hiresattn.config import InputConfig
from hiresattn.errors import ConfigError, DomainError, counted, reason
from hiresattn.model.net import GlimpseNet
from hiresattn.shapes import Float32


def embed(
    net: GlimpseNet, crops: np.ndarray, rule: InputConfig, batch_size: int
) -> Float32[np.ndarray, "n d"]:
    """Encode crops in batches, without gradients, in evaluation mode; the mode is restored.

    Args:
        net: The network; its ``encoder`` is used, which encodes the finest regions.
        crops: Scaled values, float32 ``[n c h w]``.
        rule: How the model's input is made.
        batch_size: Crops at once.

    Returns:
        The encoder's vectors, without position, on the CPU.

    Raises:
        ConfigError: If ``batch_size`` is no number of crops.
        DomainError: If the crops' shape, side or data type aren't the model's.
    """
    if isinstance(batch_size, bool) or not isinstance(batch_size, int) or batch_size < 1:
        raise ConfigError(f"batch_size is a number of crops, 1 or more; got {batch_size!r}")
    if crops.dtype != np.float32 or crops.ndim != 4 or crops.shape[1] != len(rule.bands):
        raise DomainError(
            f"embed takes float32 crops [n {len(rule.bands)} height width], or the result of read_crops; got "
            f"{crops.dtype} {list(crops.shape)}"
        )
    modes = [(module, module.training) for module in net.encoder.modules()]
    net.encoder.eval()
    found: list[Tensor] = []
    try:
        with torch.inference_mode():
            for start in range(0, len(crops), batch_size):
                part = np.ascontiguousarray(crops[start : start + batch_size])
                found.append(net.encoder(torch.from_numpy(part).to(net.device)).features.float().cpu())
    except (RuntimeError, ValueError, AssertionError) as error:
        if crops.shape[2:] == (rule.size, rule.size):
            raise
        raise DomainError(
            f"the encoder can't take crops of {crops.shape[2]} x {crops.shape[3]} px ({reason(error)}); it was "
            f"trained with {rule.size} x {rule.size} px"
        ) from error
    finally:
        for module, training in modes:
            module.training = training
    if not found:
        return np.zeros((0, int(net.encoder.feature_width)), np.float32)  # type: ignore[arg-type]
    return torch.cat(found).numpy()


def encode(encoder: nn.Module, crops: np.ndarray) -> Float32[np.ndarray, "n d"]:
    """Vectors of crops by an encoder that is in evaluation mode, on the device where it is.

    Args:
        encoder: Crops → ``Encoded``.
        crops: Scaled values, float32 ``[n c s s]``.
    """
    device = next(encoder.parameters()).device
    with torch.inference_mode():
        found: Tensor = encoder(torch.from_numpy(np.ascontiguousarray(crops)).to(device)).features
        return found.float().cpu().numpy()


def scaled(pixels: np.ndarray, rule: InputConfig) -> Float32[np.ndarray, "n c h w"]:
    """Select the model's bands of stored values ``[n h w c]`` and scale them to -1 to 1; NaN becomes 0.

    Raises:
        DomainError: If the bands or the data type aren't those of the model's images.
    """
    channels = pixels.shape[3]
    if (
        str(pixels.dtype) != rule.dtype
        or max(rule.bands) >= channels
        or rule.channels not in (None, channels)
    ):
        needed = (
            f"{max(rule.bands) + 1} or more bands"
            if rule.channels is None
            else counted(rule.channels, "band")
        )
        raise DomainError(
            f"the model takes images of {needed} of {rule.dtype}; these crops have {channels} of {pixels.dtype}"
        )
    low, high = (np.array(values, np.float64) for values in (rule.low, rule.high))
    values = (pixels[..., list(rule.bands)] - low) * (2 / (high - low)) - 1
    return np.nan_to_num(values, nan=0.0).astype(np.float32).transpose(0, 3, 1, 2)
