"""What is written: JSON that any reader takes, and messages of one line."""

import json
import math
from typing import Any


def json_line(value: Any) -> str:
    """A value as one line of strict JSON; NaN and infinities become ``"nan"``, ``"inf"``, ``"-inf"``."""
    return json.dumps(_plain(value), ensure_ascii=False, allow_nan=False)


def one_line(message: object) -> str:
    """A message without line breaks."""
    return " ".join(str(message).split())


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
