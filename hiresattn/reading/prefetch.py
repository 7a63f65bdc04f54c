"""Preparing the next items in a thread while the current ones are in use, and sharing open images by name."""

from collections import deque
from collections.abc import Callable, Generator, Iterable
from concurrent.futures import Future, ThreadPoolExecutor
from threading import Lock
from typing import Any, TypeVar

from hiresattn.pyramid import Pyramid, open_pyramid
from hiresattn.pyramid.formats.gdalenv import callers_settings, with_settings
from hiresattn.pyramid.stack import Stack

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
    settings = callers_settings()

    def step() -> Any:
        with with_settings(settings):
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


class SharedImages:
    """Open images by name, reference-counted; the last unused image stays open until another becomes unused.

    Pyramids and arrays that were given stay the caller's. One thread acquires; any releases.

    Args:
        nodata: Stored value of px that were not measured, in place of what the images say.
    """

    def __init__(self, nodata: float | None = None) -> None:
        self._nodata = nodata
        self._lock = Lock()
        self._images: dict[str | Stack, Pyramid] = {}
        self._users: dict[str | Stack, int] = {}

    def acquire(self, source: Any) -> Pyramid:
        """Open an image, or share it until ``release``. Raises what ``open_pyramid`` does."""
        if not isinstance(source, str | Stack):
            return open_pyramid(source, nodata=self._nodata)
        with self._lock:
            image = self._images.get(source)
            if image is not None:
                self._users[source] += 1
                return image
        image = open_pyramid(source, nodata=self._nodata)  # without the lock: the other thread goes on
        with self._lock:
            self._images[source], self._users[source] = image, 1
        return image

    def release(self, source: Any) -> None:
        """End one use of an image."""
        with self._lock:
            if isinstance(source, str | Stack) and source in self._users:
                self._users[source] -= 1
                for name in [name for name, users in self._users.items() if not users and name != source]:
                    self._drop(name)

    def close(self) -> None:
        """Close all images."""
        with self._lock:
            for name in list(self._images):
                self._drop(name)

    def _drop(self, name: str | Stack) -> None:
        self._images.pop(name).close()
        del self._users[name]
