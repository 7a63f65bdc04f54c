"""``hiresattn evaluate``: a model and labelled images in, how good it is out."""

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack
from typing import TYPE_CHECKING, Any

import click

from hiresattn.errors import ConfigError, counted
from hiresattn.inference.lines import json_line
from hiresattn.report.units import human_seconds, human_share
from hiresattn_cli import options, workers
from hiresattn_cli.help import Command, group
from hiresattn_cli.output import one_line, printable
from hiresattn_cli.progress import progress_bar

if TYPE_CHECKING:
    from hiresattn.evaluation.metrics import Measured
    from hiresattn.evaluation.summary import Evaluation, Point

ALL_FAILED, SOME_FAILED = 1, 3


@click.command(
    cls=Command,
    short_help="Measure a model on labelled images.",
    example="hiresattn evaluate model slides.csv --budgets 16,64,256 -o evaluation",
)
@click.argument("model", metavar="MODEL")
@click.argument("manifest", metavar="MANIFEST")
@group(
    "Data",
    click.option(
        "--split",
        type=click.Choice(["train", "val", "test", "all"]),
        help="Rows to evaluate; all: for images that no model was trained on. [default: test; with --calibrate val]",
    ),
    click.option("--fold", metavar="N", help="Evaluate the rows of this fold, in place of a split."),
    options.root,
    options.label_column,
    options.bands,
    options.value_range,
    options.mpp,
    options.assume_mpp,
    options.foreground,
    options.per_source,
    click.option(
        "--on-error",
        type=click.Choice(["skip", "raise"]),
        default="skip",
        show_default=True,
        help="Unreadable image: count and report it (exit status 3), or stop.",
    ),
)
@group(
    "Search",
    options.budget,
    options.stop,
    options.until_confidence,
    options.max_budget,
    options.scorer,
    click.option(
        "--budgets",
        type=options.SIZES,
        metavar="8,16,32",
        help="Also measure accuracy at these budgets, in glimpses, without a stop.",
    ),
    click.option(
        "--policies",
        default="best-first,random,lowres,exhaustive",
        show_default=True,
        metavar="NAMES",
        help="Policies of --budgets. best-first is the model's; exhaustive visits every finest region.",
    ),
    options.seed,
)
@group(
    "Output",
    click.option(
        "-o",
        "--output",
        metavar="DIR",
        help="Write a page (index.html), metrics, predictions, the cases to review and plots here.",
    ),
    click.option(
        "--bootstrap",
        type=click.IntRange(min=0),
        default=1000,
        show_default=True,
        metavar="N",
        help="Resamples of the cases for 95 % intervals; 0 = no intervals.",
    ),
    click.option(
        "--calibrate",
        is_flag=True,
        help="Fit a temperature and prediction sets to the split, and write them into the model's card.",
    ),
    click.option(
        "--risk",
        type=click.FloatRange(0, 1, min_open=True, max_open=True),
        metavar="SHARE",
        help="With --calibrate: share of cases whose prediction set may miss the class. [default: 0.1]",
    ),
    options.as_json,
)
@group("Run", options.device, options.threads)
@click.pass_context
@workers.cluster
def evaluate(
    ctx: click.Context,
    /,
    model: str,
    manifest: str,
    *,
    budgets: tuple[int, ...] | None,
    policies: str,
    output: str | None,
    seed: int | None,
    threads: int | None,
    as_json: bool,
    cluster: workers.Cluster | None,
    **settings: Any,
) -> None:
    """Measure how good MODEL is on the labelled rows of MANIFEST, a CSV or Parquet file, or a folder.

    These are what `train` takes. A folder without splits is split as the model's training split it; of other
    images, --split all takes all.
    Intervals resample cases: the rows that share a column group, case_id or patient; without one, an image.
    """
    options.check_budget(settings["budget"], settings["max_budget"])
    options.use_threads(threads)
    from hiresattn.evaluation.run import evaluate as evaluate_model

    settings |= {"budgets": budgets or (), "policies": tuple(policies.split(",")), "seed": seed or 0}
    with ExitStack() as stack:
        if cluster is not None:
            settings["classify"] = stack.enter_context(cluster.working("classifier"))
        update = stack.enter_context(progress_bar("Evaluating", 1.0, wanted=ctx.obj >= 0))
        found = evaluate_model(model, manifest, output, progress=update, threads=threads, **settings)
    for failure in found.failures:
        source, error = failure["source"], one_line(failure["error"])
        click.echo(f"Error: {error if source in error else f'{source}: {error}'}", err=True)
    calibrating = settings["calibrate"]  # whose searches are not those that the prediction sets are of
    table = _table(found, calibrating=calibrating, per_source=settings["per_source"])
    click.echo(json_line(found.to_json()) if as_json else printable("\n".join(table)))
    if output is not None and found.belief.review.value and not as_json and not calibrating:
        count = round(found.belief.review.value * found.belief.judged)
        click.echo(f"{counted(count, 'case')} to review: {output}/review.csv")
    if found.calibration_error:
        raise ConfigError(found.calibration_error)
    if found.failed:
        ctx.exit(ALL_FAILED if found.failed == found.images else SOME_FAILED)


