"""A region of an image as an RGB picture of a given size, whatever its data type and number of bands."""

from dataclasses import dataclass

import numpy as np
from PIL import Image

from hiresattn.config import InputConfig
from hiresattn.geometry import root_regions
from hiresattn.pyramid.base import Pyramid
from hiresattn.reading.fetch import CropFetcher

Region = tuple[int, int, int, int]

_RGB = 3
_HATCH = 8
_MIN_SIDE = 8
_BRIGHTEST, _DARK, _DARKEST = 99.8, 128, 64


@dataclass(frozen=True)
class View:
    """Pixels of a region, in the image's own values, and which of them are valid."""

    values: np.ndarray
    """``[h w c]`` float32; one band or three."""
    valid: np.ndarray
    """``[h w]`` bool."""


def read_view(pyramid: Pyramid, region: Region, side: int) -> View:
    """Read a region, averaged to ``side`` px along its longer side, from the coarsest level that is fine enough.

    Memory holds a few tiles at a time, however large the region is. Three bands or more: the first three are shown;
    two: the first. A palette image is shown in its colours.

    Args:
        pyramid: The image.
        region: ``(y, x, height, width)``, level-0 px.
        side: Longer side of the view, px. A smaller region is enlarged.

    Returns:
        Its pixels.

    Raises:
        ReadError: If a tile can't be decoded.
    """
    y, x, height, width = region
    short = min(height, width)
    size = max(round(side * short / max(height, width)), _MIN_SIDE)
    config = display_config(pyramid, size)
    squares = root_regions(height, width, y, x)
    shape = (round(height * size / short), round(width * size / short))
    values = np.zeros((*shape, len(config.bands)), np.float32)
    valid = np.zeros(shape, np.bool_)
    with CropFetcher([pyramid], config) as fetch:
        for square in squares:
            pixels, coverage = fetch(np.zeros(1, np.int64), square[None])
            top, left = (round((square[axis] - region[axis]) * size / short) for axis in (0, 1))
            top, left = min(top, shape[0] - size), min(left, shape[1] - size)
            window = (slice(top, top + size), slice(left, left + size))
            values[window] = pixels[0].transpose(1, 2, 0)
            valid[window] = coverage[0] > 0
    return View(values, valid)


def display_config(pyramid: Pyramid, size: int) -> InputConfig:
    """How a fetcher reads crops of ``size`` px to look at: the bands that are shown, in the image's own values."""
    rgb = pyramid.palette is not None or pyramid.channels >= _RGB
    bands = (0, 1, 2) if rgb else (0,)
    dtype = np.dtype(np.uint8) if pyramid.palette is not None else pyramid.dtype.newbyteorder("=")
    unscaled = {"low": (-1.0,) * len(bands), "high": (1.0,) * len(bands)}  # 2 * (v + 1) / 2 - 1 = v
    return InputConfig(size=size, bands=bands, dtype=str(dtype), **unscaled)  # type: ignore[arg-type]


def display_range(view: View, dtype: np.dtype) -> tuple[np.ndarray, np.ndarray]:
    """Values to show as black and as white, float64 ``[bands]`` each.

    uint8: 0 and 255, of a dark image 0 and its brightest values (at least 64). Else the 2nd and 98th percentile.
    """
    bands = view.values.shape[2]
    if not view.valid.any():
        return np.zeros(bands), np.full(bands, 255.0)
    if dtype == np.uint8:
        brightest = float(np.percentile(view.values[view.valid], _BRIGHTEST))
        return np.zeros(bands), np.full(bands, 255.0 if brightest > _DARK else max(brightest, _DARKEST))
    low, high = np.percentile(view.values[view.valid], (2, 98), axis=0)
    return low, np.where(high > low, high, low + 1)


def to_image(view: View, low: np.ndarray, high: np.ndarray) -> Image.Image:
    """The view as an RGB image; invalid pixels are hatched grey."""
    scaled = np.clip((view.values - low) * (255.0 / (high - low)), 0, 255).astype(np.uint8)
    rgb = np.broadcast_to(scaled, (*scaled.shape[:2], 3)).copy()
    rgb[~view.valid] = hatch(*view.valid.shape)[~view.valid]
    return Image.fromarray(rgb)


def hatch(height: int, width: int) -> np.ndarray:
    """Grey diagonal stripes, uint8 ``[height width 3]``."""
    diagonal = np.add.outer(np.arange(height), np.arange(width)) % _HATCH < _HATCH // 4
    return np.where(diagonal[..., None], 150, 195).astype(np.uint8).repeat(3, axis=2)
