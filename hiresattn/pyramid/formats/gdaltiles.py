"""Which stored tiles of a GeoTIFF are read natively, and whether their codec is this program's or GDAL's."""

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from hiresattn.errors import OpenError
from hiresattn.pyramid.formats.tiff import opened_tiff, pages_of_sizes
from hiresattn.pyramid.metadata import Metadata
from hiresattn.pyramid.pixels import Pixels
from hiresattn.pyramid.storage.jp2header import Codestream
from hiresattn.pyramid.storage.jp2tiles import Jp2Tiles
from hiresattn.pyramid.storage.ranges import RangeFile
from hiresattn.pyramid.storage.strips import ROWS, Strips
from hiresattn.pyramid.storage.tifftiles import TiffTiles

#: ``read(level, y, x, height, width) -> [h w bands]``, by GDAL.
ByGdal = Callable[[int, int, int, int, int], np.ndarray]
NativeTiles = TiffTiles | Strips | Jp2Tiles
_LZW, _MINISWHITE = 5, 0


class GdalTiles(TiffTiles):
    """Tiles whose codec GDAL has the fastest of: LZW, which it decodes in two thirds of the time.

    Args:
        source: The file, for messages.
        levels: As of ``TiffTiles``.
        fill: As of ``TiffTiles``.
        read: Reads a window by GDAL.
    """

    def __init__(self, source: str, levels: Sequence[Sequence[Any]], fill: Any, read: ByGdal) -> None:
        super().__init__(source, levels, fill)
        self._read = read

    @property
    def decoder(self) -> str:
        """What decodes them."""
        return "GDAL LZW"

    @property
    def whole(self) -> bool:
        """Whether the file leaves out no tile."""
        return all(bool((plane.offsets * plane.counts).all()) for planes in self._levels for plane in planes)

    def stored(self, level: int, row: int, column: int) -> list[bytes | None]:
        """Whether each piece of a tile is there: GDAL reads them by itself."""
        return [b"" if count else None for _, count in self.ranges(level, row, column)]

    def decode(
        self, level: int, row: int, column: int, stored: list[bytes | None], buffer: np.ndarray | None = None
    ) -> np.ndarray:
        """The px of a tile, cut to the level's edge; whatever GDAL raises."""
        del stored, buffer
        (height, width), (rows, columns) = self.shapes[level], self.sides[level]
        y, x = row * rows, column * columns
        return self._read(level, y, x, min(rows, height - y), min(columns, width - x))


def jp2_tiles(
    source: str, meta: Metadata, path: str, stream: Codestream, by_gdal: Callable[..., Pixels]
) -> Jp2Tiles | None:
    """The tiles of a JPEG 2000 file, where they are small and GDAL sees the same bands; else None."""
    if (meta.channels, meta.dtype) != (stream.bands, stream.plain_dtype):
        return None
    try:
        return Jp2Tiles(source, path, stream, meta.levels, lambda *window: by_gdal(*window).data)
    except ValueError:
        return None


def native_tiles(
    source: str, meta: Metadata, path: str, ranges: RangeFile | None, by_gdal: ByGdal
) -> NativeTiles | None:
    """A strict tile reader for a file, where its directories (in ``path``) are the levels that GDAL sees.

    Strips of few rows are tiles of several; else the tiles are GDAL's blocks.
    """
    with opened_tiff(path) as tif:
        pages = pages_of_sizes(tif, [(level.height, level.width) for level in meta.levels], strips=True)
        if pages is None:
            return None
        fill = 0 if meta.nodata is None else meta.nodata
        keys = [page.keyframe for level in pages for page in level]
        tiled = all(key.is_tiled and int(key.photometric) != _MINISWHITE for key in keys)
        try:
            if ranges is None and tiled and all(int(key.compression) == _LZW for key in keys):
                tiles: TiffTiles = GdalTiles(source, pages, fill, by_gdal)
            else:
                tiles = TiffTiles(source, pages, fill, ranges)
        except OpenError:  # bands or bits that only GDAL decodes
            return None
    sides = [(level.tile_height, level.tile_width) for level in meta.levels]
    agree = (
        tiles.bands == meta.channels
        and tiles.dtype == meta.dtype
        and tiles.sides == sides  # GDAL shows one strip for all as rows
    )
    if not agree:
        return None
    strips = not any(key.is_tiled for key in keys) and min(rows for rows, _ in tiles.sides) < ROWS
    return Strips(tiles) if strips and ranges is None else tiles
