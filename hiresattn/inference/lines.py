"""Records as lines of JSON, and files of them in which every line is whole."""

import json
import math
import os
from collections.abc import Callable, Iterable, Iterator
from contextlib import suppress
from pathlib import Path
from types import TracebackType
from typing import Any, BinaryIO, Self

from hiresattn.errors import ConfigError, WriteError
from hiresattn.files import Lock


def json_line(value: Any) -> str:
    """A value as one line of strict JSON in ASCII; NaN and infinities become ``"nan"``, ``"inf"``, ``"-inf"``.

    ASCII, so that any name can be written to any stream: bytes of a file's name that are no UTF-8 become escapes, too.
    """
    return json.dumps(_plain(value), ensure_ascii=True, allow_nan=False)


def _plain(value: Any) -> Any:
    """The value with plain JSON types inside."""
    if isinstance(value, dict):
        return {str(name): _plain(item) for name, item in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(item) for item in value]
    if hasattr(value, "item"):  # a NumPy scalar
        value = value.item()
    if isinstance(value, float) and not math.isfinite(value):
        return str(value)
    return value


class LinesFile:
    """A file of JSON objects, one a line, that is written by one process at a time and only ever grows.

    What ends the process can't end a line in the middle of the file: a torn last line is cut off when the file is
    opened again, and at once where the disk is full.

    Args:
        path: The file. A pipe or device is only written to.
        resume: Keep what the file holds, and go on after it.
        overwrite: Empty the file, when the first line is written. Without either, a file that holds something is
            refused.
        when_full: What to do when there is room again, for the message.

    Raises:
        ConfigError: If it holds something and neither ``resume`` nor ``overwrite`` is given, another process writes
            it, or with ``resume`` it holds something else than JSON objects.
        WriteError: If it can't be written.
    """

    def __init__(
        self,
        path: str | os.PathLike[str],
        *,
        resume: bool = False,
        overwrite: bool = False,
        when_full: str = "go on with resume",
    ) -> None:
        self.path = Path(path)
        self._when_full = when_full
        refuse_filled(self.path, resume=resume, overwrite=overwrite)
        self._lock: Lock | None = None
        self.held: list[dict[str, Any]] = []
        """What the file held when it was opened."""
        self._end = 0
        # whether what lies behind the end was cut off: at the first line, so that a run that fails before loses nothing
        self._cut = False
        self._plain = self.path.exists() and not self.path.is_file()
        try:
            if not self._plain:
                self._lock = self._locked()
                refuse_filled(self.path, resume=resume, overwrite=overwrite)  # another may just have ended
            flags = os.O_WRONLY if self._plain else os.O_RDWR | os.O_CREAT | getattr(os, "O_BINARY", 0)
            self._file = os.open(self.path, flags, 0o666)
        except OSError as error:
            self._unlock()
            raise WriteError(f"{path}: can't be written ({error.strerror}); check its folder") from error
        except ConfigError:
            self._unlock()
            raise
        try:
            if resume and not self._plain:
                self._end = self._read()
        except BaseException:
            self.close()
            raise

    def write(self, value: dict[str, Any]) -> None:
        """Add one line, whole or not at all.

        Raises:
            WriteError: If it can't be written, such as on a full disk; what was there before stays.
        """
        data = (json_line(value) + "\n").encode("ascii")
        left = memoryview(data)
        try:
            if not (self._plain or self._cut):
                os.ftruncate(self._file, self._end)
                os.lseek(self._file, self._end, os.SEEK_SET)
                self._cut = True
            while left:
                left = left[os.write(self._file, left) :]
        except BrokenPipeError:
            raise
        except OSError as error:
            if not self._plain:
                with suppress(OSError):
                    os.ftruncate(self._file, self._end)
                    os.lseek(self._file, self._end, os.SEEK_SET)
            raise WriteError(
                f"{self.path}: can't be written any further ({error.strerror}); all lines so far are in it; make "
                f"room, then {self._when_full}"
            ) from error
        self._end += len(data)

    def keep(self, wanted: list[dict[str, Any]]) -> None:
        """Keep only these of the lines ``held``: the file is written anew, whole or not at all."""
        self._write_anew((json_line(value) + "\n").encode("ascii") for value in wanted)
        self.held = wanted

    def sort(self, key: Callable[[dict[str, Any]], int]) -> None:
        """Put the lines in the order of a key; the file is written anew, whole or not at all."""
        if self._plain:
            return
        places = []
        with self.path.open("rb") as file:
            start = 0
            for line in file:
                places.append((key(json.loads(line)), start))
                start += len(line)
            if places != sorted(places):
                self._write_anew(lines_at(file, [start for _, start in sorted(places)]))

    def select(self, starts: list[int]) -> None:
        """Keep only the lines that begin there; the file is written anew, whole or not at all."""
        with self.path.open("rb") as file:
            self._write_anew(lines_at(file, starts))

    def _write_anew(self, lines: Iterable[bytes]) -> None:
        beside = self.path.with_name(f".{self.path.name[:64]}.kept")
        try:
            with beside.open("wb") as file:
                file.writelines(lines)
            os.close(self._file)
            self._file = -1
            beside.replace(self.path)
            self._file = os.open(self.path, os.O_RDWR | getattr(os, "O_BINARY", 0))
            self._end, self._cut = os.lseek(self._file, 0, os.SEEK_END), True
        except OSError as error:
            raise WriteError(f"{self.path}: can't be written ({error.strerror}); check its folder") from error
        finally:
            beside.unlink(missing_ok=True)

    def close(self) -> None:
        """Close the file, and let others write it."""
        if self._file >= 0:
            os.close(self._file)
            self._file = -1
        self._unlock()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def _locked(self) -> Lock | None:
        try:
            return Lock(self.path.with_name(f".{self.path.name[:200]}.lock"))
        except BlockingIOError as error:
            raise ConfigError(
                f"{self.path}: another process is writing it; wait for its end, or give another file"
            ) from error
        except OSError:
            if not self.path.parent.is_dir():
                raise
            return None  # a file system without locks, or a folder that takes no new file

    def _unlock(self) -> None:
        if self._lock is not None:
            self._lock.release()
            self._lock = None

    def _read(self) -> int:
        """Read the lines; where the last whole one ends."""
        end = 0
        with self.path.open("rb") as file:
            for number, line in enumerate(file, 1):
                value = _object(line) if line.endswith(b"\n") else None
                if value is None:
                    if not line.endswith(b"\n") or not file.read(1):  # the last one, torn
                        break
                    raise ConfigError(
                        f"{self.path}, line {number}: {line[:40].decode('ascii', 'replace')!r} is no JSON object, so "
                        "that nothing can be added to this file; give another"
                    )
                self.held.append(value)
                end += len(line)
        return end


def lines_at(file: BinaryIO, starts: Iterable[int]) -> Iterator[bytes]:
    """The lines of an open file that begin there."""
    for start in starts:
        file.seek(start)
        yield file.readline()


def refuse_filled(path: str | os.PathLike[str], *, resume: bool, overwrite: bool) -> None:
    """Refuse a file that holds something, unless it is to be resumed or overwritten.

    Raises:
        ConfigError: If it does, or both are asked for.
    """
    if resume and overwrite:
        raise ConfigError("resume keeps what the file holds and overwrite empties it; give one of them")
    path = Path(path)
    if path.is_dir():
        raise ConfigError(f"{path}: that is a folder; give the name of a file")
    if path.is_file() and path.stat().st_size and not (resume or overwrite):
        raise ConfigError(
            f"{path}: is there already; resume adds what is missing in it, overwrite starts anew, or give another "
            "file"
        )


def _object(line: bytes) -> dict[str, Any] | None:
    try:
        value = json.loads(line)
    except ValueError:
        return None
    return value if isinstance(value, dict) else None
