"""The report of an evaluation: metrics with intervals, by policy and budget."""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

import numpy as np

from hiresattn.checkpoint import Model
from hiresattn.evaluation.belief import Belief, belief
from hiresattn.evaluation.intervals import LEAST_CASES, group_numbers, mean_of, spread_of, too_few
from hiresattn.evaluation.metrics import (
    BINS,
    LEVEL,
    TOP,
    Measured,
    confusion,
    is_correct,
    measure,
    reliability,
    resampled,
)
from hiresattn.evaluation.outcomes import Outcome, Pass
from hiresattn.inference.options import ClassifyOptions

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
    "aurc",
)
PER_CLASS = ("recall", "precision", "f1", "class_auroc", "class_auprc")
#: The same of models that predict several labels.
OVERALL_LABELS = ("exact_match", "micro_f1", "macro_f1", "auroc", "auprc", "ece", "brier", "nll", "aurc")
PER_LABEL = (*PER_CLASS, "class_ece", "class_brier")
_ALIKE = "no interval: all resamples are alike"
_NONE = "no case was classified"


@dataclass(frozen=True)
class Point:
    """A policy at a budget."""

    policy: str
    budget: str | None
    images: int
    """Cases that were classified."""
    failed: int
    accuracy: Measured
    """Share of correct predictions; of several labels, correct in all of them."""
    glimpses: float | None
    fraction_read: float | None
    seconds: float | None
    """Median wall time of a case."""
    hit: Measured
    boxed: int
    """Cases whose boxes are known."""


@dataclass(frozen=True)
class Evaluation:
    """The report."""

    model: dict[str, Any]
    classes: tuple[str, ...]
    multi_label: bool
    split: str
    images: int
    """Cases; an image that is of none is one."""
    classified: int
    """Cases that the metrics are of."""
    failed: int
    empty: int
    """Cases without valid pixels, or without foreground."""
    failures: tuple[dict[str, Any], ...]
    cases: int
    """Groups that the intervals resample, of what was classified: a case each, where no groups are named."""
    resamples: int
    level: float
    accuracy_of_all: float
    """Correct predictions over all cases: one that was not classified counts as wrong."""
    metrics: dict[str, Measured]
    per_class: dict[str, dict[str, Any]]
    confusion: tuple[tuple[int, ...], ...]
    """Rows: the label; columns: the predicted class. Empty where images have several labels."""
    reliability: tuple[dict[str, float], ...]
    main: Point
    belief: Belief
    curve: tuple[Point, ...] = ()
    left_out: dict[str, str] = field(default_factory=dict)
    """Policies that were not run, and why."""
    top_k: int = TOP
    bins: int = BINS
    sources: int = 0
    """Images of the cases."""
    trained_on: int = 0
    """Images that the model was trained on: what it says of these it may remember."""
    manifest: str = ""
    """Its path; empty = examples were given."""
    budget: str = ""
    """What one image may cost, of the pass that the metrics are of."""
    stop: float | None = None
    """Probability at which its searches stop; None = they spend the budget."""
    seed: int = 0
    scorer: str = ""
    """What scored the cells: the model's scorer, or ``random``."""
    calibration: Mapping[str, Any] | None = None
    """The fitted ``temperature``, and metrics ``before`` and ``after``, see ``calibration.calibrated``; the prediction
    sets (``conformal``), and whether rows of split val that may have chosen the epoch are among the cases
    (``chose_epoch``)."""
    calibration_error: str | None = None
    """Why there is no calibration, where one was asked for."""

    def to_json(self) -> dict[str, Any]:
        """The report as JSON types."""
        return asdict(self)


