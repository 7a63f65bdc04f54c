"""A slide from file to answer: searched, and beside it every place read and encoded, as people do; and cold starts.

    python benchmarks/end_to_end.py DATA [--side 16384] [--folder DIR]

The slide is a tiled JPEG pyramid of real tissue, the network EfficientNet-B0 with random weights: what is found means
nothing, what it costs does. *Every place* is OpenSlide's ``read_region`` in a loop, crops of 224 px side by side, and
the same network at the size of batch that was measured to take it the least time, over the whole slide. Bytes are
those that the process asked the system for. *Cold* is a process of its own: the command line, from its start.
"""

import resource
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from itertools import product
from pathlib import Path
from typing import Any

import click
import numpy as np
import openslide
import torch
from PIL import Image

from engines import fresh
from hiresattn import ClassifyOptions, load_model
from hiresattn.inference.classify import classify_in
from hiresattn.inference.engine import Engine
from hiresattn.inference.onnx_export import export_onnx
from hiresattn.inference.session import start_session
from scenes.canvas import Canvas
from scenes.writers import write_tiff
from store import store

SIZE, BUDGET = 224, 64
BATCHES = (1, 4, 16, 32)
ENGINES = ("torch", "onnx")
#: Runs of a search, and of a process: the median counts.
RUNS = 5
IO = Path("/proc/self/io")
DEMO = Path(__file__).parents[1] / "hiresattn" / "demo" / "model"


def measured(work: Callable[[], Any]) -> dict[str, float]:
    """CPU and wall time of some work, and the bytes that it asked the system for."""

    def asked() -> int:
        return int(IO.read_text().split("rchar: ")[1].split()[0])

    before, cpu, wall = asked(), time.process_time(), time.perf_counter()
    work()
    cpu, wall = time.process_time() - cpu, time.perf_counter() - wall
    return {"cpu_seconds": cpu, "seconds": wall, "bytes": asked() - before}


def look(engine: Engine, crops: list[np.ndarray], places: list[tuple[int, int]]) -> None:
    """Encode crops ``[h w 3]`` of uint8."""
    pixels = np.ascontiguousarray(np.stack(crops).transpose(0, 3, 1, 2)).astype(np.float32) / 127.5 - 1
    coverage = np.ones((len(crops), SIZE, SIZE), np.float32)
    regions = np.array([(y, x, SIZE, SIZE) for y, x in places])
    engine.look(pixels, coverage, regions, regions, np.zeros((len(crops), 3), np.int64))


def best_batch(engine: Engine) -> int:
    """Crops in a batch that take the network the least time each."""
    crop, spent = np.full((SIZE, SIZE, 3), 99, np.uint8), {}
    for count in BATCHES:
        turns = [
            measured(lambda n=count: look(engine, [crop] * n, [(0, 0)] * n)) for _ in range(1 + 64 // count)
        ]
        spent[count] = min(turn["cpu_seconds"] for turn in turns[1:]) / count
    return min(spent, key=spent.__getitem__)


def every_place(path: Path, engine: Engine, batch: int) -> None:
    """Read and encode a whole slide."""
    with openslide.OpenSlide(path) as slide:
        for part in batches(*slide.dimensions, batch):
            crops = [slide.read_region((x, y), 0, (SIZE, SIZE)).convert("RGB") for y, x in part]
            look(engine, [np.asarray(crop) for crop in crops], part)


def batches(width: int, height: int, count: int) -> list[list[tuple[int, int]]]:
    """Places ``(y, x)`` side by side, so many at a time."""
    rows, columns = range(0, height - SIZE + 1, SIZE), range(0, width - SIZE + 1, SIZE)
    places = list(product(rows, columns))
    return [places[start : start + count] for start in range(0, len(places), count)]


def whole(path: Path, folder: Path) -> list[dict[str, Any]]:
    """A row for each engine and way."""
    model, side, rows = fresh(folder, "efficientnet_b0", SIZE), 0, []
    with openslide.OpenSlide(path) as slide:
        side, names = slide.dimensions[0], {"openslide": openslide.__library_version__}
    crops = sum(map(len, batches(side, side, 1)))
    regions = {}
    for engine in ENGINES:
        options = ClassifyOptions(engine=engine, budget=BUDGET, stop=None, threads=1, device="cpu")
        session = start_session(load_model(model) if engine == "torch" else model, options)

        def search(one: Any = session, name: str = engine) -> None:
            (record,) = classify_in(one, [str(path)])
            regions[name] = [(region.y, region.x, region.height) for region in record.regions]

        search()
        runs = [measured(search) for _ in range(RUNS)]
        found = {key: statistics.median(run[key] for run in runs) for key in runs[0]}
        rows.append({"way": "search", "engine": engine, "crops": len(regions[engine]), **found})
        print(rows[-1], flush=True)
        batch = best_batch(session.engine)
        spent = measured(lambda one=session.engine, n=batch: every_place(path, one, n))
        rows.append(
            {"way": "every place", "engine": engine, "batch": batch, "crops": crops, **names, **spent}
        )
        print(rows[-1], flush=True)
    assert regions["torch"] == regions["onnx"]
    return rows


def cold(image: Path, folder: Path) -> list[dict[str, Any]]:
    """CPU and wall time of processes of the command line, at an image of the demo model's kind."""
    model = folder / "demo"
    shutil.copytree(DEMO, model)
    export_onnx(model)
    classify = ["classify", image, "-m", model]
    commands = {
        "info": ["info", image],
        "classify --dry-run": [*classify, "--dry-run"],
        "classify --engine onnx": [*classify, "--engine", "onnx"],
        "classify --engine torch": [*classify, "--engine", "torch"],
    }
    spent: dict[str, list[tuple[float, float]]] = {name: [] for name in commands}
    for _ in range(RUNS + 1):
        for name, words in commands.items():
            before, started = resource.getrusage(resource.RUSAGE_CHILDREN), time.perf_counter()
            code = "from hiresattn_cli.main import main; main()"
            subprocess.run([sys.executable, "-c", code, *map(str, words)], check=True, capture_output=True)
            after, wall = resource.getrusage(resource.RUSAGE_CHILDREN), time.perf_counter() - started
            cpu = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
            spent[name].append((cpu, wall))
    rows = []
    for name, turns in spent.items():
        cpu, wall = (statistics.median(column) for column in zip(*turns[1:], strict=True))
        rows.append({"command": name, "cpu_seconds": cpu, "seconds": wall})
        print(rows[-1], flush=True)
    return rows


@click.command()
@click.argument("data", type=click.Path(exists=True, file_okay=False, path_type=Path))
@click.option("--side", default=16384, show_default=True)
@click.option("--folder", type=click.Path(path_type=Path), help="Where the slide is kept.")
def main(data: Path, side: int, folder: Path | None) -> None:
    """Measure and store."""
    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory() as temporary:
        home = folder or Path(temporary)
        slide, image = home / f"{side}-slide.tif", Path(temporary) / "image.png"
        if not slide.exists():
            write_tiff(Canvas(data, side), slide, quality=80, subsampling="420")
        rng = np.random.default_rng(0)
        Image.fromarray(rng.integers(0, 255, (700, 900), np.uint8)).save(image)
        starts = cold(image, Path(temporary))
        rows = whole(slide, Path(temporary))
        size = slide.stat().st_size
    print(store("end_to_end", side=side, file_bytes=size, budget=BUDGET, rows=rows, cold=starts))


if __name__ == "__main__":
    main()
