"""What `classify` spends its time on: a gigapixel slide, EfficientNet-B0, 64 looks; and what Numba costs a process.

python benchmarks/slide_profile.py DATA [--side 40960] [--folder DIR]

The weights are random: what the model finds means nothing, what it costs does. Imports and compiled kernels apart,
in CPU time and wall time, one thread; the median of several runs, each of which opens the file anew.
"""

import json
import statistics
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import click
import torch

import hiresattn.inference.sources as module
from hiresattn.checkpoint import Model, load_model, save_model
from hiresattn.config import InputConfig, ModelConfig
from hiresattn.inference.classify import classify
from hiresattn.model.build import build_model
from hiresattn.reading.fetch import CropFetcher
from scenes.canvas import Canvas
from scenes.writers import write_tiff
from store import store

BUDGET, SIZE, RUNS = 64, 224, 7
CLOCKS = {"cpu": time.process_time, "wall": time.perf_counter}
#: A fresh process: importing Numba, then one crop of each kind from kernels that an earlier process compiled.
FRESH = """
import json, sys, time
import numpy as np
import hiresattn
from hiresattn.config import InputConfig
start = time.process_time()
import numba
imported = time.process_time() - start
from hiresattn.reading.fetch import CropFetcher
from numba.core import dispatcher
spent, misses, depth = 0.0, 0, 0
load = dispatcher.Dispatcher.compile
def timed(self, sig):
    global spent, depth
    before = time.process_time()
    depth += 1
    try:
        return load(self, sig)
    finally:
        depth -= 1
        if not depth:
            spent += time.process_time() - before
dispatcher.Dispatcher.compile = timed
with hiresattn.open_pyramid(sys.argv[1]) as pyramid:
    with CropFetcher([pyramid], InputConfig(size=224), threads=1) as fetch:
        side = min(pyramid.height, pyramid.width)
        fetch(np.zeros(2, np.int64), np.array([[0, 0, side, side], [0, 0, 224, 224]]))
from hiresattn.reading import kernels
misses = sum(sum(k.stats.cache_misses.values()) for k in vars(kernels).values() if hasattr(k, "stats"))
print(json.dumps({"import": imported, "kernels": spent, "compiled": misses}))
"""


class Clock:
    """Time spent in parts of the code, CPU and wall, by the part's name; parts don't hold each other."""

    def __init__(self) -> None:
        self.spent: Counter[tuple[str, str]] = Counter()

    def timed(self, part: str, work: Callable[..., Any]) -> Callable[..., Any]:
        """The same work, timed."""

        def run(*args: Any, **kwargs: Any) -> Any:
            before = {name: clock() for name, clock in CLOCKS.items()}
            try:
                return work(*args, **kwargs)
            finally:
                for name, clock in CLOCKS.items():
                    self.spent[part, name] += clock() - before[name]

        return run


def profile(slide: Path, model: Model) -> dict[str, dict[str, float]]:
    """One classification, the file opened anew: seconds by part and clock."""
    clock = Clock()
    opened, read = module.SharedImages.acquire, CropFetcher.__call__
    parts = list(model.net.children())
    for part in parts:
        part.forward = clock.timed("model", part.forward)
    module.SharedImages.acquire = clock.timed("open", opened)
    CropFetcher.__call__ = clock.timed("read", read)
    try:
        whole = clock.timed("total", lambda: classify(slide, model, budget=BUDGET, stop="off", threads=1))
        cost = whole().cost
    finally:
        module.SharedImages.acquire, CropFetcher.__call__ = opened, read
        for part in parts:
            del part.forward
    assert cost.glimpses == BUDGET, cost
    found: dict[str, dict[str, float]] = {part: {} for part in ("model", "read", "open", "total")}
    for (part, name), seconds in clock.spent.items():
        found[part][name] = seconds
    found["rest"] = {
        name: found["total"][name] - sum(found[part][name] for part in ("model", "read", "open"))
        for name in CLOCKS
    }
    return found


def numba_of_a_second_process(slide: Path) -> dict[str, float]:
    """CPU seconds that a fresh process spends on Numba when another has compiled before."""
    runs = []
    for _ in range(RUNS):
        done = subprocess.run(
            [sys.executable, "-c", FRESH, str(slide)], capture_output=True, text=True, check=True
        )
        runs.append(json.loads(done.stdout))
    assert not any(run["compiled"] for run in runs[1:])
    return {key: statistics.median(run[key] for run in runs[1:]) for key in ("import", "kernels")}


@click.command()
@click.argument("data", type=click.Path(exists=True, file_okay=False))
@click.option("--side", default=40960)
@click.option("--folder", type=click.Path(exists=True, file_okay=False), help="Where the slide is kept.")
def main(data: str, side: int, folder: str | None) -> None:
    """Measure and store."""
    torch.set_num_threads(1)
    torch.manual_seed(0)
    config = ModelConfig(classes=("a", "b"), encoder="efficientnet_b0", input=InputConfig(size=SIZE))
    with tempfile.TemporaryDirectory() as temporary:
        slide = Path(folder or temporary) / f"slide{side}.tif"
        if not slide.exists():
            write_tiff(Canvas(data, side), slide, quality=80, subsampling="420")
        save_model(Model(build_model(config), config, "untrained", ""), Path(temporary) / "model")
        model = load_model(Path(temporary) / "model")
        profile(slide, model)  # kernels, caches
        runs = [profile(slide, model) for _ in range(RUNS)]
        numba = numba_of_a_second_process(slide)
        size = slide.stat().st_size
    rows = {
        part: {name: statistics.median(run[part][name] for run in runs) for name in CLOCKS}
        for part in runs[0]
    }
    share = statistics.median(run["rest"]["cpu"] / run["total"]["cpu"] for run in runs)
    for part, seconds in rows.items():
        print(part, {name: round(value, 4) for name, value in seconds.items()})
    print({"rest, share of CPU time": share, "numba": numba})
    print(store("slide_profile", side=side, bytes=size, budget=BUDGET, rows=rows, rest=share, numba=numba))


if __name__ == "__main__":
    main()
