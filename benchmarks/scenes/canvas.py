"""A canvas of real tissue of any size, for timing readers: blocks of one field, turned and shifted at random.

The slide's background is white, as in a scan; no two blocks are alike, so that no cache is flattered.
"""

from pathlib import Path
from typing import ClassVar

import numpy as np

from hiresattn.geometry import Level
from hiresattn.pyramid.base import Pyramid
from hiresattn.pyramid.metadata import Metadata
from hiresattn.pyramid.pixels import Pixels

#: Side of a block, px.
BLOCK = 1000
#: Share of the blocks that hold tissue, about.
TISSUE = 0.62
#: One real field, in the data folder beside the repository.
FIELD = Path("slides") / "he_field_2500.jpeg"


class Canvas(Pyramid):
    """``side * side`` px of tissue; rendered where it is read, level 0 only.

    Args:
        data: The data folder.
        side: Rows and columns, px.
        seed: Which canvas.
    """

    backend: ClassVar[str] = "canvas"

    def __init__(self, data: str | Path, side: int, seed: int = 0) -> None:
        from PIL import Image

        with Image.open(Path(data) / FIELD) as image:
            self._field = np.asarray(image.convert("RGB"))
        self._seed = seed
        level = Level(width=side, height=side, downsample=1.0, tile_width=BLOCK, tile_height=BLOCK)
        meta = Metadata(levels=(level,), channels=3, dtype=np.dtype(np.uint8))
        super().__init__(f"canvas of {side} px", meta)

    def _read(self, level: int, y: int, x: int, height: int, width: int) -> Pixels:  # noqa: ARG002
        out = np.full((height, width, 3), 243, np.uint8)
        for row in range(y // BLOCK, -(-(y + height) // BLOCK)):
            for column in range(x // BLOCK, -(-(x + width) // BLOCK)):
                top, left = row * BLOCK, column * BLOCK
                y0, x0 = max(y, top), max(x, left)
                y1, x1 = min(y + height, top + BLOCK), min(x + width, left + BLOCK)
                block = self._block(row, column)
                if block is not None:
                    out[y0 - y : y1 - y, x0 - x : x1 - x] = block[y0 - top : y1 - top, x0 - left : x1 - left]
        return Pixels(out)

    def _block(self, row: int, column: int) -> np.ndarray | None:
        """A view of the field; None where there is no tissue."""
        random = np.random.default_rng((self._seed, row, column))
        if random.random() > TISSUE:
            return None
        room_y, room_x = (side - BLOCK for side in self._field.shape[:2])
        y, x = int(random.integers(room_y)), int(random.integers(room_x))
        block = self._field[y : y + BLOCK, x : x + BLOCK]
        return np.rot90(block, int(random.integers(4)))[:, :: random.choice([-1, 1])]
