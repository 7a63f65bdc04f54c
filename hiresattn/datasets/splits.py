"""Splits that are drawn: by case, class by class, the same ones for the same seed."""

import hashlib
from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path

from hiresattn.datasets.example import Example, classes_in
from hiresattn.errors import ConfigError, counted


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
    classes: dict[str, list[tuple[bytes, int]]] = defaultdict(list)
    for number, (name, label) in enumerate(cases):
        rank = hashlib.sha256(f"{seed}|{name}".encode("utf-8", "surrogateescape")).digest()
        classes[label].append((rank, number))
    splits = ["train"] * len(cases)
    for ranked in classes.values():
        count = len(ranked)
        validating = _share(val, count)
        testing = _share(test, count - validating, count)
        for at, (_, number) in enumerate(sorted(ranked)[: validating + testing]):
            splits[number] = "val" if at < validating else "test"
    return splits


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

    A group, and an image, is in one of the two. Drawn class by class.

    Raises:
        ConfigError: If they are all of one group, or of one image.
    """
    if not share or any(example.split == "val" for example in examples):
        return list(examples)
    groups: dict[str, list[int]] = defaultdict(list)
    names: dict[str, str] = {}
    for number, example in enumerate(examples):
        if example.split == "train":
            key, name = _group(example, number)
            groups[key].append(number)
            names[key] = name
    if len(groups) < 2:
        raise ConfigError(
            f"val_fraction={share:g} splits by case and image, and there is {counted(len(groups), 'case')} to train "
            "on; give a column split"
        )
    rarest = rarest_labels({key: [examples[number] for number in numbers] for key, numbers in groups.items()})
    found = list(examples)
    splits = drawn_splits([(names[key], rarest[key]) for key in groups], share, 0.0, seed)
    for numbers, split in zip(groups.values(), splits, strict=True):
        for number in numbers:
            found[number] = replace(found[number], split=split)
    return found


def _group(example: Example, number: int) -> tuple[str, str]:
    """What an example is never parted from, and the name that it is drawn by, which no folder changes."""
    if example.group is not None:
        return f"group {example.group}", example.group
    if isinstance(example.source, str | Path):
        return f"image {example.source}", Path(example.source).name
    return f"number {number}", str(number)
