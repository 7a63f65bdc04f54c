"""What says which cells of a region are interesting."""

from hiresattn.model.scorers.base import Scored, Scorer, View, pool_cells
from hiresattn.model.scorers.location import ContextScorer, LocationScorer
from hiresattn.model.scorers.random import RandomScorer

SCORERS = {"location": LocationScorer, "context": ContextScorer, "random": RandomScorer}

__all__ = [
    "SCORERS",
    "ContextScorer",
    "LocationScorer",
    "RandomScorer",
    "Scored",
    "Scorer",
    "View",
    "pool_cells",
]
