"""Folders of Sentinel-2 (SAFE) and Landsat as files to choose bands from."""

import re
from collections.abc import Iterator
from pathlib import Path

from hiresattn.errors import HiresattnError
from hiresattn.files import read_bounded
from hiresattn.pyramid.stack import Layer, Stack

#: STAC's common names of bands.
_SENTINEL = {
    "B01": "coastal",
    "B02": "blue",
    "B03": "green",
    "B04": "red",
    "B05": "rededge071",
    "B06": "rededge075",
}
_SENTINEL |= {
    "B07": "rededge078",
    "B08": "nir",
    "B8A": "nir08",
    "B09": "nir09",
    "B10": "cirrus",
    "B11": "swir16",
}
_SENTINEL |= {"B12": "swir22"}
_OLI = {
    "B1": "coastal",
    "B2": "blue",
    "B3": "green",
    "B4": "red",
    "B5": "nir08",
    "B6": "swir16",
    "B7": "swir22",
}
_OLI |= {"B8": "pan", "B9": "cirrus", "B10": "lwir11", "B11": "lwir12"}
_TM = {"B1": "blue", "B2": "green", "B3": "red", "B4": "nir08", "B5": "swir16", "B7": "swir22", "B8": "pan"}

_SENTINEL_FILE = re.compile(r"_(B\d[\dA])(?:_(\d\d)m)?\.jp2$", re.IGNORECASE)
_LANDSAT_FILE = re.compile(r"^L[COTEM]0?(\d).*_(B\d{1,2})\.TIF$", re.IGNORECASE)
_NODATA = re.compile(
    rb"<SPECIAL_VALUE_TEXT>\s*NODATA\s*</SPECIAL_VALUE_TEXT>\s*<SPECIAL_VALUE_INDEX>\s*(-?\d+)\s*<"
)
_STARTED = re.compile(rb"<PRODUCT_START_TIME>\s*([^<\s]+)\s*<")
_DAY = re.compile(rb"DATE_ACQUIRED = (\S+).*?SCENE_CENTER_TIME = \"?(\d\d:\d\d:\d\d)", re.DOTALL)
_MOST_BYTES = 64 << 20


def product_of(folder: str | Path) -> Stack | None:
    """The bands of a folder that is a scene of Sentinel-2 or Landsat; None = it is neither.

    Of a band in several resolutions the finest file is taken. What stands for "not measured" and the time are as the
    folder's own metadata say.
    """
    path = Path(folder)
    try:
        layers, taken = _sentinel(path) if path.suffix.upper() == ".SAFE" else _landsat(path)
    except OSError:
        return None
    return Stack(tuple(layers), name=str(folder), acquired=taken, choose=True) if len(layers) > 1 else None


def _sentinel(folder: Path) -> tuple[list[Layer], str | None]:
    found: dict[str, tuple[int, Path]] = {}
    for path in sorted(folder.glob("GRANULE/*/IMG_DATA/**/*.jp2")):
        name = _SENTINEL_FILE.search(path.name)
        if name:
            band, metres = name[1].upper(), int(name[2] or 0)
            if band not in found or metres < found[band][0]:
                found[band] = (metres, path)
    text = next(_texts(folder, "MTD_MSIL*.xml"), b"")
    nodata, started = _NODATA.search(text), _STARTED.search(text)
    value = float(nodata[1]) if nodata else None
    layers = [
        Layer(str(path), band, colors=(_SENTINEL.get(band, "undefined"),), nodata=value)
        for band, (_, path) in sorted(found.items())
    ]
    return layers, started[1].decode() if started else None


def _landsat(folder: Path) -> tuple[list[Layer], str | None]:
    layers = []
    for path in sorted(folder.iterdir()):
        name = _LANDSAT_FILE.match(path.name)
        if name:
            band = name[2].upper()
            shows = (_OLI if int(name[1]) >= 8 else _TM).get(band, "undefined")
            layers.append(Layer(str(path), band, colors=(shows,)))
    day = _DAY.search(next(_texts(folder, "*_MTL.txt"), b"")) if layers else None
    return layers, f"{day[1].decode()}T{day[2].decode()}Z" if day else None


def _texts(folder: Path, pattern: str) -> Iterator[bytes]:
    for path in sorted(folder.glob(pattern)):
        try:
            yield read_bounded(path, _MOST_BYTES)
        except (OSError, HiresattnError):
            continue
