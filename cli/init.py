"""``hiresattn init``: slides and a table of labels in, a manifest out."""

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any

import click

from hiresattn.errors import counted
from hiresattn.inference.lines import json_line
from hiresattn_cli import options
from hiresattn_cli.groups import with_flags
from hiresattn_cli.help import Command, group
from hiresattn_cli.output import one_line, printable
from hiresattn_cli.progress import progress_bar

if TYPE_CHECKING:
    from hiresattn.datasets.cohort import Cohort

SOME_FAILED = 3
#: Names that a line shows of those left out.
_SHOWN = 5


@click.command(
    cls=Command,
    short_help="Make a manifest of slides and their labels.",
    example="hiresattn init slides labels.csv --label-column diagnosis -o cohort.csv",
)
@click.argument("slides", metavar="SLIDES")
@click.argument("table", metavar="LABELS")
@group(
    "Columns",
    click.option("--label-column", metavar="NAME", help="Holds the label. [default: label]"),
    click.option(
        "--slide-column",
        metavar="NAME",
        help="Names the slide. [default: path, slide, slide_id, file_name, image_id or the like]",
    ),
    click.option(
        "--case-column",
        metavar="NAME",
        help="Names the patient. [default: case_id, case, patient, patient_id or the like]",
    ),
    click.option(
        "--per-slide",
        is_flag=True,
        help="Slides of one patient have labels, and get answers, of their own; they stay in one split.",
    ),
)
@group(
    "Polygons",
    click.option("--class-column", metavar="NAME", help="Holds the class of each polygon."),
    click.option(
        "--boxes", is_flag=True, help="Polygons are boxes on their scene, a row each; else each is a window."
    ),
    click.option(
        "--distance",
        type=click.FloatRange(min=0),
        metavar="METRES",
        help="Between what is in different splits, at least. [default: 1000]",
    ),
)
@group(
    "Splits",
    click.option(
        "--val",
        type=click.FloatRange(0, 1, max_open=True),
        default=0.15,
        show_default=True,
        metavar="SHARE",
        help="Share of the patients of each class that validates.",
    ),
    click.option(
        "--test",
        type=click.FloatRange(0, 1, max_open=True),
        default=0.15,
        show_default=True,
        metavar="SHARE",
        help="Share that is kept for testing.",
    ),
    click.option(
        "--folds",
        type=click.IntRange(min=2),
        metavar="N",
        help="Write a column fold too, for `train --fold` and `evaluate --fold`.",
    ),
    options.seed,
)
@group(
    "Scale",
    click.option(
        "--assume-mpp",
        type=click.FloatRange(min=0, min_open=True),
        metavar="X",
        help="µm per level-0 px of slides whose row says none, and whose file none that can be meant.",
    ),
)
@group(
    "Output",
    click.option("-o", "--output", required=True, metavar="CSV", help="The manifest to write."),
    click.option("--overwrite", is_flag=True, help="Replace CSV."),
    options.as_json,
)
@group("Run", options.threads)
@click.pass_context
def init(
    ctx: click.Context,
    /,
    slides: str,
    table: str,
    *,
    output: str,
    seed: int | None,
    threads: int | None,
    as_json: bool,
    class_column: str | None,
    boxes: bool,
    distance: float | None,
    **settings: Any,
) -> None:
    """Make a manifest of the slides in the folder SLIDES and of their labels in LABELS, a CSV or Parquet file.

    A row of LABELS names a slide, with or without suffix and folders; or a patient, whose slides are those whose
    name begins with the patient's id, or whose folder is named after it. Nothing is guessed: what has no partner,
    or may have two, is listed and left out. Patients are split, class by class; a column split wins. Headers are
    read: slides without µm/px are listed, and those that can't be opened are left out (exit status 3).

    With --class-column LABELS are polygons in any CRS: each is the rectangle of px around it on every scene that it
    lies on, and places are split, not rows: what is closer together than --distance is in one.
    """
    if class_column is not None:
        given = {"label_column", "slide_column", "case_column", "per_slide", "assume_mpp"}
        if named := [name for name in sorted(given) if settings[name]]:
            raise click.UsageError(
                f"--{named[0].replace('_', '-')} is for a table, and --class-column for polygons"
            )
        shares = {name: settings[name] for name in ("val", "test", "overwrite")} | {"seed": seed or 0}
        asked = shares | ({} if distance is None else {"distance": distance})
        _of_polygons(slides, table, output, as_json=as_json, class_column=class_column, boxes=boxes, **asked)
        return
    if table.lower().endswith((".gpkg", ".geojson", ".shp", ".fgb")):
        raise click.UsageError(f"{table}: polygons; name the column of their class with --class-column")
    if boxes or distance is not None:
        raise click.UsageError("--boxes and --distance are for polygons; name their --class-column")
    from hiresattn.datasets.cohort import make_manifest

    settings |= {"seed": seed or 0} | ({} if threads is None else {"threads": threads})
    with progress_bar("Reading headers", 1.0, wanted=ctx.obj >= 0) as update:
        made = make_manifest(slides, table, output, progress=update, **settings)
    click.echo(
        json_line(made.to_json())
        if as_json
        else printable("\n".join(_lines(made, per_slide=settings["per_slide"])))
    )
    if ctx.obj >= 0:
        for note in made.notes:
            click.echo(f"Note: {with_flags(one_line(note), ctx.command)}", err=True)
    if "unreadable" in made.left_out:
        ctx.exit(SOME_FAILED)


