"""What every encoder returns, and the adapter for modules that were not written for this library."""

from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from hiresattn.errors import ConfigError
from hiresattn.shapes import Float


class Encoded(NamedTuple):
    """An encoder's output for ``n`` crops."""

    stages: tuple[Tensor, ...]
    """Feature maps, fine to coarse, each ``[n c_s h_s w_s]``."""
    features: Float[Tensor, "n d"]
    """One vector per crop."""


class OwnEncoder(nn.Module):
    """Adapter: any module that returns feature maps, as an encoder.

    Args:
        name: The name that the module was registered under; for error messages.
        body: Crops ``[n c s s]`` → one map ``[n d h w]``, a list or tuple of maps (fine to coarse), or ``Encoded``.
            Without ``Encoded`` a crop's vector is the spatial mean of the last map.
        channels: Bands of a crop.
        size: Side of a crop, px. One empty crop of this size is encoded to learn the widths of the maps.

    Raises:
        ConfigError: If the module can't take such a crop, or returns something else.
    """

    def __init__(self, name: str, body: nn.Module, *, channels: int, size: int) -> None:
        super().__init__()
        self.name = name
        self.body = body
        training = body.training
        try:
            with torch.no_grad():
                encoded = self.eval()(torch.zeros((1, channels, size, size)))
        except (RuntimeError, ValueError, TypeError, IndexError) as error:
            raise ConfigError(
                f"the encoder {name!r} can't take crops [n {channels} {size} {size}]: {str(error).splitlines()[0]}"
            ) from error
        self.train(training)
        self.stage_channels = tuple(stage.shape[1] for stage in encoded.stages)
        self.feature_width = int(encoded.features.shape[1])

    def forward(self, crops: Float[Tensor, "n c s s"]) -> Encoded:
        """Encode crops."""
        output: Any = self.body(crops)
        if isinstance(output, Encoded):
            return output
        stages = (output,) if isinstance(output, Tensor) else output
        if (
            not isinstance(stages, (list, tuple))
            or not stages
            or any(not isinstance(stage, Tensor) or stage.ndim != 4 for stage in stages)
        ):
            raise ConfigError(
                f"the encoder {self.name!r} returned {_described(output)}; it must return one feature map "
                "[n d h w], a list of them from fine to coarse, or hiresattn.model.encoders.Encoded"
            )
        return Encoded(tuple(stages), stages[-1].mean((2, 3)))


def _described(output: Any) -> str:
    if isinstance(output, Tensor):
        return f"a tensor {list(output.shape)}"
    if isinstance(output, (list, tuple)):
        return f"a {type(output).__name__} of {', '.join(map(_described, output)) or 'nothing'}"
    return f"a {type(output).__name__}"
