"""Cloud-optimised GeoTIFF of JPEG tiles, each encoded once: GDAL writes the directories, and the tiles follow."""

import os
import struct
import zlib
from pathlib import Path
from typing import IO

import numpy as np

from hiresattn.conversion.geotiff import CogWriter
from hiresattn.conversion.image import Image
from hiresattn.conversion.levels import Block
from hiresattn.errors import WriteError

#: TIFF's tags of where tiles lie, and how long they are.
_OFFSETS, _COUNTS = 324, 325
#: Data types of those: TIFF's number → NumPy's.
_TYPES = {3: "u2", 4: "u4", 16: "u8"}
_SUBFILE_MASK = 4

#: Where the tiles of a level lie in the file of encoded ones: offset and bytes, int64 ``[rows columns 2]``.
_Spans = np.ndarray


class JpegCogWriter(CogWriter):
    """Encodes every tile as its block comes, and puts them in the order of a COG at the end.

    GDAL makes the COG without tiles: all directories, tags, the structure's description. Tiles follow as that announces
    them: coarsest level first, row by row, each between its length and its last four bytes, with its mask behind it.

    Args:
        path: As of ``CogWriter``.
        image: As of ``CogWriter``.
        sizes: As of ``CogWriter``.
        chunk: As of ``CogWriter``.
        quality: 1 to 100.
    """

    def __init__(
        self, path: Path, image: Image, sizes: list[tuple[int, int]], *, chunk: int, quality: int
    ) -> None:
        super().__init__(path, image, sizes, chunk=chunk, compression="jpeg", quality=quality, sparse=True)
        self._options["SPARSE_OK"] = "TRUE"
        self._chunk, self._quality = chunk, quality
        self._colour = image.channels == 3
        self._encoded: IO[bytes] = path.with_name("tiles").open("w+b")
        self._spans = [np.zeros((-(-h // chunk), -(-w // chunk), 2), np.int64) for h, w in sizes]
        self._masks: list[dict[tuple[int, int], bytes]] = [{} for _ in sizes]
        self._whole = _mask(np.ones((chunk, chunk), bool))

    def write(self, block: Block) -> None:
        """Encode the tiles of a block."""
        side, data = self._chunk, block.data
        for y in range(0, data.shape[1], side):
            for x in range(0, data.shape[2], side):
                row, column = (block.y + y) // side, (block.x + x) // side
                self._put(block.level, row, column, self._jpeg(data[:, y : y + side, x : x + side]))
                if block.valid is None:
                    continue
                part = block.valid[y : y + side, x : x + side]
                if not part.all():
                    self._masked = True
                    full = np.zeros((side, side), bool)
                    full[: part.shape[0], : part.shape[1]] = part
                    self._masks[block.level][row, column] = _mask(full)

    def close(self) -> None:
        """Let go of the intermediate files."""
        super().close()
        self._encoded.close()

    def _copy(self) -> None:
        import tifffile

        super()._copy()
        self._encoded.flush()
        with tifffile.TiffFile(self._path) as tif:
            order = tif.byteorder
            pages = [page.aspage() for page in tif.pages]
            levels = [page for page in pages if not int(page.subfiletype) & _SUBFILE_MASK]
            masks = [page for page in pages if int(page.subfiletype) & _SUBFILE_MASK]
            if len(levels) != len(self._spans) or len(masks) != len(levels) * self._masked:
                raise WriteError(
                    f"{self._path}: GDAL wrote {len(pages)} directories, not those of the levels"
                )
            places = [
                [
                    (page.tags[tag].valueoffset, order + _TYPES[int(page.tags[tag].dtype)])
                    for tag in (_OFFSETS, _COUNTS)
                ]
                for page in (*levels, *masks)
            ]
        with self._path.open("r+b") as file:
            file.seek(0, os.SEEK_END)
            for level in reversed(range(len(levels))):
                tables = self._fill(file, level)
                for spans, where in zip(tables, places[level :: len(levels)], strict=True):
                    self._note(file, spans, where)

    def _fill(self, file: IO[bytes], level: int) -> list[_Spans]:
        """Append the tiles of a level; returns where they are now, and where their masks are."""
        tiles, masks = self._spans[level], np.zeros_like(self._spans[level])
        found = np.zeros_like(tiles)
        for row, column in np.ndindex(tiles.shape[:2]):
            offset, count = tiles[row, column].tolist()
            found[row, column] = _append(file, os.pread(self._encoded.fileno(), count, offset))
            if self._masked:
                masks[row, column] = _append(file, self._masks[level].get((row, column), self._whole))
        return [found, masks] if self._masked else [found]

    def _note(self, file: IO[bytes], spans: _Spans, where: list[tuple[int, str]]) -> None:
        """Write where tiles are into a directory."""
        end = file.tell()
        for nth, (offset, dtype) in enumerate(where):
            values = spans[..., nth].ravel()
            if values.max() > np.iinfo(dtype).max:
                raise WriteError(f"{self._path}: tiles end beyond what its directories can say")
            file.seek(offset)
            file.write(values.astype(dtype).tobytes())
        file.seek(end)

    def _put(self, level: int, row: int, column: int, encoded: bytes) -> None:
        self._spans[level][row, column] = self._encoded.tell(), len(encoded)
        self._encoded.write(encoded)

    def _jpeg(self, data: np.ndarray) -> bytes:
        """A tile ``[c h w]``, filled up by repeating its last px."""
        from simplejpeg import encode_jpeg

        height, width = data.shape[1:]
        tile = np.empty((self._chunk, self._chunk, len(data)), np.uint8)
        for band, plane in enumerate(data):  # one after another: NumPy's loop over three bands a px is slow
            tile[:height, :width, band] = plane
        tile[:height, width:] = tile[:height, width - 1 : width]
        tile[height:] = tile[height - 1 : height]
        space, colours = ("RGB", "420") if self._colour else ("GRAY", "Gray")
        return bytes(encode_jpeg(tile, self._quality, space, colours))


def _mask(valid: np.ndarray) -> bytes:
    """A tile of a mask: a bit for each px."""
    return zlib.compress(np.packbits(valid, axis=1).tobytes())


def _append(file: IO[bytes], tile: bytes) -> tuple[int, int]:
    """Write a tile with its length before it and its last bytes behind it; returns its offset and length."""
    file.write(struct.pack("<I", len(tile)))
    offset = file.tell()
    file.write(tile)
    file.write(tile[-4:])
    return offset, len(tile)
