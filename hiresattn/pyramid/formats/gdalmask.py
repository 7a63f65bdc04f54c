"""What is valid of a raster that GDAL reads, beyond a nodata value that its px can be compared with."""

import threading
from collections.abc import Callable, Collection, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import Any

import numpy as np

from hiresattn.geometry import Level
from hiresattn.pyramid.formats.tiff import opened_tiff
from hiresattn.pyramid.formats.vrt import covered

_GDAL_NODATA = 42113
#: Rows of a mask that are read at once where strips have fewer.
_ROWS = 128

#: Whole numbers up to this are exact in the float that holds a nodata value, and in float32.
_EXACT, _EXACT_FLOAT32 = 2**53, 2**24


@dataclass(frozen=True)
class GdalMask:
    """Reads what GDAL and alpha bands say is valid.

    A px is valid in a band where the band's mask (an internal one, one in a file beside, or that of its nodata
    value) and every alpha band say so: GDAL itself looks at one of them only.
    """

    bands: tuple[int, ...]
    """GDAL's numbers of the bands that are no alpha."""
    alpha: tuple[int, ...]
    """Those of the alpha bands."""
    shared: bool
    """Whether all bands have one mask."""
    by_band: bool
    """Whether GDAL is asked for the mask of each band: their nodata values differ, or can't be compared."""
    bare: frozenset[int]
    """Levels for which the file has no mask, though it has one of level 0."""
    downsamples: tuple[float, ...]
    """Of the levels."""
    places: tuple[np.ndarray, ...] | None = None
    """By band, where a virtual raster has any source; see ``vrt_places``."""

    @classmethod
    def of(
        cls,
        raster: Any,
        levels: Sequence[Level],
        overviews: Sequence[int | None],
        open_overview: Callable[[int], Any],
        bands: Sequence[int],
        nodata: float | None,
        masks: Collection[tuple[int, int]] | None = None,
    ) -> "GdalMask":
        """The mask of a raster.

        Args:
            raster: The open file.
            levels: Its levels, finest first.
            overviews: GDAL's number of each level; None = the image itself.
            open_overview: Opens one by its number.
            bands: Numbers of the bands that are no alpha.
            nodata: The caller's nodata value, in place of the file's.
            masks: Rows and columns of the masks inside the file; None = there are none, or it isn't known. GDAL takes
                all of an overview for valid where its mask is lacking.
        """
        from rasterio.enums import MaskFlags

        flags = [raster.mask_flag_enums[band - 1] for band in bands]
        shared = any(MaskFlags.per_dataset in flag and MaskFlags.alpha not in flag for flag in flags)
        values = {repr(raster.nodatavals[band - 1]) for band in bands}
        rounded = any(_may_be_rounded(raster.nodatavals[band - 1], raster.dtypes[band - 1]) for band in bands)
        by_band = nodata is None and any(MaskFlags.nodata in flag for flag in flags)
        bare = []
        for number, overview in enumerate(overviews if shared else ()):
            if overview is not None:
                with open_overview(overview) as opened:
                    known = MaskFlags.per_dataset in opened.mask_flag_enums[bands[0] - 1]
                    if not known or (masks and opened.shape not in masks):
                        bare.append(number)
        return cls(
            bands=tuple(bands),
            alpha=tuple(number for number in raster.indexes if number not in bands),
            shared=shared,
            by_band=by_band and not shared and (len(values) > 1 or rounded),
            bare=frozenset(bare),
            downsamples=tuple(level.downsample for level in levels),
        )

    def __bool__(self) -> bool:
        return bool(self.shared or self.by_band or self.alpha or self.places is not None)

    def read(
        self,
        open_level: Callable[[int], AbstractContextManager[Any]],
        level: int,
        window: tuple[int, int, int, int],
    ) -> np.ndarray:
        """What is valid of a window ``(y, x, height, width)`` of a level: bool ``[h w]`` or ``[h w c]``.

        Args:
            open_level: Gives the open raster of a level.
            level: Which level.
            window: Its px.
        """
        height, width = window[2:]
        valid = np.ones((height, width), bool)
        with open_level(level) as raster:
            if self.alpha:
                valid &= (raster.read(list(self.alpha), window=_window(*window)) > 0).all(axis=0)
            if self.shared and level not in self.bare:
                valid &= raster.read_masks(self.bands[0], window=_window(*window)) > 0
            by_band = self.by_band and np.moveaxis(
                raster.read_masks(list(self.bands), window=_window(*window)), 0, 2
            )
        if level in self.bare:
            with open_level(0) as raster:
                valid &= _reduced(raster, self.bands[0], window, self.downsamples[level])
        if self.places is not None:
            inside = [covered(places, window, self.downsamples[level]) for places in self.places]
            valid = np.stack(inside, axis=2) & valid[:, :, None]
        if by_band is not False:
            valid = (by_band > 0) & (valid if valid.ndim == 3 else valid[:, :, None])
        return valid


