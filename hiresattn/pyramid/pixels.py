"""What a read returns, and which of its px were measured."""

from dataclasses import dataclass
from typing import Any

import numpy as np


@dataclass(frozen=True, slots=True)
class Pixels:
    """What one read returned."""

    data: np.ndarray
    """``[h w c]``, native dtype. Where not valid: the format's declared fill value, not a measurement."""
    valid: np.ndarray | None = None
    """``[h w]`` bool, True = measured; None = all of it."""
    missing_tiles: int = 0
    """Tiles of this read that the file leaves out (sparse TIFF tiles, absent Zarr chunks)."""


def measured(pixels: Pixels, nodata: float | None) -> np.ndarray | None:
    """Which px were measured, bool ``[h w]``; None = all of them.

    Those that the reader calls valid, less those where every band is nodata or any band is NaN or infinite.
    """
    data, valid = pixels.data, pixels.valid
    if nodata is not None and _representable(nodata, data.dtype):
        other = (data != data.dtype.type(nodata)).any(axis=2)
        valid = other if valid is None else other & valid
    if data.dtype.kind == "f":
        finite = np.isfinite(data).all(axis=2)
        valid = finite if valid is None else finite & valid
    return None if valid is None or valid.all() else valid


def _representable(value: float, dtype: np.dtype[Any]) -> bool:
    if dtype.kind == "f":
        return bool(np.isfinite(value))
    return float(value).is_integer() and bool(np.iinfo(dtype).min <= value <= np.iinfo(dtype).max)
