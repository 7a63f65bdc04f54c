"""The stored tiles of a local TIFF file: where each lies, and how it is decoded. Strict, and lock-free."""

import os
import threading
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from hiresattn.errors import OpenError, ReadError
from hiresattn.pyramid.base import Pixels

_JPEG = 7
_RGB = 2
_YCBCR = 6
_PLANAR = 2
#: An Adobe segment that says the components of a JPEG image are R, G, B as they are.
_ADOBE_RGB = b"\xff\xee\x00\x0eAdobe\x00\x64\x00\x00\x00\x00\x00"


@dataclass(frozen=True, slots=True)
class _Plane:
    """One directory's share of a level: its tiles, and how they are decoded."""

    offsets: np.ndarray
    counts: np.ndarray
    copies: int
    """Planes stored one after another (planar files), else 1."""
    samples: int
    """Bands in each of its tiles."""
    decode: Any
    """``decode(bytes, index) -> array [h w samples]``."""


class TiffTiles:
    """Reads tiles of chosen directories of a local TIFF file by ``os.pread``: no shared offset, no lock.

    JPEG tiles are decoded strictly: what the decoder notices is an error, where other readers return wrong
    pixels. JPEG, JPEG 2000, LZW and uncompressed tiles have no checksum, so damage that happens to decode
    to the right number of pixels can't be noticed by anyone.

    Args:
        path: The file.
        levels: For each level, finest first, the ``tifffile`` pages that hold its bands (one, or one per
            band). Strips count as tiles as wide as the level.
        fill: Value of places that the file leaves out, one per band or one for all.

    Raises:
        OpenError: If the file is compressed in a way that can't be decoded strictly.
    """

    def __init__(self, path: str, levels: Sequence[Sequence[Any]], fill: Any = 0) -> None:
        self._fd: int | None = None
        self._lock = threading.Lock()
        self.path = path
        self.fill = fill
        self._levels = [[_plane(path, page) for page in pages] for pages in levels]
        first = [pages[0] for pages in levels]
        self.shapes = [(int(page.imagelength), int(page.imagewidth)) for page in first]
        """Rows and columns of each level."""
        self.tiles = [_tile_shape(page) for page in first]
        """Rows and columns of a tile of each level."""
        self.dtype = np.dtype(first[0].dtype)
        """Data type of the pixels."""
        self.bands = sum(plane.copies * plane.samples for plane in self._levels[0])
        """Bands, alpha included."""

    @property
    def nbytes(self) -> int:
        """Stored bytes of all tiles."""
        return int(sum(plane.counts.sum() for planes in self._levels for plane in planes))

    def tile_bytes(self, level: int, row: int, column: int) -> int:
        """Stored bytes of one tile."""
        return sum(int(plane.counts[i]) for plane, i, _ in self._parts(level, row, column))

    def read(self, level: int, y: int, x: int, height: int, width: int) -> Pixels:
        """Read a window that lies inside a level; ``[h w bands]``, alpha included.

        Raises:
            ReadError: If a tile can't be read or decoded.
        """
        tile_height, tile_width = self.tiles[level]
        data = np.empty((height, width, self.bands), self.dtype)
        valid = None
        missing = 0
        for row in range(y // tile_height, -(-(y + height) // tile_height)):
            for column in range(x // tile_width, -(-(x + width) // tile_width)):
                top, left = row * tile_height, column * tile_width
                y0, x0 = max(y, top), max(x, left)
                y1, x1 = min(y + height, top + tile_height), min(x + width, left + tile_width)
                here = np.s_[y0 - y : y1 - y, x0 - x : x1 - x]
                inside = np.s_[y0 - top : y1 - top, x0 - left : x1 - left]
                if not self._read_tile(level, row, column, data[here], inside):
                    data[here] = self.fill
                    valid = np.ones((height, width), bool) if valid is None else valid
                    valid[here] = False
                    missing += 1
        return Pixels(data, valid, missing)

    def close(self) -> None:
        """Let go of the file; the next read opens it again."""
        with self._lock:
            fd, self._fd = self._fd, None
        if fd is not None:
            os.close(fd)

    def __del__(self) -> None:
        self.close()

    def _parts(self, level: int, row: int, column: int) -> list[tuple[_Plane, int, int]]:
        """For each stored piece of a tile: its plane, its index there, its first band."""
        (height, width), (tile_height, tile_width) = self.shapes[level], self.tiles[level]
        across, down = -(-width // tile_width), -(-height // tile_height)
        found, band = [], 0
        for plane in self._levels[level]:
            for copy in range(plane.copies):
                found.append((plane, (copy * down + row) * across + column, band))
                band += plane.samples
        return found

    def _read_tile(
        self, level: int, row: int, column: int, out: np.ndarray, part: tuple[slice, slice]
    ) -> bool:
        """Decode part of a tile into ``out``; False if the file leaves the tile out."""
        for plane, index, band in self._parts(level, row, column):
            offset, count = int(plane.offsets[index]), int(plane.counts[index])
            if offset == 0 or count == 0:
                return False
            where = f"{self.path}, level {level}, tile in row {row}, column {column}"
            stored = self._pread(count, offset, where)
            try:
                tile = plane.decode(stored, index)
            except Exception as error:
                raise ReadError(
                    f"{where}: damaged, it can't be decoded ({_reason(error)}); copy or export the file again"
                ) from error
            tile = tile[part]
            if tile.shape != (*out.shape[:2], plane.samples):
                raise ReadError(
                    f"{where}: damaged, it decodes to {tile.shape} where {(*out.shape[:2], plane.samples)} "
                    "was announced; copy or export the file again"
                )
            out[:, :, band : band + plane.samples] = tile
        return True

    def _pread(self, count: int, offset: int, where: str) -> bytes:
        try:
            if self._fd is None:
                with self._lock:
                    if self._fd is None:
                        self._fd = os.open(self.path, os.O_RDONLY)
            stored = os.pread(self._fd, count, offset)
        except OSError as error:
            raise ReadError(f"{where}: can't be read ({_reason(error)})") from error
        if len(stored) < count:
            raise ReadError(f"{where}: the file ends before it does; copy or export the file again")
        return stored


def _reason(error: Exception) -> str:
    return (str(error) or type(error).__name__).splitlines()[0]


def _tile_shape(page: Any) -> tuple[int, int]:
    if page.is_tiled:
        return int(page.tilelength), int(page.tilewidth)
    rows = int(page.rowsperstrip) or int(page.imagelength)
    return min(rows, int(page.imagelength)), int(page.imagewidth)


def _plane(path: str, page: Any) -> _Plane:
    """How to find and decode the tiles of a ``tifffile`` page (or frame)."""
    key = page.keyframe
    samples = int(key.samplesperpixel)
    planar = samples > 1 and int(key.planarconfig) == _PLANAR
    compression, photometric = int(key.compression), int(key.photometric)
    what = f"{path}: image directory {page.index}"
    if np.dtype(key.dtype).kind not in "uif":
        raise OpenError(f"{what}: pixels of type {key.dtype}; possible are whole numbers and floats")
    in_tile = 1 if planar else samples
    if compression == _JPEG:
        if int(np.max(key.bitspersample)) != 8 or in_tile not in (1, 3):
            raise OpenError(
                f"{what}: JPEG with {samples} bands of {key.bitspersample} bits; possible are 1 or 3 bands "
                "of 8 bits; convert the file to another compression"
            )
        decode = _jpeg_decoder(page.jpegtables, _tile_shape(key), in_tile, rgb=photometric == _RGB)
    elif photometric == _YCBCR:
        raise OpenError(f"{what}: YCbCr colour without JPEG compression; convert the file to RGB")
    else:
        decode = _other_decoder(key.decode)
    return _Plane(
        offsets=np.asarray(page.dataoffsets, np.int64),
        counts=np.asarray(page.databytecounts, np.int64),
        copies=samples if planar else 1,
        samples=in_tile,
        decode=decode,
    )


def _jpeg_decoder(tables: bytes | None, tile: tuple[int, int], samples: int, *, rgb: bool) -> Any:
    from simplejpeg import decode_jpeg

    # Start marker, then the shared tables without their own start and end, then the tile's segments.
    prefix = b"\xff\xd8" + (tables[2:-2] if tables else b"")
    colorspace = "RGB" if samples == 3 else "GRAY"

    def decode(stored: bytes, _: int) -> np.ndarray:
        if stored[:2] != b"\xff\xd8":
            raise ValueError("no JPEG image starts here")
        # A JFIF segment says YCbCr, whatever TIFF's photometric tag says.
        marked = prefix + _ADOBE_RGB if rgb and stored[2:4] != b"\xff\xe0" else prefix
        buffer = np.empty((*tile, samples), np.uint8)  # a tile that announces more is refused by the decoder
        return decode_jpeg(marked + stored[2:], colorspace, buffer=buffer, strict=True)

    return decode


def _other_decoder(page_decode: Any) -> Any:
    def decode(stored: bytes, index: int) -> np.ndarray:
        data = page_decode(stored, index)[0]
        return data[0]  # depth 1

    return decode
