"""The odd cell in a giant smear: scenes composed of real microscopy, with one cell of another class in each.

    python benchmarks/smear.py ../shared OUT --count 20 --grid 16 --format tiff --split test

A scene is a grid of cell images of one class, each turned or flipped in one of 8 ways, and exactly one cell of
another class; that class is the label. Nothing is drawn: every level-0 px is a px of a cell image, and a px of
a coarser level is the mean of the level-0 px it covers, rounded once.

The cell images are of Acevedo et al. 2020, "A dataset of microscopic peripheral blood cell images for
development of automatic recognition systems", Mendeley Data, snkd93bnjr, CC-BY-4.0: 8 classes of 400 images
in ``data/patches/bloodcells_pbc_360.zip``. No image is in two splits; the set has no patient ids, so a patient
can be.
"""

import csv
import hashlib
import io
import json
import threading
import zipfile
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import ClassVar

import click
import numpy as np
from writers import WRITERS

from hiresattn.datasets.manifest import SPLITS, Example
from hiresattn.errors import ConfigError, NotFoundError, OpenError, RegionError
from hiresattn.files import atomic_write
from hiresattn.geometry import Level
from hiresattn.pyramid.base import Metadata, Pixels, Pyramid
from hiresattn.reading.compiled import compiled

#: Names of the classes: the folders of the zip.
CLASSES = (
    "basophil",
    "eosinophil",
    "erythroblast",
    "ig",
    "lymphocyte",
    "monocyte",
    "neutrophil",
    "platelet",
)
BACKGROUND = "neutrophil"
#: Where the cell images are, below the shared folder.
ZIP = Path("data") / "patches" / "bloodcells_pbc_360.zip"
#: Side of a cell, px.
CELL = 360
#: Downsamples at which a cell has a whole number of px: those that are kept ready.
MIPS = (1, 2, 4, 8)
#: Side of a cell at the last of them, px.
SMALL = CELL // MIPS[-1]
#: Turns and flips of a square.
TURNS = 8
#: Levels are halved until the side of a scene is at most this, px.
COARSEST = 64
#: Tenths of a class's files in train and val; the rest is test (of 400: 280, 40, 80).
_TENTHS = {"train": (0, 7), "val": (7, 8), "test": (8, 10)}
_SPLITS = {"train": 1, "val": 2, "test": 3}


