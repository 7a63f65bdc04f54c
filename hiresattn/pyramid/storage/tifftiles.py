"""The stored tiles of a TIFF file: where each lies, and how it is decoded. Strict, and lock-free."""

import os
import struct
import threading
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np

from hiresattn.errors import OpenError, ReadError, reason
from hiresattn.pyramid.storage.spans import merged
from hiresattn.pyramid.storage.tiles import Tiles, empty_buffer

#: Scans of a JPEG image: encoders write about ten.
MOST_SCANS = 100
_JPEG = 7
_LERC = 34887
_LERC_PARAMETERS = 50674
_MINISWHITE, _MINISBLACK, _RGB, _PALETTE, _YCBCR = 0, 1, 2, 3, 6
#: Bands of a JPEG tile, and as what they are decoded. Four without a word about their colours stay as they are.
_JPEG_SPACES = {1: "GRAY", 3: "RGB", 4: "CMYK"}
_PLANAR = 2
#: An Adobe segment that says the components of a JPEG image are R, G, B as they are.
_ADOBE_RGB = b"\xff\xee\x00\x0eAdobe\x00\x64\x00\x00\x00\x00\x00"


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
        """The px of a whole tile; whatever the decoder raises."""
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
        return parts[0] if len(parts) == 1 else np.concatenate(parts, axis=2)

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
        if int(np.max(key.bitspersample)) != 8 or in_tile not in _JPEG_SPACES:
            raise OpenError(
                f"{what}: JPEG with {samples} bands of {key.bitspersample} bits; possible are 1, 3 or 4 bands "
                "of 8 bits; convert the file to another compression"
            )
        decode = _jpeg_decoder(page.jpegtables, _tile_shape(key), in_tile, rgb=photometric == _RGB)
        decoder = "simplejpeg"
    elif photometric == _YCBCR:
        raise OpenError(f"{what}: YCbCr colour without JPEG compression; convert the file to RGB")
    elif compression == _LERC:
        decode = _lerc_decoder(key, what)
        decoder = "imagecodecs LERC"
    else:
        decode = _other_decoder(key.decode, _tile_shape(key))
        decoder = f"imagecodecs {key.compression.name}"
    if photometric == _MINISWHITE:
        decode = _inverted(decode, key, what)
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


def _jpeg_decoder(tables: bytes | None, tile: tuple[int, int], samples: int, *, rgb: bool) -> Any:
    from simplejpeg import decode_jpeg

    # Start marker, then the shared tables without their own start and end, then the tile's segments.
    prefix = b"\xff\xd8" + (tables[2:-2] if tables else b"")
    colorspace = _JPEG_SPACES[samples]

    def decode(stored: bytes, _: int, buffer: np.ndarray | None) -> np.ndarray:
        if stored[:2] != b"\xff\xd8":
            raise ValueError("no JPEG image starts here")
        check_scans(stored)
        # A JFIF segment says YCbCr, whatever TIFF's photometric tag says.
        marked = prefix + _ADOBE_RGB if rgb and stored[2:4] != b"\xff\xe0" else prefix
        if buffer is None:
            buffer = empty_buffer((*tile, samples), np.uint8)  # the decoder refuses a tile that needs more
        return decode_jpeg(b"".join((marked, memoryview(stored)[2:])), colorspace, buffer=buffer, strict=True)

    return decode


def _lerc_decoder(page: Any, what: str) -> Any:
    """LERC has a mask in each tile: NaN marks what isn't valid, where the px can hold it."""
    import imagecodecs

    tag = page.tags.get(_LERC_PARAMETERS)
    packed = 0 if tag is None else int(tag.value[1])
    unpackers: dict[int, Any] = {0: bytes, 1: imagecodecs.zlib_decode, 2: imagecodecs.zstd_decode}
    unpack = unpackers.get(packed)
    if unpack is None:
        raise OpenError(
            f"{what}: LERC packed in an unknown way ({packed}); convert the file to another compression"
        )

    def decode(stored: bytes, _: int, __: np.ndarray | None) -> np.ndarray:
        data, mask = imagecodecs.lerc_decode(unpack(stored), masks=True)[:2]
        data = data if data.ndim == 3 else data[:, :, None]
        if data.dtype.kind == "f" and mask is not None and not mask.all():
            if mask.ndim == 3 and mask.shape != data.shape:
                mask = np.moveaxis(mask, 0, 2)
            data = np.where(mask if mask.ndim == 3 else mask[:, :, None], data, data.dtype.type(np.nan))
        return data

    return decode


def check_scans(stored: bytes) -> None:
    """Refuse a progressive JPEG image of very many scans, each of which would be decoded over all px.

    Raises:
        ValueError: If there are more than ``MOST_SCANS``; it has the numbers.
    """
    scans = stored.count(b"\xff\xda")
    if scans > MOST_SCANS:
        raise ValueError(f"{scans} scans, and at most {MOST_SCANS} are decoded")


def _other_decoder(page_decode: Any, tile: tuple[int, int]) -> Any:
    def decode(stored: bytes, index: int, _: np.ndarray | None) -> np.ndarray:
        _check_sides(stored, tile)
        data = page_decode(stored, index)[0]
        return data[0]  # depth 1

    return decode


def _inverted(decode: Any, key: Any, what: str) -> Any:
    """As ``decode``, of a file whose 0 is white in its first band."""
    if int(key.samplesperpixel) > 1 and int(key.planarconfig) == _PLANAR:
        raise OpenError(f"{what}: 0 is white, and its bands lie apart; convert the file to black as 0")
    if np.dtype(key.dtype).kind != "u":
        raise OpenError(
            f"{what}: 0 is white, of type {key.dtype}; possible is that for whole numbers from 0 only"
        )
    white = np.array((1 << int(np.max(key.bitspersample))) - 1, key.dtype)

    def inverted(stored: bytes, index: int, buffer: np.ndarray | None) -> np.ndarray:
        data = decode(stored, index, buffer)
        return np.concatenate([white - data[:, :, :1], data[:, :, 1:]], axis=2)

    return inverted


def _check_sides(stored: bytes, tile: tuple[int, int]) -> None:
    """Refuse a JPEG 2000 or PNG tile that announces another size: its decoder would allocate that."""
    if stored.startswith(b"\x89PNG\r\n\x1a\n"):
        at = 16
    elif (at := stored[:256].find(b"\xff\x4f\xff\x51") + 8) < 8:  # start of the codestream, size
        return
    width, height = struct.unpack(">II", stored[at : at + 8])
    if height > tile[0] or width > tile[1]:
        raise ValueError(f"it announces {width} x {height} px, more than a tile has")
