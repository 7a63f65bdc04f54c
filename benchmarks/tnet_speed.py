"""Time per image of EfficientNet-B0 on the whole image against TNet on few crops of it, with and without reading.

    python benchmarks/tnet_speed.py [--repeats 15] [--images 4]

The paper's fMoW configuration with random weights (time doesn't depend on them), on synthetic images in JPEG
COGs. CPU time on one thread; the ways take turns, in another order each time. Reading includes opening the file;
nothing is kept from one turn to the next. Crops of all images of a batch are encoded together, depth by depth.
"""

import argparse
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import rasterio
import torch
from rasterio.io import MemoryFile
from rasterio.shutil import copy

from hiresattn import open_pyramid
from hiresattn.config import InputConfig
from hiresattn.geometry import root_regions
from hiresattn.model.build import build_model
from hiresattn.model.describe import describe
from hiresattn.model.net import GlimpseNet
from hiresattn.model.presets import PRESETS
from hiresattn.model.select import TopK
from hiresattn.reading.fetch import CropFetcher, Crops
from store import store

#: Name, preset, side of the image (px) and cells per region and depth.
WAYS = (
    ("EfficientNet-B0 at 448 px", "efficientnet-b0", 448, ()),
    ("TNet at 448 px, 2 locations", "tnet-fmow", 448, (2,)),
    ("EfficientNet-B0 at 896 px", "efficientnet-b0", 896, ()),
    ("TNet at 896 px, 4 locations", "tnet-fmow", 896, (2, 1)),
    ("TNet at 896 px, 6 locations", "tnet-fmow", 896, (3, 1)),
)


@dataclass
class Way:
    """One way to answer, and its times in seconds per image."""

    name: str
    side: int
    k: tuple[int, ...]
    net: GlimpseNet
    rule: InputConfig
    macs: int
    crops: dict[tuple[int, ...], Crops]
    alone: list[float]
    reading: list[float]


def write_cog(path: Path, side: int, seed: int) -> None:
    """A square image with detail at all scales, as a COG of JPEG tiles with overviews."""
    rng = np.random.default_rng(seed)
    pixels = np.zeros((3, side, side))
    step = side
    while step >= 2:
        rough = rng.normal(size=(3, side // step + 2, side // step + 2))
        at = np.arange(side) / step
        low, part = at.astype(int), at % 1
        rows = rough[:, low] * (1 - part[:, None]) + rough[:, low + 1] * part[:, None]
        pixels += (rows[:, :, low] * (1 - part) + rows[:, :, low + 1] * part) * step**0.5
        step //= 2
    pixels = 127 + 45 * pixels / pixels.std()
    profile = {"driver": "GTiff", "width": side, "height": side, "count": 3, "dtype": "uint8"}
    profile["transform"] = rasterio.Affine(0.5, 0, 500000, 0, -0.5, 5000000)
    with MemoryFile() as memory:
        with memory.open(**profile) as plain:
            plain.write(np.clip(pixels, 0, 255).astype(np.uint8))
        with memory.open() as plain:
            options = {"compress": "JPEG", "quality": 90, "blocksize": 256, "overview_resampling": "average"}
            copy(plain, path, driver="COG", **options)


def build(name: str, preset: str, side: int, k: tuple[int, ...]) -> Way:
    """A network that reads the file's own pixels: the images are square and of the right size already."""
    config = replace(PRESETS[preset].at(side), classes=PRESETS[preset].named().classes)
    rule = replace(config.input, squash=None, filter="area")
    macs = describe(config, side, k).macs
    torch.manual_seed(0)
    return Way(name, side, k, build_model(config).eval(), rule, macs, {}, [], [])


def answer(way: Way, fetch: Callable[..., Any], images: int) -> torch.Tensor:
    """Logits of a batch."""
    roots = [root_regions(way.side, way.side) for _ in range(images)]
    frames = np.array([[0, 0, way.side, way.side]] * images)
    with torch.inference_mode():
        return way.net(fetch, roots, frames, select=TopK(), k=way.k or (0,)).logits


def with_reading(way: Way, files: list[Path]) -> torch.Tensor:
    """Open, read what is looked at, answer."""
    pyramids = [open_pyramid(file) for file in files]
    try:
        with CropFetcher(pyramids, way.rule, threads=0) as fetcher:
            return answer(way, fetcher, len(files))
    finally:
        for pyramid in pyramids:
            pyramid.close()


def remembering(way: Way, files: list[Path]) -> Callable[..., Crops]:
    """A fetch that has every crop in memory after its first call."""
    pyramids = [open_pyramid(file) for file in files]
    fetcher = CropFetcher(pyramids, way.rule, threads=0)

    def fetch(image: np.ndarray, regions: np.ndarray) -> Crops:
        key = (*image.tolist(), *regions.ravel().tolist())
        if key not in way.crops:
            way.crops[key] = fetcher(image, regions)
        return way.crops[key]

    return fetch


def timed(run: Callable[[], torch.Tensor]) -> tuple[float, torch.Tensor]:
    """CPU seconds, and the answer."""
    started = time.process_time()
    logits = run()
    return time.process_time() - started, logits


def main() -> None:
    """Measure and store."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--repeats", type=int, default=15)
    parser.add_argument("--images", type=int, default=4)
    options = parser.parse_args()
    torch.set_num_threads(1)
    ways = [build(*way) for way in WAYS]
    with tempfile.TemporaryDirectory() as folder, rasterio.Env(GDAL_NUM_THREADS="1"):
        files: dict[int, list[Path]] = {}
        for side in sorted({way.side for way in ways}):
            files[side] = [Path(folder) / f"{side}-{seed}.tif" for seed in range(options.images)]
            for seed, file in enumerate(files[side]):
                write_cog(file, side, seed)
        fetches = [remembering(way, files[way.side]) for way in ways]
        for way, fetch in zip(ways, fetches, strict=True):  # warm up; the two must agree
            alone, reading = answer(way, fetch, options.images), with_reading(way, files[way.side])
            assert torch.allclose(alone, reading, atol=1e-4), way.name
        rng = np.random.default_rng(0)
        for _ in range(options.repeats):
            for index in rng.permutation(len(ways)):
                way, fetch = ways[index], fetches[index]
                way.alone.append(
                    timed(lambda w=way, f=fetch: answer(w, f, options.images))[0] / options.images
                )
                way.reading.append(timed(lambda w=way: with_reading(w, files[w.side]))[0] / options.images)
        sizes = {side: float(np.mean([file.stat().st_size for file in files[side]])) for side in files}
    whole = {way.side: way for way in ways if not way.k}
    rows = []
    for way in ways:
        row = {"name": way.name, "side": way.side, "locations": list(way.k), "macs": way.macs}
        for kind in ("alone", "reading"):
            mine, other = np.array(getattr(way, kind)), np.array(getattr(whole[way.side], kind))
            row[f"{kind}_ms"] = round(1000 * float(np.median(mine)), 2)
            row[f"{kind}_ratio"] = [round(float(v), 3) for v in np.percentile(other / mine, (50, 10, 90))]
        row["macs_ratio"] = round(whole[way.side].macs / way.macs, 3)
        rows.append(row)
        print(row, flush=True)
    print(store("tnet_speed", rows=rows, repeats=options.repeats, images=options.images, file_bytes=sizes))


if __name__ == "__main__":
    main()
