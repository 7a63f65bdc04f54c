"""An image of which only what lies inside polygons is valid."""

from typing import Any, ClassVar

import numpy as np

from hiresattn.pyramid.base import Pyramid
from hiresattn.pyramid.formats.quiet import quiet
from hiresattn.pyramid.pixels import Pixels, both_valid
from hiresattn.pyramid.storage.ranges import RequestStats
from hiresattn.shapes import Bool

#: Polygons in level-0 px: of each its rings, the outer one and those of its holes, of points (y, x).
Outline = tuple[tuple[tuple[tuple[float, float], ...], ...], ...]


class Clipped(Pyramid):
    """An image whose px outside of polygons aren't valid; the image stays the caller's.

    A px of any level is inside where its middle is. What is read, and how, is as of the image itself.

    Args:
        image: The image.
        outline: The polygons.
    """

    backend: ClassVar[str] = "clipped"

    def __init__(self, image: Pyramid, outline: Outline) -> None:
        super().__init__(image.source, image.meta)
        self.by_tile, self.by_window = image.by_tile, image.by_window
        self.native_tiles, self.exact_bytes = image.native_tiles, image.exact_bytes
        self._image, self._outline = image, outline

    def read_masked(self, level: int, y: int, x: int, height: int, width: int, bands: Any = None) -> Pixels:
        """As the image's own, less what lies outside."""
        pixels = self._image.read_masked(level, y, x, height, width, bands)
        return self._inside(pixels, level, y, x)

    def read_by_band(self, level: int, y: int, x: int, height: int, width: int) -> Pixels:
        """As the image's own, less what lies outside."""
        return self._inside(self._image.read_by_band(level, y, x, height, width), level, y, x)

    def read_tile(self, level: int, row: int, column: int, buffer: Any = None, bands: Any = None) -> Pixels:
        """As the image's own, less what lies outside."""
        y, x, _, _ = self.tile_window(level, row, column)
        return self._inside(self._image.read_tile(level, row, column, buffer, bands), level, y, x)

    @property
    def requests(self) -> RequestStats | None:  # type: ignore[override]
        """As the image's own."""
        return self._image.requests

    def tile_bytes(self, level: int, row: int, column: int) -> int:
        """As the image's own."""
        return self._image.tile_bytes(level, row, column)

    def close(self) -> None:
        """Close the image."""
        self._image.close()

    def _read(self, level: int, y: int, x: int, height: int, width: int) -> Pixels:
        return self.read_by_band(level, y, x, height, width)

    def _inside(self, pixels: Pixels, level: int, y: int, x: int) -> Pixels:
        step = self.levels[level].downsample
        sides = pixels.data.shape[:2]
        inside = inside_px(self._outline, (y * step, x * step), (step, step), sides)
        valid = None if inside.all() else both_valid(pixels.valid, inside)
        return Pixels(
            pixels.data,
            pixels.valid if valid is None else valid,
            pixels.missing_tiles,
            pixels.missing_by_band,
        )

    def __reduce__(self) -> tuple[Any, ...]:
        return Clipped, (self._image, self._outline)


def inside_px(
    outline: Outline, start: tuple[float, float], step: tuple[float, float], sides: tuple[int, int]
) -> Bool[np.ndarray, "h w"]:
    """Which px of a grid have their middle inside polygons.

    Args:
        outline: The polygons, level-0 px.
        start: Upper left corner of the grid (y, x), level-0 px.
        step: Height and width of its px, level-0 px.
        sides: Its rows and columns.
    """
    from rasterio import Affine
    from rasterio.errors import NotGeoreferencedWarning
    from rasterio.features import rasterize

    shapes = [
        {"type": "Polygon", "coordinates": [[(x, y) for y, x in ring] for ring in rings]} for rings in outline
    ]
    if not shapes:
        return np.zeros(sides, bool)
    grid = Affine(step[1], 0, start[1], 0, step[0], start[0])
    with quiet(NotGeoreferencedWarning):  # where this is the grid of level 0
        return np.asarray(rasterize(shapes, out_shape=sides, transform=grid, dtype="uint8") > 0)
