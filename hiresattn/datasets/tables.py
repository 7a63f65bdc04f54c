"""Tables on disk, CSV or Parquet, as rows of text: each with its line for messages."""

import csv
import io
import json
import math
from collections.abc import Collection
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NoReturn

from hiresattn.datasets.example import SEPARATOR
from hiresattn.errors import BackendMissingError, ConfigError, NotFoundError

#: What the names of tables end in; anything else is read as CSV.
SUFFIXES = (".csv", ".parquet", ".pq")
#: What the names of spreadsheets end in, which are named, and not read.
SPREADSHEETS = (".xlsx", ".xls", ".xlsm", ".ods", ".numbers")
#: What formulas of spreadsheets begin with.
_FORMULA = ("=", "+", "-", "@", "\t", "\r")
#: Most characters of one value; a list of boxes can be long.
_LONGEST = 1 << 26
_EXPECTED = "a CSV or Parquet file with the columns path,label[,split]"


@dataclass(frozen=True)
class Table:
    """The columns, and of each row its line (``line 3`` of a CSV, ``row 2`` of Parquet) and its values."""

    columns: tuple[str, ...]
    rows: list[tuple[str, dict[str, str]]]
    """Values without the spaces around them; what is absent is empty."""


def csv_cell(value: Any) -> Any:
    """A value as a CSV may hold it for spreadsheets: a text that they would run as a formula gets an apostrophe.

    ``read_table`` takes it off again.
    """
    return f"'{value}" if isinstance(value, str) and _is_formula(value) else value


def _is_formula(text: str) -> bool:
    """Whether a spreadsheet would run a text, or one that apostrophes mark as text, as a formula."""
    first = text.lstrip("'")[:1]
    return first in _FORMULA and first != "" and not _is_number(text)


def _is_number(text: str) -> bool:
    try:
        float(text)
    except ValueError:
        return False
    return True


def read_table(path: Path, used: Collection[str]) -> Table:
    """Read a table.

    Args:
        path: The file; Parquet if its name says so.
        used: Columns whose values are used; a Parquet file's others are not read.

    Returns:
        The table. Whole numbers are written without a point, lists of text with ``|`` between, other lists as JSON.

    Raises:
        NotFoundError: If there is no such file.
        BackendMissingError: If it is Parquet and pyarrow isn't installed.
        ConfigError: If it can't be read.
    """
    return _parquet(path, used) if path.suffix.lower() in SUFFIXES[1:] else _csv(path)


def _csv(path: Path) -> Table:
    if path.suffix.lower() in SPREADSHEETS:
        raise ConfigError(
            f"{path}: a spreadsheet ({path.suffix}) is not read; save it as CSV (UTF-8, with commas) or Parquet"
        )
    try:
        text = path.read_bytes().decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise ConfigError(
            f"{path}: not a text file in UTF-8 ({error.reason}); a manifest is a CSV, or a Parquet file whose "
            "name ends in .parquet"
        ) from error
    except (OSError, ValueError) as error:
        _refuse(path, error)
    reader = csv.DictReader(io.StringIO(text, newline=""), strict=True)
    usual = csv.field_size_limit(_LONGEST)
    try:
        names = reader.fieldnames = [name.strip() for name in reader.fieldnames or []]
        rows = [
            (f"line {reader.line_num}", {name: _cell_text((row.get(name) or "").strip()) for name in names})
            for row in reader
        ]
    except csv.Error as error:
        raise ConfigError(f"{path}, line {reader.reader.line_num}: not readable as CSV ({error})") from error
    finally:
        csv.field_size_limit(usual)
    return Table(tuple(names), rows)


def _cell_text(text: str) -> str:
    """What a cell of a CSV says, without the apostrophe of ``csv_cell``."""
    return text[1:] if text.startswith("'") and _is_formula(text[1:]) else text


def _parquet(path: Path, used: Collection[str]) -> Table:
    try:
        import pyarrow as pa
        from pyarrow import parquet
    except ImportError as error:
        raise BackendMissingError(
            f"{path}: Parquet needs pyarrow, which isn't installed; pip install 'hiresattn[parquet]', or save the "
            "manifest as CSV"
        ) from error
    try:
        with path.open("rb") as stream, parquet.ParquetFile(stream) as file:
            stored = {name.strip(): name for name in file.schema_arrow.names}
            kept = {name: name_there for name, name_there in stored.items() if name in used}
            columns = file.read(columns=list(kept.values())).to_pydict()
            count = file.metadata.num_rows
    except (pa.ArrowException, ValueError) as error:
        if isinstance(error, pa.ArrowException):
            raise ConfigError(f"{path}: not readable as Parquet ({error}); write it anew") from error
        _refuse(path, error)
    except OSError as error:
        _refuse(path, error)
    rows = [
        (f"row {number + 1}", {name: _text(columns[there][number]) for name, there in kept.items()})
        for number in range(count)
    ]
    return Table(tuple(stored), rows)


def _refuse(path: Path, error: OSError | ValueError) -> NoReturn:
    if isinstance(error, FileNotFoundError):
        raise NotFoundError(f"{path}: no such manifest; give {_EXPECTED}") from error
    if isinstance(error, IsADirectoryError):
        raise NotFoundError(f"{path}: a folder, no manifest; give {_EXPECTED}") from error
    why = getattr(error, "strerror", None) or error
    raise ConfigError(f"{path}: the manifest can't be read ({why}); check name and permissions") from error


def _text(value: Any) -> str:
    """A value of a typed column as a CSV would hold it."""
    if value is None or (isinstance(value, float) and math.isnan(value)):
        return ""
    if isinstance(value, float) and value.is_integer():
        return str(int(value))
    if isinstance(value, list):
        names = value and all(isinstance(one, str) for one in value)
        return SEPARATOR.join(value) if names else json.dumps(value) if value else ""
    return str(value).strip()
