"""The protocols behind published fMoW numbers. They are not comparable; every result names its own."""

import csv
import io
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from hiresattn.datasets.example import Example
from hiresattn.datasets.manifest import read_manifest
from hiresattn.errors import ConfigError
from hiresattn.fmow.classes import FALSE_DETECTION
from hiresattn.fmow.index import CHALLENGE, UNCROPPED
from hiresattn.option_types import did_you_mean


@dataclass(frozen=True)
class Protocol:
    """Which images or windows are classified, and which count."""

    name: str
    letter: str
    description: str
    splits: tuple[str, ...]
    windows: tuple[str, ...]
    false_detections: bool = False
    """Whether rows of ``false_detection`` count."""


#: By name: A, the challenge's; B, TNet's; C, that of the papers on self-supervised learning.
PROTOCOLS = {
    one.name: one
    for one in (
        Protocol("challenge", "A", "challenge: weighted F1 over box IDs, false detections included",
                 CHALLENGE, ("box", "context", "jhu-baseline"), false_detections=True),
        Protocol("tnet-test", "B", "TNet: top-1 over whole test images, 62 classes, no box", ("test",), ("frame",)),
        Protocol("val-crops", "C", "top-1 over box crops of val, 62 classes", ("val",),
                 ("context", "jhu-baseline", "box")),
    )
}  # fmt: skip


@dataclass(frozen=True)
class Entry:
    """A row of a manifest that ``fmow index`` wrote."""

    example: Example
    box_id: int | None
    window: str
    """As ``fmow index`` was asked for; ``none`` = a box that can't be cropped."""
    split: str
    """fMoW's own: ``train``, ``val``, ``test`` or ``seq``."""
    size: tuple[int, int] | None
    """Rows and columns of the image; None = the metadata didn't say."""


def read_entries(manifest: str | Path, protocol: str, *, limit: int | None = None) -> tuple[list[Entry], int]:
    """The rows of a manifest that a protocol asks for.

    Args:
        manifest: What ``fmow index`` wrote.
        protocol: A name in ``PROTOCOLS``.
        limit: Keep so many, evenly spread.

    Returns:
        The rows, and how many there are without the limit.

    Raises:
        ConfigError: If the manifest is of another making, has no row for the protocol or rows that it forbids.
    """
    if protocol not in PROTOCOLS:
        raise ConfigError(f"unknown protocol {protocol!r}{did_you_mean(protocol, PROTOCOLS)}")
    rule = PROTOCOLS[protocol]
    index = f"hiresattn fmow index ROOT -o {manifest} --window {rule.windows[0]}"
    if rule.false_detections:
        index += " --splits test,seq --false-detections"
    entries = _entries(Path(manifest), index)
    kept = [entry for entry in entries if entry.split in rule.splits]
    kept = [entry for entry in kept if rule.false_detections or entry.example.label != FALSE_DETECTION]
    if not kept:
        has = ", ".join(sorted({entry.split for entry in entries}))
        raise ConfigError(
            f"{manifest}: no row of {' or '.join(rule.splits)} for protocol {rule.letter} ({protocol}); it has "
            f"{has}. Make one with: {index}"
        )
    windows = {entry.window for entry in kept} - {UNCROPPED}
    if len(windows) > 1 or not windows <= set(rule.windows):
        raise ConfigError(
            f"{manifest}: windows {', '.join(sorted(windows))}; protocol {rule.letter} ({protocol}) takes "
            f"{' or '.join(rule.windows)}. Make one with: {index}"
        )
    unlabelled = sum(entry.example.label is None for entry in kept)
    if unlabelled:
        raise ConfigError(
            f"{manifest}: {unlabelled} rows of {' and '.join(rule.splits)} have no label; give fmow index the ground "
            "truth (--groundtruth groundtruth.tar.bz2)"
        )
    spread = np.unique(np.linspace(0, len(kept) - 1, min(limit or len(kept), len(kept))).astype(int))
    return [kept[i] for i in spread], len(kept)


def _entries(manifest: Path, index: str) -> list[Entry]:
    examples = read_manifest(manifest)
    table = csv.DictReader(io.StringIO(manifest.read_text(encoding="utf-8-sig"), newline=""))
    needed = ("box_id", "window", "fmow_split", "image_height", "image_width")
    missing = [name for name in needed if name not in (table.fieldnames or ())]
    if missing:
        raise ConfigError(
            f"{manifest}: no column {missing[0]!r}, so that it is no manifest of fMoW; make one with: {index}"
        )
    made = []
    for number, (example, row) in enumerate(zip(examples, table, strict=True), 2):
        try:
            high, wide, box = (
                int(row[name]) if row[name] else None for name in ("image_height", "image_width", "box_id")
            )
        except ValueError as error:
            raise ConfigError(f"{manifest}, line {number}: {error}; make it anew with: {index}") from error
        size = None if high is None or wide is None else (high, wide)
        made.append(Entry(example, box, row["window"], row["fmow_split"], size))
    return made
