"""What a search has done so far, told a few times a second."""

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from hiresattn.inference.opened import OpenedCase, case_name
from hiresattn.inference.to_record import stored_area
from hiresattn.reading.decode import FetchStats

#: Seconds between two calls, at least.
_PAUSE = 0.2


@dataclass(frozen=True)
class SoFar:
    """A case that is being looked at."""

    case: str
    """Its name, else its source's."""
    looks: int
    budget: int | None
    """Looks that it may cost; None = its budget is none of looks, or it has none."""
    fraction_read: float
    """Pixels decoded over the level-0 pixels classified."""


Told = Callable[[SoFar], None]


class Watch:
    """Tells how far a case is, unless that was told just before.

    Args:
        tell: What is called; None = nothing.
        stats: What was read of each image of a case.
    """

    def __init__(self, tell: Told | None, stats: Callable[[OpenedCase], Sequence[FetchStats]]) -> None:
        self._tell, self._stats = tell, stats
        self._next = 0.0

    def looked(self, case: OpenedCase, so_far: Callable[[], tuple[int, int | None]]) -> None:
        """Tell it.

        Args:
            case: What was looked at.
            so_far: Looks until now, and looks that it may cost.
        """
        if self._tell is None or time.monotonic() < self._next:
            return
        looks, budget = so_far()
        read = sum(one.pixels for one in self._stats(case)) / sum(map(stored_area, case.readable))
        self._tell(SoFar(case_name(case), looks, budget, read))
        self._next = time.monotonic() + _PAUSE
