"""Options: the fields of their classes are checked against their annotations, and replaced by name."""

import difflib
import functools
import math
import types
import typing
from collections.abc import Mapping
from dataclasses import fields, replace
from typing import Any, TypeVar

from hiresattn.errors import ConfigError

#: A frozen dataclass.
_Options = TypeVar("_Options", bound=Any)


def check_types(options: Any) -> None:
    """Refuse a frozen dataclass with a field whose value is not of the annotated type.

    Lists, ranges and arrays become tuples, and NumPy's numbers Python's. A whole number is a number, too; a truth
    value is neither.

    Raises:
        ConfigError: Names the field, its value and what it takes.
    """
    cls: Any = type(options)
    hints = _hints(cls)
    for one in fields(options):
        given = getattr(options, one.name)
        value = given.tolist() if hasattr(given, "tolist") else given
        value = tuple(value) if isinstance(value, list | range) else value
        if not fits(value, hints[one.name]):
            raise ConfigError(
                f"{one.name} = {given!r} is of a wrong type; it takes {type_words(hints[one.name])}"
            )
        if value is not given:
            object.__setattr__(options, one.name, value)


@functools.cache
def _hints(cls: Any) -> dict[str, Any]:
    return typing.get_type_hints(cls)


def fits(value: Any, hint: Any) -> bool:
    """Whether a value is what an annotation asks for; lists stand for tuples."""
    parts = typing.get_args(hint)
    if isinstance(hint, types.UnionType):
        return any(fits(value, part) for part in parts)
    if typing.get_origin(hint) is tuple:
        if not isinstance(value, list | tuple):
            return False
        hints = [parts[0]] * len(value) if parts[-1] is ... else parts
        return len(value) == len(hints) and all(map(fits, value, hints))
    if hint is float:
        return isinstance(value, (int, float)) and not isinstance(value, bool)
    if hint in (int, bool):
        return type(value) is hint
    return isinstance(value, typing.get_origin(hint) or hint)


def type_words(hint: Any) -> str:
    """What an annotation asks for, for people."""
    parts = typing.get_args(hint)
    if isinstance(hint, types.UnionType):
        return " or ".join(type_words(part) for part in parts if part is not type(None))
    if typing.get_origin(hint) is tuple:
        count = "" if parts[-1] is ... else f"{len(parts)} "
        kind = {int: "whole numbers", float: "numbers", int | str: "whole numbers or names"}.get(
            parts[0], "texts"
        )
        return f"a list of {count}{kind}"
    words = {int: "a whole number", float: "a number", bool: "true or false", str: "text in quotes"}
    return words.get(hint) or f"a {hint.__name__}"


def check_scale_options(mpp: float | str, assume_mpp: float | None, *, squash: bool) -> None:
    """Refuse a scale to train at, or to assume, that is none.

    Raises:
        ConfigError: If it isn't above 0, or ``auto`` or ``off``; or images are squashed, which have none.
    """
    if isinstance(mpp, str) and mpp not in ("auto", "off"):
        raise ConfigError(f"mpp is a number of micrometres, 'auto' or 'off'; got {mpp!r}")
    for number in (mpp, assume_mpp):
        if isinstance(number, float | int) and not 0 < number < math.inf:
            raise ConfigError(f"mpp and assume_mpp are micrometres above 0; got {number!r}")
    if squash and not isinstance(mpp, str):
        raise ConfigError("squash makes a square of every image, whatever its scale; leave out mpp")


def changed(options: _Options | None, changes: Mapping[str, Any], options_class: type[_Options]) -> _Options:
    """Options with some fields replaced.

    Args:
        options: None = the defaults.
        changes: Fields and their values.
        options_class: Their class.

    Raises:
        ConfigError: If they are of another class, or there is no such field; the message has the nearest name.
    """
    if options is None:
        options = options_class()
    if not isinstance(options, options_class):
        raise ConfigError(
            f"options are of class {options_class.__name__}, or given by name, such as "
            f"{fields(options_class)[0].name}=…; got {type(options).__name__} {options!r:.80}"
        )
    known = [field.name for field in fields(options)]
    for name in changes:
        if name not in known:
            raise ConfigError(f"unknown option {name!r}{did_you_mean(name, known)}")
    return replace(options, **changes)


def did_you_mean(name: str, known: Any) -> str:
    """End of an error message: the nearest known name, or all of them."""
    near = difflib.get_close_matches(name, list(known), n=1)
    return f"; did you mean {near[0]!r}?" if near else f"; known are {', '.join(sorted(known))}"
