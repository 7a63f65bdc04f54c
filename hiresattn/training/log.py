"""The training log: the metrics of an epoch, metrics.csv, curves.png, and TensorBoard's scalars."""

import csv
import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from itertools import pairwise
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from PIL import Image
from torch.nn.functional import binary_cross_entropy_with_logits, cross_entropy

from hiresattn.files import atomic_write
from hiresattn.model.traversal import Traversal
from hiresattn.report.curves import LINE_COLOURS, Chart
from hiresattn.training.batch import Batch
from hiresattn.training.distributed import Processes
from hiresattn.training.estimators import correctness
from hiresattn.training.targets import hits


@dataclass(frozen=True)
class EpochRecord:
    """The metrics of one epoch."""

    epoch: int
    """From 1."""
    epochs: int
    """Epochs of the whole training."""
    stage: int
    """Stage of the curriculum, from 1: images of more and more depths."""
    stages: int
    images: int
    """Images, or cases, trained on in this epoch."""
    loss: float
    """Mean over the epoch's batches."""
    accuracy: float | None
    """Share of the training images of this stage that are classified correctly, with sampled glimpses; None if none
    has a label."""
    val_accuracy: float | None
    """Share of the validation images that are classified correctly by the search that ``classify`` runs by default;
    None if there are none."""
    glimpses: float
    """Mean glimpses per training image of this stage."""
    hit: float | None
    """Share of the validation images (without any: of the training images) with known boxes in which a visited finest
    region holds the centre of one; None without boxes."""
    seconds: float
    """Wall time since the training began, earlier sessions included."""
    cpu_seconds: float
    """CPU time likewise, summed over processes."""
    entropy: float | None = None
    """See ``ChoiceDiversity``; None if nothing was chosen. So are the next three."""
    spread: float | None = None
    distinct: float | None = None
    open: float | None = None
    val_loss: float | None = None
    """Cross-entropy of the labels of the validation images, mean, by the same search as ``val_accuracy``; None if there
    are none."""
    skipped: int = 0
    """Images, of training and validation, that couldn't be opened or read; see ``TrainOptions.on_error``."""
    losses: Mapping[str, float] = field(default_factory=dict)
    """What the scorer's own losses (``Scorer.losses``), ``location`` and ``value`` add to the loss, by name: means over
    the epoch's images, weights included; 0 of images that have no such part."""


@dataclass
class RunningMetrics:
    """Counts over some images."""

    correct: int = 0
    labelled: int = 0
    """Images whose labels are known."""
    images: int = 0
    glimpses: int = 0
    boxed: int = 0
    """Images whose boxes are known."""
    found: int = 0
    """Those of them in which a visited finest region holds the centre of one."""
    loss: float = 0.0
    """Cross-entropy of their labels, summed over the labelled images; of several labels the mean over these."""

    def add(self, batch: Batch, traversal: Traversal, finest: int) -> None:
        """Count a batch."""
        logits = torch.as_tensor(traversal.logits)
        labels = torch.from_numpy(batch.main_labels).to(logits.device)
        self.correct += int((correctness(logits, labels) == 1).sum())
        self.labelled += len(labels) if labels.ndim == 2 else int((labels >= 0).sum())
        self.loss += _cross_entropy(logits.detach().float(), labels)
        self.images += len(labels)
        self.glimpses += len(traversal.image)
        found = hits(traversal, batch.sure_boxes, finest)
        self.boxed += len(found)
        self.found += int(found.sum())

    def summed(self, processes: Processes) -> "RunningMetrics":
        """The counts of all processes."""
        *counts, loss = processes.sum(list(asdict(self).values()))
        return replace(RunningMetrics(*map(round, counts)), loss=loss)

    @property
    def accuracy(self) -> float | None:
        """Share of the labelled images that are classified correctly, in all of their labels; None without any."""
        return self.correct / self.labelled if self.labelled else None

    @property
    def mean_loss(self) -> float | None:
        """Cross-entropy per labelled image; None without any."""
        return self.loss / self.labelled if self.labelled else None

    @property
    def hit(self) -> float | None:
        """Share of the images with boxes in which one was found; None without any."""
        return self.found / self.boxed if self.boxed else None


def _cross_entropy(logits: torch.Tensor, labels: torch.Tensor) -> float:
    """Summed over the images that have a label; of several labels the mean over these."""
    if labels.ndim == 2:
        each = binary_cross_entropy_with_logits(logits, labels.float(), reduction="none")
        return float(each.mean(1).sum())
    return float(cross_entropy(logits, labels, ignore_index=-1, reduction="sum"))


