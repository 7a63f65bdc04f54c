"""Augmentation that is the same at every depth of an image: orientation, brightness and contrast, JPEG, CutMix."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from hiresattn.config import InputConfig
from hiresattn.errors import ConfigError
from hiresattn.reading.fetch import Crops
from hiresattn.training.cutmix import CutMix, draw_cutmix
from hiresattn.training.options import TrainOptions
from hiresattn.training.samples import Sample


@dataclass(frozen=True)
class Orientation:
    """One of the eight orientations of an image: transposed or not, then flipped or not along each axis."""

    transpose: bool = False
    flip_y: bool = False
    flip_x: bool = False

    def frame(self, region: tuple[int, int, int, int]) -> tuple[int, int, int, int]:
        """The oriented rectangle; its first corner stays where it was."""
        y, x, height, width = region
        return (y, x, width, height) if self.transpose else region

    def stored(self, region: Sequence[int], whole: tuple[int, int, int, int]) -> list[int]:
        """The stored image's region that is shown in a region of the oriented image."""
        top, left, full_height, full_width = self.frame(whole)
        y, x, height, width = region[0] - top, region[1] - left, region[2], region[3]
        if self.flip_y:
            y = full_height - y - height
        if self.flip_x:
            x = full_width - x - width
        if self.transpose:
            y, x, height, width = x, y, width, height
        return [top + y, left + x, height, width]

    def oriented(self, regions: np.ndarray, whole: tuple[int, int, int, int]) -> np.ndarray:
        """The oriented image's regions that show regions ``[m 4]`` of the stored image."""
        top, left, full_height, full_width = self.frame(whole)
        out = regions - np.array([top, left, 0, 0])
        if self.transpose:
            out = out[:, [1, 0, 3, 2]]
        if self.flip_y:
            out[:, 0] = full_height - out[:, 0] - out[:, 2]
        if self.flip_x:
            out[:, 1] = full_width - out[:, 1] - out[:, 3]
        return out + np.array([top, left, 0, 0])

    def apply(self, stored: np.ndarray) -> np.ndarray:
        """A stored crop ``[... s s]``, oriented."""
        if self.transpose:
            stored = stored.swapaxes(-1, -2)
        if self.flip_y:
            stored = stored[..., ::-1, :]
        return stored[..., ::-1] if self.flip_x else stored

    def invert(self, crop: np.ndarray) -> np.ndarray:
        """An oriented crop or map ``[... s s]`` as it is stored; the inverse of ``apply``."""
        if self.flip_x:
            crop = crop[..., ::-1]
        if self.flip_y:
            crop = crop[..., ::-1, :]
        return crop.swapaxes(-1, -2) if self.transpose else crop


#: Orientations that ``TrainOptions.augment`` draws from.
ORIENTATIONS: dict[str, tuple[Orientation, ...]] = {
    "none": (Orientation(),),
    "mirror": (Orientation(), Orientation(flip_x=True)),
    "flips": tuple(Orientation(flip_y=y, flip_x=x) for y in (False, True) for x in (False, True)),
    "turns": tuple(Orientation(t, y, x) for t in (False, True) for y in (False, True) for x in (False, True)),
}


#: JPEG qualities and chroma subsamplings that are drawn from.
QUALITIES = (40, 95)
SUBSAMPLINGS = ("444", "420")


def check_jpeg(rule: InputConfig, jpeg: float) -> None:
    """Check that JPEG can store what the model takes.

    Raises:
        ConfigError: Unless the model takes three bands of 8-bit images.
    """
    if jpeg and (rule.dtype != "uint8" or len(rule.bands) != len("RGB")):
        raise ConfigError(
            f"jpeg compresses three bands of uint8; these images give {len(rule.bands)} of {rule.dtype}; leave it out"
        )


