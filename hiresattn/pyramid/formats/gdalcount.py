"""What GDAL asked of servers, file by file, as its own counters say (``VSINetworkStats…`` of its C interface)."""

import ctypes
import json
import threading
import weakref
from collections.abc import Iterator, Sequence
from functools import cache
from typing import Any

from hiresattn.pyramid.storage.ranges import RequestStats

#: GDAL's option that turns the counters on. It is asked once per process, before the first request.
_ENABLED = b"CPL_VSIL_NETWORK_STATS_ENABLED"


class Requests:
    """What is asked of servers for one image, by this program and by GDAL, from now on.

    GDAL counts by file, what lies beside it included (``.aux.xml``, ``.ovr``): of a file that several open images read
    at the same time, each has what was asked for all of them.
    """

    def __init__(self) -> None:
        self.own = RequestStats()
        """What this program asked itself."""
        self.by_gdal = RequestStats()
        self._watched = False

    def watch(self, names: Sequence[str]) -> None:
        """Count what GDAL asks from now on for files on servers, as it calls them: ``/vsicurl/https://…``."""
        if names:
            self._watched = True
            _Counters.of().watch(self, frozenset(names))

    def so_far(self) -> RequestStats | None:
        """All of it; None where GDAL doesn't tell, or nothing was asked because all is on this machine."""
        if self._watched and not _Counters.of().share_out():
            return None
        count = self.own.count + self.by_gdal.count
        return RequestStats(count, self.own.bytes + self.by_gdal.bytes) if count else None


class _Counters:
    """GDAL's counters of this process; what they hold is shared out among the images that are watched."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._watching: dict[str, weakref.WeakSet[Requests]] = {}
        self._library = _gdal()
        self._counting = False

    @staticmethod
    @cache
    def of() -> "_Counters":
        return _Counters()

    def watch(self, one: Requests, names: frozenset[str]) -> None:
        """Count what is asked for files, and for those beside them."""
        self.share_out()  # what was asked before is not of this one
        with self._lock:
            for name in names | {_stem(name) for name in names}:
                self._watching.setdefault(name, weakref.WeakSet()).add(one)

    def share_out(self) -> bool:
        """Add what was counted to those that it is of, and start anew; False where GDAL doesn't count."""
        if self._library is None:
            return False
        with self._lock:
            text = self._library.VSINetworkStatsGetAsSerializedJSON(None)
            found = json.loads(ctypes.string_at(text))
            self._library.VSIFree(text)
            if not found.get("methods"):
                return self._counting  # nothing was asked since, or GDAL doesn't count
            self._counting = True
            self._library.VSINetworkStatsReset()
            self._watching = {name: some for name, some in self._watching.items() if some}
            for handler in found["handlers"].values():
                for name, methods in _files(handler):
                    for one in self._watchers(name):
                        one.by_gdal.count += sum(method.get("count", 0) for method in methods.values())
                        one.by_gdal.bytes += sum(
                            method.get("downloaded_bytes", 0) for method in methods.values()
                        )
        return True

    def _watchers(self, name: str) -> Sequence[Requests]:
        """The images that a file is of, or lies beside."""
        while name:
            if name in self._watching:
                return list(self._watching[name])
            name = _stem(name)
        return []


def _stem(name: str) -> str:
    """A name without its last suffix; empty = it has none."""
    folder, slash, file = name.rpartition("/")
    stem, dot, _ = file.rpartition(".")
    return f"{folder}{slash}{stem}" if dot and stem else ""


def _files(node: dict[str, Any]) -> Iterator[tuple[str, dict[str, Any]]]:
    """Files with the requests of each by their methods, each request once."""
    for name, found in node.get("files", {}).items():
        yield name, found.get("methods", {})
    for found in node.get("actions", {}).values():
        yield from _files(found)


def _gdal() -> Any:
    """The GDAL that rasterio uses, told to count; None where its C interface isn't reached."""
    import rasterio._base

    try:
        library = ctypes.CDLL(rasterio._base.__file__)  # noqa: SLF001 - its own library is found through it
        library.VSINetworkStatsGetAsSerializedJSON.argtypes = [ctypes.c_void_p]
        library.VSINetworkStatsGetAsSerializedJSON.restype = ctypes.c_void_p
        library.VSIFree.argtypes = [ctypes.c_void_p]
        library.VSINetworkStatsReset.argtypes = []
        library.CPLSetConfigOption.argtypes = [ctypes.c_char_p, ctypes.c_char_p]
        library.CPLSetConfigOption(_ENABLED, b"YES")
    except (AttributeError, OSError):
        return None
    return library
