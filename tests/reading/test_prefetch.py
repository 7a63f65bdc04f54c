import threading

import numpy as np
import pytest

from hiresattn.config import InputConfig
from hiresattn.errors import ReadError
from hiresattn.pyramid import open_pyramid
from hiresattn.reading.fetch import CropFetcher
from hiresattn.reading.prefetch import Held, Opened, OpenImages, prepared_ahead
from tests.images import write_ome_tiff


def test_items_come_in_order_and_one_is_prepared_ahead():
    log, started = [], [threading.Event() for _ in range(4)]

    def prepare(item):
        log.append(item)
        started[item].set()
        return item * 10

    found = []
    for ready in prepared_ahead(range(4), prepare, log.append):
        nth = ready // 10
        if nth < 3:
            assert started[nth + 1].wait(10)  # prepared although nobody asked for it yet
        assert len(log) <= nth + 2
        found.append(ready)
    assert found == [0, 10, 20, 30]
    assert log == [0, 1, 2, 3]


def test_an_error_of_preparing_or_of_the_items_comes_at_its_turn():
    def items():
        yield 1
        yield 2
        raise KeyError("items")

    def prepare(item):
        return 1 // (2 - item)

    turns = prepared_ahead(items(), prepare, print)
    assert next(turns) == 1
    with pytest.raises(ZeroDivisionError):
        next(turns)
    turns = prepared_ahead(items(), lambda item: item, print)
    assert [next(turns), next(turns)] == [1, 2]
    with pytest.raises(KeyError):
        next(turns)


def test_what_was_prepared_in_vain_is_let_go():
    gone, second = [], threading.Event()

    def prepare(item):
        if item == 2:
            second.set()
        return item

    turns = prepared_ahead([1, 2, 3], prepare, gone.append)
    assert next(turns) == 1
    assert second.wait(10)
    turns.close()
    assert gone == [2]
    assert not any("hiresattn-ahead" in thread.name for thread in threading.enumerate())


def test_an_image_is_shared_by_its_users_and_closed_after_the_next(tmp_path, monkeypatch):
    names = [str(write_ome_tiff(tmp_path / f"{k}.ome.tif")) for k in range(2)]
    images = Opened()
    first = images.take(names[0])
    closed = []
    monkeypatch.setattr(type(first), "close", lambda self: closed.append(self.source))
    assert images.take(names[0]) is first
    images.give_back(names[0])
    other = images.take(names[1])
    images.give_back(names[0])
    assert not closed  # the next window of it may come
    images.give_back(names[1])
    assert closed == [names[0]]
    images.close()
    assert closed == names
    array = np.zeros((8, 8, 3), np.uint8)
    assert images.take(array) is not images.take(array)
    images.give_back(array)
    assert other.source == names[1]


def _open_images(log, most=2, wrong=()):
    """Arrays by number; what is opened and closed is logged."""

    class Logged(Held):
        def close(self):
            log.append(("closed", int(self.pyramid.read(0, 0, 0, 1, 1)[0, 0, 0])))
            super().close()

    def make(number, at_once):
        log.append(("opened", int(number), threading.current_thread().name.startswith("hiresattn-ahead")))
        if number in wrong:
            raise ReadError(f"{number}: out of order")
        pyramid = open_pyramid(np.full((64, 64, 3), int(number), np.uint8))
        return Logged(pyramid, CropFetcher([pyramid], InputConfig(size=32), threads=1))

    return OpenImages(make, most)


WHOLE = np.array([[0, 0, 64, 64]])


def test_what_is_expected_is_opened_and_read_in_a_thread_and_gives_the_same_crops():
    log = []
    images = _open_images(log)
    first = images.take("1")
    images.expect([("2", WHOLE), ("1", WHOLE), ("2", WHOLE)], meanwhile=["1"])
    images._coming["2"].result(10)
    assert log == [("opened", 1, False), ("opened", 2, True)]
    assert first.fetcher.stats[0].crops == 0  # in use: left alone
    second = images.take("2")
    assert second.fetcher.stats[0].crops == 2
    crops = second.fetcher(np.zeros(2, np.int64), np.repeat(WHOLE, 2, 0))
    assert second.fetcher.stats[0].crops == 2  # nothing was read again
    assert np.allclose(crops.pixels, 2 * 2 / 255 - 1)
    assert images.take("2") is second
    images.close()
    assert log[2:] == [("closed", 1), ("closed", 2)]
    assert not any("hiresattn-ahead" in thread.name for thread in threading.enumerate())


def test_no_more_images_are_open_than_are_kept_and_come():
    log = []
    images = _open_images(log, most=2)
    for number in range(6):
        images.take(str(number))
        images.expect([(str(number + 1), WHOLE)], meanwhile=[str(number)])
        open_now = sum(1 if entry[0] == "opened" else -1 for entry in log)
        assert open_now <= 3
    assert [entry[1] for entry in log if entry[0] == "closed"] == [0, 1, 2, 3]
    images.forget("5")
    assert log[-1] == ("closed", 5)
    images.close()
    assert sum(1 if entry[0] == "opened" else -1 for entry in log) == 0


def test_what_fails_ahead_fails_where_it_is_asked_for():
    images = _open_images([], wrong=["3"])
    images.expect([("3", WHOLE), ("4", np.array([[0, 0, 164, 64]]))], meanwhile=[])  # 4: leaves the image
    with pytest.raises(ReadError, match="3: out of order"):
        images.take("3")
    assert np.allclose(images.take("4").fetcher(np.zeros(1, np.int64), WHOLE).pixels, 2 * 4 / 255 - 1)
    images.close()
