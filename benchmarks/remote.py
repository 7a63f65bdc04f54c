"""What a look at a remote scene costs: requests and bytes over a server that answers after 30 ms.

python benchmarks/remote.py DATA [--sides 6144,12288,24576] [--folder DIR]
"""

import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import click
import numpy as np
import torch

import hiresattn
from hiresattn import open_pyramid
from hiresattn.checkpoint import load_model
from hiresattn.geometry import root_regions
from hiresattn.inference.classify import classify
from hiresattn.inference.sources import input_for
from hiresattn.reading.fetch import CropFetcher
from scenes.canvas import Canvas
from scenes.writers import write_cog
from store import store

LATENCY_MS = 30
BUDGET = 32
#: The search, and looks anywhere: the dearest that 32 looks can be.
POLICIES = ("best-first", "random")
#: The demo's model is made for one band; what it finds in tissue means nothing, what it reads does.
BANDS = (1,)


def look(url: str, model: Any) -> dict[str, Any]:
    """Open, take the first glance, then classify: requests, bytes, seconds."""
    started = time.perf_counter()
    with open_pyramid(url) as pyramid:
        assert pyramid.requests is not None
        opened = pyramid.requests.count
        config = input_for(model.config.input, pyramid, BANDS, None)
        with CropFetcher([pyramid], config) as fetch:
            roots = root_regions(pyramid.height, pyramid.width)
            fetch(np.zeros(len(roots), np.int64), roots)
        glance = {
            "open_requests": opened,
            "requests": pyramid.requests.count,
            "bytes": pyramid.requests.bytes,
            "seconds": time.perf_counter() - started,
        }
    return {"glance": glance, **{policy: search(url, model, policy) for policy in POLICIES}}


def search(url: str, model: Any, policy: str) -> dict[str, Any]:
    """Classify with all of the budget."""
    started = time.perf_counter()
    with open_pyramid(url) as pyramid:
        assert pyramid.requests is not None
        found = classify(pyramid, model, budget=BUDGET, stop="off", bands=BANDS, policy=policy)
        return {
            "glimpses": found.cost.glimpses,
            "tiles": found.cost.tiles,
            "tile_bytes": found.cost.bytes_read,
            "requests": pyramid.requests.count,
            "bytes": pyramid.requests.bytes,
            "share": pyramid.requests.bytes / pyramid.meta.nbytes,
            "seconds": time.perf_counter() - started,
        }


@click.command()
@click.argument("data", type=click.Path(exists=True, file_okay=False))
@click.option("--sides", default="6144,12288,24576")
@click.option("--folder", type=click.Path(exists=True, file_okay=False), help="Where scenes are kept.")
def main(data: str, sides: str, folder: str | None) -> None:
    """Measure and store."""
    torch.set_num_threads(1)
    rows = []
    with tempfile.TemporaryDirectory() as temporary:
        home = Path(folder or temporary)
        command = [
            sys.executable,
            str(Path(__file__).with_name("slow_server.py")),
            str(home),
            str(LATENCY_MS),
        ]
        with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as server:
            assert server.stdout is not None
            port = int(server.stdout.readline())
            model = load_model(Path(hiresattn.__file__).parent / "demo" / "model")
            for side in map(int, sides.split(",")):
                path = home / f"scene{side}.tif"
                if not path.exists():
                    write_cog(Canvas(data, side), path)
                size = path.stat().st_size
                row = {"side": side, "bytes": size, **look(f"http://127.0.0.1:{port}/{path.name}", model)}
                rows.append(row)
                print(row, flush=True)
                if not folder:
                    path.unlink()
            server.terminate()
    print(store("remote", latency_ms=LATENCY_MS, budget=BUDGET, rows=rows))


if __name__ == "__main__":
    main()
