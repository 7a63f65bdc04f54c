"""``hiresattn classify``: images in, one JSON line each out."""

import sys
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any

import click

from hiresattn.errors import HiresattnError
from hiresattn.report.units import human_share
from hiresattn_cli import options
from hiresattn_cli.output import json_line, one_line
from hiresattn_cli.progress import progress_bar
from hiresattn_cli.sources import expand_sources

if TYPE_CHECKING:
    from hiresattn.report.record import Prediction

ALL_FAILED, SOME_FAILED = 1, 3


@click.command()
@click.argument("sources", nargs=-1, required=True, metavar="SRC...")
@options.model
@click.option("-o", "--output", metavar="FILE", help="Write the JSON lines here. [default: stdout]")
@options.budget
@options.stop
@options.policy
@click.option(
    "--region",
    "regions",
    type=options.REGION,
    multiple=True,
    metavar="Y,X,H,W",
    help="Classify this window only, level-0 px. May be repeated; needs a single image.",
)
@click.option("--split", type=click.Choice(["train", "val", "test"]), help="Rows of a manifest to classify.")
@click.option(
    "--overlay", type=click.Path(file_okay=False), metavar="DIR", help="Draw where it looked: PNGs."
)
@options.device
@options.bands
@options.value_range
@click.option("--strict", is_flag=True, help="A tile that the file leaves out is an error.")
@options.seed
@options.threads
@click.pass_context
def classify(
    ctx: click.Context,
    sources: tuple[str, ...],
    model: str,
    *,
    output: str | None,
    budget: str,
    regions: tuple[tuple[int, int, int, int], ...],
    split: str | None,
    overlay: str | None,
    stop: Any,
    seed: int | None,
    **settings: Any,
) -> None:
    """Classify images: one JSON line per source.

    SRC is an image file or URL, a folder (its images, and those in folders below; a Zarr directory is one
    image), a quoted glob, a .csv manifest (path,label[,split][,y,x,height,width]), or - for paths on stdin.

    A source that fails gives a line with its error, and the others go on. Exit status 1: all failed;
    3: some failed.
    """
    examples = expand_sources(sources, split)
    if regions:
        examples = _windows(examples, regions)
    options.check_budget(budget)
    with ExitStack() as stack:
        out = stack.enter_context(_opened(output)) if output not in (None, "-") else sys.stdout
        if overlay:
            Path(overlay).mkdir(parents=True, exist_ok=True)
        from hiresattn.predict import classify as classify_sources

        predictions = classify_sources(
            examples,
            model,
            budget=budget,
            stop=None if stop == "off" else stop,
            seed=seed or 0,
            on_error="record",
            **settings,
        )
        tally = _Tally()
        wanted = ctx.obj >= 0 and not (out is sys.stdout and sys.stdout.isatty())
        update = stack.enter_context(progress_bar("Classifying", len(examples), wanted=wanted))
        for prediction in predictions:
            out.write(json_line(prediction.to_json()) + "\n")
            out.flush()
            _tell(prediction, ctx.obj)
            tally.add(prediction)
            if overlay and prediction.status != "error":
                _draw(prediction, Path(overlay), settings["value_range"], tally)
            update(
                tally.done, f"{tally.done} of {len(examples)}, {prediction.class_name or prediction.status}"
            )
    if ctx.obj >= 0:
        click.echo(tally.summary(), err=True)
    ctx.exit(tally.exit_status)


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

    def add(self, prediction: "Prediction") -> None:
        if prediction.status == "error":
            self.failed += 1
        elif prediction.status != "ok":
            self.no_pixels += 1
        else:
            self.ok += 1
            self.glimpses += prediction.cost.glimpses
            self.fraction += prediction.cost.fraction_read
            self.labelled += prediction.label is not None
            self.right += prediction.label is not None and prediction.label == prediction.class_name

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


def _opened(output: str) -> IO[str]:
    try:
        return Path(output).open("w", encoding="utf-8")
    except OSError as error:
        raise click.ClickException(f"{output}: can't be written: {error.strerror}") from error


def _windows(examples: list[Any], regions: tuple[tuple[int, int, int, int], ...]) -> list[Any]:
    from hiresattn.manifest import Example

    if len(examples) != 1 or isinstance(examples[0], Example):
        raise click.UsageError(f"--region needs a single image; these are {len(examples)} sources")
    return [Example(source=examples[0], region=region) for region in regions]


def _tell(prediction: "Prediction", verbosity: int) -> None:
    """Errors and warnings of one source, a line each on stderr."""
    if prediction.status == "error":
        message = one_line(prediction.error)
        named = message if prediction.source in message else f"{prediction.source}: {message}"
        click.echo(f"Error: {named}", err=True)
    if verbosity >= 0:
        for warning in prediction.warnings:
            message = one_line(warning)
            named = message if prediction.source in message else f"{prediction.source}: {message}"
            click.echo(f"Warning: {named}", err=True)


def _draw(prediction: "Prediction", folder: Path, values: Any, tally: _Tally) -> None:
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


def _names(prediction: "Prediction") -> Iterator[str]:
    """File names for an overlay, the plain one first."""
    name = Path(prediction.source.split("?")[0].rstrip("/")).name or "image"
    if prediction.region:
        name += "_" + "_".join(str(value) for value in prediction.region)
    yield f"{name}.png"
    nth = 2
    while True:
        yield f"{name}-{nth}.png"
        nth += 1
