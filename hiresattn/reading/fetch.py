"""The joint: regions in, crops out. Runs read plans with threads; each tile is decoded once."""

import contextlib
import os
import time
from collections import defaultdict, deque
from collections.abc import Generator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor, wait
from dataclasses import dataclass
from itertools import islice
from threading import Lock
from types import TracebackType
from typing import NamedTuple, Self

import numpy as np
from jaxtyping import Float32, Int64

from hiresattn.config import InputConfig
from hiresattn.errors import DomainError, HiresattnError, ReadError, RegionError
from hiresattn.pyramid.base import Pyramid
from hiresattn.reading.cache import TileCache
from hiresattn.reading.plan import plan_reads
from hiresattn.reading.reads import Read, block_reads, tile_reads
from hiresattn.reading.scatter import scatter

#: Stands for "all of it is valid" in the kernels.
ALL_VALID = np.ones((0, 0), np.bool_)


class Crops(NamedTuple):
    """What a fetch returns for ``n`` regions."""

    pixels: Float32[np.ndarray, "n c s s"]
    """Scaled as ``InputConfig`` says; 0 where nothing was measured."""
    coverage: Float32[np.ndarray, "n s s"]
    """Share of each crop px that was measured, 0 to 1."""


@dataclass(slots=True)
class FetchStats:
    """What was read of one image so far."""

    crops: int = 0
    """Crops asked for."""
    tiles: int = 0
    """Tiles decoded. Of a backend read window by window: tiles touched by each call, summed over calls."""
    unique_tiles: int = 0
    """Different tiles among them."""
    pixels: int = 0
    """Px decoded, at the levels they were read from."""
    bytes: int = 0
    """Stored bytes of ``tiles``."""
    bytes_exact: bool = False
    """Whether ``bytes`` is what the file stores, or the file's size shared out over its px."""
    missing_tiles: int = 0
    """Tiles read that the file leaves out."""
    seconds: float = 0.0
    """Wall time spent reading and decoding, summed over threads."""


class _Decoded(NamedTuple):
    data: np.ndarray  # [h w c], the bands that the model takes
    valid: np.ndarray  # [h w], or ALL_VALID
    missing: int
    seconds: float
    room: np.ndarray | None = None  # what it was decoded into, to be used again

    @property
    def nbytes(self) -> int:
        return self.data.nbytes + self.valid.nbytes


