"""Write a synthetic tree of fMoW-rgb: its layout and its quirks, drawn images.

The names, the JSON fields and the oddities are those of the release (see `QUIRKS`); the pictures are noise with
a coloured, striped target per category, and smaller than the real ones. Nothing measured on it says anything
about real scenes: it shows that the tools run.
"""

import io
import json
import math
import tarfile
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

#: Category → side of its images, px, standing for tiles of 5000 m, 1500 m and 500 m.
SIDES = {
    "airport": 1400,
    "shipyard": 1100,
    "impoverished_settlement": 600,
    "crop_field": 320,
    "multi-unit_residential": 320,
    "single-unit_residential": 320,
    "tower": 260,
    "zoo": 320,
}
#: Hue (RGB) and stripe period (px) of each category's target.
LOOKS = {
    name: ((200 * (i & 1) + 40, 200 * (i >> 1 & 1) + 40, 200 * (i >> 2 & 1) + 40), 6 + 4 * (i % 3))
    for i, name in enumerate(SIDES)
}
SPLITS = {"train": 1.0, "val": 0.5, "test": 0.5, "seq": 0.2}
QUIRKS = (
    "bounding_boxes is a dict in some train JSON", "frames are not contiguous", "crowd box of ID -1 in the truth",
    "an msrgb view is missing", "test folders are numbers, their JSON has no category, no location and a noisy time",
    "a JSON is missing", "an image is missing", "a JSON is cut short", "a box of 2 px", "a box outside",
    "a box that leaves the image", "false detections, also under their old name", "abs_cal_factors missing",
    "img_filename ends in .tif", "visible is a string", "the same sequence name in several splits",
)  # fmt: skip
#: Degrees per px, north-south and east-west alike: 0.51 m.
_DEGREES = 4.6e-6


@dataclass
class Tree:
    """What was written, as the tools should find it."""

    root: Path
    views: int = 0
    """Images of kind rgb."""
    truth: dict[int, str] = field(default_factory=dict)
    """Category of each box ID of test and seq."""
    boxes: dict[int, dict[str, Any]] = field(default_factory=dict)
    """By ID: split, category, sequence, and its polygon's bounds in each frame."""
    odd: dict[str, Path] = field(default_factory=dict)
    """Where one-off oddities are."""


def write_tree(root: Path, *, places: int = 6, seed: int = 0, archive: bool = True) -> Tree:
    """Write the tree.

    Args:
        root: Folder to make.
        places: Sequences per category in train; the other splits have a share of it, at least one.
        seed: Same seed, same tree.
        archive: Pack the ground truth as `groundtruth.tar.bz2`; else it lies unpacked in `groundtruth`.

    Returns:
        What was written.
    """
    return _Writer(Path(root), np.random.default_rng(seed)).write(places, archive=archive)