def _of_polygons(scenes: str, polygons: str, output: str, *, as_json: bool, **asked: Any) -> None:
    """Make a manifest of polygons, and say what it holds."""
    from hiresattn.geo.polygons import manifest_of_polygons

    made = manifest_of_polygons(scenes, polygons, output, **asked)
    if as_json:
        click.echo(json_line(made.to_json()))
        return
    rows = counted(made.rows, "row" if asked["boxes"] else "window")
    of = f"{rows} of {counted(made.scenes, 'scene')} in {counted(made.places, 'place')}"
    table = [["class", "train", "val", "test"]]
    table += [[name, *map(str, own.values())] for name, own in made.classes.items()]
    widths = [max(len(row[i]) for row in table) for i in range(len(table[0]))]
    lines = [
        "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip()
        for row in table
    ]
    click.echo(printable("\n".join([f"{made.manifest}: {of}", "", *lines])))
    for words in made.left_out:
        click.echo(f"Left out: {one_line(words)}", err=True)


def _lines(made: "Cohort", *, per_slide: bool) -> Iterator[str]:
    """Lines for people."""
    from hiresattn.datasets.label_table import REASONS
    from hiresattn.pyramid.mpp import scale_words

    used = ", ".join(f"{what} from {name!r}" for what, name in made.columns.items())
    yield f"{made.manifest}: {made.slides} of {counted(made.found, 'slide')}; {used}"
    yield ""
    unit = "cases" if "case" in made.columns and not per_slide else "slides"
    rows = [[label, *map(str, own.values())] for label, own in made.cases.items()]
    table = [[unit, *made.splits], *rows, ["all", *map(str, made.splits.values())]]
    widths = [max(len(row[i]) for row in table) for i in range(len(table[0]))]
    for row in table:
        first, *others = (cell.ljust(width) for cell, width in zip(row, widths, strict=True))
        yield "  ".join([first, *others]).rstrip()
    yield ""
    scales = [f"{scale_words(float(mpp))} ({counted(count, 'slide')})" for mpp, count in made.mpp.items()]
    yield f"scale: {', '.join(scales) or 'unknown'}"
    if made.scale_unknown:
        what = f"{counted(len(made.scale_unknown), 'slide')} without µm/px"
        yield from _list(f"{what}, which a column mpp or --assume-mpp gives", made.scale_unknown)
    for reason, names in made.left_out.items():
        what, why = REASONS[reason]
        said = [with_flags(name, init) for name in names] if reason == "contradictory" else names
        yield from _list(f"Left out: {counted(len(names), what)} {why}", said)


def _list(title: str, names: Sequence[str]) -> Iterator[str]:
    yield f"{title}:"
    for name in names[:_SHOWN]:
        yield f"  {one_line(name)}"
    if len(names) > _SHOWN:
        yield f"  and {len(names) - _SHOWN} more; --json has all"
