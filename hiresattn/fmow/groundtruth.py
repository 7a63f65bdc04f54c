"""The ground truth: a folder or ``groundtruth.tar.bz2``, and the mappings that name the test's folders."""

import json
import os
import re
import tarfile
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from hiresattn.errors import ConfigError, NotFoundError, OpenError
from hiresattn.fmow.metadata import Metadata, parse_metadata

ARCHIVE = "groundtruth.tar.bz2"
_FOLDER = "groundtruth"
_MAPPING = re.compile(r"(?P<split>test|seq)_gt_mapping\.json")
#: Category names hold underscores: a name is read from its end.
_NAME = re.compile(r".+_(?P<frame>\d+)_(?P<imagery>[a-z]+)(?P<suffix>\.[a-z]+)")

#: Metadata, a file that holds it, or the error that reading it gave.
Entry = Metadata | str | ConfigError


def frames_below(folder: Path, imagery: str, suffixes: tuple[str, ...]) -> dict[str, dict[int, str]]:
    """The files of views below a folder: relative folder → frame → file. A GeoTIFF goes before a JPEG."""
    found: dict[str, dict[int, str]] = {}
    for here, _, names in os.walk(folder):
        for name in sorted(names):
            match = _NAME.fullmatch(name)
            if match and match["imagery"] == imagery and match["suffix"] in suffixes:
                below = Path(here).relative_to(folder).as_posix()
                found.setdefault(below, {})[int(match["frame"])] = os.path.join(here, name)  # noqa: PTH118
    return found


def read_metadata(entry: Entry) -> Metadata:
    """The metadata of an entry.

    Raises:
        ConfigError: If it is damaged or can't be read.
    """
    if isinstance(entry, Metadata):
        return entry
    if isinstance(entry, ConfigError):
        raise entry
    try:
        text = Path(entry).read_bytes()
    except OSError as error:
        raise ConfigError(f"{entry}: it can't be read ({error.strerror}); check its permissions") from error
    return parse_metadata(text, entry)


class Truth:
    """The ground truth by view; empty where there is none."""

    def __init__(self) -> None:
        self._entries: dict[tuple[str, str], dict[int, Entry]] = {}
        self._places: dict[str, dict[str, str]] = {}

    @classmethod
    def find(cls, root: Path, given: str | Path | None, splits: tuple[str, ...], imagery: str) -> "Truth":
        """Open the ground truth that was given, or that lies in the tree; see ``scan``."""
        truth = cls()
        if given is not None and not Path(given).exists():
            raise NotFoundError(
                f"{given}: no such ground truth; give {ARCHIVE} or the folder it was unpacked to"
            )
        tried = (root / _FOLDER, root / ARCHIVE, root) if given is None else (Path(given),)
        source = next((path for path in tried if path.exists()), root)
        if source.is_file():
            truth._read_archive(source, splits, imagery)
        else:
            truth._read_folder(source, root, splits, imagery)
        return truth

    def place(self, split: str, folder: str) -> str | None:
        """``category/sequence`` of a folder named by a number; None = not known."""
        return self._places.get(split, {}).get(folder)

    def frames(self, split: str, place: str) -> Mapping[int, Entry]:
        """Frame → entry of a ``category/sequence``."""
        return self._entries.get((split, place), {})

    def others(self, split: str, used: set[tuple[str | None, int]]) -> Iterator[tuple[str, int]]:
        """The views of a split that aren't in ``used``: ``category/sequence`` and frame."""
        for (whose, place), frames in self._entries.items():
            if whose == split:
                yield from ((place, frame) for frame in frames if (place, frame) not in used)

    def _read_folder(self, base: Path, root: Path, splits: tuple[str, ...], imagery: str) -> None:
        for split in splits:
            # In the release's own folder, `train` holds the images and their metadata, not the truth.
            names = [f"{split}_gt"] if base.resolve() == root.resolve() else [f"{split}_gt", split]
            for name in names:
                for place, frames in frames_below(base / name, imagery, (".json",)).items():
                    entries = self._entries.setdefault((split, place), {})
                    entries.update(frames.items())
            mapping = base / f"{split}_gt_mapping.json"
            if mapping.is_file():
                self._read_mapping(split, mapping.read_bytes(), str(mapping))

    def _read_archive(self, path: Path, splits: tuple[str, ...], imagery: str) -> None:
        try:
            with tarfile.open(path, "r|*") as archive:
                for member in archive:
                    self._read_member(archive, member, path, splits, imagery)
        except (tarfile.TarError, EOFError, OSError) as error:
            raise OpenError(
                f"{path}: damaged or cut short, it can't be unpacked ({error}); fetch it again"
            ) from error

    def _read_member(
        self,
        archive: tarfile.TarFile,
        member: tarfile.TarInfo,
        path: Path,
        splits: tuple[str, ...],
        imagery: str,
    ) -> None:
        parts = member.name.split("/")
        file, where = None, f"{path}: {member.name}"
        mapping, name = _MAPPING.fullmatch(parts[-1]), _NAME.fullmatch(parts[-1])
        if mapping:
            file = archive.extractfile(member)
            if file is not None:
                self._read_mapping(mapping["split"], file.read(), where)
        elif name and (name["imagery"], name["suffix"]) == (imagery, ".json") and len(parts) >= 4:
            split = parts[-4].removesuffix("_gt")
            file = archive.extractfile(member) if split in splits else None
            if file is not None:
                entry: Entry
                try:
                    entry = parse_metadata(file.read(), where)
                except ConfigError as error:
                    entry = error
                self._entries.setdefault((split, "/".join(parts[-3:-1])), {})[int(name["frame"])] = entry

    def _read_mapping(self, split: str, text: bytes, where: str) -> None:
        """``[{"input": "test_gt/airport/airport_0", "output": "test/0011978"}, …]``."""
        try:
            listed: Any = json.loads(text)
            pairs = {str(one["output"]).split("/")[-1]: str(one["input"]).split("/")[-2:] for one in listed}
            if any(len(place) < 2 for place in pairs.values()):
                raise ValueError("an input without category and sequence")  # noqa: TRY301
        except (ValueError, TypeError, LookupError, RecursionError) as error:
            raise ConfigError(
                f'{where}: the mapping can\'t be used ({error}); it is a list of {{"input": '
                '"test_gt/airport/airport_0", "output": "test/0011978"}'
            ) from error
        self._places[split] = {folder: "/".join(place) for folder, place in pairs.items()}
