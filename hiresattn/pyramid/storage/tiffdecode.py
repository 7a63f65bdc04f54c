"""How the stored bytes of a TIFF tile become px. Strict: what a decoder notices is an error."""

import struct
from typing import Any

import numpy as np

from hiresattn.errors import OpenError
from hiresattn.pyramid.storage.tiles import empty_buffer

#: Scans of a JPEG image: encoders write about ten.
MOST_SCANS = 100
_LERC_PARAMETERS = 50674
_PLANAR = 2
#: Bands of a JPEG tile, and as what they are decoded. Four without a word about their colours stay as they are.
JPEG_SPACES = {1: "GRAY", 3: "RGB", 4: "CMYK"}
#: An Adobe segment that says the components of a JPEG image are R, G, B as they are.
_ADOBE_RGB = b"\xff\xee\x00\x0eAdobe\x00\x64\x00\x00\x00\x00\x00"


def jpeg_decoder(tables: bytes | None, tile: tuple[int, int], samples: int, *, rgb: bool) -> Any:
    """What decodes JPEG tiles strictly; ``tables`` are what they share, ``rgb`` that they aren't YCbCr."""
    from simplejpeg import decode_jpeg

    # Start marker, then the shared tables without their own start and end, then the tile's segments.
    prefix = b"\xff\xd8" + (tables[2:-2] if tables else b"")
    colorspace = JPEG_SPACES[samples]

    def decode(stored: bytes, _: int, buffer: np.ndarray | None) -> np.ndarray:
        if stored[:2] != b"\xff\xd8":
            raise ValueError("no JPEG image starts here")
        check_scans(stored)
        # A JFIF segment says YCbCr, whatever TIFF's photometric tag says.
        marked = prefix + _ADOBE_RGB if rgb and stored[2:4] != b"\xff\xe0" else prefix
        if buffer is None:
            buffer = empty_buffer((*tile, samples), np.uint8)  # the decoder refuses a tile that needs more
        return decode_jpeg(b"".join((marked, memoryview(stored)[2:])), colorspace, buffer=buffer, strict=True)

    return decode


def lerc_decoder(page: Any, what: str) -> Any:
    """LERC has a mask in each tile: of floats NaN marks what isn't valid, whole numbers are a masked array."""
    import imagecodecs

    tag = page.tags.get(_LERC_PARAMETERS)
    packed = 0 if tag is None else int(tag.value[1])
    unpackers: dict[int, Any] = {0: bytes, 1: imagecodecs.zlib_decode, 2: imagecodecs.zstd_decode}
    unpack = unpackers.get(packed)
    if unpack is None:
        raise OpenError(
            f"{what}: LERC packed in an unknown way ({packed}); convert the file to another compression"
        )

    def decode(stored: bytes, _: int, __: np.ndarray | None) -> np.ndarray:
        data, mask = imagecodecs.lerc_decode(unpack(stored), masks=True)[:2]
        data = data if data.ndim == 3 else data[:, :, None]
        if mask is not None and not mask.all():
            if mask.ndim == 3 and mask.shape != data.shape:
                mask = np.moveaxis(mask, 0, 2)
            known = np.broadcast_to(mask if mask.ndim == 3 else mask[:, :, None], data.shape).astype(bool)
            if data.dtype.kind != "f":
                return np.ma.MaskedArray(data, ~known)
            data = np.where(known, data, data.dtype.type(np.nan))
        return data

    return decode


def check_scans(stored: bytes) -> None:
    """Refuse a progressive JPEG image of very many scans, each of which would be decoded over all px.

    Raises:
        ValueError: If there are more than ``MOST_SCANS``; it has the numbers.
    """
    scans = stored.count(b"\xff\xda")
    if scans > MOST_SCANS:
        raise ValueError(f"{scans} scans, and at most {MOST_SCANS} are decoded")


def other_decoder(key: Any, tile: tuple[int, int], samples: int) -> Any:
    """What decodes tiles as ``tifffile`` does; px that lie in the file as they are, without it."""
    page_decode, dtype = key.decode, np.dtype(key.dtype)
    plain = (
        (int(key.compression), int(key.predictor), int(key.fillorder)) == (1, 1, 1)
        and key.is_tiled is False
        and int(np.max(key.bitspersample)) == 8 * dtype.itemsize
    )
    stored_as = dtype.newbyteorder(key.parent.byteorder)
    line = tile[1] * samples * dtype.itemsize

    def decode(stored: bytes, index: int, _: np.ndarray | None) -> np.ndarray:
        if plain and len(stored) in (line, tile[0] * line):  # one row, or a whole strip
            return np.frombuffer(stored, stored_as).reshape(-1, tile[1], samples).astype(dtype, copy=False)
        _check_sides(stored, tile)
        data = page_decode(stored, index)[0]
        return data[0]  # depth 1

    return decode


def inverted(decode: Any, key: Any, what: str) -> Any:
    """As ``decode``, of a file whose 0 is white in its first band."""
    if int(key.samplesperpixel) > 1 and int(key.planarconfig) == _PLANAR:
        raise OpenError(f"{what}: 0 is white, and its bands lie apart; convert the file to black as 0")
    if np.dtype(key.dtype).kind != "u":
        raise OpenError(
            f"{what}: 0 is white, of type {key.dtype}; possible is that for whole numbers from 0 only"
        )
    white = np.array((1 << int(np.max(key.bitspersample))) - 1, key.dtype)

    def inverted_decode(stored: bytes, index: int, buffer: np.ndarray | None) -> np.ndarray:
        data = decode(stored, index, buffer)
        return np.concatenate([white - data[:, :, :1], data[:, :, 1:]], axis=2)

    return inverted_decode


def _check_sides(stored: bytes, tile: tuple[int, int]) -> None:
    """Refuse a JPEG 2000 or PNG tile that announces another size: its decoder would allocate that."""
    if stored.startswith(b"\x89PNG\r\n\x1a\n"):
        at = 16
    elif (at := stored[:256].find(b"\xff\x4f\xff\x51") + 8) < 8:  # start of the codestream, size
        return
    width, height = struct.unpack(">II", stored[at : at + 8])
    if height > tile[0] or width > tile[1]:
        raise ValueError(f"it announces {width} x {height} px, more than a tile has")
