"""Where a model looked, as a raster that lies on the scene."""

import os
from pathlib import Path
from typing import Any

import numpy as np

from hiresattn.errors import ConfigError, WriteError
from hiresattn.files import atomic_write
from hiresattn.geo.outlines import place_of
from hiresattn.inference.record import CaseSource, Record
from hiresattn.pyramid.placed import ControlPoints
from hiresattn.shapes import Float32

#: Px of the raster that the finest region's side has at least, unless the raster had more than ``_LONGEST`` then.
_FINE = 8
#: Px along a side of the raster at most.
_LONGEST = 4096
#: Side of a tile of the COG, px.
_TILE = 256


def attention_raster(record: Record) -> tuple[Float32[np.ndarray, "h w"], int]:
    """Where a model looked: at each place the attention of the deepest region that covers it.

    Args:
        record: Of one image; see ``Record.by_source``.

    Returns:
        The raster, from the corner of what was classified; NaN = not looked at, and where regions of one depth overlap,
        the largest attention. And how many level-0 px one of its px is high and wide: a power of two.

    Raises:
        ConfigError: If the record is of several images, or of none that could be opened.
    """
    y, x, height, width = _window(_source(record))
    finest = min((min(one.height, one.width) for one in record.regions), default=max(height, width))
    step = 1
    while 2 * step * _FINE <= finest or max(height, width) > step * _LONGEST:
        step *= 2
    values = np.full((-(-height // step), -(-width // step)), np.nan, np.float32)
    for depth in sorted({one.depth for one in record.regions}):
        layer = np.full_like(values, np.nan)
        for one in record.regions:
            if one.depth == depth:
                part = layer[_covered(one.y - y, one.height, step), _covered(one.x - x, one.width, step)]
                np.fmax(part, one.attention, out=part)
        np.copyto(values, layer, where=~np.isnan(layer))
    return values, step


def write_attention(record: Record, path: str | os.PathLike[str]) -> None:
    """Write where a model looked as a cloud-optimised GeoTIFF on the scene's own grid; see ``attention_raster``.

    One float32 band ``attention``, nodata NaN, in the scene's CRS; its px are whole level-0 px. Of an image that lies
    by ground control points it has those; of an image without a CRS it has none either. Tags name source and model.

    Args:
        record: Of one image.
        path: The file, ``.tif``; written whole or not at all.

    Raises:
        ConfigError: If the record is of several images, or of none that could be opened.
        WriteError: If it can't be written.

    Examples:
        >>> hiresattn.geo.write_attention(hiresattn.classify("scene.tif", "model"), "attention.tif")
    """
    import rasterio
    import rasterio.shutil
    from rasterio.errors import NotGeoreferencedWarning

    from hiresattn.pyramid.formats.quiet import quiet

    values, step = attention_raster(record)
    source = _source(record)
    y, x, _, _ = _window(source)
    place: dict[str, Any] = {}
    if source.transform is not None:
        a, b, c, d, e, f = source.transform
        corner = a * x + b * y + c, d * x + e * y + f
        place = {"transform": rasterio.Affine(a * step, b * step, corner[0], d * step, e * step, corner[1])}
        place |= {"crs": source.crs}
    elif isinstance(points := place_of(source), ControlPoints):
        place = {"gcps": points.moved(y, x, 1 / step).gdal(), "crs": points.crs}
    shape = {"height": values.shape[0], "width": values.shape[1], "count": 1, "dtype": "float32"}
    tags = {"SOURCE": source.source, "MODEL": record.model.get("name", ""), "VERSION": record.version}
    tags |= {"MODEL_SHA256": record.model.get("sha256", ""), "STEP": str(step)}
    try:
        with atomic_write(path) as part, quiet(NotGeoreferencedWarning), rasterio.MemoryFile() as memory:
            with memory.open(driver="GTiff", nodata=np.nan, **shape, **place) as file:
                file.write(values, 1)
                file.set_band_description(1, "attention")
                file.update_tags(**{f"HIRESATTN_{name}": value for name, value in tags.items()})
            with memory.open() as file:
                rasterio.shutil.copy(
                    file, part, driver="COG", COMPRESS="DEFLATE", PREDICTOR="YES", BLOCKSIZE=_TILE,
                    OVERVIEW_RESAMPLING="AVERAGE", BIGTIFF="IF_SAFER",
                )  # fmt: skip
    except Exception as error:
        why = getattr(error, "strerror", None) or error
        raise WriteError(f"{Path(path)}: can't be written ({why}); check its folder and the disk") from error


def _source(record: Record) -> CaseSource:
    if len(record.sources) != 1 or record.sources[0].height is None:
        raise ConfigError(
            f"{record.source}: a raster is of one image that could be opened; take the records of by_source()"
        )
    return record.sources[0]


def _window(source: CaseSource) -> tuple[int, int, int, int]:
    """What was classified, level-0 px."""
    return source.region or (0, 0, source.height or 0, source.width or 0)


def _covered(start: int, length: int, step: int) -> slice:
    """The px of a raster whose middles a region covers; of one between two middles, the px that holds its own."""
    first, last = -(-(2 * start - step) // (2 * step)), -(-(2 * (start + length) - step) // (2 * step))
    if last <= first:
        first = (2 * start + length) // (2 * step)
        last = first + 1
    return slice(max(first, 0), last)
