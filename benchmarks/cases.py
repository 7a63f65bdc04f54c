"""Odd files after public reports of other tools' users: what is right, what is refused, what is wrong.

    python benchmarks/cases.py ../shared

The recipes and the right values lie beside the project (``SHARED/cases``, its README names the reports): every file is
written anew, opened, and compared with what was written into it. Stored per file: ``right``, ``refused`` with the
message, or ``wrong`` with what differs. What is served, converted, read as a manifest or as fMoW is in
``cases_more.py``.
"""

import json
import os
import subprocess
import sys
import tempfile
import warnings
from pathlib import Path
from typing import Any

import click
import numpy as np

import hiresattn
from cases_more import converted, fmow, lerc, newcomer, remote, sidecars
from hiresattn.errors import HiresattnError
from store import store

#: Writes the geospatial cases, and says what is in each.
GEO = """
import json, sys
import numpy as np
out = sys.argv[1]
sys.path.insert(0, sys.argv[2])
import make
for name, case in make.CASES.items():
    try:
        made = case()
    except Exception as error:
        print(json.dumps({"name": name, "unwritten": repr(error)}))
        continue
    truth = None
    if "truth" in made:
        data, valid = made["truth"]
        truth = f"{out}/{name}.npz"
        np.savez(truth, data=data, valid=np.broadcast_to(valid[..., None] if valid.ndim == 2 else valid, data.shape))
    print(json.dumps({"name": name, "path": str(made["path"]), "truth": truth, "levels": made.get("levels")}))
"""


def slides(shared: Path, folder: Path) -> list[dict[str, Any]]:
    """The microscopy cases."""
    script = shared / "cases" / "slides" / "make.py"
    subprocess.run(
        [sys.executable, script], env=os.environ | {"CASES": str(folder)}, check=True, capture_output=True
    )
    rows = []
    for expected in sorted(folder.glob("*/expected.json")):
        case = json.loads(expected.read_text(encoding="utf-8"))
        names = case["file"] if isinstance(case["file"], list) else [case["file"]]
        for name in names:
            path = expected.parent / name
            if path.exists():
                row = {"set": "slides", "case": expected.parent.name, "file": name}
                rows.append(
                    row | _outcome(path, lambda image, case=case, at=expected.parent: _slide(image, case, at))
                )
    return rows


def geo(shared: Path, folder: Path) -> list[dict[str, Any]]:
    """The geospatial cases."""
    done = subprocess.run(
        [sys.executable, "-c", GEO, folder, shared / "cases" / "geo"],
        check=True,
        capture_output=True,
        text=True,
        cwd=folder,
    )
    rows = []
    for line in done.stdout.splitlines():
        case = json.loads(line) if line.startswith("{") else {}
        if not case:
            continue
        row = {"set": "geo", "case": case["name"]}
        if "unwritten" in case:
            rows.append(row | {"outcome": "not written", "words": case["unwritten"]})
        else:
            rows.append(row | _outcome(case["path"], lambda image, case=case: _scene(image, case)))
    return rows


def _outcome(path: str | Path, compare: Any) -> dict[str, str]:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            with hiresattn.open_pyramid(str(path)) as image:
                wrong = compare(image)
        except HiresattnError as error:
            return {"outcome": "refused", "words": str(error).replace(f"{Path(path).parent}/", "")}
    return {"outcome": "wrong", "words": "; ".join(wrong)} if wrong else {"outcome": "right", "words": ""}


