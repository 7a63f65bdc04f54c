"""Write any pyramid as a file of a common format, strip by strip: level 0 is read once and never held whole.

Whatever levels the pyramid has, those of the file are 2 x 2 means of the level before, down to a side of at
most 64 px; where a side is odd, its last px is the mean of what is there. A file appears under its name whole
or not at all.
"""

import contextlib
import functools
import tempfile
import zlib
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np

from hiresattn.errors import ConfigError
from hiresattn.files import atomic_write
from hiresattn.pyramid.base import Pyramid

TILE = 256
QUALITY = 90
#: Levels are halved until both sides are at most this, px.
COARSEST = 64
_THREADS = 2


def write_tiff(
    pyramid: Pyramid, path: str | Path, *, quality: int = QUALITY, subsampling: str = "444"
) -> None:
    """Write a tiled, pyramidal TIFF of JPEG tiles, RGB bands stored as YCbCr (or one grey band).

    Args:
        pyramid: An image of uint8, 1 or 3 bands.
        path: The file.
        quality: Of the JPEG tiles, up to 100.
        subsampling: Of their colour: ``444`` (none) or ``420`` (as scanners do).

    Raises:
        ConfigError: If JPEG can't hold the image.
    """
    _check_jpeg(pyramid, "TIFF")
    colour: dict[str, Any] = {"photometric": "minisblack"}
    if pyramid.channels == 3:
        colour = {"photometric": "ycbcr", "subsampling": (1, 1) if subsampling == "444" else (2, 2)}
    encode = functools.partial(_jpeg, quality=quality, subsampling=subsampling)
    with _whole(Path(path)) as unfinished:
        _write_pages(pyramid, unfinished, encode, compression="jpeg", **colour)


def write_zarr(pyramid: Pyramid, path: str | Path, *, axes: str = "yxc", together: int | None = None) -> None:
    """Write an OME-Zarr 0.5 store, without loss: chunks of 256 x 256 px.

    Args:
        pyramid: An image of whole numbers or floats.
        path: The directory; a Zarr store of this name is replaced.
        axes: Order of the axes. OME-Zarr asks for ``cyx``; ``yxc`` is how pixels are returned by ``read``, and
            readers that go by the axes' names don't mind.
        together: Bands of a chunk; None = all of them.
    """
    import zarr

    if sorted(axes) != ["c", "x", "y"]:
        raise ConfigError(f"axes {axes!r} are no order of y, x and c")
    shapes = _shapes(pyramid)
    order = ["yxc".index(axis) for axis in axes]
    scales = [{"y": 2.0**k, "x": 2.0**k, "c": 1.0} for k in range(len(shapes))]
    with _whole(Path(path)) as partial, zarr.config.set({"array.write_empty_chunks": True}):
        group = zarr.open_group(str(partial), mode="w", zarr_format=3)
        arrays = []
        for level, (height, width) in enumerate(shapes):
            sides = height, width, pyramid.channels
            chunks = TILE, TILE, together or pyramid.channels
            arrays.append(
                group.create_array(
                    str(level),
                    shape=[sides[i] for i in order],
                    chunks=[min(chunks[i], sides[i]) for i in order],
                    dtype=pyramid.dtype,
                    dimension_names=list(axes),
                )
            )
        for strips in _strips(pyramid, shapes):
            for level, y, strip in strips:
                rows: list[slice] = [slice(None)] * 3
                rows[axes.index("y")] = slice(y, y + len(strip))
                arrays[level][tuple(rows)] = strip.transpose(order)
        group.attrs["ome"] = {
            "version": "0.5",
            "multiscales": [
                {
                    "name": pyramid.source,
                    "axes": [{"name": axis, "type": "channel" if axis == "c" else "space"} for axis in axes],
                    "datasets": [
                        {
                            "path": str(level),
                            "coordinateTransformations": [
                                {"type": "scale", "scale": [scale[axis] for axis in axes]}
                            ],
                        }
                        for level, scale in enumerate(scales)
                    ],
                }
            ],
        }


def write_cog(pyramid: Pyramid, path: str | Path, *, compress: str = "JPEG") -> None:
    """Write a Cloud Optimized GeoTIFF by GDAL: blocks of 256 px, averaged overviews.

    It has no coordinate reference system, only a transform in px (y up), by which readers see a GeoTIFF. The
    overviews are made here: where a side is odd, GDAL's own would be shifted or cut. GDAL copies from a
    lossless file, so the disk must hold that too while it writes.

    Args:
        pyramid: The image; for JPEG uint8 of 1 or 3 bands.
        path: The file.
        compress: ``JPEG`` (quality 90; GDAL stores colour as YCbCr 4:2:0) or a lossless one that GDAL knows,
            such as ``DEFLATE``.

    Raises:
        ConfigError: If JPEG can't hold the image.
    """
    import rasterio.shutil

    if compress == "JPEG":
        _check_jpeg(pyramid, "COG")
    options = {"QUALITY": QUALITY} if compress == "JPEG" else {}
    path = Path(path)
    with _whole(path) as partial, tempfile.TemporaryDirectory(dir=path.parent) as folder:
        plain = Path(folder) / "plain.tif"
        _write_pages(
            pyramid,
            plain,
            _deflated,
            compression="zlib",
            photometric="rgb" if pyramid.channels == 3 else "minisblack",
            extratags=[  # GeoTIFF's pixel scale and tie point
                (33550, "d", 3, (1.0, 1.0, 0.0), True),
                (33922, "d", 6, (0.0, 0.0, 0.0, 0.0, float(pyramid.height), 0.0), True),
            ],
        )
        rasterio.shutil.copy(
            plain,
            partial,
            driver="COG",
            COMPRESS=compress,
            BLOCKSIZE=TILE,
            OVERVIEWS="FORCE_USE_EXISTING",
            BIGTIFF="IF_SAFER",
            NUM_THREADS=_THREADS,
            **options,
        )


