"""Tables of records: a row a case, a row a glimpse, a row an error."""

import csv
import json
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Any

from hiresattn.datasets.example import SEPARATOR
from hiresattn.datasets.tables import csv_cell
from hiresattn.errors import WriteError
from hiresattn.files import atomic_write
from hiresattn.inference.read_records import RECORDS, record_from_json
from hiresattn.inference.record import Record
from hiresattn.report.names import case_names
from hiresattn.report.scale import scale_origin

#: Columns of the tables; of the glimpses with their types.
PREDICTIONS = (
    "case", "source", "images", "region", "mpp", "mpp_source", "status", "label", "prediction", "score",
    "prediction_set", "needs_review", "review_reasons", "out_of_domain", "domain_distance", "looks", "fraction_read",
    "foreground_seen", "stop_reason", "warnings",
)  # fmt: skip
GLIMPSES = {
    "case": "string", "source": "string", "look": "int64", "parent": "int64", "depth": "int64", "y": "int64",
    "x": "int64", "height": "int64", "width": "int64", "attention": "double", "select_logp": "double",
    "sufficient": "bool", "scorer": "string",
}  # fmt: skip
ERRORS = ("case", "source", "region", "error")
#: Rows of glimpses that are written at a time.
_ROWS = 50_000


def write_tables(folder: Path, classes: Sequence[str], order: Mapping[str | None, int]) -> None:
    """Write the tables of the records in a results folder, each whole or not at all.

    ``predictions.csv`` has a row for each case, with a column ``p_CLASS`` for every class; ``glimpses.parquet`` one for
    each region looked at, with the probabilities after it (``glimpses.csv`` where pyarrow is not installed);
    ``errors.csv`` one for each case or image that failed. Texts stay texts; what a spreadsheet would run as a formula
    gets an apostrophe.

    Args:
        folder: The folder; its ``records.jsonl`` is read.
        classes: Names of the classes.
        order: Position of a record by its ``key``; others come after these.

    Raises:
        WriteError: If a table can't be written.
    """
    listed = _in_order(folder / RECORDS, order)
    try:
        with ExitStack() as stack:
            predictions = _csv(
                stack, folder / "predictions.csv", [*PREDICTIONS, *(f"p_{c}" for c in classes)]
            )
            errors = _csv(stack, folder / "errors.csv", ERRORS)
            glimpses = _glimpses(stack, folder, classes)
            starts = [start for start, _ in listed]
            for record, name in zip(
                _records(folder / RECORDS, starts), case_names([one for _, one in listed]), strict=True
            ):
                shares = (record.scores.get(class_name) for class_name in classes)
                _row(predictions, [*prediction_row(record, name), *shares])
                for row in failure_rows(record, name):
                    _row(errors, row)
                glimpses.add(record, name)
            glimpses.flush()
    except OSError as error:
        raise WriteError(
            f"{folder}: its tables can't be written ({error.strerror or error}); check the folder"
        ) from error


Named = tuple[str | None, str, Sequence[int] | None]


def _in_order(path: Path, order: Mapping[str | None, int]) -> list[tuple[int, Named]]:
    """Where each line of a file begins, in the order asked for, with its case, source and window."""
    found = []
    with path.open("rb") as file:
        start = 0
        for line in file:
            if line.endswith(b"\n"):
                value = json.loads(line)
                named = (value.get("case"), value.get("source"), value.get("region"))
                found.append((order.get(value.get("key"), len(order)), start, named))
            start += len(line)
    return [(start, named) for _, start, named in sorted(found, key=lambda one: one[:2])]


def _records(path: Path, starts: Sequence[int]) -> Iterator[Record]:
    with path.open("rb") as file:
        for start in starts:
            file.seek(start)
            yield record_from_json(file.readline(), str(path))


def _csv(stack: ExitStack, path: Path, columns: Sequence[str]) -> Any:
    part = stack.enter_context(atomic_write(path))
    table = csv.writer(stack.enter_context(part.open("w", encoding="utf-8", newline="")), lineterminator="\n")
    _row(table, columns)
    return table


def _row(table: Any, values: Sequence[Any]) -> None:
    table.writerow(["" if value is None else csv_cell(cell(value)) for value in values])


def _rows(table: Any, rows: Sequence[Sequence[Any]]) -> None:
    for row in rows:
        _row(table, row)


def cell(value: Any) -> Any:
    """A value as a cell."""
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, float):
        return float(f"{value:.6g}")  # what images searched side by side change in the rounding is below that
    if isinstance(value, str):
        return value.encode("utf-8", "backslashreplace").decode()
    return value


def names_in_tables(records: Sequence[Record]) -> list[str]:
    """What is in the column ``case`` of each record's rows: see ``case_names``."""
    return case_names([(one.case, one.source, one.region) for one in records])


