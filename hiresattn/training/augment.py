"""Augmentation that is the same at every depth of an image: turns, brightness and contrast, compression."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
from numpy.typing import NDArray

from hiresattn.config import InputConfig
from hiresattn.errors import ConfigError

if TYPE_CHECKING:
    from hiresattn.training.cutmix import Mix


@dataclass(frozen=True)
class Turn:
    """One of the eight ways to lay a picture: transposed or not, then flipped or not along each axis."""

    transpose: bool = False
    flip_y: bool = False
    flip_x: bool = False

    def frame(self, region: tuple[int, int, int, int]) -> tuple[int, int, int, int]:
        """The turned rectangle; its first corner stays where it was."""
        y, x, height, width = region
        return (y, x, width, height) if self.transpose else region

    def stored(self, region: Sequence[int], whole: tuple[int, int, int, int]) -> list[int]:
        """Where a region of the turned picture lies in the stored one."""
        top, left, full_height, full_width = self.frame(whole)
        y, x, height, width = region[0] - top, region[1] - left, region[2], region[3]
        if self.flip_y:
            y = full_height - y - height
        if self.flip_x:
            x = full_width - x - width
        if self.transpose:
            y, x, height, width = x, y, width, height
        return [top + y, left + x, height, width]

    def seen(self, regions: np.ndarray, whole: tuple[int, int, int, int]) -> np.ndarray:
        """Where regions ``[m 4]`` of the stored picture lie in the turned one."""
        top, left, full_height, full_width = self.frame(whole)
        out = regions - np.array([top, left, 0, 0])
        if self.transpose:
            out = out[:, [1, 0, 3, 2]]
        if self.flip_y:
            out[:, 0] = full_height - out[:, 0] - out[:, 2]
        if self.flip_x:
            out[:, 1] = full_width - out[:, 1] - out[:, 3]
        return out + np.array([top, left, 0, 0])

    def crop(self, stored: np.ndarray) -> np.ndarray:
        """A stored crop ``[... s s]`` as it looks in the turned picture."""
        if self.transpose:
            stored = stored.swapaxes(-1, -2)
        if self.flip_y:
            stored = stored[..., ::-1, :]
        return stored[..., ::-1] if self.flip_x else stored

    def undone(self, seen: np.ndarray) -> np.ndarray:
        """A crop or map ``[... s s]`` of the turned picture as it lies in the stored one; undoes ``crop``."""
        if self.flip_x:
            seen = seen[..., ::-1]
        if self.flip_y:
            seen = seen[..., ::-1, :]
        return seen.swapaxes(-1, -2) if self.transpose else seen


#: Turns that training may draw from, by the name of the option.
AUGMENTATIONS: dict[str, tuple[Turn, ...]] = {
    "none": (Turn(),),
    "mirror": (Turn(), Turn(flip_x=True)),
    "flips": tuple(Turn(flip_y=y, flip_x=x) for y in (False, True) for x in (False, True)),
    "turns": tuple(Turn(t, y, x) for t in (False, True) for y in (False, True) for x in (False, True)),
}


#: Qualities of JPEG that are drawn from, and the ways to store its colours: full, or at half the resolution.
QUALITIES = (40, 95)
SUBSAMPLINGS = ("444", "420")


def check_jpeg(rule: InputConfig, jpeg: float) -> None:
    """Refuse compression for what JPEG can't store.

    Raises:
        ConfigError: Unless the model takes three bands of 8-bit images.
    """
    if jpeg and (rule.dtype != "uint8" or len(rule.bands) != len("RGB")):
        raise ConfigError(
            f"jpeg compresses three bands of uint8; these images give {len(rule.bands)} of {rule.dtype}; leave it out"
        )


class Change(NamedTuple):
    """How one image is changed, at every depth."""

    turn: Turn = Turn()
    """How it is laid; the network sees the turned image."""
    tint: NDArray[np.float32] | None = None
    """Gain and offset of its bands ``[2 c]``, of values of -1 to 1; None = 1 and 0."""
    jpeg: tuple[int, str] | None = None
    """Quality and colour subsampling of the compression that its crops pass; None = none."""
    mix: "Mix | None" = None
    """What of another image is pasted into it, before it is turned; None = nothing."""

    def colour(self, pixels: np.ndarray, low: np.ndarray, high: np.ndarray) -> np.ndarray:
        """A crop ``[c s s]``, values of -1 to 1, tinted and compressed.

        Args:
            pixels: The crop.
            low: Native value of -1, per band.
            high: Native value of +1, per band.

        Returns:
            The changed crop, float32.
        """
        if self.tint is not None:
            gain, offset = self.tint[:, :, None, None]
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


def changes_of(
    count: int,
    bands: int,
    rng: np.random.Generator,
    *,
    turns: str = "none",
    jitter: float = 0,
    jpeg: float = 0,
) -> list[Change]:
    """Draw how ``count`` images are changed.

    Args:
        count: Images.
        bands: Bands that the model takes.
        rng: Where chance comes from.
        turns: Which of ``AUGMENTATIONS``.
        jitter: Gains are exp(-jitter) to exp(jitter), offsets -jitter to jitter, per band.
        jpeg: Share of images that are compressed.

    Returns:
        A change per image.
    """
    ways = AUGMENTATIONS[turns]
    laid = [ways[i] for i in rng.integers(len(ways), size=count)]
    tints: list[NDArray[np.float32] | None] = [None] * count
    if jitter:
        drawn = rng.uniform(-jitter, jitter, (count, 2, bands)).astype(np.float32)
        drawn[:, 0] = np.exp(drawn[:, 0])
        tints = list(drawn)
    jpegs: list[tuple[int, str] | None] = [None] * count
    if jpeg:
        qualities = rng.integers(QUALITIES[0], QUALITIES[1] + 1, count).tolist()
        halved = rng.integers(len(SUBSAMPLINGS), size=count).tolist()
        jpegs = [
            (quality, SUBSAMPLINGS[which]) if chance < jpeg else None
            for quality, which, chance in zip(qualities, halved, rng.random(count), strict=True)
        ]
    return [Change(*each) for each in zip(laid, tints, jpegs, strict=True)]
