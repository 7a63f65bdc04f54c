"""Hamamatsu's slides of many files: an index (``.vms``, ``.vmu``) names its JPEG files."""

from collections.abc import Sequence
from pathlib import Path

_SUFFIXES = (".vms", ".vmu")
#: Longest index that is read, bytes.
_MOST = 1 << 20


def without_parts(paths: Sequence[str]) -> list[str]:
    """Paths without the files that an index among them names: those are parts of its slide, not slides."""
    parts = {
        part for path in paths if Path(path).suffix.lower() in _SUFFIXES for part in _named_in(Path(path))
    }
    return [path for path in paths if Path(path) not in parts]


def _named_in(index: Path) -> set[Path]:
    try:
        with index.open("rb") as file:
            lines = file.read(_MOST).decode("utf-8", "replace").splitlines()
    except OSError:
        return set()
    return {index.parent / line.partition("=")[2].strip() for line in lines if "=" in line}
