"""Which chunks of a Zarr array are stored, and how big they are: zarr itself fills the missing silently."""

import math
import os
import stat
from collections.abc import Sequence
from operator import floordiv, mod
from pathlib import Path
from typing import Any

import numpy as np

from hiresattn.errors import OpenError, ReadError
from hiresattn.pyramid.storage.tiffheader import MAX_TILE_BYTES

_ABSENT = 2**64 - 1
_CRC_BYTES = 4
#: Shard indexes, and sizes of chunks, kept in memory.
_KEEP = 4096


#: Files that are no chunks.
_METADATA = frozenset({"zarr.json", ".zarray", ".zattrs", ".zgroup", ".zmetadata"})
#: Most bytes of one of them.
_MOST_METADATA = 64 << 20


class ChunkIndex:
    """Presence and stored size of the chunks of one array; of the inner chunks, if it is sharded.

    Args:
        array: An open ``zarr.Array``.
        axes: Names of its axes.
    """

    def __init__(self, array: Any, axes: Sequence[str]) -> None:
        self._array = array
        self._key = array.metadata.encode_chunk_key
        root = getattr(array.store, "root", None)
        self._local = os.path.join(root, array.path) if isinstance(root, Path) else None  # noqa: PTH118 - speed
        #: Bytes of a decoded chunk, and some for a header.
        self._most = max(math.prod(array.chunks) * np.dtype(array.dtype).itemsize, 1 << 20)
        self._per_shard: tuple[int, ...] | None = None
        self._index_bytes = 0
        self._checksum = False
        self._at_end = True
        self.exact = self._local is not None
        """Whether ``size`` is exact and cheap."""
        if array.shards is not None:
            self._per_shard = tuple(s // c for s, c in zip(array.shards, array.chunks, strict=True))
            self._read_layout(array.metadata.codecs[0])
        self._rows, self._columns = axes.index("y"), axes.index("x")
        self._bands = axes.index("c") if "c" in axes else None
        shape, chunks = array.shape, array.chunks  # zarr works them out anew each time
        self.bands_together = 1 if self._bands is None else int(chunks[self._bands])
        """Bands of each chunk; the last may have fewer."""
        self._groups = 1 if self._bands is None else -(-shape[self._bands] // chunks[self._bands])
        self._axes = len(axes)
        self._sizes: dict[tuple[int, ...], int] = {}
        #: Of each shard its index (None: it is left out), and its size where that is known.
        self._indexes: dict[tuple[int, ...], tuple[np.ndarray | None, int | None]] = {}

    def of_tile(self, row: int, column: int) -> list[tuple[int, ...]]:
        """Positions in the grid of all that holds a tile: one chunk, or one for each group of bands."""
        chunk, found = [0] * self._axes, []
        chunk[self._rows], chunk[self._columns] = row, column
        for group in range(self._groups):
            if self._bands is not None:
                chunk[self._bands] = group
            found.append(tuple(chunk))
        return found

    def size(self, chunk: tuple[int, ...]) -> int | None:
        """Stored bytes of a chunk, by its row, column and so on in the grid; None if it is left out.

        Raises:
            ReadError: If its shard is cut short.
        """
        if self._per_shard is None:
            known = self._sizes.get(chunk)  # of chunks that were read, the file system isn't asked again
            return self._stored_size(chunk) if known is None else known
        if not self.chunkwise:
            return self._stored_size(self._shard(chunk))
        span = self._span(chunk)
        return None if span is None else span[1]

    def stored(self, chunk: tuple[int, ...]) -> bytes | None:
        """The stored bytes of a chunk; None if it is left out. Only where ``chunkwise``.

        Raises:
            ReadError: If its shard is cut short.
        """
        if self._per_shard is None:
            stored = self._bytes(self._key(chunk))
            if stored is not None:
                if len(self._sizes) >= _KEEP:
                    self._sizes = {}
                self._sizes[chunk] = len(stored)
            return stored
        span = self._span(chunk)
        return None if span is None else self._bytes(self._key(self._shard(chunk)), *span)

    @property
    def chunkwise(self) -> bool:
        """Whether each chunk can be found: in shards, whether their index is stored in the usual way."""
        return self._per_shard is None or self._index_bytes > 0

    def _shard(self, chunk: tuple[int, ...]) -> tuple[int, ...]:
        return tuple(map(floordiv, chunk, self._per_shard or (1,) * len(chunk)))

    def _span(self, chunk: tuple[int, ...]) -> tuple[int, int] | None:
        """Offset and bytes of an inner chunk in its shard; None if it is left out."""
        shard = self._shard(chunk)
        if shard not in self._indexes:
            if len(self._indexes) >= _KEEP:
                self._indexes = {}
            held = self._stored_size(shard) if self._local is not None else None
            self._indexes[shard] = self._shard_index(shard), held
        index, held = self._indexes[shard]
        if index is None:
            return None
        offset, count = index[tuple(map(mod, chunk, self._per_shard or chunk))].tolist()
        if offset == _ABSENT:
            return None
        if held is not None and offset + count > held:  # zarr takes a chunk beyond the end for missing
            raise ReadError(f"it ends at byte {offset + count} of a shard of {held}")
        return offset, count

    def empty(self) -> bool:
        """Whether a local store holds not one chunk of the array."""
        return self._local is not None and not _holds_chunk(self._local)

    def _read_layout(self, sharding: Any) -> None:
        """Learn where a shard keeps its index; an unusual one is left alone, and then shards count whole."""
        codecs = [type(codec).__name__ for codec in sharding.index_codecs]
        little = getattr(getattr(sharding.index_codecs[0], "endian", None), "value", None) == "little"
        self._at_end = sharding.index_location.value == "end"
        if (
            self._per_shard is None
            or codecs not in (["BytesCodec"], ["BytesCodec", "Crc32cCodec"])
            or not little
        ):
            self.exact = False
            return
        self._checksum = len(codecs) == 2
        self._index_bytes = 16 * int(np.prod(self._per_shard)) + _CRC_BYTES * (len(codecs) - 1)

    def _shard_index(self, shard: tuple[int, ...]) -> np.ndarray | None:
        stored = self._index_of(self._key(shard))
        if stored is None:
            return None
        if len(stored) < self._index_bytes or self._per_shard is None:
            raise ReadError(f"the index of shard {shard} is cut short")
        pairs = np.frombuffer(stored, "<u8", 2 * int(np.prod(self._per_shard)))
        return pairs.reshape(*self._per_shard, 2)

    def _index_of(self, key: str) -> bytes | None:
        """The bytes that hold a shard's index, checked; None if the shard isn't there."""
        stored = self._bytes(key, None if self._at_end else 0, self._index_bytes)
        if stored is not None and self._checksum and len(stored) == self._index_bytes:
            import google_crc32c

            if google_crc32c.value(stored[:-_CRC_BYTES]) != int.from_bytes(stored[-_CRC_BYTES:], "little"):
                raise ReadError("the checksum of its shard's index is another")
        return stored

    def _bytes(self, key: str, start: int | None = 0, count: int | None = None) -> bytes | None:
        """Bytes of a stored object, all of it or a part (start None: its last); None if it isn't there."""
        if self._local is not None:
            try:
                fd = os.open(os.path.join(self._local, key), os.O_RDONLY | os.O_NONBLOCK)  # noqa: PTH118 - speed
            except FileNotFoundError:
                return None
            try:
                found = os.fstat(fd)
                if not stat.S_ISREG(found.st_mode):
                    raise ReadError(f"{key} is no regular file")
                size = found.st_size
                count = size if count is None else count
                if count > 2 * self._most:
                    raise ReadError(f"{key}: {count} stored bytes of a chunk that has {self._most}")
                return os.pread(fd, count, max(size - count, 0) if start is None else start)
            finally:
                os.close(fd)
        from zarr.abc.store import RangeByteRequest, SuffixByteRequest
        from zarr.core.buffer import default_buffer_prototype
        from zarr.core.sync import sync

        part: Any = None
        if count is not None:
            part = SuffixByteRequest(count) if start is None else RangeByteRequest(start, start + count)
        stored = sync((self._array.store_path / key).get(default_buffer_prototype(), byte_range=part))
        return None if stored is None else stored.to_bytes()

    def _stored_size(self, chunk: tuple[int, ...]) -> int | None:
        key = self._key(chunk)
        if self._local is not None:
            try:
                return os.stat(os.path.join(self._local, key)).st_size  # noqa: PTH116, PTH118 - called per tile
            except FileNotFoundError:
                return None
        from zarr.core.sync import sync

        return 1 if sync((self._array.store_path / key).exists()) else None


def local_store(folder: str) -> Any:
    """A store of zarr's, of which only regular files are read."""
    from zarr.storage import LocalStore

    class RegularFiles(LocalStore):
        """Refuses pipes and devices, which might never end, and metadata without bounds."""

        async def get(self, key: str, *arguments: Any, **named: Any) -> Any:
            path = self.root / key
            if path.exists():
                if not path.is_file():
                    raise OSError(f"{path} is no regular file")
                if path.name in _METADATA and path.stat().st_size > _MOST_METADATA:
                    raise OSError(
                        f"{path} has {path.stat().st_size} bytes, and at most {_MOST_METADATA} are read"
                    )
            return await super().get(key, *arguments, **named)

    return RegularFiles(folder, read_only=True) if os.path.isdir(folder) else folder  # noqa: PTH112


def check_chunk(array: Any, source: str) -> None:
    """Refuse an array whose chunks are too big to be decoded one at a time.

    Raises:
        OpenError: If they are; it has the numbers.
    """
    bytes_each = math.prod(array.chunks) * np.dtype(array.dtype).itemsize
    if bytes_each > MAX_TILE_BYTES:
        sides = " x ".join(map(str, array.chunks))
        raise OpenError(
            f"{source}: chunks of {sides}, {bytes_each / 1e9:.1f} GB each, and at most {MAX_TILE_BYTES / 1e9:.1f} GB "
            "are decoded at once; write it with smaller chunks"
        )


def _holds_chunk(folder: str) -> bool:
    """Whether a folder holds a file, however deep, that is no metadata. Stops at the first."""
    with os.scandir(folder) as entries:
        for entry in entries:
            if _holds_chunk(entry.path) if entry.is_dir() else entry.name not in _METADATA:
                return True
    return False
