"""Files: which of them are images, and writing them whole or not at all."""

import os
import shutil
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO

from hiresattn.errors import ConfigError, WriteError

_SLIDES = (".svs", ".ndpi", ".mrxs", ".scn", ".svslide", ".bif", ".vms", ".vmu", ".dcm")
_RASTERS = (".tif", ".tiff", ".btf", ".vrt", ".jp2", ".j2k", ".jpg", ".jpeg", ".png", ".bmp", ".gif")
#: Suffixes of image files, in lower case.
IMAGE_SUFFIXES = frozenset((*_SLIDES, *_RASTERS))
#: Files of which a Zarr directory has at least one.
ZARR_FILES = ("zarr.json", ".zgroup", ".zarray", ".zattrs")

#: How addresses begin that a reader takes.
REMOTE = ("http://", "https://", "s3://", "gs://", "/vsi")

#: Longest wait for threads that still write into a directory whose writer was interrupted, seconds.
_WRITERS_END = 60.0


def is_remote(name: str) -> bool:
    """Whether a name is an address that a reader takes, rather than a path."""
    return name.startswith(REMOTE)


def is_zarr(folder: str | os.PathLike[str]) -> bool:
    """Whether a folder is a Zarr directory, which is one image: by its name or by what lies in it."""
    name = os.fspath(folder)
    return name.lower().rstrip("/").endswith(".zarr") or any(
        os.path.exists(os.path.join(name, file))  # noqa: PTH110, PTH118 - no name makes these raise
        for file in ZARR_FILES
    )


def make_folder(path: str | os.PathLike[str]) -> Path:
    """Make a directory and its parents, if it is missing.

    Raises:
        ConfigError: If it can't be made.
    """
    folder = Path(path)
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except FileExistsError as error:
        raise ConfigError(f"{folder}: a file is in the way; give another directory") from error
    except (OSError, ValueError) as error:
        why = getattr(error, "strerror", None) or error
        raise ConfigError(f"{folder}: the directory can't be made ({why}); give another directory") from error
    return folder


def open_text(path: str | os.PathLike[str]) -> IO[str]:
    """Open a text file for writing, in UTF-8; what it held is lost.

    Raises:
        WriteError: If it can't be written.
    """
    try:
        return Path(path).open("w", encoding="utf-8")
    except OSError as error:
        raise WriteError(f"{path}: can't be written ({error.strerror}); check its folder") from error


@contextmanager
def atomic_write(path: str | os.PathLike[str], *, over_directory: bool = False) -> Iterator[Path]:
    """Write a file or a directory whole or not at all.

    ``with atomic_write(path) as part: part.write_text(text)``: ``part`` is a path of the same name in a new folder
    beside ``path``. What was written there replaces ``path`` when the block ends; if nothing was, or the block fails
    or is interrupted, ``path`` stays as it is. The folder is removed in any case.

    Args:
        path: File or directory to write; its folder must be there.
        over_directory: Also replace a directory: it is moved away first, and back if its successor can't take its
            place. Files are replaced in one step.

    Yields:
        Where to write. Nothing is there yet.

    Raises:
        OSError: If the folder can't be written to, or ``path`` can't be replaced.
    """
    path = Path(path)
    folder = Path(tempfile.mkdtemp(prefix=f".{path.name[:64]}.", suffix=".part", dir=path.parent))
    part = folder / path.name
    try:
        yield part
        if part.exists():
            if over_directory and path.exists() and (path.is_dir() or part.is_dir()):
                _replace_directory(part, path, folder / ".replaced")
            else:
                part.replace(path)
    finally:
        _remove(folder, unfinished=part.is_dir())


def _replace_directory(part: Path, path: Path, old: Path) -> None:
    path.rename(old)
    try:
        part.rename(path)
    except BaseException:
        old.rename(path)
        raise


def _remove(folder: Path, *, unfinished: bool) -> None:
    """Remove a folder, also where threads of an interrupted writer still put something into it.

    Such a thread ends with the chunk that it is at and makes missing folders again: all is gone when it stays gone.
    """
    deadline, gone = time.monotonic() + _WRITERS_END, 0
    while time.monotonic() < deadline and gone < (5 if unfinished else 1):
        shutil.rmtree(folder, ignore_errors=True)
        gone = 0 if folder.exists() else gone + 1
        if unfinished:
            time.sleep(0.05)
