"""Crops as the file holds them: many windows of one level at once, each tile decoded once."""

from collections.abc import Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import nullcontext
from threading import local
from typing import Any, NamedTuple
from weakref import WeakKeyDictionary

import numpy as np

from hiresattn.errors import ReadError, RegionError
from hiresattn.pyramid import Pyramid, open_pyramid
from hiresattn.reading.cache import TileCache
from hiresattn.reading.plan import ReadPlan, plan_windows

#: Tiles that a thread takes at a time: neighbours in the file.
_RUN = 8
#: Crops up to which a call counts as one of many: its tiles are kept for the next.
_FEW = 64
_KEPT_BYTES = 64 << 20
_kept: WeakKeyDictionary[Pyramid, TileCache[np.ndarray]] = WeakKeyDictionary()


class NativeCrops(NamedTuple):
    """What ``read_crops`` returns for ``n`` windows."""

    pixels: np.ndarray
    """``[n h w c]``, the file's data type. Where the file leaves a tile out: its declared fill value."""
    tiles: int
    """Tiles decoded; of an image read window by window, those under the windows."""
    unique_tiles: int
    """Different tiles under the windows."""
    bytes: int
    """Stored bytes of ``tiles``; see ``Pyramid.exact_bytes``."""
    missing_tiles: int
    """Tiles that the file leaves out."""


def read_crops(
    source: Any,
    yx: np.ndarray | Sequence[tuple[int, int]],
    size: int | tuple[int, int],
    *,
    level: int = 0,
    out: np.ndarray | None = None,
    threads: int = 1,
    strict: bool = False,
) -> NativeCrops:
    """Read many equally large windows of one level; each tile is read and decoded once, whatever they share.

    Beyond the result, memory holds one tile per thread; and, of calls for few crops, an open pyramid's last tiles,
    64 MB at most, which later ones take from there.

    Args:
        source: The image, as ``open_pyramid`` takes it; a pyramid stays open.
        yx: First row and column of each window, px of the level, int ``[n 2]``.
        size: Rows and columns of a window, or one number for both, px of the level.
        level: Index into ``pyramid.levels``; 0 is the finest.
        out: Where to put the px, ``[n h w c]`` of the image's data type; None = a new array.
        threads: Threads that read, decode and copy.
        strict: Whether a tile that the file leaves out is an error.

    Returns:
        The crops in the order asked for, and what they cost.

    Raises:
        OpenError: If the image can't be opened.
        RegionError: If the level or a window doesn't exist, or ``out`` doesn't fit; nothing is read then.
        ReadError: If a tile can't be decoded, or is missing and ``strict`` is set; or the file has changed since it was
            opened.

    Examples:
        >>> hiresattn.read_crops("slide.svs", [(0, 0), (4096, 2048)], 224).pixels.shape
        (2, 224, 224, 3)
    """
    with nullcontext(source) if isinstance(source, Pyramid) else open_pyramid(source) as pyramid:
        return _read(pyramid, yx, size, level, out, threads, strict=strict)


