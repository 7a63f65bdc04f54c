"""Classify cases: open them, search them side by side, and record what was found, where, and what it cost."""

from collections import deque
from collections.abc import Callable, Generator, Iterable, Iterator, Sequence, Sized
from contextlib import closing
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from hiresattn.card import Card
from hiresattn.datasets.cases import Case, cases_of
from hiresattn.datasets.example import Example
from hiresattn.datasets.scales import with_scales
from hiresattn.datasets.sources import Unusable
from hiresattn.errors import ConfigError
from hiresattn.inference.batching import BYTES_PER_IMAGE, batch_images
from hiresattn.inference.by_depth import by_depth
from hiresattn.inference.exhaustive import everywhere
from hiresattn.inference.opened import CaseReader, OpenedCase, open_case
from hiresattn.inference.options import ClassifyOptions
from hiresattn.inference.progress import Told, Watch
from hiresattn.inference.record import Record
from hiresattn.inference.search import Search
from hiresattn.inference.session import Session, start_session
from hiresattn.inference.sources import Opener, all_of, is_one
from hiresattn.inference.to_record import case_error, to_record
from hiresattn.model.traversal import Traversal
from hiresattn.option_types import changed
from hiresattn.reading.decode import FetchStats
from hiresattn.reading.fetch import CropFetcher, Crops
from hiresattn.reading.prefetch import prepared_ahead

#: Cases that may wait for an earlier one to end, as a multiple of those searched side by side.
_WAITING = 4


def classify(
    source: Any, model: Card | str | Path, options: ClassifyOptions | None = None, **changes: Any
) -> Record:
    """Classify one image, or the images of one case, by looking at a fraction of it.

    Args:
        source: A path, a URL, an array ``[h w c]``, an open pyramid, an ``Example`` (a window of an image), or a
            ``Case`` (several of these, which share one answer).
        model: A model directory, a hub name (``hf:owner/name``) or a loaded model, which stays as it is.
        options: How; None = the defaults.
        changes: Single options, in place of those of ``options``.

    Returns:
        The record.

    Raises:
        ConfigError: If an option can't be used.
        HiresattnError: With ``on_error="raise"``, what is wrong with the source.

    Examples:
        >>> record = hiresattn.classify("slide.svs", "model", budget="50MB")
        >>> record.class_name, record.score
    """
    if not is_one(source):
        raise ConfigError("classify takes one source and returns one record; for several use classify_all")
    (record,) = classify_all([source], model, options, **changes)
    return record


def classify_all(
    sources: Iterable[Any] | str | Path,
    model: Card | str | Path,
    options: ClassifyOptions | None = None,
    *,
    progress: Told | None = None,
    **changes: Any,
) -> Iterator[Record]:
    """Classify images, several side by side, by looking at a fraction of each.

    Args:
        sources: As ``classify`` takes one, several; or a manifest (``.csv``, ``.parquet``), a folder or a glob.
        model: A model directory, a hub name (``hf:owner/name``) or a loaded model, which stays as it is.
        options: How; None = the defaults.
        progress: Called a few times a second with how far the case is that comes next (``SoFar``).
        changes: Single options, in place of those of ``options``.

    Returns:
        An iterator of one record per source, in order; examples that name a ``case`` have one record together, unless
        ``per_source``. ``batch_images`` of them are searched at a time, while a thread opens the next and reads their
        root regions.

    Raises:
        ConfigError: If an option can't be used; with ``on_error="raise"`` if the model works at a scale, and sources
            in a list have none: all of these are named.
        HiresattnError: With ``on_error="raise"``, what is wrong with a source, when its turn comes.

    Examples:
        >>> for record in hiresattn.classify_all(["a.svs", "b.svs"], "model", on_error="record"):
        ...     print(record.source, record.class_name or record.error)
    """
    chosen = changed(options, changes, ClassifyOptions)
    listed = all_of(sources)
    session = start_session(model, chosen)
    if chosen.on_error == "raise" and isinstance(listed, Sized) and len(listed) > 1:
        listed = with_scales(listed, session.model.config.input.mpp, chosen.mpp, chosen.assume_mpp)
    return classify_in(session, listed, progress)


@dataclass
class _Turn:
    """A case between its opening and its record."""

    case: OpenedCase
    record: Record | None = None
    error: Exception | None = None

    @property
    def done(self) -> bool:
        return self.record is not None or self.error is not None


def classify_in(session: Session, sources: Iterable[Any], progress: Told | None = None) -> Iterator[Record]:
    """Classify images with a session that was started: see ``classify_all``."""
    options = session.options
    if isinstance(sources, Sequence) and not options.per_source:
        sources = cases_of(sources)
    most = _most_images(sources)
    width = batch_images(session, sources, most)
    fetcher = None
    if session.squash is None:
        at_once = (2 * width + 1) * most
        kept = None if width == 1 else at_once * BYTES_PER_IMAGE
        config = session.model.config.input
        fetcher = CropFetcher([], config, at_once=at_once, cache_bytes=kept, **session.reading)
    opener = Opener(session, fetcher)

    def opened(item: tuple[int, Any]) -> OpenedCase:
        return open_case(opener, session, item[1], item[0])

    def let_go(case: OpenedCase) -> None:
        for source in case.sources:
            opener.let_go(source)

    named = (_checked(one, most) for one in sources)
    try:
        with closing(prepared_ahead(enumerate(named), opened, let_go, most=width)) as coming:
            run = _Run(session, opener, let_go, progress)
            turns = run.side_by_side(coming, width) if options.searches else run.one_by_one(coming)
            with closing(turns):
                for turn in turns:
                    if turn.error is None:
                        assert turn.record is not None  # noqa: S101 - one or the other
                        yield turn.record
                    elif options.on_error == "raise":
                        raise turn.error
                    else:
                        yield case_error(turn.case, session.model, turn.error)
    finally:
        opener.close()


