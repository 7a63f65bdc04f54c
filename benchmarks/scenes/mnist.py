"""Megapixel-MNIST scenes: five digits and fifty scribbles on black; which digit is there three times?

A scene is a black square of grey px. Five handwritten digits of 28 px lie in it: three of one class, which is the
label, and two of other classes. Among them lie scribbles, two crossed lines each: 50 in 768 px or more, fewer in
smaller scenes (as many per px as in 768). Places are uniform; no two are nearer than 28 px in both y and x.

The digits are MNIST's (LeCun, Cortes, Burges; CC-BY-SA-3.0), read from ``data/mnist/mnist_train12k.npz`` below a
folder given: of its 12,000 digits 9,000 are for training scenes, 1,000 for validation, 2,000 for tests. Scenes are
composed when read; nothing is stored.

The rules are those of Katharopoulos and Fleuret 2019, "Processing Megapixel Images with Deep Attention-Sampling
Models", as far as they are published; the scribbles are drawn in our own way.
"""

from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import ClassVar

import numpy as np

from hiresattn.datasets.example import Example
from hiresattn.errors import ConfigError, NotFoundError
from hiresattn.geometry import Level
from hiresattn.pyramid.base import Pyramid
from hiresattn.pyramid.metadata import Metadata
from hiresattn.pyramid.pixels import Pixels

CLASSES = tuple("0123456789")
#: Where the digits are, below the shared folder.
DIGITS = Path("data") / "mnist" / "mnist_train12k.npz"
#: Side of a digit and of a scribble, px.
GLYPH = 28
#: Digits of a scene, and how many of them are of the label.
FEW, SAME = 5, 3
#: Scribbles of a scene, from this side on.
SCRIBBLES, FULL = 50, 768
#: Different scribbles of a split.
BANK = 2000
#: Smallest scene: room for the digits, wherever they fall.
LEAST = 112
#: Digits of the file that are for each split.
_PARTS = {"train": (0, 9000), "val": (9000, 10000), "test": (10000, 12000)}
_SPLITS = {"train": 1, "val": 2, "test": 3}


@dataclass(frozen=True)
class Glyphs:
    """What scenes of a split are made of."""

    ink: np.ndarray
    """Digits, then scribbles: uint8 ``[n 28 28]``."""
    numbers: tuple[np.ndarray, ...]
    """Which of them are of each class."""
    scribbles: int
    """Index of the first scribble."""


@lru_cache(maxsize=8)
def glyphs(path: str, split: str) -> Glyphs:
    """The digits and scribbles of a split; one per process.

    Raises:
        NotFoundError: If there is no such file.
    """
    if not Path(path).is_file():
        raise NotFoundError(f"{path}: no such file; the digits are {DIGITS} below the shared folder")
    with np.load(path) as stored:
        digits, labels = (stored[name][slice(*_PARTS[split])] for name in ("x", "y"))
    rng = np.random.default_rng([17, _SPLITS[split]])
    drawn = np.stack([scribble(rng) for _ in range(BANK)])
    numbers = tuple(np.flatnonzero(labels == number) for number in range(len(CLASSES)))
    return Glyphs(np.concatenate([digits, drawn]), numbers, len(digits))


def scribble(rng: np.random.Generator) -> np.ndarray:
    """Two crossed lines, one px wide, from side to side and from top to bottom: uint8 ``[28 28]``."""
    out = np.zeros((GLYPH, GLYPH), np.uint8)
    along = np.linspace(0, GLYPH - 1, 2 * GLYPH)
    for turn in (False, True):
        first, last = rng.uniform(0, GLYPH - 1, 2)
        across = first + (last - first) * along / (GLYPH - 1)
        rows, columns = (np.rint(line).astype(int) for line in ((along, across) if turn else (across, along)))
        out[rows, columns] = rng.uniform(0.8 * 255, 255, len(rows))
    return out


