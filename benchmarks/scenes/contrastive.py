"""An encoder that was told nothing: trained to tell unlabelled crops apart (SimCLR, Chen et al. 2020).

Two views of a crop, turned, shifted, and changed in brightness and colour, shall have vectors closer to one another
than to those of all other crops of the batch.
"""

from collections.abc import Callable

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional

#: Similarities are divided by it before the softmax.
TEMPERATURE = 0.2
#: Width of the vectors that are compared; the projection to it is not kept.
PROJECTED = 64
#: Crops whose two views are compared with one another.
BATCH = 192


def views(crops: Tensor, draw: torch.Generator) -> Tensor:
    """Crops ``[n c s s]``, float32, -1 to 1, as their like might look elsewhere."""
    count, side = len(crops), crops.shape[-1]
    found = torch.empty_like(crops)
    for at, crop in enumerate(crops):
        turns, flipped, down, right = torch.randint(0, 1 << 16, (4,), generator=draw).tolist()
        turned = torch.rot90(crop.flip(2) if flipped % 2 else crop, turns % 4, (1, 2))
        reach = side // 4
        found[at] = torch.roll(turned, (down % (2 * reach) - reach, right % (2 * reach) - reach), (1, 2))
    gain = 1 + 0.4 * (torch.rand((count, 1, 1, 1), generator=draw) - 0.5)
    tint = 0.3 * (torch.rand((count, 3, 1, 1), generator=draw) - 0.5)
    return found * gain + tint


def contrast(vectors: Tensor) -> Tensor:
    """Mean loss of ``[2n d]`` vectors, of which i and n + i belong together (normalised temperature-scaled)."""
    unit = functional.normalize(vectors, dim=1)
    alike = (unit @ unit.T / TEMPERATURE).fill_diagonal_(-torch.inf)
    half = len(vectors) // 2
    partner = torch.cat([torch.arange(half, 2 * half), torch.arange(half)])
    return functional.cross_entropy(alike, partner)


def train_contrastive(
    encoder: nn.Module,
    crops: np.ndarray,
    *,
    epochs: int,
    seed: int = 0,
    on_epoch: Callable[[int, float], None] = lambda _epoch, _loss: None,
) -> None:
    """Train an encoder in place.

    Args:
        encoder: Takes ``[n c s s]``; its output has ``features`` ``[n d]`` and it has ``feature_width``.
        crops: Unlabelled crops, float32 ``[n c s s]``, -1 to 1.
        epochs: How often each is seen.
        seed: Of the order and the views.
        on_epoch: Called with the number of an epoch that is done, and its mean loss.
    """
    draw = torch.Generator().manual_seed(seed)
    head = nn.Sequential(
        nn.Linear(encoder.feature_width, encoder.feature_width),  # type: ignore[arg-type]
        nn.ReLU(),
        nn.Linear(encoder.feature_width, PROJECTED),  # type: ignore[arg-type]
    )
    parameters = [*encoder.parameters(), *head.parameters()]
    optimiser = torch.optim.AdamW(parameters, lr=2e-3, weight_decay=1e-4)
    steps = len(crops) // BATCH * epochs
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimiser, 2e-3, total_steps=max(steps, 1))
    encoder.train()
    for epoch in range(epochs):
        order = torch.randperm(len(crops), generator=draw).numpy()
        losses = []
        for first in range(0, len(crops) - BATCH + 1, BATCH):
            batch = torch.from_numpy(crops[order[first : first + BATCH]])
            both = torch.cat([views(batch, draw), views(batch, draw)])
            loss = contrast(head(encoder(both).features))
            optimiser.zero_grad()
            loss.backward()
            optimiser.step()
            schedule.step()
            losses.append(loss.item())
        on_epoch(epoch + 1, float(np.mean(losses)))
    encoder.eval()
