"""What the training images are like: their values, and their scale, as files or the manifest say it."""

import numpy as np
import pytest

from hiresattn.config import InputConfig
from hiresattn.datasets.example import Example
from hiresattn.errors import ConfigError
from hiresattn.geometry import Grid
from hiresattn.pyramid.array import ArrayPyramid
from hiresattn.training.data import Loader
from hiresattn.training.setup import dataset_statistics


def survey(examples):
    loader = Loader(InputConfig(size=32, bands=(0,), low=(0.0,), high=(200.0,)), Grid(), threads=0)
    return dataset_statistics(loader, loader.measure(examples, ("a",)))


def flat(value, label="a", **more):
    return Example(np.full((32, 32, 1), value, np.uint8), label, **more)


def test_values_are_those_of_the_px_and_their_span_is_that_of_the_images():
    domain, (mean, spread) = survey([flat(40), flat(60), flat(110)])
    assert (domain.low, domain.high) == (pytest.approx((40,)), pytest.approx((110,)))
    assert mean[0] == pytest.approx(70)
    assert spread[0] == pytest.approx(np.std([40, 60, 110]), rel=1e-4)


def test_the_span_of_scales_is_what_files_say_unless_the_manifest_says_otherwise():
    said = Example(ArrayPyramid(np.zeros((32, 32, 1), np.uint8), mpp=0.25), "a")
    own = Example(ArrayPyramid(np.zeros((32, 32, 1), np.uint8), mpp=0.25), "a", mpp=0.5)
    assert survey([said])[0].mpp == (0.25, 0.25)
    assert survey([own])[0].mpp == (0.5, 0.5)
    assert survey([said, own, flat(9), flat(9, mpp=1.0)])[0].mpp == (0.25, 1.0)
    assert survey([flat(9)])[0].mpp is None


def test_images_without_a_valid_px_are_an_error():
    nothing = ArrayPyramid(np.zeros((32, 32, 1), np.uint8), nodata=0)
    with pytest.raises(ConfigError, match="none of the training images has a valid pixel"):
        survey([Example(nothing, "a")])
