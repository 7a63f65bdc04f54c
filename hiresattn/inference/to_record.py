"""From a traversal to a record."""

import math
from dataclasses import replace
from typing import Any

import numpy as np

import hiresattn
from hiresattn.checkpoint import Model
from hiresattn.datasets.example import Example, names_of
from hiresattn.errors import DomainError, HiresattnError
from hiresattn.geometry import expandable
from hiresattn.inference.domain import warnings_for
from hiresattn.inference.record import LIKELY, Cost, Record, Seconds, VisitedRegion
from hiresattn.inference.review import for_review, judged
from hiresattn.inference.session import Session
from hiresattn.inference.sources import Source, name_of
from hiresattn.model.traversal import Traversal
from hiresattn.pyramid.rescaled import stored_image, to_stored
from hiresattn.reading.decode import FetchStats
from hiresattn.reading.squash import unsquashed


def blank_record(example: Example, model: Model) -> Record:
    """What is known of a source before it is looked at."""
    return Record(
        source=name_of(example),
        status="ok",
        region=example.region,
        label=names_of(example.label) if model.config.multi_label else example.label,
        scorer=model.config.scorer,
        model={"name": model.name, "sha256": model.sha256},
        version=hiresattn.__version__,
    )


def error_record(example: Example, model: Model, error: Exception) -> Record:
    """The record of a source that failed."""
    if isinstance(error, HiresattnError):
        words = str(error)
    elif isinstance(error, MemoryError) or type(error).__name__ == "OutOfMemoryError":
        words = str(error) or f"{name_of(example)}: out of memory; lower budget or threads"
    else:
        words = f"{name_of(example)}: {type(error).__name__}: {error}"
    return for_review(replace(blank_record(example, model), status="error", error=words))


def to_record(
    source: Source,
    session: Session,
    traversal: Traversal,
    *,
    stop_reason: str,
    notes: tuple[str, ...],
    stats: FetchStats,
) -> Record:
    """What was found in a source.

    Args:
        source: What was classified.
        session: Model and options.
        traversal: Of this source alone.
        stop_reason: Why it ended.
        notes: What the user should know of the search.
        stats: What was read.

    Returns:
        The record; its ``status`` is ``no_valid_pixels`` where nothing was measured, ``no_foreground`` where nothing is
        foreground.

    Raises:
        DomainError: If the prediction is not a number.
    """
    model, pyramid, config = session.model, source.pyramid, source.config
    assert pyramid is not None  # noqa: S101 - it was looked at
    assert config is not None  # noqa: S101
    scorer = "random" if session.options.policy == "random" else model.config.scorer
    record = replace(
        blank_record(source.example, model),
        cost=_cost(source, traversal, stop_reason, stats, model.config.finest_side),
        regions=_visited(traversal, source, config.squash, scorer),
        mpp=source.scale.mpp,
        mpp_source=source.scale.source,
        foreground=None if source.foreground is None else source.foreground.share,
    )
    if stop_reason in ("no_valid_pixels", "no_foreground"):
        return for_review(replace(record, status=stop_reason))
    several = model.config.multi_label
    scores = _scores(np.asarray(traversal.logits[0], np.float64) / model.temperature, several=several)
    if not np.isfinite(scores).all():
        raise DomainError(
            f"{pyramid.source}: the model's answer is not a number; look at the image's values (an undeclared "
            "nodata value?), or give value_range LO,HI"
        )
    order = sorted(range(len(scores)), key=lambda c: -scores[c])
    means = source.band_means[0] if len(source.band_means) == 1 else np.nanmean(source.band_means, axis=0)
    side = min(_stored_region(source)[2:])
    domain = warnings_for(
        stored_image(pyramid), model.domain, model.config.input, config, means, side, source.scale.mpp
    )
    record = replace(
        record,
        class_name=None if several else model.classes[order[0]],
        score=None if several else scores[order[0]],
        labels=tuple(model.classes[c] for c in order if scores[c] >= LIKELY) if several else None,
        scores=dict(zip(model.classes, scores, strict=True)),
        warnings=(*domain, *pyramid.meta.notes, *notes),
    )
    seen = int((np.asarray(traversal.depth) == 0).sum())
    return judged(record, traversal, session, partly_seen=seen < len(source.roots))


def _scores(logits: np.ndarray, *, several: bool) -> list[float]:
    """Probability of every class; of several labels, each one's own."""
    if several:
        shares: Any = np.exp(-np.logaddexp(0, -logits))
    else:
        shares = np.exp(logits - logits.max())
        shares = shares / shares.sum()
    return [float(share) for share in shares]


def _cost(source: Source, traversal: Traversal, stop_reason: str, stats: FetchStats, finest: int) -> Cost:
    total = source.opened + source.read + source.computed
    looked_into = traversal.region[~expandable(traversal.region, finest)]
    return Cost(
        glimpses=len(traversal.image),
        tiles=stats.tiles,
        missing_tiles=stats.missing_tiles,
        pixels_decoded=stats.pixels,
        bytes_read=stats.bytes,
        bytes_estimated=not stats.bytes_exact,
        fraction_read=stats.pixels / math.prod(_stored_region(source)[2:]),
        foreground_seen=None if source.foreground is None else source.foreground.share_in(looked_into),
        seconds=Seconds(
            open=round(source.opened, 4),
            read=round(source.read, 4),
            model=round(source.computed, 4),
            total=round(total, 4),
        ),
        stop_reason=stop_reason,
    )


def _stored_region(source: Source) -> list[int]:
    """What was classified, level-0 px."""
    assert source.pyramid is not None  # noqa: S101 - it was looked at
    region: list[int] = to_stored(source.pyramid, np.array([source.region], np.int64))[0].tolist()
    return region


def _visited(
    traversal: Traversal, source: Source, squash: int | None, scorer: str
) -> tuple[VisitedRegion, ...]:
    assert source.pyramid is not None  # noqa: S101 - it was looked at
    regions = traversal.region if squash is None else unsquashed(traversal.region, source.region, squash)
    regions = to_stored(source.pyramid, regions)
    rows = zip(
        traversal.parent.tolist(),
        traversal.depth.tolist(),
        regions.tolist(),
        traversal.weight.tolist(),
        traversal.log_prob.tolist(),
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
        )
        for row, (parent, depth, region, weight, log_prob) in enumerate(rows)
    )
