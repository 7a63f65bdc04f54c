"""TIFF strips of a few rows, read many at a time: each costs more to handle than to decode."""

from collections.abc import Iterable
from typing import Any

import numpy as np

from hiresattn.errors import reason
from hiresattn.pyramid.pixels import Pixels
from hiresattn.pyramid.storage.tifftiles import TiffTiles
from hiresattn.pyramid.storage.tiles import Tiles, empty_buffer

#: Rows that a tile of several strips has, at least. More would read much that a crop doesn't need.
ROWS = 32


class Strips(Tiles):
    """Tiles as wide as the image, of as many whole strips as ``ROWS`` take.

    Args:
        each: The same file, a tile for each strip.
    """

    def __init__(self, each: TiffTiles) -> None:
        self._each = each
        self._count = [max(-(-ROWS // rows), 1) for rows, _ in each.sides]
        shapes = zip(each.shapes, each.sides, self._count, strict=True)
        super().__init__(
            each.source,
            shapes=each.shapes,
            sides=[(min(rows * count, height), width) for (height, _), (rows, width), count in shapes],
            bands=each.bands,
            dtype=each.dtype,
            fill=each.fill,
        )

    @property
    def decoder(self) -> str:
        """What decodes level 0's strips."""
        return self._each.decoder

    def strips(self, level: int, row: int) -> list[tuple[int, int, int]]:
        """The strips of a tile, as tiles ``(level, row, 0)`` of the file."""
        first, rows = row * self._count[level], -(-self.shapes[level][0] // self._each.sides[level][0])
        return [(level, strip, 0) for strip in range(first, min(first + self._count[level], rows))]

    def tile_bytes(self, level: int, row: int, _: int) -> int:
        """Stored bytes of a tile's strips."""
        return sum(self._each.tile_bytes(*strip) for strip in self.strips(level, row))

    def stored(self, level: int, row: int, _: int) -> list[bytes | None]:
        """The stored bytes of a tile: the pieces of its strips, one after another."""
        return [piece for strip in self.strips(level, row) for piece in self._each.stored(*strip)]

    def decode(
        self, level: int, row: int, column: int, stored: list[bytes | None], buffer: np.ndarray | None = None
    ) -> np.ndarray:
        """The px of a tile, all of whose strips are there and have no mask."""
        del column
        if buffer is None:
            buffer = empty_buffer((*self.sides[level], self.bands), self.dtype)
        strips = self.strips(level, row)
        pieces, rows = len(stored) // len(strips), self._each.sides[level][0]
        for nth, strip in enumerate(strips):
            try:
                data: Any = self._each.decode(*strip, stored[nth * pieces : (nth + 1) * pieces])
            except Exception as error:
                raise self.damaged(*strip, f"it can't be decoded ({reason(error)})") from error
            if isinstance(data, np.ma.MaskedArray):
                raise _MaskedError
            part = buffer[nth * rows : (nth + 1) * rows]
            found = data[: len(part)]
            least = min(rows, self.shapes[level][0] - strip[1] * rows)  # rows that lie in the image
            if len(found) < least or found.shape[1:] != part.shape[1:] or found.dtype != part.dtype:
                announced = f"{(least, *part.shape[1:])} {part.dtype}"
                raise self.damaged(
                    *strip, f"it decodes to {data.shape} {data.dtype} where {announced} was announced"
                )
            part[: len(found)] = found
        return buffer

    def read_tile(self, level: int, row: int, column: int, buffer: np.ndarray | None = None) -> Pixels:
        """A tile, cut to the level's edge; see ``Tiles.read_tile``."""
        first, width = row * self.sides[level][0], self.sides[level][1]
        rows = min(self.sides[level][0], self.shapes[level][0] - first)
        stored = self.stored(level, row, column)
        if None not in stored:
            try:
                return Pixels(self.decode(level, row, column, stored, buffer)[:rows])
            except _MaskedError:
                pass
        return self._each.read(level, first, 0, rows, width)  # strip by strip

    def expect(self, tiles: Iterable[tuple[int, int, int]]) -> None:
        """Announce reads of tiles."""
        self._each.expect(strip for level, row, _ in tiles for strip in self.strips(level, row))

    def requests(self, tiles: Iterable[tuple[int, int, int]]) -> int:
        """In how many pieces tiles can be fetched."""
        return self._each.requests(strip for level, row, _ in tiles for strip in self.strips(level, row))

    def close(self) -> None:
        """Let go of the file; the next read opens it again."""
        self._each.close()


class _MaskedError(Exception):
    """A strip has a mask of its own."""
