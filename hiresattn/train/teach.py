"""What training knows of the regions that a forward pass looks at: told to the scorer's own losses."""

import numpy as np
import torch
from torch import Tensor

from hiresattn.geometry import expandable
from hiresattn.model.net import GlimpseNet
from hiresattn.model.scorers import Target, Teach
from hiresattn.train.data import Batch
from hiresattn.train.guide import holds_centre


def teacher(
    net: GlimpseNet,
    batch: Batch,
    by_depth: tuple[float, ...],
    *,
    progress: float,
    class_weights: Tensor | None = None,
) -> Teach:
    """Says what is known of regions of a batch.

    A region inherits its image's label; what that counts falls with depth, for the region may not hold what it
    names. Where boxes are known and a region below depth 0 holds the centre of none, it counts nothing. With a
    background class, that needs boxes below depth 0, unless the whole image is background.

    Args:
        net: What looks.
        batch: The images, as the network sees them.
        by_depth: What a region's label counts, by depth; the last repeats.
        progress: Share of the training done.
        class_weights: What each class counts; None = all alike. Not used where images have several labels.

    Returns:
        For ``GlimpseNet.forward``.
    """
    of_image = torch.from_numpy(batch.labels).to(net.device)

    def teach(image: np.ndarray, depth: np.ndarray, regions: np.ndarray) -> Target:
        labels = of_image[torch.from_numpy(image).to(net.device)]
        counts = np.take(np.array(by_depth, np.float32), np.minimum(depth, len(by_depth) - 1))
        for row in np.flatnonzero(depth > 0).tolist():
            boxes = batch.boxes[image[row]]
            if boxes is not None and len(boxes):
                counts[row] *= holds_centre(regions[row : row + 1], boxes)[0]
            elif net.background is not None and batch.labels[image[row]] != net.background:
                counts[row] = 0
        weight = torch.from_numpy(counts).to(net.device)
        if class_weights is not None and labels.ndim == 1:
            weight = weight * class_weights.to(net.device)[labels]
        divided = torch.from_numpy(expandable(regions, net.finest)).to(net.device)
        return Target(labels, weight, divided, progress)

    return teach
