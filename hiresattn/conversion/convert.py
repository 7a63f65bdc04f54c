"""From a source to a finished file: choose, write, check, move to the target."""

import math
import os
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from hiresattn.conversion import geotiff, jpegcog, omezarr
from hiresattn.conversion.image import Image
from hiresattn.conversion.levels import level_sizes, make_levels
from hiresattn.conversion.target import beside, checked_target, writing
from hiresattn.conversion.verify import verify
from hiresattn.errors import ConfigError
from hiresattn.option_types import changed, check_types
from hiresattn.pyramid import Pyramid, open_pyramid
from hiresattn.pyramid.pixels import note_alpha

#: Format → endings of names that mean it.
FORMATS = {"zarr": (".zarr",), "cog": (".tif", ".tiff")}

_COMPRESSIONS = {"zarr": omezarr.COMPRESSIONS, "cog": geotiff.COMPRESSIONS}

#: Level sides up to this need no coarser level, px.
_COARSEST = 256

#: Largest side of a block, px, and bytes of one where none is asked for.
_SIDE, _BLOCK_BYTES = 2048, 1 << 24
#: Of one whose tiles are encoded by themselves: it may be smaller.
_TILES_BYTES = 1 << 22

#: Smallest and largest side of a chunk or shard, px.
_SMALLEST, _LARGEST = 16, 1 << 14


@dataclass(frozen=True, slots=True)
class Conversion:
    """What was made of what."""

    source: str
    """Path or address."""
    target: str
    """Path."""
    format: str
    """``zarr`` or ``cog``."""
    compression: str
    """Of the chunks."""
    width: int
    """Columns of level 0."""
    height: int
    """Rows of level 0."""
    channels: int
    """Bands."""
    dtype: str
    """Type of the px."""
    levels: int
    """Levels, the finest included."""
    bytes: int
    """Size of the result."""
    windows_checked: int
    """Windows that were read back and compared."""
    largest_error: float | None
    """Largest difference found of a level's px from the mean of what it shows; None after lossy compression."""
    seconds: float
    """Time taken."""
    notes: tuple[str, ...]
    """What isn't kept as it was, in words."""

    def to_json(self) -> dict[str, Any]:
        """The fields as JSON types."""
        return {**asdict(self), "notes": list(self.notes)}


@dataclass(frozen=True)
class ConvertOptions:
    """How to convert.

    Raises:
        ConfigError: If a value is out of bounds, or a name is unknown.
    """

    format: str | None = None
    """``zarr`` (OME-Zarr 0.5) or ``cog``; None = by the target's suffix."""
    levels: int | None = None
    """Number of levels, the finest included; None = until the longer side is at most 256 px."""
    chunk: int = 256
    """Side of a tile, px; a power of two."""
    shard: int | None = None
    """OME-Zarr: side of a shard, a file of many tiles, px; a power of two. None = 2048, less above 16 MB."""
    compression: str | None = None
    """OME-Zarr: ``zstd`` (default), ``blosc`` (zstd of shuffled bytes), ``none``. COG: ``deflate`` (default), ``zstd``,
    ``lzw``, ``none``, or ``jpeg``, which is lossy."""
    quality: int = 85
    """Quality of ``jpeg``, 1 to 100."""
    region: tuple[int, int, int, int] | None = None
    """Convert this window only, ``(y, x, height, width)``, level-0 px."""
    mpp: float | None = None
    """Micrometres per level-0 px, in place of what the source says."""
    nodata: float | None = None
    """Stored value of px that were not measured, in place of what the source says."""
    overwrite: bool = False
    """Replace a file or a Zarr directory."""
    threads: int = 1
    """Threads that read."""

    def __post_init__(self) -> None:
        check_types(self)
        if self.format is not None and self.format not in FORMATS:
            raise ConfigError(f"format {self.format!r}: possible are {', '.join(FORMATS)}")
        for name, side in (("chunk", self.chunk), ("shard", self.shard)):
            if side is not None and not (_SMALLEST <= side <= _LARGEST and side & (side - 1) == 0):
                raise ConfigError(f"{name}={side}: possible are powers of two from {_SMALLEST} to {_LARGEST}")
        if self.shard is not None and self.shard < self.chunk:
            raise ConfigError(f"shard={self.shard} is smaller than chunk={self.chunk}")
        if self.mpp is not None and not 0 < self.mpp < math.inf:
            raise ConfigError(f"mpp={self.mpp}: it is a number of micrometres above 0")
        if not 1 <= self.quality <= 100:
            raise ConfigError(f"quality={self.quality}: possible are 1 to 100")
        if self.threads < 1:
            raise ConfigError(f"threads={self.threads}: at least one must read")


