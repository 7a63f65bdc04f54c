"""The needle as real files: tiled JPEG pyramids of 1 megapixel to 4.3 gigapixels, written, searched, deleted.

    python benchmarks/needle_files.py [-m MODEL] [--exhaustive MODEL] [--counts 1024:150,4096:50,…]

The levels of a file are 2 x 2 means of what JPEG left of the level before, where a scene rendered when read is
drawn anew at each. With `--exhaustive` a model that pools every place (`exhaustive.py`) classifies the
first three of the same files, up to 16,384 px a side; in one run, so that the CPU-seconds compare.
"""

import tempfile
import time
from collections.abc import Iterator
from importlib.resources import files
from pathlib import Path
from typing import Any

import click
import torch

import needle
from exhaustive import ALL
from hiresattn import classify, load_model
from hiresattn.checkpoint import Model
from hiresattn.demo.needle import NeedleScene
from hiresattn.demo.run import write_scene
from hiresattn.inference.record import Record
from store import store

COUNTS = "1024:100,4096:30,16384:6,65536:2"
#: Largest side at which every place is looked at, and in how many of the files.
LARGEST, MOST = 16384, 3


def measure(model: Model, exhaustive: Model | None, side: int, count: int) -> Iterator[dict[str, Any]]:
    """A row per policy; one file is on the disk at a time."""
    scenes = [NeedleScene(number, side, split="test") for number in range(count)]
    asked = {policy: (model, options) for policy, options in needle.POLICIES.items()}
    if exhaustive and side <= LARGEST:
        asked["exhaustive"] = (exhaustive, ALL)
    found: dict[str, list[Record]] = {policy: [] for policy in asked}
    spent = dict.fromkeys(asked, 0.0)
    size = 0
    for scene in scenes:
        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder) / "scene.tif"
            write_scene(scene, path)
            size += path.stat().st_size
            for policy, (chosen, options) in asked.items():
                if policy == "exhaustive" and len(found[policy]) == MOST:
                    continue
                started = time.process_time()
                given = {"budget": needle.BUDGET, "device": "cpu", "threads": 1} | options
                found[policy] += [classify(path, chosen, **given)]
                spent[policy] += time.process_time() - started
    for policy, (chosen, _) in asked.items():
        yield {
            "policy": policy,
            "side": side,
            "scenes": len(found[policy]),
            **needle.figures(found[policy], scenes[: len(found[policy])], chosen.config.finest_side),
            "cpu_ms": 1000 * spent[policy] / len(found[policy]),
            "bytes": size / count,
        }


@click.command()
@click.option("-m", "--model", help="Model directory; default: the one that ships.")
@click.option("--exhaustive", "alternative", help="Model directory of `exhaustive.py`.")
@click.option("--counts", default=COUNTS, help="Side:files, …")
@click.option("--name", default="needle-files", help="Name of the stored result.")
def main(model: str | None, alternative: str | None, counts: str, name: str) -> None:
    """Measure and store."""
    torch.set_num_threads(1)
    loaded = load_model(model or str(files("hiresattn.demo") / "model"))
    other = load_model(alternative) if alternative else None
    list(measure(loaded, other, 1024, 2))  # compile the kernels
    rows = []
    for part in counts.split(","):
        side, count = map(int, part.split(":"))
        for row in measure(loaded, other, side, count):
            rows.append(row)
            print(row, flush=True)
    print(store(name, budget=needle.BUDGET, stop=0.95, model=loaded.sha256, rows=rows))


if __name__ == "__main__":
    main()
