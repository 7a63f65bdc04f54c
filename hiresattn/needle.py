"""The needle task: one small glyph in a scene of any size, and hints that lead to it. Synthetic.

A scene is a grey image of ``side * side`` px. It holds

* value noise at every octave;
* distractors: about 54 per 1024 * 1024 px, drawn like the needle and then cut into quadrants and shuffled;
* one needle: a handwriting-like digit of 28 px whose class is the label;
* around the needle, a faint ring of radius ``24 * 4**j`` px for every scale ``j`` that fits: the hint that a
  look from afar can follow; and decoy rings that look the same, one per four squares of ``64 * 4**j`` px.

Every pixel of every level is a function of the seed, so a scene of 69 gigapixels costs no disk and a crop
costs as much as its pixels. A coarser level is the scene drawn without what is too fine for it.
"""

from dataclasses import dataclass
from functools import lru_cache
from typing import ClassVar

import numpy as np

from hiresattn.errors import ConfigError
from hiresattn.geometry import Level
from hiresattn.pyramid.base import Metadata, Pixels, Pyramid
from hiresattn.schedule.compiled import compiled

CLASSES = tuple("0123456789")
#: Side of a glyph, px.
GLYPH = 28
#: Side of the square that holds at most one distractor, px.
SPACING = 128
_PRESENCE = 0.87
_BASE, _NOISE, _INK = 100.0, 9.0, 95.0
_RING, _RING_WIDTH, _DECOYS = 24.0, 0.12, 0.25
_BANK = 256

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
    """Draw a digit with its own slant, size, pen and wobble.

    Args:
        label: One of ``CLASSES``.
        rng: Where the variation comes from.

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
    return _ink(np.vstack(segments), rng.uniform(1.0, 1.6))


def draw_distractor(label: str, rng: np.random.Generator) -> np.ndarray:
    """A glyph whose quadrants are shuffled so that it is no digit; as ``draw_glyph``."""
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
    """What one scene holds.

    Args:
        seed: Everything follows from it.
        side: Side of the scene, px, at least 64.
        hint: Strength of the rings, as a share of the value range (0 = no hint).
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
        """Where the needle is: ``(y, x, height, width)``, level-0 px."""
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
        self._place = (y, x)
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
        _render(
            out,
            y,
            x,
            int(self.levels[level].downsample),
            self.scene.side,
            self._noise_seed,
            self._place[0],
            self._place[1],
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
    return np.stack([draw_distractor(CLASSES[i % 10], rng) for i in range(_BANK)])


@compiled
def _ink(segments, pen):  # type: ignore[no-untyped-def]  # noqa: ANN001, ANN202
    out = np.empty((GLYPH, GLYPH), np.float32)
    for i in range(GLYPH):
        for j in range(GLYPH):
            nearest = 1e9
            for s in range(segments.shape[0]):
                y0, x0, y1, x1 = segments[s, 0], segments[s, 1], segments[s, 2], segments[s, 3]
                dy, dx = y1 - y0, x1 - x0
                t = ((i + 0.5 - y0) * dy + (j + 0.5 - x0) * dx) / (dy * dy + dx * dx + 1e-9)
                t = min(max(t, 0.0), 1.0)
                nearest = min(nearest, (i + 0.5 - y0 - t * dy) ** 2 + (j + 0.5 - x0 - t * dx) ** 2)
            out[i, j] = min(max(pen + 0.5 - np.sqrt(nearest), 0.0), 1.0)
    return out


@compiled
def _hash(seed, a, b, c):  # type: ignore[no-untyped-def]  # noqa: ANN001, ANN202
    """A number in [0, 1) that looks random and depends on its arguments only."""
    h = np.uint64(seed) ^ (np.uint64(a) * np.uint64(0x9E3779B97F4A7C15))
    h = (h ^ (h >> np.uint64(29))) * np.uint64(0xBF58476D1CE4E5B9)
    h ^= np.uint64(b) * np.uint64(0xD6E8FEB86659FD93)
    h = (h ^ (h >> np.uint64(32))) * np.uint64(0x94D049BB133111EB)
    h ^= np.uint64(c) * np.uint64(0xA24BAED4963EE407)
    h = (h ^ (h >> np.uint64(31))) * np.uint64(0x9FB21C651E98DF25)
    return np.float32((h ^ (h >> np.uint64(28))) >> np.uint64(40)) * np.float32(1 / 16777216)


@compiled
def _noise(seed, wavelength, y, x):  # type: ignore[no-untyped-def]  # noqa: ANN001, ANN202
    """Value noise of one wavelength at a level-0 place: random values on a lattice, linear between them."""
    v, u = y / wavelength, x / wavelength
    r, c = int(np.floor(v)), int(np.floor(u))
    fv, fu = np.float32(v - r), np.float32(u - c)
    upper = _hash(seed, wavelength, r, c) * (1 - fu) + _hash(seed, wavelength, r, c + 1) * fu
    lower = _hash(seed, wavelength, r + 1, c) * (1 - fu) + _hash(seed, wavelength, r + 1, c + 1) * fu
    return upper * (1 - fv) + lower * fv - np.float32(0.5)


@compiled
def _add_noise(canvas, y0, x0, d, side, seed, amplitude):  # type: ignore[no-untyped-def]  # noqa: ANN001, ANN202
    """Add value noise of every wavelength from 2 d to the side.

    Each octave is linear between the nodes of its own lattice, hence between those of every finer one: the
    sum of all octaves is built from the coarsest lattice down, and only the finest is laid over the px.
    """
    height, width = canvas.shape
    for finest in (2, 4, 8):
        spacing = finest * d
        if spacing > side:
            break
        first_row, first = int((y0 + 0.5) * d / spacing), int((x0 + 0.5) * d / spacing)
        rows = int((y0 + height - 0.5) * d / spacing) - first_row + 2
        columns = int((x0 + width - 0.5) * d / spacing) - first + 2
        nodes = np.zeros((rows, columns), np.float32)
        for r in range(rows):
            for c in range(columns):
                value = _hash(seed, spacing, first_row + r, first + c) - np.float32(0.5)
                wavelength = spacing * 2
                while finest == 8 and wavelength <= side:
                    value += _noise(seed, wavelength, (first_row + r) * spacing, (first + c) * spacing)
                    wavelength *= 2
                nodes[r, c] = value * amplitude
        row = np.empty(columns, np.float32)
        step = np.float32(d / spacing)
        for i in range(height):
            v = (y0 + i + 0.5) * d / spacing - first_row
            r = int(v)
            f = np.float32(v - r)
            for c in range(columns):
                row[c] = nodes[r, c] + (nodes[r + 1, c] - nodes[r, c]) * f
            u = np.float32((x0 + 0.5) * d / spacing - first)
            for j in range(width):
                c = int(u)
                canvas[i, j] += row[c] + (row[c + 1] - row[c]) * (u - c)
                u += step


@compiled
def _add_ring(canvas, y0, x0, d, cy, cx, radius, strength):  # type: ignore[no-untyped-def]  # noqa: ANN001, ANN202
    """A ring with a Gaussian profile, widened (and weakened) to what a level of downsample d can show."""
    height, width = canvas.shape
    sharp = radius * _RING_WIDTH
    soft = np.sqrt(sharp * sharp + 0.16 * d * d)
    peak = np.float32(strength * sharp / soft)
    reach = radius + 3 * soft
    first_row, last_row = max(int((cy - reach) / d - y0), 0), min(int((cy + reach) / d - y0) + 1, height)
    inner = max(radius - 3 * soft, 0.0)
    far_y = max(abs(y0 * d - cy), abs((y0 + height) * d - cy))
    far_x = max(abs(x0 * d - cx), abs((x0 + width) * d - cx))
    if far_y * far_y + far_x * far_x < inner * inner:
        return
    for i in range(first_row, last_row):
        dy = (y0 + i + 0.5) * d - cy
        if abs(dy) > reach:
            continue
        half = np.sqrt(reach * reach - dy * dy)
        left, right = max(int((cx - half) / d - x0), 0), min(int((cx + half) / d - x0) + 1, width)
        for j in range(left, right):
            dx = (x0 + j + 0.5) * d - cx
            square = dy * dy + dx * dx
            if square < inner * inner or square > reach * reach:
                continue
            t = (np.sqrt(square) - radius) / soft
            canvas[i, j] += peak * np.float32(np.exp(-t * t))


@compiled
def _add_glyph(canvas, y0, x0, d, gy, gx, glyph):  # type: ignore[no-untyped-def]  # noqa: ANN001, ANN202
    """Ink spread over the px of a level; a level px holds the mean of its d * d level-0 px."""
    height, width = canvas.shape
    share = np.float32(_INK / (d * d))
    for a in range(GLYPH):
        i = (gy + a) // d - y0
        if i < 0 or i >= height:
            continue
        for b in range(GLYPH):
            j = (gx + b) // d - x0
            if 0 <= j < width:
                canvas[i, j] += share * glyph[a, b]


@compiled
def _render(out, y0, x0, d, side, seed, ny, nx, needle, bank, strength):  # type: ignore[no-untyped-def]  # noqa: ANN001, ANN202, PLR0912
    height, width = out.shape
    canvas = np.full((height, width), np.float32(_BASE), np.float32)
    _add_noise(canvas, y0, x0, d, side, seed, np.float32(2 * _NOISE))
    cy, cx = ny + GLYPH / 2, nx + GLYPH / 2
    radius, tile, scale = _RING, 64, 1
    while radius <= 0.375 * side:
        if radius >= 1.2 * d:
            _add_ring(canvas, y0, x0, d, cy, cx, radius, strength)
            last_row, last = ((y0 + height) * d) // tile + 1, ((x0 + width) * d) // tile + 1
            for r in range(max(y0 * d // tile - 1, 0), min(last_row + 1, -(-side // tile))):
                for c in range(max(x0 * d // tile - 1, 0), min(last + 1, -(-side // tile))):
                    if _hash(seed, scale + 1000, r, c) < _DECOYS:
                        dy = (r + _hash(seed, scale + 2000, r, c)) * tile
                        dx = (c + _hash(seed, scale + 3000, r, c)) * tile
                        _add_ring(canvas, y0, x0, d, dy, dx, radius, strength)
        radius, tile, scale = radius * 4, tile * 4, scale + 1
    if d <= 16:
        for r in range(
            max(y0 * d // SPACING, 0), min(((y0 + height) * d) // SPACING + 1, -(-side // SPACING))
        ):
            for c in range(
                max(x0 * d // SPACING, 0), min(((x0 + width) * d) // SPACING + 1, -(-side // SPACING))
            ):
                if _hash(seed, 1, r, c) >= _PRESENCE:
                    continue
                gy = r * SPACING + int(_hash(seed, 2, r, c) * (SPACING - GLYPH))
                gx = c * SPACING + int(_hash(seed, 3, r, c) * (SPACING - GLYPH))
                if abs(gy - ny) < 40 and abs(gx - nx) < 40:
                    continue
                if gy + GLYPH > side or gx + GLYPH > side:
                    continue
                _add_glyph(canvas, y0, x0, d, gy, gx, bank[int(_hash(seed, 4, r, c) * _BANK)])
        _add_glyph(canvas, y0, x0, d, ny, nx, needle)
    for i in range(height):
        for j in range(width):
            out[i, j] = np.uint8(min(max(canvas[i, j] + np.float32(0.5), np.float32(0)), np.float32(255)))
