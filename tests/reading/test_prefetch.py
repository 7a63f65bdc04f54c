import threading

import numpy as np
import pytest

from hiresattn.reading.prefetch import SharedImages, prepared_ahead
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
    images = SharedImages()
    first = images.acquire(names[0])
    closed = []
    monkeypatch.setattr(type(first), "close", lambda self: closed.append(self.source))
    assert images.acquire(names[0]) is first
    images.release(names[0])
    other = images.acquire(names[1])
    images.release(names[0])
    assert not closed  # the next window of it may come
    images.release(names[1])
    assert closed == [names[0]]
    images.close()
    assert closed == names
    array = np.zeros((8, 8, 3), np.uint8)
    assert images.acquire(array) is not images.acquire(array)
    images.release(array)
    assert other.source == names[1]