#: Writers and suffixes of the formats.
WRITERS: dict[str, tuple[Callable[..., None], str]] = {
    "tiff": (write_tiff, ".tif"),
    "zarr": (write_zarr, ".zarr"),
    "cog": (write_cog, ".cog.tif"),
}


def _write_pages(pyramid: Pyramid, path: Path, encode: Callable[[np.ndarray], bytes], **options: Any) -> None:
    """Write a tiled TIFF, one page per level; encoded tiles of the coarser ones are held until their turn."""
    import tifffile

    shapes = _shapes(pyramid)
    encoded: list[list[bytes]] = [[] for _ in shapes]

    def finest() -> Iterator[bytes]:
        for strips in _strips(pyramid, shapes):
            first: list[bytes] = []
            for level, _, strip in strips:
                tiles = [strip[:, x : x + TILE] for x in range(0, strip.shape[1], TILE)]
                (encoded[level] if level else first).extend(pool.map(encode, tiles))
            yield from first  # last: nobody asks for more after the last tile

    with ThreadPoolExecutor(_THREADS) as pool, tifffile.TiffWriter(path, bigtiff=True) as writer:
        for level, (height, width) in enumerate(shapes):
            writer.write(
                iter(encoded[level]) if level else finest(),
                shape=(height, width) if pyramid.channels == 1 else (height, width, pyramid.channels),
                dtype=pyramid.dtype,
                tile=(TILE, TILE),
                planarconfig=None if pyramid.channels == 1 else "contig",
                subfiletype=1 if level else 0,
                description=pyramid.source,
                metadata=None,
                **options,
            )


def _shapes(pyramid: Pyramid) -> list[tuple[int, int]]:
    """Rows and columns of every level of the file."""
    shapes = [(pyramid.height, pyramid.width)]
    while max(shapes[-1]) > COARSEST:
        shapes.append((-(-shapes[-1][0] // 2), -(-shapes[-1][1] // 2)))
    return shapes


def _strips(pyramid: Pyramid, shapes: list[tuple[int, int]]) -> Iterator[list[tuple[int, int, np.ndarray]]]:
    """Strips of 256 rows (the last may have fewer), as ``(level, first row, [rows w c])``.

    One list for each strip of level 0: that strip, and those of coarser levels that it completes. Means are
    handed on as floats and rounded in the strips only.
    """
    waiting: list[list[np.ndarray]] = [[] for _ in shapes]
    rows = [0] * len(shapes)
    whole = pyramid.dtype.kind in "ui"
    for y in range(0, pyramid.height, TILE):
        exact = pyramid.read(0, y, 0, min(TILE, pyramid.height - y), pyramid.width)
        made = [(0, y, exact)]
        rows[0] += len(exact)
        for level, next_level in pairwise(range(len(shapes))):
            waiting[next_level].append(_halved(exact))
            last = rows[level] == shapes[level][0]
            if sum(map(len, waiting[next_level])) < TILE and not last:
                break
            exact = np.concatenate(waiting[next_level])
            waiting[next_level].clear()
            strip = np.floor(exact + 0.5) if whole else exact
            made.append((next_level, rows[next_level], strip.astype(pyramid.dtype)))
            rows[next_level] += len(exact)
        yield made


def _halved(strip: np.ndarray) -> np.ndarray:
    """Means of 2 x 2 px, as floats."""
    height, width = strip.shape[:2]
    if height % 2 or width % 2:
        strip = np.pad(strip, [(0, height % 2), (0, width % 2), (0, 0)], mode="edge")
    wide = np.float32 if strip.dtype in (np.uint8, np.float32) else np.float64
    rows = np.add(strip[::2], strip[1::2], dtype=wide)
    return np.add(rows[:, ::2], rows[:, 1::2], dtype=wide) * wide(0.25)


def _jpeg(tile: np.ndarray, *, quality: int, subsampling: str) -> bytes:
    import imagecodecs

    tile = _full(tile)
    if tile.shape[2] == 1:
        return bytes(imagecodecs.jpeg8_encode(tile[:, :, 0], level=quality))
    colour = {"colorspace": "RGB", "outcolorspace": "YCBCR", "subsampling": subsampling}
    return bytes(imagecodecs.jpeg8_encode(tile, level=quality, **colour))


def _deflated(tile: np.ndarray) -> bytes:
    return zlib.compress(_full(tile), 1)


def _full(tile: np.ndarray) -> np.ndarray:
    """A tile at the edge, filled up by repeating its last px."""
    gaps = [(0, TILE - side) for side in tile.shape[:2]]
    return np.ascontiguousarray(np.pad(tile, [*gaps, (0, 0)], mode="edge"))


def _check_jpeg(pyramid: Pyramid, form: str) -> None:
    if pyramid.dtype != np.uint8 or pyramid.channels not in (1, 3):
        raise ConfigError(
            f"{pyramid.source}: {pyramid.channels} bands of {pyramid.dtype}; a {form} of JPEG tiles holds 1 or 3 "
            "bands of uint8; write a Zarr store"
        )


@contextlib.contextmanager
def _whole(path: Path) -> Iterator[Path]:
    """A name beside the file to write under; what is there at the end is renamed, if nothing failed."""
    if path.is_dir() and not (path / "zarr.json").exists():
        raise ConfigError(f"{path}: a directory that is no Zarr store; give another name")
    with atomic_write(path, over_directory=True) as part:
        yield part
