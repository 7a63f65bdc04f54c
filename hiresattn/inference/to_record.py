"""From a traversal to a record."""

import math
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np

import hiresattn
from hiresattn.card import Card
from hiresattn.datasets.example import Example, Label, names_of
from hiresattn.datasets.scales import ASSUMED
from hiresattn.errors import DomainError, HiresattnError
from hiresattn.files import file_state
from hiresattn.geometry import expandable
from hiresattn.inference.domain import coarse_view, warnings_for
from hiresattn.inference.opened import OpenedCase, case_name
from hiresattn.inference.record import (
    LIKELY,
    MOST_FOLLOWED,
    CaseSource,
    Cost,
    Record,
    Seconds,
    VisitedRegion,
)
from hiresattn.inference.review import for_review, judged
from hiresattn.inference.session import Session
from hiresattn.inference.sources import Source, name_of
from hiresattn.model.traversal import Traversal
from hiresattn.pyramid.mpp import scale_words
from hiresattn.pyramid.rescaled import stored_image, to_stored
from hiresattn.pyramid.storage.ranges import RequestStats
from hiresattn.reading.decode import FetchStats
from hiresattn.reading.squash import unsquashed

#: Of probabilities on the way.
_DECIMALS = 4


def blank_record(example: Example, model: Card) -> Record:
    """What is known of a source before it is looked at."""
    return Record(
        source=name_of(example),
        status="ok",
        case=example.case,
        region=example.region,
        label=_label(example.label, model),
        scorer=model.config.scorer,
        model={"name": model.name, "sha256": model.sha256},
        version=hiresattn.__version__,
    )


def _blank_case(case: OpenedCase, model: Card) -> Record:
    """What is known of a case before it is looked at."""
    one = len(case.sources) == 1
    return replace(
        blank_record(case.example, model),
        source=case_name(case),
        case=case.name,
        region=case.example.region if one else None,
        label=_label(case.label, model),
    )


def _label(label: Label | None, model: Card) -> Label | None:
    return names_of(label) if model.config.multi_label else label


def error_record(example: Example, model: Card, error: Exception) -> Record:
    """The record of a source that failed."""
    words = _error_words(name_of(example), error)
    return for_review(replace(blank_record(example, model), status="error", error=words))


def case_error(case: OpenedCase, model: Card, error: Exception) -> Record:
    """The record of a case that failed."""
    record = replace(_blank_case(case, model), status="error", error=_error_words(case_name(case), error))
    sources = tuple(_source_facts(source, None, 0) for source in case.sources)
    return for_review(replace(record, sources=sources))


def _error_words(name: str, error: Exception) -> str:
    if isinstance(error, HiresattnError):
        return str(error)
    if isinstance(error, MemoryError) or type(error).__name__ == "OutOfMemoryError":
        return str(error) or f"{name}: out of memory; lower budget or threads"
    return f"{name}: {type(error).__name__}: {error}"


