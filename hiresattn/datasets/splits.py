"""Splits that are drawn: by case, class by class, the same ones for the same seed."""

import hashlib
from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from hiresattn.datasets.example import Example, classes_in
from hiresattn.errors import ConfigError


def drawn_splits(cases: Sequence[tuple[str, str]], val: float, test: float, seed: int) -> list[str]:
    """Draw splits, class by class, by a hash of seed and name.

    Args:
        cases: Name and class of each.
        val: Share of each class that validates, 0 to below 1; above 0 at least one case, where the class has two.
        test: Share that is kept for testing; above 0 at least one case, where the class has another one left.
        seed: Of the draw.

    Returns:
        ``train``, ``val`` or ``test`` for each; every class has a case of ``train``.
    """
    splits = ["train"] * len(cases)
    for numbers in _by_class(cases, seed):
        count = len(numbers)
        validating = _share(val, count)
        testing = _share(test, count - validating, count)
        for at, number in enumerate(numbers[: validating + testing]):
            splits[number] = "val" if at < validating else "test"
    return splits


def drawn_folds(cases: Sequence[tuple[str, str]], count: int, seed: int) -> list[int]:
    """Draw the folds of a cross-validation, class by class, by a hash of seed and name.

    Args:
        cases: Name and class of each.
        count: Folds.
        seed: Of the draw.

    Returns:
        The fold of each, from 0. Their sizes differ by one at most, and so do the numbers of each class in them.
    """
    folds = [0] * len(cases)
    for at, number in enumerate(number for numbers in _by_class(cases, seed) for number in numbers):
        folds[number] = at % count
    return folds


def _by_class(cases: Sequence[tuple[str, str]], seed: int) -> list[list[int]]:
    """Numbers of the cases of each class, in an order that seed and names decide."""
    classes: dict[str, list[tuple[bytes, int]]] = defaultdict(list)
    for number, (name, label) in enumerate(cases):
        rank = hashlib.sha256(f"{seed}|{name}".encode("utf-8", "surrogateescape")).digest()
        classes[label].append((rank, number))
    return [[number for _, number in sorted(ranked)] for _, ranked in sorted(classes.items())]


def _share(share: float, left: int, count: int | None = None) -> int:
    """How many of so many cases a share is; one stays."""
    wanted = max(round(share * (left if count is None else count)), 1) if share else 0
    return max(min(wanted, left - 1), 0)


def rarest_labels(groups: Mapping[str, Sequence[Example]]) -> dict[str, str]:
    """The rarest class in each group, by which it is drawn; empty for a group without a class."""
    shown = {
        name: {label for one in members for label in classes_in(one)} for name, members in groups.items()
    }
    count = Counter(label for labels in shown.values() for label in labels)
    return {
        name: min(labels, key=lambda one: (count[one], one), default="") for name, labels in shown.items()
    }


def with_validation(examples: Sequence[Example], share: float, seed: int) -> list[Example]:
    """Examples of which a share of the split ``train`` validates, where none does yet.

    A case, a group and an image is in one of the two. Drawn class by class.

    Raises:
        ConfigError: If they all belong together.
    """
    if not share or any(example.split == "val" for example in examples):
        return list(examples)
    found = list(examples)
    parts = _inseparable({number: one for number, one in enumerate(examples) if one.split == "train"})
    if len(parts) < 2:
        raise ConfigError(
            f"val_fraction={share:g} splits by case, group and image, and the rows to train on are all of one; give a "
            "column split"
        )
    rarest = rarest_labels({str(at): [examples[number] for number in part] for at, part in enumerate(parts)})
    named = [(_name(examples[part[0]]), label) for part, label in zip(parts, rarest.values(), strict=True)]
    for part, split in zip(parts, drawn_splits(named, share, 0.0, seed), strict=True):
        for number in part:
            found[number] = replace(found[number], split=split)
    return found


def _inseparable(examples: Mapping[int, Example]) -> list[list[int]]:
    """Numbers of the examples that have a case, a group or an image in common, each with others of the first."""
    parent: dict[Any, Any] = {}

    def top(key: Any) -> Any:
        while parent.setdefault(key, key) != key:
            key = parent[key]
        return key

    for number, one in examples.items():
        image = str(one.source) if isinstance(one.source, str | Path) else id(one.source)
        own = [("image", image), ("case", one.case), ("group", one.group)]
        for key in own:
            if key[1] is not None:
                parent[top(key)] = top(number)
    together: dict[Any, list[int]] = defaultdict(list)
    for number in examples:
        together[top(number)].append(number)
    return list(together.values())


def _name(example: Example) -> str:
    """What a part is drawn by, which no folder changes."""
    named = example.group or example.case
    return named or (Path(example.source).name if isinstance(example.source, str | Path) else "")
