"""From the words of a command to sources: files, folders, globs, lists, URLs, manifests."""

import glob
import os
import sys
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING

import click

from hiresattn.datasets.tables import SUFFIXES as TABLES
from hiresattn.errors import HiresattnError

if TYPE_CHECKING:
    from hiresattn.datasets.example import Example, Label


@dataclass(frozen=True)
class Unusable:
    """A word that names no source, or a source that can't be looked up: the others go on."""

    source: str
    """The word, or the path."""
    error: str
    """What is wrong, and what to do."""
    label: "Label | None" = None
    region: tuple[int, int, int, int] | None = None


def expand_sources(words: Iterable[str], split: str | None = None) -> "list[str | Example | Unusable]":
    """All sources that the words name, in order.

    Args:
        words: Paths of files, folders and manifests, globs, URLs; ``-`` = paths on stdin, one per line.
        split: Keep only these rows of manifests.

    Returns:
        Paths and URLs as given; the rows of manifests as examples; in the place of a word that names nothing
        (an empty folder, a bad manifest …) what is wrong with it. A plain path is not opened: if it doesn't
        exist, that is one source's error.

    Raises:
        click.UsageError: If there are no sources at all, or a split but no manifest.
    """
    found: list[str | Example | Unusable] = []
    manifests = False
    for word in words:
        if word == "-":
            for path in _listed():
                found.extend(_images(path))
        elif word.lower().endswith(TABLES) and not _remote(word):
            manifests = True
            found.extend(_rows(word, split))
        else:
            found.extend(_images(word))
    if split and not manifests:
        raise click.UsageError(
            "--split chooses rows of a manifest; name a .csv or .parquet file among the sources"
        )
    if not found:
        raise click.UsageError("no sources: stdin held no paths; give one path per line")
    return found


def _listed() -> Iterator[str]:
    """The paths on stdin, in the file system's encoding whatever stdin's is."""
    for line in sys.stdin.buffer:
        path = os.fsdecode(line).strip()
        if path:
            yield path


def _rows(path: str, split: str | None) -> "Iterator[Example | Unusable]":
    from hiresattn.datasets.manifest import read_manifest

    try:
        examples = read_manifest(path)
    except HiresattnError as error:
        yield Unusable(path, str(error))
        return
    kept = [example for example in examples if split in (None, example.split)]
    if not kept:
        has = ", ".join(sorted({example.split for example in examples}))
        yield Unusable(path, f"{path}: no rows of split {split!r}; it has {has}")
    for example in kept:
        wrong = None if _remote(example.source) else _trouble(example.source)
        yield Unusable(example.source, wrong, example.label, example.region) if wrong else example


def _images(word: str) -> Iterator[str | Unusable]:
    if _remote(word):
        yield word
    elif os.path.isdir(word):  # noqa: PTH112 - as os.path.exists below: no name makes it raise
        yield from _folder(word)
    elif glob.has_magic(word) and not os.path.exists(word):  # noqa: PTH110
        matches = sorted(glob.glob(word, recursive=True))  # noqa: PTH207 - the user's own pattern
        if not matches:
            yield Unusable(word, f"{word}: no file matches this pattern")
        for match in matches:
            if os.path.isdir(match):  # noqa: PTH112
                yield from _folder(match)
            else:
                yield match
    else:
        wrong = _trouble(word)
        yield Unusable(word, wrong) if wrong else word


def _folder(folder: str) -> Iterator[str | Unusable]:
    """The images of a folder and of those in it; a Zarr directory is one image."""
    from hiresattn.datasets.folder import images_below
    from hiresattn.files import IMAGE_SUFFIXES, is_zarr

    if is_zarr(folder):
        yield folder
        return
    empty = True
    unread: list[OSError] = []
    for image in images_below(folder, unread.append):
        empty = False
        yield image
    for error in unread:
        name = str(error.filename)
        yield Unusable(name, f"{name}: the folder can't be read ({error.strerror}); check its permissions")
    if empty and not unread:
        yield Unusable(
            folder,
            f"{folder}: a folder with no image in it, and no Zarr (no zarr.json, .zgroup or .zarray); "
            f"images end in {' '.join(sorted(IMAGE_SUFFIXES))}",
        )


def _trouble(path: str) -> str | None:
    """What keeps a path from being looked up; that there is no such file is for the reader to say."""
    try:
        os.stat(path)  # noqa: PTH116 - as it was given
    except (FileNotFoundError, NotADirectoryError):
        return None
    except (OSError, ValueError) as error:
        why = getattr(error, "strerror", None) or error
        return f"{path}: it can't be looked up ({why}); check the name and the permissions of its folders"
    return None


def _remote(word: str) -> bool:
    from hiresattn.pyramid.open import _REMOTE

    return word.startswith(_REMOTE)