class StripMasks:
    """What is valid, of files in strips of a few rows: many come in one read, which costs more than a strip.

    Args:
        mask: Reads it.
        levels: Of the image.
    """

    def __init__(self, mask: GdalMask, levels: Sequence[Level]) -> None:
        self._mask = mask
        self._levels = levels
        self._kept = threading.local()

    def read(
        self,
        open_level: Callable[[int], AbstractContextManager[Any]],
        level: int,
        window: tuple[int, int, int, int],
    ) -> np.ndarray:
        """As ``GdalMask.read``."""
        has, (y, x, height, width) = self._levels[level], window
        if has.tile_height >= _ROWS or height > has.tile_height or width < has.width:
            return self._mask.read(open_level, level, window)
        rows = -(-_ROWS // has.tile_height) * has.tile_height
        first = y // rows * rows
        key, valid = getattr(self._kept, "rows", (None, np.empty(0)))
        if key != (level, first):
            rows = min(rows, has.height - first)
            valid = self._mask.read(open_level, level, (first, x, rows, width))
            self._kept.rows = (level, first), valid
        return valid[y - first : y - first + height]


def _reduced(raster: Any, band: int, window: tuple[int, int, int, int], downsample: float) -> np.ndarray:
    """Where any px of level 0's mask is set under those of a window of a coarser level."""
    edges = [
        np.clip(np.rint(np.arange(start, start + count + 1) * downsample).astype(int), 0, side)
        for start, count, side in zip(window[:2], window[2:], raster.shape, strict=True)
    ]
    (top, bottom), (left, right) = ((int(line[0]), int(line[-1])) for line in edges)
    mask = raster.read_masks(band, window=_window(top, left, bottom - top, right - left)) > 0
    rows, columns = (np.minimum(line[:-1] - line[0], line[-1] - line[0] - 1) for line in edges)
    return np.logical_or.reduceat(np.logical_or.reduceat(mask, rows, 0), columns, 1)


def _window(y: int, x: int, height: int, width: int) -> Any:
    from rasterio.windows import Window

    return Window(x, y, width, height)


def _may_be_rounded(nodata: float | None, name: str) -> bool:
    """Whether a nodata value may be another than its px hold, as tags are decimal: then comparing them finds none."""
    dtype = np.dtype(name)
    if nodata is None:  # not a float at all
        return dtype.itemsize == 8
    if not np.isfinite(nodata):
        return False
    if dtype.kind != "f":
        return abs(nodata) > _EXACT
    exact = _EXACT_FLOAT32 if dtype.itemsize < 8 else _EXACT
    return not (float(nodata).is_integer() and abs(nodata) <= exact) and abs(nodata) != np.finfo(dtype).max


def whole_nodata(path: str) -> int | None:
    """The nodata value of 64-bit px, exact, where rasterio has it as a float or cuts it at a point."""
    with opened_tiff(path) as tif:
        tag = tif.pages[0].tags.get(_GDAL_NODATA)
        text = "" if tag is None else str(tag.value).strip()
    try:
        return int(text)
    except ValueError:
        pass
    try:
        return int(float(text))
    except (ValueError, OverflowError):
        return None
