"""Folders of Sentinel-2 (SAFE) and Landsat as files to choose bands from."""

import json
import re
from collections.abc import Iterator, Sequence
from contextlib import suppress
from math import isfinite
from pathlib import Path
from typing import Any

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

#: Sentinel-2's bands by the number that its metadata have for them.
_BY_NUMBER = ("B01", "B02", "B03", "B04", "B05", "B06", "B07", "B08", "B8A", "B09", "B10", "B11", "B12")
#: The first processing baseline whose values have an offset.
_WITH_OFFSETS = 4.0

_SENTINEL_FILE = re.compile(r"_(B\d[\dA])(?:_(\d\d)m)?\.jp2$", re.IGNORECASE)
_LANDSAT_FILE = re.compile(r"^L[COTEM]0?(\d).*?(?:_(SR|ST))?_(B\d{1,2})\.TIF$", re.IGNORECASE)
_NODATA = re.compile(
    rb"<SPECIAL_VALUE_TEXT>\s*NODATA\s*</SPECIAL_VALUE_TEXT>\s*<SPECIAL_VALUE_INDEX>\s*(-?\d+)\s*<"
)
_STARTED = re.compile(rb"<PRODUCT_START_TIME>\s*([^<\s]+)\s*<")
_BASELINE = re.compile(rb"<PROCESSING_BASELINE>\s*(\d+\.\d+)\s*<")
#: What the values of a product of either level are divided by, and what is added to them before, band by band.
_DIVISOR = re.compile(rb"<(?:L2A_)?(?:BOA_)?QUANTIFICATION_VALUE(?:\s[^>]*)?>\s*([\d.]+)\s*<")
_ADDED = re.compile(rb"<(?:BOA|RADIO)_ADD_OFFSET\s+band_id=\"(\d+)\"[^>]*>\s*(-?[\d.]+)\s*<")
#: Groups of Landsat's metadata, and names of the factors in them, by what a file holds; level 1 has none.
_FACTORS = {
    "SR": (("LEVEL2_SURFACE_REFLECTANCE_PARAMETERS",), "REFLECTANCE_{}_BAND_{}"),
    "ST": (("LEVEL2_SURFACE_TEMPERATURE_PARAMETERS",), "TEMPERATURE_{}_BAND_ST_B{}"),
    "": (("LEVEL1_RADIOMETRIC_RESCALING", "RADIOMETRIC_RESCALING"), "REFLECTANCE_{}_BAND_{}"),
}
_MOST_BYTES = 64 << 20


def product_of(folder: str | Path) -> Stack | None:
    """The bands of a folder that is a scene of Sentinel-2 or Landsat; None = it is neither.

    Of a band in several resolutions the finest file is taken. What stands for "not measured", the time, and which scale
    and offset make reflectance (of Landsat's ``ST`` bands temperature, K) of the values are as the folder's own
    metadata say; what they don't say isn't known. Landsat's level 1 is not corrected for the sun's elevation.

    Source: Sentinel-2 Products Specification Document 14.9; Landsat 8-9 Collection 2 Data Format Control Books.
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
    scaling = _reflectance(text)
    layers = [
        Layer(
            str(path),
            band,
            colors=(_SENTINEL.get(band, "undefined"),),
            nodata=value,
            **_scaled(scaling.get(band)),
        )
        for band, (_, path) in sorted(found.items())
    ]
    return layers, started[1].decode() if started else None


def _reflectance(text: bytes) -> dict[str, tuple[float, float]]:
    """Scale and offset by band, of Sentinel-2's metadata; without those that they leave open."""
    divisor, baseline = _DIVISOR.search(text), _BASELINE.search(text)
    if divisor is None or float(divisor[1]) <= 0:
        return {}
    added = {int(number): float(value) for number, value in _ADDED.findall(text)}
    if not added and baseline is not None and float(baseline[1]) < _WITH_OFFSETS:
        added = dict.fromkeys(range(len(_BY_NUMBER)), 0.0)
    scale = 1 / float(divisor[1])
    return {name: (scale, added[n] * scale) for n, name in enumerate(_BY_NUMBER) if n in added}


def _landsat(folder: Path) -> tuple[list[Layer], str | None]:
    files = [(path, name) for path in sorted(folder.iterdir()) if (name := _LANDSAT_FILE.match(path.name))]
    facts = _landsat_metadata(folder) if files else {}
    layers = []
    for path, name in files:
        band = name[3].upper()
        shows = (_OLI if int(name[1]) >= 8 else _TM).get(band, "undefined")
        groups, factor = _FACTORS[(name[2] or "").upper()]
        pairs = [
            tuple(facts.get(group, {}).get(factor.format(kind, band[1:])) for kind in ("MULT", "ADD"))
            for group in groups
        ]
        layers.append(Layer(str(path), band, colors=(shows,), **_scaled(next(filter(all, pairs), None))))
    every = {key: value for group in facts.values() for key, value in group.items()}
    day, clock = every.get("DATE_ACQUIRED"), every.get("SCENE_CENTER_TIME")
    return layers, f"{day}T{clock[:8]}Z" if day and clock else None


def _landsat_metadata(folder: Path) -> dict[str, dict[str, str]]:
    """Landsat's metadata: values by name, by the group that they are in."""
    for text in _texts(folder, "*_MTL.json"):
        with suppress(ValueError, AttributeError):
            groups = next(iter(json.loads(text).values()))
            return {name: {key: str(value) for key, value in group.items()} for name, group in groups.items()}
    found: dict[str, dict[str, str]] = {}
    group = ""
    for line in next(_texts(folder, "*_MTL.txt"), b"").decode(errors="replace").splitlines():
        key, _, value = (part.strip() for part in line.partition("="))
        if key == "GROUP":
            group = value
        elif value:
            found.setdefault(group, {})[key] = value.strip('"')
    return found


def _scaled(pair: Sequence[Any] | None) -> dict[str, Any]:
    """The fields of a file of one band with a scale and an offset; none where they aren't numbers."""
    try:
        scale, offset = map(float, pair or ())
    except ValueError:
        return {}
    return {"scales": (scale,), "offsets": (offset,)} if scale and isfinite(scale + offset) else {}


def _texts(folder: Path, pattern: str) -> Iterator[bytes]:
    for path in sorted(folder.glob(pattern)):
        try:
            yield read_bounded(path, _MOST_BYTES)
        except (OSError, HiresattnError):
            continue
