"""Classify sources: open them, search them side by side, and record what was found, where, and what it cost."""

import time
from collections import Counter, deque
from collections.abc import Generator, Iterable, Iterator, Sized
from contextlib import closing
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch

from hiresattn.checkpoint import Model
from hiresattn.config import changed
from hiresattn.datasets.example import Example
from hiresattn.datasets.scales import with_scales
from hiresattn.datasets.sources import Unusable
from hiresattn.errors import ConfigError
from hiresattn.inference.batching import BYTES_PER_IMAGE, batch_images
from hiresattn.inference.domain import band_means
from hiresattn.inference.exhaustive import everywhere
from hiresattn.inference.options import ClassifyOptions
from hiresattn.inference.record import Record
from hiresattn.inference.search import Search
from hiresattn.inference.session import Session, start_session
from hiresattn.inference.sources import Opener, Source, all_of, is_one
from hiresattn.inference.to_record import error_record, to_record
from hiresattn.model.select import selector
from hiresattn.model.traversal import Traversal
from hiresattn.reading.fetch import CropFetcher, Crops
from hiresattn.reading.prefetch import prepared_ahead

#: Sources that may wait for an earlier one to end, as a multiple of those searched side by side.
_WAITING = 4


def classify(
    source: Any, model: Model | str | Path, options: ClassifyOptions | None = None, **changes: Any
) -> Record:
    """Classify one image by looking at a fraction of it.

    Args:
        source: A path, a URL, an array ``[h w c]``, an open pyramid, or an ``Example`` (a window of an image).
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
    model: Model | str | Path,
    options: ClassifyOptions | None = None,
    **changes: Any,
) -> Iterator[Record]:
    """Classify images, several side by side, by looking at a fraction of each.

    Args:
        sources: As ``classify`` takes one, several; or a manifest (``.csv``, ``.parquet``), a folder or a glob.
        model: A model directory, a hub name (``hf:owner/name``) or a loaded model, which stays as it is.
        options: How; None = the defaults.
        changes: Single options, in place of those of ``options``.

    Returns:
        An iterator of one record per source, in order. ``batch_images`` of them are searched at a time, while a
        thread opens the next and reads their root regions.

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
    return _records(listed, session)


@dataclass
class _Turn:
    """A source between its opening and its record."""

    source: Source
    record: Record | None = None
    error: Exception | None = None

    @property
    def done(self) -> bool:
        return self.record is not None or self.error is not None


def _records(sources: Iterable[Any], session: Session) -> Iterator[Record]:
    options = session.options
    width = batch_images(session, sources)
    fetcher = None
    if session.squash is None:
        at_once = 2 * width + 1
        kept = None if width == 1 else at_once * BYTES_PER_IMAGE
        config = session.model.config.input
        fetcher = CropFetcher([], config, at_once=at_once, cache_bytes=kept, **session.reading)
    opener = Opener(session, fetcher)
    examples = (source if isinstance(source, Example | Unusable) else Example(source) for source in sources)
    try:
        with closing(prepared_ahead(examples, opener.open, opener.let_go, most=width)) as coming:
            run = _side_by_side(coming, session, opener, width)
            with closing(run if options.searches else _one_by_one(coming, session, opener)) as turns:
                for turn in turns:
                    if turn.error is None:
                        assert turn.record is not None  # noqa: S101 - one or the other
                        yield turn.record
                    elif options.on_error == "raise":
                        raise turn.error
                    else:
                        yield error_record(turn.source.example, session.model, turn.error)
    finally:
        opener.close()


def _side_by_side(
    coming: Generator[Source], session: Session, opener: Opener, width: int
) -> Generator[_Turn]:
    """Search the sources, ``width`` at a time: a new one comes in when one ends. In order."""
    reader = _Reader()
    search = Search(session.engine, reader, budget=session.budget, policy=session.policy)
    running: dict[int, _Turn] = {}
    waiting: deque[_Turn] = deque()
    more = True
    try:
        while more or waiting:
            while waiting and waiting[0].done:
                yield waiting.popleft()
            while more and len(running) < width and len(waiting) < _WAITING * width:
                source = next(coming, None)
                if source is None:
                    more = False
                    break
                turn = _Turn(source, error=source.error)
                waiting.append(turn)
                if source.error is None:
                    running[source.number] = turn
                    reader.sources[source.number] = source
                    search.add(
                        source.number,
                        source.roots,
                        source.frame,
                        seconds=source.opened + source.read,
                        bytes_read=partial(_bytes_read, opener, source),
                        holds=None if source.foreground is None else source.foreground.holds,
                    )
                else:
                    opener.let_go(source)
            if running:
                with reader.shared_out():
                    ended = search.step()
                for number in ended:
                    turn = running.pop(number)
                    del reader.sources[number]
                    _finish(turn, session, opener, partial(search.take, number))
    finally:
        for turn in waiting:
            if not turn.done:
                opener.let_go(turn.source)


