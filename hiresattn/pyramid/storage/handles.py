"""Open files and connections, one for each thread."""

import os
import threading
from collections.abc import Callable
from typing import Generic, TypeVar

HandleT = TypeVar("HandleT")


class PerThread(Generic[HandleT]):
    """One handle per thread, opened on first use, never carried into a forked process."""

    def __init__(self, open_handle: Callable[[], HandleT], close_handle: Callable[[HandleT], None]) -> None:
        self._open = open_handle
        self._close = close_handle
        self._lock = threading.Lock()
        self._handles: dict[tuple[int, int], HandleT] = {}

    def get(self) -> HandleT:
        """This thread's handle."""
        key = (os.getpid(), threading.get_ident())
        handle = self._handles.get(key)
        if handle is None:
            handle = self._open()
            with self._lock:
                self._handles[key] = handle
        return handle

    def drop(self) -> None:
        """Close this thread's handle: after a read error some libraries' handles are dead."""
        with self._lock:
            handle = self._handles.pop((os.getpid(), threading.get_ident()), None)
        if handle is not None:
            self._close(handle)

    def close(self) -> None:
        """Close every handle of this process."""
        with self._lock:
            handles, self._handles = self._handles, {}
        for (pid, _), handle in handles.items():
            if pid == os.getpid():
                self._close(handle)
