"""Sources on their way: opened, checked against the model, their first crops read."""

import logging
import math
import os
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from itertools import count
from pathlib import Path
from typing import Any
from weakref import WeakKeyDictionary

import numpy as np

from hiresattn.card import Card
from hiresattn.config import InputConfig
from hiresattn.datasets.cases import Case
from hiresattn.datasets.example import Example, Label, names_of
from hiresattn.datasets.scales import scale_of
from hiresattn.datasets.sources import Unusable, sources_of
from hiresattn.errors import ConfigError, OpenError
from hiresattn.geometry import expandable, root_regions
from hiresattn.inference.bands import chosen, input_for
from hiresattn.inference.session import Session
from hiresattn.option_types import did_you_mean
from hiresattn.pyramid import Pyramid
from hiresattn.pyramid.clipped import Clipped, inside_px
from hiresattn.pyramid.rescaled import UNKNOWN, Scale, at_scale, stored_image, window_of
from hiresattn.pyramid.stac import is_item
from hiresattn.pyramid.stack import Stack
from hiresattn.pyramid.storage.ranges import MOST_SECONDS, RequestStats
from hiresattn.reading.decode import FetchStats
from hiresattn.reading.estimate import check_first_look
from hiresattn.reading.fetch import CropFetcher, Crops
from hiresattn.reading.foreground import Foreground, overview, read_mask
from hiresattn.reading.prefetch import SharedImages
from hiresattn.reading.squash import SquashFetcher

_log = logging.getLogger(__name__)
#: Px along a side of the map of what lies inside an outline, at most.
_MAP_SIDE = 2048


@dataclass
class Source:
    """A source that was opened, or what went wrong with it; and what it has cost so far."""

    example: Example
    image: Pyramid | None = None
    """As it was opened; its windows share it."""
    pyramid: Pyramid | None = None
    """As its model sees it: at a scale, and clipped."""
    scale: Scale = UNKNOWN
    """Micrometres per level-0 px, and where they are from."""
    config: InputConfig | None = None
    """How its pixels become crops."""
    number: int = -1
    """What the fetcher knows it by."""
    fetch: Callable[[np.ndarray, np.ndarray], Crops] | None = None
    region: tuple[int, int, int, int] = (0, 0, 0, 0)
    """What is classified, px that ``pyramid`` counts in."""
    frame: np.ndarray = field(default_factory=lambda: np.zeros(4, np.int64))
    """The same as the network is told ``[4]``: where the image is squashed, the square."""
    roots: np.ndarray = field(default_factory=lambda: np.zeros((0, 4), np.int64))
    error: Exception | None = None
    empty: bool = False
    """Whether it holds no foreground, beside others of its case that do: then it is no part of the answer."""
    foreground: Foreground | None = None
    """Where its foreground is, once its root regions were read; None = all of it."""
    inside: Foreground | None = None
    """What of it lies inside the outline that it is clipped to; None = all of it."""
    band_means: list[np.ndarray] = field(default_factory=list)
    band_squares: list[np.ndarray] = field(default_factory=list)
    """Of the first crops; of all, if every region is looked at."""
    opened: float = 0.0
    """Wall time of opening, s."""
    read: float = 0.0
    """Of reading, ahead and since; its share where images are read together."""
    computed: float = 0.0
    """Of the network and of choosing."""

    @property
    def is_seen(self) -> bool:
        """Whether it is part of the answer."""
        return self.error is None and not self.empty

    @property
    def waiting(self) -> bool:
        """Whether root regions must still be looked at to know its foreground."""
        return self.foreground is not None and self.foreground.waiting


