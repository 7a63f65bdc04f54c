"""A pyramid reads pixels of one image; it has no policy."""

import os
from abc import ABC, abstractmethod
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from operator import index
from types import TracebackType
from typing import TYPE_CHECKING, Any, ClassVar, Self

import numpy as np

from hiresattn.errors import HiresattnError, ReadError, RegionError, counted, reason
from hiresattn.files import file_states
from hiresattn.geometry import Level, check_region, extent
from hiresattn.pyramid.holes import filled
from hiresattn.pyramid.metadata import Metadata
from hiresattn.pyramid.pixels import Pixels, measured, measured_by_band, missing
from hiresattn.pyramid.placed import Placed

if TYPE_CHECKING:
    from hiresattn.pyramid.storage.ranges import RequestStats
    from hiresattn.pyramid.storage.tiles import Tiles


class Pyramid(Placed, ABC):
    """Reads pixels of one image at its stored resolutions.

    Thread-safe; picklable (it is opened anew from its source); a backend writes ``_read`` and ``close``.

    What the format lets a reader notice of damage is an error, never blank pixels: a file or tile cut short,
    and whatever the decoder refuses. Deflate, gzip and PNG have checksums. Uncompressed, LZW, JPEG, JPEG 2000,
    WebP and, as most programs write it, zstd and Blosc have none: changed bytes in the middle of a tile may
    decode to other pixels unnoticed.

    Args:
        source: Path or address, as shown in messages and records.
        meta: What the file says.
        given: What the caller gives in place of the file's (``mpp``, ``nodata``); used to open it anew.
    """

    backend: ClassVar[str]
    """Name of the backend."""
    by_tile: bool = True
    """Whether reading tile by tile is how this image is read best; else window by window."""
    native_tiles: "Tiles | None" = None
    """The stored tiles, where they are read and decoded natively."""
    by_window: bool = False
    """Whether its library cuts windows out of tiles faster than it returns the tiles themselves."""
    requests: "RequestStats | None" = None
    """What was asked of servers so far; None = nothing, or it isn't counted."""
    kept: Any = None
    """What must live as long as the image, such as a file in memory that is the caller's."""
    exact_bytes: bool = False
    """Whether ``tile_bytes`` is what the file stores, or the file's size shared out over its pixels."""

    def __init__(self, source: str, meta: Metadata, **given: float | None) -> None:
        self._given = given
        self.source = self._path = source
        self._opened = self._state()
        self.meta = meta
        self.levels = meta.levels
        self.channels = meta.channels
        self.dtype = np.dtype(meta.dtype)
        self.mpp = meta.mpp
        self.crs = meta.crs
        self.transform = meta.transform
        self.nodata = meta.nodata
        self.palette = meta.palette
        self.channel_names = meta.channel_names
        self.bounds = meta.bounds
        stored = sum(level.width * level.height for level in meta.levels)
        raw = self.dtype.itemsize * self.channels
        self._bytes_per_px = meta.nbytes / stored if meta.nbytes else float(raw)

    @property
    def width(self) -> int:
        """Columns of level 0; of a rescaled image px of its scale."""
        return extent(self.levels)[1]

    @property
    def height(self) -> int:
        """Rows of level 0; of a rescaled image px of its scale."""
        return extent(self.levels)[0]

    @abstractmethod
    def _read(self, level: int, y: int, x: int, height: int, width: int) -> Pixels:
        """Read a window that lies inside the level. Raises ``ReadError``; never makes pixels up."""

    def named(self, source: str, **known: Any) -> Self:
        """The same image with another name in messages and records, and ``known`` fields of ``meta``."""
        self.source, self.meta = source, replace(self.meta, **known)
        self.channel_names = self.meta.channel_names
        return self

    @property
    def is_changed(self) -> bool:
        """Whether its file has another size or time of change than when it was opened; folders are not looked at."""
        now = self._state()
        return bool(self._opened and now) and now != self._opened

    def _state(self) -> list[tuple[int, int]]:
        """Size and time of change of its file; empty where there is no regular file."""
        return file_states(self._path) if os.path.isfile(self._path) else []  # noqa: PTH113 - no name makes it raise

    def close(self) -> None:
        """Let go of open files. A later read opens them again."""

    def read(self, level: int, y: int, x: int, height: int, width: int) -> np.ndarray:
        """Read a window of one level.

        Args:
            level: Index into ``levels``; 0 is the finest.
            y: First row, px of that level.
            x: First column, px of that level.
            height: Rows.
            width: Columns.

        Returns:
            ``[h w c]`` in the file's native dtype. Px that the file leaves out hold its declared fill value;
            ``read_masked`` returns which they are.

        Raises:
            RegionError: If the level or the window doesn't exist.
            ReadError: If a tile can't be decoded.
        """
        return self.read_masked(level, y, x, height, width).data

    def read_masked(
        self, level: int, y: int, x: int, height: int, width: int, bands: Sequence[int] | None = None
    ) -> Pixels:
        """Read a window of one level with the mask of what was measured; otherwise as ``read``.

        Args:
            level: Index into ``levels``.
            y: First row, px of that level.
            x: First column, px of that level.
            height: Rows.
            width: Columns.
            bands: Bands, from 0, that must all be measured for a px to be valid; None = all bands.

        Returns:
            All bands, and what is valid in those of ``bands``: ``[h w]``.
        """
        return self._masked(self._window(level, y, x, height, width), bands)

    def read_by_band(self, level: int, y: int, x: int, height: int, width: int) -> Pixels:
        """As ``read_masked``, with the mask of each band: ``[h w c]``, or ``[h w]`` where all bands have the same."""
        pixels = self._window(level, y, x, height, width)
        return replace(pixels, valid=measured_by_band(pixels, self.nodata))

    def _window(self, level: int, y: int, x: int, height: int, width: int) -> Pixels:
        """A window as the backend reads it, checked."""
        has = self._level(level)
        y, x, height, width = self._integers("the window (y, x, height, width)", y, x, height, width)
        check_region((y, x, height, width), has.height, has.width, f"{self.source}, level {level}")
        with self._own_errors(level, height, width):
            pixels = self._read(level, y, x, height, width)
        return self._checked(pixels, level, y, x, height, width)

    def read_tile(
        self,
        level: int,
        row: int,
        column: int,
        buffer: np.ndarray | None = None,
        bands: Sequence[int] | None = None,
    ) -> Pixels:
        """Read one storage tile, cut to the level's edge.

        Args:
            level: Index into ``levels``.
            row: Row of tiles.
            column: Column of tiles.
            buffer: From ``native_tiles.buffer(level)``, to decode into: what is returned then lasts until the
                next read.
            bands: As of ``read_masked``.

        Returns:
            Its px, perhaps a view into the decoder's.

        Raises:
            RegionError: If the level has no such tile.
            ReadError: If it can't be decoded.
        """
        y, x, height, width = self.tile_window(level, row, column)
        with self._own_errors(level, height, width):
            if self.native_tiles is None:
                pixels = self._read(level, y, x, height, width)
            else:
                pixels = self._finished(self.native_tiles.read_tile(level, row, column, buffer))
        return self._masked(self._checked(pixels, level, y, x, height, width), bands)

    @contextmanager
    def _own_errors(self, level: int, height: int, width: int) -> Iterator[None]:
        """Whatever a library raises while px are read is a ``ReadError`` that names the file."""
        try:
            yield
        except HiresattnError:
            raise
        except MemoryError as error:
            raise ReadError(
                f"{self.source}, level {level}: out of memory while {height} x {width} px were decoded; lower "
                "threads"
            ) from error
        except Exception as error:
            raise ReadError(
                f"{self.source}, level {level}: the {self.backend} reader failed ({type(error).__name__}: "
                f"{reason(error)}); copy or export the file again"
            ) from error

    def _finished(self, pixels: Pixels) -> Pixels:
        """What a backend makes of natively read px: alpha, for one, becomes a mask."""
        return pixels

    def _checked(self, pixels: Pixels, level: int, y: int, x: int, height: int, width: int) -> Pixels:
        """What was read, if it is what was announced; with holes of a coarse level filled from finer ones."""
        if pixels.data.shape != (height, width, self.channels) or pixels.data.dtype != self.dtype:
            raise ReadError(
                f"{self.source}, level {level}: the {self.backend} reader returned {pixels.data.shape} "
                f"{pixels.data.dtype} where {(height, width, self.channels)} {self.dtype} was announced; "
                "the file's header and its pixels disagree"
            )
        if level and pixels.missing_tiles:
            with self._own_errors(level, height, width):
                return filled(pixels, (level, y, x), self.levels, self._finer)
        return pixels

    def _finer(self, level: int, y: int, x: int, height: int, width: int) -> Pixels | None:
        """A window with the mask of each band; None if the file is known to hold nothing of it."""
        has = self.levels[level]
        rows = range(y // has.tile_height, (y + height - 1) // has.tile_height + 1)
        columns = range(x // has.tile_width, (x + width - 1) // has.tile_width + 1)
        if self.exact_bytes and not any(
            self.tile_bytes(level, row, column) for row in rows for column in columns
        ):
            return None
        pixels = self._read(level, y, x, height, width)
        return replace(pixels, valid=measured_by_band(pixels, self.nodata))

    def _masked(self, pixels: Pixels, bands: Sequence[int] | None) -> Pixels:
        """What was read, with the mask of what was measured in some bands."""
        return Pixels(pixels.data, measured(pixels, self.nodata, bands), missing(pixels, bands))

    def tile_window(self, level: int, row: int, column: int) -> tuple[int, int, int, int]:
        """Window ``(y, x, height, width)`` of a tile, px of its level.

        Raises:
            RegionError: If the level has no such tile.
        """
        has = self._level(level)
        row, column = self._integers("a tile's (row, column)", row, column)
        if not (0 <= row < has.tile_rows and 0 <= column < has.tile_columns):
            raise RegionError(
                f"{self.source}, level {level}: no tile in row {row}, column {column}; "
                f"it has {has.tile_rows} rows and {has.tile_columns} columns of tiles"
            )
        y, x = row * has.tile_height, column * has.tile_width
        return y, x, min(has.tile_height, has.height - y), min(has.tile_width, has.width - x)

    def tile_bytes(self, level: int, row: int, column: int) -> int:
        """Stored bytes of a tile; see ``exact_bytes``."""
        _, _, height, width = self.tile_window(level, row, column)
        return round(height * width * self._bytes_per_px)

    def as_dask(self, level: int) -> Any:
        """A level as a lazy Dask array ``[h w c]`` whose chunks are the file's tiles.

        For whole-level passes of other people's pipelines; reading many small crops through it is slow
        (see ``hiresattn.reading.fetch``).

        Args:
            level: Index into ``levels``.

        Returns:
            A ``dask.array.Array``; nothing is read before it is computed.

        Raises:
            RegionError: If the level doesn't exist.
        """
        from hiresattn.pyramid.lazy import dask_level

        return dask_level(self, self._level(level), level)

    def _level(self, level: int) -> Level:
        (level,) = self._integers("a level", level)
        if not 0 <= level < len(self.levels):
            raise RegionError(f"{self.source}: no level {level}; it has levels 0 to {len(self.levels) - 1}")
        return self.levels[level]

    def _integers(self, what: str, *values: int) -> list[int]:
        try:
            return list(map(index, values))
        except TypeError as error:
            got = ", ".join(map(repr, values))
            raise RegionError(f"{self.source}: {what} is given in whole numbers; got {got}") from error

    def __reduce__(self) -> tuple[Any, ...]:
        return _reopen, (type(self), self._path, self._given)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def __repr__(self) -> str:
        return (
            f"<{type(self).__name__} {self.source!r} {self.width} x {self.height} px, {counted(self.channels, 'band')} "
            f"{self.dtype}, {counted(len(self.levels), 'level')}>"
        )


def _reopen(kind: type[Pyramid], path: str, given: dict[str, Any]) -> Pyramid:
    return kind(path, **given)
