"""The glimpses of one image: a table that grows, and the traversal made of it. NumPy only."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from hiresattn.model.traversal import Traversal
from hiresattn.shapes import Float

#: Rows for which there is room at first.
_FIRST = 64


class GlimpseTable:
    """Columns of equal length; appending copies old rows only when the room is doubled."""

    def __init__(self) -> None:
        self._columns: dict[str, np.ndarray] = {}
        self._count = 0

    def __len__(self) -> int:
        return self._count

    def __getitem__(self, name: str) -> np.ndarray:
        """A column; a view that later rows don't change."""
        return self._columns[name][: self._count]

    def append(self, rows: Mapping[str, np.ndarray]) -> None:
        """Append rows; every call gives the same columns.

        Args:
            rows: The new rows by column; of the first call also the dtypes and the widths.
        """
        added = len(next(iter(rows.values())))
        end = self._count + added
        for name, values in rows.items():
            column = self._columns.get(name)
            if column is None or end > len(column):
                column = self._grown(column, values, end)
                self._columns[name] = column
            column[self._count : end] = values
        self._count = end

    def _grown(self, column: np.ndarray | None, values: np.ndarray, least: int) -> np.ndarray:
        """The column with room for more rows."""
        room = max(_FIRST, least) if column is None else max(2 * len(column), least)
        grown = np.empty((room, *values.shape[1:]), values.dtype)
        if column is not None:
            grown[: self._count] = column[: self._count]
        return grown


def traversal_of(
    table: GlimpseTable,
    weight: Float[np.ndarray, " n"],
    logits: Float[np.ndarray, " K"],
    running: Float[np.ndarray, "n K"],
) -> Traversal:
    """The traversal of one image.

    Args:
        table: Its glimpses.
        weight: Of each glimpse in the prediction.
        logits: The prediction.
        running: The prediction after each glimpse.
    """
    return Traversal(
        image=np.zeros(len(table), np.int64),
        depth=table["depth"],
        parent=table["parent"],
        cell=table["cell"],
        region=table["region"],
        coverage=table["coverage"],
        log_prob=table["log_prob"],
        value=table["value"],
        weight=weight,
        cell_logits=table["cell_logits"],
        features=table["features"],
        glimpse_logits=table["class_logits"],
        logits=logits[None],
        running=running,
    )


def joined(traversals: Sequence[Traversal]) -> Traversal:
    """One traversal of the images of several."""
    columns: dict[str, Any] = {}
    for name in Traversal.__dataclass_fields__:
        if name != "scored":
            columns[name] = np.concatenate([getattr(traversal, name) for traversal in traversals])
    counts = [len(traversal.image) for traversal in traversals]
    images = np.cumsum([0, *(len(traversal.logits) for traversal in traversals)])[:-1]
    columns["image"] = columns["image"] + np.repeat(images, counts)
    starts = np.repeat(np.cumsum([0, *counts])[:-1], counts)
    columns["parent"] = np.where(columns["parent"] >= 0, columns["parent"] + starts, -1)
    return Traversal(**columns)
