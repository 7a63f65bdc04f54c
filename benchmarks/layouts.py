"""Reading crops of files of every layout: ours, the usual loop over another library, and the floor.

python benchmarks/layouts.py DATA [--side 16384] [--crops 300] [--folder DIR]

DATA is a folder of real files; what it lacks is written: LZW tiles, four bands in deflate tiles of 512 px, OME-Zarr
as users have it, whose bands lie apart (``cyx``), and what ``convert`` writes. Where TensorStore is installed, it reads
the Zarr stores, too.
"""

import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import click
import numpy as np

from hiresattn import convert, open_pyramid, read_crops
from hiresattn.errors import HiresattnError
from hiresattn.pyramid.base import Pyramid
from hiresattn.reading.bench import bench_reading, crop_corners
from scenes.canvas import Canvas
from scenes.writers import write_zarr
from store import store

SIZE = 224
PATTERNS = ("clustered", "random")
#: Layout → the file in DATA.
REAL = {
    "strips of 3 rows": "geotiff/landsat_rgb_utm_nodata0.tif",
    "deflate, 512 px, 4 bands (NAIP)": "geotiff/naip_rgbn_overview.tif",
    "deflate, with a mask": "geotiff/internal_mask_rgb.tif",
    "deflate, palette": "geotiff/palette_7168x8704.tif",
    "LZW, float32": "geotiff/float32_nan_and_nodata.tif",
    "strips of 1 row, 8 bands of uint16": "geotiff/sentinel2_8band_uint16.tif",
    "JPEG COG": "earth/earth_west_10800x7500.tif",
    "JPEG 2000": "geotiff/sentinel2_60m.jp2",
    "JPEG slide (SVS)": "slides/CMU-1-Small-Region.svs",
    "JPEG OME-TIFF": "slides/OS-2-ndpi_Ki67.ome.tif",
    "NDPI": "slides/hamamatsu_TRITC.ndpi",
    "DICOM": "slides/camelyon_jpeg_tiled.dcm",
}


def write_tiles(pyramid: Pyramid, path: Path, *, side: int, compression: str, alpha: bool = False) -> None:
    """Write level 0 as lossless tiles of any side; ``alpha`` adds a fourth band that isn't one: near infrared."""
    import tifffile

    def tiles() -> Any:
        for y in range(0, pyramid.height, side):
            strip = pyramid.read(0, y, 0, min(side, pyramid.height - y), pyramid.width)
            if alpha:
                strip = np.concatenate([strip, 255 - strip[:, :, :1]], axis=2)
            gaps = [(0, -len(strip) % side), (0, -strip.shape[1] % side), (0, 0)]
            strip = np.pad(strip, gaps)
            for x in range(0, strip.shape[1], side):
                yield np.ascontiguousarray(strip[:, x : x + side])

    bands = pyramid.channels + alpha
    tifffile.imwrite(
        path,
        tiles(),
        shape=(pyramid.height, pyramid.width, bands),
        dtype=pyramid.dtype,
        tile=(side, side),
        compression=compression,
        predictor=compression == "lzw",
        photometric="rgb",
        extrasamples=["unspecified"] if alpha else None,
        metadata=None,
        extratags=[  # GeoTIFF's pixel scale and tie point: read as a GeoTIFF
            (33550, "d", 3, (1.0, 1.0, 0.0), True),
            (33922, "d", 6, (0.0, 0.0, 0.0, 0.0, float(pyramid.height), 0.0), True),
        ],
    )


#: Layout → what writes it to a path, and its name.
WRITTEN: dict[str, tuple[Callable[[Pyramid, Path], object], str]] = {
    "LZW, 256 px": (lambda image, path: write_tiles(image, path, side=256, compression="lzw"), "lzw.tif"),
    "LZW, 512 px": (lambda image, path: write_tiles(image, path, side=512, compression="lzw"), "lzw512.tif"),
    "deflate, 512 px, 4 bands": (
        lambda image, path: write_tiles(image, path, side=512, compression="zlib", alpha=True),
        "deflate4.tif",
    ),
    "OME-Zarr, cyx": (lambda image, path: write_zarr(image, path, axes="cyx"), "cyx.zarr"),
    "OME-Zarr, cyx, a chunk a band": (
        lambda image, path: write_zarr(image, path, axes="cyx", together=1),
        "planes.zarr",
    ),
    "OME-Zarr, as `convert` writes": (convert, "converted.zarr"),
    "JPEG COG, as `convert` writes": (
        lambda image, path: convert(image, path, compression="jpeg"),
        "converted.tif",
    ),
}
#: TensorStore's cache of decoded chunks, bytes.
CACHE = 64 << 20
ROUNDS = 5


