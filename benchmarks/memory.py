"""Peak memory of `classify` on a 10-megapixel and a 10-gigapixel scene, and that each tile is decoded once.

    python benchmarks/memory.py

The scenes are real tiled JPEG pyramids; their tiles repeat, so that the large one is written in seconds.
"""

import json
import subprocess
import sys
import tempfile
from importlib.resources import files
from pathlib import Path

import imagecodecs
import tifffile

from hiresattn.demo.needle import NeedlePyramid, NeedleScene
from store import store

TILE, KINDS = 256, 16
SIDES = {"10 megapixels": 3072, "10 gigapixels": 102400}


def write(path: Path, side: int) -> None:
    """A pyramid whose tiles repeat."""
    pyramid = NeedlePyramid(NeedleScene(0, KINDS * TILE))
    tiles = [
        imagecodecs.jpeg8_encode(pyramid.read(0, TILE * i, 0, TILE, TILE)[:, :, 0].copy(), level=85)
        for i in range(KINDS)
    ]
    with tifffile.TiffWriter(path, bigtiff=True) as writer:
        level = 0
        while side >= TILE:
            count = (-(-side // TILE)) ** 2
            writer.write(
                (tiles[(i * 7) % KINDS] for i in range(count)),
                shape=(side, side), dtype="uint8", tile=(TILE, TILE), photometric="minisblack",
                compression="jpeg", subfiletype=min(level, 1), metadata=None,
            )  # fmt: skip
            side, level = side // 2, level + 1


def measure(path: Path) -> dict[str, float | int]:
    """Classify in a process of its own and ask the system for its peak."""
    code = (
        "import json, resource, sys; from hiresattn import classify;"
        "p = classify(sys.argv[1], sys.argv[2], budget=64, stop=None, device='cpu');"
        "print(json.dumps({'rss': resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024,"
        "'glimpses': p.cost.glimpses, 'tiles': p.cost.tiles, 'fraction_read': p.cost.fraction_read,"
        "'seconds': p.cost.seconds.total}))"
    )
    model = str(files("hiresattn.demo") / "model")
    done = subprocess.run(
        [sys.executable, "-c", code, str(path), model], capture_output=True, text=True, check=True
    )
    return json.loads(done.stdout)


def main() -> None:
    """Measure and store."""
    rows = []
    for name, side in SIDES.items():
        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder) / "scene.tif"
            write(path, side)
            measure(path)  # compile the kernels
            rows.append({"scene": name, "side": side, "bytes": path.stat().st_size, **measure(path)})
        print(rows[-1], flush=True)
    print(store("memory", rows=rows, more_mb=rows[1]["rss"] - rows[0]["rss"]))


if __name__ == "__main__":
    main()
