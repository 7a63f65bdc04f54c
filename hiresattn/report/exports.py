"""Records in the files of other programs: CSV, Parquet, Excel, HDF5 of coordinates."""

import csv
import os
from collections.abc import Callable, Iterable, Iterator, Sequence
from importlib import import_module
from pathlib import Path
from typing import Any

import numpy as np

from hiresattn.datasets.tables import csv_cell
from hiresattn.errors import BackendMissingError, ConfigError, WriteError
from hiresattn.files import atomic_write, make_folder
from hiresattn.inference.record import Record, VisitedRegion
from hiresattn.report.names import unique_names
from hiresattn.report.tables import (
    ERRORS,
    GLIMPSES,
    PREDICTIONS,
    cell,
    failure_rows,
    glimpse_columns,
    glimpse_rows,
    names_in_tables,
    prediction_row,
)

#: What can be written, and the extra that it needs.
KINDS = {"csv": None, "parquet": "parquet", "xlsx": "excel", "h5": "hdf5"}
#: Most rows of a sheet of Excel.
_SHEET = 1_048_576
Table = tuple[list[str], Iterator[Sequence[Any]]]


def export_tables(
    records: Iterable[Record], path: str | os.PathLike[str], kind: str, *, overwrite: bool = False
) -> list[Path]:
    """Write records as tables of other programs.

    ``csv`` and ``parquet``: a folder of ``predictions`` (a row a case, with a column ``p_CLASS`` for every class),
    ``glimpses`` (a row a region looked at) and ``errors``. ``xlsx``: the same as sheets of one workbook.
    ``h5``: a folder with a file for each image and depth, which holds ``coords`` (int64 ``[n 2]``, x before y, level-0
    px, upper left corners) and ``attention``, as programs for multiple-instance learning read them.

    Args:
        records: As ``classify`` returns them, or ``read_records`` reads them.
        path: The folder, or the workbook.
        kind: One of ``KINDS``.
        overwrite: Replace files that are there.

    Returns:
        The files.

    Raises:
        ConfigError: If the kind is unknown, a file is there, or a sheet would be too long.
        BackendMissingError: If a package is missing.
        WriteError: If a file can't be written.
    """
    if kind not in KINDS:
        raise ConfigError(f"{kind!r} is nothing to export to; possible are {', '.join(KINDS)}")
    listed = list(records)
    try:
        if kind == "h5":
            return _h5(listed, make_folder(path), overwrite=overwrite)
        tables = _tables(listed)
        if kind == "xlsx":
            return [_xlsx(tables, _free(Path(path), overwrite=overwrite))]
        folder = make_folder(path)
        write = _csv if kind == "csv" else _parquet(_needed("pyarrow", kind))
        paths = {name: _free(folder / f"{name}.{kind}", overwrite=overwrite) for name in tables}
        for name, table in tables.items():
            with atomic_write(paths[name]) as part:
                write(part, name, table)
        return list(paths.values())
    except OSError as error:
        if isinstance(error, WriteError):
            raise
        raise WriteError(f"{path}: can't be written ({error.strerror or error}); check its folder") from error


def _tables(records: Sequence[Record]) -> dict[str, Table]:
    """Columns and rows, by name."""
    classes = list(dict.fromkeys(name for record in records for name in record.scores))
    named = list(zip(records, names_in_tables(records), strict=True))
    return {
        "predictions": (
            [*PREDICTIONS, *(f"p_{name}" for name in classes)],
            ([*prediction_row(one, name), *map(one.scores.get, classes)] for one, name in named),
        ),
        "glimpses": (
            list(glimpse_columns(classes)),
            (row for one, name in named for row in glimpse_rows(one, classes, name)),
        ),
        "errors": (list(ERRORS), (row for one, name in named for row in failure_rows(one, name))),
    }


def _needed(module: str, kind: str) -> Any:
    try:
        return import_module(module)
    except ImportError as error:
        raise BackendMissingError(
            f"{kind} files need {module.partition('.')[0]}, which can't be imported ({error}); pip install "
            f"'hiresattn[{KINDS[kind]}]'"
        ) from error


