"""What is written: JSON that any reader takes, and numbers that people read."""

import json
import math
from typing import Any


def json_line(value: Any) -> str:
    """A value as one line of strict JSON; NaN and infinities become ``"nan"``, ``"inf"``, ``"-inf"``."""
    return json.dumps(_plain(value), ensure_ascii=False, allow_nan=False)


def one_line(message: object) -> str:
    """A message without line breaks."""
    return " ".join(str(message).split())


def human_bytes(count: float) -> str:
    """Bytes with a decimal unit: ``4.6 MB``."""
    return _scaled(count, ("B", "kB", "MB", "GB", "TB"))


def human_px(count: float) -> str:
    """Pixels with a decimal unit: ``81.0 Mpx``."""
    return _scaled(count, ("px", "kpx", "Mpx", "Gpx", "Tpx"))


def human_share(share: float) -> str:
    """A share as percent with two significant digits: ``0.012 %``."""
    percent = 100 * share
    if percent <= 0:
        return "0 %"
    digits = max(0, 1 - math.floor(math.log10(percent)))
    return f"{percent:.{digits}f} %"


def _scaled(count: float, units: tuple[str, ...]) -> str:
    for unit in units[:-1]:
        if count < 1000:
            return f"{count:.0f} {unit}" if unit == units[0] else f"{count:.1f} {unit}"
        count /= 1000
    return f"{count:.1f} {units[-1]}"


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