class CellBank:
    """The cell images of one split, each decoded once, on first use (or all at once, by ``load``).

    Files are put in the order of a hash of ``class/name`` and dealt to the splits in that order. An image is
    cut to its central 360 x 360 px (the set has 360 x 363, 366 x 369 and 360 x 360 px); a side that is
    shorter would be filled by mirroring its edges, which no image of the set needs.

    Args:
        zip_path: The zip, ``class/file.jpg``.
        split: ``train``, ``val`` or ``test``.

    Raises:
        NotFoundError: If there is no such zip.
        OpenError: If it is damaged, or a class has no image for the split.
        ConfigError: If there is no such split.
    """

    def __init__(self, zip_path: str | Path, split: str) -> None:
        if split not in SPLITS:
            raise ConfigError(f"no split {split!r}; possible are {', '.join(SPLITS)}")
        files = _files(Path(zip_path))
        first, last = _TENTHS[split]
        self.zip_path = str(zip_path)
        self.split = split
        self.names: list[str] = []
        """``class/file`` of every image, class by class."""
        self.numbers: dict[str, range] = {}
        """Which images are of a class."""
        for name in CLASSES:
            chosen = files[name][len(files[name]) * first // 10 : len(files[name]) * last // 10]
            if not chosen:
                raise OpenError(f"{zip_path}: class {name} has no image for split {split}; copy it again")
            self.numbers[name] = range(len(self.names), len(self.names) + len(chosen))
            self.names += chosen
        with zipfile.ZipFile(zip_path) as archive:
            self._jpegs: list[bytes | None] = [archive.read(name) for name in self.names]
        count = len(self.names)  # memory is taken where an image is decoded, not here
        self.mips = {d: np.empty((count, CELL // d, CELL // d, 3), np.uint8) for d in MIPS}
        """Images at each of ``MIPS``, uint8 ``[n side side 3]``; see ``require``."""
        self.sums = np.zeros((count, SMALL + 1, SMALL + 1, 3), np.int32)
        """Sums of the level-0 px above and left of each px of the last mip, ``[n 46 46 3]``."""
        self._ready = np.zeros(count, bool)
        self._lock = threading.Lock()

    def __len__(self) -> int:
        return len(self.names)

    def require(self, numbers: np.ndarray) -> None:
        """Decode those of the images that aren't yet."""
        if self._ready[numbers].all():
            return
        with self._lock:
            missing = np.unique(numbers)
            missing = missing[~self._ready[missing]]
            for number in missing.tolist():
                self._decode(number)

    def load(self) -> "CellBank":
        """Decode every image."""
        self.require(np.arange(len(self)))
        return self

    def _decode(self, number: int) -> None:
        import simplejpeg

        jpeg = self._jpegs[number]
        assert jpeg is not None
        try:
            image = simplejpeg.decode_jpeg(jpeg, "RGB")
        except ValueError as error:
            raise OpenError(
                f"{self.zip_path}: {self.names[number]} is damaged ({error}); copy it again"
            ) from error
        image = square(image)
        self.mips[1][number] = image
        total = image.astype(np.uint16)
        for shift, d in enumerate(MIPS[1:], start=1):
            rows = total[::2] + total[1::2]
            total = rows[:, ::2] + rows[:, 1::2]  # at most 64 * 255
            self.mips[d][number] = (total + (1 << (2 * shift - 1))) >> (2 * shift)
        self.sums[number, 1:, 1:] = total.astype(np.int32).cumsum(0).cumsum(1)
        self._jpegs[number] = None
        self._ready[number] = True


def square(image: np.ndarray) -> np.ndarray:
    """The central 360 x 360 px; a side that is shorter is first filled by mirroring its edges."""
    short = [max(CELL - side, 0) for side in image.shape[:2]]
    image = np.pad(image, [*((gap // 2, gap - gap // 2) for gap in short), (0, 0)], mode="symmetric")
    y, x = ((side - CELL) // 2 for side in image.shape[:2])
    return image[y : y + CELL, x : x + CELL]


@lru_cache(maxsize=2 * len(SPLITS))
def cell_bank(zip_path: str, split: str) -> CellBank:
    """The bank of a zip and a split; one per process."""
    return CellBank(zip_path, split)


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
            _paste(out, y, x, self._cells, self._turns, self._bank.mips[d])
        else:
            _average(out, y, x, d // MIPS[-1], self._cells, self._turns, self._bank.sums)
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


def _files(zip_path: Path) -> dict[str, list[str]]:
    """Files of each class, in an order that tells nothing."""
    if not zip_path.is_file():
        raise NotFoundError(f"{zip_path}: there is no such file; give the zip of blood cell images")
    try:
        with zipfile.ZipFile(zip_path) as archive:
            names = archive.namelist()
    except zipfile.BadZipFile as error:
        raise OpenError(f"{zip_path}: damaged ({error}); copy it again") from error
    files: dict[str, list[str]] = {name: [] for name in CLASSES}
    for name in names:
        folder = name.rpartition("/")[0].rpartition("/")[2]
        if folder in files and name.lower().endswith((".jpg", ".jpeg")):
            files[folder].append(name)
    return {folder: sorted(found, key=_order) for folder, found in files.items()}


def _order(name: str) -> tuple[bytes, str]:
    return hashlib.sha256("/".join(name.split("/")[-2:]).encode()).digest(), name


@compiled
def _paste(out, y0, x0, cells, turns, mips):  # type: ignore[no-untyped-def]  # noqa: ANN001, ANN202
    """Fill a window of a level at which a cell has a whole number of px."""
    height, width, bands = out.shape
    side = mips.shape[1]
    for row in range(y0 // side, (y0 + height - 1) // side + 1):
        for column in range(x0 // side, (x0 + width - 1) // side + 1):
            image, turn = mips[cells[row, column]], turns[row, column]
            top, left = row * side - y0, column * side - x0
            for i in range(max(top, 0), min(top + side, height)):
                for j in range(max(left, 0), min(left + side, width)):
                    u, v = i - top, j - left
                    if turn & 4:
                        u, v = v, u
                    if turn & 1:
                        u = side - 1 - u
                    if turn & 2:
                        v = side - 1 - v
                    for c in range(bands):
                        out[i, j, c] = image[u, v, c]


@compiled
def _average(out, y0, x0, step, cells, turns, sums):  # type: ignore[no-untyped-def]  # noqa: ANN001, ANN202
    """Fill a window of a coarser level: a px is the mean of ``step * step`` px of the last mip, cut at the edge.

    A px may lie on several cells; of each it covers a rectangle, whose sum takes four numbers to know.
    """
    height, width, _ = out.shape
    side = sums.shape[1] - 1
    end = len(cells) * side
    for i in range(height):
        top, bottom = (y0 + i) * step, min((y0 + i + 1) * step, end)
        for j in range(width):
            left, right = (x0 + j) * step, min((x0 + j + 1) * step, end)
            red, green, blue = 0, 0, 0
            for row in range(top // side, (bottom - 1) // side + 1):
                for column in range(left // side, (right - 1) // side + 1):
                    a, b = max(top - row * side, 0), min(bottom - row * side, side)
                    e, f = max(left - column * side, 0), min(right - column * side, side)
                    turn = turns[row, column]
                    if turn & 4:
                        a, b, e, f = e, f, a, b
                    if turn & 1:
                        a, b = side - b, side - a
                    if turn & 2:
                        e, f = side - f, side - e
                    s = sums[cells[row, column]]
                    red += s[b, f, 0] - s[a, f, 0] - s[b, e, 0] + s[a, e, 0]
                    green += s[b, f, 1] - s[a, f, 1] - s[b, e, 1] + s[a, e, 1]
                    blue += s[b, f, 2] - s[a, f, 2] - s[b, e, 2] + s[a, e, 2]
            area = (bottom - top) * (right - left) * 64
            out[i, j, 0] = (red + area // 2) // area
            out[i, j, 1] = (green + area // 2) // area
            out[i, j, 2] = (blue + area // 2) // area


def write_manifest(path: Path, rows: list[dict[str, str]]) -> None:
    """Write ``path,label,split,boxes``; rows of other files that are listed already stay."""
    kept = {}
    if path.is_file():
        kept = {row["path"]: row for row in csv.DictReader(path.read_text(encoding="utf-8").splitlines())}
    kept |= {row["path"]: row for row in rows}
    text = io.StringIO()
    table = csv.DictWriter(text, ["path", "label", "split", "boxes"], lineterminator="\n")
    table.writeheader()
    table.writerows(kept.values())
    with atomic_write(path) as part:
        part.write_text(text.getvalue(), encoding="utf-8")


@click.command()
@click.argument("shared", type=click.Path(exists=True, file_okay=False, path_type=Path))
@click.argument("output", type=click.Path(file_okay=False, path_type=Path))
@click.option("--count", default=20, show_default=True, help="Scenes to write.")
@click.option("--grid", default=16, show_default=True, help="Cells along a side, of 360 px each.")
@click.option("--format", "form", type=click.Choice(list(WRITERS)), default="tiff", show_default=True)
@click.option("--split", type=click.Choice(SPLITS), default="test", show_default=True)
@click.option("--seed", default=0, show_default=True, help="Seed of the first scene; the others' follow it.")
@click.option("--background", type=click.Choice(CLASSES), default=BACKGROUND, show_default=True)
def main(
    shared: Path, output: Path, count: int, grid: int, form: str, split: str, seed: int, background: str
) -> None:
    """Write scenes as files, and OUTPUT/manifest.csv: path, label, split, boxes ([[y, x, height, width]])."""
    output.mkdir(parents=True, exist_ok=True)
    write, suffix = WRITERS[form]
    rows = []
    for number in range(seed, seed + count):
        scene = SmearScene(number, grid, split, background)
        file = output / f"smear-{split}-{background}-{grid}-{number}{suffix}"
        write(SmearPyramid(shared / ZIP, scene), file)
        boxes = json.dumps([list(scene.box)])
        rows.append({"path": file.name, "label": scene.label, "split": split, "boxes": boxes})
        print(f"{file}: {scene.label} at {scene.box}", flush=True)
    write_manifest(output / "manifest.csv", rows)


if __name__ == "__main__":
    main()