class CropFetcher:
    """Turns regions of images into crops, decoding each tile once.

    Threads decode; the caller's thread scatters the tiles in the plan's order, so the crops don't depend on
    the number of threads. Memory holds at most ``2 * threads`` tiles on their way, the cache, and the sums of
    the crops that are not complete. Images can be added and removed between calls. A second thread may call at the
    same time for other images. The pyramids stay the caller's.

    Args:
        pyramids: The images, by index.
        config: How pixels become crops.
        threads: Threads that decode; 0 or 1 decodes in the caller's thread.
        cache_bytes: Most bytes of decoded tiles kept for later calls; the least recently used go first, and
            are decoded (and counted) again if they are needed again. Default: 24 of the largest tiles, but 64
            to 256 MB.
        strict: Whether a tile that the file leaves out is an error; else it is not measured, and counted.

    Raises:
        DomainError: If the model can't take an image.
    """

    def __init__(
        self,
        pyramids: Sequence[Pyramid],
        config: InputConfig,
        *,
        threads: int = min(os.cpu_count() or 1, 8),
        cache_bytes: int | None = None,
        strict: bool = False,
    ) -> None:
        self.config = config
        self.stats: list[FetchStats] = []
        self._pyramids: list[Pyramid] = []
        self._seen: list[set[tuple[int, int, int]]] = []
        self._free: list[int] = []
        self._threads = threads
        self._strict = strict
        self._low = np.array(config.low, np.float64)
        self._high = np.array(config.high, np.float64)
        self._lock = Lock()
        for pyramid in pyramids:
            self.add(pyramid)
        if cache_bytes is None:
            cache_bytes = min(max(24 * _largest_tile(pyramids), 64 << 20), 256 << 20)
        self._cache: TileCache[_Decoded] = TileCache(cache_bytes)
        self._rooms: defaultdict[tuple[int, int], list[np.ndarray]] = defaultdict(list)
        self._ready: tuple[tuple[np.ndarray, np.ndarray], Crops] | None = None
        self._pool: ThreadPoolExecutor | None = None
        self._pool_pid = 0

    def add(self, pyramid: Pyramid) -> int:
        """Take another image.

        Returns:
            Its index, for calls; that of a removed image is used again.

        Raises:
            DomainError: If the model can't take it.
        """
        check_domain(pyramid, self.config)
        with self._lock:
            if self._free:
                index = self._free.pop()
                self._pyramids[index] = pyramid
            else:
                index = len(self._pyramids)
                self._pyramids.append(pyramid)
                self.stats.append(FetchStats())
                self._seen.append(set())
            self.stats[index] = FetchStats(bytes_exact=pyramid.exact_bytes)
            self._seen[index] = set()
        return index

    def remove(self, index: int) -> None:
        """Let go of an image and of its cached tiles; its pyramid stays open."""
        self._cache.drop(lambda key: key[0] == index)
        with self._lock:
            self._free.append(index)

    def __call__(
        self,
        image: Int64[np.ndarray, " n"],
        regions: Int64[np.ndarray, "n 4"],
        out: Crops | None = None,
    ) -> Crops:
        """Fetch crops.

        Args:
            image: Index into the pyramids, per crop.
            regions: ``(y, x, height, width)`` in level-0 px of that image, inside it.
            out: Crops of an earlier call, as many, to be written over; None = new arrays.

        Returns:
            The crops, in the order asked for.

        Raises:
            RegionError: If an image or a region does not exist; nothing is read then.
            ReadError: If a tile can't be decoded, or is missing and ``strict`` is set; its ``image`` is the index.
        """
        ready, self._ready = self._ready, None
        if ready is not None and out is None and all(map(np.array_equal, ready[0], (image, regions))):
            return ready[1]
        known = len(self._pyramids)
        if image.shape != regions.shape[:1] or (len(image) and not 0 <= image.min() <= image.max() < known):
            raise RegionError(
                f"each region needs the index of its image, 0 to {known - 1}; got indices {image.tolist()} "
                f"for {len(regions)} regions"
            )
        crops = self._empty(len(image)) if out is None else out
        if (len(crops.pixels), len(crops.coverage)) != (len(image), len(image)):
            raise RegionError(f"out has room for {len(crops.pixels)} crops; got {len(image)} regions")
        finest = round(self.config.size * self.config.oversample)
        plans = []
        for index in np.unique(image).tolist():
            rows = np.flatnonzero(image == index)
            pyramid = self._pyramids[index]
            plans.append((index, rows, plan_reads(regions[rows], pyramid.levels, finest, pyramid.source)))
        windows = np.empty((len(image), 4), np.float64)
        reads: list[Read] = []
        for index, rows, plan in plans:
            levels = self._pyramids[index].levels
            windows[rows] = plan.windows
            self.stats[index].crops += len(rows)
            if self._pyramids[index].by_tile:
                ours = list(tile_reads(index, levels, plan, rows))
                self._expect(index, ours)
                reads += ours
            else:
                reads += block_reads(index, levels, plan, rows)
                self._count_tiles(index, plan.tiles.tolist())
        with contextlib.closing(self._stream(reads)) as tiles:
            decoded = ((tile.data, tile.valid) for tile in tiles)
            scatter(reads, decoded, windows, self._low, self._high, *crops)
        return crops

    def prepare(self, image: Int64[np.ndarray, " n"], regions: Int64[np.ndarray, "n 4"]) -> None:
        """Fetch crops that the next call will ask for; raises what that call would."""
        self._ready = ((image, regions), self(image, regions))

    def close(self) -> None:
        """Stop the threads and let go of the cached tiles; a later call starts anew."""
        if self._pool is not None and self._pool_pid == os.getpid():
            self._pool.shutdown()
        self._pool = None
        self._ready = None
        self._cache.clear()
        self._rooms.clear()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def _expect(self, index: int, reads: list[Read]) -> None:
        """Announce an image's reads, so that neighbours on a server come in one request."""
        native = self._pyramids[index].native_tiles
        if native is not None:
            native.expect(
                (read.level, *read.tile) for read in reads if read.tile and read[:3] not in self._cache
            )

    def _empty(self, count: int) -> Crops:
        bands, size = len(self.config.bands), self.config.size
        return Crops(
            np.empty((count, bands, size, size), np.float32), np.empty((count, size, size), np.float32)
        )

    def _stream(self, reads: list[Read]) -> Generator[_Decoded]:
        """Decoded reads, in order; up to ``2 * threads`` ahead of the one in use."""
        if self._threads < 2 or len(reads) == 1:
            for read in reads:
                tile = self._cache.get(read[:3]) or self._decoded(read, self._decode(read))
                yield tile
                self._recycle(read, tile)
            return
        pool = self._workers()
        coming = iter(reads)
        waiting: deque[tuple[Read, _Decoded | Future[_Decoded]]] = deque()
        try:
            while True:
                for read in islice(coming, 2 * self._threads - len(waiting)):
                    waiting.append((read, self._cache.get(read[:3]) or pool.submit(self._decode, read)))
                if not waiting:
                    return
                read, found = waiting.popleft()
                tile = self._decoded(read, found.result()) if isinstance(found, Future) else found
                yield tile
                self._recycle(read, tile)
        finally:  # after an error no thread goes on reading a pyramid that the caller may close
            futures = [tile for _, tile in waiting if isinstance(tile, Future)]
            for future in futures:
                future.cancel()
            wait(futures)

    def _workers(self) -> ThreadPoolExecutor:
        """The threads of this process: threads don't survive a fork."""
        with self._lock:
            if self._pool is None or self._pool_pid != os.getpid():
                self._pool = ThreadPoolExecutor(self._threads, thread_name_prefix="hiresattn-fetch")
                self._pool_pid = os.getpid()
            return self._pool

    def _decode(self, read: Read) -> _Decoded:
        """Read, and make the bands that the model takes. Runs in any thread."""
        started = time.perf_counter()
        pyramid = self._pyramids[read.image]
        room = None if read.tile is None else self._room(read)
        try:
            if read.tile is None:
                pixels = pyramid.read_masked(read.level, *read.window)
            else:
                pixels = pyramid.read_tile(read.level, *read.tile, *(() if room is None else (room,)))
        except HiresattnError as error:
            error.image = read.image
            raise
        if pixels.missing_tiles and self._strict:
            y, x, height, width = read.window
            where = f"row {read.tile[0]}, column {read.tile[1]}" if read.tile else "one or more"
            raise ReadError(
                f"{pyramid.source}, level {read.level}: missing tile ({where}) in rows {y} to {y + height}, "
                f"columns {x} to {x + width}; without strict it counts as not measured"
            )
        data = _bands(pyramid, pixels.data, pixels.valid, self.config.bands)
        data = np.require(data, _computable(data.dtype), ["C", "W"])
        if read.tile is not None and self._cache.limit > 0 and _holds_more(data):
            data = data.copy()  # a kept tile must not hold a larger array
        valid = (
            ALL_VALID
            if pixels.valid is None or pixels.valid.all()
            else np.require(pixels.valid, None, ["C", "W", "O"])
        )
        return _Decoded(data, valid, pixels.missing_tiles, time.perf_counter() - started, room)

    def _room(self, read: Read) -> np.ndarray | None:
        """Memory used before for a tile of this kind, where tiles are not kept."""
        native = self._pyramids[read.image].native_tiles
        if native is None or self._cache.limit > 0:
            return None
        with contextlib.suppress(IndexError):
            return self._rooms[read.image, read.level].pop()
        return native.buffer(read.level)

    def _recycle(self, read: Read, tile: _Decoded) -> None:
        """Take back the memory of a tile that is done with."""
        if tile.room is not None:
            self._rooms[read.image, read.level].append(tile.room)

    def _decoded(self, read: Read, tile: _Decoded) -> _Decoded:
        """Count a decoded read and keep it if it is a tile. Runs in the caller's thread."""
        stats = self.stats[read.image]
        with self._lock:
            stats.pixels += read.window[2] * read.window[3]
            stats.missing_tiles += tile.missing
            stats.seconds += tile.seconds
        if read.tile is not None:
            self._count_tiles(read.image, [(read.level, *read.tile)])
            self._cache.put(read[:3], tile)
        return tile

    def _count_tiles(self, image: int, tiles: Sequence[Sequence[int]]) -> None:
        stats, seen, pyramid = self.stats[image], self._seen[image], self._pyramids[image]
        with self._lock:
            for level, row, column in tiles:
                seen.add((level, row, column))
                stats.bytes += pyramid.tile_bytes(level, row, column)
            stats.tiles += len(tiles)
            stats.unique_tiles = len(seen)


