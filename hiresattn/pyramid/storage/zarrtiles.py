"""The stored chunks of Zarr arrays, decoded without zarr: it takes longer over its own work than the decoder."""

import zlib
from collections.abc import Callable, Sequence
from typing import Any

import google_crc32c
import numpy as np
from numcodecs.blosc import Blosc  # type: ignore[import-untyped]
from numcodecs.zstd import Zstd  # type: ignore[import-untyped]

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
        self._bands = axes.index("c") if "c" in axes else None
        super().__init__(
            source,
            shapes=[(array.shape[rows], array.shape[columns]) for array in arrays],
            sides=[(array.chunks[rows], array.chunks[columns]) for array in arrays],
            bands=1 if self._bands is None else first.shape[self._bands],
            dtype=np.dtype(first.dtype).newbyteorder("="),
            fill=0 if first.fill_value is None else first.fill_value,
        )
        self._axes = list(axes)
        self._indexes = indexes
        #: Zarr works them out anew each time.
        self._chunks = [tuple(array.chunks) for array in arrays]
        self._together = [1 if self._bands is None else int(chunks[self._bands]) for chunks in self._chunks]
        self._chunk_px = [int(np.prod(chunks)) for chunks in self._chunks]
        self._steps = [_steps(array) for array in arrays]
        self._stored_as = [_stored_dtype(array) for array in arrays]

    @property
    def decoder(self) -> str:
        """What decodes level 0's chunks."""
        return " + ".join(name for name, _ in self._steps[0]) or "none"

    def bands_together(self, level: int) -> int:
        """Bands of each chunk of a level; the last may have fewer."""
        return self._together[level]

    def chunks(self, level: int, row: int, column: int) -> list[tuple[int, ...]]:
        """Positions in the chunk grid of all that holds a tile."""
        groups = 1 if self._bands is None else -(-self.bands // self._together[level])
        chunks = ({"y": row, "x": column, "c": group} for group in range(groups))
        return [tuple(chunk.get(axis, 0) for axis in self._axes) for chunk in chunks]

    def stored(self, level: int, row: int, column: int) -> list[bytes | None]:
        """The stored bytes of a tile's chunks; None for those that the store leaves out.

        Raises:
            ReadError: If they can't be read.
        """
        pieces: list[bytes | None] = []
        for chunk in self.chunks(level, row, column):
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
        chunks, dtype = self._chunks[level], self._stored_as[level]
        size = self._chunk_px[level] * dtype.itemsize
        fits = buffer is not None and len(stored) == 1 and buffer.nbytes == size
        out = buffer.reshape(-1).view(np.uint8) if fits and buffer is not None else None
        parts = []
        for piece in stored:
            if piece is None:
                parts.append(self._as_px(np.zeros(chunks, dtype)))
                continue
            decoded: Any = piece
            for nth, (_, step) in enumerate(self._steps[level]):
                last = nth == len(self._steps[level]) - 1
                decoded = step(decoded, size if last else None, out if last else None)
            if memoryview(decoded).nbytes != size:
                raise ValueError(f"{memoryview(decoded).nbytes} bytes where a chunk has {size}")
            parts.append(self._as_px(np.frombuffer(decoded, dtype).reshape(chunks)))
        px = parts[0] if len(parts) == 1 else np.concatenate(parts, axis=2)
        return px[:, :, : self.bands].astype(self.dtype, copy=False)

    def close(self) -> None:
        """Nothing is held open."""

    def _as_px(self, chunk: np.ndarray) -> np.ndarray:
        """A chunk as ``[h w c]``."""
        for axis in reversed(range(len(self._axes))):
            if self._axes[axis] not in "yxc":
                chunk = chunk.take(0, axis)
        kept = [axis for axis in self._axes if axis in "yxc"]
        chunk = chunk.transpose([kept.index(axis) for axis in "yxc" if axis in kept])
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
    return Blosc().decode(stored, out)


def _zstd(stored: Any, size: int | None, out: np.ndarray | None) -> Any:
    if out is None and size is not None:
        out = np.empty(size, np.uint8)  # what needs more is refused
    return Zstd().decode(stored, out)


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