def _read(
    pyramid: Pyramid,
    yx: np.ndarray | Sequence[tuple[int, int]],
    size: int | tuple[int, int],
    level: int,
    out: np.ndarray | None,
    threads: int,
    *,
    strict: bool,
) -> NativeCrops:
    if pyramid.is_changed:  # tiles that are kept, and what the header said, are of another file
        raise ReadError(f"{pyramid.source}: it changed while it was open; close it and open it again")
    windows = _windows(pyramid, np.asarray(yx), size, level)
    count = len(windows)
    shape = (count, *_sides(size), pyramid.channels)
    if out is None:
        out = np.empty(shape, pyramid.dtype)
    elif out.shape != shape or out.dtype != pyramid.dtype or not out.flags.writeable:
        raise RegionError(
            f"{pyramid.source}: out must be a writeable {shape} array of {pyramid.dtype}; got {out.shape} {out.dtype}"
        )
    plan = plan_windows(windows.astype(np.float64), np.full(count, level, np.int64), pyramid.levels)
    if pyramid.native_tiles is not None:
        pyramid.native_tiles.expect(map(tuple, plan.tiles.tolist()))
    by_window = pyramid.by_window and not _fewer_as_tiles(pyramid, level, plan)
    job = _Job(pyramid, level, plan, windows[:, :2].tolist(), out, strict=strict, by_window=by_window)
    work: Iterable[Iterable[int]] = [range(n, min(n + _RUN, job.count)) for n in range(0, job.count, _RUN)]
    if threads < 2 or job.count <= _RUN:
        done = [job.run(numbers) for numbers in work]
    else:
        with ThreadPoolExecutor(threads, thread_name_prefix="hiresattn-crops") as pool:
            done = list(pool.map(job.run, work))
    tiles, missing, stored = (int(total) for total in np.array(done or [(0, 0, 0)], np.int64).sum(axis=0))
    if by_window:  # which tiles its library decodes is its own affair
        tiles, stored = len(plan.tiles), sum(pyramid.tile_bytes(*tile) for tile in plan.tiles.tolist())
    return NativeCrops(out, tiles, len(plan.tiles), stored, missing)


def _fewer_as_tiles(pyramid: Pyramid, level: int, plan: ReadPlan) -> bool:
    """Whether the tiles under windows have fewer px than the windows, and hold the same ones.

    A library that cuts windows out of tiles works as long on a px of either. Coarser levels it may resample.
    """
    has = pyramid.levels[level]
    px = len(plan.tiles) * has.tile_height * has.tile_width
    return level == 0 and px < plan.windows[:, 2:].prod(axis=1).sum()


def kept_tiles(pyramid: Pyramid) -> TileCache[np.ndarray]:
    """The tiles that live with an open image: calls for few crops each cost what one for all of them costs."""
    if pyramid not in _kept:
        _kept[pyramid] = TileCache(_KEPT_BYTES)
    return _kept[pyramid]


