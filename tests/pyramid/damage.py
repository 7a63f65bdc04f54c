"""Ways to damage a TIFF file at a known place."""

import struct
from pathlib import Path

import numpy as np

from tests.images import SHAPES


def _page(tif, level):
    """The directory of a coded level, wherever the layout puts it."""
    for page in tif.pages:
        for candidate in (page, *(page.pages or ())):
            if (candidate.imagelength, candidate.imagewidth) == SHAPES[level] and candidate.is_tiled:
                return candidate
    raise LookupError(level)


def tile_place(path, level, row, column):
    """Offset and stored bytes of a tile."""
    from tifffile import TiffFile

    with TiffFile(path) as tif:
        page = _page(tif, level)
        index = row * -(-page.imagewidth // page.tilewidth) + column
        return int(page.dataoffsets[index]), int(page.databytecounts[index])


def overwrite_tile(path, level, row, column, harm):
    """Damage the stored bytes of a tile.

    Harms: ``random`` bytes in its middle, ``zeros`` from there, its ``header``, or its ``last`` byte.
    """
    offset, count = tile_place(path, level, row, column)
    half = count // 2
    last = Path(path).read_bytes()[offset + count - 1]
    noise = np.random.default_rng(3).integers(0, 256, 256, np.uint8).tobytes()[: count - half]
    start, bytes_ = {
        "random": (half, noise),
        "zeros": (half, bytes(count - half)),
        "header": (0, bytes(min(40, count))),
        "last": (count - 1, bytes([last ^ 1])),
    }[harm]
    with Path(path).open("r+b") as file:
        file.seek(offset + start)
        file.write(bytes_)


def overwrite_file(path, share, count, harm):
    """Overwrite bytes of a file with ``zeros`` or at ``random``, from a share of its length on."""
    path = Path(path)
    start = int(path.stat().st_size * share)
    noise = np.random.default_rng(5).integers(0, 256, count, np.uint8).tobytes()
    with path.open("r+b") as file:
        file.seek(start)
        file.write(bytes(count) if harm == "zeros" else noise)


def zero_tile_entry(path, level, row, column):
    """Make a tile sparse: its entries in both tables become zero."""
    from tifffile import TiffFile

    with TiffFile(path) as tif:
        page = _page(tif, level)
        index = row * -(-page.imagewidth // page.tilewidth) + column
        entries = [
            (tag.valueoffset + index * (tag.valuebytecount // tag.count), tag.valuebytecount // tag.count)
            for tag in (page.tags[324], page.tags[325])
        ]
    with Path(path).open("r+b") as file:
        for start, size in entries:
            file.seek(start)
            file.write(bytes(size))


def set_tag(path, number, value, page=0):
    """Give a tag of one whole number another value (little-endian files)."""
    from tifffile import TiffFile

    with TiffFile(path) as tif:
        tag = tif.pages[page].tags[number]
        place, kind = tag.valueoffset, {3: "<H", 4: "<I"}[int(tag.dtype)]
    with Path(path).open("r+b") as file:
        file.seek(place)
        file.write(struct.pack(kind, value))
