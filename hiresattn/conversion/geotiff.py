"""Cloud-optimised GeoTIFF, by GDAL's driver. The levels are ours: GDAL's are averages of rounded averages."""

from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any
from xml.etree import ElementTree as ET

import numpy as np

from hiresattn.conversion.image import Image
from hiresattn.conversion.levels import Block
from hiresattn.errors import ConfigError
from hiresattn.pyramid.formats.gdal import GdalFile
from hiresattn.pyramid.formats.quiet import quiet

#: What ``compression`` may be.
COMPRESSIONS = ("deflate", "zstd", "lzw", "jpeg", "none")

#: Bits of TIFF's NewSubfileType.
_SUBFILE_TYPE, _REDUCED, _MASK = 254, 1, 4

#: Side of a tile of the intermediate files, px.
_TILE = 512

#: GDAL's cache, bytes.
_CACHE = 1 << 26

_UM_PER_CM = 10_000

#: Tags that describe px which are no longer there.
_STALE = ("STATISTICS_", "TIFFTAG_XRESOLUTION", "TIFFTAG_YRESOLUTION", "TIFFTAG_RESOLUTIONUNIT")


class CogWriter:
    """Writes blocks to one intermediate file per level, and those to a COG.

    Tags, band names, scales, offsets, units and ground control points of a source that GDAL reads are kept.

    Args:
        path: File to make; the intermediate files are written beside it.
        image: What is written.
        sizes: Rows and columns of each level.
        chunk: Side of a tile, px.
        compression: One of ``COMPRESSIONS``.
        quality: Of JPEG, 1 to 100.
        sparse: Whether the intermediate files are to hold no px.

    Raises:
        ConfigError: If a COG can't hold pixels of this type, or JPEG can't.
    """

    def __init__(
        self,
        path: Path,
        image: Image,
        sizes: list[tuple[int, int]],
        *,
        chunk: int,
        compression: str,
        quality: int,
        sparse: bool = False,
    ) -> None:
        _check(image, compression)
        self._path = path
        self._options = {
            "BLOCKSIZE": chunk,
            "COMPRESS": compression.upper(),
            "BIGTIFF": "IF_SAFER",
            "OVERVIEWS": "FORCE_USE_EXISTING",
            **({"QUALITY": quality} if compression == "jpeg" else {}),
            **({"PREDICTOR": "YES"} if compression in ("deflate", "zstd", "lzw") else {}),
        }
        self._masked, self._sparse = False, sparse
        self._placed = image.pyramid.crs is not None or image.transform is not None
        self._levels: list[Any] = []
        self._valid: list[Any] = []
        for k, size in enumerate(sizes):
            empty = {"sparse_ok": True} if sparse else {}
            profile = empty if k else _profile(image) | empty
            self._levels.append(
                _file(path.with_name(f"level{k}.tif"), size, image.channels, image.dtype, profile)
            )
            self._valid.append(_file(path.with_name(f"valid{k}.tif"), size, 1, np.dtype(np.uint8), empty))
        with environment():
            _describe(self._levels[0], image)

    def write(self, block: Block) -> None:
        """Write one block."""
        from rasterio.windows import Window

        height, width = block.data.shape[1:]
        window = Window(block.x, block.y, width, height)
        measured = np.full((height, width), 255, np.uint8)
        if block.valid is not None:
            self._masked = True
            measured *= block.valid
        with environment():
            self._levels[block.level].write(block.data, window=window)
            self._valid[block.level].write(measured, 1, window=window)

    def finish(self) -> None:
        """Write the COG."""
        self._copy()
        if self._masked and not self._placed:
            _hide_masks_of_overviews(self._path)

    def _copy(self) -> None:
        """Copy the intermediate files to the COG."""
        import rasterio.shutil

        self._close_files()
        with environment():
            for level, valid in zip(self._levels, self._valid, strict=True):
                rasterio.shutil.copy(level.name, _virtual(level), driver="VRT")
                self._join(_virtual(level), valid)
            rasterio.shutil.copy(_virtual(self._levels[0]), self._path, driver="COG", **self._options)

    def close(self) -> None:
        """Let go of the intermediate files."""
        self._close_files()

    def _close_files(self) -> None:
        with environment():
            for file in (*self._levels, *self._valid):
                file.close()

    def _join(self, virtual: Path, valid: Any) -> None:
        """Tell a virtual file of a level of its mask, and that of level 0 of the other levels and their masks."""
        tree = ET.parse(virtual)  # noqa: S314 - GDAL wrote it, of a file that we wrote
        root = tree.getroot()
        # without px to copy, GDAL is given no file to read them from
        for band in root.findall("VRTRasterBand") if self._sparse else ():
            for source in band.findall("SimpleSource"):
                band.remove(source)
        first = virtual == _virtual(self._levels[0])
        others = zip(self._levels[1:], self._valid[1:], strict=True) if first else ()
        mask = None
        if self._masked:
            mask = ET.SubElement(ET.SubElement(root, "MaskBand"), "VRTRasterBand", dataType="Byte")
            _refer(ET.SubElement(mask, "SimpleSource"), Path(valid.name), 1)
        for level, measured in others:
            for number, band in enumerate(root.findall("VRTRasterBand"), 1):
                _refer(ET.SubElement(band, "Overview"), _virtual(level), number)
            if mask is not None:
                _refer(ET.SubElement(mask, "Overview"), Path(measured.name), 1)
        tree.write(virtual, encoding="utf-8")


def environment() -> AbstractContextManager[Any]:
    """GDAL with little memory, and masks inside the file that they belong to."""
    import rasterio

    return rasterio.Env(GDAL_CACHEMAX=_CACHE, GDAL_TIFF_INTERNAL_MASK="YES", GDAL_PAM_ENABLED="NO")


