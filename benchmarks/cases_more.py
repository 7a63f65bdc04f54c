"""The cases that are served, converted, read as a manifest, or as fMoW; see ``cases.py``."""

import json
import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from urllib.parse import unquote

import numpy as np
import torch

import hiresattn
from hiresattn.checkpoint import Model, save_model
from hiresattn.config import InputConfig, ModelConfig
from hiresattn.datasets.manifest import read_manifest
from hiresattn.errors import HiresattnError
from hiresattn.fmow.classes import CLASSES
from hiresattn.model.build import build_model

CRS, SIDE = "EPSG:32633", 512
#: How the server answers where the px are to be read; elsewhere, words of the error to come.
RIGHT = (
    "range", "redir", "whole200", "star", "nocr", "etag", "cap", "lower", "strict416", "redirtok", "presigned",
)  # fmt: skip
SERVED = {
    **dict.fromkeys(RIGHT, ""),
    "norange": "can't open it",
    "gzip": "out of reach",
    "auth": "401",
    "auth403": "403",
    "auth404": "no such file",
    "login": "no raster that GDAL knows; check the address",
}
#: Names that a file has on the server.
NAMES = (
    "a b.tif",
    "ü.tif",
    "x%231.tif",
    "q%3Fy.tif",
    "plus+.tif",
    "per%2520cent.tif",
    "excl!.tif",
    "br[1].tif",
)

Row = dict[str, Any]


def row(kind: str, case: str, check: Callable[[], list[str]]) -> Row:
    """The outcome of a case, by what a check finds wrong."""
    try:
        wrong = check()
    except HiresattnError as error:
        return {"set": kind, "case": case, "outcome": "refused", "words": str(error)}
    return {"set": kind, "case": case, "outcome": "wrong" if wrong else "right", "words": "; ".join(wrong)}


def written(path: Path, side: int, **options: Any) -> np.ndarray:
    """A GeoTIFF of noise, and its px ``[h w c]``."""
    import rasterio

    image = np.random.default_rng(0).integers(0, 255, (3, side, side), np.uint8)
    place = {"crs": CRS, "transform": rasterio.Affine(10, 0, 500000, 0, -10, 5000000)}
    profile = {"driver": "GTiff", "width": side, "height": side, "count": 3, "dtype": "uint8"}
    path.parent.mkdir(exist_ok=True)
    with rasterio.open(path, "w", **profile, **place, **options) as file:
        file.write(image)
    return np.moveaxis(image, 0, 2)


def converted(folder: Path) -> list[Row]:
    """A slide with unscanned area, converted: its background on all levels, and OpenSlide sees these levels."""
    source = folder / "e01_leica_bounds" / "l.scn"

    def check(name: str) -> list[str]:
        target = folder / name
        hiresattn.convert(source, target)
        with hiresattn.open_pyramid(target) as pyramid:
            corners = [pyramid.read(k, 0, 0, 1, 1).ravel().tolist() for k in range(len(pyramid.levels))]
        wrong = [] if corners == [[255] * 3] * 4 else [f"the unscanned corner by level: {corners}"]
        if target.suffix == ".tif":
            import openslide

            with openslide.OpenSlide(target) as slide:
                sides = [width for width, _ in slide.level_dimensions]
            if sides != [2048, 1024, 512, 256]:
                wrong.append(f"OpenSlide sees levels of widths {sides}")
        return wrong

    return [row("convert", f"j01 {name}", lambda name=name: check(name)) for name in ("o.tif", "o.zarr")]


