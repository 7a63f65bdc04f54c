"""The record of a forward pass or a search: one flat table, a row per glimpse. Arrays of NumPy or torch."""

from dataclasses import dataclass
from typing import Any, NamedTuple

from hiresattn.shapes import Float, Int64


class Rows(NamedTuple):
    """The glimpses of one pass of the network, its inputs and outputs; ``n`` rows each."""

    image: Any
    depth: Any
    parent: Any
    cell: Any
    region: Any
    coverage: Any
    log_prob: Any
    value: Any
    cell_logits: Any
    features: Any
    class_log_prob: Any
    """From a scorer with a head of its own ``[n K]``; else ``[n 0]``."""


@dataclass(frozen=True, eq=False)
class Traversal:
    """The record of one forward pass or one search.

    Images may have different numbers of glimpses. ``N`` glimpses, ``b`` images, ``K`` classes.
    """

    image: Int64[Any, " N"]
    """Index of the glimpse's image."""
    depth: Int64[Any, " N"]
    """Recursion step; 0 = a root region."""
    parent: Int64[Any, " N"]
    """Row of the glimpse it was chosen from; -1 at depth 0."""
    cell: Int64[Any, " N"]
    """Which cell of the parent; -1 at depth 0."""
    region: Int64[Any, "N 4"]
    """(y, x, height, width), level-0 px."""
    coverage: Float[Any, " N"]
    """Share of valid px of the crop, 0 to 1."""
    log_prob: Float[Any, " N"]
    """Log-probability of the choice within its parent; 0 at depth 0."""
    value: Float[Any, " N"]
    """Logit of the probability that the region contains what decides the image's class."""
    weight: Float[Any, " N"]
    """Weight in the prediction; sums to 1 over an image."""
    cell_logits: Float[Any, "N cells"]
    """The scorer's logits of the region's cells."""
    features: Float[Any, "N d"]
    """One vector per glimpse."""
    glimpse_logits: Float[Any, "N K"]
    """Class logits of each glimpse on its own."""
    logits: Float[Any, "b K"]
    """Class logits per image."""
    running: Any = None
    """Class logits of a glimpse's image after it, ``[N K]``; of a search only, else None."""
    scored: tuple[Any, ...] = ()
    """The scorer's output of each pass (``Scored``), in the order of rows; for its losses."""
