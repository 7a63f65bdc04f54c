"""Virtual rasters: which files they read, all of which must lie beside them, and where they have none."""

import os
import xml.etree.ElementTree as ET
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from hiresattn.errors import OpenError
from hiresattn.files import is_remote, read_bounded

#: Set to 1, virtual rasters may name sources anywhere.
ANYWHERE = "HIRESATTN_VRT_ANYWHERE"
_VRT = b"<VRTDataset"
_MOST_BYTES, _DEEPEST = 64 << 20, 4


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
    anywhere = os.environ.get(ANYWHERE) == "1"
    folder = Path(path).resolve().parent
    nodes = {
        ((node.text or "").strip(), node.get("relativeToVRT")): node
        for node in (*root.iter("SourceFilename"), *root.iter("SourceDataset"))
    }
    found: dict[Path, None] = {}
    for (name, _), node in nodes.items():
        if anywhere and is_remote(name):
            continue
        source = _local(node, folder)
        if depth >= _DEEPEST or not (anywhere or source.resolve().is_relative_to(folder)):
            raise OpenError(
                f"{path}: a virtual raster whose source {name!r} doesn't lie beside it; move it there, or set "
                f"{ANYWHERE}=1 where you trust the file"
            )
        found[source] = None
        if is_vrt(source):
            found |= dict.fromkeys(vrt_sources(source, depth=depth + 1))
    return list(found)


def vrt_addresses(path: str | os.PathLike[str], *, depth: int = 0) -> list[str]:
    """The files on servers that a virtual raster reads, as it calls them, those of its sources included."""
    if os.environ.get(ANYWHERE) != "1":
        return []
    try:
        root = ET.fromstring(read_bounded(path, _MOST_BYTES))  # noqa: S314 - as above
    except (ET.ParseError, OSError, ValueError):  # which ``vrt_sources`` says
        return []
    found: dict[str, None] = {}
    for node in (*root.iter("SourceFilename"), *root.iter("SourceDataset")):
        name = (node.text or "").strip()
        source = _local(node, Path(path).resolve().parent)
        if is_remote(name):
            found[name] = None
        elif depth < _DEEPEST and is_vrt(source):
            found |= dict.fromkeys(vrt_addresses(source, depth=depth + 1))
    return list(found)


def _local(node: ET.Element, folder: Path) -> Path:
    """The file on this machine that a node of a virtual raster in a folder names."""
    name = (node.text or "").strip()
    return folder / name if node.get("relativeToVRT") == "1" else Path(os.path.abspath(name))  # noqa: PTH100


def vrt_places(path: str | os.PathLike[str], bands: Sequence[int]) -> dict[int, np.ndarray] | None:
    """Where the sources of a virtual raster lie; elsewhere it holds no pixel, whatever GDAL returns.

    Of a source that is a virtual raster itself, where the sources of that lie.

    Args:
        path: A file that ``vrt_sources`` accepted.
        bands: Numbers of the bands, from 1.

    Returns:
        By band ``(y, x, height, width)`` of each source, float ``[n 4]``, px of level 0; None if sources don't say
        it all, as where they are warped or computed.

    Raises:
        OpenError: If a place is no number.
    """
    root = ET.fromstring(read_bounded(path, _MOST_BYTES))  # noqa: S314 - as above
    if root.get("subClass"):
        return None
    nodes = dict(enumerate(root.findall("VRTRasterBand"), start=1))
    whole = np.array([0.0, 0.0, *(float(root.get(side, "0")) for side in ("rasterYSize", "rasterXSize"))])
    found = {}
    for number in bands:
        node = nodes.get(number)
        if node is None or "Derived" in node.get("subClass", ""):
            return None
        places = [_source_places(path, source, whole) for source in node if source.tag.endswith("Source")]
        found[number] = np.concatenate([np.zeros((0, 4)), *places])
        if not np.isfinite(found[number]).all():
            raise OpenError(f"{path}: band {number} has a source without a place; build it again")
    return found


