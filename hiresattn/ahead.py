"""One step ahead: the next image is opened and glanced at while the network works on this one."""

from collections.abc import Callable, Generator, Iterable
from concurrent.futures import Future, ThreadPoolExecutor
from threading import Lock
from typing import Any, TypeVar

from hiresattn.pyramid import Pyramid, open_pyramid

ItemT = TypeVar("ItemT")
ReadyT = TypeVar("ReadyT")


def one_ahead(
    items: Iterable[ItemT], prepare: Callable[[ItemT], ReadyT], let_go: Callable[[ReadyT], object]
) -> Generator[ReadyT]:
    """Prepare each item in a thread while the one before it is in use; never more than one ahead.

    Args:
        items: What to prepare; the thread asks for them.
        prepare: Called in the thread; its errors are raised where its item's turn is.
        let_go: Called with what was prepared and never used, if the iteration ends early.

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
        future: Future[Any] = pool.submit(step)
        try:
            while (ready := future.result()) is not end:
                future = pool.submit(step)
                yield ready
        finally:
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