class _Job:
    """The reads of one call, by number; any thread runs any of them: no two write the same px."""

    def __init__(
        self,
        pyramid: Pyramid,
        level: int,
        plan: ReadPlan,
        starts: list[list[int]],
        out: np.ndarray,
        *,
        strict: bool,
        by_window: bool,
    ) -> None:
        self.pyramid = pyramid
        self.level = level
        self.starts = starts
        self.out = out
        self.strict = strict
        self.kept = kept_tiles(pyramid) if len(starts) <= _FEW and not by_window else None
        self.tiles = plan.tiles[:, 1:].tolist()
        self.feed_start = plan.feed_start.tolist()
        self.feed_crop = plan.feed_crop.tolist()
        self.order: list[int] = []
        if by_window:  # crops, in the order of the first tile of each
            _, first = np.unique(plan.feed_crop, return_index=True)
            self.order = np.argsort(first, kind="stable").tolist()
        self.count = len(self.order) or len(self.tiles)
        self.buffers = local()

    def run(self, numbers: Iterable[int]) -> tuple[int, int, int]:
        """Do some of the reads; returns how many tiles that were, how many were missing, and their bytes."""
        tiles = missing = stored = 0
        for number in numbers:
            if self.order:
                self._window(number)
                continue
            decoded, absent = self._tile(number)
            if decoded:
                stored += self.pyramid.tile_bytes(self.level, *self.tiles[number])
            tiles, missing = tiles + decoded, missing + absent
        return tiles, missing, stored

    def _tile(self, number: int) -> tuple[bool, int]:
        """Copy a tile into its crops; returns whether it was decoded, and how much of it the file leaves out."""
        row, column = self.tiles[number]
        key = self.level, row, column
        data, missing = None if self.kept is None else self.kept.get(key), 0
        decoded = data is None
        if data is None:
            data, missing = self._decoded(row, column)
            if self.kept is not None and not missing:
                self.kept.put(key, data)
        has, out = self.pyramid.levels[self.level], self.out
        top, left = row * has.tile_height, column * has.tile_width
        bottom, right = top + data.shape[0], left + data.shape[1]
        height, width = out.shape[1:3]
        planes = not data.flags.c_contiguous
        for crop in self.feed_crop[self.feed_start[number] : self.feed_start[number + 1]]:
            y, x = self.starts[crop]
            y0, x0 = max(y, top), max(x, left)
            y1, x1 = min(y + height, bottom), min(x + width, right)
            _copy(
                data[y0 - top : y1 - top, x0 - left : x1 - left],
                out[crop, y0 - y : y1 - y, x0 - x : x1 - x],
                planes=planes,
            )
        return decoded, missing

    def _decoded(self, row: int, column: int) -> tuple[np.ndarray, int]:
        """The px of a tile, and how much of it the file leaves out."""
        buffer = self._buffer() if self.kept is None else None
        tile = self.pyramid.read_tile(self.level, row, column, buffer)
        if tile.missing_tiles and self.strict:
            raise ReadError(
                f"{self.pyramid.source}, level {self.level}, tile in row {row}, column {column}: missing; without "
                "strict it holds the file's fill value"
            )
        return tile.data, tile.missing_tiles

    def _buffer(self) -> np.ndarray | None:
        """This thread's memory for a tile."""
        if self.pyramid.native_tiles is None:
            return None
        if not hasattr(self.buffers, "tile"):
            self.buffers.tile = self.pyramid.native_tiles.buffer(self.level)
        return self.buffers.tile

    def _window(self, number: int) -> None:
        crop = self.order[number]
        height, width = self.out.shape[1:3]
        y, x = self.starts[crop]
        data = self.pyramid.read_masked(self.level, y, x, height, width).data
        _copy(data, self.out[crop], planes=not data.flags.c_contiguous)


def _copy(data: np.ndarray, out: np.ndarray, *, planes: bool) -> None:
    """Copy px ``[h w c]``; of bands stored as planes, each for itself: NumPy's loop over three bands a px is slow."""
    if not planes:
        out[:] = data
        return
    for band in range(data.shape[2]):
        out[..., band] = data[..., band]


def _sides(size: int | tuple[int, int]) -> tuple[int, int]:
    return (size, size) if isinstance(size, int) else size


def _windows(pyramid: Pyramid, yx: np.ndarray, size: int | tuple[int, int], level: int) -> np.ndarray:
    """The windows, int64 ``[n 4]``, if they all exist."""
    if not 0 <= level < len(pyramid.levels):
        raise RegionError(f"{pyramid.source}: no level {level}; it has levels 0 to {len(pyramid.levels) - 1}")
    height, width = _sides(size)
    if yx.size == 0:
        yx = np.empty((0, 2), np.int64)
    if yx.ndim != 2 or yx.shape[1] != 2 or yx.dtype.kind not in "iu":
        raise RegionError(
            f"{pyramid.source}: first rows and columns are whole numbers [n 2] (y, x); got {yx.dtype} {yx.shape}"
        )
    has = pyramid.levels[level]
    windows = np.empty((len(yx), 4), np.int64)
    windows[:, :2] = yx
    windows[:, 2:] = height, width
    outside = (windows[:, :2] < 0).any(axis=1) | (windows[:, 0] + height > has.height)
    outside |= windows[:, 1] + width > has.width
    if min(height, width) < 1 or outside.any():
        y, x = windows[outside][0, :2].tolist() if outside.any() else (0, 0)
        raise RegionError(
            f"{pyramid.source}, level {level}: asked for {height} x {width} px at row {y}, column {x}, but it has "
            f"{has.height} rows and {has.width} columns; ask for windows inside"
        )
    return windows
