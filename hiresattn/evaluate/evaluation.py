"""A model's answers on labelled images, by policy and budget, and the report of them."""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

import numpy as np

from hiresattn.checkpoint import Model
from hiresattn.config import did_you_mean
from hiresattn.errors import ConfigError, HiresattnError
from hiresattn.evaluate.metrics import (
    BINS,
    LEVEL,
    TOP,
    Measured,
    confusion,
    interval,
    measure,
    reliability,
    resampled,
)
from hiresattn.geometry import expandable
from hiresattn.manifest import Example
from hiresattn.predict import classify
from hiresattn.pyramid import open_pyramid
from hiresattn.report.record import Prediction
from hiresattn.search import MOST_PLACES, place_count

#: Policies of the curve; ``best-first`` is the learned one.
CURVE = ("best-first", "random", "lowres", "exhaustive")
OVERALL = (
    "accuracy",
    "balanced_accuracy",
    "macro_f1",
    "auroc",
    "auprc",
    "top_k",
    "ece",
    "brier",
    "nll",
)
PER_CLASS = ("recall", "precision", "f1", "class_auroc", "class_auprc")
_NOT_ONE_CASE = "one case: there is nothing to resample"
_NONE = "no image has an answer"


@dataclass(frozen=True)
class Run:
    """One pass over the images."""

    policy: str
    budget: str | None
    """What one image may cost; None where the policy takes no budget."""
    stop: float | None = None


@dataclass(frozen=True, slots=True)
class Outcome:
    """What is kept of an answer."""

    case: str
    truth: int
    scores: tuple[float, ...] | None
    """Probabilities; None = there is no answer."""
    error: str | None
    source: str
    region: tuple[int, int, int, int] | None
    glimpses: int
    fraction_read: float
    seconds: float
    hit: bool | None
    """Whether a finest look held the centre of a box; None where boxes, or a frame for them, are not known."""


@dataclass(frozen=True)
class Point:
    """A policy at a budget."""

    policy: str
    budget: str | None
    images: int
    failed: int
    accuracy: Measured
    glimpses: float | None
    fraction_read: float | None
    seconds: float | None
    """Median wall time of an image."""
    hit: Measured
    boxed: int
    """Images whose boxes are known."""


@dataclass(frozen=True)
class Evaluation:
    """The report."""

    model: dict[str, Any]
    classes: tuple[str, ...]
    split: str
    images: int
    answered: int
    failed: int
    no_valid_pixels: int
    failures: tuple[dict[str, Any], ...]
    cases: int
    resamples: int
    level: float
    accuracy_of_all: float
    """Right answers over all images: one without an answer counts as wrong."""
    metrics: dict[str, Measured]
    per_class: dict[str, dict[str, Any]]
    confusion: tuple[tuple[int, ...], ...]
    """Rows: the label; columns: the answer."""
    reliability: tuple[dict[str, float], ...]
    main: Point
    curve: tuple[Point, ...] = ()
    left_out: dict[str, str] = field(default_factory=dict)
    """Policies that were not run, and why."""
    top_k: int = TOP
    bins: int = BINS

    def to_json(self) -> dict[str, Any]:
        """The report as JSON types."""
        return asdict(self)


def runs(
    examples: Sequence[Example], model: Model, budgets: Sequence[int], policies: Sequence[str] = CURVE
) -> tuple[list[Run], dict[str, str]]:
    """The passes of a curve: each policy at each budget; lowres and exhaustive once.

    Args:
        examples: What is evaluated.
        model: By which model.
        budgets: Glimpses.
        policies: Of ``CURVE``.

    Returns:
        The passes, all without a stop rule; and the policies left out, with the reason: exhaustive, where an image
        has too many places.

    Raises:
        ConfigError: If a policy is unknown.
    """
    for policy in policies:
        if policy not in CURVE:
            raise ConfigError(f"unknown policy {policy!r}{did_you_mean(policy, CURVE)}")
    found: list[Run] = []
    left_out: dict[str, str] = {}
    for policy in policies:
        if policy in ("best-first", "random"):
            found += [Run(policy, str(budget)) for budget in budgets]
        elif policy == "exhaustive" and (reason := _too_many(examples, model)):
            left_out[policy] = reason
        else:
            found.append(Run(policy, None))
    return found, left_out


def outcomes(
    examples: Sequence[Example], model: Model, run: Run, *, on_error: str = "record", **settings: Any
) -> Iterator[tuple[Outcome, Prediction]]:
    """Classify labelled images in one pass.

    Args:
        examples: From ``checked``.
        model: A loaded model.
        run: Policy, budget and stop rule.
        on_error: ``record``: an image that can't be classified is counted; ``raise``: it ends the evaluation.
        settings: Further options of ``hiresattn.classify``.

    Yields:
        One per image, in order: what is kept, and the prediction.
    """
    found = classify(
        examples,
        model,
        policy=run.policy,
        budget=run.budget or 1,
        stop=run.stop,
        on_error=on_error,
        **settings,
    )
    for example, prediction in zip(examples, found, strict=True):
        yield _outcome(example, prediction, model), prediction


