"""What the base class checks of every backend."""

import numpy as np
import pytest

from hiresattn.errors import ReadError
from hiresattn.geometry import Level
from hiresattn.pyramid.base import Pyramid
from hiresattn.pyramid.metadata import Metadata
from hiresattn.pyramid.pixels import Pixels


class Wrong(Pyramid):
    """Returns other pixels than its header announced."""

    backend = "wrong"

    def __init__(self, announced, returned, shape=(4, 4, 1)):
        super().__init__("scene.tif", Metadata((Level(4, 4, 1.0, 4, 4),), 1, np.dtype(announced)))
        self.returned = np.zeros(shape, returned)

    def _read(self, level, y, x, height, width):
        return Pixels(self.returned)


@pytest.mark.parametrize(
    ("announced", "returned"), [("uint16", "int16"), ("float32", "uint32"), ("<u2", ">u2"), ("uint8", "bool")]
)
def test_a_data_type_of_the_same_size_is_not_the_announced_one(announced, returned):
    pyramid = Wrong(announced, returned)
    for read in (lambda: pyramid.read(0, 0, 0, 4, 4), lambda: pyramid.read_tile(0, 0, 0)):
        with pytest.raises(ReadError, match="header and its pixels disagree"):
            read()


@pytest.mark.parametrize("shape", [(4, 4, 2), (4, 3, 1), (3, 4, 1), (4, 4)])
def test_other_shapes_than_asked_for_are_read_errors(shape):
    with pytest.raises(ReadError, match="header and its pixels disagree"):
        Wrong("uint16", "uint16", shape).read(0, 0, 0, 4, 4)
