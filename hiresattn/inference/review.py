"""Whether an answer can be believed: its prediction set, its distance to the training images, and who looks at it."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, replace
from typing import Any

import numpy as np

from hiresattn.card import Card, Conformal
from hiresattn.inference.budget import Budget
from hiresattn.inference.options import ClassifyOptions
from hiresattn.inference.record import Record
from hiresattn.inference.session import Session
from hiresattn.inference.sufficiency import sufficiency
from hiresattn.model.reference import FAR
from hiresattn.model.traversal import Traversal


def search_facts(options: ClassifyOptions) -> dict[str, Any]:
    """The options that decide which probabilities a search ends with, as JSON types."""
    found = {
        "policy": options.policy,
        "random": options.scorer == "random",
        "budget": asdict(Budget.parse(options.budget)),
        "stop": options.stop,
        "nms": options.nms,
        "per_source": options.per_source,
        "foreground": options.foreground,
        "bands": options.bands,
        "value_range": options.value_range,
        "precision": "int8" if options.engine == "onnx-int8" else options.precision,
        "until_confidence": options.until_confidence,
        "max_budget": None if options.max_budget is None else asdict(Budget.parse(options.max_budget)),
    }
    return dict(json.loads(json.dumps(found)))


def usable_sets(model: Card, options: ClassifyOptions) -> Conformal | None:
    """The prediction sets of a model where they hold for searches with these options; else None."""
    sets = model.conformal
    return sets if sets is not None and not _other_facts(sets, options) else None


def _other_facts(sets: Conformal, options: ClassifyOptions) -> list[str]:
    """What the searches that calibrated the sets had otherwise; what their card lacks was at its default."""
    here, plain = search_facts(options), search_facts(ClassifyOptions())
    return [name for name in here if sets.search.get(name, plain[name]) != here[name]]


def why_no_sets(model: Card, options: ClassifyOptions) -> str:
    """Why records get no prediction sets, and what to do; empty = they get them."""
    if model.config.multi_label:
        return "prediction sets are of one label per image, and the model predicts several"
    if model.conformal is None:
        return "the model is not calibrated for prediction sets; evaluate it with --calibrate"
    other = _other_facts(model.conformal, options)
    if not other:
        return ""
    return (
        "prediction sets: they hold for searches like those that calibrated them, which had another "
        f"{' and another '.join(name.replace('_', ' ') for name in other)}; search alike, or evaluate --calibrate so"
    )


def judged(
    record: Record,
    traversal: Traversal,
    session: Session,
    views: Mapping[int, np.ndarray],
    *,
    partly_seen: bool,
) -> Record:
    """The record of an answer with all that says whether to believe it.

    Args:
        record: With its ``scores``.
        traversal: Of this case alone.
        session: Model and options.
        views: What its images look like from afar, by their number; see ``coarse_view``.
        partly_seen: Whether some of its root regions were not looked at.
    """
    model = session.model
    sets, reference = usable_sets(model, session.options), model.reference
    found = sufficiency(traversal, session.engine.facts, model.temperature)
    away = {number: None if reference is None else reference.distance(view) for number, view in views.items()}
    far = max((one for one in away.values() if one is not None), default=None)
    limit = None if reference is None else reference.limit
    judged = replace(
        record,
        sources=tuple(replace(one, domain_distance=away.get(n)) for n, one in enumerate(record.sources)),
        prediction_set=None if sets is None else sets.classes(record.scores),
        domain_distance=far,
        out_of_domain=_is_far(far, limit),
        sufficient=None if found is None else found.glimpses,
        score_without=None if found is None else found.without,
        sufficiency=None if found is None else found.area,
    )
    strange = [one.source for one in judged.sources if _is_far(one.domain_distance, limit)]
    return for_review(
        judged, partly_seen=partly_seen, strange=strange, until=session.options.until_confidence
    )


def _is_far(far: float | None, limit: float | None) -> bool | None:
    """Whether a case is too far off the training images; None = it can't be said."""
    if far is None:
        return None
    if limit is None:  # too few validation images: only what is far off by any measure is told
        return True if far > FAR else None
    return far > limit


def for_review(
    record: Record, *, partly_seen: bool = False, strange: Sequence[str] = (), until: float | None = None
) -> Record:
    """The record with whether somebody should look at the case, and why.

    Args:
        record: With its prediction set.
        partly_seen: Whether some of its root regions were not looked at.
        strange: Its images that are unlike the training images.
        until: Confidence that was asked for.
    """
    reasons = []
    if record.status == "error":
        reasons.append("it could not be classified")
    elif record.status != "ok":
        reasons.append(record.status.replace("_", " "))
    elif any(one.error is not None for one in record.sources):
        reasons.append("not all of its images could be read")
    if (classes := record.prediction_set) is not None and len(classes) != 1:
        reasons.append(f"may be {' or '.join(classes)}" if classes else "no class is probable enough")
    if strange:
        which = f": {', '.join(strange)}" if len(record.sources) > 1 else ""
        reasons.append(f"unlike the training images{which}")
    if partly_seen:
        reasons.append("seen in part only")
    if until is not None and (sure := _confidence(record)) is not None and sure < until:
        reasons.append(f"less sure than {until:g} after all its looks")
    known = bool(reasons) or record.prediction_set is not None or until is not None
    return replace(record, needs_review=bool(reasons) if known else None, review_reasons=tuple(reasons))


def _confidence(record: Record) -> float | None:
    """The probability of being right, of several labels about the least sure one; None = there is no answer."""
    if record.labels is not None:
        return min(max(one, 1 - one) for one in record.scores.values())
    return record.score
