"""Reading crops of a 1.7-gigapixel slide: ours, the floor, and what else a Python user has, in one process.

python benchmarks/reading.py DATA [--side 40960] [--crops 500] [--folder DIR]

Readers that aren't installed are left out, and named in the result.
"""

import os
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path
from typing import Any

import click
import numpy as np

from hiresattn import open_pyramid, read_crops
from hiresattn.reading.bench import PATTERNS, bench_reading, crop_corners
from scenes.canvas import Canvas
from scenes.writers import write_tiff
from store import store

SIZE = 224
#: Crops of a call, of so many in all.
CALLS, CALLED = (512, 32, 1), 2048
#: Crops of the slow readers.
FEW = 100
Cut = Callable[[int, int], np.ndarray]


@contextmanager
def tiffslide(path: str) -> Iterator[Cut]:
    """TiffSlide's regions as arrays."""
    from tiffslide import TiffSlide

    with TiffSlide(path) as slide:
        yield lambda y, x: slide.read_region((x, y), 0, (SIZE, SIZE), as_array=True)


@contextmanager
def rasterio_windows(path: str) -> Iterator[Cut]:
    """GDAL's windows."""
    import rasterio
    from rasterio.windows import Window

    with rasterio.open(path) as raster:
        yield lambda y, x: np.moveaxis(raster.read((1, 2, 3), window=Window(x, y, SIZE, SIZE)), 0, 2)


@contextmanager
def tifffile_zarr(path: str) -> Iterator[Cut]:
    """A zarr array over tifffile."""
    import tifffile
    import zarr

    with tifffile.imread(path, aszarr=True, level=0) as held:
        array = zarr.open_array(held, mode="r")
        yield lambda y, x: array[y : y + SIZE, x : x + SIZE]


@contextmanager
def dask_per_crop(path: str) -> Iterator[Cut]:
    """One ``compute`` per crop."""
    import dask.array as da
    import tifffile
    import zarr

    with tifffile.imread(path, aszarr=True, level=0) as held:
        array = da.from_array(zarr.open_array(held, mode="r"), chunks=(256, 256, 3))
        yield lambda y, x: array[y : y + SIZE, x : x + SIZE].compute(scheduler="synchronous")


@contextmanager
def cucim(path: str) -> Iterator[Cut]:
    """CuCIM on the CPU."""
    from cucim import CuImage

    image = CuImage(path)
    yield lambda y, x: np.asarray(image.read_region((x, y), (SIZE, SIZE), 0))
    image.close()


#: Name → how it cuts a crop, and how many crops it is given.
OTHERS: dict[str, tuple[Callable[[str], AbstractContextManager[Cut]], int | None]] = {
    "tiffslide": (tiffslide, None),
    "cuCIM, CPU": (cucim, None),
    "rasterio windows": (rasterio_windows, None),
    "tifffile + zarr": (tifffile_zarr, None),
    "dask, one compute per crop": (dask_per_crop, FEW),
}


def others(path: str, yx: np.ndarray, expected: np.ndarray) -> Iterator[dict[str, Any]]:
    """CPU ms per crop of the other readers, their px checked."""
    for name, (opened, few) in OTHERS.items():
        places = yx[:few].tolist()
        try:
            with opened(path) as cut:
                cut(*places[0])
        except ImportError:
            yield {"name": name, "missing": True}
            continue
        best, worst = float("inf"), 0
        for _ in range(2):
            with opened(path) as cut:
                started = time.process_time()
                found = [cut(y, x) for y, x in places]
                best = min(best, time.process_time() - started)
        for crop, ours in zip(found, expected, strict=False):
            worst = max(worst, int(np.abs(crop.astype(int) - ours).max()))
        yield {"name": name, "cpu_ms": 1e3 * best / len(places), "max_abs_difference": worst}


def by_call(path: str, yx: np.ndarray) -> dict[str, float]:
    """CPU ms per crop by how many crops a call is for, of an image that is opened anew and then stays open."""
    best = dict.fromkeys(CALLS, float("inf"))
    out = np.empty((max(CALLS), SIZE, SIZE, 3), np.uint8)
    for _ in range(2):
        for count in CALLS:
            with open_pyramid(path) as pyramid:
                started = time.process_time()
                for start in range(0, len(yx), count):
                    part = yx[start : start + count]
                    read_crops(pyramid, part, SIZE, out=out[: len(part)])
                best[count] = min(best[count], 1e3 * (time.process_time() - started) / len(yx))
    return {str(count): ms for count, ms in best.items()}


def two_threads(path: str, yx: np.ndarray) -> dict[str, float]:
    """Wall ms per crop with one thread and with two, and the machine's load meanwhile."""
    best = {1: float("inf"), 2: float("inf")}
    with open_pyramid(path) as pyramid:
        out = read_crops(pyramid, yx, SIZE).pixels
        for _ in range(5):
            for threads in (1, 2):
                started = time.perf_counter()
                read_crops(pyramid, yx, SIZE, threads=threads, out=out)
                best[threads] = min(best[threads], 1e3 * (time.perf_counter() - started) / len(yx))
    return {
        "one_ms": best[1],
        "two_ms": best[2],
        "speedup": best[1] / best[2],
        "load": os.getloadavg()[0],
    }


@click.command()
@click.argument("data", type=click.Path(exists=True, file_okay=False))
@click.option("--side", default=40960)
@click.option("--crops", default=500)
@click.option("--folder", type=click.Path(exists=True, file_okay=False), help="Where the scenes are kept.")
def main(data: str, side: int, crops: int, folder: str | None) -> None:
    """Measure and store."""
    rows: list[dict[str, Any]] = []
    with tempfile.TemporaryDirectory() as temporary:
        slide = Path(folder or temporary) / f"slide{side}.tif"
        if not slide.exists():
            write_tiff(Canvas(data, side), slide, quality=80, subsampling="420")
        for pattern in PATTERNS:
            with open_pyramid(slide) as pyramid:
                found = bench_reading(pyramid, pattern, crops=crops, size=SIZE).to_json()
                yx = crop_corners(pattern, side, side, crops, SIZE)
                row = {"side": side, **found}
                many = crop_corners(pattern, side, side, CALLED, SIZE)
                row["calls"] = by_call(str(slide), many)
                row["others"] = list(others(str(slide), yx, read_crops(pyramid, yx, SIZE).pixels))
            rows.append(row)
            print(row, flush=True)
        places = crop_corners("clustered", side, side, crops, SIZE)
        threads = two_threads(str(slide), places)
    print(threads)
    print(store("reading", rows=rows, threads=threads))


if __name__ == "__main__":
    main()
