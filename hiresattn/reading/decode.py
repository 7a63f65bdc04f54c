"""Reads of one image: decode them, keep tiles for later calls, and count what it cost."""

import contextlib
import time
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass, fields
from typing import NamedTuple

import numpy as np

from hiresattn.config import InputConfig
from hiresattn.errors import ReadError
from hiresattn.pyramid.area import ALL_VALID, computable
from hiresattn.pyramid.base import Pyramid
from hiresattn.reading.bands import check_colours, taken_bands, valid_bands
from hiresattn.reading.cache import TileCache
from hiresattn.reading.plan import Read, ReadPlan, block_reads, tile_reads


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

    def __add__(self, other: "FetchStats") -> "FetchStats":
        """What was read by two fetchers, their tiles taken for different ones."""
        total = {one.name: getattr(self, one.name) + getattr(other, one.name) for one in fields(self)}
        return FetchStats(**total | {"bytes_exact": self.bytes_exact and other.bytes_exact})


class Decoded(NamedTuple):
    """The px of one read that the model takes."""

    data: np.ndarray
    """``[h w c]``, in this machine's byte order; in C order, or a view of planes ``[c h w]`` in C order. Of an image
    with a ``small_palette``: its indices ``[h w 1]``."""
    valid: np.ndarray
    """Bool ``[h w]``, True = measured; or ``ALL_VALID``."""
    missing: int
    """Tiles that the file leaves out."""
    seconds: float
    """Time that reading and decoding took."""
    buffer: np.ndarray | None = None
    """What it was decoded into, to be used again."""

    @property
    def nbytes(self) -> int:
        """Memory that it keeps."""
        return self.data.nbytes + self.valid.nbytes


