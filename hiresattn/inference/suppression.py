"""Distractor suppression: cells that look like known background are put back. NumPy only."""

import numpy as np

from hiresattn.inference.table import GlimpseTable
from hiresattn.shapes import Float

#: Largest log-priority penalty for cells that resemble a known background region.
SUPPRESSION = 5.0
#: How fast the penalty fades with the cosine between two cells' appearances: so often is it squared (to the power 16).
_SQUARED = 4


class KnownBackground:
    """What finest regions of one image looked like from afar, and how surely they are background."""

    def __init__(self) -> None:
        self._rows = GlimpseTable()

    def __len__(self) -> int:
        return len(self._rows)

    def add(self, appearance: Float[np.ndarray, " a"], penalty: float) -> None:
        """Note a region: its appearance, a unit vector, and the penalty for cells that look exactly like it."""
        self._rows.append({"appearance": appearance[None], "penalty": np.array([penalty], np.float32)})

    def penalty(self, appearance: Float[np.ndarray, " a"], since: int = 0) -> float:
        """The penalty of a cell by the known region that it resembles most.

        Args:
            appearance: Of the cell, a unit vector.
            since: Number of known regions to leave out, the oldest first.

        Returns:
            Log-priority to subtract, 0 or more.
        """
        likeness = np.maximum(self._rows["appearance"][since:] @ appearance, 0)
        for _ in range(_SQUARED):
            likeness *= likeness
        return float((likeness * self._rows["penalty"][since:]).max(initial=0.0))
