"""A Parquet data set of records, partitioned by run: many processes add to it, and it is read while it grows."""

import json
import os
import time
import uuid
from collections.abc import Mapping
from datetime import UTC, datetime
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from hiresattn.errors import BackendMissingError, ConfigError, ReadError, WriteError
from hiresattn.files import atomic_write, make_folder
from hiresattn.inference.record import Record
from hiresattn.inference.records_file import hash_of

#: Beside the files of a run: what it is of.
FACTS = "_run.json"
#: Rows of a file, and how long they wait for more at most, s.
ROWS, WAIT = 1000, 30.0


def _pyarrow() -> Any:
    try:
        import pyarrow as pa
        import pyarrow.parquet
    except ImportError as error:
        raise BackendMissingError(
            f"a Parquet data set needs pyarrow, which can't be imported ({error}); pip install 'hiresattn[parquet]'"
        ) from error
    return pa


def _schema(pa: Any) -> Any:
    """The columns: a record's row in ``predictions``, what it was known by, and when it was written."""
    text, number, flag = pa.string(), pa.float64(), pa.bool_()
    return pa.schema(
        {
            **dict.fromkeys(("key", "case", "source", "region", "status", "label", "prediction"), text),
            "score": number,
            "scores": pa.map_(text, number),
            **dict.fromkeys(("needs_review", "out_of_domain"), flag),
            "looks": pa.int64(),
            **dict.fromkeys(("fraction_read", "seconds"), number),
            "error": text,
            "written": pa.timestamp("us", tz="UTC"),
        }
    )


class Store:
    """A data set to which the records of one run are added: ``FOLDER/run=NAME/*.parquet``.

    Rows are written in files of at most ``ROWS``, each whole and never changed, at least every ``WAIT`` s when one is
    added; those of one process don't disturb another's. Of a case that was tried again there are several rows: that
    with the latest ``written`` counts.

    Args:
        folder: The data set; made if missing.
        facts: What the run is of, as JSON types; all its processes give the same. Its name is a hash of them.
        cases: How many cases it has, of all its processes.

    Raises:
        BackendMissingError: If pyarrow isn't installed.
        ConfigError: If the folder holds other things.
        WriteError: If it can't be written.

    Examples:
        >>> pandas.read_parquet("store").sort_values("written").drop_duplicates(["run", "key"], keep="last")
    """

    def __init__(self, folder: str | os.PathLike[str], facts: Mapping[str, Any], cases: int) -> None:
        self._pa = _pyarrow()
        whole = make_folder(folder)
        other = next((one for one in whole.iterdir() if not one.name.startswith((".", "run="))), None)
        if other is not None:
            raise ConfigError(
                f"{whole}: holds {other.name}, which is no part of a data set; give another folder"
            )
        self.run = hash_of(facts)[:12]
        self.folder = make_folder(whole / f"run={self.run}")
        self._rows: list[dict[str, Any]] = []
        self._since = time.monotonic()
        about = self.folder / FACTS
        if not about.exists():
            told = {**facts, "cases": cases, "started": datetime.now(UTC).isoformat(timespec="seconds")}
            self._write(
                about, lambda part: part.write_text(json.dumps(told, default=str) + "\n", encoding="utf-8")
            )

    def add(self, record: Record, key: str | None) -> None:
        """Add the record of a case, known by a key."""
        self._rows.append(_row(record, key))
        if len(self._rows) >= ROWS or time.monotonic() - self._since > WAIT:
            self.flush()

    def keys(self) -> set[str | None]:
        """The keys that the run has rows of that are no errors."""
        return {key for key, (_, status) in _latest(self.folder).items() if status != "error"}

    def flush(self) -> None:
        """Write what was added as a file.

        Raises:
            WriteError: If it can't be written.
        """
        self._since = time.monotonic()
        if not self._rows:
            return
        pa = self._pa
        table = pa.Table.from_pylist(self._rows, schema=_schema(pa))
        self._write(
            self.folder / f"{uuid.uuid4().hex}.parquet", lambda part: pa.parquet.write_table(table, part)
        )
        self._rows = []

    def _write(self, path: Path, write: Any) -> None:
        try:
            with atomic_write(path) as part:
                write(part)
        except OSError as error:
            raise WriteError(
                f"{path}: can't be written ({error.strerror or error}); check its folder"
            ) from error

    def close(self) -> None:
        """Write what was added."""
        self.flush()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


def _row(record: Record, key: str | None) -> dict[str, Any]:
    from hiresattn.report.tables import PREDICTIONS, prediction_row

    row = dict(zip(PREDICTIONS, prediction_row(record, record.case), strict=True))
    more = {
        "key": key,
        "scores": list(record.scores.items()),
        "seconds": record.cost.seconds.total,
        "error": record.error,
        "written": datetime.now(UTC),
    }
    return row | more


def runs_of(folder: str | os.PathLike[str]) -> list[Path]:
    """The runs of a data set, those begun first first; none = it isn't one."""
    found = [path for path in Path(folder).glob("run=*") if (path / FACTS).is_file()]
    return sorted(found, key=lambda path: (path / FACTS).stat().st_mtime)


def run_facts(run: Path) -> dict[str, Any]:
    """What a run of a data set is of.

    Raises:
        ConfigError: If that can't be read.
    """
    try:
        facts = json.loads((run / FACTS).read_text(encoding="utf-8"))
        return {**facts, "cases": int(facts["cases"]), "started": str(facts["started"])}
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise ConfigError(f"{run / FACTS}: can't be read ({error}); it is no run's") from error


def counted_rows(run: Path) -> tuple[int, int, datetime | None]:
    """Cases of a run that have a row, those of errors, and when the last was written."""
    latest = _latest(run).values()
    return (
        len(latest),
        sum(status == "error" for _, status in latest),
        max((when for when, _ in latest), default=None),
    )


def _latest(run: Path) -> dict[Any, tuple[datetime, str]]:
    """Of each key the latest row: when it was written, and its status. Rows without a key stand for themselves."""
    pa = _pyarrow()
    found: dict[Any, tuple[datetime, str]] = {}
    for file in sorted(run.glob("*.parquet")):
        try:
            table = pa.parquet.read_table(file, columns=["key", "status", "written"], partitioning=None)
        except (OSError, pa.ArrowInvalid) as error:
            raise ReadError(f"{file}: can't be read ({error}); remove it") from error
        for number, row in enumerate(table.to_pylist()):
            key = row["key"] or (file.name, number)
            found[key] = max(found.get(key, (row["written"], "")), (row["written"], row["status"]))
    return found
