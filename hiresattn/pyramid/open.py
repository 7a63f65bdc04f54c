"""From a source to the backend that reads it."""

from typing import Any

from hiresattn.errors import OpenError
from hiresattn.pyramid.array import ArrayPyramid
from hiresattn.pyramid.base import Pyramid


def open_pyramid(source: Any) -> Pyramid:
    """Open an image; only its header is read."""
    if isinstance(source, Pyramid):
        return source
    if hasattr(source, "shape") and hasattr(source, "dtype"):
        return ArrayPyramid(source)
    raise OpenError(f"{source}: no reader")
