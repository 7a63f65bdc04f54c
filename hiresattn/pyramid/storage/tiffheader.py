"""The header of a TIFF file, checked before any library trusts it.

Libraries open damaged files: they lose levels silently, or allocate what an absurd header asks for. This
walks the image directories (IFDs) itself, and refuses a file whose tiles can't all be where it says, or one
with a directory that has none.
"""

import os
import struct
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np

from hiresattn.errors import OpenError
from hiresattn.pyramid.storage.directories import ASIDE, Ifd, beside, hyperstack

#: Decoded size of one tile above which a header is not believed, bytes.
MAX_TILE_BYTES = 1 << 30

#: Compression numbers that one of the readers decodes (TIFF tag 259).
COMPRESSIONS = {
    1: "none",
    2: "CCITT RLE",
    3: "CCITT fax 3",
    4: "CCITT fax 4",
    5: "LZW",
    6: "old JPEG",
    7: "JPEG",
    8: "deflate",
    32773: "PackBits",
    32946: "deflate",
    33003: "Aperio JPEG 2000 YCbCr",
    33005: "Aperio JPEG 2000 RGB",
    34712: "JPEG 2000",
    34887: "LERC",
    34925: "LZMA",
    34926: "zstd",
    34927: "WebP",
    34933: "PNG",
    34934: "JPEG XR",
    50000: "zstd",
    50001: "WebP",
    50002: "JPEG XL",
    52546: "JPEG XL",
}

_CODES = {
    1: "u1",
    2: "u1",
    3: "u2",
    4: "u4",
    6: "i1",
    8: "i2",
    9: "i4",
    13: "u4",
    16: "u8",
    17: "i8",
    18: "u8",
}
#: Bytes of a value by type, where that isn't 1.
_SIZES = {3: 2, 4: 4, 5: 8, 8: 2, 9: 4, 10: 8, 11: 4, 12: 8, 13: 4, 16: 8, 17: 8, 18: 8}
_REDUCED, _MASK, _KNOWN = 1, 4, 7  # bits of NewSubfileType, and all that TIFF defines
_OLD_JPEG = 6


def check_tiff(path: str | os.PathLike[str]) -> list[Ifd] | None:
    """Walk the image directories of a TIFF or BigTIFF file and check that their tiles lie inside the file.

    Args:
        path: A local file.

    Returns:
        Its directories in file order, sub-directories after their parent; None if it isn't a TIFF file.

    Raises:
        OpenError: If the file is cut short, its directories loop or contradict themselves, all tiles of
            level 0 only are missing, or a compression is one that no reader knows. What is wrong with a directory
            that can't be a level of the image (a label, a macro image) is only noted in ``Ifd.problem``.
    """
    with Path(path).open("rb") as file:
        fd = file.fileno()
        return _Walk(str(path), os.fstat(fd).st_size, lambda count, at: os.pread(fd, count, at)).run()


def check_tiff_at(name: str, size: int, read: Callable[[int, int], bytes]) -> list[Ifd] | None:
    """As ``check_tiff``, for a file elsewhere; reads every tag's values, so that who keeps them can serve them.

    Args:
        name: Its address, for messages.
        size: Its size, bytes.
        read: ``read(count, offset) -> bytes``.
    """
    return _Walk(name, size, read, all_values=True).run()


