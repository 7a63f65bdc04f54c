"""The engine that runs a network with torch."""

from typing import Any

import numpy as np
import torch
from torch.nn import functional

from hiresattn.inference.engine import NetFacts, Outputs
from hiresattn.model.aggregators import MeanPooling
from hiresattn.model.net import GlimpseNet
from hiresattn.reading.fetch import Crops


class TorchEngine:
    """Runs a ``GlimpseNet``, on the device where its weights are.

    Args:
        net: In evaluation mode; its weights must not change while a search runs.
    """

    def __init__(self, net: GlimpseNet) -> None:
        self.net = net
        self.facts = NetFacts(
            grid=net.grid,
            finest=net.finest,
            gate=net.scorer.gate,
            background=net.background,
            prior_weight=0.0 if net.prior_weight is None else float(net.prior_weight.detach()),
            multi_label=net.multi_label,
            head=net.head,
            pool_finest=net.pool_finest,
            aggregator="mean" if isinstance(net.aggregator, MeanPooling) else "attention",
        )

    @torch.inference_mode()
    def look(
        self,
        pixels: np.ndarray,
        coverage: np.ndarray,
        regions: np.ndarray,
        frames: np.ndarray,
        paths: np.ndarray,
        *,
        appearance: bool = False,
    ) -> Outputs:
        """Encode and score crops; see ``Engine.look``."""
        net = self.net
        found = net.glimpse(Crops(pixels, coverage), regions, frames, paths)
        aggregator: Any = net.aggregator
        cell_features = found.scored.appearance if appearance else None
        own = found.scored.class_log_prob
        return Outputs(
            features=found.features.cpu().numpy(),
            cell_logits=found.cell_logits.cpu().numpy(),
            value=found.value.cpu().numpy(),
            class_logits=net.classifier(found.features).cpu().numpy(),
            weight_logits=aggregator.weight_logits(found.features).cpu().numpy(),
            class_log_prob=None if own is None else own.cpu().numpy(),
            appearance=None
            if cell_features is None
            else functional.normalize(cell_features.flatten(2), dim=1).transpose(1, 2).cpu().numpy(),
        )
