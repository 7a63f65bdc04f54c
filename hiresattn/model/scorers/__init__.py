"""What says which cells of a region are interesting."""

from hiresattn.model.scorers.base import Paste, Scored, Scorer, Target, Teach, View, pool_cells
from hiresattn.model.scorers.location import ContextScorer, LocationScorer
from hiresattn.model.scorers.mask import MaskScorer
from hiresattn.model.scorers.random import RandomScorer

SCORERS = {"location": LocationScorer, "context": ContextScorer, "mask": MaskScorer, "random": RandomScorer}

__all__ = [
    "SCORERS",
    "ContextScorer",
    "LocationScorer",
    "MaskScorer",
    "Paste",
    "RandomScorer",
    "Scored",
    "Scorer",
    "Target",
    "Teach",
    "View",
    "pool_cells",
]
