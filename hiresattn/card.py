"""What a model's card says besides how it is built: what the training images were like, how far its answers go."""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class Domain:
    """Properties of the training images; a model that is used outside of them warns."""

    mpp: tuple[float, float] | None = None
    """Smallest and largest µm per level-0 px; None = not known of the images."""
    resolution: tuple[float, float] | None = None
    """Smallest and largest ground size of a level-0 px, in units of the CRS."""
    low: tuple[float, ...] | None = None
    """Smallest mean of each band over a whole image, stored values."""
    high: tuple[float, ...] | None = None
    """Largest mean of each band over a whole image, stored values."""
    channel_names: tuple[str, ...] | None = None
    """Names of the bands taken; None = not known, or not the same in all training images."""


@dataclass(frozen=True)
class Conformal:
    """Prediction sets: the classes that may be right, so that the right one is among them but for a share of the cases.

    Source:
        Split conformal prediction: Vovk, Gammerman and Shafer, "Algorithmic Learning in a Random World", 2005; sets of
        all classes above a threshold: Sadinle, Lei and Wasserman, "Least Ambiguous Set-Valued Classifiers with Bounded
        Error Levels", JASA 114, 2019.
    """

    risk: float
    """Largest share of cases whose class is not in their set, on average."""
    least: float
    """Least probability of a class that is in the set."""
    cases: int
    """Labelled cases that the threshold rests on."""
    search: Mapping[str, Any]
    """Options of the searches that gave their probabilities, JSON types; the sets hold for such searches only."""

    def classes(self, scores: Mapping[str, float]) -> tuple[str, ...]:
        """The classes of a prediction set, the likeliest first; it may be empty.

        Args:
            scores: Probability of every class.
        """
        ordered = sorted(scores, key=lambda name: -scores[name])
        return tuple(name for name in ordered if scores[name] >= self.least)

    @classmethod
    def from_json(cls, stored: Any) -> "Conformal | None":
        """What a card holds; None = nothing.

        Raises:
            ValueError: If it is damaged.
        """
        if stored is None:
            return None
        found = cls(**stored)
        numbers = (found.risk, found.least)
        fine = all(isinstance(value, (int, float)) and 0 <= value <= 1 for value in numbers)
        if not fine or type(found.cases) is not int or not isinstance(found.search, Mapping):
            raise ValueError(
                f"conformal {stored!r} is not a risk, a probability, a number of cases and a search"
            )
        return found


def checked_domain(stored: Mapping[str, Any], bands: int) -> Domain:
    """The domain that a card holds.

    Raises:
        ValueError: If a span is no pair, or band values aren't one per band.
    """
    domain = Domain(**{key: tuple(v) if v else None for key, v in stored.items()})
    for name, length in {"mpp": 2, "resolution": 2, "low": bands, "high": bands}.items():
        values = getattr(domain, name)
        if values is not None and (
            len(values) != length or not all(isinstance(v, (int, float)) for v in values)
        ):
            raise ValueError(f"domain {name} is not {length} numbers")
    names = domain.channel_names
    if names is not None and (len(names) != bands or not all(isinstance(name, str) for name in names)):
        raise ValueError(f"domain channel_names is not {bands} names")
    return domain


def checked_temperature(value: Any) -> float:
    """The temperature that a card holds.

    Raises:
        ValueError: If it is not a finite number above 0.
    """
    if isinstance(value, bool) or not isinstance(value, (int, float)) or not 0 < value < math.inf:
        raise ValueError(f"temperature {value!r} is not a finite number above 0")
    return float(value)
