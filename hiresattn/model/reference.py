"""How far an image is off those that a model was trained on, by what it looks like from afar."""

import hashlib
import math
import os
from collections.abc import Iterable
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
from safetensors import SafetensorError
from safetensors.numpy import load_file, save

from hiresattn.errors import CheckpointError, ConfigError
from hiresattn.files import atomic_write, is_remote
from hiresattn.shapes import Float, Int64

#: File of a model directory.
REFERENCE = "reference.safetensors"
#: Share of validation images that lie within ``Reference.limit``.
WITHIN = 0.99
#: Validation images from which on there is a limit.
LEAST_CASES = 20
#: Distance that says without a limit that an image is not like those trained on: theirs are about 1.
FAR = 10.0
#: Least standard deviation of a feature, as a share of the mean one: one that never varied isn't infinitely telling.
_LEAST_SPREAD = 0.05


@dataclass(frozen=True, eq=False)
class Reference:
    """What the training images look like from afar, and how far from them others may be."""

    mean: Float[np.ndarray, " d"]
    """Mean of the training images' coarse features. Of a model trained on kept features these are of the encoder
    alone; else those of the bands come after them."""
    factor: Float[np.ndarray, "d d"]
    """Turns the difference from it into one with the covariance of the identity."""
    cases: int
    """Training images that it rests on."""
    limit: float | None = None
    """Distance within which ``WITHIN`` of images like the validation images lie; None = they were too few."""
    limit_cases: int = 0
    """Validation images that the limit rests on. Of less than 99 it is the largest distance."""
    trained: Int64[np.ndarray, " m"] = field(default_factory=lambda: np.zeros(0, np.int64))
    """``source_id`` of every image file that was trained on."""

    def distance(self, features: Float[np.ndarray, " w"]) -> float | None:
        """Mahalanobis distance of an image's coarse features, over the root of their number; None = there are none.

        Those that come after the reference's own, of the bands, don't count.

        1 is the distance of a training image from their mean.
        """
        features = features[: len(self.mean)]
        if not np.isfinite(features).all():
            return None
        apart = self.factor @ (features - self.mean)
        return float(np.sqrt(np.mean(apart**2)))

    def with_limit(self, features: Float[np.ndarray, "n d"]) -> "Reference":
        """The same with a limit by the coarse features of validation images, if there are ``LEAST_CASES``."""
        found = sorted(far for row in features if (far := self.distance(row)) is not None)
        if len(found) < LEAST_CASES:
            return replace(self, limit=None, limit_cases=len(found))
        rank = math.ceil((len(found) + 1) * WITHIN - 1e-9)
        return replace(self, limit=found[min(rank, len(found)) - 1], limit_cases=len(found))

    def with_files(self, images: Iterable[tuple[Any, tuple[int, int, int, int] | None]]) -> "Reference":
        """The same that knows these training images, sources and windows of them; see ``source_id``."""
        names = {name for source, region in images if (name := source_id(source, region)) is not None}
        return replace(self, trained=np.array(sorted(names), np.int64))

    @classmethod
    def of(cls, features: Float[np.ndarray, "n d"]) -> "Reference":
        """The reference of training images, from their coarse features.

        Raises:
            ConfigError: If there are less than two.

        Source:
            The covariance of standardised features, shrunk towards a multiple of the identity: Ledoit and Wolf, "A
            well-conditioned estimator for large-dimensional covariance matrices", J. Multivariate Analysis 88, 2004.
        """
        known = features[np.isfinite(features).all(1)]
        count, width = known.shape
        if count < 2:
            raise ConfigError(
                f"{count} training images with valid pixels; a distance to them takes two or more"
            )
        mean, spread = known.mean(0), known.std(0)
        spread = np.maximum(spread, max(_LEAST_SPREAD * float(spread.mean()), 1e-12))
        rows = (known - mean) / spread
        covariance = rows.T @ rows / count
        level = float(np.trace(covariance)) / width
        apart = float(((covariance - level * np.eye(width)) ** 2).sum())
        noise = (float(((rows**2).sum(1) ** 2).sum()) / count - float((covariance**2).sum())) / count
        share = min(noise / apart, 1.0) if apart > 0 else 1.0
        values, vectors = np.linalg.eigh((1 - share) * covariance + share * level * np.eye(width))
        least = max(1e-6 * float(values[-1]), 1e-12)
        factor = (vectors / np.sqrt(np.maximum(values, least))).T / spread
        return cls(mean.astype(np.float32), np.ascontiguousarray(factor, np.float32), count)


def source_id(source: Any, region: tuple[int, int, int, int] | None) -> int | None:
    """A number that tells an image file, or a window of it, from others; None = it isn't known by a path."""
    if not isinstance(source, str | Path):
        return None
    name = str(source) if is_remote(str(source)) else os.path.realpath(source)
    digest = hashlib.sha256(f"{name}|{region}".encode(errors="surrogateescape")).digest()
    return int.from_bytes(digest[:8], "big", signed=True)


def write_reference(path: Path, reference: Reference | None) -> dict[str, Any] | None:
    """Write the reference into a model directory, or remove that of an earlier model.

    Returns:
        What the card has of it, as JSON types.

    Raises:
        OSError: If it can't be written.
    """
    if reference is None:
        (path / REFERENCE).unlink(missing_ok=True)
        return None
    with atomic_write(path / REFERENCE) as file:
        file.write_bytes(_bytes(reference))
    return reference_facts(reference)


def reference_facts(reference: Reference | None) -> dict[str, Any] | None:
    """What the card has of it, as JSON types."""
    if reference is None:
        return None
    facts = {name: getattr(reference, name) for name in ("cases", "limit", "limit_cases")}
    return {"file": REFERENCE, "sha256": hashlib.sha256(_bytes(reference)).hexdigest(), **facts}


def read_reference(path: Path, facts: Any) -> Reference:
    """The reference that a card names.

    Args:
        path: The model directory.
        facts: From the card.

    Raises:
        CheckpointError: If it is missing, damaged or another.
    """
    file = path / REFERENCE
    try:
        arrays = load_file(file)
        limits = (facts["cases"], facts["limit"], facts["limit_cases"])
        known = Reference(arrays["mean"], arrays["factor"], *limits, arrays["trained"])
        if known.factor.shape != (len(known.mean), known.mean.size):
            raise ValueError("its parts don't fit each other")  # noqa: TRY301 - as the rest
        if not isinstance(known.limit, float | None) or reference_facts(known) != facts:
            raise ValueError("not what the card names")  # noqa: TRY301
    except (OSError, SafetensorError, KeyError, TypeError, ValueError) as error:
        raise CheckpointError(
            f"{file}: the training images' features can't be used ({error}); copy the model directory anew"
        ) from error
    return known


def _bytes(reference: Reference) -> bytes:
    return save({name: getattr(reference, name) for name in ("mean", "factor", "trained")})
