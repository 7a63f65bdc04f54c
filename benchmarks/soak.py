"""A soak: many small images over two workers, and what becomes of memory and open files meanwhile.

    python benchmarks/soak.py                 # 10,000 images; for an idle machine
    python benchmarks/soak.py --images 500    # does it work? nothing is stored

Scheduler, two workers and client are four processes. Their resident memory and open files are taken after every
hundredth of the cases. What counts is the second half: the growth is that of a straight line through it, over its mean.
"""

import argparse
import itertools
import json
import os
import socket
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import distributed
import numpy as np

from cluster import MODEL, OPTIONS, images
from hiresattn.card import read_card
from hiresattn.cluster.run import classify
from hiresattn.inference.options import ClassifyOptions
from hiresattn.inference.records_file import RecordsFile
from store import store

WORKERS = 2
#: Growth of resident memory over the second half that is still called flat, as a share.
FLAT = 0.05


def resident(pid: int) -> float:
    """Resident memory of a process, MB."""
    pages = int(Path(f"/proc/{pid}/statm").read_text().split()[1])
    return pages * 4096 / 1e6


def handles(pid: int) -> int:
    """Open files of a process."""
    return sum(1 for _ in Path(f"/proc/{pid}/fd").iterdir())


def growth(values: list[float]) -> float:
    """Growth over the second half, as a share of its mean."""
    half = np.array(values[len(values) // 2 :])
    slope = np.polyfit(np.arange(len(half)), half, 1)[0]
    return float(slope * (len(half) - 1) / half.mean())


def started(folder: Path) -> tuple[str, list[subprocess.Popen[bytes]]]:
    """A scheduler and its workers, as processes of their own; and its address."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    address = f"tcp://127.0.0.1:{port}"
    words = [["scheduler", "--port", str(port)]]
    words += [["worker", address, "--nthreads", "1", "--no-nanny", "--death-timeout", "60"]] * WORKERS
    found = []
    for number, (what, *more) in enumerate(words):
        command = [sys.executable, "-m", f"distributed.cli.dask_{what}", *more, "--no-dashboard"]
        with (folder / f"{what}{number}.log").open("w") as log:
            found.append(subprocess.Popen(command, stdout=log, stderr=log, cwd=folder))
    return address, found


def soak(count: int, side: int, budget: int) -> dict[str, Any]:
    """Classify so many images, and measure."""
    with tempfile.TemporaryDirectory() as folder:
        paths = images(Path(folder), count, side)
        address, processes = started(Path(folder))
        try:
            with distributed.Client(address, timeout=120) as client:
                client.wait_for_workers(WORKERS, timeout=120)
                names = ["scheduler", *(f"worker {n + 1}" for n in range(WORKERS)), "client"]
                pids = [*(process.pid for process in processes), os.getpid()]
                options = ClassifyOptions(budget=budget, **OPTIONS)
                samples: dict[str, list[list[float]]] = {name: [] for name in names}
                seen, began = set(), time.perf_counter()
                with RecordsFile(Path(folder) / "r.jsonl", read_card(MODEL), options) as file:
                    records = classify(paths, str(MODEL), client, budget=budget, **OPTIONS)
                    for number, record in zip(itertools.count(1), records, strict=False):
                        assert record.status == "ok"
                        assert record.source not in seen
                        seen.add(record.source)
                        file.write(record, record.source)
                        if number % max(count // 100, 1) == 0:
                            for name, pid in zip(names, pids, strict=True):
                                samples[name].append([round(resident(pid), 1), handles(pid)])
                seconds = time.perf_counter() - began
                assert seen == set(paths)
        finally:
            for process in reversed(
                processes
            ):  # all was measured; a worker that waits for its scheduler would hang
                process.kill()
                process.wait()
    rows = []
    for name, taken in samples.items():
        memory, files = ([one[at] for one in taken] for at in (0, 1))
        rows.append({"process": name, "half": memory[len(memory) // 2], "end": memory[-1],
                     "growth": round(growth(memory), 4), "flat": growth(memory) < FLAT,
                     "handles": [int(files[len(files) // 2]), int(files[-1])]})  # fmt: skip
    return {"images": count, "side": side, "budget": budget, "seconds": round(seconds, 1), "rows": rows,
            "samples": samples}  # fmt: skip


def main() -> None:
    """Soak, say what was found, and store it."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--images", type=int, default=10_000)
    parser.add_argument("--side", type=int, default=256, help="side of an image, px")
    parser.add_argument("--budget", type=int, default=8)
    asked = parser.parse_args()
    result = soak(asked.images, asked.side, asked.budget)
    print(json.dumps({name: value for name, value in result.items() if name != "samples"}, indent=1))
    if asked.images == parser.get_default("images"):
        store("soak", **result)


if __name__ == "__main__":
    main()
