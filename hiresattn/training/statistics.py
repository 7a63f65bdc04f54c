"""What the training images are like: where a model may be used, and how its values are scaled."""

from collections.abc import Sequence

import numpy as np

from hiresattn.checkpoint import Domain
from hiresattn.errors import ConfigError
from hiresattn.inference.domain import band_means, resolution
from hiresattn.reading.fetch import Crops
from hiresattn.training.data import Batch, Loader
from hiresattn.training.samples import Item

#: Images looked at.
SAMPLE = 64


def domain_of(loader: Loader, items: Sequence[Item]) -> tuple[Domain, np.ndarray]:
    """What the images are like, from first glances at a sample of them.

    Returns:
        The domain, and the mean and standard deviation of each band's px, native values ``[2 bands]``.

    Raises:
        ConfigError: If nothing in the sample was measured.
    """
    sample = [items[i] for i in np.unique(np.linspace(0, len(items) - 1, SAMPLE).astype(int))]
    means, squares, scales, grounds = [], [], [], []
    for item in sample:
        crops, _ = loader.attempt([item], _first_look)
        if crops is None:
            continue
        if crops.coverage.any():
            means.append(band_means(crops))
            squares.append(band_means(Crops(crops.pixels**2, crops.coverage)))
        pyramid = loader.source(item.example.source)[0]
        scales.append(item.example.mpp or pyramid.mpp)
        grounds.append(resolution(pyramid))
    if not means:
        raise ConfigError("none of the training images has a valid pixel at first glance")
    low, high = np.array(loader.config.low), np.array(loader.config.high)
    native = (np.array(means) + 1) / 2 * (high - low) + low
    spread = np.sqrt(np.maximum(np.mean(squares, 0) - np.mean(means, 0) ** 2, 0)) / 2 * (high - low)
    domain = Domain(
        mpp=_span(scales),
        resolution=_span(grounds),
        low=tuple(native.min(0).tolist()),
        high=tuple(native.max(0).tolist()),
    )
    return domain, np.stack([native.mean(0), spread])


def _first_look(batch: Batch) -> Crops:
    """The regions of the first look at a batch of one image."""
    crops: Crops = batch.fetch(np.zeros(len(batch.roots[0]), np.int64), batch.roots[0])
    return crops


def _span(values: Sequence[float | None]) -> tuple[float, float] | None:
    known = [v for v in values if v is not None]
    return (min(known), max(known)) if known else None
