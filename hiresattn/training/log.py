"""What a run leaves to look at beside the model: metrics.csv, curves.png, and TensorBoard's scalars."""

import csv
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from itertools import pairwise
from pathlib import Path
from typing import Any

from PIL import Image

from hiresattn.files import atomic_write
from hiresattn.report.curves import LINE_COLOURS, Chart


@dataclass(frozen=True)
class EpochRecord:
    """What one epoch gave."""

    epoch: int
    """From 1."""
    epochs: int
    stage: int
    """Stage of the curriculum, from 1: images of more and more depths."""
    stages: int
    images: int
    loss: float
    accuracy: float | None
    """On the training images of this stage that have labels, with sampled glimpses; None without any."""
    val_accuracy: float | None
    """On the validation images, with the best glimpses; None without any."""
    glimpses: float
    """Mean glimpses per image of this stage."""
    hit: float | None
    """Share of the validation images (without any: of the training images, guided) with known boxes in which
    a finest visited region holds the centre of one; None without boxes."""
    seconds: float
    """Wall time since the training began, earlier sessions included."""
    cpu_seconds: float
    entropy: float | None = None
    """How undecided the scores are, 0 to 1; see ``estimators.Choices``. None if nothing was chosen."""
    spread: float | None = None
    """How varied the chosen cells of a batch are, 0 to 1."""
    distinct: float | None = None
    """Share of an image's chosen regions that differ."""
    open: float | None = None
    """Share of a region's cells whose gates are open; 1 for scorers without gates."""
    skipped: int = 0
    """Images left out because they couldn't be read, training and validation; see ``TrainOptions.on_error``."""
    losses: Mapping[str, float] = field(default_factory=dict)
    """What the scorer's own losses (``Scorer.losses``), ``location`` and ``value`` add to the loss, by name: means over
    the epoch's images, weights included; 0 of images that have no such part."""


#: Panels of the curves: title, what the axis says, and its lines as key of the record → name.
PANELS: tuple[tuple[str, str, dict[str, str]], ...] = (
    (
        "Accuracy",
        "share of images",
        {"accuracy": "training", "val_accuracy": "validation", "hit": "target seen"},
    ),
    ("Loss", "per image", {"loss": "training"}),
    ("Choices", "share", {"entropy": "entropy", "spread": "spread", "distinct": "distinct"}),
)


def write_journal(folder: Path, records: Sequence[Mapping[str, Any]]) -> None:
    """Write ``metrics.csv`` and ``curves.png``, each whole or not at all.

    A column per value, in the order in which they came up; empty where an epoch has no such value.

    Args:
        folder: The model's directory.
        records: ``EpochRecord`` of every epoch so far, as names and values.

    Raises:
        OSError: If they can't be written.
    """
    flat = [_flat(record) for record in records]
    with atomic_write(folder / "metrics.csv") as file, file.open("w", newline="", encoding="utf-8") as stream:
        writer = csv.DictWriter(stream, list(dict.fromkeys(name for one in flat for name in one)))
        writer.writeheader()
        writer.writerows(flat)
    with atomic_write(folder / "curves.png") as file:
        curves(records).save(file, "PNG")


def curves(records: Sequence[Mapping[str, Any]]) -> Image.Image:
    """Accuracy, loss and how varied the choices are, by epoch; a thin line where the curriculum went on."""
    panels = []
    epochs = int(records[-1]["epochs"])
    across = _ticks(epochs, whole=True)
    stages = [b["epoch"] for a, b in pairwise(records) if b["stage"] != a["stage"]]
    for title, axis, lines in PANELS:
        points = {
            name: [(r["epoch"], r[key]) for r in records if r.get(key) is not None]
            for key, name in lines.items()
        }
        values = [value for line in points.values() for _, value in line] if title == "Loss" else [1.0]
        chart = Chart(title, ("epoch", across), (axis, _ticks(max(values), min(*values, 0))))
        for epoch in stages:
            chart.vertical_line(epoch)
        for (name, line), colour in zip(points.items(), LINE_COLOURS, strict=False):
            if line:
                chart.line(name, line, colour, dots=len(line) == 1)
        panels.append(chart.image())
    whole = Image.new("RGB", (panels[0].width, sum(panel.height for panel in panels)))
    for number, panel in enumerate(panels):
        whole.paste(panel, (0, number * panel.height))
    return whole


class Board:
    """TensorBoard's scalars, in ``folder/tensorboard``, where TensorBoard is installed; else nothing.

    Args:
        folder: The model's directory.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder / "tensorboard"
        self._make: Any = None
        self._writer: Any = None
        try:
            from torch.utils.tensorboard import SummaryWriter
        except ImportError:
            pass
        else:
            self._make = SummaryWriter

    def add(self, record: Mapping[str, Any]) -> None:
        """Write an epoch's numbers; what an earlier session wrote of it and of later ones is void."""
        if self._make is None:
            return
        epoch = record["epoch"]
        if self._writer is None:
            self._writer = self._make(str(self._folder), purge_step=epoch)
        for name, value in _flat(record).items():
            if value is not None and name not in ("epoch", "epochs"):
                self._writer.add_scalar(name, value, epoch)
        self._writer.flush()

    def close(self) -> None:
        """End the file."""
        if self._writer is not None:
            self._writer.close()


def _flat(record: Mapping[str, Any]) -> dict[str, Any]:
    """A record with ``loss_NAME`` in place of its ``losses``, at the end."""
    losses = record["losses"]
    plain = {name: value for name, value in record.items() if name != "losses"}
    return plain | {f"loss_{name}": value for name, value in losses.items()}


def _ticks(top: float, low: float = 0, *, whole: bool = False) -> list[tuple[float, str]]:
    """About five round values from at most ``low`` to at least ``top``, 0 among them."""
    rough = max(top - low, 1e-6) / 5
    unit = 10.0 ** math.floor(math.log10(rough))
    step = next(unit * factor for factor in (1, 2, 2.5, 5, 10) if unit * factor >= rough * 0.999)
    step = max(math.ceil(step), 1) if whole else step
    first, last = math.floor(low / step + 1e-9), math.ceil(top / step - 1e-9)
    return [(number * step, f"{number * step:g}") for number in range(first, last + 1)]
