"""Files: which of them are images, locks, and writing them whole or not at all."""

import os
import re
import shutil
import stat
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from datetime import UTC, datetime
from pathlib import Path

from hiresattn.errors import ConfigError

if sys.platform == "win32":
    import msvcrt
else:
    import fcntl

_SLIDES = (".svs", ".ndpi", ".mrxs", ".scn", ".svslide", ".bif", ".vms", ".vmu", ".dcm")
_RASTERS = (".tif", ".tiff", ".btf", ".vrt", ".jp2", ".j2k", ".jpg", ".jpeg", ".png", ".bmp", ".gif")
#: Suffixes of image files, in lower case.
IMAGE_SUFFIXES = frozenset((*_SLIDES, *_RASTERS))
#: Files of which a Zarr directory has at least one.
ZARR_FILES = ("zarr.json", ".zgroup", ".zarray", ".zattrs")

#: How addresses begin that a reader takes.
REMOTE = ("http://", "https://", "s3://", "gs://", "/vsi")
#: How names of one variable of a file begin, as GDAL writes them: ``netcdf:FILE:VARIABLE``, ``HDF5:"FILE"://VARIABLE``.
PARTS = ("netcdf:", "hdf5:")

#: Longest wait for threads that still write into a directory whose writer was interrupted, seconds.
_WRITERS_END = 60.0
#: In an unfinished folder: the file that its writer holds a lock on.
_OWNER = ".owner"
#: In an unfinished folder: a directory that is being replaced.
_REPLACED = ".replaced"
#: Age from which on an unfinished folder without a lock file is left over, seconds; a new one gets its lock at once.
_NEW = 60.0


def is_remote(name: str) -> bool:
    """Whether a name is an address that a reader takes, or a part of a file, rather than a path."""
    return name.lower().startswith((*REMOTE, *PARTS))


def absolute_source(source: str) -> str:
    """A source's name wherever one stands: an address as it is, a path from the root on, links kept."""
    return source if is_remote(source) else os.path.abspath(source)  # noqa: PTH100 - links stay


def read_bounded(path: str | os.PathLike[str], most: int) -> bytes:
    """The bytes of a regular file; of a pipe or a device, which might never end, none.

    Args:
        path: The file.
        most: Bytes that it may have.

    Raises:
        OSError: If it can't be read, is no regular file, or is bigger.
    """
    number = os.open(path, os.O_RDONLY | os.O_NONBLOCK)
    with open(number, "rb") as file:  # noqa: PTH123 - a file descriptor
        found = os.fstat(number)
        if not stat.S_ISREG(found.st_mode):
            raise OSError(f"{path} is no regular file")
        if found.st_size > most:
            raise OSError(f"{path} has {found.st_size} bytes, and at most {most} are read")
        return file.read(most)


def is_zarr(folder: str | os.PathLike[str]) -> bool:
    """Whether a folder is a Zarr directory, which is one image: by its name or by what lies in it."""
    name = os.fspath(folder)
    return name.lower().rstrip("/").endswith(".zarr") or any(
        os.path.exists(os.path.join(name, file))  # noqa: PTH110, PTH118 - no name makes these raise
        for file in ZARR_FILES
    )


def file_states(name: str | os.PathLike[str]) -> list[tuple[int, int]]:
    """Size in bytes, and time of change in ns, of a file; of a folder of its own and of the files that make it Zarr.

    What can't be asked for has none, and addresses have none.
    """
    path = os.fspath(name)
    if is_remote(path):
        return []
    inside = [os.path.join(path, file) for file in ZARR_FILES] if os.path.isdir(path) else []  # noqa: PTH112, PTH118
    found = []
    for file in [path, *inside]:
        with suppress(OSError, ValueError):
            state = os.stat(file)  # noqa: PTH116 - no name makes it raise anything else
            found.append((state.st_size, state.st_mtime_ns))
    return found


def file_state(name: str | os.PathLike[str]) -> tuple[int, str] | None:
    """Bytes, and when it was last changed (ISO 8601, UTC), as ``file_states`` says, all together; None = not known."""
    states = file_states(name)
    if not states:
        return None
    latest = max(changed for _, changed in states) / 1e9
    return sum(size for size, _ in states), datetime.fromtimestamp(latest, UTC).isoformat()


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


class Lock:
    """A lock on a file, which other programs see, and which ends with the process, however that ends.

    Args:
        path: The file, which is made, and removed when the lock is given back.

    Raises:
        BlockingIOError: If another process, or another ``Lock``, has it.
        OSError: If the file can't be made, or its file system has no locks.
    """

    def __init__(self, path: str | os.PathLike[str]) -> None:
        self._path = Path(path)
        while True:
            self._file = os.open(self._path, os.O_RDWR | os.O_CREAT, 0o666)
            try:
                _lock(self._file)
                if self._is_there():
                    return
            except BaseException:
                os.close(self._file)
                raise
            os.close(self._file)  # its last owner removed it between opening and locking

    def release(self) -> None:
        """Give the lock back."""
        try:
            if sys.platform == "win32":
                os.close(self._file)
                self._path.unlink(missing_ok=True)
            else:
                if self._is_there():
                    self._path.unlink()
                os.close(self._file)
        except OSError:  # another waits for it, or its folder is gone
            pass

    def _is_there(self) -> bool:
        """Whether the name still is that of the locked file."""
        try:
            return os.path.samestat(os.fstat(self._file), self._path.stat())
        except FileNotFoundError:
            return False


def _lock(file: int) -> None:
    if sys.platform == "win32":
        try:
            msvcrt.locking(file, msvcrt.LK_NBLCK, 1)
        except PermissionError as error:
            raise BlockingIOError(*error.args) from error
    else:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)


@contextmanager
def atomic_write(path: str | os.PathLike[str], *, over_directory: bool = False) -> Iterator[Path]:
    """Write a file or a directory whole or not at all.

    ``with atomic_write(path) as part: part.write_text(text)``: ``part`` is a path of the same name in a new folder
    beside ``path``. What was written there replaces ``path`` when the block ends; if nothing was, or the block fails
    or is interrupted, ``path`` stays as it is. The folder is removed in any case; where the process was killed, by the
    next one that writes ``path``.

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
    _remove_left_over(path)
    folder = Path(tempfile.mkdtemp(prefix=_prefix(path), suffix=".part", dir=path.parent))
    part = folder / path.name
    owner = None
    try:
        with suppress(OSError):  # a file system without locks
            owner = Lock(folder / _OWNER)
        yield part
        if part.exists():
            if over_directory and path.exists() and (path.is_dir() or part.is_dir()):
                _replace_directory(part, path, folder / _REPLACED)
            else:
                part.replace(path)
    finally:
        if owner is not None:
            owner.release()
        _remove(folder, unfinished=part.is_dir())


def _prefix(path: Path) -> str:
    return f".{path.name[:64]}."


def _remove_left_over(path: Path) -> None:
    """Remove the folders of writers of ``path`` that were killed; those of living ones stay."""
    named = re.compile(re.escape(_prefix(path)) + r"[a-z0-9_]{8}\.part")
    with suppress(OSError):
        for folder in [one for one in path.parent.iterdir() if named.fullmatch(one.name)]:
            owner = folder / _OWNER
            if not owner.exists() and time.time() - folder.stat().st_mtime < _NEW:
                continue
            with suppress(OSError):  # its writer lives
                lock = Lock(owner)
                if (folder / _REPLACED).exists() and not os.path.lexists(path):
                    (folder / _REPLACED).rename(path)  # killed between the two steps of replacing it
                lock.release()
                shutil.rmtree(folder, ignore_errors=True)


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
