"""``hiresattn extract``: an encoder's features of all regions of images, for training heads."""

from contextlib import ExitStack
from typing import Any

import click

from hiresattn_cli import options, workers
from hiresattn_cli.groups import with_flags
from hiresattn_cli.help import Command, group
from hiresattn_cli.output import one_line
from hiresattn_cli.progress import progress_bar
from hiresattn_cli.records import exit_status
from hiresattn_cli.sources import expand_sources


@click.command(
    cls=Command,
    short_help="Keep an encoder's features of images.",
    example="hiresattn extract cohort.csv --encoder local-dir:encoders/uni --mpp 0.5 -o features",
)
@click.argument("names", nargs=-1, required=True, metavar="SRC...")
@group(
    "Options",
    click.option(
        "--encoder",
        required=True,
        metavar="NAME",
        help="Pretrained encoder (timm, hf-hub:, local-dir:, .safetensors), or a model directory.",
    ),
    click.option("-o", "--output", required=True, metavar="DIR", help="Folder: one file per image."),
    click.option(
        "--mpp", type=click.FloatRange(min=0, min_open=True), metavar="X", help="µm per px of a crop."
    ),
    click.option(
        "--side",
        type=click.IntRange(min=1),
        metavar="PX",
        help="Side of a region, level-0 px. [default: a crop's, or the model's]",
    ),
    click.option(
        "--format",
        type=click.Choice(["zarr", "h5"]),
        default="zarr",
        show_default=True,
        help="zarr, or h5 as CLAM and TRIDENT have it.",
    ),
    click.option("--overwrite", is_flag=True, help="Replace features by another encoder, scale or format."),
    click.option(
        "--batch-size",
        type=click.IntRange(min=1),
        default=64,
        show_default=True,
        metavar="N",
        help="Crops encoded at once.",
    ),
    click.option(
        "--foreground",
        type=click.Choice(["tissue", "none"]),
        help="Regions that hold tissue, or all. [default: as the model was trained; tissue of slides]",
    ),
    options.root,
    options.label_column,
    options.bands,
    options.value_range,
    options.device,
    click.option(
        "--threads",
        type=click.IntRange(min=1),
        default=2,
        show_default=True,
        metavar="N",
        help="Threads that read.",
    ),
    options.as_json,
)
@click.pass_context
@workers.cluster
def extract(
    ctx: click.Context,
    /,
    names: tuple[str, ...],
    *,
    encoder: str,
    output: str,
    root: str | None,
    label_column: str | None,
    as_json: bool,
    cluster: workers.Cluster | None,
    **settings: Any,
) -> None:
    """Encode all regions of images at one scale, and keep the features: `train --features DIR` reads no image.

    SRC is what `classify` takes; of a manifest each image once. An image whose features are in DIR is not read again;
    several processes may extract into one folder. Coordinates are level-0 px.
    """
    from hiresattn.inference.extract import extract as extract_features
    from hiresattn.inference.lines import json_line

    counts = dict.fromkeys(("ok", "held", "elsewhere", "error"), 0)
    regions = 0
    with ExitStack() as stack:
        update = stack.enter_context(progress_bar("Extracting", 1.0, wanted=ctx.obj >= 0))
        if cluster is not None:
            settings["work"] = stack.enter_context(cluster.working("extractor"))
        sources = expand_sources(names, root=root, label_column=label_column)
        for record in extract_features(sources, encoder, output, progress=update, **settings):
            counts[record.status] += 1
            regions += record.regions
            if as_json:
                click.echo(json_line(record.to_json()))
            if record.error is not None:
                message = with_flags(one_line(record.error), ctx.command)
                named = message if record.source in message else f"{record.source}: {message}"
                click.echo(f"Error: {named}", err=True)
            if record.note is not None and ctx.obj >= 0:
                click.echo(f"Note: {record.source}: {record.note}", err=True)
    if ctx.obj >= 0:
        words = f"{counts['ok']} images extracted, {counts['held']} were there"
        words += f", {counts['elsewhere']} by another process" if counts["elsewhere"] else ""
        words += f", {counts['error']} failed" if counts["error"] else ""
        click.echo(f"{words}; {regions:,} regions in {output}", err=True)
    ctx.exit(exit_status(counts["error"], sum(counts.values())))
