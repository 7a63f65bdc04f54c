"""Tiled TIFF and BigTIFF, OME-TIFF above all: the directory by tifffile, the tiles natively."""

import re
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, ClassVar

import numpy as np

from hiresattn.errors import OpenError
from hiresattn.geometry import Level, level_downsamples
from hiresattn.pyramid.base import Pyramid
from hiresattn.pyramid.formats.omexml import OmeImage, parse_ome, refuse_partners
from hiresattn.pyramid.formats.quiet import unlogged
from hiresattn.pyramid.metadata import Metadata
from hiresattn.pyramid.mpp import choose_mpp, micrometres, resolution_unit
from hiresattn.pyramid.pixels import Pixels, note_empty
from hiresattn.pyramid.storage.directories import ASIDE, same_aspect
from hiresattn.pyramid.storage.tiffheader import check_tiff
from hiresattn.pyramid.storage.tifftiles import TiffTiles

_ALPHA = (1, 2)  # ExtraSamples: associated, unassociated
_APERIO_MPP = re.compile(r"\|\s*MPP\s*=\s*(\d+[.,]?\d*)")
_RGB, _RGB_PHOTOMETRICS = ("red", "green", "blue"), (2, 6)
_MASK = 4  # a bit of NewSubfileType


class TiffPyramid(Pyramid):
    """A tiled TIFF file without georeference.

    Levels are OME-TIFF's, or the reduced images that follow the first, of the same bands, type and aspect.
    Label, macro and mask images are never read. An alpha band marks what is valid.

    Args:
        source: Path of a local file.
        mpp: Micrometres per level-0 px, in place of what the file says.
        nodata: Value that stands for "nothing measured here".

    Raises:
        OpenError: If the file is damaged, or isn't one flat image that can be decoded strictly.
    """

    backend: ClassVar[str] = "tiff"
    exact_bytes = True

    def __init__(self, source: str, *, mpp: float | None = None, nodata: float | None = None) -> None:
        with opened_tiff(source) as tif:
            levels, ome = _image_levels(tif, source)
            levels, empty = _with_tiles(levels)
            tiles = TiffTiles(source, levels, 0 if nodata is None else nodata)
            key = levels[0][0].keyframe
            chosen, where = choose_mpp(mpp, *_scale(tif, key, ome))
            self._alpha = _has_alpha(key)
            if ome is not None and tiles.bands < ome.bands:
                listed = f" ({', '.join(ome.channel_names)})" if ome.channel_names else ""
                raise OpenError(
                    f"{source}: its OME-XML announces {ome.bands} channels{listed}, the file holds "
                    f"{tiles.bands}; export it again"
                )
            names = _names(tif, levels[0], ome, tiles.bands - self._alpha)
            palette = None if key.colormap is None else (np.asarray(key.colormap).T >> 8).astype(np.uint8)
        super().__init__(
            source,
            Metadata(
                levels=described(tiles),
                channels=tiles.bands - self._alpha,
                dtype=tiles.dtype,
                mpp=chosen,
                mpp_source=where,
                nodata=nodata,
                palette=palette,
                alpha=(tiles.bands,) if self._alpha else (),
                notes=note_empty(empty),
                nbytes=tiles.nbytes,
                channel_names=names,
                colors=_RGB
                if int(key.photometric) in _RGB_PHOTOMETRICS and tiles.bands - self._alpha == 3
                else None,
            ),
            mpp=mpp,
            nodata=nodata,
        )
        self.native_tiles = self._tiles = tiles

    def tile_bytes(self, level: int, row: int, column: int) -> int:
        """Stored bytes of a tile, exact; 0 if the file leaves it out."""
        self.tile_window(level, row, column)
        return self._tiles.tile_bytes(level, row, column)

    def close(self) -> None:
        """Let go of the file. A later read opens it again."""
        self._tiles.close()

    def _read(self, level: int, y: int, x: int, height: int, width: int) -> Pixels:
        return self._finished(self._tiles.read(level, y, x, height, width))

    def _finished(self, pixels: Pixels) -> Pixels:
        if not self._alpha:
            return pixels
        valid = pixels.data[:, :, -1] > 0
        lost = pixels.missing_by_band
        if pixels.valid is not None and pixels.valid.ndim == 3:
            valid = pixels.valid[:, :, :-1] & (valid & pixels.valid[:, :, -1])[:, :, None]
        elif pixels.valid is not None:
            valid &= pixels.valid
        bands = np.ascontiguousarray(pixels.data[:, :, :-1])
        return Pixels(bands, valid, pixels.missing_tiles, None if lost is None else lost[:-1])


