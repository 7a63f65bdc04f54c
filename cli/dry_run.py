"""``classify --dry-run``: what each source would cost, before a pixel is read."""

import sys
from collections.abc import Iterator
from contextlib import ExitStack
from typing import TYPE_CHECKING, Any

import click

from hiresattn.inference.lines import json_line
from hiresattn_cli.output import one_line
from hiresattn_cli.records import exit_status

if TYPE_CHECKING:
    from hiresattn.card import Card
    from hiresattn.datasets.cases import Case
    from hiresattn.datasets.example import Example
    from hiresattn.datasets.sources import Unusable


def plan(
    sources: "list[str | Example | Unusable | Case]",
    model: "Card",
    output: str | None,
    *,
    overwrite: bool,
    budget: str,
    **settings: Any,
) -> int:
    """Write what the sources would cost; returns the exit status."""
    from hiresattn.inference.lines import LinesFile

    known = {name: settings[name] for name in ("bands", "value_range", "mpp", "assume_mpp", "nodata")}
    failed = 0
    with ExitStack() as stack:
        out = None if output is None else stack.enter_context(LinesFile(output, overwrite=overwrite))
        for record in planned(sources, model, budget=budget, **known):
            if out is None:
                sys.stdout.write(json_line(record) + "\n")
            else:
                out.write(record)
            failed += record["status"] == "error"
    return exit_status(failed, len(sources))


def planned(
    sources: "list[str | Example | Unusable | Case]", model: "Card", **options: Any
) -> Iterator[dict[str, Any]]:
    """One record per source: ``source, region, status`` (``planned`` or ``error``), ``run``, ``advice``, ``error``.

    Args:
        sources: From ``expand_sources``.
        model: A loaded model.
        options: As ``estimate_cost`` takes them.
    """
    from hiresattn.datasets.cases import examples_of
    from hiresattn.datasets.sources import Unusable
    from hiresattn.errors import HiresattnError, OpenError
    from hiresattn.inference.cost import estimate_cost

    for source in (one for item in sources for one in examples_of(item)):
        record: dict[str, Any] = {
            "source": source if isinstance(source, str) else str(source.source),
            "region": None if isinstance(source, str) else source.region,
            "status": "planned",
            "run": None,
            "advice": None,
            "error": None,
        }
        try:
            if isinstance(source, Unusable):
                raise OpenError(source.error)
            found = estimate_cost(source, model, **options)
            record |= {"run": found.run, "advice": found.advice}
        except HiresattnError as error:
            record |= {"status": "error", "error": one_line(error)}
            click.echo(f"Error: {record['error']}", err=True)
        if record["advice"]:
            click.echo(f"Warning: {record['advice']}", err=True)
        yield record
