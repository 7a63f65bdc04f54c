"""Time per image of EfficientNet-B0 on the whole image against TNet on few crops of it, with and without reading.

    python benchmarks/tnet_speed.py [--repeats 9] [--images 4]

The paper's fMoW configuration with random weights (time doesn't depend on them), on synthetic images in JPEG
COGs, in PyTorch and in ONNX Runtime. CPU time on one thread; the ways take turns, in another order each time.
Reading includes opening the file; nothing is kept from one turn to the next. Images come one by one, and the crops
of a depth are encoded together.
"""

import argparse
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import rasterio
import torch
from rasterio.io import MemoryFile
from rasterio.shutil import copy

from hiresattn import open_pyramid
from hiresattn.card import read_card
from hiresattn.checkpoint import Model, save_model
from hiresattn.config import InputConfig
from hiresattn.geometry import root_regions
from hiresattn.inference.by_depth import by_depth
from hiresattn.inference.engine import Engine
from hiresattn.inference.onnx_engine import OnnxEngine
from hiresattn.inference.onnx_export import export_onnx
from hiresattn.inference.torch_engine import TorchEngine
from hiresattn.model.build import build_model
from hiresattn.model.describe import describe
from hiresattn.model.presets import PRESETS
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
    """One way to answer, and its times in seconds per image: all images of a turn, by engine and kind."""

    name: str
    side: int
    k: tuple[int, ...]
    engines: dict[str, Engine]
    rule: InputConfig
    macs: int
    times: dict[tuple[str, str], list[float]] = field(default_factory=dict)


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


def build(name: str, preset: str, side: int, k: tuple[int, ...], folder: Path) -> Way:
    """A network that reads the file's own pixels: the images are square and of the right size already."""
    config = replace(PRESETS[preset].at(side), classes=PRESETS[preset].named().classes)
    macs = describe(config, side, k).macs
    if not k:  # random scores can't be exported; where nothing is divided, nobody asks for these
        config = replace(config, scorer="location")
    torch.manual_seed(0)
    net, path = build_model(config).eval(), folder / f"{preset}-{side}-{len(k)}"
    save_model(Model(net, config, name, ""), path)
    export_onnx(path)
    engines: dict[str, Engine] = {
        "torch": TorchEngine(net, 1),
        "onnx": OnnxEngine(read_card(path), device="cpu", threads=1),
    }
    rule = replace(config.input, squash=None, filter="area")
    return Way(name, side, k, engines, rule, macs)


def answer(way: Way, engine: str, fetch: Callable[..., Crops]) -> np.ndarray:
    """Logits of an image."""
    roots, frame = root_regions(way.side, way.side), np.array([[0, 0, way.side, way.side]])
    return by_depth(way.engines[engine], fetch, roots, frame, k=way.k or (0,)).logits


def with_reading(way: Way, engine: str, file: Path) -> np.ndarray:
    """Open, read what is looked at, answer."""
    with open_pyramid(file) as pyramid, CropFetcher([pyramid], way.rule, threads=0) as fetch:
        return answer(way, engine, fetch)


def remembering(way: Way, file: Path) -> Callable[..., Crops]:
    """A fetch that has every crop in memory after its first call."""
    pyramid, kept = open_pyramid(file), {}
    fetcher = CropFetcher([pyramid], way.rule, threads=0)

    def fetch(image: np.ndarray, regions: np.ndarray) -> Crops:
        key = tuple(regions.ravel().tolist())
        if key not in kept:
            kept[key] = fetcher(image, regions)
        return kept[key]

    return fetch


def one_turn(way: Way, engine: str, files: list[Path], fetches: list[Callable[..., Crops]]) -> None:
    """Answer all images, with and without reading."""
    for kind, run in (("alone", answer), ("reading", with_reading)):
        started = time.process_time()
        for image in fetches if kind == "alone" else files:
            run(way, engine, image)  # type: ignore[operator]
        spent = (time.process_time() - started) / len(files)
        way.times.setdefault((engine, kind), []).append(spent)


def check(way: Way, files: list[Path], fetches: list[Callable[..., Crops]]) -> None:
    """Warm up; with and without reading, and both engines, must agree."""
    for file, fetch in zip(files, fetches, strict=True):
        wanted = answer(way, "torch", fetch)
        for engine in way.engines:
            assert np.allclose(answer(way, engine, fetch), wanted, atol=1e-3), (way.name, engine)
            assert np.allclose(with_reading(way, engine, file), wanted, atol=1e-3), (way.name, engine)


def result(way: Way, whole: Way) -> dict[str, Any]:
    """Medians, and the ratios to the encoder on the whole image, turn by turn."""
    row: dict[str, Any] = {"name": way.name, "side": way.side, "locations": list(way.k), "macs": way.macs}
    for (engine, kind), seconds in way.times.items():
        ratios = np.array(whole.times[engine, kind]) / np.array(seconds)
        row[f"{engine}_{kind}_ms"] = round(1000 * float(np.median(seconds)), 2)
        row[f"{engine}_{kind}_ratio"] = [round(float(v), 3) for v in np.percentile(ratios, (50, 10, 90))]
    return row | {"macs_ratio": round(whole.macs / way.macs, 3)}


def main() -> None:
    """Measure and store."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--repeats", type=int, default=9)
    parser.add_argument("--images", type=int, default=4)
    options = parser.parse_args()
    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory() as folder, rasterio.Env(GDAL_NUM_THREADS="1"):
        home = Path(folder)
        ways = [build(*way, home) for way in WAYS]
        files: dict[int, list[Path]] = {}
        for side in sorted({way.side for way in ways}):
            files[side] = [home / f"{side}-{seed}.tif" for seed in range(options.images)]
            for seed, file in enumerate(files[side]):
                write_cog(file, side, seed)
        fetches = [[remembering(way, file) for file in files[way.side]] for way in ways]
        for way, fetch in zip(ways, fetches, strict=True):
            check(way, files[way.side], fetch)
        turns = [(number, engine) for number, way in enumerate(ways) for engine in way.engines]
        rng = np.random.default_rng(0)
        for _ in range(options.repeats):
            for turn in rng.permutation(len(turns)):
                number, engine = turns[turn]
                one_turn(ways[number], engine, files[ways[number].side], fetches[number])
        sizes = {side: float(np.mean([file.stat().st_size for file in files[side]])) for side in files}
    whole = {way.side: way for way in ways if not way.k}
    rows = [result(way, whole[way.side]) for way in ways]
    for row in rows:
        print(row)
    print(store("tnet_speed", rows=rows, repeats=options.repeats, images=options.images, file_bytes=sizes))


if __name__ == "__main__":
    main()
