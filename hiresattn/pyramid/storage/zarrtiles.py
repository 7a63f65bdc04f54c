"""The stored chunks of Zarr arrays, decoded without zarr: it takes longer over its own work than the decoder."""

import zlib
from collections.abc import Callable, Sequence
from typing import Any

import google_crc32c
import numpy as np
from numcodecs import blosc, zstd  # type: ignore[import-untyped]

from hiresattn.errors import ReadError, reason
from hiresattn.pyramid.storage.blosc import check_size
from hiresattn.pyramid.storage.tiffheader import MAX_TILE_BYTES
from hiresattn.pyramid.storage.tiles import Tiles
from hiresattn.pyramid.storage.zarrchunks import ChunkIndex

#: ``step(stored, size of what it decodes to if known, memory for that) -> bytes or array``
_Step = Callable[[Any, int | None, np.ndarray | None], Any]


class ZarrTiles(Tiles):
    """Reads chunks of the arrays of an image: a tile is one chunk, or one for each group of bands.

    Args:
        source: Path or address, for messages.
        arrays: ``zarr.Array`` of each level, finest first.
        axes: Names of their axes.
        indexes: Where the chunks of each are.

    Raises:
        ValueError: If the chunks are encoded in a way that only zarr decodes.
    """

    def __init__(
        self, source: str, arrays: Sequence[Any], axes: Sequence[str], indexes: Sequence[ChunkIndex]
    ) -> None:
        first, rows, columns = arrays[0], axes.index("y"), axes.index("x")
        bands = axes.index("c") if "c" in axes else None
        super().__init__(
            source,
            shapes=[(array.shape[rows], array.shape[columns]) for array in arrays],
            sides=[(array.chunks[rows], array.chunks[columns]) for array in arrays],
            bands=1 if bands is None else first.shape[bands],
            dtype=np.dtype(first.dtype).newbyteorder("="),
            fill=0 if first.fill_value is None else first.fill_value,
        )
        #: Of axes that are no part of a px or a place the first is taken; then come rows, columns and bands.
        self._first = tuple(slice(None) if axis in "yxc" else 0 for axis in axes)
        self._kept = [at for at, axis in enumerate(axes) if axis in "yxc"]
        kept = [axes[at] for at in self._kept]
        self._order = [kept.index(axis) for axis in "yxc" if axis in kept]
        self._indexes = indexes
        #: Zarr works them out anew each time.
        self._chunks = [tuple(array.chunks) for array in arrays]
        self._chunk_px = [int(np.prod(chunks)) for chunks in self._chunks]
        #: Whether chunks of bands, one after another in memory, are the planes of a tile.
        self._stacked = [
            kept[0] == "c" and px == int(np.prod([chunk[at] for at in self._kept]))
            for chunk, px in zip(self._chunks, self._chunk_px, strict=True)
        ]
        self._steps = [_steps(array) for array in arrays]
        self._stored_as = [_stored_dtype(array) for array in arrays]

    @property
    def decoder(self) -> str:
        """What decodes level 0's chunks."""
        return " + ".join(name for name, _ in self._steps[0]) or "none"

    def bands_together(self, level: int) -> int:
        """Bands of each chunk of a level; the last may have fewer."""
        return self._indexes[level].bands_together

    def stored(self, level: int, row: int, column: int) -> list[bytes | None]:
        """The stored bytes of a tile's chunks; None for those that the store leaves out.

        Raises:
            ReadError: If they can't be read.
        """
        pieces: list[bytes | None] = []
        for chunk in self._indexes[level].of_tile(row, column):
            try:
                piece = self._indexes[level].stored(chunk)
            except Exception as error:
                where = f"{self.source}, level {level}, tile in row {row}, column {column}"
                raise ReadError(
                    f"{where}: damaged or out of reach ({reason(error)}); copy or write the store again"
                ) from error
            pieces.append(piece)
        return pieces

    def decode(
        self, level: int, row: int, column: int, stored: list[bytes | None], buffer: np.ndarray | None = None
    ) -> np.ndarray:
        """The px of a whole tile; whatever the decoder raises."""
        del row, column
        chunk, dtype = self._chunks[level], self._stored_as[level]
        size = self._chunk_px[level] * dtype.itemsize
        memory = None if buffer is None else buffer.reshape(-1).view(np.uint8)
        if memory is None or memory.nbytes != size * len(stored):
            memory = None if len(stored) == 1 else np.empty(size * len(stored), np.uint8)
        parts = [
            self._decoded(level, piece, size, None if memory is None else memory[nth * size :][:size])
            for nth, piece in enumerate(stored)
        ]
        if len(parts) == 1:
            px = self._as_px(np.frombuffer(parts[0], dtype).reshape(chunk))
        elif memory is not None and self._stacked[level]:
            bands, *sides = (chunk[axis] for axis in self._kept)
            stack = memory.view(dtype).reshape(len(parts) * bands, *sides)
            px = stack.transpose(self._order)
        else:
            px = np.concatenate(
                [self._as_px(np.frombuffer(part, dtype).reshape(chunk)) for part in parts], axis=2
            )
        return px[:, :, : self.bands].astype(self.dtype, copy=False)

    def _decoded(self, level: int, piece: bytes | None, size: int, memory: np.ndarray | None) -> Any:
        """The bytes of a chunk, 0 where it is left out; in ``memory`` where that is given."""
        decoded: Any = piece
        if piece is None:
            decoded = bytes(size)
        for nth, (_, step) in enumerate(self._steps[level] if piece is not None else ()):
            last = nth == len(self._steps[level]) - 1
            decoded = step(decoded, size if last else None, memory if last else None)
        if memoryview(decoded).nbytes != size:
            raise ValueError(f"{memoryview(decoded).nbytes} bytes where a chunk has {size}")
        if memory is None or decoded is memory:
            return decoded
        memory[:] = np.frombuffer(decoded, np.uint8)
        return memory

    def close(self) -> None:
        """Nothing is held open."""

    def _as_px(self, chunk: np.ndarray) -> np.ndarray:
        """A chunk as ``[h w c]``."""
        chunk = chunk[self._first].transpose(self._order)
        return chunk if chunk.ndim == 3 else chunk[:, :, None]


