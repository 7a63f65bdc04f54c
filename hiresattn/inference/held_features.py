"""Features that a folder holds: those that are asked for, and those that are in the way."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from hiresattn.datasets.feature_files import feature_file
from hiresattn.datasets.features import FORMATS, Features, read_facts, read_features
from hiresattn.errors import OpenError, ReadError

#: What facts are called in messages, where it isn't by their name.
_WORDS = {"asked": "scale", "size": "crop size"}


def held_features(path: Path, asked: Mapping[str, Any]) -> Features | None:
    """Features that are there and whole, by the same encoder at the same scale; None = there are no such.

    Args:
        path: Their file.
        asked: What features must have in common with those asked for, to be the same, by the names of their facts.
    """
    try:
        found = read_features(path)
    except (OpenError, ReadError):
        return None
    return found if _same(found.facts, asked) else None


def features_in_the_way(
    folder: Path, source: str, form: str, asked: Mapping[str, Any], encoder: str
) -> tuple[Path, str] | None:
    """The file of features of an image that others would replace, and what they differ in; damaged ones may go.

    Args:
        folder: Where features are kept.
        source: The image.
        form: Format that is asked for. In the other, features are in the way even if they are the same: an image has
            one file.
        asked: As for ``held_features``.
        encoder: The name of the encoder that is asked for.
    """
    for other in FORMATS:
        path = feature_file(folder, source, other)
        try:
            facts = read_facts(path)
        except OSError:  # none, damaged, or no name that a file can have
            continue
        if other != form:
            return path, f"format {other} and not {form}"
        if not _same(facts, asked):
            return path, _difference(facts, asked, encoder)
    return None


def _same(facts: Mapping[str, Any], asked: Mapping[str, Any]) -> bool:
    return all(facts.get(name) == value for name, value in asked.items())


def _difference(facts: Mapping[str, Any], asked: Mapping[str, Any], encoder: str) -> str:
    """What features differ in from those asked for, in words."""
    parts = []
    differing = [name for name, value in asked.items() if facts.get(name) != value]
    if "encoder_sha256" in differing:  # crops and values are by the encoder
        differing = [name for name in differing if name in ("encoder_sha256", "asked")]
    for name in differing:
        there, value = facts.get(name), asked[name]
        if name == "encoder_sha256":
            same = facts.get("encoder") == encoder
            parts.append(
                f"other weights of {encoder}" if same else f"encoder {facts.get('encoder')} and not {encoder}"
            )
        else:
            parts.append(f"{_WORDS.get(name, name)} {there} and not {value}")
    return ", ".join(parts)
