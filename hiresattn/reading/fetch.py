"""Regions of many images in, crops out. Threads decode, and each tile is decoded once."""

import contextlib
import os
import threading
from collections import deque
from collections.abc import Generator, Iterable
from concurrent.futures import Future, ThreadPoolExecutor, wait
from itertools import count, islice
from types import TracebackType
from typing import NamedTuple, Self

import numpy as np

from hiresattn.config import InputConfig
from hiresattn.errors import ConfigError, RegionError, counted
from hiresattn.pyramid.base import Pyramid
from hiresattn.reading.bands import rule_for
from hiresattn.reading.cache import TileCache
from hiresattn.reading.decode import Decoded, FetchStats, ImageReader, largest_tile, small_palette
from hiresattn.reading.plan import Read, ReadPlan, plan_reads
from hiresattn.reading.scatter import Scale, scatter
from hiresattn.shapes import Float32, Int64

#: Tiles of an image kept where the caller doesn't say how much, and bounds of that, bytes.
_KEPT_TILES, _LEAST_KEPT, _MOST_KEPT = 24, 64 << 20, 256 << 20


class Crops(NamedTuple):
    """What a fetch returns for ``n`` regions."""

    pixels: Float32[np.ndarray, "n c s s"]
    """Scaled as ``InputConfig`` says; 0 where nothing was measured."""
    coverage: Float32[np.ndarray, "n s s"]
    """Share of each crop px that was measured, 0 to 1."""


class _Prepared(NamedTuple):
    regions: np.ndarray
    crops: Crops


