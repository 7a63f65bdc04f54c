"""A report of 200 cases: what it weighs, and how long headless Chromium takes to open it.

python benchmarks/report.py [--cases 200]

Each case has an image of its own, of random blobs as wide as small nuclei, and 64 looks, 8 of which carry the answer.
The page is opened from the disk, in a profile that is new each time: until its own script has shown the first case and
the load event has ended, by the page's clock; and until the browser has written a screenshot, beside the same for an
empty page.
"""

import re
import statistics
import subprocess
import tempfile
import time
from pathlib import Path
from typing import Any

import click
import numpy as np
from PIL import Image

from hiresattn.inference.record import CaseSource, Cost, Record, VisitedRegion
from hiresattn.report.page import write_report
from store import store

SIDE, LOOKS, REPEATS = 1024, 64, 3
#: Width of the blobs that the images are made of, px.
BLOB = 4
TIMED = '<script>addEventListener("load", () => { document.title = `shown after ${performance.now()} ms`; });</script>'


def record(image: Path, number: int) -> Record:
    """A case of one image, its looks in a row over it."""
    rng = np.random.default_rng(number)
    corners = rng.integers(0, SIDE - 256, (LOOKS, 2)).tolist()
    regions = [VisitedRegion(0, None, 0, 0, 0, SIDE, SIDE, 1 / LOOKS, 0.0)]
    regions += [VisitedRegion(n, 0, 1, *corners[n], 256, 256, 1 / LOOKS, -2.0) for n in range(1, LOOKS)]
    shares = np.linspace(0.2, 0.9, LOOKS).round(4).tolist()
    return Record(
        f"slides/{number:04}.svs",
        "ok",
        class_name="tumour",
        score=0.9,
        scores={"tumour": 0.9, "normal": 0.1},
        scores_after={"tumour": tuple(shares), "normal": tuple(1 - share for share in shares)},
        sufficient=tuple(range(1, 9)),
        sources=(CaseSource(str(image), height=SIDE, width=SIDE, mpp=0.5),),
        regions=tuple(regions),
        cost=Cost(glimpses=LOOKS, fraction_read=0.1, stop_reason="budget"),
    )


def chromium(folder: Path, *words: str) -> tuple[float, str]:
    """Wall time of a run of the browser, s, and what it wrote."""
    common = ["chromium", "--headless", "--no-sandbox", "--disable-gpu", "--disable-background-networking"]
    with tempfile.TemporaryDirectory(dir=folder) as profile:
        started = time.perf_counter()
        done = subprocess.run(
            [*common, f"--user-data-dir={profile}", *words], capture_output=True, text=True, check=True
        )
        return time.perf_counter() - started, done.stdout


def opened(folder: Path, page: Path) -> dict[str, float]:
    """Times of a page, medians."""
    timed = folder / "timed.html"
    timed.write_text(page.read_text(encoding="utf-8").replace("</body>", f"{TIMED}</body>"), encoding="utf-8")
    empty = folder / "empty.html"
    empty.write_text("<!doctype html><title>empty</title>", encoding="utf-8")
    shown, walls, blank = [], [], []
    for _ in range(REPEATS):
        _, text = chromium(folder, "--dump-dom", f"file://{timed}")
        found = re.search(r"shown after ([\d.]+) ms", text)
        assert found is not None, "the page's script didn't end"
        shown.append(float(found[1]))
        for times, file in ((walls, page), (blank, empty)):
            times.append(chromium(folder, f"--screenshot={folder}/shot.png", f"file://{file}")[0])
    return {
        "shown_ms": statistics.median(shown),
        "screenshot_s": statistics.median(walls),
        "empty_screenshot_s": statistics.median(blank),
    }


def measure(folder: Path, cases: int) -> dict[str, Any]:
    """One report."""
    images = [folder / f"{number}.png" for number in range(cases)]
    for number, path in enumerate(images):
        blobs = np.random.default_rng(number).integers(0, 256, (SIDE // BLOB, SIDE // BLOB, 3), np.uint8)
        Image.fromarray(blobs).resize((SIDE, SIDE), Image.Resampling.BICUBIC).save(path, compress_level=1)
    page = folder / "report.html"
    started = time.process_time()
    write_report((record(image, number) for number, image in enumerate(images)), page, overwrite=True)
    spent = time.process_time() - started
    size = page.stat().st_size
    return {"cases": cases, "bytes": size, "write_cpu_s_a_case": spent / cases, **opened(folder, page)}


@click.command()
@click.option("--cases", default=200)
def main(cases: int) -> None:
    """Measure and store."""
    with tempfile.TemporaryDirectory() as folder:
        rows = [measure(Path(folder), count) for count in (1, cases)]
    for row in rows:
        print(row)
    print(store("report", rows=rows))


if __name__ == "__main__":
    main()
