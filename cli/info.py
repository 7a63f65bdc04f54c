"""``hiresattn info``: what a file holds, and what a run would read of it. Reads headers only."""

from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

import click

from hiresattn.errors import HiresattnError, OpenError, counted
from hiresattn.inference.lines import json_line
from hiresattn.report.units import human_bytes, human_px, human_share
from hiresattn_cli import options
from hiresattn_cli.help import Command, group
from hiresattn_cli.output import one_line, printable
from hiresattn_cli.sources import expand_sources

if TYPE_CHECKING:
    from hiresattn.datasets.example import Example
    from hiresattn.datasets.sources import Unusable
    from hiresattn.pyramid import Pyramid

#: What the estimate assumes: so many crops of so many px, the defaults of `classify` and of a model.
BUDGET, CROP = 64, 64
#: Most bands that are listed for people.
_MOST = 20


@click.command(cls=Command, short_help="Show what an image file holds.", example="hiresattn info slide.svs")
@click.argument("names", nargs=-1, required=True, metavar="SRC...")
@group("Options", options.mpp, options.nodata, options.as_json)
@click.pass_context
def info(
    ctx: click.Context, *, names: tuple[str, ...], as_json: bool, mpp: float | None, nodata: float | None
) -> None:
    """Show levels, tiles, data type, µm/px or CRS, nodata, and an estimate of what `classify` reads.

    SRC is what `classify` takes; of a manifest each image once. With --json, one JSON line per image.
    """
    from hiresattn.datasets.example import Example
    from hiresattn.datasets.sources import Unusable
    from hiresattn.pyramid import open_pyramid

    sources = list(_images(expand_sources(names)))
    failed = shown = 0
    for source in sources:
        try:
            if isinstance(source, Unusable):
                raise OpenError(source.error)
            example = source if isinstance(source, Example) else Example(source)
            with open_pyramid(example.source, mpp=mpp or example.mpp, nodata=nodata) as pyramid:
                facts = describe(str(example.source), pyramid)
        except HiresattnError as error:
            failed += 1
            click.echo(f"Error: {one_line(error)}", err=True)
            continue
        if as_json:
            click.echo(json_line(facts))
        else:
            click.echo(printable("\n".join([*([""] if shown else []), *_table(facts)])))
        shown += 1
    if failed:
        ctx.exit(3 if shown else 1)


def _images(sources: "list[str | Example | Unusable]") -> "Iterator[str | Example | Unusable]":
    """The images of sources: windows of one image are that image, once."""
    from hiresattn.datasets.example import Example

    seen = set()
    for source in sources:
        if not isinstance(source, Example):
            yield source
        elif source.source not in seen:
            seen.add(source.source)
            yield source


def describe(path: str, pyramid: "Pyramid") -> dict[str, Any]:
    """The facts of one image as JSON types."""
    from hiresattn.pyramid.pixels import note_alpha
    from hiresattn.reading.estimate import advice, preview

    names = ("width", "height", "downsample", "tile_width", "tile_height")
    return {
        "path": path,
        "backend": pyramid.backend,
        "width": pyramid.width,
        "height": pyramid.height,
        "channels": pyramid.channels,
        "dtype": str(pyramid.dtype),
        "levels": [{name: getattr(level, name) for name in names} for level in pyramid.levels],
        "mpp": pyramid.mpp,
        "mpp_source": pyramid.meta.mpp_source,
        "crs": pyramid.crs,
        "transform": None if pyramid.transform is None else list(pyramid.transform),
        "nodata": pyramid.nodata,
        **{name: _listed(getattr(pyramid.meta, name)) for name in _FIELDS},
        "bytes": pyramid.meta.nbytes or None,
        "run": preview(pyramid, budget=BUDGET).to_json(),
        "notes": [*pyramid.meta.notes, *note_alpha(pyramid.meta.alpha)],
        "advice": advice(pyramid),
    }


#: Fields with a value per band, and what people read of them.
_BANDWISE = {"channel_names": "bands", "colors": "colours", "scales": "scales", "offsets": "offsets"}
#: Colours that aren't worth a line.
_ORDINARY = {"red", "green", "blue", "gray", "palette", "undefined"}
#: Fields of an image's metadata that it may lack.
_FIELDS = ("channel_names", "colors", "scales", "offsets", "bounds", "gcps", "rpcs")


def _listed(value: Any) -> Any:
    return list(value) if isinstance(value, tuple) else value


def _table(facts: dict[str, Any]) -> Iterator[str]:
    """Lines for people."""
    levels, run = facts["levels"], facts["run"]
    stored = f", {human_bytes(facts['bytes'])}" if facts["bytes"] else ""
    bands = counted(facts["channels"], "band")
    yield facts["path"]
    yield (
        f"  image      {facts['width']} x {facts['height']} px "
        f"({human_px(facts['width'] * facts['height'])}), {bands} {facts['dtype']}{stored}"
    )
    yield f"  backend    {facts['backend']}"
    if facts["mpp"] is not None:
        yield f"  µm/px      {facts['mpp']:.5g} ({facts['mpp_source'] or 'source unknown'})"
    elif facts["mpp_source"]:
        yield f"  µm/px      unknown: {facts['mpp_source']}"
    if facts["crs"] or facts["transform"]:
        yield f"  CRS        {facts['crs'] or 'none'}"
    if facts["transform"]:
        yield f"  transform  {', '.join(f'{value:.10g}' for value in facts['transform'])}"
    yield f"  nodata     {'none' if facts['nodata'] is None else format(facts['nodata'], 'g')}"
    for name, words in _BANDWISE.items():
        values = facts[name] or ()
        if set(values) - _ORDINARY:
            yield f"  {words:9}  {', '.join(map(str, values[:_MOST]))}{', …' if len(values) > _MOST else ''}"
    if facts["bounds"]:
        y, x, height, width = facts["bounds"]
        yield f"  scanned    {width} x {height} px from column {x}, row {y}"
    points = counted(facts["gcps"], "ground control point")
    placing = facts["gcps"] and not facts["transform"]
    if placing:
        yield f"  placed by  {points}"
    unused = [points] * bool(facts["gcps"] and not placing) + ["RPCs"] * facts["rpcs"]
    if unused:
        yield f"  not used   {' and '.join(unused)}: warp the image first where positions matter"
    yield "  level      width x height      downsample      tile      tiles"
    count = 0
    for nth, level in enumerate(levels):
        tiles = -(-level["width"] // level["tile_width"]) * -(-level["height"] // level["tile_height"])
        count += tiles
        size = f"{level['width']} x {level['height']}"
        tile = f"{level['tile_width']} x {level['tile_height']}"
        yield f"  {nth:5}  {size:>19}  {level['downsample']:14.6g}  {tile:>12}  {tiles:>6}"
    of_all = f" of {human_bytes(facts['bytes'])}" if facts["bytes"] else ""
    yield (
        f"  a run      of {counted(run['budget'], 'look')} of {CROP} px reads about {run['tiles']} of "
        f"{counted(count, 'tile')}, "
        f"{human_bytes(run['bytes'])}{of_all}, {human_share(run['fraction'])} as many px as level 0 has, in "
        f"{counted(run['requests'], 'request')}"
    )
    for note in facts["notes"]:
        yield f"  note       {note.removeprefix(facts['path'] + ': ')}"
    if facts["advice"]:
        yield f"  advice     {facts['advice'].removeprefix(facts['path'] + ': ')}"
