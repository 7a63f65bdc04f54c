"""The stored tiles of a TIFF file: where each lies, and how it is decoded. Strict, and lock-free."""

import os
import threading
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np

from hiresattn.errors import OpenError, ReadError, reason
from hiresattn.pyramid.storage.spans import merged
from hiresattn.pyramid.storage.tiffdecode import (
    JPEG_SPACES,
    inverted,
    jpeg_decoder,
    lerc_decoder,
    other_decoder,
)
from hiresattn.pyramid.storage.tiles import Tiles

_JPEG = 7
_LERC = 34887
_MINISWHITE, _MINISBLACK, _RGB, _PALETTE, _YCBCR = 0, 1, 2, 3, 6
_PLANAR = 2


class ByteSource(Protocol):
    """Where stored bytes come from: a file, or a server."""

    def pread(self, count: int, offset: int) -> bytes:
        """Up to ``count`` bytes from an offset; fewer only at the end. Raises ``OSError``."""

    def expect(self, reads: Iterable[tuple[int, int]]) -> None:
        """Announce reads ``(offset, count)``."""

    def close(self) -> None:
        """Let go of what is open; the next read opens it again."""


class LocalFile:
    """Reads a local file by ``os.pread``: no shared offset, no lock, any number of threads."""

    def __init__(self, path: str) -> None:
        self._path = path
        self._fd: int | None = None
        self._lock = threading.Lock()

    def pread(self, count: int, offset: int) -> bytes:
        """Up to ``count`` bytes from an offset."""
        if self._fd is None:
            with self._lock:
                if self._fd is None:
                    self._fd = os.open(self._path, os.O_RDONLY)
        return os.pread(self._fd, count, offset)

    def expect(self, reads: Iterable[tuple[int, int]]) -> None:
        """The system reads ahead by itself."""

    def close(self) -> None:
        """Let go of the file; the next read opens it again."""
        with self._lock:
            fd, self._fd = self._fd, None
        if fd is not None:
            os.close(fd)

    def __del__(self) -> None:
        if os is not None:  # at the end of the process modules go first
            self.close()


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
    """``decode(bytes, index, buffer or None) -> array [h w samples]``."""
    decoder: str
    """Its name."""