class CropFetcher:
    """Turns regions of images into crops, decoding each tile once.

    Images may come and go: ``add`` takes one in, ``remove`` lets go of one and leaves what is kept of the others.

    Threads decode; the caller's thread adds the tiles to the crops in the plan's order, so the crops don't depend
    on the number of threads. During a call memory holds at most ``2 * threads`` tiles on their way, and the sums of
    the crops that are not complete; between calls the caches and what was prepared. Several threads may call at
    once if no two name the same image. The pyramids stay the caller's.

    Args:
        pyramids: The first images, with indices from 0.
        config: How pixels become crops.
        threads: Threads that decode; 0 or 1 decodes in the caller's thread.
        cache_bytes: Most bytes of decoded tiles kept for later calls; the least recently used go first, and are
            decoded (and counted) again if they are needed again. Default: 24 of the largest tiles (for each image of
            ``at_once``), but 64 to 256 MB.
        at_once: Most images at once, if each is to have an equal part of ``cache_bytes`` for itself: then what is
            read of one doesn't depend on the others. None = they share all of it.
        strict: Whether a tile that the file leaves out is an error; else it is not measured, and counted.

    Raises:
        DomainError: If the model can't take an image.
    """

    def __init__(
        self,
        pyramids: Iterable[Pyramid],
        config: InputConfig,
        *,
        threads: int = min(os.cpu_count() or 1, 8),
        cache_bytes: int | None = None,
        at_once: int | None = None,
        strict: bool = False,
    ) -> None:
        self.config = config
        self._threads = threads
        self._cache_bytes = cache_bytes
        self._at_once = at_once
        self._cache: TileCache[Decoded] = TileCache(cache_bytes or 0)
        self._strict = strict
        self._indices = count()
        self._images: dict[int, ImageReader] = {}
        self._scales: dict[int, Scale] = {}
        self._prepared: dict[int, _Prepared] = {}
        self._lock = threading.Lock()
        self._pool: ThreadPoolExecutor | None = None
        self._pool_pid = 0
        for pyramid in pyramids:
            self.add(pyramid)

    def add(self, pyramid: Pyramid, config: InputConfig | None = None) -> int:
        """Take in an image.

        Args:
            pyramid: The image.
            config: How its pixels become crops, with as many bands and px as those of the others; None = as theirs.

        Returns:
            Its index, which no other image has had.

        Raises:
            DomainError: If the model can't take the image.
            ConfigError: If its crops would have other bands or px, or there are ``at_once`` images already.
        """
        config = config or self.config
        if (config.size, len(config.bands)) != (self.config.size, len(self.config.bands)):
            these, those = (
                f"{rule.size} px and {counted(len(rule.bands), 'band')}" for rule in (config, self.config)
            )
            raise ConfigError(
                f"{pyramid.source}: crops of {these} can't be fetched together with those of {those}; use another "
                "fetcher"
            )
        if self._at_once is not None and len(self._images) >= self._at_once:
            raise ConfigError(
                f"{pyramid.source}: there are {counted(self._at_once, 'image')} already; remove one first"
            )
        config = rule_for(pyramid, config)
        index = next(self._indices)
        self._scales[index] = Scale.of(config, small_palette(pyramid))
        self._images[index] = ImageReader(
            index, pyramid, config, self._cache_for(pyramid), strict=self._strict
        )
        return index

    def remove(self, image: int) -> FetchStats:
        """Let go of an image, what is kept of it and its index; returns what was read of it.

        Raises:
            RegionError: If there is no such image.
        """
        if image not in self._images:
            raise RegionError(f"no image {image}; there are images {self._known()}")
        self._prepared.pop(image, None)
        del self._scales[image]
        reader = self._images.pop(image)
        reader.forget()
        return reader.stats

    @property
    def stats(self) -> dict[int, FetchStats]:
        """What was read so far, by index of the image."""
        return {index: reader.stats for index, reader in list(self._images.items())}

    def __call__(
        self,
        image: Int64[np.ndarray, " n"],
        regions: Int64[np.ndarray, "n 4"],
        out: Crops | None = None,
    ) -> Crops:
        """Fetch crops.

        Args:
            image: Index of the image, per crop.
            regions: ``(y, x, height, width)`` in level-0 px of that image, inside it.
            out: Crops of an earlier call, as many, to be written over; None = new arrays.

        Returns:
            The crops, in the order asked for.

        Raises:
            RegionError: If an image or a region does not exist; nothing is read then.
            ReadError: If a tile can't be decoded, or is missing and ``strict`` is set. Its ``image`` is the index of
                the image that it belongs to: the call can be repeated without that.
        """
        if image.shape != regions.shape[:1]:
            raise RegionError(
                f"each region needs the index of its image; got {len(image)} indices for {len(regions)} regions"
            )
        indices = sorted(set(image.tolist()))
        if unknown := [index for index in indices if index not in self._images]:
            raise RegionError(f"no image {unknown[0]}; there are images {self._known()}")
        crops = self._empty(len(image)) if out is None else out
        if (len(crops.pixels), len(crops.coverage)) != (len(image), len(image)):
            raise RegionError(f"out has room for {len(crops.pixels)} crops; got {len(image)} regions")
        rows = {index: np.flatnonzero(image == index) for index in indices}
        coming = [index for index in indices if not self._is_prepared(index, regions[rows[index]])]
        plans = [self._plan(index, regions[rows[index]]) for index in coming]
        windows = np.zeros((len(image), 4), np.float64)
        reads: list[Read] = []
        for index, plan in zip(coming, plans, strict=True):
            windows[rows[index]] = plan.windows
            reads += self._images[index].reads(plan, rows[index])
        with contextlib.closing(self._stream(reads)) as tiles:
            decoded = ((tile.data, tile.valid) for tile in tiles)
            scatter(reads, decoded, windows, self._scales, *crops)
        for index in indices:
            ready = self._prepared.pop(index, None)
            if ready is not None and index not in coming:
                crops.pixels[rows[index]], crops.coverage[rows[index]] = ready.crops
        return crops

    def prepare(self, image: Int64[np.ndarray, " n"], regions: Int64[np.ndarray, "n 4"]) -> None:
        """Fetch crops that the next call for each of these images will ask for; raises what that call would."""
        crops = self(image, regions)
        for index in np.unique(image).tolist():
            rows = image == index
            self._prepared[index] = _Prepared(regions[rows], Crops(crops.pixels[rows], crops.coverage[rows]))

    def close(self) -> None:
        """Stop the threads and let go of everything kept; the images stay, and a later call starts anew."""
        if self._pool is not None and self._pool_pid == os.getpid():
            self._pool.shutdown()
        self._pool = None
        self._prepared.clear()
        for reader in self._images.values():
            reader.forget()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def _cache_for(self, pyramid: Pyramid) -> TileCache[Decoded]:
        """The cache that an image uses."""
        count = self._at_once or 1
        limit = self._cache_bytes
        if limit is None:
            limit = min(max(_KEPT_TILES * count * largest_tile(pyramid), _LEAST_KEPT), _MOST_KEPT)
        if self._at_once is not None:
            return TileCache(limit // count)
        self._cache.limit = max(self._cache.limit, limit)
        return self._cache

    def _known(self) -> str:
        return ", ".join(map(str, sorted(self._images))) or "none"

    def _empty(self, size: int) -> Crops:
        bands, side = len(self.config.bands), self.config.size
        return Crops(
            np.empty((size, bands, side, side), np.float32), np.empty((size, side, side), np.float32)
        )

    def _is_prepared(self, index: int, regions: np.ndarray) -> bool:
        ready = self._prepared.get(index)
        return ready is not None and np.array_equal(ready.regions, regions)

    def _plan(self, index: int, regions: np.ndarray) -> ReadPlan:
        reader = self._images[index]
        finest = round(reader.config.size * reader.config.oversample)
        with _naming(index):
            return plan_reads(regions, reader.pyramid.levels, finest, reader.pyramid.source)

    def _stream(self, reads: list[Read]) -> Generator[Decoded]:
        """Decoded reads, in order; up to ``2 * threads`` ahead of the one in use."""
        if self._threads < 2 or len(reads) == 1:
            for read in reads:
                reader = self._images[read.image]
                tile = reader.kept(read) or reader.keep(read, self._decode(read))
                yield tile
                reader.reuse(tile)
            return
        pool = self._workers()
        coming = iter(reads)
        waiting: deque[tuple[Read, Decoded | Future[Decoded]]] = deque()
        try:
            while True:
                for read in islice(coming, 2 * self._threads - len(waiting)):
                    kept = self._images[read.image].kept(read)
                    waiting.append((read, kept or pool.submit(self._decode, read)))
                if not waiting:
                    return
                read, found = waiting.popleft()
                reader = self._images[read.image]
                tile = reader.keep(read, found.result()) if isinstance(found, Future) else found
                yield tile
                reader.reuse(tile)
        finally:  # after an error no thread goes on reading a pyramid that the caller may close
            futures = [tile for _, tile in waiting if isinstance(tile, Future)]
            for future in futures:
                future.cancel()
            wait(futures)

    def _decode(self, read: Read) -> Decoded:
        """Runs in any thread."""
        with _naming(read.image):
            return self._images[read.image].decode(read)

    def _workers(self) -> ThreadPoolExecutor:
        """The threads of this process: threads don't survive a fork."""
        with self._lock:
            if self._pool is None or self._pool_pid != os.getpid():
                self._pool = ThreadPoolExecutor(self._threads, thread_name_prefix="hiresattn-fetch")
                self._pool_pid = os.getpid()
            return self._pool


@contextlib.contextmanager
def _naming(image: int) -> Generator[None]:
    """Errors name the index of the image that they are about."""
    try:
        yield
    except Exception as error:
        error.image = image  # type: ignore[attr-defined]
        raise
