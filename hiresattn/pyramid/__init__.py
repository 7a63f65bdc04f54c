"""Readers: one image, its stored resolutions, and nothing invented."""

from hiresattn.pyramid.base import Metadata, Pixels, Pyramid
from hiresattn.pyramid.open import open_pyramid

__all__ = ["Metadata", "Pixels", "Pyramid", "open_pyramid"]
