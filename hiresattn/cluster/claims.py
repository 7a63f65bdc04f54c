"""Shards that processes share out among themselves, through files in a folder that all of them see.

A process claims a shard by making a file that isn't there yet, which every file system does for one process only, and
renews its time of change as long as it works. A claim that isn't renewed is of a process, or of a host, that is gone:
who makes the file of the next generation has the shard.
"""

import os
import re
import socket
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Self

from hiresattn.cluster.shards import Shard
from hiresattn.errors import ConfigError, WriteError
from hiresattn.files import make_folder

#: How often a claim is renewed, and the claims of others are looked at, s.
BEAT = 5.0
#: A claim that wasn't renewed for so long is of a process that is gone, s.
STALE = 60.0


@dataclass(frozen=True)
class AnyShard:
    """``any/16``: whichever of 16 shards is free, one after another.

    Args:
        of: How many there are.

    Raises:
        ConfigError: If there are none.
    """

    of: int

    def __post_init__(self) -> None:
        if self.of < 1:
            raise ConfigError(f"there is at least 1 shard; got any/{self.of}")

    @classmethod
    def parse(cls, text: str) -> Self | None:
        """What ``any/16`` names; None = it is none of these."""
        match = re.fullmatch(r"\s*any\s*/\s*(\d{1,9})\s*", text)
        return None if match is None else cls(int(match[1]))


def claimed(folder: str | Path, of: int) -> Iterator[Shard]:
    """Shards that this process is to do, until all of them are done, by this one or others.

    A shard counts as done when the next one is asked for. Where the others are being done, it waits, in case one of
    their processes ends before.

    Args:
        folder: For the claims; the same for all processes. Made if missing.
        of: How many shards there are.

    Yields:
        The shards.

    Raises:
        WriteError: If a claim can't be written.
    """
    claims = make_folder(folder)
    while True:
        undone = [
            shard
            for shard in (Shard(number, of) for number in range(1, of + 1))
            if not _done(claims, shard).exists()
        ]
        if not undone:
            return
        now = _now(claims)
        for shard in undone:
            mine = _claim(claims, shard, now)
            if mine is not None:
                yield from _held(claims, shard, mine)
                break
        else:
            time.sleep(BEAT)


def _held(claims: Path, shard: Shard, mine: Path) -> Iterator[Shard]:
    """A shard, whose claim is renewed until it is done; given back where its work is ended before."""
    ended = threading.Event()
    beating = threading.Thread(target=_renew, args=(mine, ended), daemon=True)
    beating.start()
    done = False
    try:
        yield shard
        _make(_done(claims, shard))
        done = True
    finally:
        ended.set()
        beating.join()
        if not done:
            os.utime(mine, (0, 0))  # for the next one, at once


def _renew(mine: Path, ended: threading.Event) -> None:
    while not ended.wait(BEAT):
        try:
            mine.touch()
        except OSError:  # the folder is away for a moment
            continue


def _claim(claims: Path, shard: Shard, now: float) -> Path | None:
    """The file by which this process holds a shard; None = another one does."""
    name = shard.folder("").name
    generations = [int(path.suffix[1:]) for path in claims.glob(f"{name}.*") if path.suffix[1:].isdigit()]
    latest = max(generations, default=-1)
    if latest >= 0:
        try:
            renewed = (claims / f"{name}.{latest}").stat().st_mtime
        except OSError:
            return None
        if now - renewed < STALE:
            return None
    mine = claims / f"{name}.{latest + 1}"
    return mine if _make(mine) else None


def _done(claims: Path, shard: Shard) -> Path:
    return claims / f"{shard.folder('').name}.done"


def _make(path: Path) -> bool:
    """Make a file; False = it was there, of another process.

    Raises:
        WriteError: If it can't be made.
    """
    try:
        with path.open("x") as file:
            file.write(f"{socket.gethostname()} {os.getpid()}\n")
    except FileExistsError:
        return False
    except OSError as error:
        raise WriteError(f"{path}: can't be written ({error.strerror}); check its folder") from error
    return True


def _now(claims: Path) -> float:
    """The time by the clock that changes of files have there, which may be a server's."""
    probe = claims / f".now-{os.getpid()}-{threading.get_ident()}"
    try:
        probe.touch()
        now = probe.stat().st_mtime
        probe.unlink(missing_ok=True)
    except OSError as error:
        raise WriteError(f"{claims}: can't be written to ({error.strerror}); check it") from error
    return now
