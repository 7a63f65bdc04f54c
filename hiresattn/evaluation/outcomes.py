"""What a model predicts for labelled images, in one or more passes."""

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from hiresattn.checkpoint import Model
from hiresattn.datasets.cases import Case, examples_of
from hiresattn.datasets.example import Example, Label
from hiresattn.datasets.scales import opened
from hiresattn.errors import ConfigError, HiresattnError
from hiresattn.geometry import expandable
from hiresattn.inference.classify import classify_all
from hiresattn.inference.cover import finest_count
from hiresattn.inference.exhaustive import MOST_FINEST
from hiresattn.inference.options import ClassifyOptions
from hiresattn.inference.record import LIKELY, Record, VisitedRegion
from hiresattn.inference.sources import known_labels
from hiresattn.model.reference import source_id
from hiresattn.option_types import changed, did_you_mean
from hiresattn.pyramid.rescaled import window_of

#: What classifies: cases, model and options to records, in order.
Classify = Callable[[Sequence[Any], Model, ClassifyOptions], Iterator[Record]]

#: Policies of the curve; ``best-first`` is the learned one.
CURVE = ("best-first", "random", "lowres", "exhaustive")


@dataclass(frozen=True)
class Pass:
    """One pass over the images."""

    policy: str
    budget: str | None
    """What one image may cost; None where the policy takes no budget."""
    stop: float | None = None
    goes_on: bool = False
    """Whether images of which the model isn't sure may cost more, as the options say."""

    def options(self, given: ClassifyOptions) -> ClassifyOptions:
        """How the images of this pass are classified, by how they are otherwise."""
        nms = 1.0 if self.policy == "lowres" else given.nms  # which chooses none
        found = replace(given, policy=self.policy, budget=self.budget or 1, stop=self.stop, nms=nms)
        return found if self.goes_on else replace(found, until_confidence=None, max_budget=None)


@dataclass(frozen=True, slots=True)
class Outcome:
    """What is kept of the prediction for one case."""

    group: str
    """What is resampled as one: its group, its case, or the image itself."""
    truth: int | tuple[int, ...]
    """Index of the class; where images have several labels, 1 for each that is there and 0 for the others."""
    scores: tuple[float, ...] | None
    """Probability of each class; None = there is no prediction."""
    error: str | None
    source: str
    region: tuple[int, int, int, int] | None
    glimpses: int
    fraction_read: float
    seconds: float
    hit: bool | None
    """Whether a finest glimpse held the centre of a box; None where boxes, or their position, are not known."""
    case: str | None = None
    """The case, where one was named."""
    images: int = 1
    """Of the case."""
    prediction_set: tuple[int, ...] | None = None
    """Indices of the classes that may be right."""
    needs_review: bool | None = None
    review_reasons: tuple[str, ...] = ()
    out_of_domain: bool | None = None
    domain_distance: float | None = None
    sufficient: int | None = None
    """Glimpses that carry the answer."""
    sufficiency: float | None = None
    comprehensiveness: float | None = None
    """What the answer's probability loses without them; None where there are no others."""

    @property
    def predicted(self) -> tuple[int, ...] | None:
        """Indices of the class, or of all labels, that were predicted; None = there is no prediction."""
        if self.scores is None:
            return None
        if isinstance(self.truth, tuple):
            return tuple(index for index, score in enumerate(self.scores) if score >= LIKELY)
        return (self.scores.index(max(self.scores)),)


def passes(
    examples: Sequence[Example], model: Model, budgets: Sequence[int], policies: Sequence[str] = CURVE
) -> tuple[list[Pass], dict[str, str]]:
    """The passes of a curve: each policy at each budget; lowres and exhaustive once.

    Args:
        examples: What is evaluated.
        model: By which model.
        budgets: Glimpses.
        policies: Of ``CURVE``.

    Returns:
        The passes, all without a stop rule; and the policies left out, with the reason: exhaustive, where an image
        has too many finest regions.

    Raises:
        ConfigError: If a policy is unknown.
    """
    for policy in policies:
        if policy not in CURVE:
            raise ConfigError(f"unknown policy {policy!r}{did_you_mean(policy, CURVE)}")
    found: list[Pass] = []
    left_out: dict[str, str] = {}
    for policy in policies:
        if policy in ("best-first", "random"):
            found += [Pass(policy, str(budget)) for budget in budgets]
        elif policy == "exhaustive" and (reason := _too_many(examples, model)):
            left_out[policy] = reason
        else:
            found.append(Pass(policy, None))
    return found, left_out


def outcomes(
    examples: Sequence[Example | Case],
    model: Model,
    run: Pass,
    options: ClassifyOptions | None = None,
    *,
    classify: Classify = classify_all,
    **changes: Any,
) -> Iterator[tuple[Outcome, Record]]:
    """Classify labelled cases in one pass.

    Args:
        examples: From ``checked``: cases, and images for themselves.
        model: A loaded model.
        run: Policy, budget and stop rule.
        options: How to classify; None = the defaults, and images that can't be classified are counted.
        classify: What classifies them: cases, model and options to records in order.
        changes: Fields of ``options`` to set.

    Yields:
        One per case, in order: what is kept, and the prediction.
    """
    chosen = changed(options or ClassifyOptions(on_error="record"), changes, ClassifyOptions)
    found = classify(examples, model, run.options(chosen))
    for example, prediction in zip(examples, found, strict=True):
        yield _outcome(example, prediction, model), prediction


