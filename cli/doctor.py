"""``hiresattn doctor``: what works here, what is missing, and the command that adds it."""

import os
import platform
import shutil
import sys
import tempfile
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from functools import partial
from importlib import import_module
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import click

from hiresattn.errors import reason
from hiresattn.inference.lines import json_line
from hiresattn_cli.help import Command, group
from hiresattn_cli.output import one_line, printable

OK, MISSING, BROKEN = "ok", "missing", "broken"
#: Modules that read images, by package.
_READERS = {
    "openslide-python": "openslide",
    "rasterio": "rasterio",
    "tifffile": "tifffile",
    "zarr": "zarr",
    "pillow": "PIL.Image",
}
_CODECS = ("JPEG8", "JPEG2K", "LZW", "DEFLATE", "ZSTD", "WEBP", "LERC", "JPEGXL", "PACKBITS")
_DRIVERS = ("GTiff", "COG", "JP2OpenJPEG", "netCDF", "HDF5", "VRT")
#: Modules of the extras, and what they are for.
_EXTRAS = {
    "geo": (("geopandas", "pyarrow", "pyogrio", "shapely"), "layers with coordinates, areas of interest"),
    "parquet": (("pyarrow",), "Parquet files"),
    "hdf5": (("h5py",), "features and coordinates in HDF5"),
    "excel": (("openpyxl",), "Excel workbooks"),
    "xarray": (("xarray",), "xarray's arrays as images"),
    "onnx": (("onnx", "onnxruntime"), "classifying with ONNX Runtime"),
    "cluster": (("distributed",), "classifying on a cluster"),
}
_FREE = 2e9


@dataclass(frozen=True)
class Finding:
    """One thing that was looked at."""

    part: str
    name: str
    state: str
    """``ok``, ``missing`` (of use, not needed) or ``broken`` (needed)."""
    says: str
    fix: str = ""
    """What to run, or to do; empty = nothing."""


@click.command(
    cls=Command,
    short_help="Say what works here, what is missing, and what adds it.",
    example="hiresattn doctor --json",
)
@group(
    "Options", click.option("--json", "as_json", is_flag=True, help="One JSON object in place of the table.")
)
@click.pass_context
def doctor(ctx: click.Context, *, as_json: bool) -> None:
    """Look at what reads images, at codecs, devices, optional packages and folders, and try each.

    Nothing is installed, and no network is asked. Exit status 1: something that is needed doesn't work.
    """
    found = list(findings())
    if as_json:
        click.echo(json_line({"findings": [asdict(one) for one in found]}))
    else:
        click.echo(printable("\n".join(_lines(found))))
    ctx.exit(int(any(one.state == BROKEN for one in found)))


def findings() -> Iterator[Finding]:
    """Everything that is looked at, one after the other; whatever a library raises is a finding."""
    yield Finding("program", "hiresattn", OK, f"{_version('hiresattn')}, {Path(__file__).parent}")
    yield Finding("program", "Python", OK, f"{platform.python_version()}, {platform.platform()}")
    for package, module in _READERS.items():
        yield _tried("readers", package, partial(_reads, package, module), f"pip install {package}")
    yield from _codecs()
    yield from _devices()
    for extra, (modules, use) in _EXTRAS.items():
        absent = [name for name in modules if not _imports(name)]
        says = f"{use}: {', '.join(absent)} can't be imported" if absent else use
        yield Finding(
            "extras", extra, MISSING if absent else OK, says, _pip(f"'hiresattn[{extra}]'") if absent else ""
        )
    board = _imports("tensorboard")
    yield Finding(
        "extras",
        "tensorboard",
        OK if board else MISSING,
        "scalars of a training",
        "" if board else _pip("tensorboard"),
    )
    yield from _folders()


def _reads(package: str, module: str) -> str:
    """The versions of a reader that can be imported."""
    found = import_module(module)
    own = {"openslide": "__library_version__", "rasterio": "__gdal_version__"}.get(module, "")
    inner = getattr(found, own, "") if own else ""
    return f"{_version(package)}{f' ({inner})' if inner else ''}"


def _tried(part: str, name: str, look: Callable[[], str], fix: str) -> Finding:
    try:
        return Finding(part, name, OK, look())
    except Exception as error:  # noqa: BLE001 - whatever a library raises when it is loaded
        return Finding(part, name, BROKEN, f"can't be used: {one_line(reason(error))}", fix)


def _codecs() -> Iterator[Finding]:
    try:
        import imagecodecs
    except Exception as error:  # noqa: BLE001 - whatever a library raises when it is loaded
        yield Finding("codecs", "imagecodecs", BROKEN, one_line(reason(error)), _pip("imagecodecs"))
    else:
        lost = [name for name in _CODECS if not getattr(getattr(imagecodecs, name, None), "available", False)]
        says = f"{_version('imagecodecs')}: " + (f"without {', '.join(lost)}" if lost else ", ".join(_CODECS))
        fix = f"{_pip('--force-reinstall --no-deps imagecodecs')} (a wheel from PyPI has all)" if lost else ""
        yield Finding("codecs", "imagecodecs", MISSING if lost else OK, says, fix)
    yield _tried("codecs", "simplejpeg", _round_trip, _pip("simplejpeg"))
    try:
        from rasterio.drivers import raster_driver_extensions
        from rasterio.env import Env

        with Env() as env:
            drivers = set(env.drivers()) | set(raster_driver_extensions().values())
    except Exception:  # noqa: BLE001 - said above, with the readers
        return
    lost = [name for name in _DRIVERS if name not in drivers]
    says = f"without {', '.join(lost)}" if lost else ", ".join(_DRIVERS)
    yield Finding("codecs", "GDAL drivers", MISSING if lost else OK, says, _pip("rasterio") if lost else "")


