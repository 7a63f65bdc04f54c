"""Where an image leaves what a model was trained on: scale, value range, size."""

from collections.abc import Iterator, Sequence

import numpy as np

from hiresattn.card import Domain
from hiresattn.config import InputConfig
from hiresattn.model.traversal import Traversal
from hiresattn.pyramid import Pyramid
from hiresattn.pyramid.mpp import scale_words
from hiresattn.reading.bands import taken_scaling
from hiresattn.reading.fetch import Crops
from hiresattn.shapes import Float, Int64

#: An image's scale may differ from the training images' by this factor before a warning.
SCALE_SLACK = 1.25
#: Half of the narrowest span of band means that is trusted, as a share of the model's value range.
VALUE_SLACK = 0.25


def band_means(crops: Crops) -> np.ndarray:
    """Mean of each band over what was measured, scaled values; NaN where nothing was."""
    weight = crops.coverage.sum()
    if weight == 0:
        return np.full(crops.pixels.shape[1], np.nan)
    return (crops.pixels * crops.coverage[:, None]).sum((0, 2, 3)) / weight


def coarse_view(
    traversal: Traversal,
    image: Int64[np.ndarray, " N"],
    means: Sequence[np.ndarray],
    squares: Sequence[np.ndarray],
) -> Float[np.ndarray, "b w"]:
    """What each image looks like from afar: what the network makes of it, and what it may ignore.

    Args:
        traversal: Of the images, or of cases of them.
        image: Which of the ``b`` images each of its regions is of.
        means: Mean of each band over the first crops, per image; see ``band_means``.
        squares: Mean square of each band.

    Returns:
        The mean features of the root regions, then mean and standard deviation of each band.
    """
    mean = np.array(means, np.float64)
    spread = np.sqrt(np.maximum(np.array(squares, np.float64) - mean**2, 0))
    return np.concatenate([coarse_features(traversal, image, len(mean)), mean, spread], axis=1)


def coarse_features(
    traversal: Traversal, image: Int64[np.ndarray, " N"], count: int
) -> Float[np.ndarray, "b d"]:
    """What each of ``count`` images looks like from afar: the mean features of its root regions with valid px.

    NaN where an image has none.
    """
    depth, coverage, features = (
        np.asarray(value.cpu() if hasattr(value, "cpu") else value)
        for value in (traversal.depth, traversal.coverage, traversal.features)
    )
    rows = (depth == 0) & (coverage > 0)
    sums = np.zeros((count, features.shape[1]))
    np.add.at(sums, image[rows], features[rows])
    counts = np.bincount(image[rows], minlength=len(sums))[:, None]
    return np.divide(sums, counts, out=np.full_like(sums, np.nan), where=counts > 0)


def warnings_for(
    pyramid: Pyramid,
    domain: Domain,
    trained: InputConfig,
    config: InputConfig,
    means: np.ndarray,
    side: int,
    mpp: float | None = None,
) -> Iterator[str]:
    """Say where an image leaves a model's domain.

    Args:
        pyramid: The image.
        domain: What the training images were like.
        trained: The model's own rule for values.
        config: The rule used for this image.
        means: Mean of each band over the root regions, scaled (see ``band_means``).
        side: Short side of what is classified, level-0 px.
        mpp: Micrometres per level-0 px, in place of what the image says.

    Yields:
        One sentence per way.
    """
    if side < config.size:
        yield f"the image is {side} px wide or high and a glimpse is {config.size}: it was upsampled"
    at = trained.mpp
    if at is not None and mpp is not None and mpp > at * SCALE_SLACK:
        yield f"the image has {scale_words(mpp)} and the model works at {scale_words(at)}: it was upsampled"
    known = [
        ("µm/px", mpp or pyramid.mpp, domain.mpp),
        ("CRS units per px", resolution(pyramid), domain.resolution),
    ]
    for unit, value, span in known if at is None else ():
        if span is None:
            continue
        if value is None:
            yield f"the image does not say its {unit}; the model was trained at {_span(span)}"
        elif not span[0] / SCALE_SLACK <= value <= span[1] * SCALE_SLACK:
            yield f"the image has {value:.4g} {unit}; the model was trained at {_span(span)}"
    names, before = taken_names(pyramid, config) or (), domain.channel_names or ()
    if any(name in before and before.index(name) != nth for nth, name in enumerate(names)):
        yield (
            f"the bands are {', '.join(names)}; the model was trained on {', '.join(before)}: choose them in "
            "that order with the option bands"
        )
    as_stored = trained.scales is None and (config.low, config.high) == (trained.low, trained.high)
    if as_stored and (scaling := taken_scaling(pyramid, config.bands)):
        yield (
            f"the image's values have scale {_listed(scaling[0])} and offset {_listed(scaling[1])}, and what those of "
            "the training images measure isn't known: stored values were taken"
        )
    if words := _off_values(domain, trained, config, means):
        yield words


def _off_values(domain: Domain, trained: InputConfig, config: InputConfig, means: np.ndarray) -> str:
    """A sentence on bands whose mean is off those of the training images; empty = none is."""
    if domain.low is None or domain.high is None:
        return ""
    taken = config.bands
    if config.scales is not None:
        config = trained  # means are told in stored values as the training images have them
    off: list[str] = []
    darker = brighter = False
    for band, mean in enumerate(means.tolist()):
        least, most = domain.low[band], domain.high[band]
        low, high = (
            2 * (v - trained.low[band]) / (trained.high[band] - trained.low[band]) - 1 for v in (least, most)
        )
        slack = max(0.5 * (high - low), VALUE_SLACK)
        if not low - slack <= mean <= high + slack:
            value = (mean + 1) / 2 * (config.high[band] - config.low[band]) + config.low[band]
            off.append(
                f"band {taken[band] + 1} has a mean of {value:.4g} and theirs {least:.4g} to {most:.4g}"
            )
            darker, brighter = darker or mean < low, brighter or mean > high
    if not off:
        return ""
    how = "of other values than" if darker == brighter else "darker than" if darker else "brighter than"
    return f"the image is {how} the training images: {'; '.join(off)}"


def taken_names(pyramid: Pyramid, config: InputConfig) -> tuple[str, ...] | None:
    """Names of the bands that are fed to a model; None where one has no name."""
    names = pyramid.meta.channel_names
    if names is None or max(config.bands) >= len(names):
        return None
    taken = tuple(names[band] for band in config.bands)
    return taken if all(taken) else None


def resolution(pyramid: Pyramid) -> float | None:
    """Ground size of a level-0 px in units of the CRS; None without one."""
    if pyramid.crs is None or pyramid.transform is None:
        return None
    a, b, _, d, e, _ = pyramid.transform
    return float(abs(a * e - b * d) ** 0.5)


def _listed(values: Sequence[float]) -> str:
    """The values, or one where all are the same."""
    return ", ".join(f"{value:g}" for value in (values if len(set(values)) > 1 else values[:1]))


def _span(span: tuple[float, float]) -> str:
    return f"{span[0]:.4g}" if span[0] == span[1] else f"{span[0]:.4g} to {span[1]:.4g}"
