"""Records in one file that are of the same image, or of the same case: the last one counts."""

import json
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from hiresattn.datasets.cases import Case
from hiresattn.datasets.example import Example
from hiresattn.files import is_remote
from hiresattn.pyramid.stack import Stack

#: In a line: what its record is of.
SUBJECT = "subject"


def subjects_of(source: Any) -> list[list[Any]]:
    """What a record of a source is of, as JSON types, however the file has changed and whatever label is given.

    Args:
        source: A source or case, as ``classify`` takes it.

    Returns:
        Its image with the window, where it is one; its name, where it is a case. Empty: an array, which has no name.
    """
    examples = source.examples if isinstance(source, Case) else (source,)
    found: list[list[Any]] = [["case", source.name]] if isinstance(source, Case) else []
    if len(examples) > 1:
        return found
    example = examples[0] if hasattr(examples[0], "source") else Example(examples[0])
    if isinstance(example.source, str | Path | Stack):
        window, outline = getattr(example, "region", None), getattr(example, "outline", None)
        found.append(["image", _place(example.source), window, outline])
    return found


def _place(name: str | Path | Stack) -> str:
    """An image by where it is."""
    if isinstance(name, Stack) or is_remote(str(name)):
        return repr(name) if isinstance(name, Stack) else str(name)
    try:
        return os.path.realpath(name)
    except (OSError, ValueError):
        return str(name)


def that_count(subjects: Sequence[Sequence[str]]) -> list[bool]:
    """Which records count: those of which no later one is of the same image or case.

    Args:
        subjects: Of each record what it is of, in the order in which they were written; empty = nothing is known.
    """
    seen: set[str] = set()
    found = []
    for own in reversed(subjects):
        found.append(seen.isdisjoint(own))
        seen.update(own)
    return found[::-1]


def subject_in(line: Mapping[str, Any]) -> list[str]:
    """What a line says that its record is of."""
    own = line.get(SUBJECT)
    return [str(one) for one in own] if isinstance(own, list) else []


def lines_that_count(path: Path) -> tuple[list[int], int]:
    """Where the lines of a file of records begin that count, in their order; and how many others there are.

    A last line without an end, which a process that was killed or still runs leaves, is left out.
    """
    starts, subjects, start = [], [], 0
    with path.open("rb") as file:
        for line in file:
            if line.endswith(b"\n") and line.strip():
                starts.append(start)
                subjects.append(_subject_of(line))
            start += len(line)
    found = [at for at, counts in zip(starts, that_count(subjects), strict=True) if counts]
    return found, len(starts) - len(found)


def _subject_of(line: bytes) -> list[str]:
    if f'"{SUBJECT}": ['.encode() not in line:
        return []
    try:
        value = json.loads(line)
    except (ValueError, RecursionError):
        return []  # whoever reads the record says what is wrong with it
    return subject_in(value) if isinstance(value, dict) else []