class TiffTiles(Tiles):
    """Reads tiles of chosen directories of a TIFF file.

    JPEG tiles are decoded strictly: what the decoder notices is an error, where other readers return wrong
    pixels. JPEG, JPEG 2000, LZW and uncompressed tiles have no checksum, so damage that happens to decode
    to the right number of pixels can't be noticed by anyone.

    Args:
        path: The file, for messages.
        levels: For each level, finest first, the ``tifffile`` pages that hold its bands (one, or one per
            band). Strips count as tiles as wide as the level.
        fill: Value of px that the file leaves out, one per band or one for all.
        file: Where the bytes come from; None = the local file of that path.

    Raises:
        OpenError: If the file is compressed in a way that can't be decoded strictly.
    """

    def __init__(
        self, path: str, levels: Sequence[Sequence[Any]], fill: Any = 0, file: ByteSource | None = None
    ) -> None:
        self._file: ByteSource = LocalFile(path) if file is None else file
        self._levels = [[_plane(path, page) for page in pages] for pages in levels]
        first = [pages[0].keyframe for pages in levels]  # a frame has its key frame's sizes
        super().__init__(
            path,
            shapes=[(int(page.imagelength), int(page.imagewidth)) for page in first],
            sides=[_tile_shape(page) for page in first],
            bands=sum(plane.copies * plane.samples for plane in self._levels[0]),
            dtype=first[0].dtype,
            fill=fill,
        )

    @property
    def nbytes(self) -> int:
        """Stored bytes of all tiles."""
        return int(sum(plane.counts.sum() for planes in self._levels for plane in planes))

    @property
    def decoder(self) -> str:
        """What decodes level 0's tiles."""
        return self._levels[0][0].decoder

    def bands_together(self, level: int) -> int:
        """Bands of each piece of a level's tiles."""
        return self._levels[level][0].samples

    def ranges(self, level: int, row: int, column: int) -> list[tuple[int, int]]:
        """Offset and stored bytes of each piece of a tile; a count of 0 is a piece that is left out."""
        (height, width), (tile_height, tile_width) = self.shapes[level], self.sides[level]
        across, down = -(-width // tile_width), -(-height // tile_height)
        found = []
        for plane in self._levels[level]:
            for copy in range(plane.copies):
                index = (copy * down + row) * across + column
                offset, count = int(plane.offsets[index]), int(plane.counts[index])
                found.append((offset, count if offset else 0))
        return found

    def expect(self, tiles: Iterable[tuple[int, int, int]]) -> None:
        """Announce reads of tiles, so that what lies side by side can come together."""
        self._file.expect(found for tile in tiles for found in self.ranges(*tile))

    def requests(self, tiles: Iterable[tuple[int, int, int]]) -> int:
        """In how many pieces tiles can be fetched: neighbours come together."""
        return len(merged(found for tile in tiles for found in self.ranges(*tile)))

    def tile_bytes(self, level: int, row: int, column: int) -> int:
        """Stored bytes of one tile."""
        return sum(count for _, count in self.ranges(level, row, column))

    def stored(self, level: int, row: int, column: int) -> list[bytes | None]:
        """The stored bytes of a tile, a piece for each group of bands; None for those that the file leaves out.

        Raises:
            ReadError: If they can't be read.
        """
        pieces: list[bytes | None] = []
        for offset, count in self.ranges(level, row, column):
            if not count:
                pieces.append(None)
                continue
            try:
                piece = self._file.pread(count, offset)
            except OSError as error:
                raise ReadError(
                    f"{self._where(level, row, column)}: can't be read ({reason(error)})"
                ) from error
            if len(piece) < count:
                raise ReadError(
                    f"{self._where(level, row, column)}: the file ends before it does; copy or export the "
                    "file again"
                )
            pieces.append(piece)
        return pieces

    def decode(
        self, level: int, row: int, column: int, stored: list[bytes | None], buffer: np.ndarray | None = None
    ) -> np.ndarray:
        """The px of a whole tile, masked where its codec has a mask; whatever the decoder raises."""
        across = -(-self.shapes[level][1] // self.sides[level][1])
        down = -(-self.shapes[level][0] // self.sides[level][0])
        parts: list[np.ndarray] = []
        for plane in self._levels[level]:
            for copy in range(plane.copies):
                index = (copy * down + row) * across + column
                piece = stored[len(parts)]
                if piece is None:
                    parts.append(np.zeros((*self.sides[level], plane.samples), self.dtype))
                    continue
                part = plane.decode(piece, index, buffer if plane.samples == self.bands else None)
                if part.shape[2:] != (plane.samples,):
                    raise ValueError(f"it has {part.shape[2:]} bands, {plane.samples} were announced")
                parts.append(part)
        if len(parts) == 1:
            return parts[0]
        masked = any(isinstance(part, np.ma.MaskedArray) for part in parts)
        return np.asanyarray((np.ma.concatenate if masked else np.concatenate)(parts, axis=2))

    def close(self) -> None:
        """Let go of the file; the next read opens it again."""
        self._file.close()

    def _where(self, level: int, row: int, column: int) -> str:
        return f"{self.source}, level {level}, tile in row {row}, column {column}"


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
    if photometric not in (_MINISWHITE, _MINISBLACK, _RGB, _PALETTE, _YCBCR):
        raise OpenError(
            f"{what}: colours as {key.photometric.name}; possible are grey, RGB, YCbCr in JPEG and palettes; "
            "convert the file to RGB"
        )
    if np.dtype(key.dtype).kind not in "uif":
        raise OpenError(f"{what}: pixels of type {key.dtype}; possible are whole numbers and floats")
    in_tile = 1 if planar else samples
    if compression == _JPEG:
        if int(np.max(key.bitspersample)) != 8 or in_tile not in JPEG_SPACES:
            raise OpenError(
                f"{what}: JPEG with {samples} bands of {key.bitspersample} bits; possible are 1, 3 or 4 bands "
                "of 8 bits; convert the file to another compression"
            )
        decode = jpeg_decoder(page.jpegtables, _tile_shape(key), in_tile, rgb=photometric == _RGB)
        decoder = "simplejpeg"
    elif photometric == _YCBCR:
        raise OpenError(f"{what}: YCbCr colour without JPEG compression; convert the file to RGB")
    elif compression == _LERC:
        decode = lerc_decoder(key, what)
        decoder = "imagecodecs LERC"
    else:
        decode = other_decoder(key, _tile_shape(key), in_tile)
        decoder = f"imagecodecs {key.compression.name}"
    if photometric == _MINISWHITE:
        decode = inverted(decode, key, what)
    copies = samples if planar else 1
    height, width = _tile_shape(key)
    expected = -(-int(key.imagelength) // height) * -(-int(key.imagewidth) // width) * copies
    found = min(len(page.dataoffsets), len(page.databytecounts))
    if found < expected:
        raise OpenError(f"{what}: {found} tiles are listed of {expected}; copy or export the file again")
    return _Plane(
        offsets=np.asarray(page.dataoffsets, np.int64),
        counts=np.asarray(page.databytecounts, np.int64),
        copies=copies,
        samples=in_tile,
        decode=decode,
        decoder=decoder,
    )
