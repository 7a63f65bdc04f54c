"""Initialisation of fresh weights, where the paper's differs from each library's own."""

from collections.abc import Callable

import torch
from torch import nn

#: Standard deviation of a unit normal cut at two standard deviations.
_CUT = 0.8796256610342398


def glorot(module: nn.Conv2d | nn.Linear) -> None:
    """Truncated normal of variance 2 / (fan in + fan out)."""
    fan_in, fan_out = _fans(module)
    _truncated(module.weight, (2 / (fan_in + fan_out)) ** 0.5)


def fan_out(module: nn.Conv2d | nn.Linear) -> None:
    """Convolutions: truncated normal of variance 2 / fan out; linear layers: uniform within 1 / sqrt(fan out)."""
    _, out = _fans(module)
    if isinstance(module, nn.Linear):
        nn.init.uniform_(module.weight, -(out**-0.5), out**-0.5)
    else:
        _truncated(module.weight, (2 / out) ** 0.5)


INITS: dict[str, Callable[[nn.Conv2d | nn.Linear], None] | None] = {
    "torch": None,
    "glorot": glorot,
    "fan-out": fan_out,
}


def initialise(net: nn.Module, name: str) -> None:
    """Initialise the weights of every convolution and linear layer by one of ``INITS``; biases become 0.

    Source:
        TNet, the official configurations: ImageNet ``glorot``; fMoW and birds ``fan-out``.
    """
    draw = INITS[name]
    if draw is None:
        return
    for module in net.modules():
        if isinstance(module, nn.Conv2d | nn.Linear):
            draw(module)
            if module.bias is not None:
                nn.init.zeros_(module.bias)


def _fans(module: nn.Conv2d | nn.Linear) -> tuple[int, int]:
    shape = module.weight.shape
    field = int(shape[2:].numel())
    groups = module.groups if isinstance(module, nn.Conv2d) else 1
    return shape[1] * field, shape[0] * field // groups


def _truncated(weight: torch.Tensor, std: float) -> None:
    wide = std / _CUT
    nn.init.trunc_normal_(weight, std=wide, a=-2 * wide, b=2 * wide)
