"""Files beside an image that say where it lies and what of it is valid, as GDAL finds them."""

from dataclasses import replace
from pathlib import Path

import numpy as np

from hiresattn.pyramid.base import Metadata
from hiresattn.pyramid.formats.gdal import GdalFile
from hiresattn.pyramid.formats.rastermeta import metadata

#: What an ``.aux.xml`` file may hold that matters here; most hold statistics only.
_FACTS = (b"<GeoTransform", b"<SRS", b"<NoDataValue", b"<GCPList")
#: Most bytes of an ``.aux.xml`` file that are looked at.
_HEAD = 1 << 20


def has_sidecar(source: str) -> bool:
    """Whether a mask, overviews, a world file, or an ``.aux.xml`` file with more than statistics lies beside a file."""
    path = Path(source)
    suffix = path.suffix[1:].lower()
    world = {"wld", f"{suffix}w", f"{suffix[:1]}{suffix[-1:]}w"} if suffix else {"wld"}
    names = [f"{path.name}.msk", f"{path.name}.ovr"]
    names += [f"{path.stem}.{end}" for word in world for end in (word, word.upper())]
    if any(path.with_name(name).is_file() for name in names):
        return True
    aux = path.with_name(f"{path.name}.aux.xml")
    if not aux.is_file():
        return False
    with aux.open("rb") as file:
        head = file.read(_HEAD)
    return any(fact in head for fact in _FACTS)


def with_sidecars(source: str, meta: Metadata) -> tuple[Metadata, np.ndarray | None]:
    """What GDAL adds to an image without a pyramid: CRS, transform, nodata, and a mask ``[h w]`` where it has one."""
    from rasterio.enums import MaskFlags

    with GdalFile(source).first() as raster:
        bands = list(raster.indexes)[: meta.channels]
        found = metadata(raster, meta.levels, bands, meta.mpp, meta.nodata)
        masked = MaskFlags.per_dataset in raster.mask_flag_enums[0] and len(raster.indexes) == meta.channels
        mask = raster.read_masks(1) > 0 if masked else None
    return replace(meta, crs=found.crs, transform=found.transform, nodata=found.nodata), mask
