"""``hiresattn fmow``: the tools for Functional Map of the World."""

from collections import Counter
from typing import TYPE_CHECKING, Any

import click

from hiresattn.files import make_folder
from hiresattn.inference.lines import json_line
from hiresattn_cli import options
from hiresattn_cli.fmow_evaluate import evaluate
from hiresattn_cli.help import Command, group
from hiresattn_cli.output import one_line
from hiresattn_cli.progress import progress_bar

if TYPE_CHECKING:
    from hiresattn.fmow.tree import Skipped


class _Splits(click.ParamType[Any]):
    name = "splits"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        """Names with commas between them."""
        if isinstance(value, tuple):
            return value
        from hiresattn.fmow.tree import SPLITS

        names = tuple(part.strip() for part in value.split(","))
        if not set(names) <= set(SPLITS):
            self.fail(f"{value!r}: possible are {', '.join(SPLITS)}, with commas between them", param, ctx)
        return names


_images = click.option(
    "--images", metavar="DIR", help="Folder of the images, in the same tree. [default: ROOT]"
)
_groundtruth = click.option(
    "--groundtruth",
    metavar="FILE|DIR",
    help="groundtruth.tar.bz2, or unpacked. [default: ROOT's]",
)
_imagery = click.option(
    "--imagery",
    type=click.Choice(["rgb", "msrgb", "ms"]),
    default="rgb",
    show_default=True,
    help="Which images.",
)
_splits = click.option(
    "--splits",
    type=_Splits(),
    default="train,val,test",
    show_default=True,
    metavar="A,B",
    help="Which splits.",
)


@click.group(short_help="Index, convert and score fMoW.")
def fmow() -> None:
    """Index, convert and score Functional Map of the World (fMoW)."""


fmow.add_command(evaluate)


@fmow.command(cls=Command, example="hiresattn fmow score predictions.txt groundtruth.txt")
@click.argument("predictions", metavar="PREDICTIONS")
@click.argument("truth", metavar="TRUTH")
@group("Options", options.as_json)
@click.pass_context
def score(ctx: click.Context, *, predictions: str, truth: str, as_json: bool) -> None:
    """Print the challenge's score (protocol A): weighted F1 over box IDs, six decimals.

    Both are files of lines boxID,category. Each box of TRUTH needs a prediction; false_detection is a
    category that weighs nothing. --json adds each category's counts and F1.
    """
    from hiresattn.fmow.score import challenge_score, read_lines

    found = challenge_score(read_lines(predictions), read_lines(truth, truth=True), predictions)
    if found.ignored and ctx.obj >= 0:
        click.echo(f"Warning: {predictions}: {found.ignored} boxes that {truth} doesn't have", err=True)
    click.echo(json_line(found.to_json()) if as_json else f"{found.score:.6f}")


@fmow.command(cls=Command, example="hiresattn fmow index /data/fmow-rgb -o fmow.csv")
@click.argument("root", metavar="ROOT")
@group(
    "Rows",
    click.option(
        "--window",
        type=click.Choice(["frame", "box", "context", "jhu-baseline"]),
        default="frame",
        show_default=True,
        help="One row per image (frame), or per box: the box itself, with context, or with the context of the "
        "challenge's baseline, which mixes up the image's width and height.",
    ),
    click.option("--false-detections", is_flag=True, help="Keep boxes labelled false_detection."),
    click.option(
        "--boxes", is_flag=True, help="Fill the column boxes, with which training supervises the scorer."
    ),
)
@group(
    "Files",
    click.option("-o", "--output", required=True, metavar="CSV", help="The manifest to write."),
    _splits,
    _imagery,
    _images,
    _groundtruth,
)
@click.pass_context
def index(
    ctx: click.Context,
    /,
    root: str,
    *,
    output: str,
    window: str,
    false_detections: bool,
    boxes: bool,
    **where: Any,
) -> None:
    """Write the manifest of a release: ROOT holds train, val, test, and groundtruth.tar.bz2 if you have it.

    The manifest is for train and classify. Without the ground truth, test images have no label. Splits of
    seq become test; the column fmow_split has the release's own. What is left out is counted on stderr; -v
    lists it.
    """
    from hiresattn.fmow.index import Row, rows, write_rows
    from hiresattn.fmow.tree import scan

    left_out = _LeftOut(ctx.obj)
    counts: Counter[str] = Counter()
    unlabelled = uncropped = 0
    try:
        with progress_bar("Indexing", None, wanted=ctx.obj >= 0) as update:
            update(0, "reading the ground truth")
            found = rows(scan(root, **where), window=window, false_detections=false_detections)
            for number, row in enumerate(write_rows(found, output, window, boxes=boxes)):
                if isinstance(row, Row):
                    counts[row.view.split] += 1
                    unlabelled += row.label is None
                    uncropped += not row.croppable
                else:
                    left_out.add(row)
                if number % 1000 == 0:
                    update(number, f"{number} seen")
    finally:
        left_out.report()
    if ctx.obj >= 0:
        parts = ", ".join(f"{count} {split}" for split, count in counts.items())
        click.echo(f"{output}: {counts.total()} rows ({parts})", err=True)
        if uncropped:
            click.echo(
                f"{uncropped} rows are of boxes that can't be cropped; fmow evaluate counts them", err=True
            )
        if unlabelled:
            click.echo(f"{unlabelled} rows have no label: no ground truth was found for them", err=True)