def _table(found: "Evaluation", *, calibrating: bool, per_source: bool) -> Iterator[str]:
    """Lines for people."""
    from hiresattn.evaluation.names import BELIEF_NAMES, metric_names

    cases = counted(found.images, "case")
    cases += f" of {found.sources} images" if found.sources != found.images else ""
    cases += f", {found.failed} failed" if found.failed else ""
    cases += f", {found.empty} empty" if found.empty else ""
    grouped = found.cases != found.classified
    cases += f"; {counted(found.cases, 'group')} resampled as one" if grouped else ""
    yield f"{found.model['name']} on {found.split}: {cases}"
    if found.classified < found.images:
        yield f"Metrics are of the {found.classified} classified; accuracy over all: {found.accuracy_of_all:.3f}"
    if found.trained_on:
        yield (
            f"The model was trained on {found.trained_on} of these images: this says how well it remembers, "
            "not how good it is on others"
        )
    if calibrating:
        yield "Without a stop, and at the temperature of before: the searches that the temperature is fitted to"
    yield ""
    named = metric_names(several=found.multi_label, top_k=found.top_k, bins=found.bins)
    yield from _measures({named[name]: m for name, m in found.metrics.items()})
    yield ""
    columns = {"recall": "recall", "precision": "precision", "f1": "F1", "auroc": "AUROC", "auprc": "AUPRC"}
    columns |= {"ece": "ECE", "brier": "Brier"} if found.multi_label else {}
    rows = [
        [label, str(facts["images"]), *(_number(facts[name].value) for name in columns)]
        for label, facts in found.per_class.items()
    ]
    yield from _columns([["label" if found.multi_label else "class", "cases", *columns.values()], *rows])
    yield ""
    points = [found.main, *found.curve]
    head = [
        "policy",
        "budget",
        "exact match" if found.multi_label else "accuracy",
        "95 %",
        "hit",
        "glimpses",
        "px read",
        "median time",
        "failed",
    ]
    yield from _columns(
        [head, *(_line(point, found.stop if not n else None) for n, point in enumerate(points))]
    )
    for policy, reason in found.left_out.items():
        yield f"{policy} was left out: {reason}"
    if found.main.boxed:
        yield f"hit: a finest region held the centre of a box; cases with boxes: {found.main.boxed}"
    if not calibrating:
        yield ""
        yield from _measures({words: getattr(found.belief, name) for name, words in BELIEF_NAMES.items()})
    if not calibrating and found.belief.risk is not None:
        of = f"{'images of ' if per_source else ''}{counted(found.belief.calibrated_on or 0, 'case')}"
        yield f"(prediction sets at risk {found.belief.risk:g}, calibrated on {of})"
    if found.calibration is not None:
        yield ""
        yield from _calibration(found.calibration)
        yield from _trained_with(found.trained_on, found.calibration)


def _measures(measured: "dict[str, Measured]") -> Iterator[str]:
    """A line for each; a reason that several share once, below."""
    counts = Counter(m.reason for m in measured.values() if m.reason)
    shared = [reason for reason, count in counts.items() if count > 1]
    yield from _columns(
        [["", "value", "95 %", ""]]
        + [
            [name, *_cells(m), "" if m.reason in shared else m.reason or ""]
            for name, m in measured.items()
            if m.value is not None or m.reason not in shared
        ]
    )
    yield from (f"({reason})" for reason in shared)


def _calibration(facts: "Mapping[str, Any]") -> Iterator[str]:
    """What was written into the card."""
    if facts["kept"] is None:
        yield (
            f"temperature {facts['temperature']:.3f}, written into the card: "
            f"NLL {facts['before']['nll']:.3f} to {facts['after']['nll']:.3f}, "
            f"ECE {facts['before']['ece']:.3f} to {facts['after']['ece']:.3f}, on the cases it was fitted to"
        )
    else:
        yield f"the temperature stays {facts['temperature']:.3f}: {facts['kept']}"
    if (sets := facts["conformal"]) is not None:
        by = counted(sets["cases"], "case")
        if sets["search"]["per_source"]:
            by = f"{counted(facts['images'], 'image')} of {by}, each answered for itself"
        elif sets["cases"] != facts["images"]:
            by = f"{counted(facts['images'], 'case')} of {counted(sets['cases'], 'group')}"
        yield (
            f"prediction sets at risk {sets['risk']:g}, written into the card: classes of probability "
            f"{sets['least']:.3f} or more, by {by}"
        )


def _trained_with(trained_on: int, facts: "Mapping[str, Any]") -> Iterator[str]:
    """What part the calibrating cases had in the training."""
    if trained_on:
        yield (
            f"Warning: the model was trained on {trained_on} of these images, and is surer of them than of new ones: "
            "of those, what was written won't hold; calibrate on others"
        )
    elif facts["chose_epoch"]:
        yield (
            "(split val may have chosen the epoch in training, and flatters a little then; cases that had no part in "
            "it are better: a manifest of their own, --split all)"
        )


def _line(point: "Point", stop: float | None) -> list[str]:
    budget = "" if point.budget is None else point.budget
    shown = f"{budget}, stop at {stop:g}" if stop is not None else budget
    if point.glimpses is None or point.fraction_read is None or point.seconds is None:
        return [point.policy, shown, *_cells(point.accuracy), "", "", "", "", str(point.failed)]
    cost = [f"{point.glimpses:.1f}", human_share(point.fraction_read), human_seconds(point.seconds)]
    return [point.policy, shown, *_cells(point.accuracy), _number(point.hit.value), *cost, str(point.failed)]


def _cells(measured: "Measured") -> list[str]:
    known = measured.low is not None and measured.high is not None
    return [_number(measured.value), f"{measured.low:.3f} to {measured.high:.3f}" if known else ""]


def _number(value: float | None) -> str:
    return "-" if value is None else f"{value:.3f}"


def _columns(rows: Sequence[Sequence[str]]) -> Iterator[str]:
    widths = [max(len(row[i]) for row in rows) for i in range(len(rows[0]))]
    for row in rows:
        yield "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip()