class Opener:
    """Opens sources for one session, and lets go of them.

    Args:
        session: Model and options.
        fetcher: Reads all of them; None = each is squashed and read on its own.
    """

    def __init__(self, session: Session, fetcher: CropFetcher | None) -> None:
        self._session = session
        self._fetcher = fetcher
        self._images = SharedImages(session.nodata)
        self._numbers = count()
        self._told: WeakKeyDictionary[Pyramid, RequestStats] = WeakKeyDictionary()

    def open(self, example: Example | Unusable) -> Source:
        """Open a source. Errors are kept with it. May run in another thread."""
        if isinstance(example, Unusable):
            named = Example(example.source, example.label, region=example.region, case=example.case)
            return Source(named, error=OpenError(example.error))
        started = time.perf_counter()
        options, model = self._session.options, self._session.model
        if options.mpp is not None:
            example = replace(example, mpp=options.mpp, mpp_source="option mpp")
        source = Source(example)
        with self._limited():
            try:
                example, bands = chosen(example, options.bands, model)
                source.example = example
                source.image = image = self._images.acquire(_key(example))
                if example.outline is not None:
                    image = Clipped(image, example.outline)
                at = model.config.input.mpp
                source.scale = scale_of(image, example, options.assume_mpp, ground=at is not None)
                source.pyramid = pyramid = at_scale(image, at, source.scale)
                check_label(example, pyramid, model)
                source.config = config = input_for(model.config.input, pyramid, bands, options.value_range)
                source.region, source.frame, source.roots = frame_of(pyramid, example, config.squash, model)
                flat = config.squash is None and not expandable(source.roots, model.config.finest_side).any()
                source.foreground = foreground_of(source, options.foreground, flat=flat)
                if flat and source.foreground is not None:
                    held = source.foreground.holds(source.roots)
                    source.roots = source.roots[held] if held.any() else source.roots[:1]
                source.inside = inside_of(source)
                if self._fetcher is None:
                    source.fetch = SquashFetcher(pyramid, config, example.region, strict=options.strict)
                    source.number = next(self._numbers)
                else:
                    check_first_look(pyramid, source.roots, config)
                    source.number = self._fetcher.add(pyramid, config)
                    source.fetch = self._fetcher
            except Exception as error:  # noqa: BLE001 - raised when it is this source's turn
                source.error = error
        source.opened = time.perf_counter() - started
        return source

    def read_ahead(self, source: Source, regions: np.ndarray) -> None:
        """Read the crops that a source is first asked for. Errors are kept with it. May run in another thread."""
        if self._fetcher is None or not len(regions):
            return
        started = time.perf_counter()
        with self._limited():
            try:
                self._fetcher.prepare(np.full(len(regions), source.number), regions)
            except Exception as error:  # noqa: BLE001 - raised when it is this source's turn
                source.error = error
        source.read = time.perf_counter() - started

    @contextmanager
    def _limited(self) -> Iterator[None]:
        """Within this, no wait is longer than a budget in seconds."""
        seconds = self._session.seconds
        limit = MOST_SECONDS.set(min(MOST_SECONDS.get(), max(seconds or math.inf, 1.0)))
        try:
            yield
        finally:
            MOST_SECONDS.reset(limit)

    def stats(self, source: Source) -> FetchStats:
        """What was read of a source so far."""
        if isinstance(source.fetch, SquashFetcher):
            return source.fetch.stats[0]
        assert self._fetcher is not None  # noqa: S101 - all others have it
        own, apart = self._fetcher.stats[source.number], source.foreground and source.foreground.read
        return own + apart if apart else own

    def asked(self, sources: Iterable[Source]) -> RequestStats | None:
        """What servers were asked for some sources, less what this said before; None = nothing, or it isn't counted."""
        found = []
        for image in {id(one.image): one.image for one in sources if one.image is not None}.values():
            if (now := image.requests) is not None:
                before = self._told.get(image, RequestStats())
                self._told[image] = replace(now)
                found.append((now.count - before.count, now.bytes - before.bytes))
        return RequestStats(*map(sum, zip(*found, strict=True))) if found else None

    def let_go(self, source: Source) -> None:
        """Close a source, unless it is the caller's or in use."""
        if self._fetcher is not None and source.number in self._fetcher.stats:
            self._fetcher.remove(source.number)
        if source.pyramid is not None:
            try:
                self._images.release(_key(source.example))
            except Exception:  # noqa: BLE001 - its record is made, and the next source must not pay for it
                _log.warning("%s could not be closed", name_of(source.example), exc_info=True)

    def close(self) -> None:
        """Close all sources."""
        if self._fetcher is not None:
            self._fetcher.close()
        self._images.close()


def frame_of(
    pyramid: Pyramid, example: Example, squash: int | None, model: Card
) -> tuple[tuple[int, int, int, int], np.ndarray, np.ndarray]:
    """The region classified; the rectangle that the network is told ``[4]``; the root regions in that.

    All in the px that the pyramid counts in.

    Raises:
        RegionError: If the example's region leaves the image.
    """
    region = window_of(pyramid, example.region)
    seen = region if squash is None else (0, 0, squash, squash)
    rule = model.config
    roots = root_regions(*seen[2:], *seen[:2], root_size=rule.root_size, overlap=rule.overlap)
    return region, np.array(seen, np.int64), roots


