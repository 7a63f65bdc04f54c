"""Kernels that cost nothing until they are worth it: Numba and the machine code are loaded then."""

import threading
import time
from collections.abc import Callable
from functools import update_wrapper
from typing import Generic, ParamSpec, TypeVar

P = ParamSpec("P")
R = TypeVar("R")
_lock = threading.Lock()
#: Seconds that kernels without Numba may take in a process before it is loaded: about half of what loading takes.
_MOST_SECONDS = 0.15


class Kernel(Generic[P, R]):
    """A function that is compiled, or loaded as it was compiled before, when it is first called.

    Args:
        function: What ``compiled`` takes, but calls no other kernel. It stays as ``py_func``.
        numpy: The same in NumPy, to the last bit: it runs until all such took ``_MOST_SECONDS``, so that little work
            doesn't wait for Numba.
    """

    _spent = 0.0

    def __init__(self, function: Callable[P, R], numpy: Callable[P, R] | None = None) -> None:
        self.py_func = function
        self.numpy = numpy
        self._run: Callable[P, R] | None = None
        update_wrapper(self, function)

    def __call__(self, *args: P.args, **kwargs: P.kwargs) -> R:
        """Run the machine code, or NumPy."""
        if self._run is None and self.numpy is not None and Kernel._spent < _MOST_SECONDS:
            started = time.perf_counter()
            try:
                return self.numpy(*args, **kwargs)
            finally:
                Kernel._spent += time.perf_counter() - started
        return self.machine_code(*args, **kwargs)

    @property
    def machine_code(self) -> Callable[P, R]:
        """The compiled function."""
        return self._run or self._load()

    def _load(self) -> Callable[P, R]:
        with _lock:  # import locks of Numba's modules and two threads: one after the other
            if self._run is None:
                from hiresattn.pyramid.compiled import compiled

                self._run = compiled(self.py_func)
        return self._run


def kernel(function: Callable[P, R]) -> Kernel[P, R]:
    """Make a kernel of a function; see ``Kernel``."""
    return Kernel(function)


def kernel_or(numpy: Callable[P, R]) -> Callable[[Callable[P, R]], Kernel[P, R]]:
    """As ``kernel``, with the same in NumPy for little work."""
    return lambda function: Kernel(function, numpy)
