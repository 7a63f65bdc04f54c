"""OME-Zarr 0.1 to 0.5, and plain Zarr arrays, by zarr."""

from itertools import pairwise, product
from pathlib import Path
from typing import Any, ClassVar

import numpy as np

from hiresattn.errors import BackendMissingError, NotFoundError, OpenError, ReadError
from hiresattn.geometry import Level
from hiresattn.pyramid.base import Pyramid
from hiresattn.pyramid.formats.gdal import CHECK
from hiresattn.pyramid.formats.geozarr import Georeference
from hiresattn.pyramid.formats.multiscales import channels_of, described, downsamples, scale
from hiresattn.pyramid.metadata import Metadata
from hiresattn.pyramid.pixels import Pixels, both_valid, note_empty
from hiresattn.pyramid.storage.tiles import agrees
from hiresattn.pyramid.storage.zarrchunks import ChunkIndex, check_chunk, local_store
from hiresattn.pyramid.storage.zarrtiles import ZarrTiles


class ZarrPyramid(Pyramid):
    """An OME-Zarr image, or a Zarr array ``[h w c]`` or ``[h w]``; opened for reading only.

    Axes are found by name, dataset paths and scales in the metadata, never guessed. A chunk that the store
    leaves out is not valid, holds the array's fill value and is counted, inside shards too (unless the
    shard's index is stored in an unusual way: then only whole missing shards are seen). What GeoZarr
    attributes, and those of ``hiresattn convert``, state of georeference, nodata and mask holds.

    Args:
        source: Path of a directory, or an address that fsspec knows.
        mpp: Micrometres per level-0 px, in place of what the file says.
        nodata: Value that stands for "nothing measured here".

    Raises:
        NotFoundError: If nothing is there.
        OpenError: If it isn't one flat image, or its levels contradict its scales.
    """

    backend: ClassVar[str] = "zarr"

    def __init__(self, source: str, *, mpp: float | None = None, nodata: float | None = None) -> None:
        from hiresattn.pyramid.storage.blosc import checked

        node = _opened(source)
        image = described(node, source)
        node, arrays, axes, scales = image.node, image.arrays, image.axes, image.scales
        georeference = Georeference.of(dict(node.attrs), source)
        rows, columns = axes.index("y"), axes.index("x")
        sizes = [(array.shape[rows], array.shape[columns]) for array in arrays]
        masks = georeference.masks(node, sizes, source)
        full = [not ChunkIndex(array, axes).empty() for array in arrays]
        if any(full) and not full[0]:
            raise OpenError(f"{source}: all tiles of level 0 are missing; copy the whole store again")
        used = [level for level, has in enumerate(full) if has or not full[0]]
        arrays = [arrays[level] for level in used]
        scales = None if scales is None else [scales[level] for level in used]
        self._arrays = [checked(array) for array in arrays]
        self._axes = axes
        self._chunks = [ChunkIndex(array, axes) for array in arrays]
        self._valid = [masks[level] for level in used] if masks else masks
        for array in arrays:
            check_chunk(array, source)
        first = arrays[0]
        self._bands = axes.index("c") if "c" in axes else None
        channels = 1 if self._bands is None else int(first.shape[self._bands])
        for array in arrays:
            if array.dtype != first.dtype or channels_of(array, axes) != channels or 0 in array.shape:
                raise OpenError(f"{source}: its levels differ in bands or type; write it again")
        if np.dtype(first.dtype).kind not in "uif":
            raise OpenError(f"{source}: pixels of type {first.dtype}; possible are whole numbers and floats")
        levels = tuple(
            Level(
                width=int(array.shape[columns]),
                height=int(array.shape[rows]),
                downsample=downsample,
                tile_width=int(array.chunks[columns]),
                tile_height=int(array.chunks[rows]),
            )
            for array, downsample in zip(
                arrays, downsamples(arrays, scales, (rows, columns), source), strict=True
            )
        )
        if any(b.downsample <= a.downsample for a, b in pairwise(levels)):
            raise OpenError(f"{source}: its datasets aren't listed finest first; write it again")
        chosen, where = scale(mpp, scales, image.units, (rows, columns))
        super().__init__(
            source,
            Metadata(
                levels=levels,
                channels=channels,
                dtype=np.dtype(first.dtype).newbyteorder("="),
                mpp=chosen,
                mpp_source=where,
                crs=georeference.crs,
                transform=georeference.transform,
                nodata=georeference.nodata if nodata is None else nodata,
                channel_names=_each_of(channels, image.names),
                colors=_each_of(channels, georeference.colors),
                scales=_each_of(channels, georeference.scales),
                offsets=_each_of(channels, georeference.offsets),
                notes=note_empty(size for level, size in enumerate(sizes) if level not in used),
                bounds=_each_of(4, georeference.bounds),
            ),
            mpp=mpp,
            nodata=nodata,
        )
        self.exact_bytes = all(chunks.exact for chunks in self._chunks)
        try:
            if not self._valid and all(chunks.chunkwise for chunks in self._chunks):  # tiles have no mask
                self.native_tiles = ZarrTiles(source, self._arrays, axes, self._chunks)
        except ValueError:  # codecs that only zarr decodes
            self.native_tiles = None
        if (
            self.native_tiles is not None
            and self.exact_bytes
            and not agrees(self.native_tiles, self._by_zarr, lossy=False)
        ):
            self.native_tiles = None

    def array(self, level: int) -> tuple[Any, str]:
        """The ``zarr.Array`` of a level, and its axes as letters."""
        return self._arrays[level], "".join(axis[0] for axis in self._axes)

    def tile_bytes(self, level: int, row: int, column: int) -> int:
        """Stored bytes of a tile, exact for local stores; 0 if it is left out."""
        self.tile_window(level, row, column)
        if not self.exact_bytes:
            return super().tile_bytes(level, row, column)
        chunks = self._chunks[level]
        return sum(chunks.size(chunk) or 0 for chunk in chunks.of_tile(row, column))

    def _read(self, level: int, y: int, x: int, height: int, width: int) -> Pixels:
        if self.native_tiles is not None:
            return self.native_tiles.read(level, y, x, height, width)
        return self._by_zarr(level, y, x, height, width)

    def _by_zarr(self, level: int, y: int, x: int, height: int, width: int) -> Pixels:
        has, chunks = self.levels[level], self._chunks[level]
        tiles = list(
            product(
                range(y // has.tile_height, -(-(y + height) // has.tile_height)),
                range(x // has.tile_width, -(-(x + width) // has.tile_width)),
            )
        )
        valid, lost, missing = None, np.zeros(self.channels, np.int64), 0
        for row, column in tiles:
            try:
                sizes = [chunks.size(chunk) for chunk in chunks.of_tile(row, column)]
            except Exception as error:
                raise self._damaged(level, row, column, error) from error
            if None in sizes:
                missing += 1
                absent = np.repeat([size is None for size in sizes], chunks.bands_together)[: self.channels]
                lost += absent
                valid = np.ones((height, width, self.channels), bool) if valid is None else valid
                top, left = row * has.tile_height - y, column * has.tile_width - x
                rows = slice(max(top, 0), max(top + has.tile_height, 0))
                valid[rows, max(left, 0) : max(left + has.tile_width, 0), absent] = False
        try:
            if self._valid:
                measured = np.asarray(self._valid[level][y : y + height, x : x + width]) > 0
                valid = both_valid(valid, measured)
            return Pixels(self._decode(level, y, x, height, width), valid, missing, lost if missing else None)
        except Exception as error:
            self._name_the_tile(level, tiles)
            raise self._damaged(level, *tiles[0], error) from error

    def _decode(self, level: int, y: int, x: int, height: int, width: int) -> np.ndarray:
        window: dict[str, Any] = {"y": slice(y, y + height), "x": slice(x, x + width), "c": slice(None)}
        part = np.asarray(self._arrays[level][tuple(window.get(axis, 0) for axis in self._axes)])
        kept = [axis for axis in self._axes if axis in window]
        part = part.transpose([kept.index(axis) for axis in "yxc" if axis in kept])
        return np.ascontiguousarray(part.reshape(height, width, -1), self.dtype)

    def _name_the_tile(self, level: int, tiles: list[tuple[int, int]]) -> None:
        """Find which tile of a failed window is the damaged one."""
        for row, column in tiles:
            try:
                self._decode(level, *self.tile_window(level, row, column))
            except Exception as error:
                raise self._damaged(level, row, column, error) from error

    def _damaged(self, level: int, row: int, column: int, error: Exception) -> ReadError:
        reason = (str(error) or type(error).__name__).splitlines()[0]
        return ReadError(
            f"{self.source}, level {level}, tile in row {row}, column {column}: damaged or out of reach, "
            f"zarr can't read it ({reason}); copy or write the store again"
        )


def _each_of(bands: int, values: tuple[Any, ...] | None) -> tuple[Any, ...] | None:
    """A value for each band; None where there are more or fewer."""
    return values if values is not None and len(values) == bands else None


def _opened(source: str) -> Any:
    import zarr

    try:
        return zarr.open(source if "://" in source else local_store(source), mode="r")
    except ImportError as error:
        raise BackendMissingError(f"{source}: {error}; pip install 'fsspec[http,s3]'") from error
    except Exception as error:
        if isinstance(error, FileNotFoundError) and "://" not in source and not Path(source).exists():
            raise NotFoundError(f"{source}: there is no such file; check the path") from error
        reason = (str(error) or type(error).__name__).splitlines()[0]
        remedy = "give the directory that holds zarr.json, .zgroup or .zarray"
        if "://" in source:
            remedy += f"; {CHECK}"
        raise OpenError(f"{source}: no Zarr array or group can be read here ({reason}); {remedy}") from error
