"""What a read returns, and which of its px were measured."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np


@dataclass(frozen=True, slots=True)
class Pixels:
    """What one read returned."""

    data: np.ndarray
    """``[h w c]``, native dtype. Where not valid: the format's declared fill value, not a measurement."""
    valid: np.ndarray | None = None
    """Bool, True = measured; None = all of it. ``[h w]``: in every band asked for; ``[h w c]``: band by band."""
    missing_tiles: int = 0
    """Tiles of this read that the file leaves out (sparse TIFF tiles, absent Zarr chunks)."""
    missing_by_band: np.ndarray | None = None
    """Of how many tiles the file leaves out each band, int ``[c]``; None = all bands of ``missing_tiles``."""


def measured(pixels: Pixels, nodata: float | None, bands: Sequence[int] | None = None) -> np.ndarray | None:
    """Which px were measured in every one of some bands, bool ``[h w]``; None = all of them.

    Those that the reader calls valid there, less those where one of these bands is nodata, NaN or infinite.

    Args:
        pixels: What was read.
        nodata: Value that stands for "nothing measured here".
        bands: Numbers of the bands, from 0; None = all.
    """
    data = pixels.data
    valid: np.ndarray | None = pixels.valid
    if valid is None and nodata is None and data.dtype.kind != "f":
        return None
    chosen = range(data.shape[2]) if bands is None else bands
    if valid is not None and valid.ndim == 3:
        valid = np.asarray(valid[:, :, list(chosen)].all(axis=2))
    for band in chosen:
        known = _known(data[:, :, band], nodata)
        if known is not None:
            valid = known if valid is None else known & valid
    return None if valid is None or valid.all() else valid


def measured_by_band(pixels: Pixels, nodata: float | None) -> np.ndarray | None:
    """As ``measured``, of each band by itself: bool ``[h w c]``, or ``[h w]`` where all bands are alike."""
    valid, known = pixels.valid, _known(pixels.data, nodata)
    if known is None or known.all():
        return None if valid is None or valid.all() else valid
    return both_valid(known, valid)


def known_by_band(data: np.ndarray, nodata: Sequence[float | None]) -> np.ndarray:
    """Where values aren't the nodata value of their own band: bool ``[h w c]``."""
    known = np.ones(data.shape, bool)
    for band, value in enumerate(nodata):
        found = _known(data[:, :, band], value)
        if found is not None:
            known[:, :, band] = found
    return known


def missing(pixels: Pixels, bands: Sequence[int] | None = None) -> int:
    """Tiles of a read that the file leaves out, wholly or in one of some bands (None: of all)."""
    if pixels.missing_by_band is None or bands is None:
        return pixels.missing_tiles
    return int(pixels.missing_by_band[list(bands)].max())


def note_empty(sizes: Iterable[tuple[int, int]]) -> tuple[str, ...]:
    """A note on levels (rows, columns) that a file declares and leaves out; none where there are none."""
    names = ", ".join(f"{width} x {height} px" for height, width in sorted(sizes, reverse=True))
    return (f"declared levels without any tile are not used: {names}",) if names else ()


def note_alpha(bands: Iterable[int]) -> tuple[str, ...]:
    """A note on bands, by number, that are marked alpha; none where there are none."""
    return tuple(f"band {band} is marked alpha: it is read as validity, not as a band" for band in bands)


def both_valid(one: np.ndarray | None, other: np.ndarray | None) -> np.ndarray | None:
    """Where two masks (``[h w]``, ``[h w c]`` or None) both say valid."""
    if one is None or other is None:
        return other if one is None else one
    if one.ndim != other.ndim:
        one, other = (mask if mask.ndim == 3 else mask[:, :, None] for mask in (one, other))
    return one & other


def _known(data: np.ndarray, nodata: float | None) -> np.ndarray | None:
    """Where values are neither nodata nor NaN nor infinite; None = everywhere, by their type."""
    known = None
    if nodata is not None and _representable(nodata, data.dtype):
        low, high = taken_for(nodata, data.dtype)
        known = data != low if low == high else ~((data >= low) & (data <= high))
    if data.dtype.kind == "f":
        finite = np.isfinite(data)
        known = finite if known is None else finite & known
    return known


def taken_for(nodata: float, dtype: np.dtype[Any]) -> tuple[Any, Any]:
    """The least and the highest value of a type that is taken for a nodata value which the type can hold.

    Of floats these are a few: nodata tags are decimal, and averages lose the last digits. As in GDAL, which takes
    ``v`` for ``nodata`` where ``|v - nodata| < 2 eps |v + nodata|``, with the ``eps`` of float32.
    """
    value = dtype.type(nodata)
    if dtype.kind != "f" or not value:
        return value, value
    size, eps = abs(float(value)), float(np.finfo(np.float32).eps)
    inner, outer = size * (1 - 4 * eps / (1 + 2 * eps)), size * (1 + 4 * eps / (1 - 2 * eps))
    least, most = dtype.type(inner), dtype.type(min(outer, float(np.finfo(dtype).max)))
    if float(least) <= inner:
        least = np.nextafter(least, dtype.type(np.inf))
    if float(most) >= outer:
        most = np.nextafter(most, dtype.type(0))
    return (least, most) if value > 0 else (-most, -least)


def _representable(value: float, dtype: np.dtype[Any]) -> bool:
    if dtype.kind == "f":
        return bool(np.isfinite(value))
    return float(value).is_integer() and bool(np.iinfo(dtype).min <= value <= np.iinfo(dtype).max)
