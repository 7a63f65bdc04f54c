"""Messages of one line, on streams that take any text."""

import io
import sys


def one_line(message: object) -> str:
    """A message without line breaks."""
    return " ".join(part.strip() for part in str(message).splitlines() if part.strip())


def write_anything() -> None:
    """Let stdout and stderr take every text: what their encoding doesn't have is written as an escape."""
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")
