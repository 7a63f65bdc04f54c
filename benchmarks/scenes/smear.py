"""The odd cell in a giant smear: scenes composed of real microscopy, with one cell of another class in each.

A scene is a grid of cell images of one class, each turned or flipped in one of 8 ways, and exactly one cell of
another class; that class is the label. Nothing is drawn: every level-0 px is a px of a cell image, and a px of
a coarser level is the mean of the level-0 px it covers, rounded once. Where the images are from: ``cells.py``.
"""

from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

import numpy as np

from hiresattn.datasets.example import SPLITS, Example
from hiresattn.errors import ConfigError, RegionError
from hiresattn.geometry import Level
from hiresattn.pyramid.base import Pyramid
from hiresattn.pyramid.metadata import Metadata
from hiresattn.pyramid.pixels import Pixels
from scenes.cells import CELL, CLASSES, MIPS, CellBank, cell_bank
from scenes.smear_kernels import average, paste

BACKGROUND = "neutrophil"
#: Turns and flips of a square.
TURNS = 8
#: Levels are halved until the side of a scene is at most this, px.
COARSEST = 64
_SPLITS = {"train": 1, "val": 2, "test": 3}


@dataclass(frozen=True)
class SmearScene:
    """What one scene holds.

    Args:
        seed: Everything that isn't given follows from it.
        grid: Cells along a side. A scene of one cell (``grid=1``) shows any of the 8 classes.
        split: Scenes of different splits share no cell image.
        background: Class of all cells but one.
        odd: Class of that one; None = any other, with equal chance.
        place: Its row and column; None = anywhere, with equal chance.
        image: Which of its class's images in the split it is; None = any.
        several: How many odd cells there are, all of one class. The task has one; training may begin with more,
            or show scenes with none, whose label is the background.
        mixed: Whether the odd cells are of any classes, each of its own, for training: the scene then has none.
    """

    seed: int
    grid: int = 16
    split: str = "train"
    background: str = BACKGROUND
    odd: str | None = None
    place: tuple[int, int] | None = None
    image: int | None = None
    several: int = 1
    mixed: bool = False

    def __post_init__(self) -> None:
        if self.grid < 1 or self.split not in SPLITS:
            raise ConfigError(
                f"a smear has grid >= 1 and split in {', '.join(SPLITS)}; got {self.grid}, {self.split!r}"
            )
        for name in (self.background, self.odd):
            if name is not None and name not in CLASSES:
                raise ConfigError(f"no class {name!r}; possible are {', '.join(CLASSES)}")
        if self.place is not None and not all(0 <= at < self.grid for at in self.place):
            raise ConfigError(f"place {self.place} is outside a grid of {self.grid} x {self.grid} cells")
        if not 0 <= self.several <= self.grid**2:
            raise ConfigError(f"a grid of {self.grid} x {self.grid} cells can't have {self.several} odd ones")

    @property
    def side(self) -> int:
        """Side of the scene, px."""
        return CELL * self.grid

    @property
    def label(self) -> str:
        """Class of the odd cell; of the background if there is none."""
        return self._drawn[0] if self.several else self.background

    @property
    def position(self) -> tuple[int, int]:
        """Row and column of the odd cell, or of the first of several."""
        return self._drawn[1]

    @property
    def positions(self) -> tuple[tuple[int, int], ...]:
        """Row and column of every odd cell."""
        first = self.position
        if self.several <= 1:
            return (first,) * self.several
        order = self._rng(4).permutation(self.grid**2).tolist()
        others = [place for place in (divmod(at, self.grid) for at in order) if place != first]
        return first, *others[: self.several - 1]

    @property
    def kinds(self) -> tuple[str, ...]:
        """Class of every odd cell."""
        if not self.mixed:
            return (self.label,) * self.several
        others = [name for name in CLASSES if name != self.background]
        return tuple(others[at] for at in self._rng(7).integers(len(others), size=self.several).tolist())

    @property
    def box(self) -> tuple[int, int, int, int]:
        """Where the odd cell is: ``(y, x, height, width)``, level-0 px; the first of several."""
        return self.boxes[0]

    @property
    def boxes(self) -> tuple[tuple[int, int, int, int], ...]:
        """Where every odd cell is."""
        return tuple((row * CELL, column * CELL, CELL, CELL) for row, column in self.positions)

    def layout(self, bank: CellBank) -> tuple[np.ndarray, np.ndarray]:
        """The number of the image, and the turn, of every cell (int64 ``[grid grid]`` each)."""
        rng = self._rng(2)
        shape = (self.grid, self.grid)
        several = bank.numbers[self.background]
        numbers = several.start + rng.integers(len(several), size=shape)
        turns = rng.integers(TURNS, size=shape)
        own = bank.numbers[self.label]
        image = int(rng.integers(len(own))) if self.image is None else self.image
        if not 0 <= image < len(own):
            raise ConfigError(f"no image {image}; class {self.label} has {len(own)} in split {self.split}")
        for number, (place, kind) in enumerate(zip(self.positions, self.kinds, strict=True)):
            own = bank.numbers[kind]
            numbers[place] = own[image if number == 0 and not self.mixed else rng.integers(len(own))]
        return numbers, turns

    @property
    def _drawn(self) -> tuple[str, tuple[int, int]]:
        rng = self._rng(1)
        others = [name for name in CLASSES if self.grid == 1 or name != self.background]
        label = others[rng.integers(len(others))]
        row, column = rng.integers(self.grid, size=2).tolist()
        return self.odd or label, self.place or (row, column)

    def _rng(self, purpose: int) -> np.random.Generator:
        key = [purpose, _SPLITS[self.split], CLASSES.index(self.background), self.grid, self.seed]
        return np.random.default_rng(key)