@contextmanager
def opened_tiff(source: str) -> Iterator[Any]:
    """A checked ``tifffile.TiffFile`` whose errors are ``OpenError``, and not logged besides.

    Raises:
        OpenError: If it isn't a TIFF file that tifffile understands.
    """
    import tifffile

    if check_tiff(source) is None:
        raise OpenError(f"{source}: not a TIFF file")
    try:
        with unlogged("tifffile"), tifffile.TiffFile(source) as tif:
            yield tif
    except OpenError:
        raise
    except Exception as error:
        raise OpenError(
            f"{source}: its TIFF header can't be understood ({error}); export the file again"
        ) from error


def described(tiles: TiffTiles) -> tuple[Level, ...]:
    """The levels of a tile reader as geometry."""
    return tuple(
        Level(width=w, height=h, downsample=downsample, tile_width=tile_width, tile_height=tile_height)
        for (h, w), (tile_height, tile_width), downsample in zip(
            tiles.shapes, tiles.sides, level_downsamples(tiles.shapes), strict=True
        )
    )


def pages_of_sizes(tif: Any, sizes: list[tuple[int, int]], *, strips: bool = False) -> list[list[Any]] | None:
    """The tiled pages of given sizes (rows, columns), alike and in order; None if they aren't all there.

    For readers that know the levels and want the tiles; with ``strips`` also pages of strips.
    """
    found: list[list[Any]] = []
    for page in _all_pages(tif):
        if len(found) < len(sizes) and _is_level(page) and (strips or page.is_tiled):
            size = (int(page.imagelength), int(page.imagewidth))
            alike = not found or _kind(page) == _kind(found[0][0])
            if size == sizes[len(found)] and alike:
                found.append([page])
    return found if len(found) == len(sizes) else None


def _image_levels(tif: Any, source: str) -> tuple[list[list[Any]], OmeImage | None]:
    """Pages of each level of the biggest image, finest first, and what OME-XML states of it."""
    described: list[OmeImage] = []
    if tif.is_ome:  # before tifffile opens what other files it names
        described, uuid = parse_ome(tif.ome_metadata or "", source)
        for image in described:
            refuse_partners(image, described, uuid, source)
    index = max(range(len(tif.series)), key=lambda i: int(np.prod(tif.series[i].shape)))
    series = tif.series[index]
    if tif.is_ome and series.kind != "ome":
        raise OpenError(
            f"{source}: its OME-XML is damaged, so its planes can't be identified; export it again"
        )
    ome = _of_series(described, series, index)
    absent = [nth for nth, page in enumerate(series.pages) if page is None]
    if absent:
        names = ome.channel_names if ome is not None else None
        what = [names[nth] if names and nth < len(names) else str(nth + 1) for nth in absent]
        raise OpenError(
            f"{source}: {len(absent)} of its {len(series.pages)} planes ({', '.join(what[:10])}) aren't in the file; "
            "export it again"
        )
    stack = {
        axis: side
        for axis, side in zip(series.axes, series.shape, strict=True)
        if axis not in "YXSC" and side > 1
    }
    if stack:
        raise OpenError(
            f"{source}: axes {series.axes} of shape {series.shape}; one flat image is needed, so pick one "
            f"position of {', '.join(stack)} and store it on its own"
        )
    levels = [list(level.pages) for level in series.levels]
    if any(page is None for pages in levels for page in pages):
        raise OpenError(f"{source}: planes of a reduced level aren't in the file; export it again")
    if any(page.parent is not tif for pages in levels for page in pages):
        raise OpenError(f"{source}: an OME-TIFF spread over several files; store it in one file")
    if len(levels) == 1 and len(levels[0]) == 1:
        levels = _with_reduced(tif, levels[0][0])
    bands = {(len(pages), *_kind(pages[0])) for pages in levels}
    if len(bands) > 1 or not all(levels):
        raise OpenError(f"{source}: its levels differ in bands or type; export the file again")
    return levels, ome


