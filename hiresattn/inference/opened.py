"""Cases on their way: their sources opened, on one canvas, and read from; what each has cost so far."""

import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from hiresattn.datasets.cases import Case, examples_of
from hiresattn.datasets.example import Example
from hiresattn.errors import OpenError
from hiresattn.inference.domain import band_means
from hiresattn.inference.roots import MOST_AT_ONCE, first_roots
from hiresattn.inference.session import Session
from hiresattn.inference.sources import Opener, Source, name_of
from hiresattn.reading.canvas import Canvas
from hiresattn.reading.fetch import Crops


@dataclass
class OpenedCase:
    """A case, or a source for itself: what was opened of it, or what went wrong."""

    number: int
    """What the search knows it by."""
    name: str | None
    """Of the case; None = a source for itself."""
    sources: list[Source]
    """All of them, those with errors too."""
    seen: list[Source] = field(default_factory=list)
    """Those that are looked at, in the order of the canvas."""
    canvas: Canvas = field(default_factory=lambda: Canvas(np.zeros((1, 4), np.int64)))
    """Their frames."""
    roots: np.ndarray = field(default_factory=lambda: np.zeros((0, 4), np.int64))
    """Their root regions ``[r 4]``, on the canvas."""

    def __post_init__(self) -> None:
        self.join()

    def join(self) -> None:
        """Put the sources that can be read, and aren't empty, on one canvas."""
        self.seen = [source for source in self.sources if source.is_seen]
        if self.seen:
            self.canvas = Canvas(np.stack([source.frame for source in self.seen]))
            placed = [self.canvas.placed(n, source.roots) for n, source in enumerate(self.seen)]
            self.roots = np.concatenate(placed)

    @property
    def readable(self) -> list[Source]:
        """The sources without an error: what was read of them is the cost of the answer."""
        return [source for source in self.sources if source.error is None]

    @property
    def has_foreground(self) -> bool:
        """Whether only a part of any of its images is looked at: foreground, or what lies inside an outline."""
        return any(one is not None for source in self.seen for one in (source.foreground, source.inside))

    def holds(self, regions: np.ndarray) -> np.ndarray:
        """Which regions ``[n 4]`` of the canvas hold what is looked at ``[n]``; all of images that are, as a whole."""
        which, stored = self.canvas.stored(regions)
        held = np.ones(len(regions), bool)
        for at, source in enumerate(self.seen):
            for part in (source.foreground, source.inside):
                if part is not None:
                    held[which == at] &= part.holds(stored[which == at])
        return held

    @property
    def foreground(self) -> float | None:
        """Share of its images that is foreground, by area; None = none is looked for."""
        found = [
            (float(s.frame[2:].prod()), s.foreground.share) for s in self.seen if s.foreground is not None
        ]
        return _mean(found)

    def foreground_in(self, regions: np.ndarray) -> float | None:
        """Share of the foreground that lies in at least one of these regions ``[n 4]`` of the canvas."""
        which, stored = self.canvas.stored(regions)
        found = [
            (s.frame[2:].prod() * s.foreground.share, s.foreground.share_in(stored[which == at]))
            for at, s in enumerate(self.seen)
            if s.foreground is not None
        ]
        return _mean(found)

    @property
    def example(self) -> Example:
        """The first source."""
        return self.sources[0].example

    @property
    def label(self) -> Any:
        """The label given with it."""
        return next((s.example.label for s in self.sources if s.example.label is not None), None)

    @property
    def errors(self) -> list[Exception]:
        """What went wrong with its sources."""
        return [source.error for source in self.sources if source.error is not None]

    @property
    def error(self) -> Exception | None:
        """Why nothing of it can be looked at; None = something can."""
        errors = self.errors
        if self.seen or not errors:
            return None
        if len(errors) == 1:
            return errors[0]
        return OpenError(f"case {self.name}: none of its {len(errors)} images can be read: {errors[0]}")

    @property
    def spent(self) -> float:
        """Wall time so far, s."""
        return sum(source.opened + source.read + source.computed for source in self.sources)

    def drop(self, error: Exception) -> bool:
        """Leave out the source that an error is of; whether others are left to go on with."""
        at = getattr(error, "image", None)
        source = next((one for one in self.seen if one.number == at), None)
        if source is None or len(self.seen) == 1:
            return False
        source.error = error
        self.join()
        return True

    def drop_empty(self) -> bool:
        """Leave out the sources that hold no foreground beside others that do; whether there were any.

        Not those of which root regions weren't looked at: they may hold some.
        """
        which, _ = self.canvas.stored(self.roots)
        held = set(which[self.holds(self.roots)].tolist())
        empty = [source for at, source in enumerate(self.seen) if at not in held and not source.waiting]
        if not held or not empty:
            return False
        for source in empty:
            source.empty = True
        self.join()
        return True


