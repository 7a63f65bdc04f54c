"""``--store``: the records of a command in a Parquet data set, too."""

from collections.abc import Callable
from contextlib import ExitStack
from typing import TYPE_CHECKING, Any

import click

if TYPE_CHECKING:
    from hiresattn.card import Card
    from hiresattn.inference.options import ClassifyOptions
    from hiresattn.inference.record import Record
    from hiresattn.inference.records_file import RecordsFile

option = click.option(
    "--store",
    "stored",
    type=click.Path(file_okay=False),
    metavar="DIR",
    help="Also add a row for each record to the Parquet data set DIR, which many runs and processes may share.",
)


def adding(
    put: "Callable[[Record, Any], None]",
    stack: ExitStack,
    folder: str | None,
    file: "RecordsFile | None",
    run: "tuple[Card, ClassifyOptions]",
    cases: "list[Any]",
) -> "Callable[[Record, Any], None]":
    """What writes a source's record and adds it to the data set; what the file holds and that lacks is added first.

    Args:
        put: Writes it.
        stack: Closes the data set.
        folder: The data set; None = none is asked for.
        file: Where the records go.
        run: Model and options.
        cases: All of the run, also those of other shards.
    """
    if folder is None:
        return put
    if file is None:
        raise click.UsageError("--store keeps what a file of records has, too; give one, or a folder (-o)")
    from hiresattn.cluster.shards import names_of
    from hiresattn.cluster.store import Store
    from hiresattn.inference.lines import json_line
    from hiresattn.inference.read_records import record_from_json
    from hiresattn.inference.records_file import hash_of
    from hiresattn.report.run_file import run_facts

    facts = {**run_facts(*run), "list": hash_of(names_of(cases))}
    store = stack.enter_context(Store(folder, facts, len(cases)))
    there = store.keys() if file.held else set()
    for line in file.held:
        if line.get("key") not in there:
            store.add(record_from_json(json_line(line), str(file.path)), line.get("key"))

    def add(record: "Record", source: Any) -> None:
        put(record, source)
        store.add(file.shown(record, source), file.key(source))

    return add
