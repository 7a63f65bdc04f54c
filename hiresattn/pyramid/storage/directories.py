"""Image directories of a TIFF file, and which of them are levels of its image."""

import re
from dataclasses import dataclass

from hiresattn.errors import OpenError

_GEO_TAGS = frozenset({33550, 33922, 34264, 34735, 42112, 42113})

#: How descriptions of label, macro and thumbnail images start a line.
ASIDE = re.compile(r"(?:^|\n)\s*(?:label|macro|thumbnail)\b", re.IGNORECASE)


@dataclass(frozen=True, slots=True)
class Ifd:
    """One image directory of a TIFF file."""

    tags: frozenset[int]
    """Numbers of all its tags."""
    width: int
    """Columns, px."""
    height: int
    """Rows, px."""
    bits: int
    """Of one sample."""
    samples: int
    """Bands, alpha included."""
    compression: int
    """Tag 259."""
    ome: bool
    """Whether its description is OME-XML."""
    mask: bool
    """Whether it is a transparency mask."""
    tiled: bool
    """Tiles, not strips."""
    reduced: bool
    """Whether NewSubfileType says that it is a smaller version of another."""
    orientation: int
    """Tag 274; 1 is rows from the top, columns from the left."""
    description: str
    """How its description starts, at most 256 characters."""
    associated: bool
    """Whether it says of itself that it is a label, macro or thumbnail image."""
    child: bool
    """Whether another directory lists it as its sub-directory, rather than the file."""
    problem: OpenError | None
    """Why its pixels can't be read, as far as its tags show."""
    empty: bool = False
    """Whether the file leaves out all of its tiles."""

    @property
    def georeferenced(self) -> bool:
        """Whether it has GeoTIFF or GDAL tags."""
        return bool(self.tags & _GEO_TAGS)


def same_aspect(width: int, height: int, big_width: int, big_height: int) -> bool:
    """Whether a size is a bigger one divided by one factor, but for rounding.

    Args:
        width: Columns of the smaller image, px.
        height: Its rows.
        big_width: Columns of the bigger one.
        big_height: Its rows.
    """
    slack = 1 / width + 1 / height + 0.01
    return abs(big_width / width / (big_height / height) - 1) <= slack


def level_directories(ifds: list[Ifd]) -> list[Ifd]:
    """The directories that are levels of the biggest image: alike, tiled, of its aspect, each smaller than the last.

    Where two have the same size, the first in the file.
    """
    main = max(ifds, key=lambda ifd: ifd.width * ifd.height)
    levels = [main]
    for ifd in sorted(ifds, key=lambda ifd: -ifd.width):
        smaller = ifd.width < levels[-1].width and ifd.height <= levels[-1].height
        alike = (ifd.bits, ifd.samples, ifd.tiled) == (main.bits, main.samples, True)
        if smaller and alike and not (ifd.mask or beside(ifd, main)):
            levels.append(ifd)
    return levels


def beside(ifd: Ifd, main: Ifd) -> bool:
    """Whether a directory can't be a level of the biggest image, so that what is wrong with it is no matter."""
    if ifd is main:
        return False
    if ifd.associated or min(ifd.width, ifd.height) < 1:
        return ifd.associated
    if not same_aspect(ifd.width, ifd.height, main.width, main.height):
        return True
    return main.tiled and not (ifd.tiled or main.georeferenced or main.ome)


def hyperstack(ifds: list[Ifd]) -> str | None:
    """How many images ImageJ put into fewer directories, in words; None = it didn't."""
    if not ifds[0].description.startswith("ImageJ="):
        return None
    stated = dict(line.split("=", 1) for line in ifds[0].description.splitlines() if "=" in line)
    if not stated.get("images", "").isdecimal() or int(stated["images"]) <= len(ifds):
        return None
    parts = [f"{stated[axis]} {axis}" for axis in ("channels", "slices", "frames") if axis in stated]
    return f"{stated['images']} images" + (f" ({', '.join(parts)})" if parts else "")
