"""Where ``classify`` writes: a file of records, or a folder of results."""

from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

if TYPE_CHECKING:
    from hiresattn.card import Card
    from hiresattn.cluster.shards import Shard
    from hiresattn.inference.options import ClassifyOptions
    from hiresattn.inference.records_file import RecordsFile


@dataclass(frozen=True)
class Extras:
    """What a folder of results gets beside records and tables."""

    overlays: bool
    qupath: bool
    hide_names: bool


def extras_of(
    output: str | None,
    shard: "Shard | None",
    overlay: str | None,
    *,
    no_overlays: bool,
    no_qupath: bool,
    hide_names: bool,
) -> Extras:
    """What the output gets without being asked: a folder, but not a shard's, overlays and objects for QuPath.

    Raises:
        click.UsageError: If something is asked for that is of folders only.
    """
    folder = False
    if output is not None:
        from hiresattn.report.results import is_results_folder

        folder = is_results_folder(output)
    asked = {"--no-overlays": no_overlays, "--no-qupath": no_qupath, "--hide-names": hide_names}
    for name, given in asked.items():
        if given and not folder:
            raise click.UsageError(f"{name} is for a folder of results (-o DIR/)")
    if shard is not None and hide_names:
        raise click.UsageError(
            "--hide-names is for a whole run; give it to report and export of the merged one"
        )
    alone = folder and shard is None
    return Extras(alone and not (overlay or no_overlays), alone and not no_qupath, hide_names)


def file_of(
    stack: ExitStack,
    output: str | None,
    run: "tuple[Card, ClassifyOptions]",
    extras: Extras,
    *,
    resume: bool,
    overwrite: bool,
) -> "RecordsFile | None":
    """The file that records go to, or the folder of results, open until ``stack`` ends; None = to stdout."""
    if output is None:
        return None
    from hiresattn.inference.records_file import RecordsFile
    from hiresattn.report.hidden import NAMES
    from hiresattn.report.results import ResultsFolder, is_results_folder

    if is_results_folder(output):
        if extras.hide_names and click.get_current_context().obj >= 0:
            click.echo(f"{Path(output) / NAMES} says which image is which: it isn't to be sent", err=True)
        return stack.enter_context(
            ResultsFolder(
                output,
                *run,
                resume=resume,
                overwrite=overwrite,
                qupath=extras.qupath,
                hide=extras.hide_names,
            )
        )
    return stack.enter_context(RecordsFile(output, *run, resume=resume, overwrite=overwrite))


def left_in(file: "RecordsFile | None", sources: list[Any]) -> tuple[list[Any], list[Any]]:
    """The sources that are to have a record, and those of them that have none yet."""
    if file is None:
        return sources, sources
    sources = file.once(sources)
    return sources, file.missing(sources)
