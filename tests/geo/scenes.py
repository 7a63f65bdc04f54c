"""Scenes with coordinates, and records of them as ``classify`` makes them."""

from pathlib import Path

import numpy as np
import rasterio
from rasterio import Affine

import hiresattn
from hiresattn.inference.record import CaseSource, Cost, Record, VisitedRegion

DATA = Path(__file__).parents[3] / "shared" / "data" / "geotiff"
SIDES = (600, 800)

#: Made scenes: CRS, and transform of px (column, row).
MADE = {
    "north-up": ("EPSG:32618", Affine(30, 0, 500000, 0, -30, 4500000)),
    "rotated": ("EPSG:32759", Affine(0.4, 0.3, 337574, 0.3, -0.4, 7840301)),
    "south-up": ("EPSG:32633", Affine(10, 0, 400000, 0, 10, 5000000)),
    "antimeridian": ("EPSG:32760", Affine(30, 0, 805000, 0, -30, 8100000)),
    "antimeridian in degrees": ("EPSG:4326", Affine(0.01, 0, 176, 0, -0.01, 10)),
    "around the pole": ("EPSG:3413", Affine(1000, 0, -400000, 0, -1000, 300000)),
}


def write_scene(path, crs, transform, sides=SIDES, count=1):
    """A GeoTIFF of noise."""
    shape = {"height": sides[0], "width": sides[1], "count": count, "dtype": "uint8"}
    pixels = np.random.default_rng(0).integers(0, 255, (count, *sides), dtype=np.uint8)
    with rasterio.open(path, "w", driver="GTiff", tiled=True, crs=crs, transform=transform, **shape) as file:
        file.write(pixels)
    return path


def at(transform, x, y):
    """Coordinates of px by a transform."""
    a, b, c, d, e, f = tuple(transform)[:6]
    return a * x + b * y + c, d * x + e * y + f


def source_of(path, region=None):
    """What a record says of an image."""
    with hiresattn.open_pyramid(path) as image:
        return CaseSource(
            source=str(path), region=region, height=image.height, width=image.width, crs=image.crs,
            transform=image.transform, glimpses=4, fraction_read=0.25,
        )  # fmt: skip


def regions_in(source, count=4, number=0):
    """Regions anywhere in an image, and all of it first."""
    rng = np.random.default_rng(number)
    found = [VisitedRegion(0, None, 0, 0, 0, source.height, source.width, 0.1, 0.0, source=number)]
    for at in range(1, count):
        y, x = int(rng.integers(source.height - 1)), int(rng.integers(source.width - 1))
        height, width = (int(rng.integers(1, side + 1)) for side in (source.height - y, source.width - x))
        found.append(
            VisitedRegion(at, 0, 1, y, x, height, width, 0.9 / (count - 1), -1.0, "location", number)
        )
    return tuple(found)


def record_of(*sources, **changes):
    """A record of images."""
    regions = tuple(
        one for n, source in enumerate(sources) if not source.error for one in regions_in(source, number=n)
    )
    values = {
        "source": sources[0].source,
        "status": "ok",
        "sources": sources,
        "class_name": "port",
        "score": 0.75,
        "scores": {"port": 0.75, "airport": 0.25},
        "regions": regions,
        "cost": Cost(glimpses=len(regions), bytes_read=2**40, stop_reason="budget"),
        "model": {"name": "m", "sha256": "0" * 64},
        "version": "0.1.0",
    }
    return Record(**{**values, **changes})


def box_of(region):
    """A region's ``(y, x, height, width)``."""
    return region.y, region.x, region.height, region.width
