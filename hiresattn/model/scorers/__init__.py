"""Scorers: the encoder's output → one logit per cell of a region."""

from hiresattn.model.scorers.base import (
    LossTerm,
    PastedPart,
    Scored,
    Scorer,
    ScorerInput,
    Target,
    VisibleBoxes,
    mean_term,
    pool_cells,
)
from hiresattn.model.scorers.evidence import EvidenceScorer
from hiresattn.model.scorers.location import ContextScorer, LocationScorer
from hiresattn.model.scorers.ltpa import LtpaScorer
from hiresattn.model.scorers.mask import MaskScorer
from hiresattn.model.scorers.oaa import OaaScorer
from hiresattn.model.scorers.random import RandomScorer
from hiresattn.model.scorers.saol import SaolScorer

SCORERS: dict[str, type[Scorer]] = {
    "location": LocationScorer,
    "context": ContextScorer,
    "evidence": EvidenceScorer,
    "mask": MaskScorer,
    "saol": SaolScorer,
    "ltpa": LtpaScorer,
    "oaa": OaaScorer,
    "random": RandomScorer,
}

__all__ = [
    "SCORERS",
    "ContextScorer",
    "EvidenceScorer",
    "LocationScorer",
    "LossTerm",
    "LtpaScorer",
    "MaskScorer",
    "OaaScorer",
    "PastedPart",
    "RandomScorer",
    "SaolScorer",
    "Scored",
    "Scorer",
    "ScorerInput",
    "Target",
    "VisibleBoxes",
    "mean_term",
    "pool_cells",
]