class Augmentation(NamedTuple):
    """The augmentation of one image, the same at every depth."""

    orientation: Orientation = Orientation()
    """The network sees the oriented image."""
    jitter: NDArray[np.float32] | None = None
    """Gain and offset of its bands ``[2 c]``, of values of -1 to 1; None = 1 and 0."""
    jpeg: tuple[int, str] | None = None
    """Quality and chroma subsampling of the JPEG compression of its crops; None = none."""
    cutmix: CutMix | None = None
    """Rectangle of another image that is pasted into it, before it is oriented; None = nothing."""
    in_mixed_batch: bool = False
    """Whether something is pasted into any image of the batch, also into those that other processes have."""

    @property
    def changes_values(self) -> bool:
        """Whether ``values`` does anything."""
        return self.jitter is not None or self.jpeg is not None

    def values(self, pixels: np.ndarray, low: np.ndarray, high: np.ndarray) -> np.ndarray:
        """A crop ``[c s s]``, values of -1 to 1, with jitter and compression.

        Args:
            pixels: The crop.
            low: Stored value of -1, per band.
            high: Stored value of +1, per band.

        Returns:
            The changed crop, float32.
        """
        if self.jitter is not None:
            gain, offset = self.jitter[:, :, None, None]
            pixels = pixels * gain + offset
        if self.jpeg is not None:
            import simplejpeg

            quality, subsampling = self.jpeg
            scale, shift = ((high - low) / 2)[:, None, None], ((high + low) / 2)[:, None, None]
            native = (pixels * scale + shift).round().clip(0, 255).astype(np.uint8)
            rows = np.ascontiguousarray(native.transpose(1, 2, 0))
            coded = simplejpeg.encode_jpeg(rows, quality=quality, colorsubsampling=subsampling)
            pixels = (simplejpeg.decode_jpeg(coded).transpose(2, 0, 1) - shift) / scale
        return pixels.astype(np.float32)


def draw_augmentations(
    samples: Sequence[Sample], rule: InputConfig, options: TrainOptions, rng: np.random.Generator
) -> list[Augmentation]:
    """Draw the augmentation of each image of a batch.

    Args:
        samples: The batch.
        rule: How px become the model's input.
        options: ``augment``, ``jitter``, ``jpeg`` and ``cutmix`` count.
        rng: Source of random numbers.
    """
    count = len(samples)
    auto = "none" if rule.foreground is None else "turns"  # tissue has no upright position
    choices = ORIENTATIONS[auto if options.augment == "auto" else options.augment]
    orientations = [choices[i] for i in rng.integers(len(choices), size=count)]
    jitters: list[NDArray[np.float32] | None] = [None] * count
    if options.jitter:
        drawn = rng.uniform(-options.jitter, options.jitter, (count, 2, len(rule.bands))).astype(np.float32)
        drawn[:, 0] = np.exp(drawn[:, 0])
        jitters = list(drawn)
    jpegs: list[tuple[int, str] | None] = [None] * count
    if options.jpeg:
        qualities = rng.integers(QUALITIES[0], QUALITIES[1] + 1, count).tolist()
        halved = rng.integers(len(SUBSAMPLINGS), size=count).tolist()
        jpegs = [
            (quality, SUBSAMPLINGS[which]) if chance < options.jpeg else None
            for quality, which, chance in zip(qualities, halved, rng.random(count), strict=True)
        ]
    mixes = draw_cutmix(samples, options.cutmix, rng)
    mixed = any(mixes)
    return [Augmentation(*each, mixed) for each in zip(orientations, jitters, jpegs, mixes, strict=True)]


def augment_crops(crops: Crops, augmentations: Sequence[Augmentation], config: InputConfig) -> Crops:
    """Crops of stored images, each with its own augmentation; px that were not measured stay 0."""
    low, high = np.array(config.low, np.float32), np.array(config.high, np.float32)
    out = Crops(np.empty_like(crops.pixels), np.empty_like(crops.coverage))
    for row, one in enumerate(augmentations):
        out.pixels[row] = one.orientation.apply(crops.pixels[row])
        out.coverage[row] = one.orientation.apply(crops.coverage[row])
        if one.changes_values:
            out.pixels[row] = np.where(out.coverage[row] > 0, one.values(out.pixels[row], low, high), 0)
    return out
