"""``hiresattn classify``: images in, one JSON line each out."""

import sys
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from hiresattn.errors import HiresattnError
from hiresattn.files import make_folder, open_text
from hiresattn.report.lines import json_line
from hiresattn.report.units import human_share
from hiresattn_cli import options
from hiresattn_cli.help import Command, group
from hiresattn_cli.output import one_line
from hiresattn_cli.progress import progress_bar
from hiresattn_cli.sources import Unusable, expand_sources

if TYPE_CHECKING:
    from hiresattn.checkpoint import Model
    from hiresattn.datasets.example import Example
    from hiresattn.inference.record import Record

    Source = str | Example | Unusable

ALL_FAILED, SOME_FAILED = 1, 3


@click.command(cls=Command, example="hiresattn classify slides/*.svs -m model --budget 64 -o records.jsonl")
@click.argument("words", nargs=-1, required=True, metavar="SRC...")
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
@group("Run", options.threads)
@click.pass_context
def classify(
    ctx: click.Context,
    /,
    words: tuple[str, ...],
    model: str,
    *,
    output: str | None,
    budget: str,
    regions: tuple[tuple[int, int, int, int], ...],
    split: str | None,
    overlay: str | None,
    stop: Any,
    policy: str,
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
    sources = expand_sources(words, split)
    if regions:
        sources = _windows(sources, regions)
    if mpp is not None:
        sources = [_scaled(source, mpp) for source in sources]
    options.check_budget(budget)
    if nms is not None and policy == "lowres":
        raise click.UsageError("--nms keeps chosen cells apart, and --policy lowres chooses none")
    options.use_threads(threads)
    from hiresattn.checkpoint import load_model
    from hiresattn.inference.classify import classify_all

    loaded = load_model(model)
    if dry_run:
        ctx.exit(_plan(sources, loaded, output, budget=budget, **settings))
    answers = classify_all(
        [source for source in sources if not isinstance(source, Unusable)],
        loaded,
        budget=budget,
        stop=None if stop == "off" else stop,
        policy=policy,
        nms=1.0 if nms is None else nms,
        seed=seed or 0,
        threads=threads,
        on_error="record",
        **settings,
    )
    folder = make_folder(overlay) if overlay else None
    with ExitStack() as stack:
        # Last of all: what the file held is lost only when everything else is in order.
        out = stack.enter_context(open_text(output)) if output not in (None, "-") else sys.stdout
        tally = _Tally()
        wanted = ctx.obj >= 0 and not (out is sys.stdout and sys.stdout.isatty())
        update = stack.enter_context(progress_bar("Classifying", len(sources), wanted=wanted))
        for prediction in _in_order(sources, answers, loaded):
            out.write(json_line(prediction.to_json()) + "\n")
            out.flush()
            _tell(prediction, ctx.obj)
            tally.add(prediction)
            if folder and prediction.status != "error":
                _draw(prediction, folder, settings["value_range"], tally)
            said = prediction.class_name or "|".join(prediction.labels or ()) or prediction.status
            update(tally.done, f"{tally.done} of {len(sources)}, {said}")
    if ctx.obj >= 0:
        click.echo(tally.summary(), err=True)
    ctx.exit(tally.exit_status)


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
    return 0 if not failed else ALL_FAILED if failed == len(sources) else SOME_FAILED


class _Tally:
    """Counts over the predictions of one run."""

    def __init__(self) -> None:
        self.ok = self.failed = self.no_pixels = self.labelled = self.right = self.glimpses = 0
        self.fraction = 0.0
        self.drawn: set[str] = set()

    @property
    def done(self) -> int:
        return self.ok + self.failed + self.no_pixels

    @property
    def exit_status(self) -> int:
        if not self.failed:
            return 0
        return ALL_FAILED if self.failed == self.done else SOME_FAILED

    def add(self, prediction: "Record") -> None:
        if prediction.status == "error":
            self.failed += 1
        elif prediction.status != "ok":
            self.no_pixels += 1
        else:
            self.ok += 1
            self.glimpses += prediction.cost.glimpses
            self.fraction += prediction.cost.fraction_read
            self.labelled += prediction.label is not None
            self.right += _right(prediction)

    def summary(self) -> str:
        parts = [f"{self.ok} ok, {self.failed} failed"]
        if self.no_pixels:
            parts.append(f"{self.no_pixels} without valid pixels")
        if self.labelled:
            parts.append(f"accuracy {self.right / self.labelled:.3f} on {self.labelled} with labels")
        if self.ok:
            parts.append(f"mean {self.glimpses / self.ok:.1f} glimpses")
            parts.append(f"{human_share(self.fraction / self.ok)} of the pixels read")
        return "; ".join(parts)


def _right(prediction: "Record") -> bool:
    """Whether the answer is the label; of several, all of them and no other."""
    if prediction.label is None or prediction.labels is None:
        return prediction.label is not None and prediction.label == prediction.class_name
    return set(prediction.label) == set(prediction.labels)


def _windows(sources: "list[Source]", regions: tuple[tuple[int, int, int, int], ...]) -> "list[Source]":
    from hiresattn.datasets.example import Example

    if len(sources) != 1 or isinstance(sources[0], Example):
        raise click.UsageError(f"--region needs a single image; these are {len(sources)} sources")
    source = sources[0]
    if isinstance(source, Unusable):
        return [replace(source, region=region) for region in regions]
    return [Example(source=source, region=region) for region in regions]


def _scaled(source: "Source", mpp: float) -> "Source":
    """A source with another scale than its file, or its manifest, says."""
    from hiresattn.datasets.example import Example

    if isinstance(source, Unusable):
        return source
    return replace(source if isinstance(source, Example) else Example(source), mpp=mpp)


def _in_order(sources: "list[Source]", answers: "Iterator[Record]", model: "Model") -> "Iterator[Record]":
    """The answers, and between them the errors of what can't be used, in the order of the sources."""
    import hiresattn
    from hiresattn.inference.record import Record

    for source in sources:
        if isinstance(source, Unusable):
            yield Record(
                source=source.source,
                status="error",
                error=source.error,
                region=source.region,
                label=source.label,
                scorer=model.config.scorer,
                model={"name": model.name, "sha256": model.sha256},
                version=hiresattn.__version__,
            )
        else:
            yield next(answers)


def _tell(prediction: "Record", verbosity: int) -> None:
    """The error or the warnings of one source, a line on stderr."""
    said = []
    if prediction.status == "error":
        said.append(("Error", one_line(prediction.error)))
    if verbosity >= 0 and prediction.warnings:
        said.append(("Warning", "; ".join(one_line(warning) for warning in prediction.warnings)))
    for kind, message in said:
        named = message if prediction.source in message else f"{prediction.source}: {message}"
        click.echo(f"{kind}: {named}", err=True)


def _draw(prediction: "Record", folder: Path, values: Any, tally: _Tally) -> None:
    """The overlay of one source; that it can't be drawn doesn't undo the answer."""
    from hiresattn.pyramid import open_pyramid
    from hiresattn.report.overlay import draw_overlay

    path = folder / next(name for name in _names(prediction) if name not in tally.drawn)
    tally.drawn.add(path.name)
    try:
        with open_pyramid(prediction.source) as pyramid:
            draw_overlay(pyramid, prediction, path, values=values)
    except (HiresattnError, OSError) as error:
        click.echo(f"Warning: {path}: overlay not drawn: {one_line(error)}", err=True)


def _names(prediction: "Record") -> Iterator[str]:
    """File names for an overlay, the plain one first."""
    name = Path(prediction.source.split("?")[0].rstrip("/")).name or "image"
    if prediction.region:
        name += "_" + "_".join(str(value) for value in prediction.region)
    yield f"{name}.png"
    nth = 2
    while True:
        yield f"{name}-{nth}.png"
        nth += 1
