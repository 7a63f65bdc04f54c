"""``hiresattn export``: records as layers of geospatial programs."""

import click

from hiresattn_cli.help import Command, group
from hiresattn_cli.layers import SUFFIXES


@click.command(
    cls=Command,
    short_help="Write records as layers: GeoPackage, GeoParquet, GeoJSON.",
    example="hiresattn export records.jsonl -o scenes.gpkg",
)
@click.argument("records", nargs=-1, required=True, metavar="RECORDS...")
@group(
    "Options",
    click.option("-o", "--output", required=True, metavar="FILE", help=f"File, {SUFFIXES}."),
    click.option("--overwrite", is_flag=True, help="Replace FILE, where it is there."),
)
@click.pass_context
def export(ctx: click.Context, /, records: tuple[str, ...], *, output: str, overwrite: bool) -> None:
    """Write records of `classify -o` as layers: scenes, a row per source, and regions, a row per region looked at.

    RECORDS are files of JSON lines, or results folders. A GeoPackage holds both layers; of the other formats FILE has
    the scenes and NAME.regions.SUFFIX beside it the regions. Coordinates are those of the sources' own CRS, of GeoJSON
    and of several CRS longitude and latitude. No source is opened.
    """
    from hiresattn.geo.outputs import check_layers
    from hiresattn.geo.outputs import export as write
    from hiresattn.inference.read_records import read_records

    check_layers(output)
    found = [record for name in records for record in read_records(name)]
    files = write(found, output, overwrite=overwrite)
    if ctx.obj >= 0:
        click.echo(f"{len(found)} records in {' and '.join(map(str, files))}", err=True)
