"""What the header of a file says about its image."""

from dataclasses import dataclass
from typing import Any

import numpy as np

from hiresattn.geometry import Level
from hiresattn.pyramid.placed import ControlPoints


@dataclass(frozen=True, slots=True)
class Metadata:
    """What the header of a file says about its image."""

    levels: tuple[Level, ...]
    """Stored resolutions, finest first; level 0 has downsample 1."""
    channels: int
    """Bands that ``read`` returns (alpha is not a band: it marks what is valid)."""
    dtype: np.dtype[Any]
    """Native data type."""
    mpp: float | None = None
    """Micrometres per level-0 px."""
    mpp_source: str | None = None
    """Where ``mpp`` was found, or why it wasn't taken."""
    crs: str | None = None
    """Coordinate reference system: an authority code such as ``EPSG:32618``, else WKT."""
    transform: tuple[float, float, float, float, float, float] | None = None
    """Affine transform (a, b, c, d, e, f) of level-0 px (column, row) to coordinates of the CRS."""
    nodata: float | None = None
    """Value that stands for "nothing measured here"."""
    palette: np.ndarray | None = None
    """Colours of a palette image, uint8 ``[entries, 3]``; ``read`` returns the indices."""
    nbytes: int = 0
    """Stored size of the image, bytes (0 where unknown)."""
    channel_names: tuple[str, ...] | None = None
    """A name for each band: OME's channels, GDAL's band descriptions."""
    colors: tuple[str, ...] | None = None
    """What each band shows, as GDAL names it: ``red``, ``green``, ``nir`` ... ``undefined``."""
    scales: tuple[float, ...] | None = None
    """Per band: a value read times this, plus its offset, is the quantity measured. ``read`` doesn't apply it."""
    offsets: tuple[float, ...] | None = None
    """Per band; see ``scales``."""
    bounds: tuple[int, int, int, int] | None = None
    """The scanned part of a slide ``(y, x, height, width)``, level-0 px; None = all of it, or not known."""
    gcps: int = 0
    """How many ground control points the file has."""
    control: ControlPoints | None = None
    """They themselves, where they say where an image without a transform lies."""
    rpcs: bool = False
    """Whether the file has rational polynomial coefficients of its sensor. They are not applied."""
    acquired: str | None = None
    """When the image was taken, ISO 8601, where it is known."""
    alpha: tuple[int, ...] = ()
    """Numbers, from 1, of the bands that are marked alpha: they say what is valid, and ``read`` leaves them out."""
    notes: tuple[str, ...] = ()
    """What of the file isn't used, and why: warnings for its records."""