def _source_places(path: str | os.PathLike[str], source: ET.Element, whole: np.ndarray) -> np.ndarray:
    """Where the px of one source of a band lie ``[n 4]``."""
    to = _rectangle(source.find("DstRect"), whole)
    name = source.find("SourceFilename")
    text = "" if name is None else (name.text or "").strip()
    nested = Path(path).parent / text if name is not None and name.get("relativeToVRT") == "1" else Path(text)
    if not text or not is_vrt(nested):
        return to[None]
    number = int(source.findtext("SourceBand", "1"))
    inner = vrt_places(nested, [number])
    if inner is None:
        return to[None]
    size = ET.fromstring(read_bounded(nested, _MOST_BYTES))  # noqa: S314 - as above
    everything = np.array(
        [0.0, 0.0, *(float(size.get(side, "0")) for side in ("rasterYSize", "rasterXSize"))]
    )
    of = _rectangle(source.find("SrcRect"), everything)
    scale = to[2:] / of[2:]
    start = np.maximum(inner[number][:, :2], of[:2])
    stop = np.minimum(inner[number][:, :2] + inner[number][:, 2:], of[:2] + of[2:])
    some = (start < stop).all(axis=1)
    start, stop = ((edge[some] - of[:2]) * scale + to[:2] for edge in (start, stop))
    return np.concatenate([start, stop - start], axis=1)


def _rectangle(node: ET.Element | None, whole: np.ndarray) -> np.ndarray:
    """``(y, x, height, width)`` of a rectangle in a virtual raster; the whole where it isn't named."""
    if node is None:
        return whole
    return np.array([float(node.get(name, "0")) for name in ("yOff", "xOff", "ySize", "xSize")])


def with_coverage(path: str | os.PathLike[str]) -> str | None:
    """A warped virtual raster with a band more, in which GDAL says where its source lies: alpha.

    Args:
        path: The virtual raster.

    Returns:
        Its XML; None where that is known without: it isn't warped, or has alpha or a nodata value.
    """
    try:
        root = ET.fromstring(read_bounded(path, _MOST_BYTES))  # noqa: S314 - as above
    except (ET.ParseError, OSError, ValueError):  # which ``vrt_sources`` says
        return None
    options, bands = root.find("GDALWarpOptions"), root.findall("VRTRasterBand")
    if root.get("subClass") != "VRTWarpedDataset" or options is None or not bands:
        return None
    told = options.find("DstAlphaBand") is not None or any(
        band.find("NoDataValue") is not None for band in bands
    )
    if told or any(band.findtext("ColorInterp") == "Alpha" for band in bands):
        return None
    number = str(len(bands) + 1)
    band = ET.SubElement(root, "VRTRasterBand", dataType="Byte", band=number, subClass="VRTWarpedRasterBand")
    ET.SubElement(band, "ColorInterp").text = "Alpha"
    ET.SubElement(options, "DstAlphaBand").text = number
    for source in options.iter("SourceDataset"):
        if source.get("relativeToVRT") == "1":
            source.set("relativeToVRT", "0")
            source.text = str(Path(path).resolve().parent / (source.text or "").strip())
    return ET.tostring(root, encoding="unicode")


def covered(places: np.ndarray, window: tuple[int, int, int, int], downsample: float) -> np.ndarray:
    """Which px of a window ``(y, x, height, width)`` of a level lie in any of some places, bool ``[h w]``."""
    y, x, height, width = window
    start, stop = places[:, :2], places[:, :2] + places[:, 2:]
    first, last = (np.floor(edge / downsample + 0.5).astype(int) - (y, x) for edge in (start, stop))
    first, last = np.maximum(first, 0), np.minimum(last, (height, width))
    some = (first < last).all(axis=1)
    valid = np.zeros((height, width), bool)
    for (top, left), (bottom, right) in zip(first[some], last[some], strict=True):
        valid[top:bottom, left:right] = True
    return valid