def _one_by_one(coming: Generator[Source], session: Session, opener: Opener) -> Generator[_Turn]:
    """Look at what a policy names, image by image."""
    for source in coming:
        turn = _Turn(source, error=source.error)
        if source.error is None:
            _finish(turn, session, opener, partial(_looked_at, source, session))
        else:
            opener.let_go(source)
        yield turn


def _finish(turn: _Turn, session: Session, opener: Opener, take: Any) -> None:
    """Make the record of a source, whatever went wrong, and let go of it."""
    try:
        traversal, reason, notes = take()
        stats = opener.stats(turn.source)
        turn.record = to_record(turn.source, session, traversal, stop_reason=reason, notes=notes, stats=stats)
    except Exception as error:  # noqa: BLE001 - raised or recorded when it is this source's turn
        turn.error = error
    finally:
        opener.let_go(turn.source)


def _bytes_read(opener: Opener, source: Source) -> int:
    return opener.stats(source).bytes


def _looked_at(source: Source, session: Session) -> tuple[Traversal, str, tuple[str, ...]]:
    """Look at one image by a policy that doesn't search."""
    reader = _Reader(every_mean=session.options.policy == "exhaustive")
    reader.sources[source.number] = source
    net, overlap = session.engine.net, session.model.config.overlap
    holds = None if source.foreground is None else source.foreground.holds
    exhaustive = session.options.policy == "exhaustive"

    def fetch(at: np.ndarray, regions: np.ndarray) -> Crops:
        return reader(at + source.number, regions)

    with reader.shared_out(), torch.inference_mode():
        found = None
        if not exhaustive or holds is not None:
            found = net(
                fetch,
                [source.roots],
                source.frame[None],
                select=selector(net.scorer.gate, nms=session.options.nms),
                k=session.model.k if session.options.policy == "top-k" else (0,),
                foreground=None if holds is None else lambda _, regions: holds(regions),
            )
        empty = holds is not None and not holds(source.roots).any()
        if found is None or (exhaustive and not empty):
            found = everywhere(session.engine, fetch, source.frame, overlap=overlap, holds=holds)
    if not found.coverage.any():
        return found, "no_valid_pixels", ()
    return found, "no_foreground" if empty else "depth", ()


class _Reader:
    """Fetches crops, and shares out the time among the images that they are of.

    Args:
        every_mean: Whether the means of the bands are of all crops, in place of those of an image's first call.
    """

    def __init__(self, *, every_mean: bool = False) -> None:
        self.sources: dict[int, Source] = {}
        self._every_mean = every_mean
        self._crops: Counter[int] = Counter()
        self._reading = 0.0

    def __call__(self, image: np.ndarray, regions: np.ndarray) -> Crops:
        """Crops of regions, by the numbers of their images."""
        started = time.perf_counter()
        numbers = image.tolist()
        fetch = self.sources[numbers[0]].fetch
        assert fetch is not None  # noqa: S101 - they were opened
        crops = fetch(image, regions)
        spent = time.perf_counter() - started
        self._reading += spent
        counts = Counter(numbers)
        self._crops += counts
        for number, count in counts.items():
            source = self.sources[number]
            source.read += spent * count / len(numbers)
            if self._every_mean or not source.band_means:
                rows = image == number
                source.band_means.append(band_means(Crops(crops.pixels[rows], crops.coverage[rows])))
            if source.foreground is not None and source.foreground.waiting:
                rows = image == number
                source.foreground.add(regions[rows], Crops(crops.pixels[rows], crops.coverage[rows]))
        return crops

    def shared_out(self) -> "_SharedOut":
        """Within this, what isn't reading counts as computing, shared out by the number of crops."""
        return _SharedOut(self)

    def begin(self) -> float:
        """Start counting; the reading of the clock."""
        self._crops.clear()
        self._reading = 0.0
        return time.perf_counter()

    def end(self, started: float) -> None:
        """Share out what was spent since."""
        computing = time.perf_counter() - started - self._reading
        total = self._crops.total()
        for number, count in self._crops.items():
            self.sources[number].computed += computing * count / total


class _SharedOut:
    def __init__(self, reader: _Reader) -> None:
        self._reader = reader

    def __enter__(self) -> None:
        self._started = self._reader.begin()

    def __exit__(self, *_: object) -> None:
        self._reader.end(self._started)