class SmearPyramid(Pyramid):
    """A scene as an image: RGB uint8, composed when read; a read costs as much as its window.

    Levels are halved until the side is at most 64 px.

    Args:
        zip_path: The zip of cell images.
        scene: What the scene holds.
    """

    backend: ClassVar[str] = "smear"
    by_tile = False

    def __init__(self, zip_path: str | Path, scene: SmearScene) -> None:
        self.zip_path = str(zip_path)
        self.scene = scene
        self._bank = cell_bank(self.zip_path, scene.split)
        self._cells, self._turns = scene.layout(self._bank)
        levels, downsample = [], 1
        while not levels or levels[-1].width > COARSEST:
            side = -(-scene.side // downsample)
            levels.append(Level(side, side, float(downsample), min(side, 256), min(side, 256)))
            downsample *= 2
        given = [scene.odd, scene.place, scene.image, scene.several]
        given += ["mixed"] if scene.mixed else []
        name = f"smear:{scene.split}/{scene.background}/{scene.grid}/{scene.seed}"
        super().__init__(
            name if given == [None, None, None, 1] else f"{name}/{','.join(map(str, given))}",
            Metadata(levels=tuple(levels), channels=3, dtype=np.dtype(np.uint8)),
        )

    def _read(self, level: int, y: int, x: int, height: int, width: int) -> Pixels:
        d = int(self.levels[level].downsample)
        rows = slice(y * d // CELL, -(-min((y + height) * d, self.scene.side) // CELL))
        columns = slice(x * d // CELL, -(-min((x + width) * d, self.scene.side) // CELL))
        self._bank.require(self._cells[rows, columns])
        out = np.empty((height, width, 3), np.uint8)
        if d in MIPS:
            paste(out, y, x, self._cells, self._turns, self._bank.mips[d])
        else:
            average(out, y, x, d // MIPS[-1], self._cells, self._turns, self._bank.sums)
        return Pixels(out)

    def __reduce__(self) -> tuple[type, tuple[str, SmearScene]]:
        return SmearPyramid, (self.zip_path, self.scene)


def turned(image: np.ndarray, turn: int) -> np.ndarray:
    """One of the 8 turns and flips of a square image, as scenes use them."""
    image = image[::-1] if turn & 1 else image
    image = image[:, ::-1] if turn & 2 else image
    return image.swapaxes(0, 1) if turn & 4 else image


def examples(
    zip_path: str | Path,
    split: str,
    count: int,
    *,
    grid: int = 16,
    seed0: int = 0,
    background: str = BACKGROUND,
    several: int = 1,
    empty: float = 0.0,
    mixed: bool = False,
) -> list[Example]:
    """Scenes to train on or to classify, composed when read; ``boxes`` is the truth.

    Args:
        zip_path: The zip of cell images.
        split: ``train``, ``val`` or ``test``.
        count: How many.
        grid: Cells along a side.
        seed0: Seed of the first; the others' follow it.
        background: Class of all cells but one.
        several: Most odd cells of a scene: 1 to this many, each doubling as likely as the next.
        empty: Share of scenes without one.
        mixed: See ``SmearScene``; such scenes have classes of boxes in place of one of the image.

    Returns:
        One example per scene.
    """
    rng = np.random.default_rng([5, seed0])
    numbers = np.exp2(rng.uniform(0, np.log2(several), count)).astype(int) * (rng.random(count) >= empty)
    scenes = [
        SmearScene(seed0 + i, grid, split, background, several=number, mixed=mixed)
        for i, number in enumerate(numbers.tolist())
    ]
    return [
        Example(
            SmearPyramid(zip_path, scene),
            label=None if mixed else scene.label,
            split=split,
            boxes=scene.boxes,
            box_labels=scene.kinds if mixed else None,
        )
        for scene in scenes
    ]


def single_cell_examples(
    zip_path: str | Path,
    split: str,
    per_class: int,
    *,
    seed0: int = 0,
    side: int = CELL,
    shift: int = CELL // 4,
    background: str = BACKGROUND,
    several: int = 1,
) -> list[Example]:
    """Windows with one labelled cell each, off centre, to pretrain an encoder on; read when needed.

    A window lies on the middle cell of a scene of 3 x 3, so an off-centre one shows parts of neighbours, as a
    crop off the grid of a large scene does. The middle cell is of any of the 8 classes, ``background`` too.
    Images of a class come in turn: ``per_class`` up to their number shows each at most once.

    Args:
        zip_path: The zip of cell images.
        split: ``train``, ``val`` or ``test``.
        per_class: Examples of each class.
        seed0: Other seeds give other neighbours, turns and shifts of the same cells.
        side: Side of a window, level-0 px.
        shift: How far its centre is at most from the cell's, per axis, px (0 = centred).
        background: Class of the neighbours.
        several: Most of the 3 x 3 cells that are of the labelled cell's class: 1 to this many, each doubling as
            likely as the next. What many show is learnt sooner than what one among others shows.

    Returns:
        ``per_class`` examples of each class, the classes in turn; ``region`` is the window.

    Raises:
        RegionError: If a window could leave the scene.
    """
    margin = (3 * CELL - side) // 2
    if not 0 <= shift <= margin:
        raise RegionError(f"a window of {side} px shifted by {shift} px leaves the scene of 3 x 3 cells")
    numbers = cell_bank(str(zip_path), split).numbers
    rng = np.random.default_rng([3, _SPLITS[split], seed0])
    found = []
    for i in range(per_class):
        for name in CLASSES:
            scene = SmearScene(
                seed=seed0 * 1_000_003 + len(found),
                grid=3,
                split=split,
                background=background,
                odd=name,
                place=(1, 1),
                image=i % len(numbers[name]),
                several=1 if several == 1 else int(np.exp2(rng.uniform(0, np.log2(several + 1)))),
            )
            y, x = (margin + rng.integers(-shift, shift + 1, size=2)).tolist()
            source = SmearPyramid(zip_path, scene)
            found.append(Example(source=source, label=name, split=split, region=(y, x, side, side)))
    return found
