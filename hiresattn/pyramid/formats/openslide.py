"""Slides in vendors' formats, by OpenSlide; pixels of tiled TIFF based ones natively."""

from functools import partial
from pathlib import Path
from typing import Any, ClassVar

import numpy as np

from hiresattn.errors import OpenError, ReadError
from hiresattn.geometry import Level, level_downsamples
from hiresattn.pyramid.base import Pyramid
from hiresattn.pyramid.formats.tiff import opened_tiff, pages_of_sizes
from hiresattn.pyramid.metadata import Metadata
from hiresattn.pyramid.mpp import choose_mpp
from hiresattn.pyramid.pixels import Pixels, note_empty
from hiresattn.pyramid.storage.handles import PerThread
from hiresattn.pyramid.storage.tiffheader import check_tiff
from hiresattn.pyramid.storage.tifftiles import TiffTiles
from hiresattn.pyramid.storage.tiles import agrees

#: Vendors whose files are plain tiled TIFF: tiles don't overlap, and decode to RGB as they are.
_PLAIN_TIFF = frozenset({"aperio", "generic-tiff"})

#: Tile side announced where OpenSlide gives none that is sensible, px.
_TILE = 512

#: Decoded tiles that OpenSlide keeps of a slide that only it reads, bytes.
_CACHE_BYTES = 64 << 20

_APERIO_YCBCR = 33003

#: Main files that only list the others: Hamamatsu's.
_INDEXES = (".vms", ".vmu")

#: The header of a DICOM file is about this long, bytes.
_HEAD = 1 << 16


class OpenSlidePyramid(Pyramid):
    """A slide that OpenSlide opens; ``[h w 3]`` uint8.

    Metadata are OpenSlide's. Tiles of Aperio and generic TIFF files are read natively, so that damaged ones
    are errors and byte counts are exact; those of other formats through OpenSlide, where a byte count is the
    share of the stored size that a tile's area has. There, a level whose downsample isn't whole is resampled
    by OpenSlide to within half a level-0 px.

    Where a slide was not scanned, pixels are not valid and hold its background colour. Label, macro and
    thumbnail images are never read.

    Args:
        source: Path of a local file; for MRXS, DICOM and other formats of many files, OpenSlide's main file.
        mpp: Micrometres per level-0 px, in place of what the file says.
        nodata: Value that stands for "nothing measured here".

    Raises:
        OpenError: If OpenSlide refuses the file; its reason is repeated.
    """

    backend: ClassVar[str] = "openslide"

    def __init__(self, source: str, *, mpp: float | None = None, nodata: float | None = None) -> None:
        import openslide

        try:
            slide = openslide.OpenSlide(source)
        except (openslide.OpenSlideError, OSError) as error:
            raise OpenError(
                f"{source}: OpenSlide can't open this slide ({error or type(error).__name__}); "
                "export it as an OME-TIFF or a pyramidal TIFF with the scanner's software or Bio-Formats"
            ) from error
        with slide:
            properties = slide.properties  # a damaged file has some whose names can't be looked up
            tags = {key: properties[key] for key in properties if key.startswith("openslide.")}
            empty = _empty_levels(source, tags.get("openslide.vendor"))
            stored = [(height, width) for width, height in slide.level_dimensions]
            self._numbers = [k for k, size in enumerate(stored) if k == 0 or size not in empty]
            sizes = [stored[k] for k in self._numbers]
            self._downsamples = tuple(slide.level_downsamples[k] for k in self._numbers)
            self._background = _colour(tags.get("openslide.background-color"))
            self._tiles = _native_tiles(source, tags.get("openslide.vendor"), sizes, self._background)
            if self._tiles is not None and not agrees(self._tiles, partial(self._by, slide), lossy=True):
                self._tiles = None
        self.native_tiles = self._tiles
        self.by_window = self._tiles is None
        cache = openslide.OpenSlideCache(_CACHE_BYTES)  # one for the handles of all threads
        self._slides: PerThread[Any] = PerThread(partial(_opened, source, cache), _close)
        chosen, where = choose_mpp(
            mpp, _number(tags.get("openslide.mpp-y")), _number(tags.get("openslide.mpp-x")), "openslide.mpp"
        )
        tiles = self._tiles.sides if self._tiles else [_tile(tags, k) for k in self._numbers]
        levels = tuple(
            Level(
                width=width,
                height=height,
                downsample=downsample,
                tile_width=tile[1],
                tile_height=tile[0],
            )
            for (height, width), tile, downsample in zip(sizes, tiles, level_downsamples(sizes), strict=True)
        )
        super().__init__(
            source,
            Metadata(
                levels=levels,
                channels=3,
                dtype=np.dtype(np.uint8),
                mpp=chosen,
                mpp_source=where,
                nodata=nodata,
                colors=("red", "green", "blue"),
                bounds=_bounds(tags, sizes[0]),
                notes=note_empty(size for size in stored if size not in sizes),
                nbytes=self._tiles.nbytes if self._tiles else _stored_size(source, tags),
            ),
            mpp=mpp,
            nodata=nodata,
        )
        self.exact_bytes = self._tiles is not None

    def tile_bytes(self, level: int, row: int, column: int) -> int:
        """Stored bytes of a tile; see ``exact_bytes``."""
        if self._tiles is None:
            return super().tile_bytes(level, row, column)
        self.tile_window(level, row, column)
        return self._tiles.tile_bytes(level, row, column)

    def close(self) -> None:
        """Let go of the file. A later read opens it again."""
        self._slides.close()
        if self._tiles is not None:
            self._tiles.close()

    def _read(self, level: int, y: int, x: int, height: int, width: int) -> Pixels:
        if self._tiles is not None:
            return self._tiles.read(level, y, x, height, width)
        import openslide

        try:
            return self._by(self._slides.get(), level, y, x, height, width)
        except (openslide.OpenSlideError, OSError) as error:
            self._slides.drop()  # after an error, OpenSlide's handle refuses every later read
            raise ReadError(
                f"{self.source}, level {level}, rows {y} to {y + height}, columns {x} to {x + width}: "
                f"OpenSlide can't read this ({error or type(error).__name__}); copy or export the slide again"
            ) from error

    def _by(self, slide: Any, level: int, y: int, x: int, height: int, width: int) -> Pixels:
        """A window on the background colour; where nothing was scanned, px aren't valid."""
        downsample = self._downsamples[level]
        location = (round(x * downsample), round(y * downsample))  # level-0 px, columns first
        image = slide.read_region(location, self._numbers[level], (width, height))
        if image.getchannel("A").getextrema()[0] == 255:
            return Pixels(
                np.array(np.frombuffer(image.tobytes("raw", "RGB"), np.uint8).reshape(height, width, 3))
            )
        rgba = np.asarray(image)
        alpha = rgba[:, :, 3:]
        share = alpha / np.float32(255)
        data = rgba[:, :, :3] * share + np.array(self._background, np.float32) * (1 - share)
        return Pixels(np.rint(data).astype(np.uint8), alpha[:, :, 0] > 0)


