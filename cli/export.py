"""``hiresattn export``: records as layers of geospatial programs, objects of QuPath, or tables."""

import sys
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING

import click

from hiresattn.errors import counted
from hiresattn_cli import options
from hiresattn_cli.help import Command, group
from hiresattn_cli.layers import SUFFIXES
from hiresattn_cli.output import one_line

if TYPE_CHECKING:
    from hiresattn.inference.record import Record


@click.command(
    cls=Command,
    short_help="Write records as layers (GeoPackage …), for QuPath, or as tables.",
    example="hiresattn export records.jsonl -o scenes.gpkg",
)
@click.argument("records", nargs=-1, required=True, metavar="RECORDS...")
@group(
    "Options",
    click.option(
        "--to",
        type=click.Choice(["layers", "geojson", "qupath", "csv", "parquet", "xlsx", "h5", "stac", "mlm"]),
        default="layers",
        show_default=True,
        help="What to write: layers; a GeoJSON file per image whose objects QuPath opens; tables; coordinates (h5); "
        "STAC items of scenes, with regions and attention; or, of a model in place of RECORDS, its item (mlm).",
    ),
    click.option(
        "-o",
        "--output",
        metavar="FILE|DIR",
        help=f"File, {SUFFIXES}, .xlsx; of a model .json; else a folder. [default: GeoJSON on stdout]",
    ),
    click.option(
        "--sequence/--collection",
        default=None,
        help="On stdout: a feature a line, or one collection. [default: sequence]",
    ),
    click.option(
        "--layer",
        type=click.Choice(["scenes", "regions"]),
        help="On stdout: which layer. [default: scenes]",
    ),
    click.option(
        "--model-item", metavar="JSON", help="For STAC: the model's own item, which items are linked to."
    ),
    click.option(
        "--datetime",
        "acquired",
        metavar="TIME",
        help="For STAC: when scenes were taken that don't say it, ISO 8601.",
    ),
    options.hide_names,
    click.option("--overwrite", is_flag=True, help="Replace files that are there."),
)
@click.pass_context
def export(
    ctx: click.Context,
    /,
    records: tuple[str, ...],
    *,
    to: str,
    output: str | None,
    sequence: bool | None,
    layer: str | None,
    model_item: str | None,
    acquired: str | None,
    hide_names: bool,
    overwrite: bool,
) -> None:
    """Write records of `classify -o` as layers: scenes, a row per source, and regions, a row per region looked at.

    RECORDS are files of JSON lines, results folders, or - for records on stdin. Without -o one layer goes to stdout as
    GeoJSON, for rio and other programs that take features.

    A GeoPackage holds both layers; of the other formats FILE has
    the scenes and NAME.regions.SUFFIX beside it the regions. Coordinates are those of the sources' own CRS, of GeoJSON
    and of several CRS longitude and latitude. No source is opened.

    For QuPath (--to qupath) every look is an object inside the one that it was chosen from: annotations of the answer's
    class where they carry it, else detections. Open the image there, and drop its file on it.

    csv, parquet and xlsx are tables of cases, looks and errors; h5 has the corners of the looks, a file per image and
    depth.
    """
    if hide_names and to in ("stac", "mlm"):
        raise click.UsageError(f"--to {to} links to files by their names; without --hide-names")
    _check_output(to, output, on_stdout=sequence is not None or layer is not None)
    if output is None:
        _write_features(
            _read(records, hide_names=hide_names), layer or "scenes", collection=sequence is False
        )
        return
    if to == "qupath":
        from hiresattn.report.qupath import write_qupath

        read = _read(records, hide_names=hide_names, drawn=True)
        written = write_qupath(read, output, overwrite=overwrite)
        if ctx.obj >= 0:
            click.echo(f"{counted(len(written), 'file')} in {output}", err=True)
        return
    if to in ("csv", "parquet", "xlsx", "h5"):
        from hiresattn.report.exports import export_tables

        read = _read(records, hide_names=hide_names)
        tables = export_tables(read, output, to, overwrite=overwrite)
        if ctx.obj >= 0:
            click.echo(output if to == "xlsx" else f"{counted(len(tables), 'file')} in {output}", err=True)
        return
    if to == "mlm":
        from hiresattn.geo.mlm import write_mlm_item

        if len(records) != 1:
            raise click.UsageError("--to mlm takes one model directory")
        write_mlm_item(records[0], output, overwrite=overwrite)
        return
    if to == "stac":
        from hiresattn.geo.items import write_items

        read = _read(records, hide_names=hide_names)
        items = write_items(read, output, model=model_item, acquired=acquired, overwrite=overwrite)
        if ctx.obj >= 0:
            click.echo(f"{counted(len(items) - 1, 'item')} in {output}", err=True)
        return
    from hiresattn.geo.outputs import check_layers
    from hiresattn.geo.outputs import export as write

    check_layers(output)
    found = list(_read(records, hide_names=hide_names))
    files = write(found, output, overwrite=overwrite)
    if ctx.obj >= 0:
        click.echo(f"{len(found)} records in {' and '.join(map(str, files))}", err=True)


def _check_output(to: str, output: str | None, *, on_stdout: bool) -> None:
    """Refuse an output that doesn't go with what is written."""
    if output is None and to != "layers":
        raise click.UsageError(f"--to {to} writes files; name them with -o")
    if output is not None and on_stdout:
        raise click.UsageError("--sequence, --collection and --layer are for GeoJSON on stdout; leave out -o")
    if to == "geojson" and output is not None and not output.endswith((".geojson", ".json")):
        raise click.UsageError(f"{output}: a GeoJSON file ends in .geojson")


def _write_features(records: "Iterator[Record]", layer: str, *, collection: bool) -> None:
    """A layer on stdout, as rio's commands write and take features."""
    from hiresattn.geo.outputs import feature_lines

    for line in feature_lines(list(records), layer, collection=collection):
        sys.stdout.write(f"{line}\n")


def _read(files: Sequence[str], *, hide_names: bool, drawn: bool = False) -> "Iterator[Record]":
    """The records of several files or folders; for what is drawn on images without regions of files that changed."""
    from hiresattn.inference.read_records import read_records, records_in
    from hiresattn.report.changed import without_changed
    from hiresattn.report.hidden import hide_all

    stdin = sys.stdin.buffer
    read: Iterator[Record] = (
        record
        for name in files
        for record in (records_in(stdin, "<stdin>") if name == "-" else read_records(name))
    )
    if drawn:
        read = without_changed(read, _warn)
    return hide_all(read) if hide_names else read


def _warn(note: str) -> None:
    click.echo(f"Warning: {one_line(note)}", err=True)
