"""`hiresattn convert` against `dask.array.coarsen` level by level, and against libvips: CPU time, memory, error.

    python benchmarks/conversion.py [--side 20480] [--cog-side 16384]

To OME-Zarr both read the same tiled JPEG file through the same reader, and write the same layout (shards of 2,048 px,
chunks of 256 px, zstd, checksums). To JPEG both write tiles of 256 px of the same quality, with halved colour; ours as
a COG. Each runs in a process of its own, on one thread. Ours also reads back what it wrote, and compares.

libvips: ``pip install 'pyvips[binary]'``.
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

TILE, KINDS, SHARD, QUALITY = 256, 48, 2048, 85

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

COG = """
import time
import hiresattn.conversion
module = sys.modules["hiresattn.conversion.convert"]
spent, verify = [], module.verify
def timed(*given, **named):
    began = time.process_time()
    found = verify(*given, **named)
    spent.append(time.process_time() - began)
    return found
module.verify = timed
made = module.convert(sys.argv[1], sys.argv[2], module.ConvertOptions(compression="jpeg", quality=QUALITY))
said = {"windows": made.windows_checked, "verifying": spent[0]}
"""

VIPS = """
import os
os.environ["VIPS_CONCURRENCY"] = "1"
import pyvips
image = pyvips.Image.new_from_file(sys.argv[1], access="sequential")
image.tiffsave(
    sys.argv[2], tile=True, tile_width=256, tile_height=256, pyramid=True, compression="jpeg", Q=QUALITY, bigtiff=True
)
said = {"version": ".".join(str(pyvips.version(part)) for part in range(3))}
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
    whole = f"import json, sys\nQUALITY = {QUALITY}\n{code}\n{MEASURE}"
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


def jpeg_error(source: Path, target: Path, level: int) -> float:
    """Root mean square difference of a level from the exact mean, over 2,048 level-0 px."""
    factor = 2**level
    with open_pyramid(source) as pyramid, open_pyramid(target) as written:
        data = pyramid.read(0, 0, 0, SHARD, SHARD).astype(np.float64)
        side = SHARD // factor
        mean = data.reshape(side, factor, side, factor, 3).mean(axis=(1, 3))
        return float(np.sqrt(np.square(written.read(level, 0, 0, side, side) - mean).mean()))


def jpeg(folder: Path, side: int) -> dict[str, dict[str, float]]:
    """Ours and libvips', in turn, three times; of each the one of least CPU time."""
    source = folder / "jpeg.tif"
    write(source, side)
    measure(COG, folder / "small.tif", folder / "small.cog.tif")  # compile the kernels
    found: dict[str, list[dict[str, float]]] = {"ours": [], "libvips": []}
    for turn in range(3):
        for name, code in (("ours", COG), ("libvips", VIPS)):
            target = folder / f"{name}{turn}.tif"
            row = measure(code, source, target) | {"bytes": target.stat().st_size}
            found[name].append(row | {"errors": [jpeg_error(source, target, level) for level in (0, 1, 3)]})
            print(name, found[name][-1], flush=True)
            target.unlink()
    return {name: min(rows, key=lambda row: row["cpu_seconds"]) for name, rows in found.items()}


def main() -> None:
    """Measure and store."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--side", type=int, default=20480)
    parser.add_argument("--cog-side", type=int, default=16384)
    side, cog_side = vars(parser.parse_args()).values()
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
        cog = jpeg(folder, cog_side)
    ratio = rows["dask"]["cpu_seconds"] / rows["ours"]["cpu_seconds"]
    print(f"{ratio:.2f} x less CPU time")
    if (side, cog_side) == (parser.get_default("side"), parser.get_default("cog_side")):
        print(store("conversion", side=side, rows=rows, ratio=ratio, cog_side=cog_side, cog=cog))


if __name__ == "__main__":
    main()