def checked(examples: Iterable[Example], model: Model, split: str) -> list[Example]:
    """The examples of a split, or of ``all``, each with a label that the model knows, or with labels.

    Raises:
        ConfigError: If there are none, or one has no label, or not one of the model's classes.
    """
    listed = list(examples)
    found = [example for example in listed if split in (example.split, "all")]
    if not found:
        there = ", ".join(sorted({example.split for example in listed}))
        raise ConfigError(f"no rows of split {split!r}; there is {there}: name one as split")
    for example in found:
        names = known_labels(example.label, model)
        if names is None:
            raise ConfigError(
                f"{example.source}: no label; an evaluation needs the class of every row of split {split!r}"
            )
        for name in names:
            if name not in model.classes:
                raise ConfigError(
                    f"{example.source}: label {name!r} is none of the model's classes"
                    f"{did_you_mean(name, model.classes)}; mend the manifest"
                )
    return found


def trained_on(examples: Sequence[Example], model: Model) -> int:
    """How many of these images the model was trained on, as far as it knows."""
    if model.reference is None:
        return 0
    known = set(model.reference.trained.tolist())
    return sum(source_id(example.source, example.region) in known for example in examples)


def _too_many(examples: Sequence[Example], model: Model) -> str:
    """Why not every finest region of these images can be visited; empty if it can."""
    for example in examples:
        if model.config.input.squash is not None:
            return ""
        try:
            with opened(example, model.config.input.mpp) as image:
                frame = window_of(image, example.region)
        except HiresattnError:
            continue  # an error of its classification
        count = finest_count(*frame[2:], model.config.finest_side, model.config.overlap)
        if count > MOST_FINEST:
            return f"{example.source} has {count:,} finest regions, and at most {MOST_FINEST:,} of an image are visited"
    return ""


def _outcome(item: Example | Case, found: Record, model: Model) -> Outcome:
    examples = examples_of(item)
    source = examples[0].source  # an array's text would be that of others, too
    own = str(source) if isinstance(source, str | Path) else f"{found.source} {id(source)}"
    return Outcome(
        group=examples[0].group or examples[0].case or own,
        truth=_truth(item.label, model),
        scores=tuple(found.scores[name] for name in model.classes) if found.status == "ok" else None,
        error=found.error if found.status == "error" else None,
        source=found.source,
        region=found.region,
        glimpses=found.cost.glimpses,
        fraction_read=found.cost.fraction_read,
        seconds=found.cost.seconds.total,
        hit=_hit(examples, found, model),
        case=examples[0].case,
        images=len(examples),
        prediction_set=None
        if found.prediction_set is None
        else tuple(model.classes.index(name) for name in found.prediction_set),
        needs_review=found.needs_review,
        review_reasons=found.review_reasons,
        out_of_domain=found.out_of_domain,
        domain_distance=found.domain_distance,
        sufficient=None if found.sufficient is None else len(found.sufficient),
        sufficiency=found.sufficiency,
        comprehensiveness=None
        if found.score is None or found.score_without is None
        else found.score - found.score_without,
    )


def _truth(label: Label | None, model: Model) -> int | tuple[int, ...]:
    names = known_labels(label, model) or ()
    if model.config.multi_label:
        return tuple(int(name in names) for name in model.classes)
    return model.classes.index(names[0])


def _hit(examples: Sequence[Example], found: Record, model: Model) -> bool | None:
    """Whether a finest glimpse held the centre of a box; None where no box is known, or its position."""
    if found.status == "error" or model.config.input.squash is not None:
        return None
    held = [
        _held(boxes, [r for r in found.regions if r.source == number], found.sources[number].mpp, model)
        for number, example in enumerate(examples)
        if (boxes := _targets(example, model))
    ]
    return any(held) if held else None


def _targets(example: Example, model: Model) -> list[tuple[int, int, int, int]]:
    """An image's boxes, but those of the background class."""
    classes = example.box_labels or (None,) * len(example.boxes or ())
    return [
        box
        for box, name in zip(example.boxes or (), classes, strict=True)
        if name is None or name != model.config.background
    ]


def _held(
    boxes: Sequence[tuple[int, int, int, int]],
    regions: Sequence[VisitedRegion],
    mpp: float | None,
    model: Model,
) -> bool:
    finest = np.array([(r.y, r.x, r.height, r.width) for r in regions], np.int64).reshape(-1, 4)
    side, at = model.config.finest_side, model.config.input.mpp
    if at is not None and mpp is not None:  # as in level-0 px
        side = max(round(side * at / mpp), 1)
    finest = finest[~expandable(finest, side)]
    centre = np.array([(2 * y + h, 2 * x + w) for y, x, h, w in boxes])[:, None] / 2
    inside = (finest[:, :2] <= centre) & (centre < finest[:, :2] + finest[:, 2:])
    return bool(inside.all(2).any())
