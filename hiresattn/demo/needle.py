"""The needle task: a synthetic scene of any size with one small digit, and faint rings that lead to it.

A scene is a grey image of ``side * side`` px. It holds

* value noise at every octave;
* distractors: about 54 per 1024 * 1024 px, drawn like the needle and then cut into quadrants and shuffled;
* one needle: a handwriting-like digit of 28 px whose class is the label;
* around the needle, a faint ring of radius ``24 * 4**j`` px for every scale ``j`` that fits: a hint that is visible
  at coarse levels; and decoy rings that look the same, one per four squares of ``64 * 4**j`` px.

Every pixel of every level is a function of the seed: a scene of 69 gigapixels needs no disk space, and reading a crop
costs the same whatever the size of the scene. A coarser level is drawn without the details that it can't show.
"""

from dataclasses import dataclass
from functools import lru_cache
from typing import ClassVar

import numpy as np

from hiresattn.demo.render import BANK, GLYPH, ink, render
from hiresattn.errors import ConfigError
from hiresattn.geometry import Level
from hiresattn.pyramid.base import Pyramid
from hiresattn.pyramid.metadata import Metadata
from hiresattn.pyramid.pixels import Pixels

CLASSES = tuple("0123456789")

#: Strokes of each digit: polylines of "row,column" in percent of the glyph; strokes are parted by "/".
_STROKES = {
    "0": "0,50 12,14 50,0 88,14 100,50 88,86 50,100 12,86 0,50",
    "1": "22,22 0,55 100,55",
    "2": "20,8 2,40 10,84 36,92 100,4 100,98",
    "3": "8,8 0,60 22,92 46,50 68,98 96,62 94,6",
    "4": "0,60 64,2 64,100 / 30,74 100,74",
    "5": "0,94 0,14 42,10 38,66 66,98 94,66 96,6",
    "6": "0,76 30,20 70,2 100,40 84,92 56,84 56,30 76,6",
    "7": "2,2 2,98 100,36 / 50,36 50,86",
    "8": "46,50 26,10 0,50 26,90 46,50 76,4 100,50 76,96 46,50",
    "9": "50,96 52,40 28,2 0,40 14,92 44,98 100,60",
}


def draw_glyph(label: str, rng: np.random.Generator) -> np.ndarray:
    """Draw a digit of random slant, size, stroke width and jitter.

    Args:
        label: One of ``CLASSES``.
        rng: Random generator of the variation.

    Returns:
        Ink, float32 ``[28 28]``, 0 to 1.
    """
    angle, shear = rng.normal(0, 0.12), rng.normal(0, 0.15)
    height, width = rng.uniform(17, 22), rng.uniform(11, 16)
    turn = np.array([[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]])
    shape = turn @ np.array([[height, 0.0], [shear * width, width]])
    segments = []
    for stroke in _STROKES[label].split(" / "):
        points = np.array([[int(n) for n in point.split(",")] for point in stroke.split()]) / 100 - 0.5
        points = points + rng.normal(0, 0.03, points.shape)
        points = points @ shape.T + GLYPH / 2
        segments.append(np.hstack([points[:-1], points[1:]]))
    return ink(np.vstack(segments), rng.uniform(1.0, 1.6))


def draw_distractor(label: str, rng: np.random.Generator) -> np.ndarray:
    """Draw a digit and shuffle its quadrants, so that it is none any more; arguments as of ``draw_glyph``."""
    half = GLYPH // 2
    glyph = draw_glyph(label, rng)
    parts = [glyph[:half, :half], glyph[:half, half:], glyph[half:, :half], glyph[half:, half:]]
    order = np.roll(np.arange(4), rng.integers(1, 4))
    if rng.random() < 0.5:
        order = np.array([3, 2, 1, 0])
    a, b, c, d = (parts[i] for i in order)
    return np.block([[a, b], [c, d]])


@dataclass(frozen=True)
class NeedleScene:
    """The contents of one scene.

    Args:
        seed: Seed of everything in it.
        side: Side of the scene, px, at least 64.
        hint: Brightness of the rings, as a share of the value range (0 = no rings).
        split: Scenes of different splits share no glyph, needle or distractor.
    """

    seed: int
    side: int
    hint: float = 0.16
    split: str = "train"

    def __post_init__(self) -> None:
        if self.side < 64 or self.split not in _SPLITS:
            raise ConfigError(
                f"a needle scene has side >= 64 and split in {sorted(_SPLITS)}; got {self.side}, {self.split!r}"
            )

    @property
    def _rng(self) -> np.random.Generator:
        return np.random.default_rng([_SPLITS[self.split], self.side, self.seed])

    @property
    def label(self) -> str:
        """Class of the needle."""
        return CLASSES[self._rng.integers(10)]

    @property
    def box(self) -> tuple[int, int, int, int]:
        """The needle's box ``(y, x, height, width)``, level-0 px."""
        rng = self._rng
        rng.integers(10)
        y, x = rng.integers(2, self.side - GLYPH - 1, 2)
        return int(y), int(x), GLYPH, GLYPH

    @property
    def glyph(self) -> np.ndarray:
        """Ink of the needle, float32 ``[28 28]``."""
        return draw_glyph(self.label, np.random.default_rng([7, _SPLITS[self.split], self.side, self.seed]))


class NeedlePyramid(Pyramid):
    """A scene as an image: grey uint8, levels at every power of two, rendered when read."""

    backend: ClassVar[str] = "needle"
    by_tile = False

    def __init__(self, scene: NeedleScene) -> None:
        self.scene = scene
        y, x, _, _ = scene.box
        self._needle_yx = (y, x)
        self._glyph = scene.glyph
        self._noise_seed = np.uint64(scene.seed * 1000003 + scene.side * 7 + _SPLITS[scene.split])
        levels = []
        downsample = 1
        while downsample == 1 or scene.side // downsample >= 64:
            side = -(-scene.side // downsample)
            levels.append(Level(side, side, float(downsample), min(side, 256), min(side, 256)))
            downsample *= 2
        super().__init__(
            f"needle:{scene.split}/{scene.side}/{scene.seed}",
            Metadata(levels=tuple(levels), channels=1, dtype=np.dtype(np.uint8)),
        )

    def _read(self, level: int, y: int, x: int, height: int, width: int) -> Pixels:
        out = np.empty((height, width), np.uint8)
        render(
            out,
            y,
            x,
            int(self.levels[level].downsample),
            self.scene.side,
            self._noise_seed,
            self._needle_yx[0],
            self._needle_yx[1],
            self._glyph,
            _bank(self.scene.split),
            np.float32(self.scene.hint * 255),
        )
        return Pixels(out[:, :, None])

    def __reduce__(self) -> tuple[type, tuple[NeedleScene]]:
        return NeedlePyramid, (self.scene,)


_SPLITS = {"train": 1, "val": 2, "test": 3}


@lru_cache(maxsize=len(_SPLITS))
def _bank(split: str) -> np.ndarray:
    """Distractors of a split, float32 ``[256 28 28]``."""
    rng = np.random.default_rng([11, _SPLITS[split]])
    return np.stack([draw_distractor(CLASSES[i % 10], rng) for i in range(BANK)])
