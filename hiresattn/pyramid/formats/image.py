"""Plain images without a pyramid: JPEG, PNG and what else Pillow reads. Held whole in memory."""

import struct
import threading
import zlib
from pathlib import Path
from typing import Any, ClassVar

import numpy as np

from hiresattn.errors import OpenError, ReadError, UnknownFormatError
from hiresattn.geometry import Level
from hiresattn.pyramid.base import Pyramid
from hiresattn.pyramid.formats.quiet import quiet
from hiresattn.pyramid.formats.sidecars import has_sidecar, with_sidecars
from hiresattn.pyramid.metadata import Metadata
from hiresattn.pyramid.mpp import choose_mpp
from hiresattn.pyramid.pixels import Pixels, both_valid
from hiresattn.pyramid.storage.tiffdecode import check_scans

#: Biggest image that is decoded whole, px: twice Pillow's own limit, above which it refuses to open.
MAX_PX = 2 * 89_478_485

_TOO_BIG = (
    f"too big for a format that can't be read in parts, where the most is {MAX_PX / 1e6:.0f} million px; "
    "convert it to a tiled, pyramidal TIFF or OME-Zarr"
)

#: Tile side announced, px.
_TILE = 512

#: Colour type of a PNG of 16 bits -> mode; Pillow drops their low byte.
_PNG16 = {0: "I;16", 2: "RGB;16", 4: "LA;16", 6: "RGBA;16"}

#: Pillow mode, or one of ours -> bands without alpha, data type, whether an alpha band follows.
_MODES = {
    "L": (1, np.uint8, False),
    "LA": (1, np.uint8, True),
    "P": (1, np.uint8, False),
    "RGB": (3, np.uint8, False),
    "RGBA": (3, np.uint8, True),
    "I;16": (1, np.uint16, False),
    "I;16B": (1, np.uint16, False),
    "I;16L": (1, np.uint16, False),
    "RGB;16": (3, np.uint16, False),
    "LA;16": (1, np.uint16, True),
    "RGBA;16": (3, np.uint16, True),
    "I": (1, np.int32, False),
    "F": (1, np.float32, False),
}


