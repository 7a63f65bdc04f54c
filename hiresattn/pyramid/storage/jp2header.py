"""The layout of a JPEG 2000 file, checked before any library trusts it.

Libraries decode what is left of a file that was cut short. This walks the boxes and the tile-parts without
decoding them, and refuses a file that doesn't hold all the tiles it announces.

Source: ISO/IEC 15444-1, annexes A (codestream) and I (boxes).
"""

import os
import struct
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from hiresattn.errors import OpenError

_SIGNATURE = b"\0\0\0\x0cjP  \r\n\x87\n"
_CODESTREAM = b"\xff\x4f\xff\x51"  # SOC, then SIZ
_SOT = 0xFF90
_EOC = 0xFFD9
_SOT_BYTES = 12
#: Lengths of tile-parts and of packets; headers of packets that are not in the tiles.
_LENGTHS, _PACKED_HEADERS = (0xFF55, 0xFF57), 0xFF60
#: Where SIZ, which comes first, has the sides and offsets of the image and its tiles: eight numbers of four bytes.
_PLACES = 8


@dataclass(frozen=True)
class Codestream:
    """Where the tiles of a JPEG 2000 file lie, and what they have in common."""

    size: tuple[int, int]
    """Rows and columns of the image, px."""
    tile: tuple[int, int]
    """Rows and columns of a tile, px."""
    bands: int
    """Components."""
    plain_dtype: np.dtype[Any] | None
    """Type of the px, where the image and its tiles start at the origin, all components are alike, unsigned and of full
    resolution, and tiles hold all that they need; else None."""
    parts: Mapping[int, Sequence[tuple[int, int]]]
    """Offset and bytes of each tile's parts, by the tile's number, row by row."""
    segments: bytes
    """The main header, from its start to the first tile, without what says where tiles lie."""

    def header(self, places: bytes) -> bytes:
        """A main header with other sides and offsets of the image and its tiles: eight numbers as ``SIZ`` has them."""
        return self.segments[:_PLACES] + places + self.segments[_PLACES + len(places) :]


def check_jp2(path: str | os.PathLike[str]) -> Codestream | None:
    """Check that a JPEG 2000 file holds every tile it announces; any other file is left alone.

    Args:
        path: A local file.

    Returns:
        Its codestream; None = it is no JPEG 2000 file.

    Raises:
        OpenError: If the file is cut short, or its boxes or tile-parts contradict themselves.
    """
    with Path(path).open("rb") as file:
        head = os.pread(file.fileno(), 12, 0)
        if head != _SIGNATURE and head[:4] != _CODESTREAM:
            return None
        return _Walk(str(path), file.fileno()).run(boxed=head == _SIGNATURE)


class _Walk:
    """One pass over the boxes and tile-parts of an open file."""

    def __init__(self, path: str, fd: int) -> None:
        self.path = path
        self.fd = fd
        self.size = os.fstat(fd).st_size

    def run(self, *, boxed: bool) -> Codestream:
        start, stop = self._codestream() if boxed else (0, self.size)
        return self._tile_parts(start, stop)

    def _codestream(self) -> tuple[int, int]:
        """First byte of the codestream and the one after its last."""
        at = 0
        while at < self.size:
            length, kind = struct.unpack(">I4s", self._bytes(at, 8))
            head = 8
            if length == 1:
                (length,) = struct.unpack(">Q", self._bytes(at + 8, 8))
                head = 16
            elif length == 0:  # to the end of the file
                length = self.size - at
            if length < head or at + length > self.size:
                raise self._damaged(f"a box at byte {at} ends at byte {at + length} of {self.size}")
            if kind == b"jp2c":
                return at + head, at + length
            at += length
        raise self._damaged("it holds no codestream")

    def _tile_parts(self, at: int, stop: int) -> Codestream:
        """Walk the codestream: its main header, then from tile-part to tile-part."""
        if self._bytes(at, 4) != _CODESTREAM:
            raise self._damaged(f"no JPEG 2000 codestream starts at byte {at}")
        tiles = self._tile_count(at + 4)
        segments, apart = [self._bytes(at, 2)], True
        at += 2
        while (marker := self._marker(at)) != _SOT:  # the main header's segments
            length = 2 + self._number(at + 2)
            apart = apart and marker != _PACKED_HEADERS
            if marker not in _LENGTHS:
                segments.append(self._bytes(at, length))
            at += length
        parts: dict[int, list[tuple[int, int]]] = {}
        seen: dict[int, tuple[int, int]] = {}  # tile: parts found, parts announced (0: not said)
        while at < stop and (marker := self._marker(at)) != _EOC:
            if marker != _SOT:
                raise self._damaged(f"a tile-part should start at byte {at}")
            tile, length, _, announced = struct.unpack(">HIBB", self._bytes(at + 4, 8))
            if length == 0:  # the last one, up to the end marker
                if self._marker(stop - 2) != _EOC:
                    raise self._damaged("the end of its last tile is missing")
                length = stop - 2 - at
            if length < _SOT_BYTES or at + length > stop:
                raise self._damaged(f"tile {tile} ends at byte {at + length} of {stop}")
            found, before = seen.get(tile, (0, 0))
            seen[tile] = (found + 1, announced or before)
            parts.setdefault(tile, []).append((at, length))
            at += length
        lost = tiles - len(seen) + sum(found < announced for found, announced in seen.values())
        if lost > 0:
            raise self._damaged(f"{lost} of its {tiles} tiles are missing or incomplete")
        return _described(b"".join(segments), parts, apart=apart)

    def _tile_count(self, at: int) -> int:
        """The number of tiles that the SIZ segment at a byte announces."""
        _, _, x1, y1, _, _, width, height, x0, y0 = struct.unpack(">HH8I", self._bytes(at, 36))
        if not (width and height and x1 > x0 and y1 > y0):
            raise self._damaged(f"it announces tiles of {width} x {height} px")
        return -(-(x1 - x0) // width) * -(-(y1 - y0) // height)

    def _marker(self, at: int) -> int:
        marker = self._number(at)
        if marker < 0xFF00:
            raise self._damaged(f"no marker at byte {at}")
        return marker

    def _number(self, at: int) -> int:
        return int.from_bytes(self._bytes(at, 2), "big")

    def _bytes(self, at: int, count: int) -> bytes:
        if at + count > self.size:
            raise self._damaged(f"it ends at byte {self.size}, inside its headers")
        return os.pread(self.fd, count, at)

    def _damaged(self, reason: str) -> OpenError:
        return OpenError(
            f"{self.path}: the JPEG 2000 file is damaged or cut short: {reason}; copy or export it again"
        )


def _described(header: bytes, parts: Mapping[int, Sequence[tuple[int, int]]], *, apart: bool) -> Codestream:
    """What a checked main header says; ``apart``: whether tiles hold the headers of their packets."""
    columns, rows, x, y, width, height, tile_x, tile_y, bands = struct.unpack_from(">8IH", header, _PLACES)
    first = header[
        _PLACES + 34 : _PLACES + 37
    ]  # of a component: bits - 1 (from 128: signed), px between its samples
    same = header[_PLACES + 34 : _PLACES + 34 + 3 * bands] == first * bands
    plain = apart and same and not (x or y or tile_x or tile_y) and first[1:] == b"\1\1" and first[0] < 16
    dtype = np.dtype(np.uint8 if first[0] < 8 else np.uint16) if plain else None
    return Codestream((rows, columns), (height, width), bands, dtype, parts, header)
