"""``hiresattn classify``: images in, one JSON line each out, or one in words on a terminal."""

import sys
from collections.abc import Callable
from contextlib import ExitStack, nullcontext
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from hiresattn.inference.lines import json_line
from hiresattn_cli import options, store, workers
from hiresattn_cli.answers import Answers, answer, telling
from hiresattn_cli.dry_run import plan
from hiresattn_cli.help import Command, group
from hiresattn_cli.layers import SUFFIXES, LayersFile, checked_output
from hiresattn_cli.output import on_terminal
from hiresattn_cli.pictures import complete, default_overlays, images_of, pictures_of, take
from hiresattn_cli.progress import Update, progress_bar
from hiresattn_cli.records import Counts, as_done, in_order, report
from hiresattn_cli.results import extras_of, file_of, left_in
from hiresattn_cli.sources import Places, expand_sources, stacked, windows, with_assets

if TYPE_CHECKING:
    from hiresattn.card import Card
    from hiresattn.cluster.shards import Shard
    from hiresattn.datasets.cases import Case
    from hiresattn.datasets.example import Example
    from hiresattn.datasets.sources import Unusable
    from hiresattn.inference.options import ClassifyOptions
    from hiresattn.inference.record import Record

    Source = str | Example | Unusable | Case


@click.command(cls=Command, example="hiresattn classify slides/*.svs -m model --budget 64 -o records.jsonl")
@click.argument("names", nargs=-1, metavar="SRC...")
@group("Model", options.model, options.device, options.engine, options.provider, options.precision)
@group(
    "Data",
    click.option(
        "--region",
        "regions",
        type=options.REGION,
        multiple=True,
        metavar="Y,X,H,W",
        help="Classify this window only, level-0 px. May be repeated; needs a single image.",
    ),
    click.option(
        "--bbox",
        type=options.BOX,
        metavar="W,S,E,N",
        help="Classify this box of scenes only, degrees of longitude and latitude (EPSG:4326).",
    ),
    click.option(
        "--bounds",
        type=options.BOUNDS,
        metavar="L,B,R,T",
        help="Classify this box of scenes only, coordinates of each one's own CRS.",
    ),
    click.option(
        "--aoi",
        metavar="FILE",
        help="Classify the areas in FILE (GeoJSON, GeoPackage …, any CRS) only: one record each.",
    ),
    click.option(
        "--clip",
        is_flag=True,
        help="Px outside the areas of --aoi aren't valid, nor looked at.",
    ),
    click.option(
        "--split", type=click.Choice(["train", "val", "test"]), help="Rows of a manifest to classify."
    ),
    options.root,
    options.label_column,
    click.option(
        "--stack",
        "stacks",
        multiple=True,
        metavar="NAME=FILE,...",
        help="Files whose bands are one scene: B04=red.tif,B03=green.tif. May be repeated.",
    ),
    click.option(
        "--assets",
        metavar="NAMES",
        help="Assets, bands or common names that are the image, of STAC items: red,green,blue.",
    ),
    options.bands,
    options.value_range,
    options.mpp,
    options.assume_mpp,
    options.nodata,
    options.foreground,
    options.per_source,
    click.option("--strict", is_flag=True, help="A tile that the file leaves out is an error."),
)
@group(
    "Search",
    options.budget,
    options.stop,
    options.until_confidence,
    options.max_budget,
    options.policy,
    options.nms,
    options.scorer,
    options.seed,
)
@group(
    "Output",
    click.option(
        "-o",
        "--output",
        metavar="FILE|DIR",
        help=f"File of the JSON lines, .jsonl; or a folder (no suffix, or a slash at the end): the lines, tables, and "
        f"what made them; or layers with the lines beside them: {SUFFIXES}. [default: stdout]",
    ),
    store.option,
    click.option("--json", "as_json", is_flag=True, help="JSON lines on a terminal, too."),
    click.option(
        "--resume",
        is_flag=True,
        help="Keep the records in FILE; classify what is missing or failed there. A folder is always gone on with.",
    ),
    click.option("--overwrite", is_flag=True, help="Start anew, where FILE or DIR holds something."),
    click.option(
        "--overlay",
        type=click.Path(file_okay=False),
        metavar="DIR",
        help="Draw the visited regions: a PNG for each image.",
    ),
    click.option(
        "--no-overlays", is_flag=True, help="Of a folder: draw none, as is done for up to 50 images."
    ),
    click.option(
        "--no-qupath",
        is_flag=True,
        help="Of a folder: write no objects for QuPath, as is done for up to 100,000 looks.",
    ),
    options.hide_names,
    click.option(
        "--attention",
        type=click.Path(file_okay=False),
        metavar="DIR",
        help="Write the attention at each place: a GeoTIFF for each image, on its own grid.",
    ),
    click.option(
        "--dry-run",
        is_flag=True,
        help="Read no pixels: print what each source would cost (tiles, bytes, requests).",
    ),
)
@group("Run", options.batch_images, options.threads, workers.shard)
@click.pass_context
@workers.cluster
@workers.shared
def classify(
    ctx: click.Context,
    /,
    names: tuple[str, ...],
    model: str,
    *,
    output: str | None,
    as_json: bool,
    budget: str,
    regions: tuple[tuple[int, int, int, int], ...],
    bbox: tuple[float, float, float, float] | None,
    bounds: tuple[float, float, float, float] | None,
    aoi: str | None,
    clip: bool,
    stacks: tuple[str, ...],
    assets: str | None,
    split: str | None,
    root: str | None,
    label_column: str | None,
    overlay: str | None,
    no_overlays: bool,
    no_qupath: bool,
    hide_names: bool,
    attention: str | None,
    stop: Any,
    nms: float | None,
    seed: int | None,
    threads: int | None,
    dry_run: bool,
    resume: bool,
    overwrite: bool,
    per_source: bool,
    shard: "Shard | None",
    stored: str | None,
    cluster: workers.Cluster | None,
    **settings: Any,
) -> None:
    """Classify images: one line per image, or per case where a manifest names cases.

    SRC is an image file or URL, a folder (its images, and those in folders below; a Zarr directory is one
    image), a quoted glob, a .csv or .parquet manifest (path,label[,split][,case_id][,y,x,height,width]), or - for
    paths on stdin.

    A line is in words on a terminal, and JSON in a pipe, in a file (-o) and with --json.

    A source that fails gives a line with its error; the others go on. Exit status 1: all failed; 3: some failed.
    """
    if shard is not None and not dry_run:
        output = workers.shard_output(output, shard)
    output, layers = checked_output(output, resume=resume, overwrite=overwrite, dry_run=dry_run)
    named = expand_sources(names, split, root=root, label_column=label_column) if names or not stacks else []
    sources = _cases(
        with_assets([*stacked(stacks), *named], assets, settings["bands"]),
        (regions, Places(bbox, bounds, aoi, clip)),
        per_source=per_source,
    )
    extras = extras_of(
        output, shard, overlay, no_overlays=no_overlays, no_qupath=no_qupath, hide_names=hide_names
    )
    everything, sources = sources, shard.part(sources) if shard else sources
    options.check_budget(budget, settings["max_budget"])
    options.use_threads(threads)
    from hiresattn.card import read_card

    loaded = read_card(model, reference=not dry_run)
    if dry_run:
        ctx.exit(plan(sources, loaded, output, overwrite=overwrite, budget=budget, **settings))
    from hiresattn.inference.classify import classify_all
    from hiresattn.inference.options import ClassifyOptions

    chosen = settings | {
        "budget": budget,
        "stop": None if stop == "off" else stop,
        "nms": 1.0 if nms is None else nms,
        "seed": seed or 0,
        "threads": threads,
        "on_error": "record",
        "per_source": per_source,
    }
    kept = ClassifyOptions(**chosen)
    _warn_of_sets(loaded, kept)
    pictures = pictures_of(overlay=overlay, attention=attention, values=settings["value_range"], shard=shard)
    with ExitStack() as stack:
        file = file_of(stack, output, (loaded, kept), extras, resume=resume, overwrite=overwrite)
        sources, left = left_in(file, sources)
        if shard is not None and file is not None:
            workers.note_shard(file, shard, everything, len(sources) - len(left), loaded, kept)
        if extras.overlays:
            pictures += default_overlays(
                str(output), images_of(sources, file), settings["value_range"], ctx.obj
            )
        take(pictures, images_of(sources, file))
        if file is not None and file.held:
            complete(pictures, file.path)
        counts = Counts(there=len(sources) - len(left))
        update = stack.enter_context(progress_bar("Classifying", len(left), wanted=ctx.obj >= 0))
        if cluster is None:
            tell = telling(update, counts, len(left))
            found = in_order(
                left, lambda usable: classify_all(usable, loaded, progress=tell, **chosen), loaded, kept
            )
        else:
            client = stack.enter_context(cluster.connected())
            work = workers.classifying(client, (model, loaded), kept, cluster, ordered=file is None)
            found = (in_order if file is None else as_done)(left, work, loaded, kept)
        shown = _printer(left, loaded, update, as_json=as_json)
        folder = _told_folder(output, ctx.obj, as_json=as_json)
        put = store.adding(
            shown if file is None else file.write, stack, stored, file, (loaded, kept), everything
        )
        for source, record in found:
            put(record, source)
            _tell(record, source, shown if folder else None, update, ctx.obj)
            counts.add(record)
            for one in pictures:
                one.draw(record if file is None else file.shown(record, source))
            update(counts.done, f"{counts.done} of {len(left)}, {answer(record)}")
        if cluster is not None and file is not None:
            file.sort(sources)
    ctx.exit(_ended(counts, layers, ctx.obj, folder=folder))