class _Walk:
    """One pass over the directories of an open file."""

    def __init__(
        self, path: str, size: int, read: Callable[[int, int], bytes], *, all_values: bool = False
    ) -> None:
        self.path = path
        self.size = size
        self.read = read
        self.all_values = all_values
        self.seen: set[int] = set()
        self.children: set[int] = set()
        self.at = 0
        self.ifds: list[Ifd] = []

    def run(self) -> list[Ifd] | None:
        head = self.read(16, 0)
        if head[:4] not in (b"II*\0", b"MM\0*", b"II+\0", b"MM\0+"):
            return None
        self.order = "<" if head[:2] == b"II" else ">"
        self.big = b"+" in head[:4]
        first = 8 if self.big else 4
        if len(head) < first * 2:
            raise self._damaged("it ends inside its header")
        pending = [int(self._unpack("Q" if self.big else "I", head, first))]
        while pending:
            offset = pending.pop(0)
            chain: set[int] = set()
            while offset and offset not in self.seen:  # sub-directories may be listed and linked as well
                self.seen.add(offset)
                chain.add(offset)
                offset, children = self._directory(offset)
                self.children.update(children)
                pending += children
            if offset in chain:
                raise self._damaged("its image directories form a loop")
        if not self.ifds:
            raise self._damaged("it holds no image directory")
        main = max(self.ifds, key=lambda ifd: ifd.width * ifd.height)
        for ifd in self.ifds:
            if ifd.problem is not None and not beside(ifd, main):
                raise ifd.problem
        if main.empty and any(not (ifd.empty or ifd.mask or beside(ifd, main)) for ifd in self.ifds):
            raise OpenError(
                f"{self.path}: all tiles of its largest image ({main.width} x {main.height} px) are missing, and those "
                "of smaller ones are there; copy or export the file again"
            )
        stack = hyperstack(self.ifds)
        if stack:
            raise OpenError(
                f"{self.path}: an ImageJ stack of {stack} in {len(self.ifds)} image directory; save it with one "
                "directory for each (Bio-Formats' OME-TIFF)"
            )
        return self.ifds

    def _unpack(self, code: str, data: bytes, at: int = 0) -> int:
        return int(struct.unpack_from(self.order + code, data, at)[0])

    def _bytes(self, at: int, count: int) -> bytes:
        if at + count > self.size:
            raise self._damaged(
                f"image directory {len(self.ifds)} points to byte {at + count} of {self.size}"
            )
        return self.read(count, at)

    def _directory(self, offset: int) -> tuple[int, list[int]]:
        """Read the directory at an offset; returns the offset of the next and those of its children."""
        self.at = offset
        head, entry, code = (8, 20, "Q") if self.big else (2, 12, "H")
        count = self._unpack(code, self._bytes(offset, head))
        if count * entry > self.size:
            raise self._damaged(f"image directory {len(self.ifds)} announces {count} tags")
        block = self._bytes(offset + head, count * entry + head if self.big else count * entry + 4)
        tags = {self._unpack("H", block, i * entry): (offset + head + i * entry) for i in range(count)}
        if self.all_values:
            for at in tags.values():
                self._touch(at)
        self._check(tags)
        after = self._unpack("Q" if self.big else "I", block, count * entry)
        return after, [int(child) for child in self._values(tags, 330)]

    def _touch(self, at: int) -> None:
        """Read the values of a tag, of whatever type."""
        entry = self._bytes(at, 20 if self.big else 12)
        count = self._unpack("Q" if self.big else "I", entry, 4)
        length = count * _SIZES.get(self._unpack("H", entry, 2), 1)
        if length > (8 if self.big else 4):
            self._bytes(self._unpack("Q" if self.big else "I", entry, 12 if self.big else 8), length)

    def _values(self, tags: dict[int, int], tag: int, default: int | None = None) -> np.ndarray:
        """All values of an integer tag, int64."""
        if tag not in tags:
            return np.array([] if default is None else [default], np.int64)
        at = tags[tag]
        entry = self._bytes(at, 20 if self.big else 12)
        code = _CODES.get(self._unpack("H", entry, 2))
        count = self._unpack("Q" if self.big else "I", entry, 4)
        if code is None:
            raise self._damaged(f"tag {tag} has a type that holds no whole numbers")
        kind = np.dtype(self.order + code)
        inline = 8 if self.big else 4
        if count * kind.itemsize > self.size:
            raise self._damaged(f"tag {tag} announces {count} values, more than the file could hold")
        start = at + (12 if self.big else 8)
        if count * kind.itemsize > inline:
            start = self._unpack("Q" if self.big else "I", entry, 12 if self.big else 8)
        return np.frombuffer(self._bytes(start, count * kind.itemsize), kind).astype(np.int64)

    def _value(self, tags: dict[int, int], tag: int, default: int) -> int:
        values = self._values(tags, tag, default)
        return int(values[0]) if len(values) else default

    def _check(self, tags: dict[int, int]) -> None:
        """Check one directory and keep its description."""
        width, height = self._value(tags, 256, 0), self._value(tags, 257, 0)
        if not width and not height and 273 not in tags and 324 not in tags:
            return
        subfile, description = self._value(tags, 254, 0), self._text(tags, 270)
        ifd = Ifd(
            tags=frozenset(tags),
            width=width,
            height=height,
            bits=self._value(tags, 258, 1),
            samples=self._value(tags, 277, 1),
            compression=self._value(tags, 259, 1),
            ome=not self.ifds and self._is_ome(tags),
            mask=bool(subfile & _MASK),
            tiled=324 in tags or 322 in tags,
            reduced=bool(subfile & _REDUCED),
            orientation=self._value(tags, 274, 1),
            description=description,
            associated=bool(subfile & ~_KNOWN or ASIDE.search(description)),
            child=self.at in self.children,
            problem=None,
        )
        try:
            ifd = replace(ifd, empty=self._check_image(tags, ifd))
        except OpenError as error:
            ifd = replace(ifd, problem=error)
        self.ifds.append(ifd)

    def _check_image(self, tags: dict[int, int], ifd: Ifd) -> bool:
        """Check the size, the compression and the tiles that a directory announces; returns whether it is empty."""
        if ifd.width < 1 or ifd.height < 1:
            raise self._damaged(f"image directory {len(self.ifds)} announces {ifd.width} x {ifd.height} px")
        if ifd.compression not in COMPRESSIONS:
            names = ", ".join(f"{name} ({number})" for number, name in COMPRESSIONS.items())
            raise OpenError(
                f"{self.path}: image directory {len(self.ifds)} uses compression {ifd.compression}, which no "
                f"reader here decodes; possible are {names}; convert the file with the program that wrote it"
            )
        if ifd.compression != _OLD_JPEG and 32997 not in tags:
            return self._check_segments(tags, ifd)
        return False

    def _text(self, tags: dict[int, int], tag: int) -> str:
        """How the text of a tag starts."""
        if tag not in tags:
            return ""
        return self._values(tags, tag)[:256].astype(np.uint8).tobytes().decode("latin-1")

    def _is_ome(self, tags: dict[int, int]) -> bool:
        """Whether the description ends as OME-XML does."""
        if 270 not in tags:
            return False
        text = self._values(tags, 270)
        return b"OME>" in text[-40:].astype(np.uint8).tobytes()

    def _check_segments(self, tags: dict[int, int], ifd: Ifd) -> bool:
        """Check the tiles that a directory announces; returns whether the file leaves out all of them."""
        planes = ifd.samples if self._value(tags, 284, 1) == 2 else 1
        word = "tiles" if ifd.tiled else "strips"
        if ifd.tiled:
            tile_width, tile_height = self._value(tags, 322, 0), self._value(tags, 323, 0)
            if min(tile_width, tile_height, ifd.samples) < 1:
                raise self._damaged(
                    f"image directory {len(self.ifds)} has tiles of {tile_width} x {tile_height} px"
                )
            if tile_width * tile_height * (ifd.samples // planes) * ifd.bits // 8 > MAX_TILE_BYTES:
                raise self._damaged(
                    f"image directory {len(self.ifds)} announces tiles of {tile_width} x {tile_height} px, "
                    f"over {MAX_TILE_BYTES >> 30} GiB each"
                )
        else:
            tile_width, tile_height = ifd.width, min(self._value(tags, 278, ifd.height), ifd.height)
        across, down = -(-ifd.width // tile_width), -(-ifd.height // max(tile_height, 1))
        expected = across * down * planes
        for known, name in (
            (324 if ifd.tiled else 273, "Offsets"),
            (325 if ifd.tiled else 279, "ByteCounts"),
        ):
            if known not in tags and known + (273 - 324 if ifd.tiled else 324 - 273) not in tags:
                raise OpenError(
                    f"{self.path}: image directory {len(self.ifds)} has no {word[:-1].title()}{name} (tag {known}), "
                    "so its pixels can't be found; write the file again with another program"
                )
        offsets = self._values(tags, 324 if 324 in tags else 273)
        counts = self._values(tags, 325 if 325 in tags else 279)
        if min(len(offsets), len(counts)) < expected:
            raise self._damaged(
                f"image directory {len(self.ifds)} announces {ifd.width} x {ifd.height} px, that is "
                f"{expected} {word}, but lists {min(len(offsets), len(counts))}"
            )
        offsets, counts = offsets[:expected], counts[:expected]
        beyond = (offsets > 0) & (counts > 0) & (offsets + counts > self.size)
        if beyond.any():
            raise self._damaged(
                f"{int(beyond.sum())} of {expected} {word} of image directory {len(self.ifds)} "
                f"({ifd.width} x {ifd.height} px) lie beyond its end at byte {self.size}"
            )
        return not ((offsets > 0) & (counts > 0)).any()

    def _damaged(self, reason: str) -> OpenError:
        return OpenError(
            f"{self.path}: the TIFF file is damaged or cut short: {reason}; copy or export it again"
        )