def checked(examples: Iterable[Example], model: Model, split: str) -> list[Example]:
    """The examples of a split, each with a label that the model knows.

    Raises:
        ConfigError: If there are none, or one has no label, or not one of the model's classes.
    """
    listed = list(examples)
    found = [example for example in listed if example.split == split]
    if not found:
        there = ", ".join(sorted({example.split for example in listed}))
        raise ConfigError(f"no rows of split {split!r}; there is {there}: name one with --split")
    for example in found:
        if example.label is None:
            raise ConfigError(
                f"{example.source}: no label; an evaluation needs the class of every row of split {split!r}"
            )
        if example.label not in model.classes:
            raise ConfigError(
                f"{example.source}: label {example.label!r} is none of the model's classes "
                f"({', '.join(model.classes)}){did_you_mean(example.label, model.classes)}; mend the manifest"
            )
    return found


def report(
    main: tuple[Run, Sequence[Outcome]],
    curve: Sequence[tuple[Run, Sequence[Outcome]]],
    model: Model,
    split: str,
    *,
    resamples: int = 1000,
    seed: int = 0,
    left_out: dict[str, str] | None = None,
) -> Evaluation:
    """Sum up.

    Args:
        main: The pass that the metrics are of.
        curve: Further passes.
        model: The model.
        split: Its name.
        resamples: Draws of the bootstrap; 0 = no intervals.
        seed: Of the draws.
        left_out: From ``runs``.

    Returns:
        The report. What is not defined is None, with the reason.
    """
    run, given = main
    known = [outcome for outcome in given if outcome.scores is not None]
    failures = tuple(
        {"source": o.source, "region": o.region, "error": o.error} for o in given if o.error is not None
    )
    truth = np.array([outcome.truth for outcome in known], np.int64)
    scores = np.array([outcome.scores for outcome in known], np.float64).reshape(-1, len(model.classes))
    values, spans, cases = _measured(known, truth, scores, resamples, seed)
    right = int((scores.argmax(1) == truth).sum()) if known else 0
    return Evaluation(
        model={"name": model.name, "sha256": model.sha256, "temperature": model.temperature},
        classes=model.classes,
        split=split,
        images=len(given),
        answered=len(known),
        failed=len(failures),
        no_valid_pixels=len(given) - len(known) - len(failures),
        failures=failures,
        cases=cases,
        resamples=resamples,
        level=LEVEL,
        accuracy_of_all=right / len(given),
        metrics={name: _one(values, spans, name, _about(name, truth, model, cases)) for name in OVERALL},
        per_class={
            name: {"images": int((truth == index).sum())}
            | {
                metric.removeprefix("class_"): _one(values, spans, metric, _why(metric, truth, index), index)
                for metric in PER_CLASS
            }
            for index, name in enumerate(model.classes)
        },
        confusion=tuple(map(tuple, confusion(truth, scores).tolist())),
        reliability=tuple(reliability(truth, scores)),
        main=_point(run, given, resamples, seed),
        curve=tuple(_point(run, found, resamples, seed) for run, found in curve),
        left_out=left_out or {},
        top_k=min(TOP, len(model.classes)),
    )


def _too_many(examples: Sequence[Example], model: Model) -> str:
    """Why these images can't be looked at exhaustively; empty if they can."""
    for example in examples:
        if model.config.input.squash is not None:
            return ""
        try:
            if (frame := example.region) is None:
                pyramid = open_pyramid(example.source)
                frame = (0, 0, pyramid.height, pyramid.width)
                if pyramid is not example.source:
                    pyramid.close()
        except HiresattnError:
            continue  # said when it is classified
        count = place_count(*frame[2:], model.config.finest_side, model.config.overlap)
        if count > MOST_PLACES:
            return f"{example.source} has {count:,} places, and at most {MOST_PLACES:,} of an image are looked at"
    return ""


def _outcome(example: Example, found: Prediction, model: Model) -> Outcome:
    return Outcome(
        case=str(example.source) if example.group is None else example.group,
        truth=model.classes.index(str(example.label)),
        scores=tuple(found.scores[name] for name in model.classes) if found.status == "ok" else None,
        error=found.error if found.status == "error" else None,
        source=found.source,
        region=found.region,
        glimpses=found.cost.glimpses,
        fraction_read=found.cost.fraction_read,
        seconds=found.cost.seconds.total,
        hit=_hit(example, found, model),
    )


