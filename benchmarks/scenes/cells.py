"""The cell images that scenes of the odd cell are composed of: decoded once, kept at four sizes.

They are of Acevedo et al. 2020, "A dataset of microscopic peripheral blood cell images for development of
automatic recognition systems", Mendeley Data, snkd93bnjr, CC-BY-4.0: 8 classes of 400 images in
``data/patches/bloodcells_pbc_360.zip``. No image is in two splits; the set has no patient ids, so a patient can be.
"""

import hashlib
import threading
import zipfile
from functools import lru_cache
from pathlib import Path

import numpy as np

from hiresattn.datasets.example import SPLITS
from hiresattn.errors import ConfigError, NotFoundError, OpenError

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
#: Where the cell images are, below the shared folder.
ZIP = Path("data") / "patches" / "bloodcells_pbc_360.zip"
#: Side of a cell, px.
CELL = 360
#: Downsamples at which a cell has a whole number of px: those that are kept ready.
MIPS = (1, 2, 4, 8)
#: Side of a cell at the last of them, px.
SMALL = CELL // MIPS[-1]
#: Tenths of a class's files in train and val; the rest is test (of 400: 280, 40, 80).
_TENTHS = {"train": (0, 7), "val": (7, 8), "test": (8, 10)}


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
