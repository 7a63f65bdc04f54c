"""``hiresattn bench``: measure speed on this machine."""

from collections.abc import Iterator
from typing import TYPE_CHECKING

import click

from hiresattn.inference.lines import json_line
from hiresattn.report.units import human_bytes
from hiresattn_cli import options
from hiresattn_cli.help import Command, group
from hiresattn_cli.progress import progress_bar

if TYPE_CHECKING:
    from hiresattn.pyramid import Pyramid
    from hiresattn.reading.bench import ReadBench


@click.group()
def bench() -> None:
    """Measure speed on this machine."""


@bench.command(cls=Command, example="hiresattn bench read slide.svs --crops 200")
@click.argument("file")
@group(
    "Options",
    click.option(
        "--pattern",
        type=click.Choice(["clustered", "grid", "random"]),
        default="clustered",
        show_default=True,
        help="Where the crops lie: around 10 centres, side by side, or anywhere.",
    ),
    click.option(
        "--crops",
        type=click.IntRange(min=1),
        default=500,
        show_default=True,
        metavar="N",
        help="Number of crops.",
    ),
    click.option(
        "--size",
        type=click.IntRange(min=1),
        default=224,
        show_default=True,
        metavar="PX",
        help="Side of a crop, level-0 px.",
    ),
    options.as_json,
)
@click.pass_context
def read(ctx: click.Context, file: str, *, pattern: str, crops: int, size: int, as_json: bool) -> None:
    """Time reading crops of FILE beside the usual library loop and the decode floor.

    All read the same crops of level 0, on one thread, in turns; their pixels are compared. Times are ms per crop,
    the least of 3 rounds, with the file in the system's cache. The floor decodes each tile under the crops once,
    from memory. "Ready for a network" is float32, scaled, bands first.
    """
    from hiresattn.pyramid import open_pyramid
    from hiresattn.reading.bench import ROUNDS, bench_reading

    with open_pyramid(file) as pyramid, progress_bar("Reading", ROUNDS, wanted=ctx.obj >= 0) as update:
        found = bench_reading(pyramid, pattern, crops=crops, size=size, progress=update)
        lines = [json_line(found.to_json())] if as_json else list(_table(pyramid, found))
    click.echo("\n".join(lines))


def _table(pyramid: "Pyramid", found: "ReadBench") -> Iterator[str]:
    """Lines for people."""
    ours, floor = found.ours, found.floor
    yield pyramid.source
    yield (
        f"  {found.crops} crops of {found.size} px, {found.pattern}: {ours.tiles} tiles decoded of "
        f"{ours.unique_tiles} under them, {human_bytes(ours.bytes)}"
    )
    yield f"  {'':28}{'CPU ms':>8}{'wall ms':>9}  per crop"
    yield f"  {'hiresattn':28}{ours.cpu_ms:8.3f}{ours.wall_ms:9.3f}"
    yield f"  {'  ready for a network':28}{found.fused.cpu_ms:8.3f}{found.fused.wall_ms:9.3f}"
    yield f"  {found.loop.name:28}{found.loop.cpu_ms:8.3f}{found.loop.wall_ms:9.3f}"
    if floor is not None:
        yield f"  {'floor: ' + floor.decoder:28}{floor.cpu_ms:8.3f}"
    over = "" if floor is None else f", {found.ratio_to_floor:.2f} times the floor"
    yield (
        f"  {found.speedup_over_loop:.1f} times as fast as the loop{over}; largest difference of a value from "
        f"the loop's {found.max_abs_difference:g}"
    )
