"""Readers: one image, its stored resolutions, and nothing invented."""

from hiresattn.pyramid.base import Pyramid
from hiresattn.pyramid.metadata import Metadata
from hiresattn.pyramid.open import open_pyramid
from hiresattn.pyramid.pixels import Pixels

__all__ = ["Metadata", "Pixels", "Pyramid", "open_pyramid"]