def check_domain(pyramid: Pyramid, config: InputConfig) -> None:
    """Refuse an image that the model can't take.

    A palette image counts as three uint8 bands where the model takes bands 0, 1 and 2.

    Args:
        pyramid: The image.
        config: What the model takes.

    Raises:
        DomainError: If bands are absent, indices would be averaged, or the data type is another.
    """
    taken = ",".join(str(band + 1) for band in config.bands)
    wanted = len(config.bands)
    channels, dtype = pyramid.channels, pyramid.dtype
    if pyramid.palette is not None:
        if config.bands != (0, 1, 2):
            raise DomainError(
                f"{pyramid.source}: a palette image has colours, bands 1,2,3, and the model takes {taken}; "
                "convert the image to the bands that the model takes"
            )
        channels, dtype = 3, np.dtype(np.uint8)
    if config.channels is not None and channels != config.channels:
        remedy = "it has too few"
        if channels >= wanted:
            some = ",".join(map(str, range(1, wanted + 1)))
            remedy = f"say which {wanted} to feed it, for example --bands {some}"
        raise DomainError(
            f"{pyramid.source}: it has {channels} bands and the model was made for images of {config.channels}; "
            f"{remedy}"
        )
    if any(not 0 <= band < channels for band in config.bands):
        raise DomainError(
            f"{pyramid.source}: it has bands 1 to {channels}, and bands {taken} are asked for; name {wanted} of "
            "those it has with --bands"
        )
    if dtype.newbyteorder("=") != np.dtype(config.dtype):
        raise DomainError(
            f"{pyramid.source}: its values are {dtype} and the model was made for {config.dtype}; give the "
            "values that stand for darkest and brightest with --value-range LO,HI"
        )


