"""Stored tiles, read and decoded natively: where a file keeps each, and what becomes of its bytes."""

import math
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Sequence
from dataclasses import replace
from typing import Any

import numpy as np

from hiresattn.errors import ReadError, reason
from hiresattn.pyramid.pixels import Pixels, both_valid

#: Two readers agree on a tile of a lossy format if its px differ by this much on average, of 255: decoders
#: interpolate subsampled colour in different ways, which shows in single px only.
LOSSY = 3.0


class Tiles(ABC):
    """The stored tiles of an image's levels, all of its bands. Thread-safe; holds no pixels.

    Args:
        source: Path or address, for messages.
        shapes: Rows and columns of each level, finest first.
        sides: Rows and columns of a tile of each level.
        bands: Bands of a px, alpha included.
        dtype: Data type of the px.
        fill: Value of px that the file leaves out, one per band or one for all.
    """

    def __init__(
        self,
        source: str,
        *,
        shapes: Sequence[tuple[int, int]],
        sides: Sequence[tuple[int, int]],
        bands: int,
        dtype: Any,
        fill: Any = 0,
    ) -> None:
        self.source = source
        self.shapes = list(shapes)
        self.sides = list(sides)
        self.bands = bands
        self.dtype = np.dtype(dtype)
        self.fill = fill

    @property
    @abstractmethod
    def decoder(self) -> str:
        """What decodes level 0's tiles, in a word or two."""

    @abstractmethod
    def stored(self, level: int, row: int, column: int) -> list[bytes | None]:
        """The stored bytes of a tile, a piece for each group of bands; None for what the file leaves out.

        Raises:
            ReadError: If they can't be read.
        """

    @abstractmethod
    def decode(
        self, level: int, row: int, column: int, stored: list[bytes | None], buffer: np.ndarray | None = None
    ) -> np.ndarray:
        """The px ``[h w bands]`` of a whole tile, whatever lies beyond the level's edge included.

        Args:
            level: Which level.
            row: Which row of tiles.
            column: Which column of tiles.
            stored: What ``stored`` returned for it; at least one piece is there. Px of the others: anything.
            buffer: Memory for a whole tile ``[h w bands]``, which a decoder may use.

        Returns:
            The px; perhaps ``buffer``. A masked array where the codec itself says that some aren't valid.

        Raises:
            Exception: Whatever the decoder raises where it notices damage.
        """

    def bands_together(self, level: int) -> int:  # noqa: ARG002 - one piece holds them all, in most stores
        """Bands of each piece of a level's tiles; the last piece may have fewer."""
        return self.bands

    def expect(self, tiles: Iterable[tuple[int, int, int]]) -> None:  # noqa: B027 - most stores can't use it
        """Announce reads of tiles ``(level, row, column)``, so that what lies side by side can come together."""

    def requests(self, tiles: Iterable[tuple[int, int, int]]) -> int:
        """In how many pieces tiles ``(level, row, column)`` can be fetched."""
        return len(list(tiles))

    @abstractmethod
    def close(self) -> None:
        """Let go of open files; the next read opens them again."""

    def buffer(self, level: int) -> np.ndarray:
        """Memory for a tile of a level, for ``read_tile``."""
        return empty_buffer((*self.sides[level], self.bands), self.dtype)

    def read_tile(self, level: int, row: int, column: int, buffer: np.ndarray | None = None) -> Pixels:
        """A tile, cut to the level's edge.

        Args:
            level: Which level.
            row: Which row of tiles.
            column: Which column of tiles.
            buffer: From ``buffer``, to be used again and again: what is returned then lasts until the next
                read. Fresh memory for every tile costs a tenth of its decoding.

        Raises:
            ReadError: If it can't be read or decoded.
        """
        (height, width), (rows, columns) = self.shapes[level], self.sides[level]
        rows, columns = min(rows, height - row * rows), min(columns, width - column * columns)
        stored = self.stored(level, row, column)
        absent = [piece is None for piece in stored]
        if all(absent):
            data = np.empty((rows, columns, self.bands), self.dtype)
            data[:] = self.fill
            return Pixels(data, np.zeros((rows, columns), bool), 1)
        try:
            data = self.decode(level, row, column, stored, buffer)[:rows, :columns]
        except Exception as error:
            raise self.damaged(level, row, column, f"it can't be decoded ({reason(error)})") from error
        expected = (rows, columns, self.bands)
        if data.shape != expected or data.dtype != self.dtype:
            found, announced = f"{data.shape} {data.dtype}", f"{expected} {self.dtype}"
            raise self.damaged(level, row, column, f"it decodes to {found} where {announced} was announced")
        valid = ~np.ma.getmaskarray(data) if isinstance(data, np.ma.MaskedArray) else None
        data = np.asarray(data)
        pixels = self._partly(data, absent, self.bands_together(level)) if any(absent) else Pixels(data)
        return pixels if valid is None else replace(pixels, valid=both_valid(pixels.valid, valid))

    def _partly(self, data: np.ndarray, absent: list[bool], together: int) -> Pixels:
        """A tile of which the file leaves out some groups of bands."""
        lost = np.repeat(absent, together)[: self.bands]
        data = data.copy()
        data[:, :, lost] = np.broadcast_to(self.fill, self.bands)[lost]
        return Pixels(data, np.broadcast_to(~lost, data.shape).copy(), 1, lost.astype(np.int64))

    def read(self, level: int, y: int, x: int, height: int, width: int) -> Pixels:
        """A window that lies inside a level; ``[h w bands]``, alpha included.

        Raises:
            ReadError: If a tile can't be read or decoded.
        """
        rows, columns = self.sides[level]
        data = np.empty((height, width, self.bands), self.dtype)
        valid, missing, buffer = None, np.zeros(self.bands + 1, np.int64), self.buffer(level)
        for row in range(y // rows, -(-(y + height) // rows)):
            for column in range(x // columns, -(-(x + width) // columns)):
                tile = self.read_tile(level, row, column, buffer)
                top, left = row * rows, column * columns
                y0, x0 = max(y, top), max(x, left)
                y1, x1 = min(y + height, top + rows), min(x + width, left + columns)
                here = np.s_[y0 - y : y1 - y, x0 - x : x1 - x]
                data[here] = tile.data[y0 - top : y1 - top, x0 - left : x1 - left]
                if tile.valid is not None:
                    valid = np.ones((height, width, self.bands), bool) if valid is None else valid
                    known = tile.valid if tile.valid.ndim == 3 else tile.valid[:, :, None]
                    valid[here] = known[y0 - top : y1 - top, x0 - left : x1 - left]
                if tile.missing_tiles:
                    lost = 1 if tile.missing_by_band is None else tile.missing_by_band
                    missing[:-1] += lost
                    missing[-1] += 1
        if valid is None:
            return Pixels(data)
        if not missing[-1]:
            return Pixels(data, valid)
        if (missing == missing[-1]).all() and (valid == valid[:, :, :1]).all():
            return Pixels(data, valid[:, :, 0], int(missing[-1]))
        return Pixels(data, valid, int(missing[-1]), missing[:-1])

    def damaged(self, level: int, row: int, column: int, what: str) -> ReadError:
        """The error that names a damaged tile."""
        return ReadError(
            f"{self.source}, level {level}, tile in row {row}, column {column}: damaged, {what}; copy or "
            "export the file again"
        )


def empty_buffer(shape: tuple[int, ...], dtype: Any) -> np.ndarray:
    """An empty array that starts 16 bytes after a multiple of 32.

    Into one that starts at a multiple, libjpeg-turbo writes past the processor's caches: decoding takes a sixth
    longer, and whoever copies from it next waits for memory.
    """
    dtype = np.dtype(dtype)
    count = math.prod(shape) * dtype.itemsize
    raw = np.empty(count + 32, np.uint8)
    start = (16 - raw.ctypes.data) % 32
    return raw[start : start + count].view(dtype).reshape(shape)


def agrees(tiles: Tiles, read: Callable[[int, int, int, int, int], Pixels], *, lossy: bool) -> bool:
    """Whether another reader of the same file sees what the tiles hold.

    Compares a tile in the middle of level 0, and the first of a middle and of the coarsest level, where no reader
    rounds positions. Tiles that the file leaves out, or that one of the two can't read, are passed over.

    Args:
        tiles: The native tiles.
        read: ``read(level, y, x, height, width)`` of the other reader.
        lossy: Whether its px may differ by what decoders differ (``LOSSY``).
    """
    for level in sorted({0, len(tiles.shapes) // 2, len(tiles.shapes) - 1}):
        (height, width), (rows, columns) = tiles.shapes[level], tiles.sides[level]
        row, column = (0, 0) if level else ((height - 1) // rows // 2, (width - 1) // columns // 2)
        try:
            ours = tiles.read_tile(level, row, column)
            if ours.missing_tiles:
                continue
            theirs = read(level, row * rows, column * columns, *ours.data.shape[:2]).data
        except Exception:  # noqa: BLE001, S112 - damage is for the read that asks for this tile
            continue
        if (theirs.shape, theirs.dtype) != (ours.data.shape, ours.data.dtype):
            return False
        if lossy:
            if not _alike(ours.data, theirs):
                return False
        elif not np.array_equal(ours.data, theirs, equal_nan=ours.data.dtype.kind == "f"):
            return False
    return True


def _alike(ours: np.ndarray, theirs: np.ndarray) -> bool:
    """Whether two decoders' px of a lossy format show the same: NaN in the same places, values within ``LOSSY``.

    Of 255 for uint8; of other types, of the range that the px span.
    """
    if theirs.dtype == np.uint8:
        return float(np.abs(np.subtract(ours, theirs, dtype=np.int16)).mean()) <= LOSSY
    ours, theirs = ours.astype(np.float64), theirs.astype(np.float64)
    if not np.array_equal(np.isnan(ours), np.isnan(theirs)):
        return False
    known = np.isfinite(ours) & np.isfinite(theirs)
    if not known.any():
        return True
    ours, found = ours[known], theirs[known]
    span = float(found.max() - found.min())
    return float(np.abs(ours - found).mean()) <= LOSSY * span / 255 + 1e-6 * float(np.abs(found).max())