def _check(image: Image, compression: str) -> None:
    from rasterio.dtypes import dtype_rev

    source = image.pyramid.source
    if str(image.dtype) not in dtype_rev:
        raise ConfigError(
            f"{source}: a GeoTIFF can't hold {image.dtype}; write OME-Zarr (a name ending in .zarr)"
        )
    if compression == "jpeg" and (image.dtype != np.uint8 or image.channels not in (1, 3)):
        raise ConfigError(
            f"{source}: JPEG holds 1 or 3 bands of 8 bits, and this image has {image.channels} of {image.dtype}; "
            f"possible are {', '.join(name for name in COMPRESSIONS if name != 'jpeg')}"
        )


def _file(
    path: Path, size: tuple[int, int], bands: int, dtype: np.dtype[Any], profile: dict[str, Any]
) -> Any:
    """An intermediate file, open for writing."""
    import rasterio
    from rasterio.errors import NotGeoreferencedWarning

    layout = {"tiled": True, "blockxsize": _TILE, "blockysize": _TILE, "interleave": "pixel"}
    packed = {"compress": "zstd", "zstd_level": 1, "bigtiff": "if_safer"}
    plain = {"photometric": "minisblack", "alpha": "unspecified"}  # else a fourth band becomes alpha
    with environment(), quiet(NotGeoreferencedWarning):
        return rasterio.open(
            path,
            "w",
            driver="GTiff",
            height=size[0],
            width=size[1],
            count=bands,
            dtype=str(dtype),
            **layout,
            **packed,
            **plain,
            **profile,
        )


def _profile(image: Image) -> dict[str, Any]:
    """CRS, transform and nodata."""
    import rasterio

    profile: dict[str, Any] = {}
    if image.pyramid.crs is not None:
        profile["crs"] = rasterio.crs.CRS.from_user_input(image.pyramid.crs)
    if image.transform is not None:
        profile["transform"] = rasterio.Affine(*image.transform)
    if image.mark is not None:
        profile["nodata"] = image.mark
    return profile


def _describe(file: Any, image: Image) -> None:
    """Colours, the scale, and what GDAL knows of the source."""
    from rasterio.enums import ColorInterp

    colours = [ColorInterp.red, ColorInterp.green, ColorInterp.blue]
    colours = (
        colours[: image.channels] if image.channels >= 3 and image.dtype == np.uint8 else [ColorInterp.gray]
    )
    if image.pyramid.backend == "rasterio" and image.pyramid.palette is None:
        colours = _copy_tags(file, image)
    else:
        _copy_fields(file, image)
    file.colorinterp = [*colours, *[ColorInterp.undefined] * (image.channels - len(colours))]
    if image.pyramid.mpp is not None:
        per_cm = f"{_UM_PER_CM / image.pyramid.mpp:.12g}"
        file.update_tags(
            TIFFTAG_XRESOLUTION=per_cm, TIFFTAG_YRESOLUTION=per_cm, TIFFTAG_RESOLUTIONUNIT="3 (pixels/cm)"
        )


def _copy_tags(file: Any, image: Image) -> list[Any]:
    """What GDAL knows of the source besides its px, and the meanings of the bands."""
    from rasterio.control import GroundControlPoint
    from rasterio.enums import ColorInterp

    with GdalFile(image.pyramid.source).first() as raster:
        numbers = [i for i, kind in enumerate(raster.colorinterp, 1) if kind != ColorInterp.alpha]
        file.update_tags(**_fresh(raster.tags()))
        for new, old in enumerate(numbers, 1):
            file.update_tags(new, **_fresh(raster.tags(old)))
            if raster.descriptions[old - 1]:
                file.set_band_description(new, raster.descriptions[old - 1])
            if raster.units[old - 1]:
                file.set_band_unit(new, raster.units[old - 1])
        file.scales = [raster.scales[old - 1] for old in numbers]
        file.offsets = [raster.offsets[old - 1] for old in numbers]
        points, crs = raster.gcps
        if points and image.transform is None:
            y, x = image.region[:2]
            moved = [GroundControlPoint(p.row - y, p.col - x, p.x, p.y, p.z, p.id, p.info) for p in points]
            file.gcps = (moved, crs)
        if raster.rpcs is not None and image.region[:2] == (0, 0):  # they count px from the first
            file.rpcs = raster.rpcs
        return [raster.colorinterp[old - 1] for old in numbers]


def _copy_fields(file: Any, image: Image) -> None:
    """Names, scales and offsets of the bands, of a source that GDAL doesn't read."""
    for number, name in enumerate(image.per_band("channel_names") or (), 1):
        file.set_band_description(number, name)
    for name in ("scales", "offsets"):
        values = image.per_band(name)
        if values is not None:
            setattr(file, name, values)


def _fresh(tags: dict[str, str]) -> dict[str, str]:
    return {key: value for key, value in tags.items() if not key.startswith(_STALE)}


def _hide_masks_of_overviews(path: Path) -> None:
    """Of a slide: OpenSlide takes every directory called reduced for a level, masks too; level 0's mask is enough."""
    import tifffile

    with tifffile.TiffFile(path, mode="r+") as tif:
        for page in tif.pages:
            tag = page.aspage().tags.get(_SUBFILE_TYPE)
            if tag is not None and int(tag.value) == _REDUCED | _MASK:
                tag.overwrite(_MASK)


def _virtual(level: Any) -> Path:
    """The virtual file of an intermediate one."""
    return Path(level.name).with_suffix(".vrt")


def _refer(element: ET.Element, path: Path, band: int) -> None:
    """Point to a band of a file beside."""
    ET.SubElement(element, "SourceFilename", relativeToVRT="1").text = path.name
    ET.SubElement(element, "SourceBand").text = str(band)