def _largest_tile(pyramids: Sequence[Pyramid]) -> int:
    """Bytes of the largest decoded tile."""
    tiles = (
        level.tile_height * level.tile_width * pyramid.channels * pyramid.dtype.itemsize
        for pyramid in pyramids
        for level in pyramid.levels
    )
    return max(tiles, default=0)


def _holds_more(data: np.ndarray) -> bool:
    """Whether an array keeps clearly more memory alive than its own px."""
    return data.base is not None and getattr(data.base, "nbytes", 2 * data.nbytes) > data.nbytes + 64


def _bands(
    pyramid: Pyramid, data: np.ndarray, valid: np.ndarray | None, bands: tuple[int, ...]
) -> np.ndarray:
    """The bands that the model takes; indices become the palette's colours before anything is averaged."""
    if pyramid.palette is None:
        if bands == tuple(range(bands[0], bands[0] + len(bands))):
            return data[:, :, bands[0] : bands[0] + len(bands)]
        return data[:, :, list(bands)]
    index = data[:, :, 0]
    unknown = index >= len(pyramid.palette)
    if unknown.any() and (unknown if valid is None else unknown & valid).any():
        raise ReadError(
            f"{pyramid.source}: a pixel has colour {index.max()} of a palette of {len(pyramid.palette)}; "
            "the file is damaged"
        )
    return np.take(pyramid.palette, index, axis=0, mode="clip")


def _computable(dtype: np.dtype) -> np.dtype:
    """The type itself in this machine's byte order; float32 for float16, which the kernels don't know."""
    return np.dtype(np.float32) if dtype == np.float16 else dtype.newbyteorder("=")