def lerc(folder: Path) -> list[Row]:
    """LERC's masks: NaN where NaN was written, and not valid."""
    import rasterio

    def check(packed: str, bands: int) -> list[str]:
        image = np.random.default_rng(0).random((bands, SIDE, SIDE)).astype(np.float32)
        image[:, :100] = np.nan
        path = folder / f"lerc_{packed}_{bands}.tif"
        layout = {
            "tiled": True,
            "blockxsize": 128,
            "blockysize": 128,
            "interleave": "pixel" if bands > 2 else "band",
        }
        profile = {"width": SIDE, "height": SIDE, "count": bands, "dtype": "float32", "nodata": np.nan}
        with rasterio.open(
            path, "w", driver="GTiff", compress=packed, max_z_error=0, **profile, **layout
        ) as file:
            file.write(image)
        with hiresattn.open_pyramid(path) as pyramid:
            found = pyramid.read_masked(0, 0, 0, SIDE, SIDE)
        wrong = [] if np.array_equal(found.data, np.moveaxis(image, 0, 2), equal_nan=True) else ["px differ"]
        if found.valid is None or not np.array_equal(found.valid, np.isfinite(image[0])):
            wrong.append("what is NaN is valid")
        return wrong

    kinds = [(packed, bands) for packed in ("LERC", "LERC_DEFLATE", "LERC_ZSTD") for bands in (2, 3)]
    return [row("lerc", f"{p} {b} bands", lambda p=p, b=b: check(p, b)) for p, b in kinds]


@contextmanager
def _served(folder: Path, scripts: Path) -> Iterator[str]:
    """The address of the recipes' server of a folder."""
    port = folder / "port"
    port.unlink(missing_ok=True)
    command = [sys.executable, scripts / "server.py", folder, port, folder / "log"]
    with subprocess.Popen(command, stderr=subprocess.DEVNULL) as server:
        while not (port.exists() and port.read_text()):
            time.sleep(0.05)
        yield f"http://127.0.0.1:{port.read_text()}"
        server.terminate()


def _differs(path: str, truth: np.ndarray) -> list[str]:
    with hiresattn.open_pyramid(path) as pyramid:
        same = np.array_equal(pyramid.read(0, 0, 0, pyramid.height, pyramid.width), truth)
    return [] if same else ["px differ"]


def remote(folder: Path, scripts: Path) -> list[Row]:
    """Servers that answer oddly, and names with odd characters."""
    web = folder / "web"
    big = written(web / "big.tif", 2048, tiled=True, compress="deflate")
    small = written(web / "small.tif", 64)
    rows = []
    with _served(web, scripts) as address:
        for way, words in SERVED.items():
            one = row("remote", way, lambda way=way: _differs(f"{address}/{way}/big.tif", big))
            if one["outcome"] == "right" and words:
                one |= {"outcome": "wrong", "words": "an error was expected"}
            elif one["outcome"] == "refused" and (not words or words not in one["words"]):
                one["outcome"] = "wrong"
            rows.append(one)
        os.environ["GDAL_HTTP_HEADERS"] = "X-Token: s3cret"
        (web / "secret.tif").write_bytes((web / "big.tif").read_bytes())
        rows += [
            row("remote", f"{way}, token", lambda way=way: _differs(f"{address}/{way}/secret.tif", big))
            for way in ("auth", "auth403", "auth404", "login")
        ]
        del os.environ["GDAL_HTTP_HEADERS"]
        user = address.replace("http://", "http://user:pw@")
        rows.append(row("remote", "user and password", lambda: _differs(f"{user}/basic/big.tif", big)))
        for name in NAMES:
            (web / unquote(name)).write_bytes((web / "small.tif").read_bytes())
            rows.append(row("remote", name, lambda name=name: _differs(f"{address}/range/{name}", small)))
    return [one | {"words": one["words"].replace(address, "http://server")} for one in rows]


