"""What a cluster costs and gains: cases a second of 1, 2 and 4 local processes, and Dask's part of a case.

    python benchmarks/cluster.py           # a few minutes, on an idle machine
    python benchmarks/cluster.py --check   # does it run? nothing is stored

Small images of noise, one task each, classified with the model of ``hiresattn demo``; every process has one thread. The
overhead is what a case of 25 ms takes longer on one worker, where all that it does is wait.
"""

import argparse
import json
import os
import tempfile
import time
from pathlib import Path

import numpy as np
from PIL import Image

import hiresattn
from hiresattn.cluster.connect import connected
from hiresattn.cluster.run import classify
from hiresattn.cluster.tasks import Care, Tasks
from store import store

MODEL = Path(hiresattn.__file__).parent / "demo" / "model"
PROCESSES = (1, 2, 4)
#: How long a case of the overhead waits, s.
WAIT = 0.025
OPTIONS = {"batch_images": 1, "threads": 1, "stop": None}


def images(folder: Path, count: int, side: int) -> list[str]:
    """Images of noise."""
    paths = []
    for number in range(count):
        pixels = np.random.default_rng(number).integers(0, 255, (side, side), np.uint8)
        path = folder / f"{number:05}.png"
        Image.fromarray(pixels).save(path)
        paths.append(str(path))
    return paths


def wait(case: int, topic: str | None) -> int:
    """Wait as long as a small case takes."""
    assert topic is None
    time.sleep(WAIT)
    return case


def overhead(cases: int) -> float:
    """Milliseconds that a case takes longer than it waits."""
    with connected(workers=1) as client:
        list(Tasks(client, wait, Care()).run(range(20)))
        started = time.perf_counter()
        done = list(Tasks(client, wait, Care()).run(range(cases)))
        seconds = time.perf_counter() - started
    assert sorted(done) == [(number, number) for number in range(cases)]
    return 1000 * (seconds / cases - WAIT)


def rate(paths: list[str], processes: int, budget: int) -> float:
    """Cases a second; workers and models are there before the clock starts."""
    with connected(workers=processes) as client:
        client.wait_for_workers(processes)
        list(classify(paths[: 4 * processes], str(MODEL), client, budget=budget, **OPTIONS))
        started = time.perf_counter()
        records = list(classify(paths, str(MODEL), client, budget=budget, **OPTIONS))
        seconds = time.perf_counter() - started
    assert sorted(record.source for record in records) == paths
    assert all(record.status == "ok" for record in records)
    return len(paths) / seconds


def main() -> None:
    """Measure, and write the result."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--check", action="store_true", help="few cases; print only")
    parser.add_argument("--cases", type=int, default=200, help="images classified")
    parser.add_argument("--empty", type=int, default=1000, help="cases that wait")
    parser.add_argument("--side", type=int, default=1024, help="side of an image, px")
    parser.add_argument("--budget", type=int, default=32)
    asked = parser.parse_args()
    if asked.check:
        asked.cases, asked.empty, asked.budget = 8, 40, 4
    result = {"cores": os.cpu_count(), "cases": asked.cases, "empty": asked.empty, "side": asked.side}
    result |= {"budget": asked.budget, "overhead_ms": round(overhead(asked.empty), 3), "rate": {}}
    with tempfile.TemporaryDirectory() as folder:
        paths = images(Path(folder), asked.cases, asked.side)
        for processes in PROCESSES:
            result["rate"][str(processes)] = round(rate(paths, processes, asked.budget), 3)
    print(json.dumps(result, indent=1))
    if not asked.check:
        store("cluster", **result)


if __name__ == "__main__":
    main()