class ImageReader:
    """Decodes the reads of one image, each kept tile once.

    ``decode`` may be called from many threads at once, the other methods from one at a time.

    Args:
        number: What its reads and kept tiles are known by.
        pyramid: The image.
        config: What the model takes of it.
        cache: Keeps decoded tiles, perhaps those of other images too.
        strict: Whether a tile that the file leaves out is an error; else it is not measured, and counted.
    """

    def __init__(
        self,
        number: int,
        pyramid: Pyramid,
        config: InputConfig,
        cache: TileCache[Decoded],
        *,
        strict: bool = False,
    ) -> None:
        self.number = number
        self.pyramid = pyramid
        self.config = config
        self.stats = FetchStats(bytes_exact=pyramid.exact_bytes)
        self._strict = strict
        self._seen: set[tuple[int, int, int]] = set()
        self._cache = cache
        self._buffers: defaultdict[tuple[int, ...], list[np.ndarray]] = defaultdict(list)

    def reads(self, plan: ReadPlan, crops: np.ndarray) -> list[Read]:
        """The reads of a plan, which are announced and counted: tile by tile, or window by window.

        Args:
            plan: What to read.
            crops: The caller's number of each crop of the plan, int64 ``[n]``.

        Returns:
            The reads, in the plan's order.
        """
        levels, native = self.pyramid.levels, self.pyramid.native_tiles
        self.stats.crops += len(crops)
        if not self.pyramid.by_tile:
            self._count_tiles(plan.tiles.tolist())
            return list(block_reads(self.number, levels, plan, crops))
        reads = list(tile_reads(self.number, levels, plan, crops))
        if native is not None:  # so that neighbours on a server come in one request
            native.expect(
                (read.level, *read.tile) for read in reads if read.tile and _key(read) not in self._cache
            )
        return reads

    def kept(self, read: Read) -> Decoded | None:
        """The tile, if an earlier call's is kept."""
        return self._cache.get(_key(read))

    def decode(self, read: Read) -> Decoded:
        """Read, and take the bands that the model takes.

        Raises:
            ReadError: If a tile can't be decoded, or is missing and ``strict`` is set.
        """
        started = time.perf_counter()
        pyramid, bands = self.pyramid, valid_bands(self.pyramid, self.config.bands)
        buffer = None
        if read.tile is None:
            pixels = pyramid.read_masked(read.level, *read.window, bands=bands)
        else:
            buffer = self._buffer(read.level)
            pixels = pyramid.read_tile(read.level, *read.tile, buffer, bands=bands)
        if pixels.missing_tiles and self._strict:
            y, x, height, width = read.window
            where = f"row {read.tile[0]}, column {read.tile[1]}" if read.tile else "one or more"
            raise ReadError(
                f"{pyramid.source}, level {read.level}: missing tile ({where}) in rows {y} to {y + height}, "
                f"columns {x} to {x + width}; without strict it counts as not measured"
            )
        if small_palette(pyramid) is not None:  # colours are looked up where they are needed
            data = pixels.data
            check_colours(pyramid, data, pixels.valid)
        else:
            data = taken_bands(pyramid, pixels.data, pixels.valid, self.config.bands)
        data = _arranged(data)
        if read.tile is not None and self._cache.limit > 0 and _holds_more(data):
            data = data.copy("K")  # a kept tile must not hold a larger array
        valid = (
            ALL_VALID
            if pixels.valid is None or pixels.valid.all()
            else np.require(pixels.valid, None, ["C", "W", "O"])
        )
        return Decoded(data, valid, pixels.missing_tiles, time.perf_counter() - started, buffer)

    def keep(self, read: Read, tile: Decoded) -> Decoded:
        """Count what ``decode`` made of a read, and keep it if it is a tile."""
        self.stats.pixels += read.window[2] * read.window[3]
        self.stats.missing_tiles += tile.missing
        self.stats.seconds += tile.seconds
        if read.tile is not None:
            self._count_tiles([(read.level, *read.tile)])
            self._cache.put(_key(read), tile)
        return tile

    def reuse(self, tile: Decoded) -> None:
        """Take back the memory of a tile that is done with."""
        if tile.buffer is not None:
            self._buffers[tile.buffer.shape].append(tile.buffer)

    def forget(self) -> None:
        """Let go of the kept tiles."""
        self._cache.drop(lambda key: key[0] == self.number)
        self._buffers.clear()

    def _count_tiles(self, tiles: Sequence[Sequence[int]]) -> None:
        for level, row, column in tiles:
            self._seen.add((level, row, column))
            self.stats.bytes += self.pyramid.tile_bytes(level, row, column)
        self.stats.tiles += len(tiles)
        self.stats.unique_tiles = len(self._seen)

    def _buffer(self, level: int) -> np.ndarray | None:
        """Memory to decode a tile into, where tiles are not kept."""
        native = self.pyramid.native_tiles
        if native is None or self._cache.limit > 0:
            return None
        with contextlib.suppress(IndexError):
            return self._buffers[*native.sides[level], native.bands].pop()
        return native.buffer(level)


def small_palette(pyramid: Pyramid) -> np.ndarray | None:
    """The colours ``[entries 3]`` of a palette image whose indices are uint8."""
    return pyramid.palette if pyramid.dtype == np.uint8 else None


def _key(read: Read) -> tuple[int, int, tuple[int, int] | None]:
    return read.image, read.level, read.tile


def largest_tile(pyramid: Pyramid) -> int:
    """Bytes of the largest decoded tile."""
    px = max(level.tile_height * level.tile_width for level in pyramid.levels)
    return px * pyramid.channels * pyramid.dtype.itemsize


def _arranged(data: np.ndarray) -> np.ndarray:
    """Px ``[h w c]`` as the kernels take them: bands of uint8 that are stored as planes stay so."""
    planes = data.transpose(2, 0, 1)
    if data.dtype == np.uint8 and planes.flags.c_contiguous and not data.flags.c_contiguous:
        return np.require(planes, None, ["C", "W"]).transpose(1, 2, 0)
    return np.require(data, computable(data.dtype), ["C", "W"])


def _holds_more(data: np.ndarray) -> bool:
    """Whether an array keeps clearly more memory alive than its own px."""
    return data.base is not None and getattr(data.base, "nbytes", 2 * data.nbytes) > data.nbytes + 64
