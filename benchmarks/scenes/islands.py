"""Turn the island windows of the satellite scene into a manifest: west trains, east tests.

Windows overlap, so those that cross the border at column 5500 are left out: no pixel is in both splits.
"""

import csv
import json
import os
from pathlib import Path

BORDER = 5500
CLASSES = {"0": "sea", "1": "islands"}


def write_manifest(shared: Path, output: Path) -> dict[str, int]:
    """Read ``data/earth/islands.csv`` of the shared folder, write the manifest and count its rows by split."""
    folder = shared / "data" / "earth"
    scene = os.path.relpath((folder / "earth_west_10800x7500.tif").resolve(), output.resolve().parent)
    counts = {"train": 0, "test": 0}
    with (folder / "islands.csv").open(newline="") as source, output.open("w", newline="") as target:
        rows = csv.writer(target)
        rows.writerow(["path", "label", "split", "y", "x", "height", "width", "boxes"])
        for window in csv.DictReader(source):
            y, x, size = int(window["y"]), int(window["x"]), int(window["size"])
            if BORDER - size < x < BORDER:
                continue
            split = "train" if x < BORDER else "test"
            corners = json.loads(window["boxes_xyxy"])  # of the window, x before y
            boxes = [[y + top, x + left, bottom - top, right - left] for left, top, right, bottom in corners]
            rows.writerow([scene, CLASSES[window["label"]], split, y, x, size, size, json.dumps(boxes)])
            counts[split] += 1
    return counts
