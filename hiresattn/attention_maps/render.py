"""Attention of an image as pictures and maps: one raster per class, composed from the maps of its regions."""

import math
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from hiresattn.conversion.target import beside, writing
from hiresattn.pyramid.base import Pyramid
from hiresattn.report.view import Region, display_range, read_view, to_image
from hiresattn.shapes import Float

#: Longest side of a raster, px.
_LONGEST = 4096
#: Px of a raster across the finest map's px, where that fits.
_FINE = 4
#: Longer side of a picture, px.
_SIDE = 768
#: Least size of a region over that of the largest one of its depth.
_ALIKE = 0.85
#: In a raster being made: nothing covers this px yet.
_NO_MAP = -1.0
#: Colours of a heat map from 0 to 1, and how much they cover.
_HEAT = np.array([(0, 0, 80), (120, 20, 130), (230, 60, 60), (255, 170, 20), (255, 255, 120)], np.float64)
_COVERS = 0.75

#: Index of a class, the region that a map shows, and the map ``[h w]``, 0 to 1.
RegionMap = tuple[int, Region, np.ndarray]


@dataclass(frozen=True)
class Attention:
    """Attention of an image for some classes, as rasters."""

    values: Float[np.ndarray, "c h w"]
    """0 to 1, float32; 0 also where there is no map."""
    classes: tuple[str, ...]
    """Name of each."""
    frame: Region
    """What it shows, level-0 px."""
    step: int
    """Level-0 px per px; the last row and column may reach beyond the frame."""


