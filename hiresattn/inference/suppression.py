"""Distractor suppression: cells that look like known background are put back. NumPy only."""

import numpy as np
from jaxtyping import Float

from hiresattn.inference.table import GlimpseTable

#: Largest log-priority penalty for cells that resemble a known background region.
SUPPRESSION = 5.0
#: How fast the penalty fades with the cosine between two cells' appearances: its power.
SIMILARITY_POWER = 16


class KnownBackground:
    """What finest regions of one image looked like from afar, and how surely they are background."""

    def __init__(self) -> None:
        self._rows = GlimpseTable()

    def __len__(self) -> int:
        return len(self._rows)

    def add(self, appearance: Float[np.ndarray, " a"], penalty: float) -> None:
        """Note a region: its appearance, a unit vector, and the penalty for cells that look exactly like it."""
        self._rows.append({"appearance": appearance[None], "penalty": np.array([penalty], np.float32)})

    def penalty(self, appearances: Float[np.ndarray, "n a"], since: int = 0) -> Float[np.ndarray, " n"]:
        """The penalty of cells by the known region that they resemble most, of those noted after the first ``since``.

        Args:
            appearances: Unit vectors.
            since: Number of known regions to leave out.

        Returns:
            Log-priority to subtract, 0 or more.
        """
        cosine = np.clip(appearances @ self._rows["appearance"][since:].T, 0, 1)
        strongest = cosine**SIMILARITY_POWER * self._rows["penalty"][since:]
        return np.asarray(strongest.max(axis=1))