@dataclass(frozen=True)
class Scene:
    """What one scene holds.

    Args:
        seed: Everything follows from it.
        side: Side of the scene, px, at least 112.
        split: Scenes of different splits share no digit and no scribble.
        single: Whether there is but one digit, and no other thing: an image to pretrain an encoder on.
    """

    seed: int
    side: int = FULL
    split: str = "train"
    single: bool = False

    def __post_init__(self) -> None:
        least = GLYPH if self.single else LEAST
        if self.side < least or self.split not in _SPLITS:
            raise ConfigError(
                f"a scene has side >= {least} and split in {sorted(_SPLITS)}; got {self.side}, {self.split!r}"
            )

    @property
    def label(self) -> str:
        """Class of three of the digits."""
        return CLASSES[self.classes[0]]

    @property
    def classes(self) -> np.ndarray:
        """Class of every digit ``[5]``: the label's three, then the others."""
        rng = self._rng(1)
        label, *others = rng.integers([10, *(9,) * (FEW - SAME)])
        return np.array([label] * SAME + [(label + 1 + other) % 10 for other in others])[: self.digits]

    @property
    def digits(self) -> int:
        """How many there are."""
        return 1 if self.single else FEW

    @property
    def places(self) -> np.ndarray:
        """Where the digits are, then the scribbles: first row and column ``[n 2]``, px."""
        rng = self._rng(2)
        more = 0 if self.single else min(round(SCRIBBLES * (self.side / FULL) ** 2), SCRIBBLES)
        count = self.digits + more
        while True:
            taken = np.empty((count, 2), np.int64)
            done = 0
            for place in rng.integers(0, self.side - GLYPH + 1, (40 * count, 2)):
                if done < count and (np.abs(taken[:done] - place) >= GLYPH).any(1).all():
                    taken[done] = place
                    done += 1
            if done == count:
                return taken

    @property
    def boxes(self) -> tuple[tuple[int, int, int, int], ...]:
        """Where the digits are: ``(y, x, height, width)``, level-0 px."""
        return tuple((y, x, GLYPH, GLYPH) for y, x in self.places[: self.digits].tolist())

    def which(self, known: Glyphs) -> np.ndarray:
        """Which glyph lies at each of ``places``."""
        rng = self._rng(3)
        digits = [known.numbers[number][rng.integers(len(known.numbers[number]))] for number in self.classes]
        more = len(self.places) - self.digits
        return np.concatenate([digits, known.scribbles + rng.integers(BANK, size=more)])

    def _rng(self, purpose: int) -> np.random.Generator:
        return np.random.default_rng([purpose, _SPLITS[self.split], self.side, self.seed])


class MegaPyramid(Pyramid):
    """A scene as an image: grey uint8, levels at every power of two down to 64 px, composed when read.

    A px of a level is the mean of the level-0 px that it covers, rounded.

    Args:
        digits: The file of digits.
        scene: What the scene holds.
    """

    backend: ClassVar[str] = "megamnist"
    by_tile = False

    def __init__(self, digits: str | Path, scene: Scene) -> None:
        self.digits = str(digits)
        self.scene = scene
        self._known = glyphs(self.digits, scene.split)
        self._places = scene.places
        self._which = scene.which(self._known)
        levels, downsample = [], 1
        while not levels or scene.side // downsample >= 64:
            side = -(-scene.side // downsample)
            levels.append(Level(side, side, float(downsample), min(side, 256), min(side, 256)))
            downsample *= 2
        super().__init__(
            f"megamnist:{scene.split}/{scene.side}/{scene.seed}",
            Metadata(levels=tuple(levels), channels=1, dtype=np.dtype(np.uint8)),
        )

    def _read(self, level: int, y: int, x: int, height: int, width: int) -> Pixels:
        d = int(self.levels[level].downsample)
        start = np.array([y, x]) * d
        canvas = np.zeros((height * d, width * d), np.uint8)
        near = (self._places > start - GLYPH) & (self._places < start + canvas.shape)
        for at in np.flatnonzero(near.all(1)).tolist():
            top, left = (self._places[at] - start).tolist()
            rows, columns = slice(max(top, 0), top + GLYPH), slice(max(left, 0), left + GLYPH)
            room = canvas[rows, columns]
            up, aside = max(-top, 0), max(-left, 0)
            room[:] = self._known.ink[self._which[at]][up : up + room.shape[0], aside : aside + room.shape[1]]
        if d == 1:
            return Pixels(canvas[:, :, None])
        rows = canvas.reshape(height, d, -1).sum(1, dtype=np.int64)
        sums = rows.reshape(height, width, d).sum(2)
        inside = (  # px of the last row and column may reach beyond the scene
            np.clip(self.scene.side - first - d * np.arange(count), 0, d)
            for first, count in zip(start, (height, width), strict=True)
        )
        covered = np.outer(*inside)
        return Pixels(((2 * sums + covered) // (2 * covered)).astype(np.uint8)[:, :, None])

    def __reduce__(self) -> tuple[type, tuple[str, Scene]]:
        return MegaPyramid, (self.digits, self.scene)


def examples(
    digits: str | Path, split: str, count: int, *, side: int = FULL, seed0: int = 0, single: bool = False
) -> list[Example]:
    """Labelled scenes of a side, without boxes: training is told the label only."""
    scenes = [Scene(seed0 + number, side, split, single) for number in range(count)]
    return [Example(MegaPyramid(digits, scene), scene.label, split) for scene in scenes]
