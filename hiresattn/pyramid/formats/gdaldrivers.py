"""What GDAL may open: formats that are files, by their content; and of a virtual raster only what lies beside it."""

import os
import xml.etree.ElementTree as ET
from pathlib import Path

from hiresattn.errors import OpenError
from hiresattn.files import read_bounded

#: GDAL drivers of formats that are rasters in files. None of them asks a server.
DRIVERS = (
    "AAIGrid",
    "BAG",
    "BIGGIF",
    "BMP",
    "BSB",
    "BT",
    "CEOS",
    "COG",
    "DIMAP",
    "DTED",
    "EHdr",
    "ENVI",
    "ERS",
    "GIF",
    "GPKG",
    "GRASSASCIIGrid",
    "GRIB",
    "GS7BG",
    "GSAG",
    "GSBG",
    "GTX",
    "GTiff",
    "GXF",
    "HDF4",
    "HDF4Image",
    "HDF5",
    "HDF5Image",
    "HFA",
    "ILWIS",
    "ISIS2",
    "ISIS3",
    "JP2ECW",
    "JP2KAK",
    "JP2MrSID",
    "JP2OpenJPEG",
    "JPEG",
    "JPEG2000",
    "JPEGXL",
    "KEA",
    "LCP",
    "MBTiles",
    "MFF",
    "NITF",
    "PAux",
    "PCIDSK",
    "PCRaster",
    "PDS",
    "PDS4",
    "PNG",
    "PNM",
    "RMF",
    "RRASTER",
    "RST",
    "S102",
    "SAFE",
    "SAGA",
    "SENTINEL2",
    "SGI",
    "SNAP_TIFF",
    "SRTMHGT",
    "TGA",
    "TIL",
    "TSX",
    "Terragen",
    "USGSDEM",
    "VICAR",
    "WEBP",
    "XYZ",
    "ZMap",
    "Zarr",
    "netCDF",
)
#: Set to 1, virtual rasters may name sources anywhere.
ANYWHERE = "HIRESATTN_VRT_ANYWHERE"
_VRT = b"<VRTDataset"
_MOST_BYTES, _DEEPEST = 64 << 20, 4


def allowed_drivers(path: str) -> tuple[str, ...]:
    """Drivers that may open a file; a virtual raster only where it is a local file whose sources were checked."""
    return (*DRIVERS, "VRT") if is_vrt(path) else DRIVERS


def is_vrt(path: str | os.PathLike[str]) -> bool:
    """Whether a local file is a virtual raster, by its content."""
    if not Path(path).is_file():
        return False
    with Path(path).open("rb") as file:
        return _VRT in file.read(1024)


def vrt_sources(path: str | os.PathLike[str], *, depth: int = 0) -> list[Path]:
    """The local files that a virtual raster reads, those of its sources included.

    Raises:
        OpenError: If it can't be understood, has raw bands, or names a source outside its folder.
    """
    try:
        root = ET.fromstring(read_bounded(path, _MOST_BYTES))  # noqa: S314 - bounded, and expat bounds entities
    except (ET.ParseError, OSError, ValueError) as error:
        raise OpenError(
            f"{path}: a virtual raster that can't be understood ({error}); build it again"
        ) from error
    if any("Raw" in band.get("subClass", "") for band in root.iter("VRTRasterBand")):
        raise OpenError(
            f"{path}: a virtual raster with raw bands, which read any bytes of any file; build it of images"
        )
    if os.environ.get(ANYWHERE) == "1":
        return []
    folder = Path(path).resolve().parent
    found: list[Path] = []
    for node in (*root.iter("SourceFilename"), *root.iter("SourceDataset")):
        name = (node.text or "").strip()
        source = folder / name if node.get("relativeToVRT") == "1" else Path(os.path.abspath(name))  # noqa: PTH100
        if depth >= _DEEPEST or not source.resolve().is_relative_to(folder):
            raise OpenError(
                f"{path}: a virtual raster whose source {name!r} doesn't lie beside it; move it there, or set "
                f"{ANYWHERE}=1 where you trust the file"
            )
        if source not in found:
            found.append(source)
            if is_vrt(source):
                found += vrt_sources(source, depth=depth + 1)
    return found
