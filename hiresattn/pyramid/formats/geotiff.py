"""GeoTIFF and whatever else GDAL reads, local or remote, by rasterio."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from functools import partial
from typing import Any, ClassVar

import numpy as np

from hiresattn.errors import NotFoundError, ReadError
from hiresattn.geometry import Level, level_downsamples
from hiresattn.pyramid.base import Pyramid
from hiresattn.pyramid.formats.gdal import (
    GdalFile,
    checked_sources,
    has_credentials,
    reason,
    remote_names,
    strict,
)
from hiresattn.pyramid.formats.gdalcount import Requests
from hiresattn.pyramid.formats.gdalmask import GdalMask, StripMasks, whole_nodata
from hiresattn.pyramid.formats.gdaltiles import GdalTiles, NativeTiles, jp2_tiles, native_tiles
from hiresattn.pyramid.formats.rastermeta import image_bands, is_by_band, is_one_strip, metadata, white
from hiresattn.pyramid.formats.sidecars import gdal_file, is_placed, may_have_sidecar
from hiresattn.pyramid.formats.vrt import is_vrt, vrt_addresses, vrt_places
from hiresattn.pyramid.metadata import Metadata
from hiresattn.pyramid.pixels import Pixels, both_valid, note_empty
from hiresattn.pyramid.storage.directories import Ifd
from hiresattn.pyramid.storage.handles import PerThread
from hiresattn.pyramid.storage.jp2header import Codestream, check_jp2
from hiresattn.pyramid.storage.ranges import RangeFile, RequestStats, cloud_optimised
from hiresattn.pyramid.storage.signing import address_of
from hiresattn.pyramid.storage.strips import Strips
from hiresattn.pyramid.storage.tiffheader import check_tiff
from hiresattn.pyramid.storage.tiles import agrees

#: Rows of a tile where a file's only block is the whole image.
_ROWS = 512

#: Compressions that two decoders may decode a little differently.
_LOSSY = ("JPEG", "WEBP", "LERC", "JXL")

#: Blocks with sides below this are read several at a time, px.
_SMALL = 128


class RasterioPyramid(Pyramid):
    """A raster that GDAL reads, with its overviews as levels; ``[h w bands]`` in its native dtype.

    An alpha band isn't a band here: it marks what is valid, as do an internal mask, the nodata value and
    blocks that a sparse GeoTIFF leaves out. A palette image gives its indices, and ``palette``.

    Tiles and strips of local GeoTIFF, and of cloud-optimised ones behind http and https, are read and decoded
    natively: GDAL doesn't always look at deflate's checksums. One strip for a whole image, and other files elsewhere,
    are as GDAL reads them; what libjpeg notices there is an error.

    Args:
        source: A path, an address (http, https, s3, gs) or a ``/vsi...`` path of GDAL's.
        mpp: Micrometres per level-0 px.
        nodata: Value that stands for "nothing measured here", in place of what the file says.

    Raises:
        NotFoundError: If a remote file doesn't exist.
        OpenError: If GDAL refuses the file, or its bands aren't an image.
    """

    backend: ClassVar[str] = "rasterio"

    def __init__(self, source: str, *, mpp: float | None = None, nodata: float | None = None) -> None:
        self._ifds: list[Ifd] = []
        self._jp2: Codestream | None = None
        self._requests, self._address = Requests(), address_of(source)
        ranges = _ranges(source, self._requests.own) if source.startswith(("http://", "https://")) else None
        try:
            if ranges is None or not self._described(source, ranges, mpp, nodata):
                self._described(source, None, mpp, nodata)
        except BaseException:
            if ranges is not None:
                ranges.close()
            raise

    def _described(
        self, source: str, ranges: RangeFile | None, mpp: float | None, nodata: float | None
    ) -> bool:
        """Read the header; False if it isn't enough to read the file by ranges."""
        if ranges is None:
            self._requests.watch(remote_names(self._names(source)))
        self._file = GdalFile(str(ranges.mirror())) if ranges is not None else self._gdal_file(source)
        if not (self._file.remote or self._file.part):  # of a remote file, in the start of it that is here
            self._ifds = check_tiff(self._file.source) or []
            self._jp2 = check_jp2(self._file.source)
        self._empty = {(ifd.height, ifd.width) for ifd in self._ifds if ifd.empty}
        # A mask that isn't of an overview is level 0's.
        masks = {(ifd.height, ifd.width) if ifd.reduced else (0, 0) for ifd in self._ifds if ifd.mask}
        virtual = is_vrt(self._file.source)
        sources = checked_sources(self._file.source) if virtual else []
        with self._file.first() as raster:
            self._bands = image_bands(raster, source)
            self._overviews, levels, self._stored = self._levels(raster)
            native = (raster.driver == "GTiff" or bool(self._jp2)) and not self._file.remote
            empty = nodata
            if (
                nodata is None
                and native
                and not self._file.part
                and raster.dtypes[self._bands[0] - 1] in ("int64", "uint64")
            ):
                empty = whole_nodata(self._file.source)
            self._mask = GdalMask.of(
                raster, levels, self._overviews, self._file.open, self._bands, empty, masks
            )
            if virtual and (places := vrt_places(self._file.source, self._bands)):
                self._mask = replace(self._mask, places=tuple(places.values()))
            self._planes = self._bands if len(self._bands) > 1 and is_by_band(raster) else self._bands[:1]
            placed = is_placed(raster)
            lossy = any(name in str(raster.compression).upper() for name in _LOSSY)
            self._white = white(raster, source)
            meta = metadata(raster, levels, self._bands, mpp, empty)
            if self._white is not None and nodata is None and meta.nodata is not None:
                meta = replace(meta, nodata=self._white - meta.nodata)
            if sources:  # its own bytes are only their names
                meta = replace(meta, nbytes=sum(file.stat().st_size for file in sources if file.is_file()))
            if raster.shape not in self._empty:
                meta = replace(meta, notes=note_empty(self._empty))
        super().__init__(source, meta, mpp=mpp, nodata=nodata)
        self.exact_bytes = self._stored
        name = source if ranges is None else self._address.name
        self._tiles = self._natively(name, meta, ranges) if native else None
        if ranges is not None:  # from here on nothing reads the mirror
            self._file = GdalFile(source, alone=True)
            ranges.forget_mirror()
        self._handles = [
            PerThread(partial(self._file.open, overview), _close) for overview in self._overviews
        ]
        if ranges is not None:
            enough = self._tiles is not None and not self._mask
            if not enough or may_have_sidecar(
                source, placed=placed, overviews=len(levels) > 1, requests=ranges.requests
            ):
                ranges.close()
                return False
        elif self._tiles is not None and not agrees(self._tiles, self._by_gdal, lossy=lossy):
            self._tiles = None
        self._in_strips(meta)
        self._masks = StripMasks(self._mask, self.levels)
        self.native_tiles = None if self._mask else self._tiles
        self.by_window = isinstance(self.native_tiles, GdalTiles) and self.native_tiles.whole
        return True

    def _natively(self, name: str, meta: Metadata, ranges: RangeFile | None) -> NativeTiles | None:
        """What reads the stored tiles without GDAL; None where only that can."""
        if self._jp2:
            return jp2_tiles(name, meta, self._file.source, self._jp2, self._by_gdal)
        return native_tiles(name, meta, self._file.source, ranges, self._block)

    def _names(self, path: str) -> Sequence[str]:
        """The files that GDAL reads px from."""
        return vrt_addresses(path) if is_vrt(path) else [path]

    def _gdal_file(self, path: str) -> GdalFile:
        """How GDAL opens the image."""
        return gdal_file(path, self._requests.own)

    @property
    def requests(self) -> RequestStats | None:  # type: ignore[override]
        """What was asked of servers so far, the sources of a virtual raster included."""
        return self._requests.so_far()

    def _in_strips(self, meta: Metadata) -> None:
        """Where tiles are several strips, the levels say so."""
        if isinstance(self._tiles, Strips):
            sides = zip(meta.levels, self._tiles.sides, strict=True)
            self.levels = tuple(replace(level, tile_height=rows) for level, (rows, _) in sides)
            self.meta = replace(meta, levels=self.levels)

    def tile_bytes(self, level: int, row: int, column: int) -> int:
        """Stored bytes of a tile; see ``exact_bytes``."""
        self.tile_window(level, row, column)
        if self._tiles is not None:
            return self._tiles.tile_bytes(level, row, column)
        if not self._stored:
            return super().tile_bytes(level, row, column)
        with self._reading(0, f"level {level}, tile in row {row}, column {column}") as raster:
            sizes = [self._tag(raster, "SIZE", level, row, column, band) for band in self._planes]
        return sum(int(size or 0) for size in sizes)

    def close(self) -> None:
        """Let go of the file. A later read opens it again."""
        for handles in self._handles:
            handles.close()
        if self._tiles is not None:
            self._tiles.close()

    def _read(self, level: int, y: int, x: int, height: int, width: int) -> Pixels:
        if self.by_window:
            return Pixels(self._block(level, y, x, height, width))
        if self._tiles is not None and not self._mask:
            return self._tiles.read(level, y, x, height, width)
        what = f"level {level}, rows {y} to {y + height}, columns {x} to {x + width}"
        asked = self._address.now
        try:
            return self._read_once(what, level, y, x, height, width)
        except ReadError:
            if not self._file.remote:
                raise
        if self._address.renew(asked):
            self._file.move(self._address.now)
        return self._read_once(what, level, y, x, height, width)  # GDAL keeps a failure; a new handle doesn't

    def _block(self, level: int, y: int, x: int, height: int, width: int) -> np.ndarray:
        """Px ``[h w c]`` as GDAL reads them, of blocks of which no setting says how; whatever it raises."""
        from rasterio.windows import Window

        try:
            data = self._handles[level].get().read(self._bands, window=Window(x, y, width, height))
        except Exception as error:
            self._handles[level].drop()
            raise OSError(reason(error)) from error
        return np.moveaxis(data, 0, 2)

    def _by_gdal(self, level: int, y: int, x: int, height: int, width: int) -> Pixels:
        """A window as GDAL reads it, whatever its mask."""
        from rasterio.windows import Window

        with self._reading(level, f"level {level}") as raster:
            window = Window(x, y, width, height)
            return Pixels(self._data(raster, window))

    def _data(self, raster: Any, window: Any) -> np.ndarray:
        """Px ``[h w c]`` of a window, 0 = black."""
        data = np.moveaxis(raster.read(self._bands, window=window), 0, 2)
        if self._white is not None:
            data[:, :, 0] = np.array(self._white, data.dtype) - data[:, :, 0]
        return data

    def _read_once(self, what: str, level: int, y: int, x: int, height: int, width: int) -> Pixels:
        from rasterio.windows import Window

        valid = None
        if self._mask:
            valid = self._masks.read(partial(self._reading, what=what), level, (y, x, height, width))
        if self._tiles is not None:
            pixels = self._tiles.read(level, y, x, height, width)
        else:
            with self._reading(level, what) as raster:
                data = self._data(raster, Window(x, y, width, height))
            pixels = Pixels(np.ascontiguousarray(data))
            if self._stored:
                pixels = self._without_sparse(pixels.data, what, level, (y, x, height, width))
        return replace(pixels, valid=both_valid(pixels.valid, valid))

    def _without_sparse(
        self, data: np.ndarray, what: str, level: int, window: tuple[int, int, int, int]
    ) -> Pixels:
        """Px, and which of them lie in blocks that a sparse file leaves out."""
        y, x, height, width = window
        side_y, side_x = self.levels[level].tile_height, self.levels[level].tile_width
        valid, lost, missing = None, np.zeros(len(self._bands), np.int64), 0
        with self._reading(0, what) as raster:
            for row in range(y // side_y, -(-(y + height) // side_y)):
                for column in range(x // side_x, -(-(x + width) // side_x)):
                    absent = [
                        not self._tag(raster, "OFFSET", level, row, column, band) for band in self._planes
                    ]
                    if not any(absent):
                        continue
                    missing += 1
                    lost += np.broadcast_to(absent, lost.shape)
                    valid = np.ones(data.shape, bool) if valid is None else valid
                    rows = slice(max(row * side_y - y, 0), max((row + 1) * side_y - y, 0))
                    columns = slice(max(column * side_x - x, 0), max((column + 1) * side_x - x, 0))
                    valid[rows, columns, np.broadcast_to(absent, lost.shape)] = False
        return Pixels(data, valid, missing, lost if missing else None)

    def _tag(self, raster: Any, tag: str, level: int, row: int, column: int, band: int) -> str | None:
        overview = self._overviews[level]
        extra = {} if overview is None else {"ovr": overview}
        return raster.get_tag_item(f"BLOCK_{tag}_{column}_{row}", "TIFF", bidx=band, **extra)

    def _levels(self, raster: Any) -> tuple[list[int | None], tuple[Level, ...], bool]:
        """Overview number of each level (None: the image), the levels, whether tiles are stored blocks."""
        found: list[tuple[int | None, tuple[int, int], tuple[int, int]]] = [
            (None, raster.shape, raster.shape if is_one_strip(raster) else raster.block_shapes[0])
        ]
        for k in range(len(raster.overviews(1))):
            with self._file.open(k) as reduced:
                size, block = reduced.shape, reduced.block_shapes[0]
            aspect = raster.height / size[0] / (raster.width / size[1])
            slack = 1 / size[0] + 1 / size[1] + 0.01
            empty = size in self._empty and raster.shape not in self._empty
            if size[1] < found[-1][1][1] and abs(aspect - 1) <= slack and not empty:
                found.append((k, size, block))
        is_tiff = raster.driver == "GTiff"
        downsamples = level_downsamples([size for _, size, _ in found])
        levels = tuple(
            _level(downsample, size, block, is_tiff=is_tiff)
            for (_, size, block), downsample in zip(found, downsamples, strict=True)
        )
        blocks = [(level.tile_height, level.tile_width) for level in levels]
        stored = is_tiff and blocks == [block for _, _, block in found] and not is_one_strip(raster)
        return [k for k, _, _ in found], levels, stored

    @contextmanager
    def _reading(self, level: int, what: str) -> Iterator[Any]:
        """This thread's handle of a level; its errors are ``ReadError``."""
        try:
            with self._file.reading(), strict():
                yield self._handles[level].get()
        except Exception as error:
            self._handles[level].drop()
            why, remedy = self._address.hidden(reason(error)), "copy or export the file again"
            remedy = "check what signs its address" if self._address.signed else remedy
            raise ReadError(
                f"{self.source}, {what}: damaged or out of reach, GDAL can't read it ({why}); {remedy}"
            ) from error


def _ranges(source: str, requests: RequestStats) -> RangeFile | None:
    """The file by ranges; None if only GDAL can read it, perhaps because it knows who may."""
    try:
        return cloud_optimised(source, requests)
    except NotFoundError:
        if not has_credentials():
            raise
        return None


def _close(handle: Any) -> None:
    handle.close()


def _level(downsample: float, size: tuple[int, int], block: tuple[int, int], *, is_tiff: bool) -> Level:
    rows, columns = block
    if rows >= size[0] and columns >= size[1] and rows > 2 * _ROWS:
        rows = _ROWS
    while not is_tiff and max(rows, columns) < _SMALL:
        rows, columns = rows * 2, columns * 2
    return Level(
        width=size[1],
        height=size[0],
        downsample=downsample,
        tile_width=columns,
        tile_height=rows,
    )