def summarize(
    main: tuple[Pass, Sequence[Outcome]],
    curve: Sequence[tuple[Pass, Sequence[Outcome]]],
    model: Model,
    split: str,
    *,
    options: ClassifyOptions | None = None,
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
        options: How the images were classified; None = the defaults. Policy, budget and stop are those of ``main``.
        resamples: Draws of the bootstrap; 0 = no intervals.
        seed: Of the draws.
        left_out: From ``passes``.

    Returns:
        The report. What is not defined is None, with the reason.
    """
    run, given = main
    options = run.options(options or ClassifyOptions())
    known = [outcome for outcome in given if outcome.scores is not None]
    failures = tuple(
        {"source": o.source, "region": o.region, "error": o.error} for o in given if o.error is not None
    )
    several = model.config.multi_label
    truth = np.array([outcome.truth for outcome in known], bool if several else np.int64)
    scores = np.array([outcome.scores for outcome in known], np.float64).reshape(-1, len(model.classes))
    labels = truth.reshape(scores.shape) if several else np.eye(len(model.classes), dtype=bool)[truth]
    values, spans, cases = _measured(known, truth, scores, resamples, seed)
    correct = int(is_correct(truth, scores).sum()) if known else 0
    point = _point(run, given, resamples, seed)
    metrics = {
        name: _one(values, spans, name, _about(name, labels, model, cases, resamples))
        for name in (OVERALL_LABELS if several else OVERALL)
    }
    metrics["exact_match" if several else "accuracy"] = point.accuracy
    return Evaluation(
        model={"name": model.name, "sha256": model.sha256, "temperature": model.temperature},
        classes=model.classes,
        multi_label=several,
        split=split,
        images=len(given),
        classified=len(known),
        failed=len(failures),
        empty=len(given) - len(known) - len(failures),
        failures=failures,
        cases=cases,
        resamples=resamples,
        level=LEVEL,
        accuracy_of_all=correct / len(given),
        metrics=metrics,
        per_class={
            name: {"images": int(labels[:, index].sum())}
            | {
                metric.removeprefix("class_"): _one(
                    values, spans, metric, _why(metric, labels[:, index]), index
                )
                for metric in (PER_LABEL if several else PER_CLASS)
            }
            for index, name in enumerate(model.classes)
        },
        confusion=() if several else tuple(map(tuple, confusion(truth, scores).tolist())),
        reliability=tuple(reliability(truth, scores)) if known else (),
        main=point,
        belief=belief(given, model, options, resamples=resamples, seed=seed),
        curve=tuple(_point(run, found, resamples, seed) for run, found in curve),
        left_out=left_out or {},
        sources=sum(outcome.images for outcome in given),
        top_k=min(TOP, len(model.classes)),
        budget=run.budget or "",
        stop=run.stop,
        seed=seed,
        scorer=model.config.scorer,
    )


Spans = dict[str, list[np.ndarray]]


def _measured(
    known: Sequence[Outcome], truth: np.ndarray, scores: np.ndarray, resamples: int, seed: int
) -> tuple[dict[str, np.ndarray], dict[str, np.ndarray], int]:
    """The metrics, their resampled values, and the number of cases."""
    if not known:
        return {}, {}, 0
    values = measure(truth, scores, np.ones((1, len(known))))
    groups = group_numbers(known)
    cases = int(groups.max()) + 1
    blocks: Spans = {name: [] for name in values}
    if cases >= LEAST_CASES:
        for weights in resampled(groups, resamples, seed):
            for name, drawn in measure(truth, scores, weights).items():
                blocks[name].append(drawn)
    return values, {name: np.concatenate(drawn) for name, drawn in blocks.items() if drawn}, cases


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
    if drawn is None:
        return Measured(value, reason=reason or None)
    if (found := spread_of(drawn if index is None else drawn[:, index])) is None:
        return Measured(value, reason=reason or _ALIKE)
    return Measured(value, *found, reason or None)


def _about(name: str, labels: np.ndarray, model: Model, cases: int, resamples: int) -> str:
    """Note on a metric that is a mean over classes: the classes that it leaves out. ``labels [n c]`` are one-hot."""
    alike = [label for index, label in enumerate(model.classes) if len(np.unique(labels[:, index])) < 2]
    absent = [label for index, label in enumerate(model.classes) if not labels[:, index].any()]
    if model.config.multi_label:
        if alike and name in ("auroc", "auprc"):
            return f"without the labels that all cases of the split or none have: {', '.join(alike)}"
    elif name in ("auroc", "auprc") and len(labels) and labels.all(0).any():
        return f"all cases are of class {model.classes[int(labels[0].argmax())]}"
    elif absent and name in ("balanced_accuracy", "auroc", "auprc"):
        return f"without the classes that the split has no cases of: {', '.join(absent)}"
    return too_few(cases, len(labels)) if resamples else ""


def _why(metric: str, mine: np.ndarray) -> str:
    """Why a metric of a class may not be defined; empty if it is. ``mine [n]`` are its images."""
    if metric in ("precision", "class_ece", "class_brier"):
        return ""
    if not mine.any() and metric != "f1":
        return "no cases of this class"
    if mine.all() and metric.startswith("class_"):
        return "no cases without it"
    return ""


def _point(run: Pass, given: Sequence[Outcome], resamples: int, seed: int) -> Point:
    known = [outcome for outcome in given if outcome.scores is not None]
    boxed = [outcome for outcome in given if outcome.hit is not None]
    correct = [float(is_correct(np.array([o.truth]), np.array([o.scores]))[0]) for o in known]
    return Point(
        policy=run.policy,
        budget=run.budget,
        images=len(known),
        failed=sum(outcome.error is not None for outcome in given),
        accuracy=mean_of(known, correct, resamples, seed, share=True),
        glimpses=float(np.mean([o.glimpses for o in known])) if known else None,
        fraction_read=float(np.mean([o.fraction_read for o in known])) if known else None,
        seconds=float(np.median([o.seconds for o in known])) if known else None,
        hit=mean_of(
            boxed, [float(o.hit or 0) for o in boxed], resamples, seed, "no boxes are known", share=True
        ),
        boxed=len(boxed),
    )
