"""OME-Zarr 0.5: Zarr 3, sharded, every chunk with a checksum."""

from pathlib import Path
from typing import Any

import numpy as np

import hiresattn
from hiresattn.conversion.image import Image
from hiresattn.conversion.levels import Block

#: Bytes of a chunk above which bands are parted into several.
_CHUNK_BYTES = 1 << 22

#: What ``compression`` may be.
COMPRESSIONS = ("zstd", "blosc", "none")

#: Level 1 takes half the time of 3, for about 2 % more bytes of a scan.
_ZSTD_LEVEL = 1

_CONVENTIONS = "https://raw.githubusercontent.com/zarr-conventions"
#: The conventions that the attributes ``proj:…`` and ``spatial:…`` follow.
_PROJ = {
    "name": "proj",
    "uuid": "f17cb550-5864-4468-aeb7-f3180cfb622f",
    "schema_url": f"{_CONVENTIONS}/geo-proj/refs/tags/v1/schema.json",
}
_SPATIAL = {
    "name": "spatial",
    "uuid": "689b58e2-cf7b-45e0-9fff-9cfc0883d6b4",
    "schema_url": f"{_CONVENTIONS}/spatial/refs/tags/v1/schema.json",
}


class OmeZarrWriter:
    """Writes blocks to one array ``[c y x]`` per level.

    What is measured is an array beside it, ``valid/<level>``, where the pixels can't say so themselves. Only
    chunks that were never written are absent, so an absent chunk is always a damage.

    Args:
        path: Directory to make.
        image: What is written.
        sizes: Rows and columns of each level.
        chunk: Side of a chunk, px.
        shard: Side of a shard, px; a block.
        compression: One of ``COMPRESSIONS``.
    """

    def __init__(
        self,
        path: Path,
        image: Image,
        sizes: list[tuple[int, int]],
        *,
        chunk: int,
        shard: int,
        compression: str,
    ) -> None:
        import zarr

        self._group = zarr.open_group(path, mode="w-", zarr_format=3)
        self._image = image
        self._sizes = sizes
        self._chunk = chunk
        self._shard = shard
        self._compression = compression
        held = max(_CHUNK_BYTES // (chunk * chunk * image.dtype.itemsize), 1)
        self._bands = min(image.channels, held)
        self._arrays = [self._array(str(k), k, image.channels, image.dtype) for k in range(len(sizes))]
        self._valid: list[Any] = []
        self._written: list[tuple[int, slice, slice]] = []

    def write(self, block: Block) -> None:
        """Write one block."""
        height, width = block.data.shape[1:]
        window = slice(block.y, block.y + height), slice(block.x, block.x + width)
        self._arrays[block.level][:, *window] = block.data
        if block.valid is not None and not self._valid:
            self._valid = [
                self._array(f"valid/{k}", k, None, np.dtype(np.uint8)) for k in range(len(self._sizes))
            ]
            for level, *where in self._written:
                self._valid[level][tuple(where)] = 1
        if self._valid:
            self._valid[block.level][window] = 1 if block.valid is None else block.valid
        self._written.append((block.level, *window))

    def finish(self) -> None:
        """Write what the arrays are."""
        image = self._image
        attributes: dict[str, Any] = {"ome": {"version": "0.5", "multiscales": [self._multiscale()]}}
        shown = _shown(image)
        if shown:
            attributes["ome"]["omero"] = {"channels": shown}
        attributes |= _place(image)
        own: dict[str, Any] = {"version": hiresattn.__version__, "source": Path(image.pyramid.source).name}
        if image.mark is not None:
            own["nodata"] = image.mark if np.isfinite(image.mark) else str(image.mark)
        if self._valid:
            own["valid"] = "valid"
        kept = {name: image.per_band(name) for name in ("colors", "scales", "offsets")}
        if image.region[2:] == (image.pyramid.height, image.pyramid.width):
            kept["bounds"] = image.pyramid.bounds
        own |= {name: list(values) for name, values in kept.items() if values is not None}
        self._group.attrs.update({**attributes, "hiresattn": own})

    def close(self) -> None:
        """Nothing is open."""

    def _array(self, name: str, level: int, channels: int | None, dtype: np.dtype[Any]) -> Any:
        height, width = self._sizes[level]
        chunk = self._chunk
        shape: tuple[int, ...] = height, width
        chunks: tuple[int, ...] = chunk, chunk
        shards = tuple(min(self._shard, -(-side // chunk) * chunk) for side in shape)
        if channels is not None:
            bands = self._bands
            shape, chunks = (channels, *shape), (bands, *chunks)
            shards = (-(-channels // bands) * bands, *shards)
        return self._group.create_array(
            name,
            shape=shape,
            chunks=chunks,
            shards=shards,
            dtype=dtype,
            fill_value=0,
            compressors=self._codecs(),
            dimension_names=["c", "y", "x"][-len(shape) :],
            config={"write_empty_chunks": True},
        )

    def _codecs(self) -> list[Any]:
        from zarr.codecs import BloscCodec, Crc32cCodec, ZstdCodec

        made: dict[str, list[Any]] = {
            "zstd": [ZstdCodec(level=_ZSTD_LEVEL)],
            "blosc": [BloscCodec(cname="zstd", clevel=_ZSTD_LEVEL, shuffle="shuffle")],
            "none": [],
        }
        return [*made[self._compression], Crc32cCodec()]

    def _multiscale(self) -> dict[str, Any]:
        mpp = self._image.pyramid.mpp
        unit = {} if mpp is None else {"unit": "micrometer"}
        axes = [{"name": "c", "type": "channel"}, *({"name": axis, "type": "space", **unit} for axis in "yx")]
        datasets = []
        for k in range(len(self._sizes)):
            side = (mpp or 1.0) * 2**k
            centre = (side - (mpp or 1.0)) / 2  # of the first px, from that of level 0
            moved = [{"type": "translation", "translation": [0.0, centre, centre]}] if k else []
            scale = {"type": "scale", "scale": [1.0, side, side]}
            datasets.append({"path": str(k), "coordinateTransformations": [scale, *moved]})
        return {"name": "image", "axes": axes, "datasets": datasets, "type": "area average"}


_RGB = (("red", "FF0000"), ("green", "00FF00"), ("blue", "0000FF"))


def _shown(image: Image) -> list[dict[str, Any]]:
    """How a viewer shows each band: by its name and, of whole numbers, over all their range."""
    rgb = image.dtype == np.uint8 and image.channels == len(_RGB)
    names = image.per_band("channel_names") or ([label for label, _ in _RGB] if rgb else [])
    window = {}
    if image.dtype.kind in "ui":
        low, high = int(np.iinfo(image.dtype).min), int(np.iinfo(image.dtype).max)
        window = {"window": {"start": low, "end": high, "min": low, "max": high}}
    colours = [colour for _, colour in _RGB] if rgb else ["FFFFFF"] * len(names)
    return [
        {"label": label, "color": colour, **window, "active": True}
        for label, colour in zip(names, colours, strict=True)
    ]


def _place(image: Image) -> dict[str, Any]:
    """Coordinate system and transform, as the GeoZarr conventions write them."""
    attributes: dict[str, Any] = {}
    conventions = []
    crs = image.pyramid.crs
    if crs is not None:
        name, _, code = crs.partition(":")
        short = name.isalnum() and code.isalnum()
        attributes["proj:code" if short else "proj:wkt2"] = crs if short else _wkt2(crs)
        conventions.append(_PROJ)
    if image.transform is not None:
        attributes |= {
            "spatial:dimensions": ["y", "x"],
            "spatial:transform": list(image.transform),
            "spatial:shape": [image.height, image.width],
        }
        conventions.append(_SPATIAL)
    return {**attributes, "zarr_conventions": conventions} if conventions else {}


def _wkt2(crs: str) -> str:
    from rasterio.crs import CRS

    return str(CRS.from_user_input(crs).to_wkt(version="WKT2_2019"))
