"""Slides composed of glass, a pen's strokes, a black margin, and islands of tissue, half of them pale; one cell in it.

Tissue is a real H&E field, turned and shifted; the cell is one of two classes of real blood cells (``cells.py``), in
the tissue and under no ink. Without the data folder both are drawn. What each px shows is known.
"""

from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw

from scenes.canvas import FIELD
from scenes.cells import ZIP, cell_bank

CLASSES = ("basophil", "eosinophil")
#: Side of the cell, px.
CELL = 80
#: Share of the slide that is tissue; px of black at the right.
TISSUE, MARGIN = 0.3, 48
#: Share of its colour that pale tissue keeps.
PALE = 0.3
GLASS = ((244, 243, 244), (230, 227, 233), (240, 236, 226))
INKS = ((30, 50, 160), (20, 120, 60), (200, 25, 40), (25, 25, 28))


@dataclass(frozen=True, eq=False)
class Slide:
    """A slide, and what it shows."""

    image: np.ndarray
    """uint8 ``[side side 3]``"""
    tissue: np.ndarray
    """Whether a px shows tissue, and no ink ``[side side]``."""
    pale: np.ndarray
    """Whether its tissue, if any, is pale ``[side side]``."""
    box: tuple[int, int, int, int]
    """The cell's ``(y, x, height, width)``."""
    label: str


def compose(
    seed: int, side: int = 1536, *, split: str = "train", shared: Path | None = None, empty: bool = False
) -> Slide:
    """Compose a slide.

    Args:
        seed: Everything follows from it.
        side: Rows and columns, px.
        split: Whose cell images.
        shared: The folder that holds ``data``; None = tissue and cells are drawn.
        empty: Whether it has no tissue, and no cell.
    """
    rng = np.random.default_rng((seed, ("train", "val", "test").index(split)))
    glass = np.array(GLASS[rng.integers(len(GLASS))], np.float32)
    shape = _islands(rng, side, 0.0 if empty else TISSUE)
    pale = _noise(rng, side, 3) > 0
    colour = _field(rng, side, shared).astype(np.float32)
    colour[pale] = glass + PALE * (colour[pale] - glass)
    image = np.where(shape[..., None], colour, glass)
    label = CLASSES[int(rng.integers(2))]
    box = (0, 0, 0, 0)
    if not empty:
        box = _place(rng, shape)
        y, x = box[:2]
        cell, round_ = _cell(rng, label, split, shared)
        part = image[y : y + CELL, x : x + CELL]
        part[round_] = cell[round_]
    image += rng.normal(0, 1.5, image.shape).astype(np.float32)
    ink = _strokes(rng, image, box)
    image[:, -MARGIN:] = 0
    shown = shape & ~ink
    shown[:, -MARGIN:] = False
    return Slide(image.clip(0, 255).astype(np.uint8), shown, pale, box, label)


def _noise(rng: np.random.Generator, side: int, waves: int) -> np.ndarray:
    """A smooth field of mean 0, with about so many waves along a side."""
    coarse = rng.normal(size=(waves + 3, waves + 3)).astype(np.float32)
    return np.asarray(Image.fromarray(coarse).resize((side, side), Image.Resampling.BICUBIC))


def _islands(rng: np.random.Generator, side: int, share: float) -> np.ndarray:
    """Islands that are a share of the slide, none on the margin."""
    height = _noise(rng, side, 5) + 0.3 * _noise(rng, side, 24)
    height = height - 10 * (np.arange(side) >= side - 2 * MARGIN)
    return height > np.quantile(height, 1 - share)


def _field(rng: np.random.Generator, side: int, shared: Path | None) -> np.ndarray:
    if shared is None:
        field = (
            np.full((side, side, 3), (218, 160, 196), np.float32)
            + 8 * _noise(rng, side, side // 8)[..., None]
        )
        for y, x in rng.integers(0, side - 8, (side * side // 2500, 2)):
            field[y : y + 7, x : x + 7] = (110, 70, 150)
        return field
    with Image.open(shared / "data" / FIELD) as opened:
        field = np.asarray(opened.convert("RGB"))
    y, x = rng.integers(0, np.array(field.shape[:2]) - side + 1)
    return np.rot90(field[y : y + side, x : x + side], int(rng.integers(4)))[:, :: rng.choice([-1, 1])]


def _place(rng: np.random.Generator, shape: np.ndarray) -> tuple[int, int, int, int]:
    """Where a cell lies in tissue alone."""
    sums = np.pad(shape.cumsum(0, dtype=np.int32).cumsum(1, dtype=np.int32), ((1, 0), (1, 0)))
    inside = sums[CELL:, CELL:] - sums[:-CELL, CELL:] - sums[CELL:, :-CELL] + sums[:-CELL, :-CELL]
    places = np.argwhere(inside == CELL * CELL)
    y, x = places[rng.integers(len(places))].tolist()
    return y, x, CELL, CELL


def _cell(
    rng: np.random.Generator, label: str, split: str, shared: Path | None
) -> tuple[np.ndarray, np.ndarray]:
    """A cell, and which px of the square are of it."""
    rows, columns = np.mgrid[:CELL, :CELL] - (CELL - 1) / 2
    round_ = rows**2 + columns**2 < (0.42 * CELL) ** 2
    if shared is None:
        cell = np.full(
            (CELL, CELL, 3), (150, 90, 170) if label == CLASSES[0] else (210, 110, 120), np.float32
        )
        cell[np.abs(rows) + np.abs(columns) < CELL / 4] = (80, 40, 130)
        return cell, round_
    bank = cell_bank(str(shared / ZIP), split)
    number = bank.numbers[label][int(rng.integers(len(bank.numbers[label])))]
    bank.require(np.array([number]))
    return np.asarray(
        Image.fromarray(bank.mips[1][number]).resize((CELL, CELL), Image.Resampling.BOX), np.float32
    ), round_


def _strokes(rng: np.random.Generator, image: np.ndarray, box: tuple[int, int, int, int]) -> np.ndarray:
    """Draw a pen's strokes on an image, none over a box; which px are inked."""
    side = len(image)
    y, x, height, width = box
    inked = np.zeros((side, side), bool)
    for _ in range(3):
        canvas = Image.new("L", (side, side))
        start, turn, at = rng.uniform(0, side, 2), rng.uniform(0, 2 * np.pi), rng.uniform(-0.15, 0.15)
        turns = turn + at * np.arange(24)
        points = start + side / 24 * np.cumsum(np.stack([np.cos(turns), np.sin(turns)], 1), axis=0)
        ImageDraw.Draw(canvas).line(
            [tuple(point) for point in points.tolist()],
            fill=255,
            width=int(rng.integers(24, 56)),
            joint="curve",
        )
        stroke = np.asarray(canvas) > 0
        if height and stroke[max(y - 8, 0) : y + height + 8, max(x - 8, 0) : x + width + 8].any():
            continue
        ink = np.array(INKS[rng.integers(len(INKS))], np.float32)
        image[stroke] = 0.08 * image[stroke] + 0.92 * ink + rng.normal(0, 3, (int(stroke.sum()), 1))
        inked |= stroke
    return inked
