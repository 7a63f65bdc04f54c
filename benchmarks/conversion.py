"""`hiresattn convert` against `dask.array.coarsen` level by level: CPU time, peak memory, error of the levels.

    python benchmarks/conversion.py [--side 20480]

Both read the same tiled JPEG file through the same reader, and write the same OME-Zarr layout (shards of 2,048 px,
chunks of 256 px, zstd, checksums), each in a process of its own. Ours also reads back what it wrote, and compares.
"""

import argparse
import json
import subprocess
import sys
import tempfile
from pathlib import Path

import imagecodecs
import numpy as np
import tifffile

from hiresattn import open_pyramid
from store import store

TILE, KINDS, SHARD = 256, 48, 2048

OURS = """
from hiresattn.conversion import convert
made = convert(sys.argv[1], sys.argv[2])
said = {"windows": made.windows_checked}
"""

DASK = """
import dask, dask.array as da, numpy as np, zarr
from zarr.codecs import Crc32cCodec, ZstdCodec
from hiresattn import open_pyramid
dask.config.set(scheduler="threads", num_workers=1)
group = zarr.open_group(sys.argv[2], mode="w-", zarr_format=3)
pyramid = open_pyramid(sys.argv[1])
level = da.moveaxis(pyramid.as_dask(0), 2, 0)
count = 0
while True:
    shape = level.shape
    sides = tuple(min(2048, -(-side // 256) * 256) for side in shape[1:])
    level = level.rechunk((3, *sides))
    array = group.create_array(
        str(count), shape=shape, chunks=(3, 256, 256), shards=(3, *sides), dtype="uint8",
        compressors=[ZstdCodec(level=1), Crc32cCodec()],
    )
    level.store(array, lock=False)
    count += 1
    if max(shape[1:]) <= 256:
        break
    level = da.from_array(array, chunks=(3, *sides))
    level = da.coarsen(np.mean, level, {1: 2, 2: 2}).round().astype("uint8")
said = {}
"""

MEASURE = """
import re, resource
used = resource.getrusage(resource.RUSAGE_SELF)
peak = int(re.search(r"VmHWM:\\s+(\\d+)", open("/proc/self/status").read())[1]) / 1024
said |= {"cpu_seconds": used.ru_utime + used.ru_stime, "rss": peak, "torch": "torch" in sys.modules}
print(json.dumps(said))
"""


def write(path: Path, side: int) -> None:
    """A tiled JPEG file with the grain of a scan; its tiles repeat, in an order that doesn't."""
    random = np.random.default_rng(0)
    tiles = []
    for _ in range(KINDS):
        coarse = random.uniform(60, 230, (9, 9, 3))
        place = np.linspace(0, 7.999, TILE)
        at, share = place.astype(int), (place % 1)[:, None, None]
        rows = coarse[at] * (1 - share) + coarse[at + 1] * share
        share = np.moveaxis(share, 0, 1)
        smooth = rows[:, at] * (1 - share) + rows[:, at + 1] * share
        grain = smooth + random.normal(0, 9, smooth.shape)
        tiles.append(imagecodecs.jpeg8_encode(grain.clip(0, 255).astype(np.uint8), level=85))
    order = random.integers(0, KINDS, (side // TILE) ** 2)
    with tifffile.TiffWriter(path, bigtiff=True) as writer:
        writer.write(
            (tiles[i] for i in order), shape=(side, side, 3), dtype="uint8", tile=(TILE, TILE), photometric="rgb",
            compression="jpeg", metadata=None,
        )  # fmt: skip


def measure(code: str, source: Path, target: Path) -> dict[str, float]:
    """Run in a process of its own."""
    whole = f"import json, sys\n{code}\n{MEASURE}"
    words = [sys.executable, "-c", whole, str(source), str(target)]
    done = subprocess.run(words, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


def level_errors(source: Path, target: Path) -> list[float]:
    """Largest difference from the exact mean of each level after the first, over windows of 2,048 level-0 px."""
    import zarr

    errors = []
    group = zarr.open_group(target, mode="r")
    with open_pyramid(source) as pyramid:
        for level in range(1, len([name for name in group if name.isdecimal()])):
            factor = 2**level
            worst = 0.0
            for y, x in ((0, 0), (pyramid.height // 2 // SHARD * SHARD, pyramid.width // 4 // SHARD * SHARD)):
                data = pyramid.read(0, y, x, SHARD, SHARD).astype(np.float64)
                side = SHARD // factor
                mean = data.reshape(side, factor, side, factor, 3).mean(axis=(1, 3))
                found = group[str(level)][
                    :, y // factor : y // factor + side, x // factor : x // factor + side
                ]
                worst = max(worst, float(np.abs(np.moveaxis(found, 0, 2) - mean).max()))
            errors.append(worst)
    return errors


def main() -> None:
    """Measure and store."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--side", type=int, default=20480)
    side = parser.parse_args().side
    rows = {}
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        source = folder / "scene.tif"
        write(folder / "small.tif", SHARD)
        measure(OURS, folder / "small.tif", folder / "small.zarr")  # compile the kernels
        write(source, side)
        for row, code in (("ours", OURS), ("dask", DASK)):
            target = folder / f"{row}.zarr"
            rows[row] = measure(code, source, target)
            rows[row]["errors"] = level_errors(source, target)
            rows[row]["bytes"] = sum(file.stat().st_size for file in target.rglob("*") if file.is_file())
            print(row, rows[row], flush=True)
    ratio = rows["dask"]["cpu_seconds"] / rows["ours"]["cpu_seconds"]
    print(f"{ratio:.2f} x less CPU time")
    if side == parser.get_default("side"):
        print(store("conversion", side=side, rows=rows, ratio=ratio))


if __name__ == "__main__":
    main()