def prediction_row(record: Record, name: str | None) -> list[Any]:
    """A row of ``PREDICTIONS``; ``name`` is its identifier."""
    said = None if record.labels is None else SEPARATOR.join(record.labels)
    given = (
        record.label
        if record.label is None or isinstance(record.label, str)
        else SEPARATOR.join(record.label)
    )
    return [
        name,
        record.source,
        len(record.sources) or None,
        _region(record.region),
        *_scale(record),
        record.status,
        given,
        record.class_name if said is None else said,
        record.score,
        None if record.prediction_set is None else SEPARATOR.join(record.prediction_set),
        record.needs_review,
        "; ".join(record.review_reasons),
        record.out_of_domain,
        record.domain_distance,
        record.cost.glimpses,
        record.cost.fraction_read,
        record.cost.foreground_seen,
        record.cost.stop_reason,
        "; ".join(record.warnings),
    ]


def _scale(record: Record) -> tuple[float | None, str | None]:
    """The scale of a record's images, and who said it; nothing where they have several, and where none is known."""
    known = {one.mpp for one in record.sources if one.error is None and one.mpp is not None}
    if len(known) != 1:
        return record.mpp, None
    said = (scale_origin(one) for one in record.sources if one.error is None)
    return known.pop(), SEPARATOR.join(dict.fromkeys(filter(None, said))) or None


def failure_rows(record: Record, name: str | None) -> Iterator[list[Any]]:
    """Rows of ``ERRORS``: the case, or its images that failed."""
    if record.status == "error":
        yield [name, record.source, _region(record.region), record.error]
    elif len(record.sources) > 1:
        for one in record.sources:
            if one.error is not None:
                yield [name, one.source, _region(one.region), one.error]


def _region(region: Sequence[int] | None) -> str | None:
    return None if region is None else " ".join(map(str, region))


def glimpse_columns(classes: Sequence[str]) -> dict[str, str]:
    """The columns of the glimpses with their types: ``GLIMPSES``, and after it ``p_CLASS`` for every class."""
    return GLIMPSES | {f"p_{cell(name)}": "double" for name in classes}


def glimpse_rows(record: Record, classes: Sequence[str], name: str | None) -> Iterator[tuple[Any, ...]]:
    """A row of ``glimpse_columns`` for each region that was looked at; None where a probability wasn't kept."""
    paths = [one.source for one in record.sources]
    for one in record.regions:
        source = paths[one.source] if one.source < len(paths) else record.source
        decisive = None if record.sufficient is None else one.id in record.sufficient
        place = (one.y, one.x, one.height, one.width)
        row = (name, source, one.id, one.parent, one.depth, *place, one.attention, one.select_logp)
        shares = (
            record.scores_after[each][one.id] if each in record.scores_after else None for each in classes
        )
        yield (*row, decisive, one.scorer, *shares)


class _Glimpses:
    """Rows of glimpses, written many at a time."""

    def __init__(self, write: Any, classes: Sequence[str]) -> None:
        self._write, self._classes = write, classes
        self._rows: list[tuple[Any, ...]] = []

    def add(self, record: Record, name: str) -> None:
        """Add those of a record."""
        self._rows.extend(glimpse_rows(record, self._classes, name))
        if len(self._rows) >= _ROWS:
            self.flush()

    def flush(self) -> None:
        """Write what was added."""
        self._write(self._rows)
        self._rows = []


def _glimpses(stack: ExitStack, folder: Path, classes: Sequence[str]) -> _Glimpses:
    """The table of glimpses: Parquet, or CSV without pyarrow. A table of the other format goes."""
    columns = glimpse_columns(classes)
    try:
        import pyarrow as pa
        import pyarrow.parquet as pq
    except ImportError:
        (folder / "glimpses.parquet").unlink(missing_ok=True)
        table = _csv(stack, folder / "glimpses.csv", list(columns))
        return _Glimpses(lambda rows: _rows(table, rows), classes)
    (folder / "glimpses.csv").unlink(missing_ok=True)
    schema = pa.schema([(name, pa.type_for_alias(kind)) for name, kind in columns.items()])
    part = stack.enter_context(atomic_write(folder / "glimpses.parquet"))
    file = stack.enter_context(pq.ParquetWriter(part, schema))

    def write(rows: list[tuple[Any, ...]]) -> None:
        columns = list(zip(*rows, strict=True)) or [()] * len(schema)
        arrays = [
            pa.array(map(_text_only, column), one.type) for column, one in zip(columns, schema, strict=True)
        ]
        file.write_table(pa.Table.from_arrays(arrays, schema=schema))

    return _Glimpses(write, classes)


def _text_only(value: Any) -> Any:
    return cell(value) if isinstance(value, str) else value
