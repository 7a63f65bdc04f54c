"""What GDAL knows of a raster besides its pixels."""

import re
from pathlib import Path
from typing import Any

import numpy as np

from hiresattn.errors import OpenError
from hiresattn.geometry import Level
from hiresattn.pyramid.metadata import Metadata
from hiresattn.pyramid.mpp import choose_mpp, micrometres, resolution_unit
from hiresattn.pyramid.placed import ControlPoints, crs_code


def metadata(
    raster: Any, levels: tuple[Level, ...], bands: list[int], mpp: float | None, nodata: float | None
) -> Metadata:
    """What an open raster states of the image in some of its bands.

    Args:
        raster: The open rasterio dataset.
        levels: The levels found in it.
        bands: Numbers of the bands read, from 1.
        mpp: Micrometres per level-0 px, in place of what the file says.
        nodata: In place of what the file says.
    """
    from rasterio.enums import ColorInterp

    transform = None if raster.transform.is_identity else tuple(raster.transform)[:6]
    crs = crs_code(raster.crs) if raster.crs else None
    palette = None
    if raster.colorinterp[bands[0] - 1] == ColorInterp.palette and len(bands) == 1:
        colours = raster.colormap(bands[0])
        palette = np.array([colours[i][:3] for i in range(max(colours) + 1)], np.uint8)
    values = {repr(raster.nodatavals[band - 1]): raster.nodatavals[band - 1] for band in bands}
    if nodata is None and len(values) == 1:
        (nodata,) = values.values()
    chosen, where = choose_mpp(mpp, *_resolution(raster), "TIFF resolution")
    path = Path(raster.name)
    return Metadata(
        levels=levels,
        channels=len(bands),
        dtype=np.dtype(raster.dtypes[bands[0] - 1]),
        mpp=chosen,
        mpp_source=where,
        crs=crs,
        transform=transform,
        nodata=nodata,
        palette=palette,
        alpha=tuple(number for number in raster.indexes if number not in bands),
        nbytes=path.stat().st_size if path.is_file() else 0,
        acquired=_acquired(raster),
        **_fields(raster, bands),
    )


def _fields(raster: Any, bands: list[int]) -> dict[str, Any]:
    """Names, colours, scales and offsets of bands, and how the file is georeferenced but by a transform."""
    names, colors, scales, offsets = (
        tuple(values[band - 1] for band in bands)
        for values in (raster.descriptions, raster.colorinterp, raster.scales, raster.offsets)
    )
    scaled = any((scale, offset) != (1, 0) for scale, offset in zip(scales, offsets, strict=True))
    return {
        "channel_names": tuple(name or "" for name in names) if any(names) else None,
        "colors": tuple(color.name for color in colors),
        "scales": scales if scaled else None,
        "offsets": offsets if scaled else None,
        "gcps": len(raster.gcps[0]),
        "control": _control(raster),
        "rpcs": raster.rpcs is not None,
    }


def _control(raster: Any) -> ControlPoints | None:
    """The ground control points that place a raster without a transform."""
    points, crs = raster.gcps
    if not points or crs is None or not raster.transform.is_identity:
        return None
    return ControlPoints(tuple((p.row, p.col, p.x, p.y) for p in points), crs_code(crs))


def _acquired(raster: Any) -> str | None:
    """When the image was taken, where GDAL knows it: ``2020-01-02 03:04:05``, UTC."""
    text = str(raster.tags(ns="IMAGERY").get("ACQUISITIONDATETIME", ""))
    found = re.match(r"(\d{4}-\d\d-\d\d)[ T](\d\d:\d\d:\d\d)", text)
    return f"{found[1]}T{found[2]}Z" if found else None


def _resolution(raster: Any) -> tuple[float | None, float | None]:
    """Micrometres per px along y and x, of a TIFF file that isn't georeferenced."""
    tags = raster.tags()
    tag = tags.get("TIFFTAG_RESOLUTIONUNIT", "")[:1]
    unit = resolution_unit(tags.get("TIFFTAG_IMAGEDESCRIPTION", ""), int(tag) if tag.isdigit() else 0)
    if unit is None or raster.crs or not raster.transform.is_identity:
        return None, None
    per_unit = (tags.get(f"TIFFTAG_{axis}RESOLUTION", "0") for axis in "YX")
    y, x = (micrometres(1 / float(number), unit) if float(number) > 0 else None for number in per_unit)
    return y, x


def white(raster: Any, source: str) -> int | None:
    """The highest value, of a TIFF file whose 0 is white; GDAL returns its values as they are stored."""
    if raster.tags(ns="IMAGE_STRUCTURE").get("MINISWHITE") != "YES":
        return None
    dtype = np.dtype(raster.dtypes[0])
    if dtype.kind != "u":
        raise OpenError(
            f"{source}: 0 is white, of type {dtype}; possible is that for whole numbers from 0 only"
        )
    bits = raster.tags(1, ns="IMAGE_STRUCTURE").get("NBITS", 8 * dtype.itemsize)
    return (1 << int(bits)) - 1


def image_bands(raster: Any, source: str) -> list[int]:
    """Numbers of the bands that aren't alpha, from 1."""
    from rasterio.enums import ColorInterp

    bands = [i + 1 for i, meaning in enumerate(raster.colorinterp) if meaning != ColorInterp.alpha]
    if not bands:
        parts = ", ".join(raster.subdatasets[:20])
        if parts:
            raise OpenError(f"{source}: {len(raster.subdatasets)} variables; give the name of one: {parts}")
        raise OpenError(f"{source}: it has no bands; give an image")
    if ColorInterp.cyan in raster.colorinterp:
        raise OpenError(
            f"{source}: colours as inks (CMYK); possible are grey, RGB and palettes; convert the file to RGB"
        )
    dtypes = {raster.dtypes[band - 1] for band in bands}
    if len(dtypes) > 1 or any("complex" in dtype or np.dtype(dtype).kind not in "uif" for dtype in dtypes):
        raise OpenError(
            f"{source}: bands of type {', '.join(sorted(dtypes))}; possible is one type for all, of whole "
            "numbers or floats; convert it with gdal_translate -ot"
        )
    return bands


def is_one_strip(raster: Any) -> bool:
    """Whether a TIFF is stored as one strip, which GDAL shows as rows."""
    if raster.driver != "GTiff" or raster.block_shapes[0][0] > 1 or raster.height == 1:
        return False
    first, second = (raster.get_tag_item(f"BLOCK_OFFSET_0_{row}", "TIFF", bidx=1) for row in (0, 1))
    return first is not None and second is None


def is_by_band(raster: Any) -> bool:
    """Whether blocks hold one band each."""
    return getattr(raster.interleaving, "value", None) == "BAND"