class ImagePyramid(Pyramid):
    """A plain image: one level. The first read decodes all of it and keeps it until ``close``.

    Such formats can't be read in parts, so this suits fields and photographs; big scenes belong in a tiled
    format. JPEG is decoded strictly: a damaged or short file is an error, not grey. PNG's checksums
    are compared. Alpha marks what is valid; so do a mask and a nodata value in files beside, which also say where the
    image lies (``.jgw``, ``.pgw``, ``.wld``, ``.aux.xml``, ``.msk``).
    Pixels lie as they are stored: the orientation that a camera notes in EXIF is ignored.

    Args:
        source: Path of a local file.
        mpp: Micrometres per px.
        nodata: Value that stands for "nothing measured here".

    Raises:
        OpenError: If Pillow doesn't know the format, or the image is too big to be held in memory.
    """

    backend: ClassVar[str] = "image"

    def __init__(self, source: str, *, mpp: float | None = None, nodata: float | None = None) -> None:
        with _opened(source) as image:
            (width, height), mode, self._format = image.size, image.mode, image.format
            palette = _palette(image)
        if self._format == "PNG":
            with Path(source).open("rb") as file:
                bits, colour = file.read(26)[24:]
            mode = _PNG16[colour] if bits == 16 else mode
        if width * height > MAX_PX:
            raise OpenError(f"{source}: {width} x {height} px: {_TOO_BIG}")
        if mode not in _MODES:
            raise OpenError(
                f"{source}: colour mode {mode}; possible are {', '.join(_MODES)}; convert it to RGB or grey"
            )
        channels, dtype, self._alpha = _MODES[mode]
        chosen, where = choose_mpp(mpp, None, None, "")
        level = Level(width=width, height=height, downsample=1.0, tile_width=_TILE, tile_height=_TILE)
        meta = Metadata(
            levels=(level,),
            channels=channels,
            dtype=np.dtype(dtype),
            mpp=chosen,
            mpp_source=where,
            nodata=nodata,
            palette=palette,
            nbytes=Path(source).stat().st_size,
        )
        self._mask = None
        if has_sidecar(source):
            meta, self._mask = with_sidecars(source, meta)
        super().__init__(source, meta, mpp=mpp, nodata=nodata)
        self._mode = mode
        self._lock = threading.Lock()
        self._whole: np.ndarray | None = None

    def close(self) -> None:
        """Forget the pixels. A later read decodes the file again."""
        self._whole = None

    def _read(self, level: int, y: int, x: int, height: int, width: int) -> Pixels:  # noqa: ARG002 - one level
        with self._lock:
            whole = self._whole = self._decoded() if self._whole is None else self._whole
        part = whole[y : y + height, x : x + width]
        valid = None if self._mask is None else self._mask[y : y + height, x : x + width]
        if not self._alpha:
            return Pixels(part.copy(), valid)
        return Pixels(np.ascontiguousarray(part[:, :, :-1]), both_valid(part[:, :, -1] > 0, valid))

    def _decoded(self) -> np.ndarray:
        import imagecodecs
        import simplejpeg

        try:
            if self._format in ("JPEG", "MPO"):  # MPO: a camera's JPEG with a preview
                colorspace = "RGB" if self.channels > 1 else "GRAY"
                stored = Path(self.source).read_bytes()
                check_scans(stored)
                whole = simplejpeg.decode_jpeg(stored, colorspace, strict=True)
            else:
                stored = Path(self.source).read_bytes() if self._format == "PNG" else b""
                if stored:
                    _check_png(stored)
                if self._mode in _PNG16.values():
                    whole = imagecodecs.png_decode(stored)
                else:
                    with _opened(self.source) as image:
                        whole = np.asarray(image)
        except Exception as error:
            reason = (str(error) or type(error).__name__).splitlines()[0]
            raise ReadError(
                f"{self.source}: damaged or cut short, it can't be decoded ({reason}); copy the file again"
            ) from error
        whole = np.asarray(whole, self.dtype)
        return whole.reshape(*whole.shape[:2], -1)[:, :, : self.channels + self._alpha]


def _check_png(stored: bytes) -> None:
    """Raise ``ValueError`` unless the checksums of all chunks that pixels depend on hold: Pillow skips some."""
    at = 8
    while at + 12 <= len(stored):
        (length,) = struct.unpack(">I", stored[at : at + 4])
        kind, end = stored[at + 4 : at + 8], at + 8 + length
        if (kind[:1].isupper() or kind == b"tRNS") and stored[end : end + 4] != struct.pack(
            ">I", zlib.crc32(stored[at + 4 : end])
        ):
            raise ValueError(f"the checksum of the chunk {kind!r} at byte {at} is another")
        if kind == b"IEND":
            return
        at = end + 4
    raise ValueError("it ends before its last chunk")


def _opened(source: str) -> Any:
    """A Pillow image, its header read."""
    from PIL import Image, UnidentifiedImageError

    try:
        with quiet(Image.DecompressionBombWarning):  # our own limit is checked
            return Image.open(source)
    except Image.DecompressionBombError as error:
        raise OpenError(f"{source}: {_TOO_BIG}") from error
    except UnidentifiedImageError as error:
        raise UnknownFormatError(f"{source}: no image that Pillow knows") from error
    except (OSError, ValueError, SyntaxError) as error:
        raise OpenError(f"{source}: Pillow can't open it ({error})") from error


def _palette(image: Any) -> np.ndarray | None:
    if image.mode != "P":
        return None
    try:
        return np.array(image.getpalette("RGB"), np.uint8).reshape(-1, 3)
    except (OSError, ValueError, SyntaxError) as error:
        raise OpenError(
            f"{image.filename}: damaged or cut short, its palette can't be read ({error}); copy the file again"
        ) from error
