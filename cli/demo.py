"""``hiresattn demo``: classify a gigapixel scene that is made for it."""

from collections.abc import Iterator
from typing import Any

import click

from hiresattn.files import make_folder
from hiresattn.inference.lines import json_line
from hiresattn.report.units import human_bytes, human_px, human_share
from hiresattn_cli import options
from hiresattn_cli.help import Command, group
from hiresattn_cli.output import printable
from hiresattn_cli.progress import progress_bar


@click.command(
    cls=Command,
    short_help="Classify a gigapixel scene that is made for it.",
    example="hiresattn demo --budget 40",
)
@group(
    "Options",
    click.option(
        "-o",
        "--output",
        default="demo-out",
        show_default=True,
        metavar="DIR",
        help="Folder of scene and overlay.",
    ),
    click.option(
        "--budget",
        default="80",
        show_default=True,
        metavar="N|BYTES|SECONDS",
        help="What the search may cost: glimpses (64), bytes read (50MB) or time (2s).",
    ),
    options.seed,
    options.as_json,
)
@click.pass_context
def demo(ctx: click.Context, *, output: str, seed: int | None, budget: str, as_json: bool) -> None:
    """Make a gigapixel scene with one small target, and classify it from a fraction of its pixels.

    The scene is synthetic: noise, drawn digits, and faint rings around the target (and decoys), which are visible
    in coarse levels.
    """
    options.check_budget(budget)
    folder = make_folder(output)
    from hiresattn.demo.run import run

    with progress_bar("Demo", 1.0, wanted=ctx.obj >= 0) as update:
        report = run(folder, seed=seed or 0, budget=budget, progress=lambda step, share: update(share, step))
    facts = report.to_json()
    if as_json:
        click.echo(json_line(facts))
    else:
        click.echo(printable("\n".join(_table(facts))))


def _table(facts: dict[str, Any]) -> Iterator[str]:
    """Lines for people."""
    size = f"{facts['width']} x {facts['height']} px"
    yield f"A scene of {size} ({human_px(facts['width'] * facts['height'])}), one small digit in it."
    yield ""
    yield f"  true digit             {facts['truth']}"
    yield f"  predicted              {_checked(facts['class_name'], facts['truth'])}"
    yield f"  from coarse view only  {_checked(facts['lowres'], facts['truth'])}"
    yield f"  {facts['random_glimpses']:>3} random looks       {_checked(facts['random'], facts['truth'])}"
    yield ""
    yield f"  looks                  {facts['glimpses']} (stopped by: {facts['stop_reason']})"
    yield f"  pixels read            {human_share(facts['fraction_read'])}"
    share = facts["bytes_read"] / facts["bytes"]
    read = f"{human_bytes(facts['bytes_read'])} of {human_bytes(facts['bytes'])}"
    yield f"  bytes read             {read} ({human_share(share)})"
    making = f"{facts['write_seconds']:.0f} s to make the scene"
    yield f"  time to classify       {facts['seconds']:.2f} s (and {making})"
    yield ""
    yield f"  scene                  {facts['scene']}"
    yield f"  picture of the looks   {facts['overlay']}"
    yield ""
    yield facts["note"]


def _checked(prediction: str | None, truth: str) -> str:
    if prediction is None:
        return "none"
    return f"{prediction}  {'right' if prediction == truth else 'wrong'}"
