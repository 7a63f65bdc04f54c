"""Where ``classify`` writes: a file of records, or a folder of results."""

from contextlib import ExitStack
from typing import TYPE_CHECKING

import click

if TYPE_CHECKING:
    from hiresattn.card import Card
    from hiresattn.cluster.shards import Shard
    from hiresattn.inference.options import ClassifyOptions
    from hiresattn.inference.records_file import RecordsFile


def by_default(
    output: str | None, shard: "Shard | None", overlay: str | None, *, no_overlays: bool, no_qupath: bool
) -> tuple[bool, bool]:
    """Whether the output gets overlays, and objects for QuPath, without being asked: a folder, but not a shard's.

    Raises:
        click.UsageError: If they are turned off where there are none.
    """
    from hiresattn.report.results import is_results_folder

    folder = output is not None and is_results_folder(output)
    for name, given in (("overlays", no_overlays), ("qupath", no_qupath)):
        if given and not folder:
            raise click.UsageError(
                f"--no-{name} is for a folder of results (-o DIR/); elsewhere there are none"
            )
    return folder and not (shard or overlay or no_overlays), folder and not (shard or no_qupath)


def file_of(
    stack: ExitStack,
    output: str | None,
    run: "tuple[Card, ClassifyOptions]",
    *,
    resume: bool,
    overwrite: bool,
    qupath: bool,
) -> "RecordsFile | None":
    """The file that records go to, or the folder of results, open until ``stack`` ends; None = to stdout."""
    from hiresattn.inference.records_file import RecordsFile
    from hiresattn.report.results import ResultsFolder, is_results_folder

    if output is None:
        return None
    if is_results_folder(output):
        folder = ResultsFolder(output, *run, resume=resume, overwrite=overwrite, qupath=qupath)
        return stack.enter_context(folder)
    return stack.enter_context(RecordsFile(output, *run, resume=resume, overwrite=overwrite))
