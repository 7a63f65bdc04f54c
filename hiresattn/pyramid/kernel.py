"""Kernels that cost nothing until they are called: Numba and the machine code are loaded then."""

import threading
from collections.abc import Callable
from functools import update_wrapper
from typing import Generic, ParamSpec, TypeVar

P = ParamSpec("P")
R = TypeVar("R")
_lock = threading.Lock()


class Kernel(Generic[P, R]):
    """A function that is compiled, or loaded as it was compiled before, when it is first called.

    Args:
        function: What ``compiled`` takes, but calls no other kernel. It stays as ``py_func``.
    """

    def __init__(self, function: Callable[P, R]) -> None:
        self.py_func = function
        self._run: Callable[P, R] | None = None
        update_wrapper(self, function)

    def __call__(self, *args: P.args, **kwargs: P.kwargs) -> R:
        """Run the machine code."""
        return (self._run or self._load())(*args, **kwargs)

    def _load(self) -> Callable[P, R]:
        with _lock:  # import locks of Numba's modules and two threads: one after the other
            if self._run is None:
                from hiresattn.pyramid.compiled import compiled

                self._run = compiled(self.py_func)
        return self._run


def kernel(function: Callable[P, R]) -> Kernel[P, R]:
    """Make a kernel of a function; see ``Kernel``."""
    return Kernel(function)
