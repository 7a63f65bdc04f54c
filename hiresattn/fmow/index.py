"""Turns views into rows of a manifest: one per image or one per box."""

import csv
import json
import math
import os
from collections.abc import Iterable, Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path

from hiresattn.datasets.tables import csv_cell
from hiresattn.errors import ConfigError
from hiresattn.files import atomic_write
from hiresattn.fmow.classes import CLASSES, FALSE_DETECTION
from hiresattn.fmow.metadata import CROWD, Box, Metadata
from hiresattn.fmow.tree import Skipped, View
from hiresattn.fmow.windows import TINY, WINDOWS, clipped, context_window
from hiresattn.option_types import did_you_mean

Region = tuple[int, int, int, int]

#: Columns of the manifest; those up to ``mpp`` are every manifest's, the others are fMoW's.
COLUMNS = (
    "path", "label", "split", "y", "x", "height", "width", "boxes", "group", "mpp",
    "box_id", "window", "fmow_split", "frame", "image_height", "image_width",
    "gsd", "timestamp", "country_code", "cloud_cover",
)  # fmt: skip

#: What the column ``window`` has for a box that can't be cropped.
UNCROPPED = "none"
#: Splits that the challenge scores.
CHALLENGE = ("test", "seq")

_FALSE = f"labelled {FALSE_DETECTION}"

#: Metres per degree of latitude, on the mean sphere.
_DEGREE = math.radians(1) * 6_371_009


@dataclass(frozen=True)
class Row:
    """One row of the manifest."""

    view: View
    label: str | None
    """Category; None = not known."""
    region: Region | None
    """``(y, x, height, width)``, px of the image; None = the frame."""
    boxes: tuple[Region, ...]
    """Where the label's targets are."""
    box_id: int | None
    """The box classified; None for a frame."""
    croppable: bool = True
    """False = a box of the challenge that is too small, outside of its image or without one: a row without a window."""


def rows(
    found: Iterable[View | Skipped], *, window: str = "frame", false_detections: bool = False
) -> Iterator[Row | Skipped]:
    """Turn views into what is classified.

    Args:
        found: What ``scan`` yields.
        window: ``frame`` (one row per view, labelled as its folder), or one row per box: ``box``, ``context``
            or ``jhu-baseline``; see ``context_window``.
        false_detections: Keep what is labelled ``false_detection``, and the boxes of ``test`` and ``seq`` that can't be
            cropped, or whose image isn't there: the challenge scores every box. Else they are left out.

    Yields:
        Rows, and what was left out: what came in so, crowds' boxes, false detections, boxes of at most 2 px or
        outside of the image, unknown categories, and for boxes views without metadata.

    Raises:
        ConfigError: If there is no such window.
    """
    if window not in WINDOWS:
        raise ConfigError(f"unknown window {window!r}{did_you_mean(window, WINDOWS)}")
    for view in found:
        if isinstance(view, Skipped):
            yield view
            missing = view.view
            if missing and missing.metadata and window != "frame" and false_detections:
                yield from _unseen(missing, missing.metadata)
        elif window == "frame":
            yield _frame(view, keep=false_detections)
        elif view.metadata is None:
            yield Skipped(str(view.image), "image without metadata")
        else:
            for box in view.metadata.boxes:
                yield _box(view, view.metadata, box, window, keep=false_detections)


def write_rows(
    found: Iterable[Row | Skipped], output: str | Path, window: str, *, boxes: bool = False
) -> Iterator[Row | Skipped]:
    """Write rows to a manifest while passing them on; ``output`` is replaced after the last one.

    Args:
        found: What ``rows`` yields.
        output: The CSV. Paths in it are relative to it.
        window: What ``rows`` was asked for; written beside each row.
        boxes: Fill the column ``boxes``, with which training supervises the scorer (the paper's doesn't).

    Yields:
        What was put in.

    Raises:
        ConfigError: If no row came, or the file can't be written; ``output`` is left as it was.
    """
    output = Path(output)
    count = 0
    with ExitStack() as stack:
        try:
            part = stack.enter_context(atomic_write(output))
            file = stack.enter_context(part.open("w", newline="", encoding="utf-8"))
        except OSError as error:
            raise ConfigError(
                f"{output}: it can't be written ({error.strerror}); check its folder"
            ) from error
        table = csv.writer(file, lineterminator="\n")
        table.writerow(COLUMNS)
        for row in found:
            if isinstance(row, Row):
                table.writerow(map(csv_cell, _cells(row, output, window, boxes=boxes)))
                count += 1
            yield row
        if not count:
            raise ConfigError(
                f"{output}: not written, no row was left; the reasons are above. Check the folder, the splits and "
                "the ground truth"
            )


