"""Where a result goes: written beside, moved into place when it is whole, or nothing at all."""

import os
import shutil
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from hiresattn.errors import ConfigError, HiresattnError, WriteError
from hiresattn.pyramid.formats.gdal import reason

#: Longest wait for a writer that was interrupted, seconds.
_WRITER_ENDS = 60.0

_STORES = ("zarr.json", ".zgroup", ".zarray", ".zattrs")


def checked_target(source: Any, target: str | os.PathLike[str], *, overwrite: bool) -> Path:
    """The target's path, if something may be written there."""
    name = os.fspath(target)
    if "://" in name or name.startswith("/vsi"):
        raise ConfigError(f"{name}: results are written here, not elsewhere; give a path and copy the result")
    path = Path(name)
    if isinstance(source, str | os.PathLike) and "://" not in os.fspath(source):
        here, there = Path(source).resolve(), path.resolve()
        if here == there or here in there.parents or there in here.parents:
            raise ConfigError(
                f"{name}: source and result are the same file, or one lies in the other; give another name"
            )
    if not path.name or not path.parent.is_dir():
        raise WriteError(f"{name}: there is no folder {path.parent}; make it first")
    if os.path.lexists(path):
        if not overwrite:
            raise ConfigError(f"{name}: is there already; --overwrite replaces it")
        if path.is_dir() and not any((path / file).exists() for file in _STORES):
            raise ConfigError(f"{name}: a directory that is no Zarr is not replaced; give another name")
    return path


@contextmanager
def beside(target: Path, *, overwrite: bool) -> Iterator[Path]:
    """A path in a new folder beside the target, moved there when the block ends well; else all is removed."""
    try:
        folder = Path(tempfile.mkdtemp(prefix=f".{target.name[:64]}.", suffix=".part", dir=target.parent))
    except OSError as error:
        raise WriteError(f"{target}: its folder can't be written to ({error.strerror})") from error
    # An ending of its own: the readers go by what is in a file, but a Zarr address ends in .zarr.
    part = folder / target.name
    try:
        yield part
        with writing(target):
            if os.path.lexists(target):
                if not overwrite:
                    raise ConfigError(f"{target}: has appeared meanwhile; --overwrite replaces it")
                old = folder / "replaced"
                target.rename(old)
                try:
                    part.rename(target)
                except BaseException:
                    old.rename(target)
                    raise
            else:
                part.rename(target)
    finally:
        _remove(folder)


def _remove(folder: Path) -> None:
    """Remove a folder, also where a thread that was interrupted still puts something into it.

    A writer ends with the slab that it is at, and makes the folders again that it misses: all is gone when it
    stays gone.
    """
    unfinished = any(folder.iterdir()) if folder.is_dir() else False
    deadline, gone = time.monotonic() + _WRITER_ENDS, 0
    while time.monotonic() < deadline and gone < (5 if unfinished else 1):
        shutil.rmtree(folder, ignore_errors=True)
        gone = 0 if folder.exists() else gone + 1
        if unfinished:
            time.sleep(0.05)


@contextmanager
def writing(target: Path) -> Iterator[None]:
    """Errors of libraries that write become ``WriteError``."""
    try:
        yield
    except HiresattnError:
        raise
    except Exception as error:  # zarr's, GDAL's, the system's
        raise WriteError(
            f"{target}: can't be written ({reason(error)}); check the free space and the permissions of its folder; "
            "nothing was left there"
        ) from error
