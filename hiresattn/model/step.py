"""The network of one step of a search, as a function of tensors alone: what other engines than torch are given."""

import torch
from torch import Tensor, nn
from torch.nn import functional

from hiresattn.model.net import GlimpseNet

#: Names of the inputs, in order; the last one only where the network has a positional encoding.
INPUTS = ("pixels", "coverage", "fraction", "position")
#: Names of the outputs, as ``inference.engine.Outputs`` has them; the last two only where the scorer gives them.
OUTPUTS = (
    "features",
    "cell_logits",
    "value",
    "class_logits",
    "weight_logits",
    "class_log_prob",
    "appearance",
)


class Step(nn.Module):
    """Encode and score crops, and say what each is on its own.

    Args:
        net: The network, in evaluation mode.
        encoder: The one to encode with: the network's own, or its coarse one.
    """

    def __init__(self, net: GlimpseNet, encoder: nn.Module) -> None:
        super().__init__()
        self.net = net
        self.encoder = encoder

    def forward(
        self, pixels: Tensor, coverage: Tensor, fraction: Tensor, position: Tensor | None = None
    ) -> dict[str, Tensor]:
        """Outputs by name, those that the network has.

        Args:
            pixels: Crops ``[n c s s]``.
            coverage: Share of each crop px that was measured ``[n s s]``.
            fraction: Side of a cell over the side of its region ``[n]``.
            position: As the positional encoding takes it ``[n 3]``.
        """
        net = self.net
        features, logits, value, scored = net.scored(self.encoder(pixels), coverage, fraction, position)
        return outputs_of(net, features, logits, value, scored.class_log_prob, scored.appearance)


def outputs_of(
    net: GlimpseNet,
    features: Tensor,
    logits: Tensor,
    value: Tensor,
    class_log_prob: Tensor | None,
    appearance: Tensor | None,
) -> dict[str, Tensor]:
    """What a step gives, by the names of ``OUTPUTS``."""
    found = {
        "features": features,
        "cell_logits": logits,
        "value": value,
        "class_logits": net.classifier(features),
        "weight_logits": net.aggregator.weight_logits(features),  # type: ignore[operator]
    }
    if class_log_prob is not None:
        found["class_log_prob"] = class_log_prob
    if appearance is not None:
        found["appearance"] = functional.normalize(appearance.flatten(2), dim=1).transpose(1, 2)
    return {name: value.float() for name, value in found.items()}


@torch.inference_mode()
def step(net: GlimpseNet, encoder: nn.Module, inputs: dict[str, Tensor]) -> dict[str, Tensor]:
    """The outputs of one step."""
    found: dict[str, Tensor] = Step(net, encoder)(**inputs)
    return found
