"""``hiresattn status``: how far a run is."""

import sys
from datetime import datetime
from typing import TYPE_CHECKING

import click

from hiresattn.inference.lines import json_line
from hiresattn_cli.help import Command, group
from hiresattn_cli.output import one_line

if TYPE_CHECKING:
    from hiresattn.cluster.status import Progress


@click.command(
    cls=Command,
    short_help="Say how far a run is: cases done, errors, rate, time left.",
    example="hiresattn status out/",
)
@click.argument("results", metavar="RESULTS")
@group(
    "Options",
    click.option("--json", "as_json", is_flag=True, help="JSON lines: the whole, then each shard or run."),
)
def status(results: str, *, as_json: bool) -> None:
    """Say how far a run is, while it works or after.

    RESULTS is a results folder, the folder of a job array (classify --shard), a file of records
    (.jsonl), or a Parquet data set (classify --store).
    """
    from hiresattn.cluster.status import status as progress

    whole, shards = progress(results)
    for one in (whole, *shards):
        sys.stdout.write((json_line(one.to_json()) if as_json else _line(one)) + "\n")


def _line(one: "Progress") -> str:
    """One line for people."""
    parts = [f"{one.done} done" if one.cases is None else f"{one.done} of {one.cases} done"]
    if one.errors:
        parts.append(f"{one.errors} failed")
    if one.rate is not None:
        parts.append(f"{one.rate:.3g} a second")
    if one.seconds_left and one.done != one.cases:
        parts.append(f"{_span(one.seconds_left)} left")
    if one.last is not None:
        parts.append(f"last {datetime.fromisoformat(one.last).astimezone():%Y-%m-%d %H:%M:%S}")
    return f"{one_line(one.name)}: {', '.join(parts)}"


def _span(seconds: float) -> str:
    minutes, hours = seconds / 60, seconds / 3600
    if hours >= 1:
        return f"{hours:.1f} h"
    return f"{minutes:.0f} min" if minutes >= 1 else f"{seconds:.0f} s"
