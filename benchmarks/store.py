"""Where benchmark results are kept: one JSON file each, with what is needed to repeat them."""

import datetime as dt
import json
import os
import platform
import subprocess
from collections.abc import Sequence
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

RESULTS = Path(__file__).parent / "results"
#: Pictures that README and docs show.
PICTURES = Path(__file__).parents[1] / "docs" / "pictures"
#: Those of them that are installed are named.
PACKAGES = (
    "torch",
    "onnxruntime",
    "numpy",
    "numba",
    "zarr",
    "rasterio",
    "openslide-python",
    "tifffile",
    "simplejpeg",
    "dask",
    "tiffslide",
    "cucim-cu12",
    "tensorstore",
)


def commit() -> str:
    """The commit that is measured; ``+`` = changed since."""
    git = ["git", "-C", str(RESULTS.parent)]
    head = subprocess.run([*git, "rev-parse", "--short", "HEAD"], capture_output=True, text=True, check=False)
    changed = subprocess.run(
        [*git, "status", "--porcelain", ":/hiresattn"], capture_output=True, text=True, check=False
    )
    return head.stdout.strip() + ("+" if changed.stdout.strip() else "")


def _version(package: str) -> str | None:
    try:
        return version(package)
    except PackageNotFoundError:
        return None


def store(name: str, **results: Any) -> Path:
    """Write results beside the commit, the date and the versions that they come from."""
    facts = {
        "commit": commit(),
        "date": dt.datetime.now(tz=dt.UTC).date().isoformat(),
        "python": platform.python_version(),
        "machine": f"{platform.machine()}, {os.cpu_count()} cores",
        "versions": {package: found for package in PACKAGES if (found := _version(package))},
    }
    RESULTS.mkdir(exist_ok=True)
    path = RESULTS / f"{name}.json"
    path.write_text(json.dumps({"name": name, **facts, **results}, indent=1) + "\n", encoding="utf-8")
    return path


def store_picture(name: str, pyramid: Any, found: Any, boxes: Sequence[tuple[int, int, int, int]]) -> Path:
    """Draw where a prediction looked, the targets marked, in few colours: small enough to keep."""
    from PIL import Image, ImageColor

    from hiresattn.report.marks import COLOURS, TRUTH
    from hiresattn.report.overlay import draw_overlay

    path = PICTURES / f"{name}.png"
    draw_overlay(pyramid, found, path, side=640, truth_boxes=boxes)
    with Image.open(path) as image:
        colours = [ImageColor.getrgb(colour) for colour in (*COLOURS, TRUTH)]
        palette = Image.new("P", (1, 1))
        palette.putpalette([*sum(colours, ()), *(image.quantize(56).getpalette() or ())])
        few = image.quantize(palette=palette, dither=Image.Dither.NONE)
    few.save(path, optimize=True)
    return path


def load(name: str) -> dict[str, Any] | None:
    """Stored results, or None."""
    path = RESULTS / f"{name}.json"
    return json.loads(path.read_text(encoding="utf-8")) if path.exists() else None