class ChoiceDiversity(NamedTuple):
    """How varied the chosen cells of a batch are; the first three fall when a policy collapses."""

    entropy: float
    """Mean entropy of the cells' probabilities within a region, as a share of the largest possible."""
    spread: float
    """Entropy of which cells were chosen over the whole batch, as a share of the largest possible: near 0 if
    the same cell is chosen in every image."""
    distinct: float
    """Share of an image's chosen regions that differ from each other, mean over images."""
    open: float
    """Share of a region's cells whose gate is open; 1 without gates. Near 0 or at 1 when a mask collapses."""


def choice_diversity(traversal: Traversal, gate: float | None = None) -> ChoiceDiversity | None:
    """Diversity of the choices of a forward pass; None if nothing was chosen. ``gate`` is the scorer's."""
    rows = np.flatnonzero(traversal.parent >= 0)
    if not len(rows):
        return None
    logits = traversal.cell_logits.detach()[torch.from_numpy(np.unique(traversal.parent[rows]))]
    usable = logits.isfinite()
    log_p = logits.log_softmax(1)
    entropy = -(log_p.exp() * log_p.masked_fill(~usable, 0)).sum(1)
    entropy = entropy / usable.sum(1).clamp(min=2).log()
    share = np.bincount(traversal.cell[rows], minlength=logits.shape[1]) / len(rows)
    spread = -np.sum(share * np.log(share, where=share > 0, out=np.zeros_like(share)))
    distinct = []
    for index in np.unique(traversal.image[rows]):
        mine = traversal.region[rows][traversal.image[rows] == index]
        distinct.append(len(np.unique(mine, axis=0)) / len(mine))
    return ChoiceDiversity(
        entropy=float(entropy.mean()),
        spread=float(spread / np.log(max(len(share), 2))),
        distinct=float(np.mean(distinct)),
        open=1.0 if gate is None else float((logits > gate).float().mean()),
    )


#: Panels of the curves: title, label of the axis, and its lines as key of the record → name.
PANELS: tuple[tuple[str, str, dict[str, str]], ...] = (
    (
        "Accuracy",
        "share of images",
        {"accuracy": "training", "val_accuracy": "validation", "hit": "target seen"},
    ),
    ("Loss", "per image", {"loss": "training", "val_loss": "validation"}),
    ("Choices", "share", {"entropy": "entropy", "spread": "spread", "distinct": "distinct"}),
)


def write_metrics(folder: Path, records: Sequence[Mapping[str, Any]]) -> None:
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
    """Accuracy, loss and how varied the choices are, by epoch.

    A thin line where the curriculum went on, a dashed one at the epoch that is kept: the best on the validation images.
    """
    panels = []
    epochs = int(records[-1]["epochs"])
    across = _ticks(epochs, whole=True)
    stages = [b["epoch"] for a, b in pairwise(records) if b["stage"] != a["stage"]]
    best = _best(records)
    for title, axis, lines in PANELS:
        points = {
            name: [(r["epoch"], r[key]) for r in records if r.get(key) is not None]
            for key, name in lines.items()
        }
        values = [value for line in points.values() for _, value in line] if title == "Loss" else [1.0]
        chart = Chart(title, ("epoch", across), (axis, _ticks(max(values), min(*values, 0))))
        for epoch in stages:
            chart.vertical_line(epoch)
        if best is not None:
            chart.vertical_line(best, f"kept: epoch {best}")
        for (name, line), colour in zip(points.items(), LINE_COLOURS, strict=False):
            if line:
                chart.line(name, line, colour, dots=len(line) == 1)
        panels.append(chart.image())
    whole = Image.new("RGB", (panels[0].width, sum(panel.height for panel in panels)))
    for number, panel in enumerate(panels):
        whole.paste(panel, (0, number * panel.height))
    return whole


def _best(records: Sequence[Mapping[str, Any]]) -> int | None:
    """The epoch that is kept: the last of the best ones of the last stage; None where nothing validates."""
    last = [r for r in records if r["stage"] == r.get("stages", r["stage"]) and r["val_accuracy"] is not None]
    return max(last, key=lambda r: (r["val_accuracy"], r["epoch"]))["epoch"] if last else None


class TensorBoardLog:
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
