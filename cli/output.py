"""What is written: JSON that any reader takes, and messages of one line."""

import io
import json
import math
import sys
from pathlib import Path
from typing import Any

from hiresattn.errors import ConfigError


def json_line(value: Any) -> str:
    """A value as one line of strict JSON in ASCII; NaN and infinities become ``"nan"``, ``"inf"``, ``"-inf"``.

    Any name can be written so, to any stream: bytes of it that are no UTF-8 are escapes too.
    """
    return json.dumps(_plain(value), ensure_ascii=True, allow_nan=False)


def one_line(message: object) -> str:
    """A message without line breaks."""
    return " ".join(part.strip() for part in str(message).splitlines() if part.strip())


def write_anything() -> None:
    """Let stdout and stderr take every text: what their encoding doesn't have is written as an escape."""
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")


def made_folder(name: str, option: str) -> Path:
    """The directory of an option, made if missing.

    Raises:
        ConfigError: If it can't be.
    """
    folder = Path(name)
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except FileExistsError as error:
        raise ConfigError(f"{name}: a file is in the way; give a directory with {option}") from error
    except (OSError, ValueError) as error:
        why = getattr(error, "strerror", None) or error
        raise ConfigError(
            f"{name}: the directory can't be made ({why}); give another with {option}"
        ) from error
    return folder


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
