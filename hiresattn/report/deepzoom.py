"""An image as square tiles at every power of two, as deep-zoom viewers ask for them."""

import io
import os
import threading
from types import TracebackType
from typing import Self

import numpy as np
from PIL import Image

from hiresattn.errors import RegionError
from hiresattn.pyramid import Pyramid
from hiresattn.reading.fetch import CropFetcher
from hiresattn.report.view import View, display_config, display_range, read_view, to_image

#: Side of a tile, px.
TILE = 256
#: Decoded tiles of the file that are kept of an image, bytes.
_KEPT = 32 << 20
#: Longer side of the view that says which values are shown as black and as white, px.
_RANGE_VIEW = 512
_QUALITY = 85


class DeepZoom:
    """Reads tiles of an image for a viewer; any number of threads may ask.

    The finest level has the px of level 0, each other one half as many along a side, down to a single tile. What a
    tile shows is averaged from the coarsest stored level that is fine enough, over measured px only.

    Args:
        pyramid: The image; it is closed with this.
        values: Pixel values to show as black and as white; None = as ``display_range`` says of the whole.

    Raises:
        ReadError: If the coarse view of the image can't be read.
    """

    def __init__(self, pyramid: Pyramid, values: tuple[float, float] | None = None) -> None:
        self.pyramid = pyramid
        self.height, self.width = pyramid.height, pyramid.width
        self.levels = (max(-(-max(self.height, self.width) // TILE) - 1, 0)).bit_length() + 1
        """How many levels there are: 1 = the image is a single tile."""
        view = read_view(pyramid, (0, 0, self.height, self.width), _RANGE_VIEW)
        self._low, self._high = display_range(view, pyramid.dtype)
        if values is not None:
            self._low, self._high = (np.full_like(self._low, value) for value in values)
        threads = min(os.cpu_count() or 1, 4)
        self._fetch = CropFetcher(
            [pyramid], display_config(pyramid, TILE), threads=threads, cache_bytes=_KEPT
        )
        self._lock = threading.Lock()

    def tile(self, level: int, row: int, column: int) -> bytes:
        """A tile as JPEG, cut at the image's edge.

        Args:
            level: From 0 (a single tile) to ``levels - 1`` (the px of level 0).
            row: Row of tiles.
            column: Column of tiles.

        Raises:
            RegionError: If there is no such tile.
            ReadError: If a tile of the file can't be decoded.
        """
        view = self._view(level, row, column)
        file = io.BytesIO()
        shown: Image.Image = to_image(view, self._low, self._high)
        shown.save(file, "JPEG", quality=_QUALITY)
        return file.getvalue()

    def _view(self, level: int, row: int, column: int) -> View:
        step = 1 << max(self.levels - 1 - level, 0)
        side = TILE * step
        y, x = row * side, column * side
        if not (0 <= level < self.levels and 0 <= y < self.height and 0 <= x < self.width):
            raise RegionError(
                f"{self.pyramid.source}: no tile in row {row}, column {column} of level {level} for viewers"
            )
        if side > min(self.height, self.width):
            region = (y, x, min(side, self.height - y), min(side, self.width - x))
            with self._lock:
                return read_view(self.pyramid, region, max(-(-max(region[2:]) // step), 1))
        # A square that lies inside the image, of which the tile is a part: whole px of the tile's own level apart.
        top, left = min(y, (self.height - side) // step * step), min(x, (self.width - side) // step * step)
        with self._lock:
            crops = self._fetch(np.zeros(1, np.int64), np.array([[top, left, side, side]], np.int64))
        rows, columns = slice((y - top) // step, None), slice((x - left) // step, None)
        values = crops.pixels[0].transpose(1, 2, 0)[rows, columns]
        return View(values, crops.coverage[0][rows, columns] > 0)

    def close(self) -> None:
        """Let go of the image and of what is kept of it."""
        with self._lock:
            self._fetch.close()
            self.pyramid.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()
