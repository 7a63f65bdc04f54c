"""``hiresattn export-attention``: where the training images show their classes, as maps and pictures."""

import click

from hiresattn.errors import HiresattnError
from hiresattn_cli import options
from hiresattn_cli.help import Command, group
from hiresattn_cli.output import one_line
from hiresattn_cli.progress import progress_bar


@click.command(
    "export-attention",
    cls=Command,
    short_help="Write attention maps of training images.",
    example="hiresattn export-attention model slides.csv -o attention-maps",
)
@click.argument("model", metavar="MODEL")
@click.argument("manifest", metavar="MANIFEST")
@group(
    "Options",
    click.option("-o", "--output", required=True, metavar="DIR", help="Folder of the maps; made if missing."),
    click.option(
        "--on-error",
        type=click.Choice(["skip", "raise"]),
        default="skip",
        show_default=True,
        help="Unreadable image: report and skip it (exit status 3), or stop.",
    ),
    options.one_thread,
)
@click.pass_context
def export_attention(
    ctx: click.Context, /, *, model: str, manifest: str, output: str, on_error: str, threads: int
) -> None:
    """Write attention maps of the images that MODEL was trained on.

    MANIFEST is the one of the training. The scorer must tell classes apart: oaa (attention accumulated over the
    training), saol or evidence. Of each image and class DIR gets a PNG, and of each image a map as GeoTIFF where it
    has a CRS, else as OME-Zarr.
    """
    from hiresattn.attention_maps.export import export_attention as export
    from hiresattn.checkpoint import load_model
    from hiresattn.datasets.folder import read_examples

    trained = load_model(model).training.get("options", {})
    examples = read_examples(
        manifest,
        multi=bool(trained.get("multi_label")),
        fold=trained.get("fold"),
        seed=trained.get("seed", 0),
    )
    lost = 0

    def report(error: HiresattnError) -> None:
        nonlocal lost
        lost += 1
        click.echo(f"Error: {one_line(error)}", err=True)

    count = without = 0
    with progress_bar("Writing maps", 1.0, wanted=ctx.obj >= 0) as update:
        skip = report if on_error == "skip" else None
        for one in export(model, examples, output, threads=threads, on_skip=skip):
            count, without = count + 1, without + (not one.remembered)
            update(one.done, "")
    if ctx.obj >= 0:
        more = f"; {without} without accumulated maps have the trained model's own" if without else ""
        click.echo(f"Maps of {count} images in {output}{more}", err=True)
    if lost:
        ctx.exit(3 if count else 1)
