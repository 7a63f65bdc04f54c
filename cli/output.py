"""Messages of one line, on streams that take any text, or are closed."""

import io
import os
import sys
from contextlib import suppress
from typing import Any

from hiresattn.errors import WriteError


def one_line(message: object) -> str:
    """A message without line breaks; control characters, which a terminal would obey, are written as escapes."""
    return printable(" ".join(part.strip() for part in str(message).splitlines() if part.strip()))


def printable(text: str) -> str:
    """A text of lines in which control characters are written as escapes."""
    return text if text.isprintable() else "".join(map(_escaped, text))


def _escaped(character: str) -> str:
    if (
        character == "\n" or character.isprintable() or 0xDC80 <= ord(character) <= 0xDCFF
    ):  # a byte of a file name that is no text
        return character
    return character.encode("unicode_escape").decode()


def on_terminal() -> bool:
    """Whether somebody sees what goes to stdout, rather than a program or a file."""
    return sys.stdout.isatty()


class _ClosedStdout(io.StringIO):
    """In place of a stdout that whoever started the program closed."""

    def write(self, _: str) -> int:
        raise WriteError("stdout is closed; redirect it to a file, or give -o FILE")


def open_streams() -> None:
    """Replace closed streams, so that no file is opened under their numbers and takes what is written to them."""
    while (number := os.open(os.devnull, os.O_RDWR)) <= 2:
        pass
    os.close(number)
    if sys.stdin is None:
        sys.stdin = open(os.devnull, encoding="utf-8")  # noqa: PTH123, SIM115 - until the program ends
    if sys.stderr is None:
        sys.stderr = open(os.devnull, "w", encoding="utf-8")  # noqa: PTH123, SIM115
    if sys.stdout is None:
        sys.stdout = _ClosedStdout()


def write_anything() -> None:
    """Let stdout and stderr take every text: what their encoding doesn't have is written as an escape."""
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")


def flush_streams() -> None:
    """Write what is left; where nobody reads any more, quietly: Python would print an error while it ends."""
    for stream in (sys.stdout, sys.stderr):
        try:
            stream.flush()
        except (OSError, ValueError):
            with suppress(OSError, ValueError):
                _discard(stream)


def _discard(stream: Any) -> None:
    number = os.open(os.devnull, os.O_WRONLY)
    os.dup2(number, stream.fileno())
    os.close(number)
