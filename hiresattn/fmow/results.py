"""Results of a protocol: accuracy and cost, by image size."""

from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np

from hiresattn.checkpoint import Model
from hiresattn.errors import ConfigError, HiresattnError
from hiresattn.fmow.classes import FALSE_DETECTION, WEIGHTS
from hiresattn.fmow.index import UNCROPPED
from hiresattn.fmow.protocols import PROTOCOLS, Entry
from hiresattn.fmow.score import Score, challenge_score
from hiresattn.inference.classify import classify_all
from hiresattn.inference.record import Cost, Record
from hiresattn.pyramid import open_pyramid

#: Upper ends of the buckets: long side of the image, px.
EDGES = (512, 1024, 2048, 4096, 8192)


@dataclass(frozen=True)
class ClassifiedEntry:
    """A row of the manifest and its prediction."""

    entry: Entry
    prediction: Record


@dataclass(frozen=True)
class Bucket:
    """Accuracy and mean cost of the images of one size. A failed row counts as wrong and in no mean cost."""

    name: str
    rows: int
    failed: int
    top1: float
    top5: float
    macro: float
    """Accuracy averaged over the classes."""
    glimpses: float
    fraction_read: float
    """Px decoded over px classified. A JPEG is decoded whole, for the first of its rows."""
    bytes_read: float
    decode_ms: float
    """Opening, reading and decoding."""
    model_ms: float
    total_ms: float


@dataclass(frozen=True)
class Report:
    """The result of one protocol."""

    protocol: str
    letter: str
    description: str
    window: str
    """Which windows were classified; see ``rows``."""
    rows: int
    """Rows classified."""
    of: int
    """Rows of the manifest that belong to the protocol; if fewer were classified, the result isn't the protocol's."""
    formats: dict[str, int]
    """Number of rows by file suffix (a JPEG can only be decoded whole)."""
    unknown_labels: int
    """Rows of classes that the model doesn't have; they count as wrong."""
    uncropped: int
    """Protocol A: rows whose box can't be cropped; they are predicted to be false detections."""
    model: dict[str, str]
    overall: Bucket
    buckets: tuple[Bucket, ...]
    score: Score | None = None
    """Protocol A: the challenge's score."""
    categories: Mapping[int, str] = field(default_factory=dict)
    """Protocol A: the predicted category of each box ID."""

    def to_json(self) -> dict[str, Any]:
        """The report as JSON types."""
        return asdict(self) | {"categories": dict(self.categories)}


def classify_entries(entries: Sequence[Entry], model: Model, **options: Any) -> Iterator[ClassifiedEntry]:
    """Classify rows. The first one is classified twice, so that no compilation is timed.

    Args:
        entries: From ``read_entries``.
        model: A loaded model.
        options: Of ``hiresattn.classify_all``.

    Yields:
        One per row, in order; a row that fails has a prediction of status ``error``. A box that can't be cropped is
        predicted to be a false detection, by no score: other views of it decide.
    """
    examples = [replace(entry.example, label=None) for entry in entries if entry.window != UNCROPPED]
    for _ in classify_all(examples[:1], model, on_error="record", **options):
        pass
    found = classify_all(examples, model, on_error="record", **options)
    for entry in entries:
        prediction = _uncropped(entry) if entry.window == UNCROPPED else next(found)
        yield ClassifiedEntry(entry, replace(prediction, label=entry.example.label))


def _uncropped(entry: Entry) -> Record:
    warning = f"box {entry.box_id} can't be cropped: it is too small, lies outside of its image, or has none"
    return Record(
        str(entry.example.source), "no_valid_pixels", class_name=FALSE_DETECTION, warnings=(warning,)
    )