def _hit(example: Example, found: Prediction, model: Model) -> bool | None:
    """Whether a look at the finest scale held the centre of a box."""
    if not example.boxes or found.status == "error" or model.config.input.squash is not None:
        return None
    looks = np.array([(r.y, r.x, r.height, r.width) for r in found.regions], np.int64).reshape(-1, 4)
    looks = looks[~expandable(looks, model.config.finest_side)]
    centre = np.array([(2 * y + h, 2 * x + w) for y, x, h, w in example.boxes])[:, None] / 2
    inside = (looks[:, :2] <= centre) & (centre < looks[:, :2] + looks[:, 2:])
    return bool(inside.all(2).any())


Spans = dict[str, list[np.ndarray]]


def _measured(
    known: Sequence[Outcome], truth: np.ndarray, scores: np.ndarray, resamples: int, seed: int
) -> tuple[dict[str, np.ndarray], dict[str, np.ndarray], int]:
    """The metrics, their resampled values, and the number of cases."""
    if not known:
        return {}, {}, 0
    values = measure(truth, scores, np.ones((1, len(known))))
    groups = _cases(known)
    cases = int(groups.max()) + 1
    blocks: Spans = {name: [] for name in values}
    if cases > 1:
        for weights in resampled(groups, resamples, seed):
            for name, drawn in measure(truth, scores, weights).items():
                blocks[name].append(drawn)
    return values, {name: np.concatenate(drawn) for name, drawn in blocks.items() if drawn}, cases


def _cases(known: Sequence[Outcome]) -> np.ndarray:
    return np.unique([outcome.case for outcome in known], return_inverse=True)[1]


def _one(
    values: dict[str, np.ndarray],
    spans: dict[str, np.ndarray],
    name: str,
    reason: str,
    index: int | None = None,
) -> Measured:
    """One metric; of one class where that has an index."""
    if name not in values:
        return Measured(None, reason=_NONE)
    at = (0,) if index is None else (0, index)
    value = float(values[name][at])
    if not np.isfinite(value):
        return Measured(None, reason=reason or "not defined")
    drawn = spans.get(name)
    low, high = (drawn is not None and interval(drawn if index is None else drawn[:, index])) or (None, None)
    return Measured(value, low, high, reason or None)


def _about(name: str, truth: np.ndarray, model: Model, cases: int) -> str:
    """What is to be known of a metric over classes: those that it can't be of."""
    absent = [label for index, label in enumerate(model.classes) if not (truth == index).any()]
    if name in ("auroc", "auprc") and len(set(truth.tolist())) == 1:
        return f"all images are of class {model.classes[int(truth[0])]}"
    if absent and name in ("balanced_accuracy", "auroc", "auprc"):
        return f"without the classes that the split has no images of: {', '.join(absent)}"
    return _NOT_ONE_CASE if cases == 1 else ""


def _why(metric: str, truth: np.ndarray, index: int) -> str:
    """Why a metric of a class may not be defined; empty if it is."""
    mine = truth == index
    if metric == "precision":
        return ""
    if not mine.any() and metric != "f1":
        return "no images of this class"
    if mine.all() and metric.startswith("class_"):
        return "no images of another class"
    return ""


def _point(run: Run, given: Sequence[Outcome], resamples: int, seed: int) -> Point:
    known = [outcome for outcome in given if outcome.scores is not None]
    boxed = [outcome for outcome in given if outcome.hit is not None]
    right = [float(np.argmax(o.scores or ()) == o.truth) for o in known]
    return Point(
        policy=run.policy,
        budget=run.budget,
        images=len(known),
        failed=sum(outcome.error is not None for outcome in given),
        accuracy=_share(known, right, resamples, seed, _NONE),
        glimpses=float(np.mean([o.glimpses for o in known])) if known else None,
        fraction_read=float(np.mean([o.fraction_read for o in known])) if known else None,
        seconds=float(np.median([o.seconds for o in known])) if known else None,
        hit=_share(boxed, [float(o.hit or 0) for o in boxed], resamples, seed, "no boxes are known"),
        boxed=len(boxed),
    )


def _share(
    given: Sequence[Outcome], yes: Sequence[float], resamples: int, seed: int, reason: str
) -> Measured:
    """A mean with its interval."""
    if not given:
        return Measured(None, reason=reason)
    groups = _cases(given)
    value = float(np.mean(yes))
    if groups.max() == 0 or not resamples:
        return Measured(value, reason=_NOT_ONE_CASE if resamples else None)
    drawn = np.concatenate([w @ np.array(yes) / w.sum(1) for w in resampled(groups, resamples, seed)])
    low, high = interval(drawn) or (None, None)
    return Measured(value, low, high)
