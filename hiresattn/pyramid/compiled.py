"""Compiling kernels: once per user and machine, and safe when two first runs compile at once."""

import contextlib
import hashlib
import pickle
from collections.abc import Callable
from pathlib import Path
from typing import Any, ParamSpec, TypeVar

import numba
from numba.core import caching
from numba.core.runtime.nrt import rtsys
from numba.core.serialize import dumps

from hiresattn.files import atomic_write

P = ParamSpec("P")
R = TypeVar("R")


def compiled(function: Callable[P, R]) -> Callable[P, R]:
    """Compile a kernel on first use and keep the machine code in the user's cache directory.

    That is ``$NUMBA_CACHE_DIR`` where it is set, else Numba's own (``~/.cache/numba``). Where neither can be
    written the kernel is compiled in every process. The plain Python function is ``.py_func``.

    A kernel takes arrays, integers and floats, lets go of the GIL, and calls no kernel of another file (the
    cache looks at one file only).
    """
    kernel: Any = numba.njit(nogil=True, error_model="numpy")(function)
    with contextlib.suppress(RuntimeError, OSError):  # no place to write: not cached
        kernel._cache = _Cache(function)  # noqa: SLF001 - what `cache=True` does, with another cache
    return kernel


class _Location(caching.CompileResultCacheImpl):
    """Numba's own ways to a cache directory, without the one beside the source: that may be shared."""

    _locator_classes = [caching.UserProvidedCacheLocator, caching.UserWideCacheLocator]  # noqa: RUF012 - Numba's


class _Cache(caching.FunctionCache):
    """Numba's cache with one file per compiled version, named by all that it depends on.

    Numba's own keeps numbered files and an index. Each is replaced atomically, but two processes that
    compile two versions at once can both call theirs number 1, and the index then names the other's
    machine code (numba#4807). Without an index there is nothing to disagree with.

    Before it loads machine code, Numba's own prepares for compiling: all that it knows of NumPy and SciPy, most of
    what a second process would spend on it. Machine code needs the runtime only; who compiles prepares then.
    """

    _impl_class = _Location

    def __init__(self, function: Callable[..., Any]) -> None:
        super().__init__(function)  # type: ignore[no-untyped-call]
        locator = self._impl.locator
        depends = (numba.__version__, function.__qualname__, locator.get_source_stamp())
        self._cache_file: Any = _Files(Path(locator.get_cache_path()), function.__name__, depends)

    def load_overload(self, sig: Any, target_context: Any) -> Any:
        """The machine code kept for argument types, or None."""
        rtsys.initialize(target_context)
        with self._guard_against_spurious_io_errors():
            return self._load_overload(sig, target_context)  # type: ignore[no-untyped-call]


class _Files:
    """Compiled versions of one function; what Numba calls an index and data cache file."""

    def __init__(self, folder: Path, name: str, depends: tuple[Any, ...]) -> None:
        self._folder = folder
        self._name = name
        self._depends = depends

    def save(self, key: Any, data: Any) -> None:
        """Keep a version; appears whole or not at all."""
        path = self._path(key)
        with (
            contextlib.suppress(OSError),
            atomic_write(path) as part,
        ):  # a full disk: compiled again next time
            part.write_bytes(dumps(data))

    def load(self, key: Any) -> Any:
        """A kept version, or None."""
        try:
            return pickle.loads(self._path(key).read_bytes())  # noqa: S301 - written by this user's processes
        except (OSError, EOFError, pickle.UnpicklingError):  # absent or damaged: compile (again)
            return None

    def flush(self) -> None:
        """Forget all versions."""
        for path in self._folder.glob(f"{self._name}-*.nbc"):
            path.unlink(missing_ok=True)

    def _path(self, key: Any) -> Path:
        """The key holds the argument types, the CPU and a hash of the bytecode."""
        digest = hashlib.sha256(repr((self._depends, key)).encode()).hexdigest()
        return self._folder / f"{self._name}-{digest[:32]}.nbc"
