"""Folds of a cross-validation: which rows train and which validate."""

from collections.abc import Iterable, Sequence
from dataclasses import replace
from pathlib import Path

from hiresattn.datasets.example import Example
from hiresattn.errors import ConfigError


def in_fold(examples: Iterable[Example], fold: int | str, name: str) -> list[Example]:
    """Examples with the splits that a fold gives: its own are ``val``, those of other folds ``train``; ``test`` stays.

    Args:
        examples: Each has a fold, or the split or fold ``test``.
        fold: Which validates.
        name: Of the set, for messages.

    Raises:
        ConfigError: If one has no fold, or none or all are of this one.
    """
    chosen = fold_name(str(fold))
    found = []
    for example in examples:
        own = fold_name(str(example.fold or ""))
        if example.split == "test" or own == "test":
            split = "test"
        elif own:
            split = "val" if own == chosen else "train"
        else:
            raise ConfigError(f"{example.source}: no fold; give it one, or the split or fold test")
        found.append(replace(example, split=split, fold=own or None))
    check_fold(name, found, chosen)
    return found


def check_fold(path: Path | str, examples: Sequence[Example], fold: str) -> None:
    """Refuse a fold that no row is in, or that all are in."""
    known = sorted({e.fold for e in examples if e.fold not in (None, "test")}, key=lambda f: (len(f), f))
    if fold not in known:
        raise ConfigError(
            f"{path}: no rows of fold {fold!r}; there is {', '.join(known) or 'none'}: name one of them"
        )
    if len(known) == 1:
        raise ConfigError(f"{path}: all rows are of fold {fold!r}; training needs another one")


def fold_name(text: str) -> str:
    """A fold's name; whole numbers that went through a table of floats lose their point."""
    return text.removesuffix(".0")
