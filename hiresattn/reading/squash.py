"""Crops as the paper makes them: the whole image resized to a square, crops cut from that and resized again.

For the published configurations only: every px of the image is read, once, and held. ``fetch`` reads a fraction.
"""

import time
from collections.abc import Callable, Sequence
from types import TracebackType
from typing import Self

import numpy as np

from hiresattn.config import InputConfig
from hiresattn.errors import ConfigError, HiresattnError, ReadError
from hiresattn.geometry import check_region
from hiresattn.pyramid.area import area_means
from hiresattn.pyramid.base import Pyramid
from hiresattn.reading.bands import rule_for, taken_bands, valid_bands
from hiresattn.reading.decode import FetchStats
from hiresattn.reading.fetch import Crops
from hiresattn.shapes import Float32, Int64


class SquashFetcher:
    """Turns regions of one squashed image into crops; the image is read at the first call.

    Regions are in px of the square of ``config.squash`` px, and may overhang it: what lies outside is 0, the
    middle of the input range, as the paper pads. The pyramid stays the caller's.

    Args:
        pyramid: The image.
        config: How pixels become crops; with ``squash``.
        frame: The window that is squashed, level-0 px; None = the whole image.
        strict: Whether a tile that the file leaves out is an error; else it is not measured, and counted.

    Raises:
        ConfigError: If ``config`` doesn't squash.
        DomainError: If the model can't take the image.
        RegionError: If the window leaves the image.
    """

    def __init__(
        self,
        pyramid: Pyramid,
        config: InputConfig,
        frame: tuple[int, int, int, int] | None = None,
        *,
        strict: bool = False,
    ) -> None:
        if config.squash is None:
            raise ConfigError("squash: the model does not squash its images; read them with a CropFetcher")
        self.config = rule_for(pyramid, config)
        self.stats = {0: FetchStats(bytes_exact=pyramid.exact_bytes)}
        self.side = config.squash
        self._pyramid = pyramid
        self._frame = frame or (0, 0, pyramid.height, pyramid.width)
        check_region(self._frame, pyramid.height, pyramid.width, pyramid.source)
        self._strict = strict
        self._square: tuple[np.ndarray, np.ndarray] | None = None

    def __call__(self, image: Int64[np.ndarray, " n"], regions: Int64[np.ndarray, "n 4"]) -> Crops:
        """Fetch crops.

        Args:
            image: All 0: there is one image.
            regions: ``(y, x, height, width)`` in px of the squashed image.

        Returns:
            The crops, in the order asked for.

        Raises:
            ReadError: If a tile can't be decoded, or is missing and ``strict`` is set.
        """
        if self._square is None:
            self._square = self._read()
        size, how = self.config.size, self.config.filter
        pixels = np.empty((len(image), len(self.config.bands), size, size), np.float32)
        coverage = np.empty((len(image), size, size), np.float32)
        for row, region in enumerate(regions.tolist()):
            values, measured = (_cut(plane, region) for plane in self._square)
            pixels[row] = resize(values, size, how)
            coverage[row] = resize(measured, size, how)[0]
        self.stats[0].crops += len(image)
        return Crops(pixels, coverage)

    def close(self) -> None:
        """Let go of the image; a later call reads it anew."""
        self._square = None

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def _read(self) -> tuple[np.ndarray, np.ndarray]:
        """The squashed image ``[c s s]``, scaled, and the share of each px that was measured ``[1 s s]``."""
        started = time.perf_counter()
        pyramid, config = self._pyramid, self.config
        found = pyramid.read_masked(0, *self._frame, bands=valid_bands(pyramid, config.bands))
        if found.missing_tiles and self._strict:
            raise ReadError(
                f"{pyramid.source}, level 0: {found.missing_tiles} missing tiles in the window "
                f"{list(self._frame)}; without strict they count as not measured"
            )
        native = taken_bands(pyramid, found.data, found.valid, config.bands)
        low, high = (np.array(values, np.float32) for values in (config.low, config.high))
        values = (2 * (native.astype(np.float32) - low) / (high - low) - 1).transpose(2, 0, 1)
        how = config.filter
        if found.valid is None or found.valid.all():
            square = resize(values, self.side, how), np.ones((1, self.side, self.side), np.float32)
        else:  # nodata is never averaged in
            values[:, ~found.valid] = 0
            share = resize(found.valid[None].astype(np.float32), self.side, how)
            total = resize(values, self.side, how)
            square = np.divide(total, share, out=np.zeros_like(total), where=share > 0), share
        self._count(found.missing_tiles, time.perf_counter() - started)
        return square

    def _count(self, missing: int, seconds: float) -> None:
        stats, level = self.stats[0], self._pyramid.levels[0]
        y, x, height, width = self._frame
        rows = range(y // level.tile_height, (y + height - 1) // level.tile_height + 1)
        columns = range(x // level.tile_width, (x + width - 1) // level.tile_width + 1)
        stats.bytes += sum(self._pyramid.tile_bytes(0, row, column) for row in rows for column in columns)
        stats.tiles += len(rows) * len(columns)
        stats.unique_tiles = len(rows) * len(columns)
        stats.pixels += height * width
        stats.missing_tiles += missing
        stats.seconds += seconds


def squash_reader(
    pyramids: Sequence[Pyramid], frames: Sequence[tuple[int, int, int, int]], config: InputConfig
) -> Callable[[np.ndarray, np.ndarray], Crops]:
    """A fetch of many squashed images: ``(image [n], regions [n 4])`` → crops; each is read at its first crop.

    Args:
        pyramids: The images.
        frames: The window that is squashed, of each, level-0 px.
        config: How pixels become crops; with ``squash``.

    Returns:
        The fetch; an error's ``image`` is the index of the image that can't be read.
    """
    fetchers = [SquashFetcher(one, config, frame) for one, frame in zip(pyramids, frames, strict=True)]

    def fetch(image: np.ndarray, regions: np.ndarray) -> Crops:
        size = config.size
        pixels = np.empty((len(image), len(config.bands), size, size), np.float32)
        coverage = np.empty((len(image), size, size), np.float32)
        for index in np.unique(image).tolist():
            own = image == index
            try:
                pixels[own], coverage[own] = fetchers[index](np.zeros(own.sum(), np.int64), regions[own])
            except HiresattnError as error:
                error.image = index
                raise
        return Crops(pixels, coverage)

    return fetch


def resize(planes: Float32[np.ndarray, "c h w"], size: int, how: str) -> Float32[np.ndarray, "c s s"]:
    """Resize to a square, each axis by itself.

    Args:
        planes: What is resized.
        size: Side of the result.
        how: ``bilinear`` (two neighbours of each centre, no antialiasing, as TensorFlow 2 resizes) or ``area``.

    Returns:
        Float32.
    """
    if how == "bilinear":
        return _bilinear(_bilinear(planes, size).swapaxes(1, 2), size).swapaxes(1, 2)
    rows, columns = (np.arange(size + 1) * (length / size) for length in planes.shape[1:])
    means, _ = area_means(planes.transpose(1, 2, 0), None, rows, columns)
    return means.transpose(2, 0, 1).astype(np.float32)


def unsquashed(
    regions: Int64[np.ndarray, "n 4"], frame: tuple[int, int, int, int], side: int
) -> Int64[np.ndarray, "n 4"]:
    """Where regions of a squashed image lie in the image itself: level-0 px, cut to its window.

    Args:
        regions: Px of the squashed image.
        frame: The window that was squashed, level-0 px.
        side: Side of the squashed image.

    Returns:
        At least a px high and wide, inside the window.
    """
    start, length = np.array(frame[:2]), np.array(frame[2:])
    first = np.clip(np.rint(regions[:, :2] * length / side).astype(np.int64), 0, length - 1)
    last = np.rint((regions[:, :2] + regions[:, 2:]) * length / side).astype(np.int64)
    last = np.clip(last, first + 1, length)
    return np.concatenate([start + first, last - first], axis=1)


def squashed(
    regions: Int64[np.ndarray, "n 4"], frame: tuple[int, int, int, int], side: int
) -> Int64[np.ndarray, "n 4"]:
    """Where regions of an image lie in its squashed self, rounded to whole px; the inverse of ``unsquashed``."""
    start, length = np.array(frame[:2]), np.array(frame[2:])
    first = np.rint((regions[:, :2] - start) * side / length).astype(np.int64)
    last = np.rint((regions[:, :2] + regions[:, 2:] - start) * side / length).astype(np.int64)
    return np.concatenate([first, np.maximum(last - first, 1)], axis=1)


def _cut(planes: np.ndarray, region: list[int]) -> np.ndarray:
    """A window of planes ``[c h w]``; 0 where it overhangs."""
    y, x, height, width = region
    out = np.zeros((len(planes), height, width), np.float32)
    top, left = max(y, 0), max(x, 0)
    inside = planes[:, top : max(y + height, 0), left : max(x + width, 0)]
    out[:, top - y : top - y + inside.shape[1], left - x : left - x + inside.shape[2]] = inside
    return out


def _bilinear(planes: np.ndarray, size: int) -> np.ndarray:
    """Along the rows ``[c h w]`` → ``[c size w]``."""
    length = planes.shape[1]
    if length == size:
        return planes
    at = np.clip((np.arange(size) + 0.5) * (length / size) - 0.5, 0, length - 1)
    first = np.floor(at).astype(np.int64)
    part = (at - first).astype(np.float32)[:, None]
    return planes[:, first] * (1 - part) + planes[:, np.minimum(first + 1, length - 1)] * part
