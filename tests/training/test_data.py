"""Batches read lazily, all images in one call."""

import threading

import numpy as np
import pytest

from hiresattn.config import InputConfig
from hiresattn.datasets.manifest import Example
from hiresattn.errors import ReadError
from hiresattn.geometry import Grid, Level
from hiresattn.pyramid import Pixels
from hiresattn.pyramid.base import Pyramid
from hiresattn.pyramid.metadata import Metadata
from hiresattn.training.augment import ORIENTATIONS, Augmentation
from hiresattn.training.cutmix import CutMix
from hiresattn.training.data import Loader

RULE = InputConfig(size=16)


class Slow(Pyramid):
    """A picture of which every read waits until others are under way, too."""

    backend = "slow"

    def __init__(self, number, meet=None):
        levels = (Level(128, 128, 1.0, 64, 64), Level(64, 64, 2.0, 64, 64))
        super().__init__(f"slow {number}", Metadata(levels=levels, channels=3, dtype=np.dtype(np.uint8)))
        rng = np.random.default_rng(number)
        self.pixels = [rng.integers(0, 255, (side, side, 3)).astype(np.uint8) for side in (128, 64)]
        self.meet, self.wrong = meet, False

    def _read(self, level, y, x, height, width):
        if self.wrong:
            raise ReadError(f"{self.source}: damaged")
        if self.meet is not None:
            self.meet.wait(30)
        return Pixels(self.pixels[level][y : y + height, x : x + width])


def _loader(pyramids, **more):
    loader = Loader(RULE, Grid(3, 0.5), **({"threads": 4} | more))
    return loader, loader.measure([Example(one, "ab"[i % 2]) for i, one in enumerate(pyramids)], ("a", "b"))


def test_reads_of_the_images_of_a_batch_overlap():
    meet = threading.Barrier(4)  # passed by four reads at once only
    loader, samples = _loader([Slow(number, meet) for number in range(8)])
    roots = np.array([[0, 0, 128, 128]])
    found = loader.batch(samples).fetch(np.arange(8), np.repeat(roots, 8, 0))
    for number in range(8):
        alone, one = _loader([Slow(number)], threads=0)
        expected = alone.batch(one).fetch(np.zeros(1, np.int64), roots)
        assert np.array_equal(found.pixels[number], expected.pixels[0])
    loader.close()


def test_the_next_batch_is_read_ahead_whatever_its_orientation():
    pyramids = [Slow(number) for number in range(6)]
    loader, samples = _loader(pyramids)
    loader.root_size = 64  # four root regions, which an orientation exchanges
    loader.batch(samples[:3], upcoming=samples[3:])
    way = Augmentation(ORIENTATIONS["turns"][5])
    batch = loader.batch(samples[3:], [way] * 3)
    for one in pyramids:
        one.wrong = True  # nothing is read from here on
    image = np.repeat(np.arange(3), 4)
    found = batch.fetch(image, np.concatenate(batch.roots))
    alone, own = _loader([Slow(number) for number in range(3, 6)], threads=0)
    alone.root_size = 64
    batch = alone.batch(own, [way] * 3)
    assert np.array_equal(found.pixels, batch.fetch(image, np.concatenate(batch.roots)).pixels)
    loader.close()


@pytest.mark.parametrize("squash", [None, 32])
def test_an_image_that_breaks_is_named_and_the_others_are_read_without_it(squash):
    pyramids = [Slow(number) for number in range(4)]
    skipped = []
    rule = InputConfig(size=16, squash=squash)
    loader = Loader(rule, Grid(3, 0.5), threads=2, on_skip=skipped.append)
    samples = loader.measure([Example(one, "a") for one in pyramids], ("a", "b"))
    pyramids[2].wrong = True

    def work(batch):
        batch.fetch(np.arange(len(batch.roots)), np.concatenate([roots[:1] for roots in batch.roots]))
        return [sample.example.source.source for sample in batch.samples]

    mixed = [Augmentation(cutmix=CutMix(samples[2], (0, 0, 64, 64), (0, 0))), *[Augmentation()] * 3]
    assert loader.process(samples, work, mixed) == (["slow 0", "slow 1", "slow 3"], 1)
    assert [str(error) for error in skipped] == ["slow 2: damaged"]
    loader.on_skip = None
    with pytest.raises(ReadError, match="slow 2: damaged"):
        loader.process(samples, work)
    loader.close()