@fmow.command(cls=Command, example="hiresattn fmow cog /data/fmow-rgb -o /data/fmow-cog --threads 4")
@click.argument("root", metavar="ROOT")
@group(
    "Compression",
    click.option(
        "--compress",
        type=click.Choice(["deflate", "zstd", "jpeg"]),
        default="deflate",
        show_default=True,
        help="deflate and zstd are lossless and several times as large as the JPEGs.",
    ),
    click.option(
        "--quality",
        type=click.IntRange(1, 100),
        default=90,
        show_default=True,
        help="Quality of jpeg, 1 to 100.",
    ),
)
@group(
    "Files",
    click.option("-o", "--output", required=True, metavar="DIR", help="Folder of the new tree."),
    click.option("--overwrite", is_flag=True, help="Convert again what DIR already has."),
    _splits,
    _imagery,
    _images,
    _groundtruth,
)
@group("Run", options.one_thread)
@click.pass_context
def cog(
    ctx: click.Context,
    /,
    root: str,
    *,
    output: str,
    compress: str,
    quality: int,
    overwrite: bool,
    threads: int,
    **where: Any,
) -> None:
    """Convert a release's JPEGs to cloud-optimised GeoTIFFs, the same tree in DIR.

    Any crop of a JPEG needs all of it decoded; of a COG, only the tiles below the crop. Images get their CRS and
    transform (EPSG:4326) from the ground truth's raw_location. Then: fmow index ROOT --images DIR. Files that DIR
    has are kept. Exit status 1: none could be converted; 3: some could not.
    """
    from hiresattn.fmow.cog import Converted, convert
    from hiresattn.fmow.tree import scan

    folder = make_folder(output)
    left_out = _LeftOut(ctx.obj)
    counts: Counter[str] = Counter()
    try:
        with progress_bar("Converting", None, wanted=ctx.obj >= 0) as update:
            images = scan(root, **where)
            settings: dict[str, Any] = {"compress": compress, "quality": quality, "overwrite": overwrite}
            for one in convert(images, folder, threads=threads, **settings):
                if isinstance(one, Converted):
                    counts["there already" if one.existed else "converted"] += 1
                    counts["without a CRS"] += not one.georeferenced
                    update(counts["converted"], one.output.name)
                else:
                    counts["failed"] += one.reason == "can't be converted"
                    left_out.add(one)
    finally:
        left_out.report()
    whole = counts["converted"] + counts["there already"]
    if ctx.obj >= 0:
        parts = [f"{count} {words}" for words, count in counts.items() if count]
        click.echo(f"{output}: {', '.join(parts) or 'nothing to convert'}", err=True)
    if counts["failed"] or not whole:
        ctx.exit(3 if whole else 1)


class _LeftOut:
    """What was left out, by reason, with an example of each."""

    def __init__(self, verbosity: int) -> None:
        self._verbosity = verbosity
        self._counts: Counter[str] = Counter()
        self._first: dict[str, str] = {}

    def add(self, skipped: "Skipped") -> None:
        """Count one; with -v write a line."""
        words = one_line(": ".join(filter(None, (skipped.path, skipped.detail))))
        self._counts[skipped.reason] += 1
        self._first.setdefault(skipped.reason, words)
        if self._verbosity > 0:
            click.echo(f"Left out: {skipped.reason}: {words}", err=True)

    def report(self) -> None:
        """Write the counts to stderr."""
        if self._verbosity >= 0:
            for reason, count in self._counts.most_common():
                click.echo(f"Left out: {count} x {reason}, such as {self._first[reason]}", err=True)
