"""``hiresattn fmow evaluate``: the result of a model by a published protocol."""

from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from hiresattn.errors import ConfigError, counted
from hiresattn.files import atomic_write
from hiresattn.inference.lines import LinesFile, json_line
from hiresattn.report.units import human_bytes, human_share
from hiresattn_cli import options
from hiresattn_cli.help import Command, group
from hiresattn_cli.output import one_line, printable
from hiresattn_cli.progress import progress_bar

if TYPE_CHECKING:
    from hiresattn.fmow.results import Bucket, ClassifiedEntry, Report

_HEAD = (
    "long side",
    "rows",
    "top-1",
    "top-5",
    "macro",
    "glimpses",
    "px read",
    "bytes",
    "decode",
    "model",
    "total",
)


@click.command(cls=Command, example="hiresattn fmow evaluate model test.csv --protocol tnet-test")
@click.argument("model", metavar="MODEL")
@click.argument("manifest", metavar="MANIFEST")
@group(
    "Protocol",
    click.option(
        "--protocol",
        type=click.Choice(["tnet-test", "val-crops", "challenge"]),
        required=True,
        help="B: top-1 over whole test images, as TNet; C: top-1 over box crops of val; A: the challenge's "
        "weighted F1 over boxes of test and seq.",
    ),
    click.option("--limit", type=click.IntRange(min=1), metavar="N", help="Only N rows, evenly spread."),
    click.option(
        "--sizes",
        type=options.SIZES,
        metavar="512,1024",
        help="Upper ends of the size groups: long side of the image, px.",
    ),
)
@group("Search", options.budget, options.stop, options.policy, options.seed)
@group(
    "Output",
    click.option("-o", "--output", metavar="FILE", help="File of every row's prediction, JSON lines."),
    click.option(
        "--categories", metavar="FILE", help="Protocol A: file of lines boxID,category, for `fmow score`."
    ),
    options.as_json,
)
@group("Run", options.device, options.threads)
@click.pass_context
def evaluate(
    ctx: click.Context,
    /,
    *,
    model: str,
    manifest: str,
    protocol: str,
    limit: int | None,
    sizes: tuple[int, ...] | None,
    output: str | None,
    categories: str | None,
    threads: int | None,
    seed: int | None,
    stop: Any,
    as_json: bool,
    **settings: Any,
) -> None:
    """Measure MODEL by a published protocol on MANIFEST, which `fmow index` wrote.

    The results of two protocols can't be compared; every output names its own. Accuracy, cost and time are given
    by size of the image, decoding and model apart. Exit status 1: all rows failed; 3: some failed.
    """
    if categories and protocol != "challenge":
        raise click.UsageError("--categories is for --protocol challenge")
    options.check_budget(settings["budget"])
    options.use_threads(threads)
    from hiresattn.checkpoint import load_model
    from hiresattn.fmow import results
    from hiresattn.fmow.protocols import read_entries

    entries, of = read_entries(manifest, protocol, limit=limit)
    loaded = load_model(model)
    settings |= {"seed": seed or 0, "threads": threads, "stop": None if stop == "off" else stop}
    with ExitStack() as stack:
        out = LinesFile(output, overwrite=True, when_full="evaluate anew") if output else None
        if out:
            stack.enter_context(out)
        update = stack.enter_context(progress_bar(protocol, len(entries), wanted=ctx.obj >= 0))

        def reported() -> "Iterator[ClassifiedEntry]":
            for number, one in enumerate(results.classify_entries(entries, loaded, **settings), 1):
                if out:
                    out.write(one.prediction.to_json() | {"box_id": one.entry.box_id})
                if one.prediction.status == "error":
                    click.echo(f"Error: {one_line(one.prediction.error)}", err=True)
                update(number, f"{number} of {len(entries)}")
                yield one

        found = results.report(reported(), protocol, loaded, of=of, edges=sizes or results.EDGES)
    if categories:
        _write(Path(categories), "".join(f"{box},{name}\n" for box, name in sorted(found.categories.items())))
    click.echo(json_line(found.to_json()) if as_json else printable("\n".join(_table(found))))
    if found.overall.failed:
        ctx.exit(1 if found.overall.failed == found.rows else 3)


def _table(found: "Report") -> Iterator[str]:
    """Lines for people; the protocol first."""
    part = "" if found.rows == found.of else f" (of {found.of:,}: a part, not the protocol's result)"
    formats = ", ".join(f"{count:,} {suffix}" for suffix, count in found.formats.items())
    yield f"Protocol {found.letter}, {found.description}"
    yield f"window {found.window}, {found.rows:,} rows{part}, {formats}; model {found.model['name']}"
    if found.score:
        yield f"score {found.score.score:.6f} over {found.score.boxes:,} boxes"
    if found.uncropped:
        yield f"{counted(found.uncropped, 'box')} can't be cropped, and are taken for false detections"
    if found.unknown_labels:
        yield f"{found.unknown_labels:,} rows are of classes that the model doesn't have; they count as wrong"
    yield ""
    lines = [_HEAD, *map(_cells, found.buckets), _cells(found.overall)]
    widths = [max(len(line[i]) for line in lines) for i in range(len(_HEAD))]
    for line in lines:
        cells = (cell.rjust(width) for cell, width in zip(line[1:], widths[1:], strict=True))
        yield "  ".join((line[0].ljust(widths[0]), *cells))
    yield ""
    yield "Means per row. Decode: opening, reading and decoding; model: the network and the search; ms."
    if found.overall.failed:
        yield f"{found.overall.failed:,} rows failed; they count as wrong and not in the means of cost."


def _cells(bucket: "Bucket") -> tuple[str, ...]:
    shares = (f"{share:.3f}" for share in (bucket.top1, bucket.top5, bucket.macro))
    times = (f"{value:.1f}" for value in (bucket.decode_ms, bucket.model_ms, bucket.total_ms))
    if bucket.failed == bucket.rows:
        return (bucket.name, f"{bucket.rows:,}", *shares, *[""] * 6)
    read = (human_share(bucket.fraction_read), human_bytes(bucket.bytes_read))
    return (bucket.name, f"{bucket.rows:,}", *shares, f"{bucket.glimpses:.1f}", *read, *times)


def _write(path: Path, text: str) -> None:
    try:
        with atomic_write(path) as part:
            part.write_text(text, encoding="utf-8")
    except OSError as error:
        raise ConfigError(f"{path}: it can't be written ({error.strerror}); check its folder") from error