def convert(
    source: Any,
    target: str | os.PathLike[str],
    options: ConvertOptions | None = None,
    *,
    progress: Callable[[float, str], None] = lambda _share, _step: None,
    **changes: Any,
) -> Conversion:
    """Write an image as OME-Zarr 0.5 or as a cloud-optimised GeoTIFF, with levels down to 256 px.

    The source's finest level is read once, in blocks, and no more than a few blocks are in memory. A px of a
    coarser level is the mean of the valid level-0 px below it. The target is written whole, after a comparison with
    the source, or not at all.

    Args:
        source: What ``open_pyramid`` takes: a path, an address, an array (Dask too), a pyramid.
        target: Where to write; its suffix chooses the format, if ``options`` don't.
        options: How to convert; None = the defaults.
        progress: Called with the share done, 0 to 1, and with what is being done.
        changes: Fields of ``options`` to set, such as ``compression="blosc"``.

    Returns:
        What was made.

    Raises:
        ConfigError: If an option, or the target, can't be used.
        OpenError: If the source can't be opened.
        RegionError: If the region isn't inside the image.
        ReadError: If a tile of the source can't be decoded.
        WriteError: If the target can't be written, or isn't what was meant.

    Examples:
        >>> hiresattn.convert("slide.svs", "slide.ome.zarr", threads=4).bytes
    """
    start = time.perf_counter()
    asked = changed(options, changes, ConvertOptions)
    path = checked_target(source, target, overwrite=asked.overwrite)
    chosen = asked.format or _format(path)
    compression = asked.compression or _COMPRESSIONS[chosen][0]
    if compression not in _COMPRESSIONS[chosen]:
        raise ConfigError(
            f"compression {compression!r}: possible for {chosen} are {', '.join(_COMPRESSIONS[chosen])}"
        )
    lossy = compression == "jpeg"
    with _opened(source, asked.mpp, asked.nodata) as pyramid:
        image = Image.of(pyramid, asked.region, masked=lossy)
        count = _level_count(image, asked.levels)
        side = asked.shard or _block_side(image, asked.chunk, _TILES_BYTES if lossy else _BLOCK_BYTES)
        sizes = level_sizes(image.height, image.width, count)
        with beside(path, overwrite=asked.overwrite) as part:
            progress(0.0, "reading and averaging")
            writer: omezarr.OmeZarrWriter | geotiff.CogWriter
            with writing(path):
                if chosen == "zarr":
                    writer = omezarr.OmeZarrWriter(
                        part, image, sizes, chunk=asked.chunk, shard=side, compression=compression
                    )
                elif lossy:
                    writer = jpegcog.JpegCogWriter(
                        part, image, sizes, chunk=asked.chunk, quality=asked.quality
                    )
                else:
                    writer = geotiff.CogWriter(
                        part, image, sizes, chunk=asked.chunk, compression=compression, quality=asked.quality
                    )
            _run(image, writer, count, side, asked.threads, path, progress)
            progress(0.95, "comparing")
            checked = verify(image, part, path, count, lossy=lossy)
            size = _stored_size(part)
        progress(1.0, "done")
        return Conversion(
            source=pyramid.source,
            target=str(path),
            format=chosen,
            compression=compression,
            width=image.width,
            height=image.height,
            channels=image.channels,
            dtype=str(image.dtype),
            levels=count,
            bytes=size,
            windows_checked=checked.windows,
            largest_error=None if lossy else checked.largest_error,
            seconds=time.perf_counter() - start,
            notes=tuple(_notes(image, lossy=lossy)),
        )


def _run(
    image: Image,
    writer: "omezarr.OmeZarrWriter | geotiff.CogWriter",
    count: int,
    side: int,
    threads: int,
    target: Path,
    progress: Callable[[float, str], None],
) -> None:
    """Everything that is written, block by block."""
    whole = image.height * image.width
    done = 0
    share = 0.9 if isinstance(writer, omezarr.OmeZarrWriter) else 0.6
    try:
        for block in make_levels(image, count, side, threads):
            with writing(target):
                writer.write(block)
            if block.level == 0:
                done += block.data.shape[1] * block.data.shape[2]
                progress(share * done / whole, "reading and averaging")
        progress(share, "writing")
        with writing(target):
            writer.finish()
    finally:
        writer.close()


@contextmanager
def _opened(source: Any, mpp: float | None, nodata: float | None) -> Iterator[Pyramid]:
    """The source; a pyramid that the caller opened stays open."""
    pyramid = open_pyramid(source, mpp=mpp, nodata=nodata)
    try:
        yield pyramid
    finally:
        if pyramid is not source:
            pyramid.close()


def _format(path: Path) -> str:
    """The format that a target's suffix means."""
    for name, suffixes in FORMATS.items():
        if path.name.lower().endswith(suffixes):
            return name
    known = ", ".join(suffix for suffixes in FORMATS.values() for suffix in suffixes)
    raise ConfigError(f"{path}: its suffix names no format; possible are {known}; or give a format")


def _level_count(image: Image, asked: int | None) -> int:
    longer = max(image.height, image.width)
    most = (longer - 1).bit_length() + 1
    if asked is None:
        return max(math.ceil(math.log2(longer / _COARSEST)), 0) + 1
    if not 1 <= asked <= most:
        raise ConfigError(f"levels={asked}: possible for {image.height} x {image.width} px are 1 to {most}")
    return asked


def _block_side(image: Image, chunk: int, most: int) -> int:
    """Side of a block or shard that holds at most so many bytes."""
    side = _SIDE
    while side > chunk and side * side * image.channels * image.dtype.itemsize > most:
        side //= 2
    return max(side, chunk)


def _stored_size(path: Path) -> int:
    files = [path] if path.is_file() else path.rglob("*")
    return sum(file.stat().st_size for file in files if file.is_file())


def _notes(image: Image, *, lossy: bool) -> Iterator[str]:
    pyramid = image.pyramid
    yield from note_alpha(pyramid.meta.alpha)
    if pyramid.palette is not None:
        yield "a palette image: written as the colours that it shows, 3 bands of 8 bits"
    if pyramid.nodata is not None and image.mark is None:
        why = "JPEG would change it" if lossy else f"{image.dtype} pixels can't hold it, or it is an index"
        yield f"nodata {pyramid.nodata:g} is not kept as a value ({why}); a mask says what is measured"
    if pyramid.mpp is None and pyramid.meta.mpp_source:
        yield f"no scale: {pyramid.meta.mpp_source}"
