"""How right teachers and student of a distillation are on the validation images, for choices and for the card."""

from collections import Counter
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from hiresattn.checkpoint import load_model
from hiresattn.datasets.example import Example
from hiresattn.evaluation.run import evaluate
from hiresattn.evaluation.summary import Point
from hiresattn.inference.exhaustive import MOST_FINEST
from hiresattn.training.options import TrainOptions
from hiresattn.training.sizes import Sized, examples_in

#: Budgets, in glimpses, at which the card has the accuracy: those that an image has finest regions for.
BUDGETS = (4, 8, 16, 32, 64)


def exhaustive_accuracy(path: Path, examples: Sequence[Example], options: TrainOptions) -> float:
    """Share of the images that a model classifies rightly by looking at every finest region; 0 without any."""
    if not examples:
        return 0.0
    return float(_exhaustive(path, examples, options).accuracy.value or 0.0)


def _exhaustive(path: Path, examples: Sequence[Example], options: TrainOptions) -> Point:
    """What a model makes of images by looking at every finest region."""
    found = evaluate(
        load_model(path), examples, budgets=(1,), policies=("exhaustive",), budget=1, **_how(options)
    )
    return found.curve[0]


def _how(options: TrainOptions) -> dict[str, Any]:
    """How validation images are looked at: as the training does."""
    return {
        "split": "val", "bootstrap": 0, "device": options.device, "threads": max(options.threads, 1),
        "on_error": options.on_error, "per_source": options.per_source,
    }  # fmt: skip


def tells_labels(path: Path, val: Sequence[Sized], options: TrainOptions) -> bool:
    """Whether a model that was trained on all regions of images does better than chance on validation images.

    By recall, averaged over the classes; by accuracy where one has no image. Without validation images nothing speaks
    against it.
    """
    if not val:
        return True
    found = evaluate(load_model(path), examples_in(val), budget=MOST_FINEST, stop=None, **_how(options))
    labels = Counter(one.examples[0].label for one in val)
    recall = found.metrics["balanced_accuracy"].value
    if recall is not None:
        return recall > 1 / len(labels)
    return (found.metrics["accuracy"].value or 0.0) > max(labels.values()) / len(val)


def teacher_and_student(
    folder: Path,
    teacher: Path,
    accuracy: float | None,
    images: Sequence[Sized],
    options: TrainOptions,
    on_message: Callable[[str], None],
) -> dict[str, Any]:
    """What the card has of teacher and student, on the same validation images, after calibration where they suffice.

    ``accuracy`` is the teacher's, where it is known; else it looks at every finest region of them.
    """
    how, examples, most = _how(options), examples_in(images), max(one.regions for one in images)
    budgets = [budget for budget in BUDGETS if budget <= most] or BUDGETS[:1]
    if (why := evaluate(str(folder), examples, calibrate=True, **how).calibration_error) is not None:
        on_message(f"The model is {why}")
    found = evaluate(str(folder), examples, budgets=budgets, policies=("best-first",), **how)
    everywhere = {"accuracy": accuracy}
    if accuracy is None:
        everywhere = _measured(_exhaustive(teacher, examples, options))
    return {
        "images": found.classified,
        "teacher": {"model": str(teacher.relative_to(folder)), **everywhere},
        "student": _measured(found.main),
        "by_budget": [
            {"budget": int(point.budget or 0), "accuracy": point.accuracy.value, "glimpses": point.glimpses}
            for point in found.curve
        ],
    }


def _measured(point: Point) -> dict[str, float | None]:
    """What a point of a curve says in a card."""
    return {
        "accuracy": point.accuracy.value,
        "glimpses": point.glimpses,
        "fraction_read": point.fraction_read,
    }
