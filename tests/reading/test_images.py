"""Many images, one fetcher: their reads overlap, what is read ahead changes nothing, memory is bounded."""

import threading

import numpy as np
import pytest

from hiresattn.config import InputConfig
from hiresattn.errors import DomainError, ReadError
from hiresattn.geometry import Level
from hiresattn.pyramid.base import Pyramid
from hiresattn.pyramid.metadata import Metadata
from hiresattn.pyramid.pixels import Pixels
from hiresattn.reading import images as images_module
from hiresattn.reading.images import ImagePool

WHOLE = np.array([[0, 0, 64, 64]])
RULE = InputConfig(size=32, channels=3)


class Flat(Pyramid):
    """All px have one value; reads can be made to wait for each other, or to fail."""

    backend = "flat"

    def __init__(self, value, meet=None, *, wrong=False, bands=3):
        level = Level(64, 64, 1.0, 64, 64)
        super().__init__(str(value), Metadata(levels=(level,), channels=bands, dtype=np.dtype(np.uint8)))
        self.value, self.meet, self.wrong, self.closed, self.reads = value, meet, wrong, 0, []

    def _read(self, level, y, x, height, width):
        self.reads.append(threading.current_thread().name)
        if self.wrong:
            raise ReadError(f"{self.value}: out of order")
        if self.meet is not None:
            self.meet.wait(20)
        return Pixels(np.full((height, width, self.channels), self.value, np.uint8))

    def close(self):
        self.closed += 1


def pool(threads=2, most=2, **more):
    return ImagePool(RULE, threads=threads, most=most, cache_bytes=more.pop("cache_bytes", 1 << 20))


@pytest.fixture
def files(monkeypatch):
    """Images by name, opened by ``open_pyramid``."""
    made, opened = {}, []

    def open_one(source, nodata=None):
        if isinstance(source, Pyramid):
            return source
        opened.append(Flat(int(source), wrong=source in made.get("wrong", ())))
        return opened[-1]

    monkeypatch.setattr(images_module, "open_pyramid", open_one)
    made["opened"] = opened
    return made


def fetch(images, *values):
    index = np.array([images.take(str(value)).number for value in values])
    return images.fetch(index, np.repeat(WHOLE, len(values), 0)).pixels[:, 0, 0, 0]


def scaled(*values):
    return 2 * np.array(values) / 255 - 1


def test_reads_of_different_images_overlap():
    meet = threading.Barrier(4)  # each read waits until four are under way
    sources = [Flat(value, meet) for value in range(4)]
    images = pool(threads=4, most=4)
    images.begin(sources)
    index = np.array([images.take(source).number for source in sources])
    crops = images.fetch(index, np.repeat(WHOLE, 4, 0))
    assert np.allclose(crops.pixels[:, 0, 0, 0], scaled(0, 1, 2, 3))
    images.close()
    assert [source.closed for source in sources] == [0] * 4  # they were given


def test_what_is_expected_is_read_in_a_thread_and_gives_the_same_crops(files):
    before = set(threading.enumerate())
    images = pool()
    images.begin(["1"])
    images.expect([("2", WHOLE), ("1", WHOLE), ("2", WHOLE)])
    assert np.allclose(fetch(images, 1), scaled(1))
    images.begin(["2", "1"])
    first, second = sorted(files["opened"], key=lambda image: image.value)
    assert len(second.reads) == 1
    assert np.allclose(fetch(images, 2, 1, 2), scaled(2, 1, 2))
    assert len(first.reads) == len(second.reads) == 1  # crops read ahead, and tiles in the cache
    images.close()
    assert [first.closed, second.closed] == [1, 1]
    assert not any("hiresattn" in thread.name for thread in set(threading.enumerate()) - before)


def test_another_batch_that_comes_first_leaves_what_is_expected(files):
    images = pool(most=1)
    images.begin(["1"])
    images.expect([("2", WHOLE)])
    images.begin(["3"])
    assert np.allclose(fetch(images, 3), scaled(3))
    images.expect([("2", WHOLE)])
    images.begin(["2"])
    assert np.allclose(fetch(images, 2), scaled(2))
    assert [len(image.reads) for image in files["opened"] if image.value == 2] == [1]
    images.close()


def test_no_more_images_are_open_than_are_kept_or_in_use_and_coming(files):
    images = pool(most=2)
    for number in range(6):
        images.begin([str(number)])
        fetch(images, number)
        images.expect([(str(number + 1), WHOLE)])
        assert sum(not image.closed for image in files["opened"]) <= 3
    images.begin(["7", "8", "9"])
    assert np.allclose(fetch(images, 7, 8, 9), scaled(7, 8, 9))
    assert sum(not image.closed for image in files["opened"]) <= 4  # the three and 6, which was expected
    images.forget("9")
    assert [image.closed for image in files["opened"] if image.value == 9] == [1]
    images.close()
    assert all(image.closed == 1 for image in files["opened"])


def test_tiles_of_closed_images_are_not_kept_and_those_of_open_ones_are_bounded(files):
    images = pool(threads=0, most=3, cache_bytes=2 * 64 * 64 * 3)
    fetch(images, 1, 2, 3)
    assert images.fetcher._cache.nbytes == 2 * 64 * 64 * 3
    images.forget("3")
    assert images.fetcher._cache.nbytes == 64 * 64 * 3
    assert images.take("4").number == 3  # no index is used again
    assert np.allclose(fetch(images, 4), scaled(4))
    images.close()


def test_what_fails_ahead_fails_where_it_is_asked_for_and_names_its_image(files):
    files["wrong"] = ["3"]
    images = pool(most=4)
    images.expect([("3", WHOLE), ("4", WHOLE)])
    images.begin(["3", "4"])
    index = np.array([images.take(name).number for name in ("4", "3")])
    with pytest.raises(ReadError, match="3: out of order") as caught:
        images.fetch(index, np.repeat(WHOLE, 2, 0))
    assert caught.value.image == index[1]
    assert np.allclose(fetch(images, 4), scaled(4))
    with pytest.raises(DomainError):
        images.take(Flat(5, bands=4))
    images.close()