def _slide(image: hiresattn.Pyramid, case: dict[str, Any], folder: Path) -> list[str]:
    """What differs from what was written."""
    wrong = []
    found = {
        "shape": [image.height, image.width, image.channels],
        "levels": len(image.levels),
        "dtype": str(image.dtype),
        "downsamples": [level.downsample for level in image.levels],
    }
    for name, value in found.items():
        if name in case and (value != case[name] if name == "dtype" else not _close(value, case[name])):
            wrong.append(f"{name} {value}, not {case[name]}")
    if "mpp" in case and not (
        image.mpp == case["mpp"] or (image.mpp and case["mpp"] and abs(image.mpp / case["mpp"] - 1) < 0.01)
    ):
        wrong.append(f"mpp {image.mpp}, not {case['mpp']}")
    file = folder / "truth.npy"
    if not file.exists() or image.height * image.width > 4e7:
        return wrong
    truth = np.load(file)
    read = image.read_masked(0, 0, 0, image.height, image.width)
    data = read.data
    if "bounds" in case:
        y, x, height, width = case["bounds"]
        data = data[y : y + height, x : x + width]
    if data.shape != truth.shape:
        return [*wrong, f"px of shape {data.shape}, not {truth.shape}"]
    apart = np.abs(data.astype(float) - truth)
    if "invalid" in case and read.valid is not None:
        apart[~read.valid] = 0
    if apart.max() > case.get("tolerance", 0):
        wrong.append(f"px differ by up to {apart.max():g}")
    return wrong


def _close(found: Any, wanted: Any) -> bool:
    return np.shape(found) == np.shape(wanted) and np.allclose(found, wanted)


def _held(name: str, truth: np.ndarray, valid: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """What the file holds, where that isn't what its recipe says."""
    if name == "c06_webp4":  # the fourth band is alpha
        return truth[..., :3], np.repeat(truth[..., 3:] > 0, 3, axis=2)
    if name == "c23_jpeg_12bit":  # GDAL can't write it here: there is no tile
        return truth, np.zeros_like(valid)
    if name == "f10_netcdf_one_var_time":  # without a y axis GDAL takes the last row for the northernmost
        return truth[::-1], valid[::-1]
    return truth, valid


def _scene(image: hiresattn.Pyramid, case: dict[str, Any]) -> list[str]:
    """What differs from what was written, band by band."""
    wrong = []
    if case["levels"] and len(image.levels) != case["levels"]:
        wrong.append(f"levels {len(image.levels)}, not {case['levels']}")
    if case["truth"] is None:
        image.read(0, 0, 0, min(image.height, 256), min(image.width, 256))
        return wrong
    with np.load(case["truth"]) as stored:
        truth, valid = _held(case["name"], stored["data"], stored["valid"])
    if (image.height, image.width, image.channels) != truth.shape:
        return [*wrong, f"shape {(image.height, image.width, image.channels)}, not {truth.shape}"]
    for band in range(image.channels):
        read = image.read_masked(0, 0, 0, image.height, image.width, bands=(band,))
        mask = np.ones(valid.shape[:2], bool) if read.valid is None else read.valid
        if (mask != valid[..., band]).any():
            wrong.append(f"band {band + 1}: {(mask != valid[..., band]).sum()} px valid or not, wrongly")
        if (read.data[..., band] != truth[..., band])[mask & valid[..., band]].any():
            wrong.append(f"band {band + 1}: px differ")
    return wrong


@click.command()
@click.argument("shared", type=click.Path(exists=True, path_type=Path))
def main(shared: Path) -> None:
    """Write, open and compare every case, and store the outcomes."""
    shared = shared.resolve()
    with tempfile.TemporaryDirectory() as first, tempfile.TemporaryDirectory() as second:
        slide, scene, scripts = Path(first), Path(second), shared / "cases" / "geo"
        rows = slides(shared, slide) + geo(shared, scene)
        rows += converted(slide) + lerc(scene) + sidecars(scene, scripts) + remote(scene, scripts)
        rows += fmow(scene, scripts) + newcomer(scene, shared / "cases" / "newcomer")
    for row in rows:
        if row["outcome"] != "right":
            print(row["set"], row["case"], row["outcome"], row["words"][:300])
    print(
        {
            outcome: sum(row["outcome"] == outcome for row in rows)
            for outcome in ("right", "refused", "wrong", "not written")
        }
    )
    print(store("cases", rows=rows))


if __name__ == "__main__":
    main()