def _mean(weighted: list[tuple[float, float]]) -> float | None:
    """The mean of pairs of weight and value; 0 where all weights are, None of none."""
    total = sum(weight for weight, _ in weighted)
    if not weighted:
        return None
    return sum(weight * value for weight, value in weighted) / total if total else 0.0


def open_case(opener: Opener, session: Session, item: Any, number: int) -> OpenedCase:
    """Open the sources of a case, or a source, and read its first crops. Errors are kept with it."""
    sources = [opener.open(example) for example in examples_of(item)]
    name = item.name if isinstance(item, Case) else getattr(item, "case", None)
    case = OpenedCase(number, name, sources)
    options = session.options
    if options.policy == "exhaustive":
        return case
    first = first_roots(case.roots, session.budget) if options.searches else case.roots
    if case.seen and len(first) <= MOST_AT_ONCE:
        which, regions = case.canvas.stored(first)
        for at, source in enumerate(case.seen):
            opener.read_ahead(source, regions[which == at])
        case.join()  # without those that can't be read
    return case


class CaseReader:
    """Fetches crops of cases, and shares out the time among the images that they are of.

    Args:
        every_mean: Whether the means of the bands are of all crops, in place of those of an image's first call.
    """

    def __init__(self, *, every_mean: bool = False) -> None:
        self.cases: dict[int, OpenedCase] = {}
        self._every_mean = every_mean
        self._crops: Counter[int] = Counter()
        self._sources: dict[int, Source] = {}
        self._reading = 0.0

    def __call__(self, case: np.ndarray, regions: np.ndarray) -> Crops:
        """Crops of regions of the canvases ``[n 4]``, by the numbers of their cases ``[n]``."""
        started = time.perf_counter()
        number, stored = np.empty_like(case), regions.copy()
        for index in sorted(set(case.tolist())):
            rows, opened = case == index, self.cases[index]
            which, stored[rows] = opened.canvas.stored(regions[rows])
            number[rows] = np.array([source.number for source in opened.seen])[which]
            self._sources |= {source.number: source for source in opened.seen}
        crops = self._fetched(number, stored)
        spent = time.perf_counter() - started
        self._reading += spent
        counts = Counter(number.tolist())
        self._crops.update(counts)
        for at, count in counts.items():
            source = self._sources[at]
            source.read += spent * count / len(number)
            if self._every_mean or not source.band_means:
                rows = number == at
                own = Crops(crops.pixels[rows], crops.coverage[rows])
                source.band_means.append(band_means(own))
                source.band_squares.append(band_means(Crops(own.pixels**2, own.coverage)))
            if source.foreground is not None and source.waiting:
                rows = number == at
                source.foreground.add(stored[rows], Crops(crops.pixels[rows], crops.coverage[rows]))
        return crops

    def forget(self, case: OpenedCase) -> None:
        """Forget a case that is done."""
        self.cases.pop(case.number, None)
        for source in case.sources:
            self._sources.pop(source.number, None)

    @contextmanager
    def shared_out(self) -> Iterator[None]:
        """Within this, what isn't reading counts as computing, shared out by the number of crops."""
        self._crops.clear()
        self._reading, started = 0.0, time.perf_counter()
        yield
        computing = time.perf_counter() - started - self._reading
        total = self._crops.total()
        for number, count in self._crops.items():
            self._sources[number].computed += computing * count / total

    def _fetched(self, number: np.ndarray, regions: np.ndarray) -> Crops:
        """Crops by the numbers of sources; images that are squashed are read one by one."""
        first = self._sources[int(number[0])].fetch
        assert first is not None  # noqa: S101 - they were opened
        if all(self._sources[n].fetch is first for n in set(number.tolist())):
            return _naming(first, number, regions)
        parts = [np.flatnonzero(number == n) for n in np.unique(number)]
        found = [
            _naming(self._sources[int(number[rows[0]])].fetch, number[rows], regions[rows]) for rows in parts
        ]
        order = np.concatenate(parts).argsort()
        return Crops(*(np.concatenate(one)[order] for one in zip(*found, strict=True)))


def _naming(fetch: Any, number: np.ndarray, regions: np.ndarray) -> Crops:
    """What a fetch returns; its errors name the source where they can only be of one."""
    try:
        crops: Crops = fetch(number, regions)
    except Exception as error:
        if len(set(number.tolist())) == 1:
            error.image = int(number[0])  # type: ignore[attr-defined]
        raise
    return crops


def case_name(case: OpenedCase) -> str:
    """What records call it: its only image, else its name."""
    return name_of(case.example) if len(case.sources) == 1 else str(case.name)
