"""What is checked of every natively decoded tile."""

import numpy as np
import pytest

from hiresattn.errors import ReadError
from hiresattn.pyramid.pixels import Pixels
from hiresattn.pyramid.storage.tiles import Tiles, agrees


class Decodes(Tiles):
    """One level of 2 x 2 tiles of 4 x 4 px."""

    decoder = "nothing"

    def __init__(self, announced, tile):
        super().__init__("scene.tif", shapes=[(8, 8)], sides=[(4, 4)], bands=1, dtype=announced)
        self.tile = tile

    def stored(self, level, row, column):
        return [b""]

    def decode(self, level, row, column, stored, buffer=None):
        return self.tile

    def close(self):
        pass


@pytest.mark.parametrize(
    ("announced", "decoded"), [("uint16", "int16"), ("float32", "uint32"), ("<u2", ">u2"), ("uint8", "int8")]
)
def test_a_tile_of_another_data_type_of_the_same_size_is_damaged(announced, decoded):
    tiles = Decodes(announced, np.ones((4, 4, 1), decoded))
    for read in (lambda: tiles.read_tile(0, 1, 1), lambda: tiles.read(0, 1, 1, 6, 6)):
        with pytest.raises(ReadError, match=r"level 0, tile in row \d, column \d: damaged, it decodes to"):
            read()


def test_a_tile_of_another_shape_is_damaged():
    with pytest.raises(ReadError, match=r"decodes to \(4, 3, 1\) uint8 where \(4, 4, 1\) uint8"):
        Decodes("uint8", np.ones((4, 3, 1), np.uint8)).read_tile(0, 0, 0)


def test_readers_that_give_equal_values_of_another_data_type_do_not_agree():
    tiles = Decodes("uint16", np.ones((4, 4, 1), np.uint16))
    for dtype, same in (("uint16", True), ("int16", False), ("float32", False)):
        for lossy in (False, True):
            assert (
                agrees(tiles, lambda *_, dtype=dtype: Pixels(np.ones((4, 4, 1), dtype)), lossy=lossy) == same
            )


def test_readers_of_a_lossy_format_agree_within_its_range_and_on_what_is_not_a_number():
    image = np.linspace(0, 1, 16, dtype=np.float32).reshape(4, 4, 1)
    tiles = Decodes("float32", image)
    hole = image.copy()
    hole[0, 0] = np.nan
    for theirs, same in ((image + 0.001, True), (1 - image, False), (hole, False)):
        assert agrees(tiles, lambda *_, theirs=theirs: Pixels(theirs), lossy=True) == same
