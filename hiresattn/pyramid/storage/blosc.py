"""Blosc chunks of Zarr arrays, checked before they are decoded: the library reads past the end of short ones."""

from copy import copy
from dataclasses import replace
from typing import Any

from numcodecs.blosc import Blosc  # type: ignore[import-untyped]
from zarr.codecs import BloscCodec, ShardingCodec

_HEADER = 16


def checked(array: Any) -> Any:
    """The same Zarr array, but a Blosc chunk whose size isn't the one in its header can't be decoded.

    Args:
        array: An open ``zarr.Array``; it is left as it is.

    Source:
        c-blosc, README_CHUNK_FORMAT: bytes 12 to 16 of a chunk, little-endian, are its compressed size.
    """
    import zarr

    meta = array.metadata
    if meta.zarr_format == 2:
        changed = {"compressor": _checked(meta.compressor)}
    else:
        changed = {"codecs": _checked_codecs(meta.codecs)}
    return zarr.Array(zarr.AsyncArray(replace(meta, **changed), array.store_path))


class _CheckedBlosc(Blosc):  # type: ignore[misc]
    """The codec of Zarr 2."""

    def decode(self, buf: Any, out: Any = None) -> Any:
        stored = memoryview(buf).cast("B")
        check_size(bytes(stored[:_HEADER]), stored.nbytes)
        return super().decode(buf, out)


class _CheckedBloscCodec(BloscCodec):
    """The codec of Zarr 3."""

    async def _decode_single(self, chunk_bytes: Any, chunk_spec: Any) -> Any:
        check_size(chunk_bytes[:_HEADER].to_bytes(), len(chunk_bytes))
        return await super()._decode_single(chunk_bytes, chunk_spec)


def check_size(header: bytes, stored: int) -> None:
    """Raise ``ValueError`` if the first 16 bytes of a Blosc chunk announce another size than is stored."""
    announced = int.from_bytes(header[12:16], "little")
    if len(header) < _HEADER or announced != stored:
        raise ValueError(f"{stored} bytes are stored of a Blosc chunk of {announced or 'unknown size'}")


def _checked(codec: Any) -> Any:
    """A numcodecs codec, checked if it is Blosc."""
    if not isinstance(codec, Blosc):
        return codec
    config = {key: value for key, value in codec.get_config().items() if key != "id"}
    return _CheckedBlosc.from_config(config)


def _checked_codecs(codecs: tuple[Any, ...]) -> tuple[Any, ...]:
    """The codecs of Zarr 3, those inside a shard included."""
    found = []
    for codec in codecs:
        twin = codec
        if isinstance(codec, ShardingCodec):
            twin = replace(codec, codecs=_checked_codecs(codec.codecs))
        elif isinstance(codec, BloscCodec):
            names = ("typesize", "cname", "clevel", "shuffle", "blocksize")
            twin = _CheckedBloscCodec(**{name: getattr(codec, name) for name in names})
        elif getattr(codec, "codec_name", None) == "numcodecs.blosc":
            twin = copy(codec)
            vars(twin)["_codec"] = _checked(codec._codec)  # noqa: SLF001 - a cached property
        found.append(twin)
    return tuple(found)