def ground_px(metadata: Metadata) -> float | None:
    """Side of a px on the ground, micrometres: the geometric mean of height and width; None = not known.

    Images lie on a geographic grid, so that their px are oblong: narrower by the cosine of the latitude.
    """
    if metadata.bounds is None:
        return None
    west, south, east, north = metadata.bounds
    high = (north - south) / metadata.height * _DEGREE
    wide = (east - west) / metadata.width * _DEGREE * math.cos(math.radians((north + south) / 2))
    return 1e6 * math.sqrt(high * wide)


def _frame(view: View, *, keep: bool) -> Row | Skipped:
    if view.category == FALSE_DETECTION and not keep:
        return Skipped(str(view.image), _FALSE)
    boxes = () if view.metadata is None else view.metadata.boxes
    named = view.category is not None
    mine = [b for b in boxes if named and b.id != CROWD and b.category == view.category]
    size = (view.metadata.height, view.metadata.width) if view.metadata else (0, 0)
    inside = [clipped(b.y, b.x, b.height, b.width, *size) for b in mine]
    return Row(view, view.category, None, tuple(box for box in inside if box), None)


def _box(view: View, metadata: Metadata, box: Box, window: str, *, keep: bool) -> Row | Skipped:
    where, which = str(view.image), f"box {box.id}"
    if box.id == CROWD:
        return Skipped(where, "box of the crowd (ID -1)")
    if box.category == FALSE_DETECTION and not keep:
        return Skipped(where, _FALSE, which)
    if box.category not in (None, FALSE_DETECTION, *CLASSES):
        return Skipped(where, "box of no category of fMoW", f"{which}: {box.category}")
    size = (metadata.height, metadata.width)
    inside = clipped(box.y, box.x, box.height, box.width, *size)
    tiny = min(box.height, box.width) <= TINY
    if keep and view.split in CHALLENGE and (tiny or inside is None):
        return Row(view, box.category, None, (), box.id, croppable=False)
    if tiny or inside is None:
        reason = f"box of at most {TINY} px" if tiny else "box outside of its image"
        what = f"{box.width} x {box.height} px" if tiny else f"x {box.x}, y {box.y}"
        return Skipped(where, reason, f"{which}: {what}")
    region: Region | None = inside
    if window != "box":
        swapped = window == "jhu-baseline"
        region = context_window(box.y, box.x, box.height, box.width, *size, swapped=swapped)
    return Row(view, box.category, region, (inside,), box.id)


def _unseen(view: View, metadata: Metadata) -> Iterator[Row]:
    """The boxes that the challenge scores on an image that isn't there."""
    if view.split in CHALLENGE:
        for box in metadata.boxes:
            if box.id != CROWD and box.category in (None, FALSE_DETECTION, *CLASSES):
                yield Row(view, box.category, None, (), box.id, croppable=False)


def _cells(row: Row, manifest: Path, window: str, *, boxes: bool) -> list[str]:
    view, facts = row.view, row.view.metadata
    micrometres = ground_px(facts) if facts else None
    return [
        os.path.relpath(view.image, manifest.parent),
        row.label or "",
        "test" if view.split == "seq" else view.split,
        *(map(str, row.region) if row.region else [""] * 4),
        json.dumps(row.boxes) if boxes and row.boxes else "",
        f"{view.split}/{view.sequence}",
        "" if micrometres is None else f"{micrometres:.0f}",
        "" if row.box_id is None else str(row.box_id),
        window if row.croppable else UNCROPPED,
        view.split,
        str(view.frame),
        *((str(facts.height), str(facts.width)) if facts else ("", "")),
        "" if facts is None or facts.gsd is None else f"{facts.gsd:g}",
        *((facts.timestamp, facts.country_code, facts.cloud_cover) if facts else ("", "", "")),
    ]