def _checked(one: Any, most: int) -> Example | Case | Unusable:
    """A source as an example; refuses a case with more images than there is room for."""
    if isinstance(one, Case) and len(one.sources) > most:
        raise ConfigError(
            f"case {one.name!r} has {len(one.sources)} images; give cases as a list, not one by one"
        )
    return one if isinstance(one, Example | Case | Unusable) else Example(one)


def _most_images(sources: Iterable[Any]) -> int:
    """Images of the largest case."""
    if isinstance(sources, Sequence):
        return max((len(one.sources) for one in sources if isinstance(one, Case)), default=1)
    return 1


class _Run:
    """From opened cases to their records."""

    def __init__(
        self,
        session: Session,
        opener: Opener,
        let_go: Callable[[OpenedCase], None],
        progress: Told | None,
    ) -> None:
        self._session = session
        self._watch = Watch(progress, self._stats)
        self._opener = opener
        self._let_go = let_go

    def side_by_side(self, coming: Generator[OpenedCase], width: int) -> Generator[_Turn]:
        """Search the cases, ``width`` at a time: a new one comes in when one ends. In order."""
        session, reader = self._session, CaseReader()
        search = Search(session.engine, reader, budget=session.budget, policy=session.policy)
        running: dict[int, _Turn] = {}
        waiting: deque[_Turn] = deque()
        more = True

        def begin(turn: _Turn) -> None:
            case = turn.case
            running[case.number] = turn
            reader.cases[case.number] = case
            spent = partial(self._bytes_read, case)
            search.add(
                case.number,
                case.roots,
                case.canvas.frames,
                seconds=case.spent,
                bytes_read=spent,
                holds=case.holds if case.has_foreground else None,
            )

        try:
            while more or waiting:
                while waiting and waiting[0].done:
                    yield waiting.popleft()
                while more and len(running) < width and len(waiting) < _WAITING * width:
                    case = next(coming, None)
                    more = case is not None
                    if case is not None:
                        waiting.append(self._turn(case))
                        if not waiting[-1].done:
                            begin(waiting[-1])
                if running:
                    with reader.shared_out():
                        ended = search.step()
                    first = next(iter(running))
                    self._watch.looked(running[first].case, partial(search.so_far, first))
                    for number in ended:
                        turn = running.pop(number)
                        if self._finish(turn, partial(search.take, number)):
                            reader.forget(turn.case)
                        else:
                            begin(turn)
        finally:
            for turn in waiting:
                if not turn.done:
                    self._let_go(turn.case)

    def one_by_one(self, coming: Generator[OpenedCase]) -> Generator[_Turn]:
        """Look at what a policy names, case by case."""
        for case in coming:
            turn = self._turn(case)
            while not (turn.done or self._finish(turn, partial(self._looked_at, case))):
                pass
            yield turn

    def _turn(self, case: OpenedCase) -> _Turn:
        """The turn of a case: over where none of its images can be looked at, or an error is to be raised."""
        raised = case.errors if self._session.options.on_error == "raise" else []
        turn = _Turn(case, error=next(iter(raised), case.error))
        if turn.done:
            self._let_go(case)
        return turn

    def _finish(self, turn: _Turn, take: Callable[[], tuple[Traversal, str, tuple[str, ...]]]) -> bool:
        """Make the record of a case, whatever went wrong, and let go of it; False = begin anew without some images."""
        case = turn.case
        try:
            traversal, reason, notes = take()
            if reason != "no_valid_pixels" and case.has_foreground and case.drop_empty():
                return False
            stats = self._stats(case)
            turn.record = to_record(
                case,
                self._session,
                traversal,
                stop_reason=reason,
                notes=notes,
                stats=stats,
                asked=self._opener.asked(case.sources),
            )
        except Exception as error:  # noqa: BLE001 - raised or recorded when it is this case's turn
            if self._session.options.on_error == "record" and case.drop(error):
                return False
            turn.error = error
        self._let_go(case)
        return True

    def _stats(self, case: OpenedCase) -> list[FetchStats]:
        """What was read of each image of a case."""
        return [self._opener.stats(source) for source in case.readable]

    def _bytes_read(self, case: OpenedCase) -> int:
        return sum(one.bytes for one in self._stats(case))

    def _looked_at(self, case: OpenedCase) -> tuple[Traversal, str, tuple[str, ...]]:
        """Look at one case by a policy that doesn't search."""
        session = self._session
        exhaustive = session.options.policy == "exhaustive"
        reader = CaseReader(every_mean=exhaustive)
        reader.cases[0] = case
        looks = 0

        def fetch(index: np.ndarray, regions: np.ndarray) -> Crops:
            nonlocal looks
            looks += len(regions)
            crops = reader(index, regions)
            self._watch.looked(case, lambda: (looks, None))
            return crops

        frames = case.canvas.frames
        holds = case.holds if case.has_foreground else None
        with reader.shared_out():
            found = None
            if not exhaustive or holds is not None:
                deeper = session.model.k if session.options.policy == "top-k" else (0,)
                found = by_depth(
                    session.engine, fetch, case.roots, frames, k=deeper, nms=session.options.nms, holds=holds
                )
            empty = holds is not None and not holds(case.roots).any()
            if found is None or (exhaustive and not empty):
                overlap = session.model.config.overlap
                found = everywhere(session.engine, fetch, frames, overlap=overlap, holds=holds)
        if not found.coverage.any():
            return found, "no_valid_pixels", ()
        return found, "no_foreground" if empty else "depth", ()