def _stored_dtype(array: Any) -> np.dtype[Any]:
    dtype = np.dtype(array.dtype)
    if array.metadata.zarr_format == 2:
        return dtype
    endian = getattr(_inner(array)[0].endian, "value", None)
    return dtype.newbyteorder(">" if endian == "big" else "<")


def _inner(array: Any) -> tuple[Any, ...]:
    """The codecs of a chunk; of an inner one, if the array is sharded."""
    codecs = array.metadata.codecs
    return tuple(codecs[0].codecs if array.shards is not None else codecs)


def _steps(array: Any) -> list[tuple[str, _Step]]:
    """How stored bytes become the bytes of a chunk in C order, in order of decoding, by name."""
    meta = array.metadata
    if meta.zarr_format == 2:
        if meta.order != "C" or meta.filters:
            raise ValueError("filters or Fortran order")
        names = [] if meta.compressor is None else [f"Zarr 2 {meta.compressor.codec_id}"]
    else:
        first, *others = _inner(array)
        names = [type(codec).__name__ for codec in others]
        if type(first).__name__ != "BytesCodec" or (array.shards is not None and len(meta.codecs) != 1):
            raise ValueError("an array codec")
    try:
        return [_STEPS[name] for name in reversed(names)]
    except KeyError as error:
        raise ValueError(f"codec {error}") from error


def _blosc(stored: Any, size: int | None, out: np.ndarray | None) -> Any:
    header = bytes(memoryview(stored)[:16])
    check_size(header, memoryview(stored).nbytes)
    if size is not None and int.from_bytes(header[4:8], "little") != size:
        raise ValueError(f"a Blosc chunk of {int.from_bytes(header[4:8], 'little')} bytes, not {size}")
    return blosc.decompress(stored, out)


def _zstd(stored: Any, size: int | None, out: np.ndarray | None) -> Any:
    if out is None and size is not None:
        out = np.empty(size, np.uint8)  # what needs more is refused
    return zstd.decompress(stored, out)


def _gzip(stored: Any, size: int | None, _: np.ndarray | None) -> Any:
    return _inflated(stored, size, zlib.MAX_WBITS | 16)


def _zlib(stored: Any, size: int | None, _: np.ndarray | None) -> Any:
    return _inflated(stored, size, zlib.MAX_WBITS)


def _inflated(stored: Any, size: int | None, form: int) -> bytes:
    """Deflated bytes, checked, and no more of them than a chunk has: a bomb is not set off."""
    most = MAX_TILE_BYTES if size is None else size
    out = b""
    while stored:  # gzip: members, one after another
        member = zlib.decompressobj(form)
        out += member.decompress(stored, most - len(out) + 1)
        if len(out) > most:
            raise ValueError(f"more than the {most} bytes of a chunk")
        if not member.eof:
            raise ValueError("it ends too early")
        stored = member.unused_data.lstrip(b"\0") if form > zlib.MAX_WBITS else b""
    return out


def _crc32c(stored: Any, _: int | None, __: np.ndarray | None) -> Any:
    checksum, held = bytes(stored[-4:]), bytes(stored[:-4])
    if len(checksum) < 4 or google_crc32c.value(held) != int.from_bytes(checksum, "little"):
        raise ValueError("its checksum is another")
    return held


#: Codec (its class in zarr 3, its identifier in Zarr 2) → its name, and what decodes it.
_STEPS: dict[str, tuple[str, _Step]] = {
    "BloscCodec": ("Blosc", _blosc),
    "_CheckedBloscCodec": ("Blosc", _blosc),
    "ZstdCodec": ("zstd", _zstd),
    "GzipCodec": ("gzip", _gzip),
    "Crc32cCodec": ("crc32c", _crc32c),
    "Zarr 2 blosc": ("Blosc", _blosc),
    "Zarr 2 zstd": ("zstd", _zstd),
    "Zarr 2 gzip": ("gzip", _gzip),
    "Zarr 2 zlib": ("zlib", _zlib),
}
