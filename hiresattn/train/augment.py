"""Augmentation that is the same at every depth of an image: turns, and the bands' brightness and contrast."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np


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


#: Turns that training may draw from, by the name of the option.
AUGMENTATIONS: dict[str, tuple[Turn, ...]] = {
    "none": (Turn(),),
    "flips": tuple(Turn(flip_y=y, flip_x=x) for y in (False, True) for x in (False, True)),
    "turns": tuple(Turn(t, y, x) for t in (False, True) for y in (False, True) for x in (False, True)),
}


def tints_of(count: int, bands: int, jitter: float, rng: np.random.Generator) -> np.ndarray | None:
    """Gain and offset per image and band ``[count 2 bands]``, of values of -1 to 1; None without jitter.

    Gains are exp(-jitter) to exp(jitter), offsets -jitter to jitter.
    """
    if not jitter:
        return None
    drawn = rng.uniform(-jitter, jitter, (count, 2, bands)).astype(np.float32)
    drawn[:, 0] = np.exp(drawn[:, 0])
    return drawn
