"""DICOM whole-slide files: several instances of one series are one slide."""

import struct
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

#: Bytes of a file in which its header's first groups are looked for.
_HEAD = 1 << 18
_WHOLE_SLIDE = b"1.2.840.10008.5.1.4.1.1.77.1.6"
_IMPLICIT, _BIG_ENDIAN = b"1.2.840.10008.1.2", b"1.2.840.10008.1.2.2"
#: Value representations whose length takes four bytes.
_LONG = frozenset((b"OB", b"OW", b"OF", b"OD", b"OL", b"OV", b"SQ", b"UC", b"UN", b"UR", b"UT", b"SV", b"UV"))
_UNDEFINED = 0xFFFFFFFF
_ITEM, _ITEM_END, _SEQUENCE_END = 0xFFFEE000, 0xFFFEE00D, 0xFFFEE0DD
_SYNTAX, _IMAGE_TYPE, _CLASS, _SERIES = 0x00020010, 0x00080008, 0x00080016, 0x0020000E
_COLUMNS, _ROWS = 0x00480006, 0x00480007


@dataclass(frozen=True)
class Instance:
    """One file of a whole-slide series."""

    series: str
    """Its SeriesInstanceUID."""
    image: bool
    """Whether it is a level of the slide, not its label, overview or thumbnail."""
    px: int
    """Rows times columns of the whole level; 0 where it doesn't tell."""


def read_instance(path: str | Path) -> Instance | None:
    """What the header of a file tells; None if it is no DICOM whole-slide image, or can't be read."""
    if Path(path).suffix.lower() != ".dcm":
        return None
    try:
        with Path(path).open("rb") as file:
            head = file.read(_HEAD)
    except OSError:
        return None
    if head[128:132] != b"DICM":
        return None
    found: dict[int, bytes] = {}
    try:
        for tag, value in _elements(head):
            found[tag] = value.strip(b"\0 ")
            if tag >= _ROWS:
                break
    except (struct.error, ValueError):
        pass  # cut off, or damaged; what was found may be enough
    series = found.get(_SERIES, b"").decode("ascii", "replace")
    if found.get(_CLASS) != _WHOLE_SLIDE or not series:
        return None
    kinds = found.get(_IMAGE_TYPE, b"").upper().split(b"\\")
    rows, columns = (
        int.from_bytes(found.get(tag, b"")[:4].ljust(4, b"\0"), "little") for tag in (_ROWS, _COLUMNS)
    )
    return Instance(series, not {b"LABEL", b"OVERVIEW", b"THUMBNAIL"} & set(kinds), rows * columns)


def one_per_slide(paths: Sequence[str]) -> list[str]:
    """Paths without all but one of the files of a DICOM series in one folder: that of its biggest level.

    OpenSlide finds the others from it. Labels and overviews are left out; what is no whole-slide file stays.
    """
    finest: dict[tuple[Path, str], tuple[int, str]] = {}
    instances = {path: read_instance(path) for path in paths}
    for path, instance in instances.items():
        if instance is not None and instance.image:
            key = Path(path).parent, instance.series
            finest[key] = max(finest.get(key, (-1, "")), (instance.px, path), key=lambda pair: pair[0])
    kept = {path for _, path in finest.values()}
    return [path for path in paths if instances[path] is None or path in kept]


def series_of(sources: Iterable[object]) -> list[str | None]:
    """The series of each source; None for what is no local DICOM file."""
    found = (read_instance(source) if isinstance(source, str | Path) else None for source in sources)
    return [None if instance is None else instance.series for instance in found]


def _elements(head: bytes) -> Iterator[tuple[int, bytes]]:
    """Tags and values of the data set itself; those inside sequences are passed over."""
    at, depth, syntax = 132, 0, b""
    while at + 8 <= len(head):
        group, number = struct.unpack_from("<HH", head, at)
        tag = group << 16 | number
        if syntax == _BIG_ENDIAN and group != 2:
            raise ValueError("big-endian")
        if group == 0xFFFE or (syntax == _IMPLICIT and group != 2):
            (length,), at = struct.unpack_from("<I", head, at + 4), at + 8
        elif head[at + 4 : at + 6] in _LONG:
            (length,), at = struct.unpack_from("<I", head, at + 8), at + 12
        else:
            (length,), at = struct.unpack_from("<H", head, at + 6), at + 8
        if tag in (_ITEM_END, _SEQUENCE_END):
            depth -= 1
        elif length == _UNDEFINED:
            depth += 1
        else:
            value, at = head[at : at + length], at + length
            if tag == _SYNTAX:
                syntax = value.strip(b"\0 ")
            if depth == 0 and tag != _ITEM:
                yield tag, value
