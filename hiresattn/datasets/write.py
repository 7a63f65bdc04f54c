"""Examples as a manifest: the reverse of ``read_manifest``."""

import csv
import io
import json
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from hiresattn.datasets.example import SEPARATOR, Example
from hiresattn.datasets.tables import csv_cell
from hiresattn.errors import ConfigError
from hiresattn.files import atomic_write


def write_manifest(path: str | Path, examples: Sequence[Example]) -> None:
    """Write examples as a CSV manifest, whole or not at all; paths of files become relative to it.

    ``read_manifest`` reads the same examples from it, with absolute paths.

    Args:
        path: CSV to write; its folder must be there.
        examples: Images, or windows of images, by path or address.

    Raises:
        ConfigError: If there is no such folder, or a source has no path.
    """
    path = Path(path)
    if not path.parent.is_dir():
        raise ConfigError(f"{path}: there is no folder {path.parent}; make it, or give another file")
    several = any(isinstance(example.label, tuple) for example in examples)
    columns = ["path", "labels" if several else "label", "split", "y", "x", "height", "width"]
    text = io.StringIO()
    table = csv.writer(text, lineterminator="\n")
    table.writerow([*columns, "boxes", "case_id", "group", "mpp", "fold"])
    for example in examples:
        label = SEPARATOR.join(example.label) if isinstance(example.label, tuple) else example.label
        more = (example.case, example.group, example.mpp, example.fold)
        row = [_source(example, path.parent), label, example.split, *(example.region or [None] * 4)]
        table.writerow(["" if value is None else csv_cell(value) for value in (*row, _boxes(example), *more)])
    with atomic_write(path) as part:
        part.write_text(text.getvalue(), encoding="utf-8")


def _source(example: Example, folder: Path) -> str:
    if not isinstance(example.source, str | Path):
        raise ConfigError(
            f"a {type(example.source).__name__} has no path; a manifest names files and addresses"
        )
    source = str(example.source)
    return source if "://" in source or source.startswith("/vsi") else os.path.relpath(source, folder)


def _boxes(example: Example) -> str | None:
    if example.boxes is None:
        return None
    count = len(example.boxes)
    classes: list[Any] = [[name] for name in example.box_labels or ()] or [[]] * count
    confidence: list[Any] = [[round(p, 3)] for p in example.box_confidence or ()] or [[]] * count
    rows = zip(example.boxes, classes, confidence, strict=True)
    return json.dumps([[*box, *name, *sure] for box, name, sure in rows])