def compose(
    maps: Iterable[RegionMap], frame: Region, classes: Sequence[str], step: int | None = None
) -> Attention:
    """Lay the maps of regions of all depths over each other, from the largest regions to the smallest.

    Every map is scaled by its own maximum, so a smaller region's can only say how what its region was worth is spread
    over it: it is multiplied by the largest value that the larger regions' gave the class within the region (1 where
    none of them covers any of it), and takes their place. Of regions of the same size the largest value counts. Thus
    a smaller region sharpens, and never exceeds what was there before. Between the centres of a map's px values go in
    straight lines.

    Args:
        maps: The maps of one image.
        frame: What is shown, level-0 px; what lies outside is left out.
        classes: Names, by index.
        step: Level-0 px per px of the result; None = a power of two, at most a quarter of the finest map's px
            unless the result had more than 4096 px along a side.

    Returns:
        Rasters of the classes that have maps, in the order of their index.
    """
    maps = list(maps)
    labels = sorted({label for label, _, _ in maps})
    finest = min((min(r[2] / m.shape[0], r[3] / m.shape[1]) for _, r, m in maps), default=max(frame[2:]))
    if step is None:
        step = 1
        while 2 * step <= finest / _FINE or max(frame[2:]) > step * _LONGEST:
            step *= 2
    values = np.full((len(labels), -(-frame[2] // step), -(-frame[3] // step)), _NO_MAP, np.float32)
    for layer in _layers(maps):
        laid = []
        for label, region, shown in layer:
            (rows, down), (columns, along) = (
                _lines(region[axis] - frame[axis], region[axis + 2], shown.shape[axis], step, most)
                for axis, most in enumerate(values.shape[1:])
            )
            part = values[labels.index(label), rows, columns]
            worth = part.max()
            laid.append((part, down, shown * (1.0 if worth == _NO_MAP else worth), along))
        for part, *_ in laid:
            part[:] = 0
        for part, down, shown, along in laid:
            np.maximum(part, down @ shown @ along.T, out=part)
    np.maximum(values, 0, out=values)
    return Attention(values, tuple(classes[label] for label in labels), frame, step)


def _layers(maps: Sequence[RegionMap]) -> list[list[RegionMap]]:
    """The maps by the size of their regions, the largest first.

    Sizes tell depths apart: a cell's side is less than 0.8 of its region's, and those of one depth differ by rounding
    and by being cut to the image alone. So neither the maps nor the files that keep them need to say their depth.
    """
    layers: list[list[RegionMap]] = []
    for one in sorted(maps, key=_size, reverse=True):
        if not layers or _size(one) < _ALIKE * _size(layers[-1][0]):
            layers.append([])
        layers[-1].append(one)
    return layers


def _size(one: RegionMap) -> float:
    """Mean side of a map's region, level-0 px."""
    return math.sqrt(one[1][2] * one[1][3])


def _lines(start: int, length: int, count: int, step: int, most: int) -> tuple[slice, np.ndarray]:
    """Which px of a raster's axis a region covers with their centres, and what each takes of its map's px."""
    first = max(int(np.ceil(start / step - 0.5)), 0)
    last = min(int(np.ceil((start + length) / step - 0.5)), most)
    if last <= first:  # smaller than a px: the one that holds its middle
        first = min(max(int((start + length / 2) // step), 0), most - 1)
        last = first + 1
    at = (((np.arange(first, last) + 0.5) * step - start) / length * count - 0.5).clip(0, count - 1)
    return slice(first, last), np.maximum(1 - np.abs(at[:, None] - np.arange(count)), 0).astype(np.float32)


def write_attention(pyramid: Pyramid, attention: Attention, folder: Path, stem: str) -> list[Path]:
    """Write an image's attention for people (PNG) and for programs (GeoTIFF or OME-Zarr, aligned with the image).

    ``<stem>.<class>.png`` shows each class as heat over a coarse view. ``<stem>.tif``, for images with a place on
    earth, has the image's coordinate system; ``<stem>.ome.zarr``, for others, has scales and offsets that put it on
    the image (in micrometres if the image has a scale, else in level-0 px). Either has a float32 band per class.

    Args:
        pyramid: The image; its coarse view is read.
        attention: What to write.
        folder: Where; it is there.
        stem: How the files' names begin.

    Returns:
        The files.

    Raises:
        ReadError: If a tile can't be decoded.
        WriteError: If a file can't be written; there is nothing of it then.
    """
    view = read_view(pyramid, attention.frame, _SIDE)
    plain = to_image(view, *display_range(view, pyramid.dtype))
    written = []
    for name, values in zip(attention.classes, attention.values, strict=True):
        path = folder / f"{stem}.{_plain(name)}.png"
        with beside(path, overwrite=True) as part, writing(path):
            _heated(plain, values, attention).save(part, format="PNG")
        written.append(path)
    on_earth = pyramid.crs is not None and pyramid.transform is not None
    path = folder / f"{stem}.{'tif' if on_earth else 'ome.zarr'}"
    with beside(path, overwrite=True) as part, writing(path):
        (_write_geotiff if on_earth else _write_zarr)(part, pyramid, attention)
    return [*written, path]


def _plain(name: str) -> str:
    """A class's name as a part of a file's."""
    return re.sub(r"[^\w-]+", "_", name)


def _heated(plain: Image.Image, values: np.ndarray, attention: Attention) -> Image.Image:
    """A picture of the frame under the colours of a map of it."""
    height, width = attention.frame[2] / attention.step, attention.frame[3] / attention.step
    large = Image.fromarray(values).resize(
        plain.size, Image.Resampling.BILINEAR, box=(0, 0, width, height), reducing_gap=None
    )
    heat = np.asarray(large).clip(0, 1)
    stops = np.linspace(0, 1, len(_HEAT))
    colours = np.stack([np.interp(heat, stops, _HEAT[:, band]) for band in range(3)], axis=2)
    cover = _COVERS * heat[..., None]
    grey = np.asarray(plain.convert("L").convert("RGB"))
    return Image.fromarray(((1 - cover) * grey + cover * colours).round().astype(np.uint8))


def _write_geotiff(path: Path, pyramid: Pyramid, attention: Attention) -> None:
    import rasterio

    assert pyramid.transform is not None  # noqa: S101 - for the type checker
    (y, x), step = attention.frame[:2], attention.step
    a, b, c, d, e, f = pyramid.transform
    where = rasterio.Affine(a * step, b * step, c + a * x + b * y, d * step, e * step, f + d * x + e * y)
    count, height, width = attention.values.shape
    options: dict[str, Any] = {"compress": "deflate", "predictor": 3}
    if min(height, width) > 256:
        options |= {"tiled": True, "blockxsize": 256, "blockysize": 256}
    with rasterio.open(
        path,
        "w",
        driver="GTiff",
        height=height,
        width=width,
        count=count,
        dtype="float32",
        crs=rasterio.crs.CRS.from_user_input(pyramid.crs),
        transform=where,
        **options,
    ) as file:
        file.write(attention.values)
        file.descriptions = attention.classes


def _write_zarr(path: Path, pyramid: Pyramid, attention: Attention) -> None:
    import zarr

    group = zarr.open_group(path, mode="w-", zarr_format=3)
    count, *sides = attention.values.shape
    array = group.create_array(
        "0",
        shape=attention.values.shape,
        chunks=(count, *(min(side, 512) for side in sides)),
        dtype="float32",
        dimension_names=["c", "y", "x"],
    )
    array[:] = attention.values
    unit, mpp = ({}, 1.0) if pyramid.mpp is None else ({"unit": "micrometer"}, pyramid.mpp)
    side = attention.step * mpp
    centre = (attention.step - 1) / 2  # of the first px, from that of the level-0 px at its corner
    starts = [(start + centre) * mpp for start in attention.frame[:2]]
    moves = [
        {"type": "scale", "scale": [1.0, side, side]},
        {"type": "translation", "translation": [0.0, *starts]},
    ]
    axes = [{"name": "c", "type": "channel"}, *({"name": axis, "type": "space", **unit} for axis in "yx")]
    window = {"start": 0, "end": 1, "min": 0, "max": 1}
    shown: list[Any] = [
        {"label": name, "color": "FF5500", "window": window, "active": not i}
        for i, name in enumerate(attention.classes)
    ]
    datasets = [{"path": "0", "coordinateTransformations": moves}]
    multiscale: dict[str, Any] = {"name": "attention", "axes": axes, "datasets": datasets}
    group.attrs["ome"] = {"version": "0.5", "multiscales": [multiscale], "omero": {"channels": shown}}
