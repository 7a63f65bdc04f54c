"""Tables on disk, CSV or Parquet, as rows of text: each with its line for messages."""

import csv
import io
import json
import math
import re
from collections.abc import Collection, Sequence
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
#: What separates the columns of a CSV; the header tells which.
_DELIMITERS = (",", ";", "\t")
#: Columns of numbers with a fraction; where no comma separates columns, it may begin that.
_FRACTIONS = ("mpp",)
_DECIMAL_COMMA = re.compile(r"[+-]?\d+,\d+")
#: Most characters of one value; a list of boxes can be long.
_LONGEST = 1 << 26
_EXPECTED = "a CSV or Parquet file with the columns path,label[,split]"


@dataclass(frozen=True)
class Table:
    """The columns, and of each row its line (``line 3`` of a CSV, ``row 2`` of Parquet) and its values."""

    columns: tuple[str, ...]
    """Known columns by their known names, however they are written (``Case ID`` is ``case_id``)."""
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


def column_key(name: str) -> str:
    """What is left of a column's name where case, spaces, hyphens and underscores don't count."""
    return re.sub(r"[\s_-]+", "", name).casefold()


def read_table(path: Path, used: Collection[str]) -> Table:
    """Read a table: Parquet, or text in UTF-8 with commas, semicolons or tabs between its columns.

    Args:
        path: The file; Parquet if its name says so.
        used: Columns whose values are used, by their known names; a Parquet file's others are not read.

    Returns:
        The table. Whole numbers are written without a point, lists of text with ``|`` between, other lists as JSON.
        Where no comma separates columns, one in a number of ``mpp`` is a decimal point.

    Raises:
        NotFoundError: If there is no such file.
        BackendMissingError: If it is Parquet and pyarrow isn't installed.
        ConfigError: If it can't be read, or two columns have one known name.
    """
    return _parquet(path, used) if path.suffix.lower() in SUFFIXES[1:] else _csv(path, used)


def _known_names(path: Path, columns: Sequence[str], used: Collection[str]) -> list[str]:
    """The names of columns, those that are used by their known name."""
    known = {column_key(name): name for name in used if name not in columns}
    names = [name if name in used else known.get(column_key(name), name) for name in columns]
    for name in used:
        written = [column for column, one in zip(columns, names, strict=True) if one == name]
        if len(written) > 1:
            raise ConfigError(
                f"{path}: the columns {' and '.join(map(repr, written))} both mean {name!r}; rename or remove one"
            )
    return names


def _delimiter(text: str, used: Collection[str]) -> str:
    """What separates the columns: with it the header has most known columns, else most columns."""
    known = set(map(column_key, used))

    def found(delimiter: str) -> tuple[int, int]:
        try:
            names = next(csv.reader(io.StringIO(text, newline=""), delimiter=delimiter), [])
        except csv.Error:
            return 0, 0
        return sum(column_key(name) in known for name in names), len(names)

    return max(_DELIMITERS, key=found)


def _csv(path: Path, used: Collection[str]) -> Table:
    if path.suffix.lower() in SPREADSHEETS:
        raise ConfigError(
            f"{path}: a spreadsheet ({path.suffix}) is not read; save it as CSV (UTF-8) or Parquet"
        )
    try:
        text = path.read_bytes().decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise ConfigError(
            f"{path}: not a text file in UTF-8 ({error.reason}); save it as CSV in UTF-8 (in Excel: CSV UTF-8), or as "
            "Parquet with a name that ends in .parquet"
        ) from error
    except (OSError, ValueError) as error:
        _refuse(path, error)
    usual = csv.field_size_limit(_LONGEST)
    delimiter = _delimiter(text, used)
    reader = csv.DictReader(io.StringIO(text, newline=""), delimiter=delimiter, strict=True)
    try:
        written = [name.strip() for name in reader.fieldnames or []]
        names = reader.fieldnames = _known_names(path, written, used)
        rows = [
            (f"line {reader.line_num}", {name: _cell_text((row.get(name) or "").strip()) for name in names})
            for row in reader
        ]
        for name in set(names).intersection(_FRACTIONS if delimiter != "," else ()):
            for _, row in rows:
                if _DECIMAL_COMMA.fullmatch(row[name]):
                    row[name] = row[name].replace(",", ".")
    except csv.Error as error:
        raise ConfigError(f"{path}, line {reader.reader.line_num}: not readable as CSV ({error})") from error
    finally:
        csv.field_size_limit(usual)
    return Table(tuple(names), [row for row in rows if any(row[1].values())])  # spreadsheets leave empty ones


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
            names = _known_names(path, [name.strip() for name in file.schema_arrow.names], used)
            stored = dict(zip(names, file.schema_arrow.names, strict=True))
            kept = {name: name_there for name, name_there in stored.items() if name in used}
            columns = file.read(columns=list(kept.values())).to_pydict()
            count = file.metadata.num_rows
    except ConfigError:
        raise
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
