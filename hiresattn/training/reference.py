"""What the training images look like from afar, once a model is trained: others are compared with them."""

from collections.abc import Sequence

import numpy as np
import torch

from hiresattn.inference.domain import band_means, coarse_view
from hiresattn.model.net import GlimpseNet
from hiresattn.model.reference import Reference
from hiresattn.model.select import selector
from hiresattn.model.traversal import Traversal
from hiresattn.reading.fetch import Crops
from hiresattn.shapes import Float
from hiresattn.training.batch import Batch
from hiresattn.training.curriculum import batch_size
from hiresattn.training.data import Loader
from hiresattn.training.options import TrainOptions
from hiresattn.training.samples import Sample

#: Most training images, and most validation images, that are looked at.
MOST = 1000


def measured_reference(
    net: GlimpseNet,
    loader: Loader,
    samples: Sequence[Sample],
    val_samples: Sequence[Sample],
    options: TrainOptions,
) -> Reference | None:
    """The reference of a trained network, from the root regions of its images; its limit by the validation images.

    Each image of a case counts for itself, so that a distance doesn't depend on how many images a case has.

    Args:
        net: As it is saved.
        loader: Reads the images, without augmentation.
        samples: The training cases.
        val_samples: The validation cases.
        options: How it was trained.

    Returns:
        The reference; None where less than two training images have valid px.
    """
    images, others = (
        [image for sample in part for image in sample.images] for part in (samples, val_samples)
    )
    known = _coarse(net, loader, images, options)
    if np.isfinite(known).all(1).sum() < 2:
        return None
    found = Reference.of(known).with_limit(_coarse(net, loader, others, options))
    return found.with_files((image.example.source, image.example.region) for image in images)


def _coarse(
    net: GlimpseNet, loader: Loader, samples: Sequence[Sample], options: TrainOptions
) -> Float[np.ndarray, "n d"]:
    """Coarse features of some images, spread over the list; those that can't be read are left out."""
    some = (
        [samples[i] for i in np.unique(np.linspace(0, len(samples) - 1, MOST).astype(int))] if samples else []
    )
    select = selector(net.scorer.gate)

    def look(batch: Batch) -> np.ndarray:
        seen: dict[int, Crops] = {}

        def fetch(image: np.ndarray, regions: np.ndarray) -> Crops:
            crops: Crops = batch.fetch(image, regions)
            for number in np.unique(image).tolist():
                rows = image == number
                seen.setdefault(number, Crops(crops.pixels[rows], crops.coverage[rows]))
            return crops

        found: Traversal = net(fetch, batch.roots, batch.frames, select=select, k=(0,))
        own = [seen[number] for number in range(len(batch.roots))]
        squares = [band_means(Crops(crops.pixels**2, crops.coverage)) for crops in own]
        return coarse_view(found, found.image, [band_means(crops) for crops in own], squares)

    net.eval()
    rows = []
    size = batch_size(some, options) if some else 1
    with torch.inference_mode():
        for start in range(0, len(some), size):
            found, _ = loader.process(
                some[start : start + size], look, upcoming=some[start + size : start + 2 * size]
            )
            if found is not None:
                rows.append(found)
    return np.concatenate(rows) if rows else np.zeros((0, 0))
