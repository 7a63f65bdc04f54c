"""Decoded tiles kept for later, bounded in bytes."""

from collections import OrderedDict
from collections.abc import Hashable
from typing import Generic, Protocol, TypeVar


class _Sized(Protocol):
    @property
    def nbytes(self) -> int: ...


TileT = TypeVar("TileT", bound=_Sized)


class TileCache(Generic[TileT]):
    """Never more than ``limit`` bytes; the least recently used go first. For one thread at a time.

    Args:
        limit: Most bytes held; a tile larger than this is not kept.
    """

    def __init__(self, limit: int) -> None:
        self.limit = limit
        self.nbytes = 0
        self._tiles: OrderedDict[Hashable, TileT] = OrderedDict()

    def __contains__(self, key: Hashable) -> bool:
        """Whether a tile is kept; doesn't count as a use."""
        return key in self._tiles

    def get(self, key: Hashable) -> TileT | None:
        """A kept tile, or None."""
        tile = self._tiles.get(key)
        if tile is not None:
            self._tiles.move_to_end(key)
        return tile

    def put(self, key: Hashable, tile: TileT) -> None:
        """Keep a tile, and drop others to make room."""
        if tile.nbytes > self.limit:
            return
        if key in self._tiles:
            self.nbytes -= self._tiles.pop(key).nbytes
        while self.nbytes + tile.nbytes > self.limit:
            self.nbytes -= self._tiles.popitem(last=False)[1].nbytes
        self._tiles[key] = tile
        self.nbytes += tile.nbytes

    def clear(self) -> None:
        """Drop all tiles."""
        self._tiles.clear()
        self.nbytes = 0
