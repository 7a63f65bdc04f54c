"""One step ahead: what comes next is opened and glanced at while the network works on this."""

from collections import OrderedDict, deque
from collections.abc import Callable, Generator, Iterable
from concurrent.futures import Future, ThreadPoolExecutor, wait
from contextlib import suppress
from pathlib import Path
from threading import Lock
from typing import Any, NamedTuple, TypeVar

import numpy as np

from hiresattn.errors import HiresattnError
from hiresattn.pyramid import Pyramid, open_pyramid
from hiresattn.reading.fetch import CropFetcher

ItemT = TypeVar("ItemT")
ReadyT = TypeVar("ReadyT")


def prepared_ahead(
    items: Iterable[ItemT],
    prepare: Callable[[ItemT], ReadyT],
    let_go: Callable[[ReadyT], object],
    *,
    most: int = 1,
) -> Generator[ReadyT]:
    """Prepare items in a thread while those before them are in use.

    Args:
        items: What to prepare; the thread asks for them.
        prepare: Called in the thread; its errors are raised where its item's turn is.
        let_go: Called with what was prepared and never used, if the iteration ends early.
        most: Items prepared and not yet in use, at most.

    Yields:
        What was prepared, in order.
    """
    coming = iter(items)
    end: Any = object()

    def step() -> Any:
        for item in coming:
            return prepare(item)
        return end

    with ThreadPoolExecutor(1, thread_name_prefix="hiresattn-ahead") as pool:
        futures: deque[Future[Any]] = deque(pool.submit(step) for _ in range(most))
        try:
            while (ready := futures.popleft().result()) is not end:
                futures.append(pool.submit(step))
                yield ready
        finally:
            for future in futures:
                if not future.cancel() and future.exception() is None and future.result() is not end:
                    let_go(future.result())


class Opened:
    """Images in use by name, each opened once; one that nobody uses any more is kept until the next such.

    Pyramids and arrays that were given stay the caller's. One thread takes; any gives back.
    """

    def __init__(self) -> None:
        self._lock = Lock()
        self._images: dict[str, Pyramid] = {}
        self._users: dict[str, int] = {}

    def take(self, source: Any) -> Pyramid:
        """Open an image, or share it; give it back by ``give_back``. Raises what ``open_pyramid`` does."""
        if not isinstance(source, str):
            return open_pyramid(source)
        with self._lock:
            image = self._images.get(source)
            if image is not None:
                self._users[source] += 1
                return image
        image = open_pyramid(source)  # without the lock: the other thread goes on
        with self._lock:
            self._images[source], self._users[source] = image, 1
        return image

    def give_back(self, source: Any) -> None:
        """Say that one user is done with an image."""
        with self._lock:
            if isinstance(source, str) and source in self._users:
                self._users[source] -= 1
                for name in [name for name, users in self._users.items() if not users and name != source]:
                    self._drop(name)

    def close(self) -> None:
        """Close all images."""
        with self._lock:
            for name in list(self._images):
                self._drop(name)

    def _drop(self, name: str) -> None:
        self._images.pop(name).close()
        del self._users[name]


class Held(NamedTuple):
    """An open image and what reads it."""

    pyramid: Pyramid
    fetcher: CropFetcher

    def close(self) -> None:
        """Close both."""
        self.fetcher.close()
        self.pyramid.close()


class OpenImages:
    """Images kept open with their fetchers; first looks at those that come are read in a thread.

    What is read ahead changes no crop. To be used from one thread, as the fetchers are: one that is read ahead
    is waited for before it is handed out or closed.

    Args:
        make: ``make(source, at_once)`` opens an image, as one of so many that are needed together.
        most: How many are kept open, or as many as are needed together; and besides, those that come. The least
            recently used is closed first.
    """

    def __init__(self, make: Callable[[Any, int], Held], most: int) -> None:
        self._make = make
        self._most = most
        self._open: OrderedDict[str | int, Held] = OrderedDict()
        self._coming: dict[str | int, Future[Held]] = {}
        self._pool: ThreadPoolExecutor | None = None

    def take(self, source: Any, at_once: int = 1) -> Held:
        """An image, opened if it isn't; ``at_once`` are needed together. Raises what ``make`` does."""
        key = source_key(source)
        self._settle(key, at_once)
        if key not in self._open:
            self._keep(key, self._make(source, at_once), at_once)
        self._open.move_to_end(key)
        return self._open[key]

    def expect(self, looks: Iterable[tuple[Any, np.ndarray]], meanwhile: Iterable[Any]) -> None:
        """Read what will probably be asked for first, in a thread.

        Args:
            looks: Sources, and the regions ``[n 4]`` of their first looks.
            meanwhile: Sources that are in use until then; they are left alone.
        """
        coming: dict[str | int, tuple[Any, list[np.ndarray]]] = {}
        for source, regions in looks:
            coming.setdefault(source_key(source), (source, []))[1].append(regions)
        busy = set(map(source_key, meanwhile))
        for key in list(self._coming):
            self._settle(key, max(len(coming), len(busy)))
        if self._pool is None:
            self._pool = ThreadPoolExecutor(1, thread_name_prefix="hiresattn-ahead")
        for key, (source, looked_at) in coming.items():
            if key not in busy:
                held, roots = self._open.get(key), np.concatenate(looked_at)
                self._coming[key] = self._pool.submit(self._glance, source, held, roots, len(coming))

    def forget(self, source: Any) -> None:
        """Close an image, to be opened anew."""
        key = source_key(source)
        self._settle(key, 1)
        held = self._open.pop(key, None)
        if held is not None:
            held.close()

    def close(self) -> None:
        """Close every image; a later ``take`` opens anew."""
        for key in list(self._coming):
            self._settle(key, len(self._coming))
        if self._pool is not None:
            self._pool.shutdown()
        self._pool = None
        for held in self._open.values():
            held.close()
        self._open.clear()

    def _glance(self, source: Any, held: Held | None, regions: np.ndarray, at_once: int) -> Held:
        held = held or self._make(source, at_once)
        with suppress(HiresattnError, MemoryError):  # raised by who asks for them
            held.fetcher.prepare(np.zeros(len(regions), np.int64), regions)
        return held

    def _settle(self, key: str | int, at_once: int) -> None:
        """Take over what the thread made of an image, or spare it what it hasn't begun."""
        future = self._coming.pop(key, None)
        if future is None or future.cancel() or future.exception() is not None:
            return
        if key not in self._open:
            self._keep(key, future.result(), at_once)

    def _keep(self, key: str | int, held: Held, at_once: int) -> None:
        while len(self._open) >= max(self._most, at_once):
            oldest, old = self._open.popitem(last=False)
            future = self._coming.pop(oldest, None)
            if future is not None and not future.cancel():
                wait([future])
            old.close()
        self._open[key] = held


def source_key(source: Any) -> str | int:
    """What an open image is known by: its name, or the object that it is."""
    return str(source) if isinstance(source, (str, Path)) else id(source)
