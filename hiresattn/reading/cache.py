"""Decoded tiles kept for later, bounded in bytes."""

from collections import OrderedDict
from collections.abc import Callable, Hashable
from threading import Lock
from typing import Any, Generic, Protocol, TypeVar


class _Sized(Protocol):
    @property
    def nbytes(self) -> int: ...


TileT = TypeVar("TileT", bound=_Sized)


class TileCache(Generic[TileT]):
    """Never more than ``limit`` bytes; the least recently used go first. Safe to use from several threads.

    Args:
        limit: Most bytes held; a tile larger than this is not kept.
    """

    def __init__(self, limit: int) -> None:
        self.limit = limit
        self.nbytes = 0
        self._tiles: OrderedDict[Hashable, TileT] = OrderedDict()
        self._lock = Lock()

    def __contains__(self, key: Hashable) -> bool:
        """Whether a tile is kept; doesn't count as a use."""
        return key in self._tiles

    def get(self, key: Hashable) -> TileT | None:
        """A kept tile, or None."""
        with self._lock:
            tile = self._tiles.get(key)
            if tile is not None:
                self._tiles.move_to_end(key)
            return tile

    def put(self, key: Hashable, tile: TileT) -> None:
        """Keep a tile, and drop others to make room."""
        if tile.nbytes > self.limit:
            return
        with self._lock:
            if key in self._tiles:
                self.nbytes -= self._tiles.pop(key).nbytes
            while self.nbytes + tile.nbytes > self.limit:
                self.nbytes -= self._tiles.popitem(last=False)[1].nbytes
            self._tiles[key] = tile
            self.nbytes += tile.nbytes

    def drop(self, which: Callable[[Any], bool]) -> None:
        """Drop the tiles whose key ``which`` is true of."""
        with self._lock:
            for key in [key for key in self._tiles if which(key)]:
                self.nbytes -= self._tiles.pop(key).nbytes

    def clear(self) -> None:
        """Drop all tiles."""
        with self._lock:
            self._tiles.clear()
            self.nbytes = 0
