"""``hiresattn locate``: boxes from image labels, for training."""

from contextlib import ExitStack
from typing import Any

import click

from hiresattn_cli import options, workers
from hiresattn_cli.help import Command, group
from hiresattn_cli.output import one_line
from hiresattn_cli.progress import progress_bar
from hiresattn_cli.records import exit_status


@click.command(
    cls=Command,
    short_help="Write boxes around what shows each label.",
    example="hiresattn locate slides.csv -m patch-model -o slides-with-boxes.csv",
)
@click.argument("manifest", metavar="MANIFEST")
@group(
    "Options",
    click.option(
        "-m", "--model", required=True, metavar="MODEL", help="A model that knows what regions show."
    ),
    click.option("-o", "--output", required=True, metavar="CSV", help="The manifest to write, with boxes."),
    options.root,
    options.label_column,
    options.bands,
    options.value_range,
    options.assume_mpp,
    options.device,
    click.option(
        "--threads",
        type=click.IntRange(min=1),
        default=2,
        show_default=True,
        metavar="N",
        help="Threads that read.",
    ),
    click.option(
        "--on-error",
        type=click.Choice(["raise", "skip"]),
        default="raise",
        show_default=True,
        help="Unreadable image: stop, or copy its row as it is (exit status 3).",
    ),
    click.option("--resume", is_flag=True, help="Go on with an interrupted run: keep what it found."),
    click.option("--overwrite", is_flag=True, help="Replace CSV, and start anew."),
)
@click.pass_context
@workers.cluster
def locate(
    ctx: click.Context,
    /,
    manifest: str,
    *,
    model: str,
    output: str,
    resume: bool,
    overwrite: bool,
    cluster: workers.Cluster | None,
    **settings: Any,
) -> None:
    """Write boxes around what shows the label of each of MANIFEST's training images.

    Every finest region of these images is read. With a background class, regions of any other class are found in an
    image without a label, each with its class; without any, the image gets the background as its label. Without a
    background class, what images of one label have and others lack is found. `hiresattn train CSV` then trains the
    scorer with these boxes. Rows of other splits, and rows with boxes, are copied. What is found goes
    to CSV.part image by image, until CSV is written whole.
    """
    from hiresattn.inference.locate import locate as locate_boxes

    with ExitStack() as stack:
        update = stack.enter_context(progress_bar("Locating", 1.0, wanted=ctx.obj >= 0))
        if cluster is not None:
            settings["work"] = stack.enter_context(cluster.working("locator"))
        found = locate_boxes(
            manifest, model, output, resume=resume, overwrite=overwrite, progress=update, **settings
        )
    for source, error in found.failures:
        message = one_line(error)
        click.echo(f"Error: {message if source in message else f'{source}: {message}'}", err=True)
    if ctx.obj >= 0:
        failed = f", {len(found.failures)} failed (--resume tries them again)" if found.failures else ""
        click.echo(f"Boxes for {found.found} of {found.searched} images in {output}{failed}", err=True)
    ctx.exit(exit_status(len(found.failures), found.searched))