def sidecars(folder: Path, scripts: Path) -> list[Row]:
    """Masks, overviews, notes and world files beside an image: served, they count as they do here."""

    def check(name: str, address: str) -> list[str]:
        wrong = []
        with (
            hiresattn.open_pyramid(folder / name) as here,
            hiresattn.open_pyramid(f"{address}/range/{name}") as there,
        ):
            wrong += [
                f"{word} {getattr(there, word)}, not {getattr(here, word)}"
                for word in ("crs", "transform", "nodata")
                if getattr(here, word) != getattr(there, word)
            ]
            if [(k.height, k.width) for k in here.levels] != [(k.height, k.width) for k in there.levels]:
                return [*wrong, f"{len(there.levels)} levels, not {len(here.levels)}"]
            for k, level in enumerate(here.levels):
                one, other = (p.read_masked(k, 0, 0, level.height, level.width) for p in (here, there))
                if not np.array_equal(one.data, other.data):
                    wrong.append(f"level {k}: px differ")
                if not np.array_equal(one.valid, other.valid):
                    wrong.append(f"level {k}: masks differ")
        return wrong

    names = [name for stem in ("m01", "m02", "m04", "g06", "g07", "g08", "o02", "o03", "o04") for name in
             sorted(path.name for path in folder.glob(f"{stem}.*")) if name.endswith((".tif", ".png"))]  # fmt: skip
    with _served(folder, scripts) as address:
        return [row("served", name, lambda name=name: check(name, address)) for name in names]


def fmow(folder: Path, scripts: Path) -> list[Row]:
    """A tree of fMoW with oddities: every box of the truth is answered."""
    subprocess.run([sys.executable, scripts / "fmowtree.py"], check=True, cwd=folder)
    config = ModelConfig(classes=CLASSES, input=InputConfig(size=64))
    torch.manual_seed(0)
    save_model(Model(build_model(config), config, "untrained", ""), folder / "fmow-model")

    def check() -> list[str]:
        hires = [sys.executable, "-m", "hiresattn_cli.main"]
        commands = (
            ["fmow", "index", "fmow-rgb", "-o", "fmow.csv", "--window", "context", "--false-detections"],
            [
                "fmow",
                "evaluate",
                "fmow-model",
                "fmow.csv",
                "--protocol",
                "challenge",
                "--categories",
                "found.txt",
            ],
        )
        for command in commands:
            done = subprocess.run([*hires, *command], cwd=folder, capture_output=True, text=True, check=False)
            if done.returncode:
                return [f"{' '.join(command[:2])}: {done.stderr.strip()[-300:]}"]
        found = [line.split(",")[0] for line in (folder / "found.txt").read_text().split()]
        lost = sorted({"101", "102", "103", "104", "105"} - set(found))
        return [f"boxes {', '.join(lost)} have no answer"] if lost else []

    return [row("fmow", "every truth ID is answered", check)]


def newcomer(folder: Path, given: Path) -> list[Row]:
    """Boxes in longitude and latitude on a scene of another CRS; a class that QuPath ignores."""
    from rasterio.warp import transform

    written(folder / "scene.tif", SIDE)
    xs, ys = [500000 + 10 * x for x in (100, 160)], [5000000 - 10 * y for y in (200, 250)]
    (left, right), (top, bottom) = transform(CRS, "EPSG:4326", xs, ys)
    corners = [[left, top], [right, top], [right, bottom], [left, bottom], [left, top]]
    feature = {
        "type": "Feature",
        "properties": {"label": "a"},
        "geometry": {"type": "Polygon", "coordinates": [corners]},
    }
    (folder / "ll.geojson").write_text(json.dumps({"type": "FeatureCollection", "features": [feature]}))
    (folder / "ll.csv").write_text("path,label,boxes\nscene.tif,a,ll.geojson\n")
    ignored = json.loads((given / "PT-000_A0.geojson").read_text())
    (folder / "qp.geojson").write_text(json.dumps(ignored))
    (folder / "qp.csv").write_text("path,label,boxes\nscene.tif,a,qp.geojson\n")

    def degrees() -> list[str]:
        (example,) = read_manifest(folder / "ll.csv")
        ((y, x, height, width),) = example.boxes or ()
        near = np.abs(np.array([y, x, height, width]) - (200, 100, 50, 60)).max() <= 2
        return [] if near else [f"the box is {(y, x, height, width)}"]

    def qupath() -> list[str]:
        (example,) = read_manifest(folder / "qp.csv")
        return [f"boxes {example.boxes}"] if example.boxes or example.box_labels else []

    return [row("newcomer", "boxes in lon/lat", degrees), row("newcomer", "QuPath's ignored class", qupath)]