def _cases(sources: "list[Source]", asked: Any, *, per_source: bool) -> "list[Source]":
    """What is to be classified: the windows asked for of the sources, and those of one case together."""
    from hiresattn.datasets.cases import cases_of

    sources = windows(sources, *asked)
    return sources if per_source else cases_of(sources)


def _printer(
    sources: "list[Source]", model: "Card", update: Update, *, as_json: bool
) -> "Callable[[Record, Source], None]":
    """What writes a record to stdout: as JSON, on a terminal in words."""
    words = Answers(sources, model.config.classes) if on_terminal() and not as_json else None

    def put(record: "Record", _: "Source") -> None:
        line = json_line(record.to_json()) if words is None else words.line(record)
        with update.above() if on_terminal() else nullcontext():
            sys.stdout.write(line + "\n")
            sys.stdout.flush()

    return put


def _told_folder(output: str | None, verbosity: int, *, as_json: bool) -> str | None:
    """The folder of results whose cases are told on a terminal, too; None = nothing is told."""
    told = output is not None and Path(output).is_dir() and on_terminal() and not as_json and verbosity >= 0
    return output if told else None


def _tell(
    record: "Record",
    source: "Source",
    shown: "Callable[[Record, Source], None] | None",
    update: Update,
    verbosity: int,
) -> None:
    """Say on a terminal what a record says, and everywhere what went wrong."""
    if shown is not None:
        shown(record, source)
    with update.above() if record.warnings or record.error else nullcontext():
        report(record, verbosity)


def _warn_of_sets(model: "Card", options: "ClassifyOptions") -> None:
    """Say why records have no prediction sets, where the model is calibrated for them."""
    from hiresattn.inference.review import why_no_sets

    if model.conformal is not None and (why := why_no_sets(model, options)):
        click.echo(f"Warning: no {why}", err=True)


def _ended(counts: Counts, layers: LayersFile | None, verbosity: int, *, folder: str | None) -> int:
    """Say what was done, write the layers, and say what can be made of a folder of results; the exit status."""
    if verbosity >= 0:
        click.echo(counts.summary(), err=True)
    if folder:
        click.echo(
            f"Results in {folder}; `hiresattn report {folder} -o report.html` makes a page of them", err=True
        )
    if layers:
        layers.write(verbosity)
    return counts.exit_status