def to_record(
    case: OpenedCase,
    session: Session,
    traversal: Traversal,
    *,
    stop_reason: str,
    notes: tuple[str, ...],
    stats: Sequence[FetchStats],
    asked: RequestStats | None,
) -> Record:
    """What was found in a case.

    Args:
        case: What was classified.
        session: Model and options.
        traversal: Of this case alone; its regions are of the canvas.
        stop_reason: Why it ended.
        notes: What the user should know of the search.
        stats: What was read of each image that could be opened.
        asked: What servers were asked for it; None = nothing, or it isn't counted.

    Returns:
        The record; its ``status`` is ``no_valid_pixels`` where nothing was measured, ``no_foreground`` where nothing is
        foreground.

    Raises:
        DomainError: If the prediction is not a number.
    """
    model = session.model
    which, regions = case.canvas.stored(traversal.region)
    looks = iter(np.bincount(which, minlength=len(case.seen)).tolist())
    numbers = np.array([n for n, source in enumerate(case.sources) if source.is_seen])
    read = iter(stats)
    facts = tuple(
        _source_facts(
            source,
            None if source.error is not None else next(read),
            next(looks) if source.is_seen else 0,
        )
        for source in case.sources
    )
    blank = _blank_case(case, model)
    record = replace(
        blank,
        sources=facts,
        model={**blank.model, "engine": session.engine.name},
        cost=replace(
            _cost(case, traversal, stop_reason, stats, model.config.finest_side),
            requests=None if asked is None else asked.count,
            bytes_received=None if asked is None else asked.bytes,
        ),
        regions=_visited(traversal, case, numbers[which], regions, session),
        mpp=facts[0].mpp if len(facts) == 1 else None,
        mpp_source=facts[0].mpp_source if len(facts) == 1 else None,
        foreground=case.foreground,
    )
    if stop_reason in ("no_valid_pixels", "no_foreground"):
        return for_review(replace(record, status=stop_reason))
    several = model.config.multi_label
    scores = _scores(traversal.logits[0], model).tolist()
    if not np.isfinite(scores).all():
        raise DomainError(
            f"{record.source}: the model's answer is not a number; look at the image's values (an undeclared "
            "nodata value?), or give value_range LO,HI"
        )
    order = sorted(range(len(scores)), key=lambda c: -scores[c])
    record = replace(
        record,
        class_name=None if several else model.classes[order[0]],
        score=None if several else scores[order[0]],
        labels=tuple(model.classes[c] for c in order if scores[c] >= LIKELY) if several else None,
        scores=dict(zip(model.classes, scores, strict=True)),
        scores_after=_scores_after(traversal.running, order[0], model),
        warnings=(*_warnings(case, model), *notes),
    )
    seen = int((np.asarray(traversal.depth) == 0).sum())
    partly = seen < len(case.roots) or len(case.readable) < len(case.sources)
    unknown = [np.full(len(model.config.input.bands), np.nan)]
    means, squares = (
        [(getattr(source, name) or unknown)[0] for source in case.seen]
        for name in ("band_means", "band_squares")
    )
    views = dict(zip(numbers.tolist(), coarse_view(traversal, which, means, squares), strict=True))
    return judged(record, traversal, session, views, partly_seen=partly)


def _warnings(case: OpenedCase, model: Card) -> list[str]:
    """What is unusual about the images of a case; of several, each with its name."""
    found = []
    for source in case.sources:
        if source.error is not None:
            found.append(f"left out: {_error_words(name_of(source.example), source.error)}")
            continue
        if source.empty:
            found.append(
                f"{name_of(source.example)}: no foreground was found in it; it is no part of the answer"
            )
            continue
        pyramid, config = source.pyramid, source.config
        assert pyramid is not None  # noqa: S101 - it was opened
        assert config is not None  # noqa: S101
        own = list(pyramid.meta.notes)
        file_says = stored_image(pyramid).meta.mpp_source
        if source.scale.mpp and source.scale.source == ASSUMED and file_says:
            why = file_says.removesuffix("; give mpp")
            own.append(f"the scale is the one assumed, {scale_words(source.scale.mpp)}; the file's was {why}")
        if source.band_means:
            means = source.band_means
            mean = means[0] if len(means) == 1 else np.nanmean(means, axis=0)
            image, side, mpp = stored_image(pyramid), min(_stored_region(source)[2:]), source.scale.mpp
            own = [*warnings_for(image, model.domain, model.config.input, config, mean, side, mpp), *own]
        name = f"{name_of(source.example)}: " if len(case.sources) > 1 else ""
        found += [name + words for words in own]
    return found


def _source_facts(source: Source, stats: FetchStats | None, glimpses: int) -> CaseSource:
    """What a record says of one image."""
    example, pyramid = source.example, source.pyramid
    facts = CaseSource(
        source=name_of(example),
        region=example.region,
        mpp=source.scale.mpp or example.mpp,
        mpp_source=source.scale.source or example.mpp_source,
        glimpses=glimpses,
        error=None if source.error is None else _error_words(name_of(example), source.error),
    )
    state = file_state(example.source) if isinstance(example.source, str | Path) else None
    if state is not None:
        facts = replace(facts, bytes=state[0], modified=state[1])
    if pyramid is None:
        return facts
    image = stored_image(pyramid)
    control = image.control
    return replace(
        facts,
        height=image.height,
        width=image.width,
        crs=image.crs if control is None else control.crs,
        transform=image.transform,
        gcps=None if control is None else control.points,
        bounds=image.bounds,
        acquired=image.meta.acquired,
        empty=source.empty,
        fraction_read=0.0 if stats is None else stats.pixels / stored_area(source),
    )