def _round_trip() -> str:
    import numpy as np
    import simplejpeg

    pixels = np.full((16, 16, 3), 128, np.uint8)
    seen = simplejpeg.decode_jpeg(simplejpeg.encode_jpeg(pixels))
    if np.abs(seen.astype(int) - pixels).max() > 2:
        raise ValueError("a JPEG comes back changed")
    return f"{_version('simplejpeg')}: encodes and decodes"


def _devices() -> Iterator[Finding]:
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    yield Finding("devices", "CPU", OK, f"{cores} cores{_memory()}")
    try:
        import torch
    except Exception as error:  # noqa: BLE001 - whatever a library raises when it is loaded
        spare = _imports("onnxruntime")  # which is all that classifying needs
        says = f"{one_line(reason(error))}{'; classifying goes with ONNX Runtime' if spare else ''}"
        yield Finding("devices", "torch", MISSING if spare else BROKEN, says, _pip("torch"))
        return
    yield Finding("devices", "torch", OK, torch.__version__)
    if torch.cuda.is_available():
        for number in range(torch.cuda.device_count()):
            yield _tried(
                "devices",
                f"cuda:{number}",
                partial(_fits, torch, number),
                "https://pytorch.org has builds",
            )
    elif shutil.which("nvidia-smi"):
        says = f"there is a driver, and torch {torch.__version__} can't use it"
        built = torch.version.cuda is not None
        fix = (
            "update the driver"
            if built
            else "pip install --force-reinstall torch (a build with CUDA: https://pytorch.org)"
        )
        yield Finding("devices", "GPU", MISSING, says, fix)
    elif torch.backends.mps.is_available():
        yield Finding("devices", "mps", OK, "Apple's GPU")
    else:
        yield Finding("devices", "GPU", OK, "none here; everything runs on the CPU")


def _fits(torch: Any, number: int) -> str:
    """A GPU that was tried: its name, memory, and whether this build of torch has code for it."""
    facts = torch.cuda.get_device_properties(number)
    free, whole = torch.cuda.mem_get_info(number)
    values = torch.ones(64, 64, device=f"cuda:{number}")
    if float((values @ values).sum()) != 64**3:
        raise ValueError(f"{facts.name}: it computes wrongly")
    built = [int(name[3:].rstrip("af")) for name in torch.cuda.get_arch_list() if name.startswith("sm_")]
    own = 10 * facts.major + facts.minor
    made = any(
        one // 10 == facts.major and one <= own for one in built
    )  # code runs on later ones of its generation
    fit = "" if made else f"; this torch has no code for it (sm_{own}), and compiles at every start"
    return f"{facts.name}, {free / 1e9:.0f} of {whole / 1e9:.0f} GB free, computes{fit}"


def _memory() -> str:
    try:
        return f", {os.sysconf('SC_PAGE_SIZE') * os.sysconf('SC_PHYS_PAGES') / 1e9:.0f} GB of memory"
    except (AttributeError, ValueError, OSError):
        return ""


def _folders() -> Iterator[Finding]:
    numba = os.environ.get("NUMBA_CACHE_DIR")
    kept = (
        Path(numba)
        if numba
        else Path(str(sys.modules["hiresattn"].__file__)).parent / "reading" / "__pycache__"
    )
    hub = Path(os.environ.get("HF_HOME", Path.home() / ".cache" / "huggingface"))
    yield _written("this folder", Path.cwd(), "results can't be written here: work in another folder")
    yield _written(
        "temporary files", Path(tempfile.gettempdir()), "set TMPDIR to a folder that can be written"
    )
    yield _written(
        "compiled code",
        kept,
        "set NUMBA_CACHE_DIR to a folder that can be written: else every start compiles anew",
        needed=False,
    )
    yield _written("models of the hub", hub, "set HF_HOME to a folder that can be written", needed=False)


def _written(name: str, folder: Path, fix: str, *, needed: bool = True) -> Finding:
    """Whether a folder, or the nearest one above it that is there, can be written to."""
    there = next(one for one in (folder, *folder.parents) if one.exists())
    try:
        with tempfile.TemporaryFile(dir=there):
            free = shutil.disk_usage(there).free
    except OSError as error:
        return Finding("folders", name, BROKEN if needed else MISSING, f"{folder}: {error.strerror}", fix)
    little = "; little" if free < _FREE else ""
    return Finding("folders", name, OK, f"{folder}, {free / 1e9:.0f} GB free{little}")


def _imports(name: str) -> bool:
    try:
        import_module(name)
    except Exception:  # noqa: BLE001 - whatever a library raises when it is loaded
        return False
    return True


def _version(package: str) -> str:
    try:
        return version(package)
    except PackageNotFoundError:
        return "version unknown"


def _pip(what: str) -> str:
    return f"pip install {what}"


def _lines(found: list[Finding]) -> Iterator[str]:
    """The table, and what to do."""
    wide = max(len(one.name) for one in found)
    part = ""
    for one in found:
        if one.part != part:
            yield f"{'' if not part else chr(10)}{one.part}"
            part = one.part
        yield f"  {one.state:<7}  {one.name:<{wide}}  {one.says}"
        if one.fix:
            yield f"  {'':<7}  {'':<{wide}}  -> {one.fix}"
    bad = [one for one in found if one.state == BROKEN]
    lost = [one for one in found if one.state == MISSING]
    yield ""
    if bad:
        yield f"Not usable as it is: {', '.join(one.name for one in bad)}."
    elif lost:
        names = ", ".join(one.name for one in lost)
        yield f"All that is needed works. Not there, and only needed for what it says: {names}."
    else:
        yield "Everything works."
