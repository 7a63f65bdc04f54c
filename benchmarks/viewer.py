"""The viewer's server on a gigapixel slide: the first view, then tiles from all over it; time, and memory.

python benchmarks/viewer.py DATA [--side 32768] [--folder DIR]

``hiresattn view`` runs as a user would start it. The first view is what a page of 1024 px asks for when it is opened:
the page, its script, the image's facts, and every tile of the levels up to that size, six at a time. Then 2,000 tiles,
one after the other, from levels and places at random; each is asked for once.
"""

import json
import statistics
import subprocess
import sys
import tempfile
import time
from concurrent.futures import ThreadPoolExecutor
from http.client import HTTPConnection
from itertools import product
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import click
import numpy as np

from scenes.canvas import Canvas
from scenes.writers import write_tiff
from store import store

TILES, EVERY, VIEW, AT_ONCE = 2000, 500, 1024, 6


def resident(pid: int) -> float:
    """Memory of a process, MB."""
    fields = Path(f"/proc/{pid}/status").read_text().split("VmRSS:")[1].split()
    return int(fields[0]) / 1000


def get(address: str, path: str) -> bytes:
    """What the server answers, over a connection of its own."""
    found = urlsplit(address)
    connection = HTTPConnection(str(found.hostname), found.port, timeout=60)
    connection.request("GET", found.path + path)
    answer = connection.getresponse()
    body = answer.read()
    connection.close()
    assert answer.status == 200, body
    return body


def places(facts: dict[str, Any], level: int) -> list[tuple[int, int]]:
    """Rows and columns of a level's tiles."""
    side = facts["tile"] << (facts["levels"] - 1 - level)
    return list(product(*(range(-(-facts[name] // side)) for name in ("height", "width"))))


def first_view(address: str) -> tuple[float, int, dict[str, Any]]:
    """Seconds until a page has all it asks for first, how many tiles these are, and the image's facts."""
    started = time.perf_counter()
    for path in ("", "openseadragon.js", "list"):
        get(address, path)
    facts = json.loads(get(address, "image/0"))
    top = [level for level in range(facts["levels"]) if facts["tile"] << level <= VIEW]
    tiles = [f"image/0/{level}/{row}_{column}.jpg" for level in top for row, column in places(facts, level)]
    with ThreadPoolExecutor(AT_ONCE) as pool:
        list(pool.map(lambda path: get(address, path), tiles))
    return time.perf_counter() - started, len(tiles), facts


def measure(path: Path) -> dict[str, Any]:
    """The server on one file."""
    started = time.perf_counter()
    words = [sys.executable, "-m", "hiresattn_cli.main", "-q", "view", str(path), "--no-open"]
    with subprocess.Popen(words, stdout=subprocess.PIPE, text=True) as process:
        try:
            assert process.stdout is not None
            address = process.stdout.readline().strip()
            ready = time.perf_counter() - started
            first, count, facts = first_view(address)
            rng = np.random.default_rng(0)
            every = [(level, place) for level in range(facts["levels"]) for place in places(facts, level)]
            levels = np.array([level for level, _ in every])
            weights = 1 / np.bincount(levels)[levels] / facts["levels"]  # each level as often as any other
            wanted = rng.choice(len(every), min(TILES, len(every)), replace=False, p=weights / weights.sum())
            times, memory = [], [round(resident(process.pid), 1)]
            for number, at in enumerate(wanted.tolist(), 1):
                level, (row, column) = every[at]
                started = time.perf_counter()
                get(address, f"image/0/{level}/{row}_{column}.jpg")
                times.append(1000 * (time.perf_counter() - started))
                if number % EVERY == 0:
                    memory.append(round(resident(process.pid), 1))
        finally:
            process.terminate()
    return {
        "height": facts["height"],
        "width": facts["width"],
        "bytes": path.stat().st_size,
        "start_s": ready,
        "first_view_s": first,
        "first_view_tiles": count,
        "tiles": len(times),
        "median_ms": statistics.median(times),
        "p95_ms": float(np.percentile(times, 95)),
        "memory_mb": memory,
    }


@click.command()
@click.argument("data")
@click.option("--side", default=32768)
@click.option("--folder", help="Where the slide is kept, for a next time.")
def main(data: str, side: int, folder: str | None) -> None:
    """Measure and store."""
    with tempfile.TemporaryDirectory() as own:
        path = Path(folder or own) / f"viewer-{side}.tif"
        if not path.exists():
            write_tiff(Canvas(data, side), path)
        row = measure(path)
    print(row)
    print(store("viewer", rows=[row]))


if __name__ == "__main__":
    main()
