"""Records read back from the file of JSON lines that they were written to."""

import json
import os
import typing
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import MISSING, fields, is_dataclass
from pathlib import Path
from typing import Any, TypeVar

from hiresattn.errors import ConfigError, NotFoundError
from hiresattn.inference.lines import lines_at
from hiresattn.inference.record import Record
from hiresattn.inference.superseded import lines_that_count
from hiresattn.option_types import fits

Made = TypeVar("Made")

#: The file of records in a results folder.
RECORDS = "records.jsonl"
#: How ``json_line`` writes floats that JSON has no word for.
_NOT_FINITE = ("nan", "inf", "-inf")


def read_records(path: str | os.PathLike[str]) -> Iterator[Record]:
    """Read the records that ``classify`` wrote, one at a time.

    A last line without an end, which a process that was killed or still runs leaves, is left out. So is in a results
    folder what a later record of the same image or case replaces.

    Args:
        path: A file of JSON lines, or a results folder.

    Yields:
        The records in their order. What a line has beside the fields of a record (``key``) is left out.

    Raises:
        NotFoundError: If there is no such file.
        ConfigError: If a line is no record.
    """
    file = records_file(path)
    try:
        opened = file.open("rb")
    except OSError as error:
        raise ConfigError(f"{file}: can't be read ({error.strerror})") from error
    with opened:
        starts, superseded = lines_that_count(file) if file.name == RECORDS else ([], 0)
        yield from records_in(lines_at(opened, starts) if superseded else opened, str(file))


def records_in(lines: Iterable[bytes], name: str) -> Iterator[Record]:
    """Records of the lines of an open file, as ``read_records`` reads them; ``name`` is for messages."""
    for number, line in enumerate(lines, 1):
        if line.endswith(b"\n") and line.strip():
            yield record_from_json(line, f"{name}, line {number}")


def records_file(path: str | os.PathLike[str]) -> Path:
    """The file of records that a path names: itself, or the one in a results folder.

    Raises:
        NotFoundError: If there is none.
    """
    path = Path(path)
    file = path / RECORDS if path.is_dir() else path
    if not file.is_file():
        what = f"no {RECORDS} in this folder" if path.is_dir() else "there is no such file"
        raise NotFoundError(
            f"{path}: {what}; give what `hiresattn classify … -o` wrote: a .jsonl file, or a results folder"
        )
    return file


def record_from_json(line: str | bytes, where: str) -> Record:
    """One record of a line of JSON.

    Args:
        line: The line.
        where: File and line, for messages.

    Raises:
        ConfigError: If it is none.
    """
    try:
        return _made(Record, json.loads(line))
    except (ValueError, TypeError, RecursionError) as error:
        raise ConfigError(
            f"{where}: not a record ({error}); give the JSON lines that `hiresattn classify` writes"
        ) from error


def _made(cls: type[Made], values: Any) -> Made:
    """A dataclass of the values that its fields have; fields of another version are left out."""
    if not isinstance(values, dict):
        raise TypeError(f"{str(values)[:40]!r} is no JSON object")
    hints = typing.get_type_hints(cls)
    found: dict[str, Any] = {}
    for one in fields(cls):  # type: ignore[arg-type]
        if one.name in values:
            found[one.name] = _value(one.name, values[one.name], hints[one.name])
        elif one.default is MISSING and one.default_factory is MISSING:
            raise ValueError(f"it has no {one.name!r}")
    return cls(**found)


def _value(name: str, value: Any, hint: Any) -> Any:
    """A field's value, of its type."""
    parts = typing.get_args(hint)
    if is_dataclass(hint):
        return _made(hint, value)  # type: ignore[arg-type]
    if parts and is_dataclass(parts[0]) and isinstance(value, list):
        return tuple(_made(parts[0], one) for one in value)  # type: ignore[arg-type]
    if typing.get_origin(hint) is Mapping and isinstance(value, dict):
        return {key: _value(name, item, parts[1]) for key, item in value.items()}
    if value in _NOT_FINITE and (hint is float or float in parts):
        return float(value)
    if typing.get_origin(hint) is Mapping or not fits(value, hint):
        raise TypeError(f"its {name} can't be {str(value)[:40]!r}")
    return tuple(value) if isinstance(value, list) else value
