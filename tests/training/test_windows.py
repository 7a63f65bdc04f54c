"""Small images out of large ones: from which side of a region on, and what they show."""

from dataclasses import replace

import pytest

from hiresattn.datasets.example import Example
from hiresattn.training.options import TrainOptions
from hiresattn.training.sizes import Sized
from hiresattn.training.windows import coarser_sides

OPTIONS = TrainOptions(crop_size=32, finest=100, background="plain")


def sized(regions, label="bright"):
    return Sized((Example("a.png", label),), regions, 1000, 2)


@pytest.mark.parametrize(
    ("regions", "sides"), [(1, []), (16, []), (17, [400, 200]), (64, [400, 200]), (65, [800, 400, 200])]
)
def test_the_coarsest_regions_are_about_four_of_an_image(regions, sides):
    assert coarser_sides([sized(regions)], OPTIONS) == sides


def test_windows_are_told_from_a_background():
    assert coarser_sides([sized(64)], replace(OPTIONS, background=None)) == []
    assert coarser_sides([], OPTIONS) == []
