"""Files beside an image that say where it lies and what of it is valid, as GDAL finds them."""

import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path, PurePosixPath
from typing import Any
from urllib.parse import urlsplit

import numpy as np

from hiresattn.pyramid.formats.gdal import GdalFile, has_credentials, world_files
from hiresattn.pyramid.formats.rastermeta import metadata
from hiresattn.pyramid.metadata import Metadata
from hiresattn.pyramid.storage.ranges import MOST_SECONDS, RequestStats
from hiresattn.pyramid.storage.web import start_of

#: What an ``.aux.xml`` file may hold that matters here; most hold statistics only.
_FACTS = (b"<GeoTransform", b"<SRS", b"<NoDataValue", b"<GCPList")
#: Most bytes of an ``.aux.xml`` file that are looked at.
_HEAD = 1 << 20
#: Bytes of others that show what they are.
_START = 64
#: From here on a status says nothing of the file.
_SERVER_ERROR = 500


def has_sidecar(source: str) -> bool:
    """Whether a mask, overviews, a world file, or an ``.aux.xml`` file with more than statistics lies beside a file."""
    path = Path(source)
    names = [f"{path.name}.msk", f"{path.name}.ovr"]
    names += [f"{path.stem}.{end}" for word in world_files(path.suffix) for end in (word, word.upper())]
    if any(path.with_name(name).is_file() for name in names):
        return True
    aux = path.with_name(f"{path.name}.aux.xml")
    if not aux.is_file():
        return False
    with aux.open("rb") as file:
        head = file.read(_HEAD)
    return any(fact in head for fact in _FACTS)


def may_have_sidecar(
    url: str, *, placed: bool, overviews: bool, requests: RequestStats | None = None
) -> bool:
    """As ``has_sidecar``, of an image behind ``http://`` or ``https://``; true also where only GDAL can find out.

    Args:
        url: Its address. One with a query has nothing beside it.
        placed: Whether the image itself says where it lies, so that no world file is asked for.
        overviews: Whether it has overviews inside, so that none beside it are asked for.
        requests: Where what is asked is counted.
    """
    from http.client import HTTPException

    parts = urlsplit(url)
    if parts.query:
        return False
    if parts.username or has_credentials():
        return True
    path = PurePosixPath(parts.path)
    names = [f"{parts.path}.msk", f"{parts.path}.aux.xml"]
    names += [] if overviews else [f"{parts.path}.ovr"]
    names += [] if placed else [str(path.with_suffix(f".{end}")) for end in world_files(path.suffix)]
    deadline = time.monotonic() + MOST_SECONDS.get()

    def there(name: str) -> bool:
        count = _HEAD if name.endswith(".aux.xml") else _START
        try:
            status, head = start_of(parts._replace(path=name).geturl(), count, deadline)
        except (OSError, HTTPException):
            return True
        asked.append(len(head))
        return status >= _SERVER_ERROR or (status in (200, 206) and _is_sidecar(name, head))

    asked: list[int] = []
    with ThreadPoolExecutor(len(names)) as pool:
        found = any(list(pool.map(there, names)))
    if requests is not None:
        requests.count, requests.bytes = requests.count + len(asked), requests.bytes + sum(asked)
    return found


def _is_sidecar(name: str, head: bytes) -> bool:
    """Whether a file that starts so says anything of an image; many servers answer any name with a page."""
    if name.endswith(".aux.xml"):
        return any(fact in head for fact in _FACTS)
    if name.endswith((".msk", ".ovr")):
        return head[:2] in (b"II", b"MM")
    return head.lstrip()[:1] in b"+-.0123456789"


def gdal_file(source: str, requests: RequestStats | None = None) -> GdalFile:
    """A file as GDAL opens it, with what lies beside it; a web server is asked for that first, all of it at once.

    ``requests`` is where that is counted.
    """
    if not source.startswith(("http://", "https://")):
        return GdalFile(source)
    file = GdalFile(source, alone=True)
    with file.first() as raster:
        placed, overviews = is_placed(raster), bool(raster.overviews(1))
    more = may_have_sidecar(source, placed=placed, overviews=overviews, requests=requests)
    return GdalFile(source) if more else file


def is_placed(raster: Any) -> bool:
    """Whether an image says itself where it lies."""
    return bool(not raster.transform.is_identity or raster.gcps[0])


def with_sidecars(source: str, meta: Metadata) -> tuple[Metadata, np.ndarray | None]:
    """What GDAL adds to an image without a pyramid: CRS, transform, nodata, and a mask ``[h w]`` where it has one."""
    from rasterio.enums import MaskFlags

    with GdalFile(source).first() as raster:
        bands = list(raster.indexes)[: meta.channels]
        found = metadata(raster, meta.levels, bands, meta.mpp, meta.nodata)
        masked = MaskFlags.per_dataset in raster.mask_flag_enums[0] and len(raster.indexes) == meta.channels
        mask = raster.read_masks(1) > 0 if masked else None
    return replace(meta, crs=found.crs, transform=found.transform, nodata=found.nodata), mask