def _free(path: Path, *, overwrite: bool) -> Path:
    if path.exists() and not overwrite:
        raise ConfigError(f"{path}: is there already; overwrite replaces it, or give another name")
    return path


def _csv(part: Path, _: str, table: Table) -> None:
    columns, rows = table
    with part.open("w", encoding="utf-8", newline="") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(columns)
        writer.writerows(["" if value is None else csv_cell(cell(value)) for value in row] for row in rows)


def _parquet(pa: Any) -> Callable[[Path, str, Table], None]:
    """What writes a table; ``errors`` and texts are strings, numbers numbers, what is nowhere given is null."""
    import pyarrow.parquet as pq

    def write(part: Path, _: str, table: Table) -> None:
        columns, rows = table
        values = list(zip(*rows, strict=True)) or [() for _ in columns]
        kinds = ["double" if title.startswith("p_") else GLIMPSES.get(title) for title in columns]
        arrays = [
            pa.array(
                [value.encode("utf-8", "backslashreplace").decode() if isinstance(value, str) else value
                 for value in column],
                pa.type_for_alias(kind) if kind else None,
            )
            for kind, column in zip(kinds, values, strict=True)
        ]  # fmt: skip
        pq.write_table(pa.table(arrays, columns), part)

    return write


def _xlsx(tables: dict[str, Table], path: Path) -> Path:
    """A workbook; texts stay texts, also those that begin as a formula does."""
    openpyxl = _needed("openpyxl", "xlsx")
    from openpyxl.cell.cell import ILLEGAL_CHARACTERS_RE

    book = openpyxl.Workbook(write_only=True)
    for name, (columns, rows) in tables.items():
        sheet = book.create_sheet(name)
        sheet.append(columns)
        for number, row in enumerate(rows, 2):
            if number > _SHEET:
                raise ConfigError(f"{path}: a sheet holds {_SHEET} rows, and {name} has more; export to csv")
            cells = []
            for value in row:
                shown = cell(value)
                made = openpyxl.cell.WriteOnlyCell(sheet)
                made.value = ILLEGAL_CHARACTERS_RE.sub("?", shown) if isinstance(shown, str) else shown
                if isinstance(shown, str):
                    made.data_type = "s"
                cells.append(made)
            sheet.append(cells)
    with atomic_write(path) as part, part.open("wb") as file:
        book.save(file)
    return path


def _h5(records: Sequence[Record], folder: Path, *, overwrite: bool) -> list[Path]:
    h5py = _needed("h5py", "h5")
    found: dict[tuple[str, int], list[VisitedRegion]] = {}
    extents: dict[str, tuple[int | None, int | None]] = {}
    for record in records:
        for own in record.by_source():
            for region in own.regions:
                found.setdefault((own.source, region.depth), []).append(region)
            extents[own.source] = (
                (own.sources[0].height, own.sources[0].width) if own.sources else (None, None)
            )
    sources = list(dict.fromkeys(source for source, _ in found))
    names = dict(zip(sources, unique_names(sources), strict=True))
    paths = {key: folder / f"{names[key[0]]}.depth{key[1]}.h5" for key in found}
    for path in paths.values():
        _free(path, overwrite=overwrite)
    for (source, depth), regions in found.items():
        with atomic_write(paths[source, depth]) as part, h5py.File(part, "w") as file:
            coords = file.create_dataset("coords", data=np.array([(r.x, r.y) for r in regions], np.int64))
            file.create_dataset("attention", data=np.array([r.attention for r in regions], np.float32))
            file.create_dataset("patch_size_level0", data=np.array([r.height for r in regions], np.int64))
            coords.attrs["name"] = names[source]
            coords.attrs["patch_size_level0"] = regions[0].height
            height, width = extents[source]
            if height is not None and width is not None:
                coords.attrs["level0_height"], coords.attrs["level0_width"] = height, width
    return list(paths.values())
