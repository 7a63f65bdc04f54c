"""What the search of one image may cost."""

import math
import re
from dataclasses import dataclass

from hiresattn.errors import ConfigError
from hiresattn.option_types import check_types

_UNITS = {"": 1, "s": 1, "b": 1, "kb": 10**3, "mb": 10**6, "gb": 10**9}


@dataclass(frozen=True)
class Budget:
    """Limits of one image's search; None = no limit. At least one root region is always looked at."""

    glimpses: int | None = None
    """Crops, those of the root regions included."""
    bytes: int | None = None
    """Stored bytes of the tiles read."""
    seconds: float | None = None
    """Wall time, opening included."""

    def __post_init__(self) -> None:
        check_types(self)
        for name, unit in (("glimpses", "glimpse"), ("bytes", "byte")):
            value = getattr(self, name)
            if value is not None and value < 1:
                raise ConfigError(f"{name} = {value}: a budget allows one {unit} or more; None = no limit")
        if self.seconds is not None and not 0 < self.seconds < math.inf:
            raise ConfigError(f"seconds = {self.seconds}: a budget allows more than 0 s; None = no limit")

    @classmethod
    def parse(cls, text: "str | int | Budget") -> "Budget":
        """Read ``64`` (glimpses), ``50MB`` (bytes) or ``2s`` (seconds).

        Raises:
            ConfigError: If the text is none of these, or not above zero.
        """
        if isinstance(text, Budget):
            return text
        match = re.fullmatch(r"\s*(\d+(?:\.\d+)?)\s*([a-zA-Z]*)\s*", str(text))
        unit = match[2].lower() if match else "?"
        if (
            match is None
            or unit not in _UNITS
            or not 0 < float(match[1]) < math.inf
            or (not unit and "." in match[1])
        ):
            raise ConfigError(
                f"budget {text!r} is none of a number of glimpses (64), bytes (50MB) or seconds (2s)"
            )
        value = float(match[1]) * _UNITS[unit]
        if unit != "s" and value < 1:
            raise ConfigError(f"budget {text!r} is less than one glimpse or byte")
        if unit == "s":
            return cls(seconds=value)
        return cls(bytes=int(value)) if unit else cls(glimpses=int(value))