def _scores(logits: np.ndarray, model: Card) -> np.ndarray:
    """Probability of every class ``[… K]``; of several labels, each one's own."""
    logits = np.asarray(logits, np.float64) / model.temperature
    if model.config.multi_label:
        return np.exp(-np.logaddexp(0, -logits))
    shares = np.exp(logits - logits.max(-1, keepdims=True))
    return np.asarray(shares / shares.sum(-1, keepdims=True))


def _scores_after(running: np.ndarray, answer: int, model: Card) -> dict[str, tuple[float, ...]]:
    """The probabilities after each glimpse: of the answer, and of the classes that were likeliest on the way."""
    shares = _scores(running, model).round(_DECIMALS)
    likeliest = sorted(range(len(model.classes)), key=lambda c: (c != answer, -shares[:, c].max(), c))
    return {model.classes[c]: tuple(shares[:, c].tolist()) for c in likeliest[:MOST_FOLLOWED]}


def _cost(
    case: OpenedCase, traversal: Traversal, stop_reason: str, stats: Sequence[FetchStats], finest: int
) -> Cost:
    opened, read, computed = (
        sum(getattr(source, name) for source in case.sources) for name in ("opened", "read", "computed")
    )
    pixels, area = sum(one.pixels for one in stats), sum(map(stored_area, case.readable))
    return Cost(
        glimpses=len(traversal.image),
        tiles=sum(one.tiles for one in stats),
        missing_tiles=sum(one.missing_tiles for one in stats),
        pixels_decoded=pixels,
        bytes_read=sum(one.bytes for one in stats),
        bytes_estimated=not all(one.bytes_exact for one in stats),
        fraction_read=pixels / area,
        foreground_seen=case.foreground_in(traversal.region[~expandable(traversal.region, finest)]),
        seconds=Seconds(
            open=round(opened, 4),
            read=round(read, 4),
            model=round(computed, 4),
            total=round(opened + read + computed, 4),
        ),
        stop_reason=stop_reason,
    )


def _stored_region(source: Source) -> list[int]:
    """What was classified, level-0 px."""
    assert source.pyramid is not None  # noqa: S101 - it was looked at
    region: list[int] = to_stored(source.pyramid, np.array([source.region], np.int64))[0].tolist()
    return region


def stored_area(source: Source) -> int:
    """Level-0 px of what is classified of an image that was opened."""
    return math.prod(_stored_region(source)[2:])


def _visited(
    traversal: Traversal, case: OpenedCase, source: np.ndarray, regions: np.ndarray, session: Session
) -> tuple[VisitedRegion, ...]:
    """The regions that were looked at, in level-0 px of the image ``source [N]`` that they are of."""
    config = session.model.config
    scorer = "random" if session.options.policy == "random" else config.scorer
    finest = ~expandable(traversal.region, config.finest_side)
    regions = regions.copy()
    for number, one in enumerate(case.sources):
        own = source == number
        if one.pyramid is not None and one.config is not None and own.any():
            if one.config.squash is not None:
                regions[own] = unsquashed(regions[own], one.region, one.config.squash)
            regions[own] = to_stored(one.pyramid, regions[own])
    rows = zip(
        traversal.parent.tolist(),
        traversal.depth.tolist(),
        regions.tolist(),
        traversal.weight.tolist(),
        traversal.log_prob.tolist(),
        source.tolist(),
        finest.tolist(),
        strict=True,
    )
    return tuple(
        VisitedRegion(
            id=row,
            parent=parent if parent >= 0 else None,
            depth=depth,
            y=region[0],
            x=region[1],
            height=region[2],
            width=region[3],
            attention=weight,
            select_logp=log_prob,
            scorer=scorer if parent >= 0 else None,
            source=image,
            finest=close,
        )
        for row, (parent, depth, region, weight, log_prob, image, close) in enumerate(rows)
    )
