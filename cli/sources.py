"""From the words after ``classify`` to sources: files, folders, globs, lists, URLs, manifests."""

import glob
import os
import sys
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import click

from hiresattn.errors import ConfigError

if TYPE_CHECKING:
    from hiresattn.manifest import Example

_SLIDES = (".svs", ".ndpi", ".mrxs", ".scn", ".svslide", ".bif", ".vms", ".vmu", ".dcm")
_RASTERS = (".tif", ".tiff", ".btf", ".vrt", ".jp2", ".j2k", ".jpg", ".jpeg", ".png")
#: Files that a folder is searched for.
SUFFIXES = frozenset((*_SLIDES, *_RASTERS))
_ZARR = ("zarr.json", ".zgroup", ".zarray", ".zattrs")


def expand_sources(words: Iterable[str], split: str | None) -> "list[str | Example]":
    """All sources that the words name, in order.

    Args:
        words: Paths of files, folders and manifests, globs, URLs; ``-`` = paths on stdin, one per line.
        split: Keep only these rows of manifests.

    Returns:
        Paths and URLs as given; the rows of manifests as examples. A plain path is not looked at: if it
        doesn't exist, that is one source's error.

    Raises:
        ConfigError: If a folder, glob, list or split has nothing in it.
    """
    found: list[str | Example] = []
    manifests = False
    for word in words:
        if word == "-":
            listed = [line.strip() for line in sys.stdin]
            found.extend(_images(path for path in listed if path))
        elif word.lower().endswith(".csv") and not _remote(word):
            manifests = True
            found.extend(_rows(word, split))
        else:
            found.extend(_images([word]))
    if split and not manifests:
        raise click.UsageError("--split chooses rows of a manifest; name a .csv file among the sources")
    if not found:
        raise ConfigError("no sources: stdin held no paths; give one path per line")
    return found


def _remote(word: str) -> bool:
    return "://" in word or word.startswith("/vsi")


def _rows(path: str, split: str | None) -> "list[Example]":
    from hiresattn.manifest import read_manifest

    examples = read_manifest(path)
    kept = [example for example in examples if split in (None, example.split)]
    if not kept:
        has = ", ".join(sorted({example.split for example in examples}))
        raise ConfigError(f"{path}: no rows of split {split!r}; it has {has}")
    return kept


def _images(words: Iterable[str]) -> Iterator[str]:
    for word in words:
        if _remote(word):
            yield word
        elif Path(word).is_dir():
            yield from _folder(word)
        elif not Path(word).exists() and glob.has_magic(word):
            matches = sorted(glob.glob(word, recursive=True))  # noqa: PTH207 - the user's own pattern
            if not matches:
                raise ConfigError(f"{word}: no file matches this pattern")
            for match in matches:
                yield from _folder(match) if Path(match).is_dir() else [match]
        else:
            yield word


def _folder(folder: str) -> Iterator[str]:
    """The images of a folder and of those in it; a Zarr directory is one image."""
    if _is_zarr(Path(folder)):
        yield folder
        return
    empty = True
    for root, folders, files in os.walk(folder):
        zarrs = sorted(name for name in folders if _is_zarr(Path(root, name)))
        folders[:] = sorted(name for name in folders if name not in zarrs and not name.startswith("."))
        images = [name for name in files if Path(name).suffix.lower() in SUFFIXES and name[0] != "."]
        for name in sorted(images + zarrs):
            empty = False
            yield str(Path(root, name))
    if empty:
        raise ConfigError(
            f"{folder}: a folder with no image in it, and no Zarr (no zarr.json, .zgroup or .zarray); "
            f"images end in {' '.join(sorted(SUFFIXES))}"
        )


def _is_zarr(path: Path) -> bool:
    return path.suffix.lower() == ".zarr" or any((path / name).exists() for name in _ZARR)
