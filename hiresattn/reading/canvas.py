"""Several images side by side in one plane, so that one search, or one pass of the network, sees all of them."""

import numpy as np

from hiresattn.geometry import frame_numbers
from hiresattn.shapes import Int64

#: Columns between two frames: no box of one image reaches into another.
_GAP = 1 << 32


class Canvas:
    """The frames of the images of a case, each moved to the right of the one before; the first stays where it is.

    Rows don't change. Nothing is scaled.

    Args:
        frames: What is seen of each image ``[m 4]``, px of that image.
    """

    def __init__(self, frames: Int64[np.ndarray, "m 4"]) -> None:
        frames = np.asarray(frames, np.int64).reshape(-1, 4)
        ends = np.cumsum(frames[:-1, 3] + _GAP) + frames[0, 1]
        self._shifts = np.concatenate([[0], ends - frames[1:, 1]])
        self.frames: Int64[np.ndarray, "m 4"] = self._moved(frames, self._shifts)
        """On the canvas."""

    def __len__(self) -> int:
        return len(self.frames)

    def placed(self, source: int, regions: np.ndarray) -> np.ndarray:
        """Regions ``[n 4]`` of an image, on the canvas."""
        return self._moved(regions, self._shifts[source])

    def stored(self, regions: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Which image each region ``[n 4]`` of the canvas lies in ``[n]``, and the same regions in px of that."""
        if len(self) == 1:
            return np.zeros(len(regions), np.int64), regions
        source = frame_numbers(regions, self.frames)
        return source, self._moved(regions, -self._shifts[source])

    @staticmethod
    def _moved(regions: np.ndarray, shift: np.ndarray) -> np.ndarray:
        moved = np.array(regions, np.int64)
        moved[..., 1] += shift
        return moved
