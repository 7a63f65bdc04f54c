"""The seam between the search and whatever runs the network: NumPy arrays in, NumPy arrays out."""

from dataclasses import dataclass
from typing import Protocol

import numpy as np

from hiresattn.config import ModelConfig
from hiresattn.geometry import Grid
from hiresattn.shapes import Float, Float32, Int64


@dataclass(frozen=True)
class NetFacts:
    """What a search needs to know of a network besides its outputs."""

    grid: Grid
    """How a region is divided into cells."""
    finest: int
    """Side of the smallest region, level-0 px."""
    gate: float | None = None
    """Logit above which a cell's gate is open; None = the scorer has no gates."""
    background: int | None = None
    """Index of the background class: evidence is pooled against it; None = there is none."""
    prior_weight: float = 0.0
    """How far evidence is weighted by the chance that its choice had."""
    multi_label: bool = False
    """Whether an image may have any number of the classes."""
    head: str = "classifier"
    """Which head predicts: the ``classifier`` of the pooled glimpses, or the ``scorer``'s own probabilities."""
    pool_finest: bool = False
    """Whether only finest glimpses are pooled, as long as there is one."""
    aggregator: str = "attention"
    """``attention`` (weights are the softmax of ``weight_logits``) or ``mean``."""


@dataclass(frozen=True, eq=False)
class Outputs:
    """What the network gives for ``n`` crops, float32; ``K`` classes, vectors of width ``d``."""

    features: Float[np.ndarray, "n d"]
    """One vector per glimpse, position included."""
    cell_logits: Float[np.ndarray, "n cells"]
    """The scorer's logits; minus infinity where nothing was measured."""
    value: Float[np.ndarray, " n"]
    """Logit of the chance that what decides the image lies in the region."""
    class_logits: Float[np.ndarray, "n K"]
    """Of each glimpse on its own."""
    weight_logits: Float[np.ndarray, " n"]
    """The aggregator's logit of each glimpse: the softmax over an image's glimpses is their weight."""
    class_log_prob: Float[np.ndarray, "n K"] | None = None
    """Log-probabilities by the scorer's own head; None = it has none."""
    appearance: Float[np.ndarray, "n cells a"] | None = None
    """What each cell looks like from afar, unit vectors; None = not asked for, or the scorer gives none."""


class Engine(Protocol):
    """Runs a network in evaluation mode. Called from one thread at a time."""

    @property
    def name(self) -> str:
        """Of the option ``engine``, as records have it."""

    @property
    def facts(self) -> NetFacts:
        """What doesn't change from call to call."""

    @property
    def device(self) -> str:
        """``cpu``, or the kind of accelerator."""

    def look(
        self,
        pixels: Float32[np.ndarray, "n c s s"],
        coverage: Float32[np.ndarray, "n s s"],
        regions: Int64[np.ndarray, "n 4"],
        frames: Int64[np.ndarray, "n 4"],
        paths: Int64[np.ndarray, "n 3"],
        *,
        appearance: bool = False,
    ) -> Outputs:
        """Encode and score crops.

        Args:
            pixels: The crops, scaled as the model takes them.
            coverage: Share of each crop px that was measured, 0 to 1.
            regions: What the crops show, level-0 px.
            frames: The rectangle classified, per crop, level-0 px.
            paths: Row, column and depth of the cells that led there (``geometry.child_paths``).
            appearance: Whether the cells' appearance is wanted.
        """


def threads_for(config: ModelConfig, asked: int | None) -> int | None:
    """Threads that compute on the CPU: as asked for, else what the encoder is fastest with; None = as many as cores.

    A built-in encoder's pass takes a millisecond or two: less than threads take to meet, where other programs run.
    """
    return 1 if asked is None and config.encoder.startswith("small") else asked