def tensorstore_ms(path: Path, yx: np.ndarray, wanted: np.ndarray) -> dict[str, float] | None:
    """CPU ms a crop ``[h w c]`` of TensorStore with a cache, and of ours in turns with it; None = not installed."""
    try:
        import tensorstore as ts
    except ImportError:
        return None
    found = np.empty_like(wanted)

    def theirs() -> None:
        limits = {"file_io_concurrency": {"limit": 1}, "data_copy_concurrency": {"limit": 1}}
        context = ts.Context({"cache_pool": {"total_bytes_limit": CACHE}, **limits})
        store = {"driver": "file", "path": f"{path}/0/"}
        array = ts.open({"driver": "zarr3", "kvstore": store}, context=context).result()
        for (y, x), crop in zip(yx.tolist(), found, strict=True):
            planes = array[:, y : y + SIZE, x : x + SIZE].read().result()
            for band, plane in enumerate(planes):
                crop[..., band] = plane

    with open_pyramid(path) as pyramid:

        def ours() -> None:
            pyramid.close()
            read_crops(pyramid, yx, SIZE, out=found)

        best = {"ours": float("inf"), "tensorstore": float("inf")}
        for _ in range(ROUNDS):
            for name, read in (("tensorstore", theirs), ("ours", ours)):
                found[:] = 0
                started = time.process_time()
                read()
                best[name] = min(best[name], 1e3 * (time.process_time() - started) / len(yx))
                assert np.array_equal(found, wanted)
    return best


def measured(layout: str, path: Path, crops: int) -> list[dict[str, Any]]:
    """A row for each pattern; none where the image is too small for the crops, or can't be opened."""
    rows: list[dict[str, Any]] = []
    for pattern in PATTERNS:
        with open_pyramid(path) as pyramid:
            found = bench_reading(
                pyramid, pattern, crops=crops, size=min(SIZE, pyramid.height, pyramid.width)
            )
            rows.append({"layout": layout, "backend": pyramid.backend, **found.to_json()})
            row = rows[-1]
            if pyramid.backend == "zarr":
                yx = crop_corners(pattern, pyramid.height, pyramid.width, crops, SIZE)
                row["tensorstore"] = tensorstore_ms(path, yx, read_crops(pyramid, yx, SIZE).pixels)
                print(row["tensorstore"])
        floor = row["floor"]["cpu_ms"] if row["floor"] else float("nan")
        print(
            f"{layout:36s} {pattern:10s} ours {row['ours']['cpu_ms']:7.3f} fused {row['fused']['cpu_ms']:7.3f} "
            f"floor {floor:7.3f} loop {row['loop']['cpu_ms']:7.3f}  x loop {row['speedup_over_loop']:5.2f}, fused "
            f"{row['loop']['cpu_ms'] / row['fused']['cpu_ms']:5.2f}; px differ by {row['max_abs_difference']:g}",
            flush=True,
        )
    return rows


@click.command()
@click.argument("data", type=click.Path(exists=True, file_okay=False, path_type=Path))
@click.option("--side", default=16384, show_default=True)
@click.option("--crops", default=300, show_default=True)
@click.option("--folder", type=click.Path(path_type=Path), help="Where the written scenes are kept.")
@click.option("--only", default="", help="Layouts whose names hold this word; stores nothing.")
def main(data: Path, side: int, crops: int, folder: Path | None, only: str) -> None:
    """Measure and store."""
    rows: list[dict[str, Any]] = []
    with tempfile.TemporaryDirectory() as temporary:
        home = folder or Path(temporary)
        home.mkdir(exist_ok=True)
        for layout, (write, name) in WRITTEN.items():
            if only in layout:
                path = home / f"{side}-{name}"
                if not path.exists():
                    write(Canvas(data, side), path)
                rows += measured(layout, path, crops)
        for layout, relative in REAL.items():
            if only in layout and (data / relative).exists():
                try:
                    rows += measured(layout, data / relative, crops)
                except HiresattnError as error:
                    print(f"{layout}: {error}")
    if not only:
        print(store("layouts", side=side, written=len(WRITTEN), rows=rows))


if __name__ == "__main__":
    main()
