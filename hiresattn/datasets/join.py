"""Slides and the rows of a table that are about them, by name; nothing is guessed."""

import re
import unicodedata
from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

from hiresattn.datasets.dicom import read_instance
from hiresattn.datasets.folder import images_below
from hiresattn.errors import ConfigError, NotFoundError
from hiresattn.files import IMAGE_SUFFIXES, is_zarr

#: What may follow a patient's id in the name of a slide.
SEPARATORS = "-_. "
#: What TCGA puts between the name of a slide and its suffix.
_UUID = re.compile(r"\.[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}$", re.IGNORECASE)
_UID = re.compile(r"[\d.]+")


class Names:
    """Things by their names: as they are written, else in any case."""

    def __init__(self, named: Iterable[tuple[str, int]]) -> None:
        self._exact: dict[str, set[int]] = defaultdict(set)
        self._folded: dict[str, set[int]] = defaultdict(set)
        for name, number in named:
            self._exact[_normal(name)].add(number)
            self._folded[_normal(name).casefold()].add(number)

    def find(self, name: str) -> set[int]:
        """The numbers of the things that go by a name."""
        return self._exact.get(_normal(name)) or self._folded.get(_normal(name).casefold()) or set()


def _normal(name: str) -> str:
    """A name with one spelling of its accents: file systems and spreadsheets differ in that."""
    return unicodedata.normalize("NFC", name)


@dataclass(frozen=True)
class Slide:
    """A slide, and what it may be called."""

    path: str
    """As it is opened."""
    folders: tuple[str, ...]
    """Folders that it lies in, below the one that was searched, outermost first."""
    names: tuple[tuple[tuple[str, ...], str], ...]
    """Folders and name of whatever stands for it: the file; of a DICOM file also its folder and its series."""

    @property
    def name(self) -> str:
        """Its path below the folder that was searched."""
        return "/".join((*self.folders, Path(self.path).name))

    def cases(self, ids: Names) -> set[int]:
        """The patients whose id is its name, the leading part of its name, or a folder that it lies in."""
        _, own = self.names[0]
        leads = stems(own)
        if not (own.lower().endswith(".dcm") and _UID.fullmatch(leads[-1])):  # its parts name no patient
            leads += [own[:at] for at, letter in enumerate(own) if letter in SEPARATORS]
        return {number for lead in (*leads, *self.folders) if lead for number in ids.find(lead)}


def slides_in(folder: Path) -> list[Slide]:
    """The slides in a folder and below."""
    if not folder.is_dir() or is_zarr(folder):
        what = "one image" if folder.exists() else "no such folder"
        raise NotFoundError(f"{folder}: {what}; give the folder that the slides are in")

    def unread(error: OSError) -> None:
        raise ConfigError(
            f"{error.filename}: the folder can't be read ({error.strerror}); check its permissions"
        )

    found = [_slide(path, folder) for path in images_below(folder, unread)]
    if not found:
        raise ConfigError(
            f"{folder}: no slide in it or below; slides end in {' '.join(sorted(IMAGE_SUFFIXES))}, or are Zarr "
            "directories"
        )
    return found


def _slide(path: str, folder: Path) -> Slide:
    """A slide that was found in a folder, or below it."""
    *folders, name = Path(path).relative_to(folder).parts
    names = [(tuple(folders), name)]
    instance = read_instance(path)
    if instance is not None:
        names.append((tuple(folders), instance.series))
        if folders:
            names.append((tuple(folders[:-1]), folders[-1]))
    return Slide(path, tuple(folders), tuple(names))


def stems(name: str) -> list[str]:
    """A name without its suffix, without ``.ome`` before that, and without TCGA's UUID; at least the name itself."""
    suffixes = [suffix for suffix in (*IMAGE_SUFFIXES, ".zarr") if name.lower().endswith(suffix)]
    found = [name, *(name[: -len(suffix)] for suffix in suffixes)]
    shortest = min(found, key=len)
    if shortest.lower().endswith(".ome"):
        found.append(shortest[: -len(".ome")])
    if match := _UUID.search(shortest):
        found.append(shortest[: match.start()])
    return found


class SlideNames:
    """Finds slides by what a table calls them: a path or a name, with or without the suffix."""

    def __init__(self, slides: Sequence[Slide]) -> None:
        self._slides = slides
        named = [(name, number) for number, slide in enumerate(slides) for _, name in slide.names]
        self._full = Names(named)
        self._bare = Names((stem, number) for name, number in named for stem in stems(name)[1:])

    def find(self, text: str) -> set[int]:
        """The slides that a text may mean; its folders must be theirs, as far as both have any."""
        *folders, name = PurePosixPath(text.replace("\\", "/")).parts or ("",)
        common: dict[int, int] = {}
        for number in self._full.find(name) or self._bare.find(name):
            for own, _ in self._slides[number].names:
                pairs = list(zip(reversed(folders), reversed(own), strict=False))
                if all(_normal(a).casefold() == _normal(b).casefold() for a, b in pairs):
                    common[number] = max(common.get(number, 0), len(pairs))
        return {number for number, count in common.items() if count == max(common.values())}