def foreground_of(source: Source, asked: str | None, *, flat: bool) -> Foreground | None:
    """Where a source's foreground is known from; None = all of it is.

    Args:
        source: With its pyramid, frame and root regions.
        asked: ``tissue``, ``none``, or the path of a mask; None = as the model was trained.
        flat: Whether its root regions are finest ones: a coarse view is read for it then.

    Raises:
        ConfigError: If the mask can't be that of the image.
        HiresattnError: If the mask, or the image, can't be read.
    """
    pyramid, config = source.pyramid, source.config
    assert pyramid is not None  # noqa: S101 - it is open
    assert config is not None  # noqa: S101
    asked = asked or config.foreground or "none"
    if asked == "none":
        return None
    if asked == "tissue":
        return overview(pyramid, source.region, config) if flat else Foreground(source.roots, config)
    y, x, height, width = source.region
    down, across = source.frame[2] / height, source.frame[3] / width
    whole = (
        source.frame[0] - y * down,
        source.frame[1] - x * across,
        pyramid.height * down,
        pyramid.width * across,
    )
    return Foreground.of_mask(read_mask(asked, pyramid), whole, config)


def inside_of(source: Source) -> Foreground | None:
    """What of a source lies inside the outline that it is clipped to, by a map of at most ``_MAP_SIDE`` px a side."""
    outline, config, pyramid = source.example.outline, source.config, source.pyramid
    if outline is None or config is None or pyramid is None:
        return None
    stored = stored_image(pyramid)
    y, x, height, width = source.example.region or (0, 0, stored.height, stored.width)
    rows, columns = (min(side, _MAP_SIDE) for side in (height, width))
    mask = inside_px(outline, (y, x), (height / rows, width / columns), (rows, columns))
    top, left, down, across = source.frame.tolist()
    return Foreground.of_mask(mask, (top, left, down, across), config, least=0)


def known_labels(label: Label | None, model: Card) -> tuple[str, ...] | None:
    """The labels that a model should predict: one, or all where it predicts several; None = not known.

    Raises:
        ConfigError: If there are several labels and the model predicts one class.
    """
    if model.config.multi_label:
        return names_of(label)
    if isinstance(label, tuple):
        raise ConfigError(
            f"several labels ({', '.join(label) or 'none'}), and model {model.name!r} answers with one class; give "
            "a column label in place of labels, or a model trained with multi_label"
        )
    return None if label is None else (label,)


def check_label(example: Example, pyramid: Pyramid, model: Card) -> None:
    """Refuse a label that the model doesn't know, which would count as a wrong prediction."""
    for name in known_labels(example.label, model) or ():
        if name not in model.classes:
            raise ConfigError(
                f"{pyramid.source}: label {name!r} is none of the model's classes"
                f"{did_you_mean(name, model.classes)}; mend the manifest, or leave the "
                "label empty"
            )


def is_one(source: Any) -> bool:
    """Whether this is one image, or the name of one or several, in place of several images."""
    known = (str, bytes, os.PathLike, Stack, Example, Case, Pyramid)
    if isinstance(source, Mapping) or hasattr(source, "read"):  # xarray's data sets and trees; open files
        return True
    return isinstance(source, known) or is_item(source) or hasattr(source, "dtype")


def all_of(sources: Any) -> Iterable[Any]:
    """The sources that are meant: those given, or those of a manifest, folder or glob.

    Raises:
        ConfigError: If it is a single image, or nothing that can be gone through.
    """
    if isinstance(sources, str | Path):
        return list(sources_of(str(sources)))
    if is_one(sources) or not isinstance(sources, Iterable):
        raise ConfigError(
            f"classify_all takes several sources, such as a list, a manifest, a folder or a glob; got "
            f"{type(sources).__name__}. For one image use classify"
        )
    return sources


def name_of(example: Example) -> str:
    """What records and errors call a source."""
    source = example.source
    name = source.source if isinstance(source, Pyramid) else source
    if hasattr(source, "read"):  # rasterio's, and open files
        name = getattr(source, "name", name)
    return str(name) if isinstance(name, (str, Path, Stack)) else "<array>"


def _key(example: Example) -> Any:
    """Windows of one file are one image, however its path was given."""
    return str(example.source) if isinstance(example.source, Path) else example.source
