"""``hiresattn evaluate``: a model and labelled images in, how good it is out."""

import json
from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any

import click

from hiresattn.errors import ConfigError, HiresattnError
from hiresattn.files import atomic_write
from hiresattn.report.units import counted, human_seconds, human_share
from hiresattn_cli import options
from hiresattn_cli.help import Command, group
from hiresattn_cli.output import json_line, made_folder, one_line
from hiresattn_cli.progress import progress_bar

if TYPE_CHECKING:
    from hiresattn.checkpoint import Model
    from hiresattn.evaluation.metrics import Measured
    from hiresattn.evaluation.outcomes import Outcome, Pass
    from hiresattn.evaluation.summary import Evaluation, Point

    Passed = tuple[Pass, list[Outcome]]

ALL_FAILED, SOME_FAILED = 1, 3
_WORDS = {
    "accuracy": "accuracy",
    "exact_match": "exact match",
    "micro_f1": "micro F1",
    "balanced_accuracy": "balanced accuracy",
    "macro_f1": "macro F1",
    "auroc": "AUROC, one against the rest",
    "auprc": "AUPRC (average precision)",
    "top_k": "top-{top_k}",
    "ece": "ECE, {bins} bins",
    "brier": "Brier, 0 to 2",
    "nll": "negative log-likelihood",
}


@click.command(cls=Command, example="hiresattn evaluate model slides.csv --budgets 16,64,256 -o evaluation")
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
    options.bands,
    options.value_range,
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
        "-o", "--output", metavar="DIR", help="Write metrics.json, predictions.jsonl and plots here."
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
        help="Fit a temperature to the split, without a stop, and write it into the model's card.",
    ),
    options.as_json,
)
@group("Run", options.device, options.threads)
@click.pass_context
def evaluate(
    ctx: click.Context,
    /,
    model: str,
    manifest: str,
    *,
    split: str | None,
    fold: str | None,
    budget: str,
    stop: Any,
    budgets: tuple[int, ...] | None,
    policies: str,
    output: str | None,
    bootstrap: int,
    calibrate: bool,
    on_error: str,
    seed: int | None,
    threads: int | None,
    as_json: bool,
    **settings: Any,
) -> None:
    """Measure how good MODEL is on the labelled rows of MANIFEST, a CSV or Parquet file, or a folder.

    These are what `train` takes. A folder without splits is split as the model's training split it; of other
    images, --split all takes all.
    Intervals resample cases: the rows that share a column group, case_id or patient; without one, an image.
    """
    options.check_budget(budget)
    options.use_threads(threads)
    from hiresattn.checkpoint import load_model, set_temperature
    from hiresattn.datasets.folder import read_examples
    from hiresattn.evaluation.calibration import calibrated
    from hiresattn.evaluation.outcomes import Pass, checked, passes
    from hiresattn.evaluation.summary import summarize

    if fold is not None and split:
        raise click.UsageError("--fold and --split both say which rows to evaluate; give one of them")
    split = split or ("val" if calibrate or fold is not None else "test")
    if calibrate and model.startswith("hf:"):
        raise click.UsageError("--calibrate writes into the model's card; give a local model directory")
    loaded = load_model(model)
    if calibrate and settings["scorer"] not in (None, loaded.config.scorer):
        raise click.UsageError("--calibrate is for the model's own scorer; leave out --scorer")
    trained = loaded.training.get("options", {})
    examples = read_examples(
        manifest, multi=loaded.config.multi_label, fold=fold, seed=trained.get("seed", 0)
    )
    chosen = checked(examples, loaded, split)
    if fold is not None and ctx.obj >= 0 and str(trained.get("fold", fold)) not in ("None", fold):
        click.echo(
            f"Warning: {model} was trained with --fold {trained['fold']}: if that was this manifest, it was trained "
            f"on fold {fold}",
            err=True,
        )
    folder = made_folder(output, "--output") if output else None
    plain = None if stop == "off" or calibrate else stop
    planned, left_out = passes(chosen, loaded, budgets, policies.split(",")) if budgets else ([], {})
    settings |= {
        "seed": seed or 0,
        "threads": threads,
        "on_error": "raise" if on_error == "raise" else "record",
    }
    with ExitStack() as stack:
        log = stack.enter_context(_opened(folder / "predictions.jsonl")) if folder else None
        total = len(chosen) * (1 + len(planned))
        update = stack.enter_context(progress_bar("Evaluating", total, wanted=ctx.obj >= 0))
        passed: list[Passed] = []
        for run in (Pass("best-first", budget, plain), *planned):
            passed.append(
                (run, _passed(chosen, loaded, run, settings, None if passed else log, update, passed))
            )
    name = split if fold is None else f"fold {fold}"
    found = summarize(
        passed[0], passed[1:], loaded, name, resamples=bootstrap, seed=seed or 0, left_out=left_out
    )
    said: dict[str, Any] = {"manifest": manifest, "budget": budget, "stop": plain, "seed": seed or 0}
    said["scorer"] = settings["scorer"] or loaded.config.scorer
    said |= found.to_json()
    refused = None
    if calibrate and found.answered:
        try:
            said["calibration"] = calibrated(passed[0][1], loaded)
            set_temperature(model, said["calibration"]["temperature"])
        except HiresattnError as error:  # what was measured is not lost
            refused = error
    if folder:
        _write(folder, found, said)
    click.echo(json_line(said) if as_json else "\n".join(_table(found, said)))
    if refused:
        raise refused
    if found.failed:
        ctx.exit(ALL_FAILED if found.failed == found.images else SOME_FAILED)