class _Writer:
    def __init__(self, root: Path, rng: np.random.Generator) -> None:
        self.tree = Tree(root)
        self.rng = rng
        self.next_id = 1000
        self.truths: dict[str, str] = {}
        self.mappings: dict[str, list[dict[str, str]]] = {"test": [], "seq": []}

    def write(self, places: int, *, archive: bool) -> Tree:
        for split, share in SPLITS.items():
            for category in SIDES:
                for number in range(max(round(places * share), 1)):
                    self._place(split, category, number)
        self._odd_ones()
        for split, mapping in self.mappings.items():
            self.truths[f"{split}_gt_mapping.json"] = json.dumps(mapping)
        if archive:
            with tarfile.open(self.tree.root / "groundtruth.tar.bz2", "w:bz2") as tar:
                for name, text in self.truths.items():
                    info = tarfile.TarInfo(name)
                    info.size = len(text.encode())
                    tar.addfile(info, io.BytesIO(text.encode()))
        else:
            for name, text in self.truths.items():
                _text(self.tree.root / "groundtruth" / name, text)
        return self.tree

    def _place(self, split: str, category: str, number: int) -> None:
        """A sequence: one target (test and val: and a false detection), a few views at odd frame numbers."""
        sequence = f"{category}_{61 if (split, category, number) == ('val', 'airport', 0) else number}"
        folder = f"{category}/{sequence}"
        if split in self.mappings:
            output = f"{10000 + 7 * len(self.tree.boxes):07d}"
            self.mappings[split].append({"input": f"{split}_gt/{folder}", "output": f"{split}/{output}"})
            folder = output
        target, other = self.next_id, self.next_id + 1
        self.next_id += 2
        false = number % 2 == 0 and split != "train"
        for box, kind in ((target, category), *([(other, "false_detection")] if false else [])):
            self.tree.boxes[box] = {"split": split, "category": kind, "sequence": sequence, "bounds": {}}
            if split in ("test", "seq"):
                self.tree.truth[box] = kind
        frames = (0, 2, 3) if split == "seq" or category == "airport" else (int(self.rng.integers(3)),)
        for frame in frames:
            self._view(split, category, sequence, folder, frame, target, other if false else None)

    def _view(
        self,
        split: str,
        category: str,
        sequence: str,
        folder: str,
        frame: int,
        target: int,
        other: int | None,
    ) -> None:
        rng = self.rng
        height, width = (int(SIDES[category] * rng.uniform(0.8, 1.2)) for _ in range(2))
        west, north = float(rng.uniform(-170, 170)), float(rng.uniform(-55, 65))
        bounds = (west, north - height * _DEGREES, west + width * _DEGREES, north)
        pixels = _ground(rng, height, width)
        boxes = []
        for box, kind in ((target, category), *([(other, "false_detection")] if other else [])):
            h, w = (int(side * rng.uniform(0.12, 0.3)) for side in (height, width))
            y, x = int(rng.integers(height - h)), int(rng.integers(width - w))
            if kind == category:
                _draw(pixels, (y, x, h, w), *LOOKS[category])
            boxes.append({"ID": box, "box": [x, y, w, h], "category": kind, "visible": "True"})
            assert box is not None
            self.tree.boxes[box]["bounds"][frame] = _corners(bounds, (y, x, h, w))
        name = f"{sequence}_{frame}"
        test = split in self.mappings
        here = self.tree.root / split / folder / f"{folder if test else sequence}_{frame}"
        facts = self._facts(here.name, height, width)
        loose = [{"ID": b["ID"], "box": b["box"]} if test else b for b in boxes]
        single = split == "train" and category == "tower"  # as in release 1.0
        facts_loose = facts | {"bounding_boxes": loose[0] if single else loose}
        if test:
            facts_loose["timestamp"] = "1999-01-01T00:00:00Z"  # noise
        here.parent.mkdir(parents=True, exist_ok=True)
        for kind, size in (("rgb", (width, height)), ("msrgb", (max(width // 4, 8), max(height // 4, 8)))):
            if (split, sequence, frame, kind) == ("val", "airport_61", 3, "msrgb"):
                continue
            image = Image.fromarray(pixels).resize(size) if kind == "msrgb" else Image.fromarray(pixels)
            image.save(f"{here}_{kind}.jpg", quality=90)
            _text(Path(f"{here}_{kind}.json"), json.dumps(facts_loose))
            crowd = {"ID": -1, "box": [0, 0, width, height], "category": category, "raw_category": category,
                     "crowd_rank": 1, "raw_location": _wkt(bounds)}  # fmt: skip
            known = [b | {"raw_location": _wkt(self.tree.boxes[b["ID"]]["bounds"][frame])} for b in boxes]
            truth = facts | {
                "bounding_boxes": [crowd, *known], "raw_location": _wkt(bounds), "epsg": "4326",
                "spatial_reference": "GCS_WGS_1984", "catalog_id": "103001001", "abs_cal_factors": [],
            }  # fmt: skip
            if frame == 2:
                del truth["abs_cal_factors"]
            top = f"{split}_gt" if test else split
            self.truths[f"{top}/{category}/{sequence}/{name}_{kind}.json"] = json.dumps(truth)
        self.tree.views += 1

    def _facts(self, name: str, height: int, width: int) -> dict[str, Any]:
        year = int(self.rng.integers(2002, 2018))
        return {
            "gsd": 0.468, "img_filename": f"{name}_rgb.tif", "img_width": width, "img_height": height,
            "mean_pixel_width": _DEGREES, "mean_pixel_height": _DEGREES, "utm": "32T", "country_code": "CHE",
            "cloud_cover": 0, "timestamp": f"{year}-04-02T10:32:22Z", "scan_direction": "Forward",
            "approximate_wavelengths": [661, 545, 477],
        }  # fmt: skip

    def _odd_ones(self) -> None:
        """One-off oddities, in views of train that are there already."""
        names = ("no_json", "no_image", "cut_json", "odd_boxes", "old_name")
        views = sorted((self.tree.root / "train" / "zoo").glob("*/*_rgb.json"))
        crops = sorted((self.tree.root / "train" / "crop_field").glob("*/*_rgb.json"))
        for name, path in zip(names, [*views, *crops], strict=False):
            self.tree.odd[name] = path
            self.truths.pop(path.relative_to(self.tree.root).as_posix(), None)  # the truth would mend them
            facts = json.loads(path.read_text())
            (whole,) = facts["bounding_boxes"]
            if name == "no_json":
                path.unlink()
            elif name == "no_image":
                path.with_suffix(".jpg").unlink()
                self.tree.views -= 1
            elif name == "cut_json":
                path.write_text(path.read_text()[:200])
            elif name == "odd_boxes":
                high, wide = facts["img_height"], facts["img_width"]
                odd = [[5, 5, 2, 90], [wide + 4, 3, 30, 30], [wide - 20, high - 10, 60, 70]]
                facts["bounding_boxes"] = [
                    whole,
                    *(whole | {"ID": i + 1, "box": b} for i, b in enumerate(odd)),
                ]
                path.write_text(json.dumps(facts))
            else:
                facts["bounding_boxes"] = [whole, whole | {"ID": 9, "category": "unknown"}]
                path.write_text(json.dumps(facts))


def _ground(rng: np.random.Generator, height: int, width: int) -> np.ndarray:
    """Soft noise in browns and greens."""
    coarse = rng.uniform(60, 130, (math.ceil(height / 32) + 1, math.ceil(width / 32) + 1, 3)).astype(np.uint8)
    soft = np.asarray(Image.fromarray(coarse).resize((width, height), Image.Resampling.BILINEAR), np.int16)
    return np.clip(soft + rng.integers(-12, 13, (height, width, 1)), 0, 255).astype(np.uint8)


def _draw(pixels: np.ndarray, box: tuple[int, int, int, int], hue: tuple[int, int, int], period: int) -> None:
    y, x, height, width = box
    stripes = (np.arange(width) // max(period // 2, 1)) % 2
    pixels[y : y + height, x : x + width] = np.where(
        stripes[None, :, None], np.uint8(hue), np.uint8(hue) // 2
    )


def _corners(bounds: tuple[float, float, float, float], box: tuple[int, int, int, int]) -> tuple[float, ...]:
    """West, south, east, north of a box."""
    west, _, _, north = bounds
    y, x, h, w = box
    return (west + x * _DEGREES, north - (y + h) * _DEGREES, west + (x + w) * _DEGREES, north - y * _DEGREES)


def _wkt(bounds: tuple[float, ...]) -> str:
    w, s, e, n = bounds
    corners = ((w, n), (e, n), (e, s), (w, s), (w, n))
    return "POLYGON ((" + ", ".join(f"{x!r} {y!r}" for x, y in corners) + "))"


def _text(path: Path, text: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text, encoding="utf-8")
