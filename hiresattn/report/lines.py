"""Records as lines of JSON."""

import json
import math
from typing import Any


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
