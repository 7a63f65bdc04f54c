"""Numbers as people read them: bytes, pixels, shares, seconds."""

import math


def human_bytes(count: float) -> str:
    """Bytes with a decimal unit: ``4.6 MB``."""
    return _scaled(count, ("B", "kB", "MB", "GB", "TB"))


def human_px(count: float) -> str:
    """Pixels with a decimal unit: ``81.0 Mpx``."""
    return _scaled(count, ("px", "kpx", "Mpx", "Gpx", "Tpx"))


def human_share(share: float) -> str:
    """A share as percent with two significant digits: ``0.012 %``; what is less than a ten thousandth is that."""
    percent = 100 * share
    if percent <= 0:
        return "0 %"
    if percent < 0.0001:
        return "< 0.0001 %"
    digits = max(0, 1 - math.floor(math.log10(percent)))
    return f"{percent:.{digits}f} %"


def human_seconds(seconds: float) -> str:
    """A duration: ``0.052 s``, ``2.3 s``, ``140 s``."""
    digits = 2 - len(f"{seconds:.0f}") if seconds >= 1 else None
    return f"{seconds:.2g} s" if digits is None else f"{seconds:.{max(digits, 0)}f} s"


def _scaled(count: float, units: tuple[str, ...]) -> str:
    for unit in units[:-1]:
        if count < 1000:
            return f"{count:.0f} {unit}" if unit == units[0] else f"{count:.1f} {unit}"
        count /= 1000
    return f"{count:.1f} {units[-1]}"
