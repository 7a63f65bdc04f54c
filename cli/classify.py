"""``hiresattn classify``: images in, one JSON line each out."""

import sys
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import click

from hiresattn.files import make_folder, open_text
from hiresattn.report.lines import json_line
from hiresattn_cli import options
from hiresattn_cli.help import Command, group
from hiresattn_cli.progress import progress_bar
from hiresattn_cli.records import Counts, Overlays, error_record, exit_status, report
from hiresattn_cli.sources import expand_sources

if TYPE_CHECKING:
    from hiresattn.checkpoint import Model
    from hiresattn.datasets.example import Example
    from hiresattn.datasets.sources import Unusable
    from hiresattn.inference.record import Record

    Source = str | Example | Unusable


@click.command(cls=Command, example="hiresattn classify slides/*.svs -m model --budget 64 -o records.jsonl")
@click.argument("names", nargs=-1, required=True, metavar="SRC...")
@group("Model", options.model, options.device)
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
        "--split", type=click.Choice(["train", "val", "test"]), help="Rows of a manifest to classify."
    ),
    options.bands,
    options.value_range,
    options.mpp,
    click.option("--strict", is_flag=True, help="A tile that the file leaves out is an error."),
)
@group("Search", options.budget, options.stop, options.policy, options.nms, options.scorer, options.seed)
@group(
    "Output",
    click.option("-o", "--output", metavar="FILE", help="File of the JSON lines. [default: stdout]"),
    click.option(
        "--overlay",
        type=click.Path(file_okay=False),
        metavar="DIR",
        help="Draw the visited regions: a PNG for each source.",
    ),
    click.option(
        "--dry-run",
        is_flag=True,
        help="Read no pixels: print what each source would cost (tiles, bytes, requests).",
    ),
)
@group("Run", options.batch_images, options.threads)
@click.pass_context
def classify(
    ctx: click.Context,
    /,
    names: tuple[str, ...],
    model: str,
    *,
    output: str | None,
    budget: str,
    regions: tuple[tuple[int, int, int, int], ...],
    split: str | None,
    overlay: str | None,
    stop: Any,
    nms: float | None,
    seed: int | None,
    threads: int | None,
    mpp: float | None,
    dry_run: bool,
    **settings: Any,
) -> None:
    """Classify images: one JSON line per source.

    SRC is an image file or URL, a folder (its images, and those in folders below; a Zarr directory is one
    image), a quoted glob, a .csv or .parquet manifest (path,label[,split][,y,x,height,width]), or - for paths
    on stdin.

    A source that fails gives a line with its error; the others go on. Exit status 1: all failed; 3: some failed.
    """
    sources = expand_sources(names, split)
    if regions:
        sources = _windows(sources, regions)
    if mpp is not None:
        sources = [_scaled(source, mpp) for source in sources]
    options.check_budget(budget)
    if nms is not None and settings["policy"] == "lowres":
        raise click.UsageError("--nms keeps chosen cells apart, and --policy lowres chooses none")
    options.use_threads(threads)
    from hiresattn.checkpoint import load_model
    from hiresattn.datasets.sources import Unusable
    from hiresattn.inference.classify import classify_all

    loaded = load_model(model)
    if dry_run:
        ctx.exit(_plan(sources, loaded, output, budget=budget, **settings))
    records = classify_all(
        [source for source in sources if not isinstance(source, Unusable)],
        loaded,
        budget=budget,
        stop=None if stop == "off" else stop,
        nms=1.0 if nms is None else nms,
        seed=seed or 0,
        threads=threads,
        on_error="record",
        **settings,
    )
    overlays = Overlays(make_folder(overlay), settings["value_range"]) if overlay else None
    with ExitStack() as stack:
        # Last of all: what the file held is lost only when everything else is in order.
        out = stack.enter_context(open_text(output)) if output not in (None, "-") else sys.stdout
        counts = Counts()
        wanted = ctx.obj >= 0 and not (out is sys.stdout and sys.stdout.isatty())
        update = stack.enter_context(progress_bar("Classifying", len(sources), wanted=wanted))
        for record in _in_order(sources, records, loaded):
            out.write(json_line(record.to_json()) + "\n")
            out.flush()
            report(record, ctx.obj)
            counts.add(record)
            if overlays and record.status != "error":
                overlays.draw(record)
            found = record.class_name or "|".join(record.labels or ()) or record.status
            update(counts.done, f"{counts.done} of {len(sources)}, {found}")
    if ctx.obj >= 0:
        click.echo(counts.summary(), err=True)
    ctx.exit(counts.exit_status)


def _plan(
    sources: "list[Source]", model: "Model", output: str | None, *, budget: str, **settings: Any
) -> int:
    """Write what the sources would cost; returns the exit status."""
    from hiresattn_cli.dry_run import planned

    known = {name: settings[name] for name in ("bands", "value_range")}
    failed = 0
    with ExitStack() as stack:
        out = stack.enter_context(open_text(output)) if output not in (None, "-") else sys.stdout
        for record in planned(sources, model, budget=budget, **known):
            out.write(json_line(record) + "\n")
            failed += record["status"] == "error"
    return exit_status(failed, len(sources))


def _windows(sources: "list[Source]", regions: tuple[tuple[int, int, int, int], ...]) -> "list[Source]":
    """The windows of the only source."""
    from hiresattn.datasets.example import Example
    from hiresattn.datasets.sources import Unusable

    if len(sources) != 1 or isinstance(sources[0], Example):
        raise click.UsageError(f"--region needs a single image; these are {len(sources)} sources")
    source = sources[0]
    if isinstance(source, Unusable):
        return [replace(source, region=region) for region in regions]
    return [Example(source=source, region=region) for region in regions]


def _scaled(source: "Source", mpp: float) -> "Source":
    """A source with this scale in place of that of its file or its manifest."""
    from hiresattn.datasets.example import Example
    from hiresattn.datasets.sources import Unusable

    if isinstance(source, Unusable):
        return source
    return replace(source if isinstance(source, Example) else Example(source), mpp=mpp)


def _in_order(sources: "list[Source]", records: "Iterator[Record]", model: "Model") -> "Iterator[Record]":
    """The records, and between them the errors of unusable sources, in the order of the sources."""
    from hiresattn.datasets.sources import Unusable

    for source in sources:
        yield error_record(source, model) if isinstance(source, Unusable) else next(records)