def _with_tiles(levels: list[list[Any]]) -> tuple[list[list[Any]], list[tuple[int, int]]]:
    """The levels that the file doesn't leave out, and rows and columns of the others; all, if it has no level 0."""
    full = [any(any(page.databytecounts) for page in pages) for pages in levels]
    if not full[0]:
        return levels, []
    sizes = [
        (int(pages[0].imagelength), int(pages[0].imagewidth))
        for pages, has in zip(levels, full, strict=True)
        if not has
    ]
    return [pages for pages, has in zip(levels, full, strict=True) if has], sizes


def _of_series(images: list[OmeImage], series: Any, index: int) -> OmeImage | None:
    """The image of OME-XML that a series of tifffile's is: by size and directory, since some have no series."""
    page = next((page for page in series.pages if page is not None), None)
    if page is None:
        return None
    size = (int(series.keyframe.imagelength), int(series.keyframe.imagewidth))
    fits = [image for image in images if image.size == size]
    found = [image for image in fits if image.has_directory(page.index)] or fits
    return images[index] if index < len(images) and images[index] in found else next(iter(found), None)


def _names(tif: Any, pages: list[Any], ome: OmeImage | None, bands: int) -> tuple[str, ...] | None:
    """A name for each band, as OME-XML, PerkinElmer's descriptions or ImageJ's labels give them."""
    names: tuple[str, ...] = ()
    if ome is not None:
        names = ome.channel_names or ()
    elif len(pages) == bands and tif.is_qpi:
        found = [
            re.search(r"<Name>([^<]{1,200})</Name>", getattr(page, "description", "") or "") for page in pages
        ]
        names = tuple(name[1] for name in found if name)
    elif tif.is_imagej:
        names = tuple(map(str, (tif.imagej_metadata or {}).get("Labels") or ()))
    return names[:bands] if any(names) and len(names) >= bands else None


def _with_reduced(tif: Any, first: Any) -> list[list[Any]]:
    """A page and the smaller versions of it, finest first, wherever in the file they are."""
    levels = [[first]]
    for page in sorted(_all_pages(tif), key=lambda page: -page.imagewidth):
        last = levels[-1][0]
        smaller = page.imagewidth < last.imagewidth and page.imagelength <= last.imagelength
        if (
            smaller
            and _is_level(page)
            and page.is_tiled
            and _kind(page) == _kind(first)
            and same_aspect(page.imagewidth, page.imagelength, first.imagewidth, first.imagelength)
        ):
            levels.append([page])
    return levels


def _all_pages(tif: Any) -> Iterator[Any]:
    """Every page of the file, each followed by its sub-pages."""
    for index in range(len(tif.pages)):
        page = tif.pages.get(index)
        page = page if hasattr(page, "imagewidth") else page.aspage()
        yield page
        for sub in page.pages or ():
            yield sub if hasattr(sub, "imagewidth") else sub.aspage()


def _is_level(page: Any) -> bool:
    return not int(page.subfiletype or 0) & ~1 and not ASIDE.search(page.description or "")


def _kind(page: Any) -> tuple[Any, ...]:
    key = page.keyframe
    return int(key.samplesperpixel), str(key.dtype), int(key.planarconfig)


def _has_alpha(page: Any) -> bool:
    extra = [int(sample) for sample in page.extrasamples or ()]
    return bool(extra) and extra[-1] in _ALPHA and int(page.samplesperpixel) > 1


def _scale(tif: Any, page: Any, ome: OmeImage | None) -> tuple[float | None, float | None, str]:
    """The scale in the file: µm along y, along x, and where it was found."""
    if ome is not None:
        y, x = ome.mpp
        if y and x:
            return y, x, "OME PhysicalSize"
    aperio = _APERIO_MPP.search(page.description or "") if tif.is_svs else None
    if aperio:
        mpp = float(aperio[1].replace(",", "."))
        return mpp, mpp, "Aperio MPP"
    unit = resolution_unit(page.description or "", int(page.resolutionunit or 0))
    resolution = [page.tags.get(number) for number in (283, 282)]
    if unit is None or None in resolution:
        return None, None, "TIFF resolution"
    per_px = [tag.value[1] / tag.value[0] if tag.value[0] else None for tag in resolution if tag is not None]
    y, x = (None if part is None else micrometres(part, unit) for part in per_px)
    return y, x, "TIFF resolution"
