"""A server of scenes and their STAC items, as pages of the documentation name it."""

import json
import subprocess
import sys
from contextlib import contextmanager

import rasterio
import rasterio.warp
from shapely.geometry import box, mapping

from tests.pyramid import serve

#: What pages call it.
SERVER = "https://stac.example.com"
COLORS = ("red", "green", "blue")


@contextmanager
def served(folder):
    """The address of a server of what lies in a folder: ``items.json``, made of its ``scene.tif``."""
    words = [sys.executable, serve.__file__, str(folder), str(folder / "served.log")]
    with subprocess.Popen(words, stdout=subprocess.PIPE, text=True) as server:  # noqa: S603 - our own
        try:
            address = f"http://127.0.0.1:{server.stdout.readline().strip()}"
            write_items(folder, address)
            yield address
        finally:
            server.terminate()


def write_items(folder, address):
    """A collection of two items: a scene on two dates, a cloud-optimised file per band, with absolute addresses."""
    items = []
    with rasterio.open(folder / "scene.tif") as scene:
        grid = {
            "proj:code": str(scene.crs),
            "proj:shape": scene.shape,
            "proj:transform": [*scene.transform][:6],
        }
        around = rasterio.warp.transform_bounds(scene.crs, 4326, *scene.bounds)
        pixels = scene.read()
        how = {"crs": scene.crs, "transform": scene.transform, "height": scene.height, "width": scene.width}
    for month, name in ((6, "june"), (7, "july")):
        assets = {}
        for color, band in zip(COLORS, pixels, strict=True):
            file = f"{name}-{color}.tif"
            with rasterio.open(
                folder / file, "w", driver="COG", count=1, dtype=band.dtype, blocksize=256, **how
            ) as image:
                image.write(band, 1)
            bands = [{"name": color, "eo:common_name": color}]
            kind = "image/tiff; application=geotiff; profile=cloud-optimized"
            assets[color] = {"href": f"{address}/{file}", "type": kind, "roles": ["data"], "bands": bands}
        items.append(
            {
                "type": "Feature",
                "stac_version": "1.1.0",
                "stac_extensions": ["https://stac-extensions.github.io/projection/v2.0.0/schema.json"],
                "id": name,
                "collection": "scenes",
                "geometry": mapping(box(*around)),
                "bbox": around,
                "properties": {"datetime": f"2020-{month:02}-01T10:00:00Z"} | grid,
                "links": [],
                "assets": assets,
            }
        )
    write_features(folder / "items.json", items)


def write_features(path, features):
    """A collection of features."""
    path.write_text(json.dumps({"type": "FeatureCollection", "features": features}), encoding="utf-8")


def write_fields(path):
    """Two areas on the scene, in longitude and latitude."""
    areas = {"rye": (15, 45.149, 15.005, 45.153), "oats": (15.005, 45.141, 15.012, 45.147)}
    fields = [
        {"type": "Feature", "properties": {"id": name, "crop": crop}, "geometry": mapping(box(*areas[crop]))}
        for name, crop in (("north", "rye"), ("south", "oats"))
    ]
    write_features(path, fields)
