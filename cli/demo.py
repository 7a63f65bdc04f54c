"""``hiresattn demo``: classify a gigapixel scene that is made for it."""

from collections.abc import Iterator
from typing import Any

import click

from hiresattn.files import make_folder
from hiresattn.inference.lines import json_line
from hiresattn.report.units import human_bytes, human_px, human_seconds, human_share
from hiresattn_cli import options
from hiresattn_cli.help import Command, group
from hiresattn_cli.output import printable
from hiresattn_cli.progress import progress_bar


@click.command(
    cls=Command,
    short_help="Classify a gigapixel scene, or train on slides, made for it.",
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
        metavar="N|BYTES|SECONDS",
        help="What the search may cost: glimpses (64), bytes read (50MB) or time (2s). [default: 80]",
    ),
    click.option(
        "--slide",
        is_flag=True,
        help="Instead: draw a cohort of slides, make its manifest, train a model, classify, report.",
    ),
    options.seed,
    options.as_json,
)
@click.pass_context
def demo(
    ctx: click.Context, *, output: str, seed: int | None, budget: str | None, slide: bool, as_json: bool
) -> None:
    """Make a gigapixel scene with one small target, and classify it from a fraction of its pixels.

    The scene is synthetic: noise, drawn digits, and faint rings around the target (and decoys), which are visible
    in coarse levels.

    With --slide: the way of a lab with its slides, in about a minute, from a spreadsheet of diagnoses to a report.
    """
    if slide and budget is not None:
        raise click.UsageError("--budget is of the scene; leave it out with --slide")
    budget = budget or "80"
    options.check_budget(budget)
    folder = make_folder(output)
    if slide:
        _slides(str(folder), seed or 0, ctx.obj, as_json=as_json)
        return
    from hiresattn.demo.run import run

    with progress_bar("Demo", 1.0, wanted=ctx.obj >= 0) as update:
        report = run(folder, seed=seed or 0, budget=budget, progress=lambda step, share: update(share, step))
    facts = report.to_json()
    if as_json:
        click.echo(json_line(facts))
    else:
        click.echo(printable("\n".join(_table(facts))))


def _slides(folder: str, seed: int, verbosity: int, *, as_json: bool) -> None:
    """The demo on slides."""
    from hiresattn.demo.slides import run

    with progress_bar("Demo", 1.0, wanted=verbosity >= 0) as update:
        found = run(folder, seed=seed, progress=lambda step, share: update(share, step)).to_json()
    click.echo(json_line(found) if as_json else printable("\n".join(_way(found))))


def _way(facts: dict[str, Any]) -> Iterator[str]:
    """What was done, for people, as the commands that do it."""
    files, seconds = facts["files"], facts["seconds"]
    yield f"{facts['slides']} drawn slides of {facts['patients']} patients, and a spreadsheet with their diagnoses."
    yield ""
    commands = {
        "making the manifest": f"hiresattn init {files['slides']} {files['table']} --label-column diagnosis "
        f"--val 0.25 --test 0.25 -o {files['manifest']}",
        "training": f"hiresattn train {files['outlined']} -o {files['model']} --epochs 5 --lr 2e-3",
        "classifying": f"hiresattn classify {files['manifest']} --split test -m {files['model']} "
        f"-o {files['results']}/",
        "reporting": f"hiresattn report {files['results']} -o {files['report']}",
    }
    for step, command in commands.items():
        yield f"  {step + ',':<21} {human_seconds(seconds[step]):>6}   {command}"
    yield ""
    yield f"  {files['outlined']} is the manifest with a column boxes: where the tumours are, as somebody outlined them"
    yield f"  patients not seen before   {facts['right']} of {facts['tested']} right"
    yield f"  looks at a patient         {facts['looks']:.1f}, {human_share(facts['fraction_read'])} of the pixels read"
    yield f"  the report                 {files['report']}"
    yield f"  where it looked            hiresattn view --results {files['results']}"
    yield ""
    yield facts["note"]


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