def report(
    given: Iterable[ClassifiedEntry], protocol: str, model: Model, *, of: int, edges: Sequence[int] = EDGES
) -> Report:
    """Compute accuracy and cost by image size.

    Args:
        given: From ``classify_entries``; gone through once.
        protocol: Its name.
        model: The model.
        of: Number of rows of the protocol, also those that weren't classified.
        edges: Upper ends of the buckets: long side of the image, px, rising.

    Returns:
        The report.

    Raises:
        ConfigError: If there is nothing to report on, or the edges don't rise.
    """
    if list(edges) != sorted(set(edges)):
        raise ConfigError(f"the ends of the buckets must rise; got {', '.join(map(str, edges))}")
    rule = PROTOCOLS[protocol]
    groups: dict[int, list[_Outcome]] = defaultdict(list)
    formats: Counter[str] = Counter()
    votes: dict[int, Counter[str]] = {}
    truth: dict[int, str] = {}
    window = ""
    for answer in given:
        entry = answer.entry
        window = window if entry.window == UNCROPPED else entry.window
        groups[_bucket(entry, edges)].append(_outcome(answer))
        formats[Path(str(entry.example.source)).suffix or "none"] += 1
        if rule.letter == "A" and entry.box_id is not None:
            votes.setdefault(entry.box_id, Counter()).update(answer.prediction.scores)
            truth[entry.box_id] = str(entry.example.label)
    everything = [outcome for group in groups.values() for outcome in group]
    if not everything:
        raise ConfigError(f"protocol {protocol}: no rows to report on")
    categories = {box: _winner(found) for box, found in votes.items()}
    return Report(
        protocol=rule.name,
        letter=rule.letter,
        description=rule.description,
        window=window,
        rows=len(everything),
        of=of,
        formats=dict(formats),
        unknown_labels=sum(outcome.label not in model.classes for outcome in everything),
        uncropped=sum(outcome.uncropped for outcome in everything),
        model={"name": model.name, "sha256": model.sha256},
        overall=_summary("all", everything),
        buckets=tuple(_summary(_named(at, edges), groups[at]) for at in sorted(groups)),
        score=challenge_score(categories, truth, protocol) if votes else None,
        categories=categories,
    )


@dataclass(frozen=True, slots=True)
class _Outcome:
    """What is kept of a prediction."""

    label: str | None
    right: bool
    fifth: bool
    cost: Cost | None
    """None = failed, or nothing was to be read."""
    uncropped: bool = False


def _outcome(answer: ClassifiedEntry) -> _Outcome:
    given, found = answer.entry.example.label, answer.prediction
    label = given if isinstance(given, str) else None
    best = sorted(found.scores, key=lambda name: -found.scores[name])[:5]
    if answer.entry.window == UNCROPPED:
        right = found.class_name == label
        return _Outcome(label, right, right, None, uncropped=True)
    cost = None if found.status == "error" else found.cost
    return _Outcome(label, found.class_name == label, label in best, cost)


def _winner(votes: Counter[str]) -> str:
    """The category of the largest sum of probabilities over a box's views; nothing, if all of them failed."""
    best = max(votes, key=lambda name: votes[name], default=FALSE_DETECTION)
    if best not in WEIGHTS:
        raise ConfigError(
            f"the model's class {best!r} is no category of fMoW; protocol A needs a model of those"
        )
    return best


def _bucket(entry: Entry, edges: Sequence[int]) -> int:
    """Which bucket; that of unknown size comes last."""
    size = entry.size
    if size is None:
        try:
            with open_pyramid(entry.example.source) as pyramid:
                size = (pyramid.height, pyramid.width)
        except HiresattnError:
            return len(edges) + 1
    return int(np.searchsorted(edges, max(size)))


def _named(at: int, edges: Sequence[int]) -> str:
    if at > len(edges):
        return "unknown"
    return f"up to {edges[at]} px" if at < len(edges) else f"above {edges[-1]} px" if edges else "all sizes"


def _summary(name: str, given: Sequence[_Outcome]) -> Bucket:
    by_class: dict[str | None, list[bool]] = defaultdict(list)
    for outcome in given:
        by_class[outcome.label].append(outcome.right)
    costs = [outcome.cost for outcome in given if outcome.cost is not None]
    return Bucket(
        name=name,
        rows=len(given),
        failed=len(given) - len(costs) - sum(outcome.uncropped for outcome in given),
        top1=_mean(outcome.right for outcome in given),
        top5=_mean(outcome.fifth for outcome in given),
        macro=_mean(_mean(found) for found in by_class.values()),
        glimpses=_mean(cost.glimpses for cost in costs),
        fraction_read=_mean(cost.fraction_read for cost in costs),
        bytes_read=_mean(cost.bytes_read for cost in costs),
        decode_ms=1000 * _mean(cost.seconds.open + cost.seconds.read for cost in costs),
        model_ms=1000 * _mean(cost.seconds.model for cost in costs),
        total_ms=1000 * _mean(cost.seconds.total for cost in costs),
    )


def _mean(values: Iterable[float]) -> float:
    listed = list(values)
    return sum(listed) / len(listed) if listed else float("nan")
