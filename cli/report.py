"""``hiresattn report``: results as one HTML file to look at and to send."""

from typing import Any

import click

from hiresattn_cli import options
from hiresattn_cli.help import Command, group
from hiresattn_cli.output import one_line
from hiresattn_cli.progress import progress_bar


@click.command(
    cls=Command,
    short_help="Make one HTML file of results, to look at and to send.",
    example="hiresattn report out/ -o report.html",
)
@click.argument("results", metavar="RESULTS")
@group(
    "Options",
    click.option("-o", "--output", required=True, metavar="HTML", help="File to write."),
    options.value_range,
    options.hide_names,
    click.option("--overwrite", is_flag=True, help="Replace HTML, where it is there."),
)
@click.pass_context
def report(
    ctx: click.Context, /, results: str, *, output: str, value_range: Any, hide_names: bool, overwrite: bool
) -> None:
    """Make one HTML file of RESULTS: a results folder of `classify -o DIR/`, or a file of records (.jsonl).

    It opens in any browser, without a server or a network: a list of the cases, and for each the answer, where it was
    seen, and what it cost. The images are read again for the pictures, from the paths in the records.
    """
    from hiresattn.inference.read_records import read_records, records_file
    from hiresattn.report.page import write_report
    from hiresattn.report.provenance import provenance

    with records_file(results).open("rb") as file:
        count = sum(1 for _ in file)
    with progress_bar("Reporting", count, wanted=ctx.obj >= 0) as update:
        made = write_report(
            read_records(results),
            output,
            values=value_range,
            overwrite=overwrite,
            hide_names=hide_names,
            progress=update,
            run=provenance(results),
        )
    for note in made.notes:
        if ctx.obj >= 0:
            click.echo(f"Warning: {one_line(note)}", err=True)
    if ctx.obj >= 0:
        click.echo(f"{made.cases} {'case' if made.cases == 1 else 'cases'} in {output}", err=True)
