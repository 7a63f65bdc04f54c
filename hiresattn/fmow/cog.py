"""JPEG to cloud-optimised GeoTIFF, of which a part can be read without decoding the rest."""

from collections.abc import Iterable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from hiresattn.errors import ConfigError, HiresattnError, ReadError
from hiresattn.files import atomic_write
from hiresattn.fmow.metadata import Metadata
from hiresattn.fmow.tree import Skipped, View
from hiresattn.option_types import did_you_mean

#: Lossless, and JPEG.
COMPRESSIONS = ("deflate", "zstd", "jpeg")
#: Side of a tile, px: with 512 a search over the net reads two and a half times the bytes.
TILE = 256


@dataclass(frozen=True)
class Converted:
    """One image, converted."""

    source: Path
    output: Path
    georeferenced: bool
    """Whether its location is known; only the ground truth holds it."""
    existed: bool
    """Whether the output existed and was kept."""


def convert(
    found: Iterable[View | Skipped],
    output: str | Path,
    *,
    compress: str = "deflate",
    quality: int = 90,
    overwrite: bool = False,
    threads: int = 1,
) -> Iterator[Converted | Skipped]:
    """Convert views to COGs in the same tree elsewhere: ``<split>/<folder>/<name>.tif``.

    Pixels stay as they are stored (``jpeg`` is lossy), overviews are averages. The transform comes from
    ``raw_location``: images lie on a geographic grid (EPSG:4326). A JPEG is decoded whole: the largest of fMoW
    need about 2 GB of memory.

    Args:
        found: What ``scan`` yields.
        output: Folder of the new tree.
        compress: ``deflate``, ``zstd`` or ``jpeg``.
        quality: Of ``jpeg``, 1 to 100.
        overwrite: Convert again what is there already.
        threads: Threads that compress.

    Yields:
        One per view, and what was left out: what came in so, and images that can't be read.

    Raises:
        ConfigError: If an option is unusable, or nothing can be written to ``output``.
    """
    if compress not in COMPRESSIONS:
        raise ConfigError(f"unknown compression {compress!r}{did_you_mean(compress, COMPRESSIONS)}")
    if not 1 <= quality <= 100:
        raise ConfigError(f"quality must be 1 to 100; got {quality}")
    options = {"COMPRESS": compress.upper(), "NUM_THREADS": str(threads)}
    options |= {"QUALITY": str(quality)} if compress == "jpeg" else {"PREDICTOR": "YES"}
    for view in found:
        if isinstance(view, Skipped):
            yield view
            continue
        target = Path(output, view.split, view.folder, f"{view.image.stem}.tif")
        located = view.metadata is not None and view.metadata.bounds is not None
        if target.exists() and not overwrite:
            yield Converted(view.image, target, located, existed=True)
            continue
        try:
            _write(view.image, target, view.metadata, options)
            yield Converted(view.image, target, located, existed=False)
        except ConfigError:
            raise
        except HiresattnError as error:
            yield Skipped(str(view.image), "can't be converted", str(error))


def _write(source: Path, target: Path, metadata: Metadata | None, options: dict[str, str]) -> None:
    """One image; ``target`` appears when it is whole."""
    import rasterio.shutil
    from rasterio.errors import NotGeoreferencedWarning

    from hiresattn.pyramid.formats.gdal import reason
    from hiresattn.pyramid.formats.quiet import quiet

    with ExitStack() as stack:
        try:
            target.parent.mkdir(parents=True, exist_ok=True)
            part = stack.enter_context(atomic_write(target))
        except OSError as error:
            raise ConfigError(
                f"{target}: it can't be written ({error.strerror}); check the folder"
            ) from error
        try:
            with quiet(NotGeoreferencedWarning), _opened(source, metadata) as image:
                _check(image, metadata, source)
                rasterio.shutil.copy(
                    image, part, driver="COG", BLOCKSIZE=TILE, OVERVIEW_RESAMPLING="AVERAGE",
                    BIGTIFF="IF_SAFER", **options,
                )  # fmt: skip
            stack.close()
        except HiresattnError:
            raise
        except Exception as error:
            raise ReadError(
                f"{source}: it can't be converted to {target} ({reason(error)}); check the file and the disk"
            ) from error


@contextmanager
def _opened(source: Path, metadata: Metadata | None) -> Iterator[Any]:
    """The image as GDAL sees it, its place and time noted. A JPEG is decoded as the reader of JPEG does."""
    import rasterio

    if source.suffix.lower() not in (".jpg", ".jpeg"):
        with rasterio.open(source) as image:
            yield image
        return
    pixels = _decoded(source)
    height, width, bands = pixels.shape
    place: dict[str, Any] = {}
    if metadata is not None and metadata.bounds is not None:
        west, south, east, north = metadata.bounds
        steps = ((east - west) / width, 0.0, west, 0.0, (south - north) / height, north)
        place = {"crs": "EPSG:4326", "transform": rasterio.Affine(*steps)}
    with rasterio.MemoryFile() as memory:
        shape = {"height": height, "width": width, "count": bands, "dtype": "uint8"}
        colour = "RGB" if bands == 3 else "MINISBLACK"
        with memory.open(driver="GTiff", BIGTIFF="IF_SAFER", photometric=colour, **shape, **place) as image:
            image.write(np.moveaxis(pixels, 2, 0))
            image.update_tags(**_tags(source, metadata))
        del pixels
        with memory.open() as image:
            yield image


def _decoded(source: Path) -> np.ndarray:
    import simplejpeg

    try:
        coded = source.read_bytes()
        grey = simplejpeg.decode_jpeg_header(coded)[2] == "Gray"
        return np.asarray(simplejpeg.decode_jpeg(coded, "GRAY" if grey else "RGB", strict=True))
    except (OSError, ValueError) as error:
        why = (str(error) or type(error).__name__).splitlines()[0]
        raise ReadError(
            f"{source}: damaged or cut short, it can't be decoded ({why}); fetch it again"
        ) from error


def _check(image: Any, metadata: Metadata | None, source: Path) -> None:
    if metadata and image.shape != (metadata.height, metadata.width):
        raise ReadError(
            f"{source}: {image.width} x {image.height} px, its metadata says {metadata.width} x "
            f"{metadata.height}; boxes and place would be wrong. Fetch both again"
        )


def _tags(source: Path, metadata: Metadata | None) -> dict[str, str]:
    tags = {"HIRESATTN_SOURCE": source.name}
    if metadata is not None and metadata.timestamp:
        tags["FMOW_TIMESTAMP"] = metadata.timestamp
    if metadata is not None and metadata.gsd is not None:
        tags["FMOW_GSD"] = f"{metadata.gsd:g}"
    return tags
