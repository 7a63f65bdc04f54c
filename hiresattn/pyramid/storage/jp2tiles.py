"""The tiles of a JPEG 2000 file, each decoded by itself: as an image of one tile, which lies where it lay.

GDAL, decoding in one thread, looks for each tile anew among all others, which takes longer than decoding a small one.

Source: ISO/IEC 15444-1, annexes A and B. A tile is coded by itself, on a grid that starts at the origin of the
reference grid: an image whose only tile is at the same place there has the same px.
"""

import os
import struct
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np

from hiresattn.geometry import Level
from hiresattn.pyramid.storage.jp2header import Codestream
from hiresattn.pyramid.storage.tiles import Tiles

_END = b"\xff\xd9"
#: Px of a tile up to which decoding it takes less than, or about as long as, GDAL looks for it (3 ms).
_MOST_PX = 1 << 18


class Jp2Tiles(Tiles):
    """Level 0 of a file of several tiles; its coarser resolutions are as another library reads them.

    Args:
        source: The file, for messages.
        path: The file.
        stream: Its codestream.
        levels: Its resolutions, tiles of level 0 being those of the file.
        read: ``read(level, y, x, height, width) -> [h w bands]``, by another library.

    Raises:
        ValueError: If that isn't so, or its px are stored in a way that isn't read here.
    """

    def __init__(
        self,
        source: str,
        path: str,
        stream: Codestream,
        levels: Sequence[Level],
        read: Callable[[int, int, int, int, int], np.ndarray],
    ) -> None:
        first = levels[0]
        sides = first.tile_height, first.tile_width
        if (
            stream.plain_dtype is None
            or stream.bands not in (1, 3)
            or stream.size != (first.height, first.width)
        ):
            raise ValueError("components of other kinds")
        if sides[0] * sides[1] > _MOST_PX:
            raise ValueError("tiles so large that looking for them costs nothing")
        if (
            stream.tile != sides
            or len(stream.parts) < 2
            or len(stream.parts) != first.tile_rows * first.tile_columns
        ):
            raise ValueError("one tile, or tiles of another size")
        super().__init__(
            source,
            shapes=[(level.height, level.width) for level in levels],
            sides=[(level.tile_height, level.tile_width) for level in levels],
            bands=stream.bands,
            dtype=stream.plain_dtype,
        )
        self._path, self._stream, self._by_window = Path(path), stream, read
        self._columns = first.tile_columns

    @property
    def decoder(self) -> str:
        """What decodes level 0's tiles."""
        return "imagecodecs JPEG 2000"

    def tile_bytes(self, level: int, row: int, column: int) -> int:
        """Stored bytes of a tile of level 0; of others its share of them all, by px."""
        parts = self._stream.parts
        if level == 0:
            return sum(length for _, length in parts[row * self._columns + column])
        stored = sum(length for tile in parts.values() for _, length in tile)
        rows, columns = self.sides[level]
        return round(stored * rows * columns / (self.shapes[0][0] * self.shapes[0][1]))

    def stored(self, level: int, row: int, column: int) -> list[bytes | None]:
        """A codestream of this tile alone; of coarser levels nothing, which ``decode`` doesn't need.

        Raises:
            ReadError: If it can't be read.
        """
        if level:
            return [b""]
        pieces = []
        try:
            with self._path.open("rb") as file:
                for at, length in self._stream.parts[row * self._columns + column]:
                    piece = os.pread(file.fileno(), length, at)
                    pieces.append(piece[:4] + b"\0\0" + piece[6:])  # it is tile 0 now
        except OSError as error:
            raise self.damaged(0, row, column, f"it can't be read ({error})") from error
        (rows, columns), (height, width) = self.sides[0], self.shapes[0]
        top, left = row * rows, column * columns
        bottom, right = min(top + rows, height), min(left + columns, width)
        places = struct.pack(">8I", right, bottom, left, top, columns, rows, left, top)
        return [self._stream.header(places) + b"".join(pieces) + _END]

    def decode(
        self, level: int, row: int, column: int, stored: list[bytes | None], buffer: np.ndarray | None = None
    ) -> np.ndarray:
        """The px of a tile, cut to the level's edge; whatever the decoder raises."""
        del buffer
        if level == 0:
            import imagecodecs

            data = imagecodecs.jpeg2k_decode(stored[0] or b"", numthreads=1)
            return np.asarray(data).reshape(*data.shape[:2], -1)
        (height, width), (rows, columns) = self.shapes[level], self.sides[level]
        y, x = row * rows, column * columns
        return self._by_window(level, y, x, min(rows, height - y), min(columns, width - x))

    def close(self) -> None:
        """Nothing is held open."""
