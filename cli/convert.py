"""``hiresattn convert``: any image that is read → OME-Zarr or COG, checked after writing."""

from collections.abc import Iterator
from typing import Any

import click

from hiresattn.errors import counted
from hiresattn.inference.lines import json_line
from hiresattn.report.units import human_bytes
from hiresattn_cli import options
from hiresattn_cli.help import Command, group
from hiresattn_cli.output import printable
from hiresattn_cli.progress import progress_bar

INTERRUPTED = 130


@click.command(
    cls=Command,
    short_help="Write an image as OME-Zarr or COG.",
    example="hiresattn convert slide.svs slide.ome.zarr --threads 4",
)
@click.argument("source", metavar="SRC")
@click.argument("target", metavar="DST")
@group(
    "Format",
    click.option(
        "--format",
        type=click.Choice(["zarr", "cog"]),
        help="OME-Zarr 0.5 or cloud-optimised GeoTIFF. [default: by DST's suffix: .zarr; .tif, .tiff]",
    ),
    click.option(
        "--levels",
        type=options.COUNT_OR_AUTO,
        metavar="N|auto",
        default="auto",
        show_default=True,
        help="Number of levels; auto: until the longer side is at most 256 px.",
    ),
    click.option("--chunk", type=int, default=256, show_default=True, metavar="PX", help="Side of a tile."),
    click.option(
        "--shard",
        type=int,
        metavar="PX",
        help="OME-Zarr: side of a shard, a file of many tiles. [default: 2048; less above 16 MB]",
    ),
    click.option(
        "--compression",
        metavar="NAME",
        help="OME-Zarr: zstd, blosc, none. COG: deflate, zstd, lzw, none, or jpeg (lossy). "
        "[default: zstd; deflate]",
    ),
    click.option(
        "--quality",
        type=click.IntRange(1, 100),
        default=85,
        show_default=True,
        metavar="N",
        help="Quality of jpeg, 1 to 100.",
    ),
)
@group(
    "Data",
    click.option(
        "--region", type=options.REGION, metavar="Y,X,H,W", help="Convert this window only, level-0 px."
    ),
    options.mpp,
    click.option("--nodata", type=float, metavar="VALUE", help="Stored value of px that were not measured."),
)
@group(
    "Run",
    click.option("--overwrite", is_flag=True, help="Replace DST, a file or a Zarr directory."),
    options.one_thread,
    options.as_json,
)
@click.pass_context
def convert(
    ctx: click.Context,
    /,
    *,
    source: str,
    target: str,
    levels: Any,
    threads: int,
    as_json: bool,
    **settings: Any,
) -> None:
    """Write an image as OME-Zarr 0.5 or as a cloud-optimised GeoTIFF.

    SRC is an image file, a URL, or a Zarr directory. DST is written whole, after a comparison with SRC, or not
    at all. Lossless, unless --compression jpeg. A px of a coarser level is the mean of the valid level-0 px below
    it. Kept: µm/px, CRS, transform, nodata, masks; in a COG also tags.
    """
    from hiresattn.conversion import convert as convert_image

    try:
        with progress_bar("Converting", 1.0, wanted=ctx.obj >= 0) as update:
            made = convert_image(
                source,
                target,
                levels=None if levels == "auto" else levels,
                threads=threads,
                progress=update,
                **settings,
            )
    except KeyboardInterrupt:
        click.echo(f"Interrupted. Nothing was written to {target}.", err=True)
        ctx.exit(INTERRUPTED)
    facts = made.to_json()
    if as_json:
        click.echo(json_line(facts))
    else:
        click.echo(printable("\n".join(_table(facts))))
    if ctx.obj >= 0:
        for note in made.notes:
            click.echo(f"Note: {target}: {note}", err=True)


def _table(facts: dict[str, Any]) -> Iterator[str]:
    """Lines for people."""
    size = f"{facts['width']} x {facts['height']} px"
    bands = counted(facts["channels"], "band")
    yield facts["target"]
    yield f"  {facts['format']:<10} {size}, {bands} {facts['dtype']}, {counted(facts['levels'], 'level')}"
    yield f"  stored     {human_bytes(facts['bytes'])}, {facts['compression']}"
    error = facts["largest_error"]
    compared = "after lossy compression" if error is None else f"largest error of a level's px {error:.3g}"
    yield f"  checked    {counted(facts['windows_checked'], 'window')} read back; {compared}"
    yield f"  time       {facts['seconds']:.1f} s"