def _opened(source: str, cache: Any) -> Any:
    import openslide

    slide = openslide.OpenSlide(source)
    slide.set_cache(cache)
    return slide


def _close(slide: Any) -> None:
    slide.close()


def _empty_levels(source: str, vendor: str | None) -> set[tuple[int, int]]:
    """Rows and columns of the levels of which a TIFF file leaves out all tiles; none where level 0 is one of them."""
    ifds = (check_tiff(source) if vendor in _PLAIN_TIFF else None) or []
    return set() if not ifds or ifds[0].empty else {(ifd.height, ifd.width) for ifd in ifds if ifd.empty}


def _native_tiles(
    source: str, vendor: str | None, sizes: list[tuple[int, int]], background: tuple[int, int, int]
) -> TiffTiles | None:
    """A tile reader for the levels that OpenSlide found, if it can be trusted to give the same pixels."""
    if vendor not in _PLAIN_TIFF:
        return None
    with opened_tiff(source) as tif:
        levels = pages_of_sizes(tif, sizes)
        if levels is None or any(int(page.compression) == _APERIO_YCBCR for (page,) in levels):
            return None
        try:
            tiles = TiffTiles(source, levels, background)
        except OpenError:  # a compression that only OpenSlide decodes
            return None
    return tiles if tiles.bands == 3 and tiles.dtype == np.uint8 else None


def _number(value: str | None) -> float | None:
    try:
        return None if value is None else float(value)
    except ValueError:
        return None


def scanned_part(source: str) -> tuple[int, int, int, int] | None:
    """``(y, x, height, width)`` of a slide's scanned part, level-0 px; None = all of it, or no such slide."""
    import openslide

    if openslide.OpenSlide.detect_format(source) in (None, *_PLAIN_TIFF):
        return None
    try:
        with openslide.OpenSlide(source) as slide:
            return _bounds(dict(slide.properties), slide.level_dimensions[0][::-1])
    except (openslide.OpenSlideError, OSError):
        return None


def _bounds(tags: dict[str, str], size: tuple[int, int]) -> tuple[int, int, int, int] | None:
    """The part of level 0 that holds what was scanned, ``(y, x, height, width)``; None = all of it, or not known."""
    found = [tags.get(f"openslide.bounds-{name}", "") for name in ("y", "x", "height", "width")]
    if not all(value.isdecimal() for value in found):
        return None
    y, x, height, width = map(int, found)
    inside = height > 0 < width and y + height <= size[0] and x + width <= size[1]
    return (y, x, height, width) if inside and (height, width) != size else None


def _colour(value: str | None) -> tuple[int, int, int]:
    """``RRGGBB`` in hexadecimal; white where the slide has none."""
    red, green, blue = bytes.fromhex(value or "ffffff")
    return red, green, blue


def _tile(tags: dict[str, str], level: int) -> tuple[int, int]:
    sides = [int(tags.get(f"openslide.level[{level}].tile-{side}", 0)) for side in ("height", "width")]
    if all(_TILE // 4 <= side <= _TILE * 4 for side in sides):
        return sides[0], sides[1]
    return _TILE, _TILE


def _stored_size(source: str, tags: dict[str, str]) -> int:
    """Bytes of all files of a slide; 0 where not known."""
    main = Path(source)
    vendor = tags.get("openslide.vendor")
    if vendor == "mirax":
        files = [main, *main.with_suffix("").glob("*")]
    elif vendor == "dicom":
        series = tags.get("dicom.SeriesInstanceUID", "").encode()
        files = [file for file in main.parent.iterdir() if file == main or _mentions(file, series)]
    elif main.suffix.lower() in _INDEXES:
        return 0
    else:
        files = [main]
    return sum(file.stat().st_size for file in files)


def _mentions(file: Path, series: bytes) -> bool:
    """Whether the head of a DICOM file names a series."""
    if not series or not file.is_file():
        return False
    try:
        with file.open("rb") as opened:
            head = opened.read(_HEAD)
    except OSError:
        return False
    return head[128:132] == b"DICM" and series in head