def _passed(
    chosen: Sequence[Any],
    loaded: "Model",
    run: "Pass",
    settings: dict[str, Any],
    log: IO[str] | None,
    update: Any,
    before: "Sequence[Passed]",
) -> "list[Outcome]":
    """One pass over the images; the first tells its errors and keeps its predictions."""
    from hiresattn.evaluation.outcomes import outcomes

    kept = []
    for outcome, prediction in outcomes(chosen, loaded, run, **settings):
        kept.append(outcome)
        if log:
            log.write(json_line(prediction.to_json()) + "\n")
            log.flush()
        if outcome.error is not None and not before:
            named = outcome.error if outcome.source in outcome.error else f"{outcome.source}: {outcome.error}"
            click.echo(f"Error: {one_line(named)}", err=True)
        update(len(chosen) * len(before) + len(kept), f"{run.policy} {run.budget or ''}")
    return kept


def _opened(path: Path) -> IO[str]:
    try:
        return path.open("w", encoding="utf-8")
    except OSError as error:
        raise ConfigError(f"{path}: it can't be written ({error.strerror}); check its folder") from error


def _write(folder: Path, found: "Evaluation", said: dict[str, Any]) -> None:
    """The report as JSON and as plots, each whole or not at all."""
    from hiresattn.evaluation.plots import plots

    path = folder / "metrics.json"
    try:
        with atomic_write(path) as part:
            part.write_text(json.dumps(json.loads(json_line(said)), indent=2) + "\n", encoding="utf-8")
        for name, picture in plots(found).items():
            with atomic_write(folder / name) as part:
                picture.save(part, format="PNG")
    except OSError as error:
        raise ConfigError(f"{path}: it can't be written ({error.strerror}); check its folder") from error


def _table(found: "Evaluation", said: dict[str, Any]) -> Iterator[str]:
    """Lines for people."""
    part = f", {found.failed} failed" if found.failed else ""
    part += f", {found.no_valid_pixels} without valid pixels" if found.no_valid_pixels else ""
    yield f"{found.model['name']} on {found.split}: {found.images} images{part}, {counted(found.cases, 'case')}"
    if found.answered < found.images:
        yield f"Metrics are of the {found.answered} with an answer; accuracy over all: {found.accuracy_of_all:.3f}"
    yield ""
    words = {"top_k": found.top_k, "bins": found.bins}
    named = _WORDS | ({"auroc": "AUROC, mean", "brier": "Brier, 0 to 1"} if found.multi_label else {})
    reasons = {m.reason for m in found.metrics.values()}
    shared = reasons.pop() if len(reasons) == 1 else None
    yield from _columns(
        [["", "value", "95 %", ""]]
        + [
            [named[name].format(**words), *_cells(m), "" if shared else m.reason or ""]
            for name, m in found.metrics.items()
        ]
    )
    if shared:
        yield f"({shared})"
    yield ""
    columns = {"recall": "recall", "precision": "precision", "f1": "F1", "auroc": "AUROC", "auprc": "AUPRC"}
    columns |= {"ece": "ECE", "brier": "Brier"} if found.multi_label else {}
    rows = [
        [label, str(facts["images"]), *(_number(facts[name].value) for name in columns)]
        for label, facts in found.per_class.items()
    ]
    yield from _columns([["label" if found.multi_label else "class", "images", *columns.values()], *rows])
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
        [head, *(_line(point, said["stop"] if not n else None) for n, point in enumerate(points))]
    )
    for policy, reason in found.left_out.items():
        yield f"{policy} was left out: {reason}"
    if found.main.boxed:
        yield f"hit: a look at the finest scale held the centre of a box, of {found.main.boxed} images with boxes"
    if "calibration" in said:
        facts = said["calibration"]
        yield ""
        yield (
            f"temperature {facts['temperature']:.3f}, written into the card: "
            f"NLL {facts['before']['nll']:.3f} to {facts['after']['nll']:.3f}, "
            f"ECE {facts['before']['ece']:.3f} to {facts['after']['ece']:.3f}, on the images it was fitted to"
        )


def _line(point: "Point", stop: float | None) -> list[str]:
    budget = "" if point.budget is None else point.budget
    told = f"{budget}, stop at {stop:g}" if stop is not None else budget
    if point.glimpses is None or point.fraction_read is None or point.seconds is None:
        return [point.policy, told, *_cells(point.accuracy), "", "", "", "", str(point.failed)]
    cost = [f"{point.glimpses:.1f}", human_share(point.fraction_read), human_seconds(point.seconds)]
    return [point.policy, told, *_cells(point.accuracy), _number(point.hit.value), *cost, str(point.failed)]


def _cells(measured: "Measured") -> list[str]:
    known = measured.low is not None and measured.high is not None
    return [_number(measured.value), f"{measured.low:.3f} to {measured.high:.3f}" if known else ""]


def _number(value: float | None) -> str:
    return "-" if value is None else f"{value:.3f}"


def _columns(rows: Sequence[Sequence[str]]) -> Iterator[str]:
    widths = [max(len(row[i]) for row in rows) for i in range(len(rows[0]))]
    for row in rows:
        yield "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip()
