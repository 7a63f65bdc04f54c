"""``hiresattn demo``: the main job, end to end, on a gigapixel scene that is made for it."""

from collections.abc import Iterator
from typing import Any

import click
from hiresattn_cli import options
from hiresattn_cli.output import json_line
from hiresattn_cli.progress import progress_bar


@click.command()
@click.option(
    "-o", "--output", default="demo-out", show_default=True, metavar="DIR", help="For scene and overlay."
)
@options.seed
@click.option(
    "--budget", default="80", show_default=True, metavar="N|BYTES|SECONDS", help="What looking may cost."
)
@options.as_json
@click.pass_context
def demo(ctx: click.Context, *, output: str, seed: int | None, budget: str, as_json: bool) -> None:
    """Make a gigapixel scene with one small target, and classify it by looking at a fraction of it.

    Scene and hints are synthetic: noise, drawn digits, and faint rings around the target (and decoys)
    that a look from afar can follow.
    """
    from pathlib import Path

    options.check_budget(budget)
    from hiresattn.demo import run

    with progress_bar("Demo", 1.0, wanted=ctx.obj >= 0) as update:
        report = run(
            Path(output), seed=seed or 0, budget=budget, progress=lambda step, share: update(share, step)
        )
    facts = report.to_json()
    if as_json:
        click.echo(json_line(facts))
    else:
        click.echo("\n".join(_table(facts)))


def _table(facts: dict[str, Any]) -> Iterator[str]:
    yield repr(facts)
