"""Many images kept open and read by one fetcher; the first crops of the next batch are read in a thread."""

from collections import OrderedDict
from collections.abc import Iterable, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import suppress
from functools import partial
from pathlib import Path
from threading import Lock
from typing import Any, NamedTuple

import numpy as np

from hiresattn.config import InputConfig
from hiresattn.errors import HiresattnError
from hiresattn.pyramid import Pyramid, open_pyramid
from hiresattn.pyramid.formats.gdalenv import callers_settings, with_settings
from hiresattn.pyramid.rescaled import Scale, at_scale
from hiresattn.pyramid.stack import Stack
from hiresattn.reading.fetch import CropFetcher, Crops
from hiresattn.shapes import Int64

_Row = tuple[int, ...]
_Ready = dict[_Row, tuple[np.ndarray, np.ndarray]]


class OpenImage(NamedTuple):
    """An image of an ``ImagePool``."""

    pyramid: Pyramid
    """At the scale of the pool's rule."""
    number: int
    """What the pool's fetcher knows it by."""


class ImagePool:
    """Images kept open together with one fetcher, so that a call reads many images at once.

    What is read ahead changes no crop. To be used from one thread.

    Args:
        config: How pixels become crops.
        threads: Threads that open and read; below 2 nothing happens in another thread.
        most: Images kept open, the least recently used closed first; but those of the current batch and of the next
            one stay open, however many they are.
        cache_bytes: Most bytes of decoded tiles kept over all images.
        scales: Scales of images where ``config`` has one, by ``source_key``; of others it is what they say.
    """

    def __init__(
        self,
        config: InputConfig,
        *,
        threads: int,
        most: int,
        cache_bytes: int,
        scales: Mapping[str | int, Scale] | None = None,
    ) -> None:
        self._scales = {} if scales is None else scales
        self.fetcher = CropFetcher([], config, threads=threads, cache_bytes=cache_bytes)
        self._threads = threads
        self._most = most
        self._lock = Lock()
        self._open: OrderedDict[str | int, OpenImage] = OrderedDict()
        self._given: set[str | int] = set()
        self._failed: dict[str | int, HiresattnError] = {}
        self._in_use: set[str | int] = set()
        self._coming: dict[str | int, tuple[Any, np.ndarray]] = {}
        self._future: Future[_Ready] | None = None
        self._ready: _Ready = {}
        self._ahead: ThreadPoolExecutor | None = None

    def begin(self, sources: Sequence[Any]) -> None:
        """Start a batch: its images are opened, several at a time, and stay open until the next batch.

        What goes wrong with one is raised by ``take``.
        """
        needed = {source_key(source): source for source in sources}
        self._ready = {}
        if needed.keys() & self._coming.keys():
            self._settle()
        self._in_use = set(needed)
        self._failed = {}
        missing = [source for key, source in needed.items() if key not in self._open]
        if self._threads > 1 and len(missing) > 1:
            with ThreadPoolExecutor(min(self._threads, len(missing))) as pool:
                list(pool.map(partial(self._try_open, callers_settings()), missing))

    def take(self, source: Any) -> OpenImage:
        """An image, opened if it isn't. Raises what ``open_pyramid`` does, or that the model can't take it."""
        key = source_key(source)
        if key in self._failed:
            raise self._failed.pop(key)
        if key not in self._open:
            if key in self._coming:
                self._settle()
            if key not in self._open:
                self._keep(source)
        with self._lock:
            self._open.move_to_end(key)
            return self._open[key]

    def expect(self, expected: Iterable[tuple[Any, np.ndarray]]) -> None:
        """Open the images of the next batch and read their first crops, in a thread.

        Images of the current batch are left alone.

        Args:
            expected: Sources, and the regions ``[n 4]`` that will probably be asked for.
        """
        coming: dict[str | int, tuple[Any, list[np.ndarray]]] = {}
        for source, regions in expected:
            coming.setdefault(source_key(source), (source, []))[1].append(regions)
        joined = {
            key: (source, np.unique(np.concatenate(regions), axis=0))
            for key, (source, regions) in coming.items()
            if key not in self._in_use
        }
        if self._threads < 2 or (self._future is not None and joined.keys() == self._coming.keys()):
            return
        self._settle()
        if self._ahead is None:
            self._ahead = ThreadPoolExecutor(1, thread_name_prefix="hiresattn-ahead")
        if joined:
            self._coming = joined
            self._future = self._ahead.submit(self._read_ahead, callers_settings(), list(joined.values()))

    def fetch(self, image: Int64[np.ndarray, " n"], regions: Int64[np.ndarray, "n 4"]) -> Crops:
        """Crops of many images in one call of the fetcher; those that were read ahead aren't read again.

        Args:
            image: ``OpenImage.number``, per crop.
            regions: ``(y, x, height, width)`` in level-0 px of that image.

        Raises:
            ReadError: If an image can't be read; its ``image`` is the index.
        """
        if not self._ready:
            return self.fetcher(image, regions)
        rows = [(index, *region) for index, region in zip(image.tolist(), regions.tolist(), strict=True)]
        ready = [self._ready.get(row) for row in rows]
        rest = np.array([n for n, found in enumerate(ready) if found is None], np.int64)
        size, bands = self.fetcher.config.size, len(self.fetcher.config.bands)
        pixels = np.empty((len(rows), bands, size, size), np.float32)
        coverage = np.empty((len(rows), size, size), np.float32)
        if len(rest):
            pixels[rest], coverage[rest] = self.fetcher(image[rest], regions[rest])
        for number, found in enumerate(ready):
            if found is not None:
                pixels[number], coverage[number] = found
        for row in rows:
            self._ready.pop(row, None)
        return Crops(pixels, coverage)

    def forget(self, source: Any) -> None:
        """Close an image, to be opened anew."""
        key = source_key(source)
        self._failed.pop(key, None)
        if key in self._coming:
            self._settle()
        with self._lock:
            if key in self._open:
                self._close(key)

    def close(self) -> None:
        """Close every image; a later ``take`` opens anew."""
        self._settle()
        if self._ahead is not None:
            self._ahead.shutdown()
        self._ahead = None
        self._ready, self._in_use = {}, set()
        with self._lock:
            for key in list(self._open):
                self._close(key)
        self.fetcher.close()

    def _read_ahead(self, settings: dict[str, Any], coming: list[tuple[Any, np.ndarray]]) -> _Ready:
        """Runs in the thread."""
        with with_settings(settings):
            return self._opened_and_read(coming)

    def _opened_and_read(self, coming: list[tuple[Any, np.ndarray]]) -> _Ready:
        image, regions = [], []
        for source, own in coming:
            with suppress(HiresattnError, MemoryError):  # raised by who asks for it
                image.append(np.full(len(own), self._keep(source).number))
                regions.append(own)
        if not image:
            return {}
        at, where = np.concatenate(image), np.concatenate(regions)
        with suppress(HiresattnError, MemoryError):
            crops = self.fetcher(at, where)
            rows = [(index, *region) for index, region in zip(at.tolist(), where.tolist(), strict=True)]
            return dict(zip(rows, zip(*crops, strict=True), strict=True))
        return {}

    def _settle(self) -> None:
        """Wait for the thread, or spare it what it hasn't begun."""
        if self._future is not None and not self._future.cancel() and self._future.exception() is None:
            self._ready = self._future.result()
        self._future, self._coming = None, {}

    def _try_open(self, settings: dict[str, Any], source: Any) -> None:
        try:
            with with_settings(settings):
                self._keep(source)
        except HiresattnError as error:
            self._failed[source_key(source)] = error

    def _keep(self, source: Any) -> OpenImage:
        """Open an image unless it is open, and close others to make room. Runs in any thread."""
        key = source_key(source)
        with self._lock:
            if key in self._open:
                return self._open[key]
        rule = self.fetcher.config
        stored = open_pyramid(source, nodata=rule.nodata)  # without the lock: other threads go on
        try:
            pyramid = at_scale(stored, rule.mpp, self._scales.get(key))
            image = OpenImage(pyramid, self.fetcher.add(pyramid))
        except HiresattnError:
            if stored is not source:
                stored.close()
            raise
        with self._lock:
            for old in list(self._open):
                if len(self._open) < self._most:
                    break
                if old not in self._in_use and old not in self._coming:
                    self._close(old)
            self._open[key] = image
            if stored is source:
                self._given.add(key)
        return image

    def _close(self, key: str | int) -> None:
        image = self._open.pop(key)
        self.fetcher.remove(image.number)
        if key not in self._given:
            image.pyramid.close()
        self._given.discard(key)


def source_key(source: Any) -> str | int:
    """What an open image is known by: its name, or the object that it is."""
    return str(source) if isinstance(source, (str, Path, Stack)) else id(source)
