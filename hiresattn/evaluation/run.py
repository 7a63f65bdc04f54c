"""Evaluate a model on labelled images: classify them in one or more passes, summarize, write."""

import logging
from collections.abc import Callable, Iterable, Sequence
from contextlib import ExitStack
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from hiresattn.checkpoint import Model, load_model, set_calibration
from hiresattn.datasets.cases import Case, cases_of
from hiresattn.datasets.example import Example, listed_examples
from hiresattn.datasets.folder import read_examples
from hiresattn.datasets.folds import in_fold
from hiresattn.datasets.scales import with_scales
from hiresattn.datasets.splits import with_validation
from hiresattn.errors import ConfigError, HiresattnError
from hiresattn.evaluation.calibration import calibrated, conformal_sets, cooled
from hiresattn.evaluation.outcomes import (
    CURVE,
    Classify,
    Outcome,
    Pass,
    checked,
    outcomes,
    passes,
    trained_on,
)
from hiresattn.evaluation.summary import Evaluation, summarize
from hiresattn.evaluation.write import remove_report, write_report
from hiresattn.files import make_folder
from hiresattn.inference.classify import classify_all
from hiresattn.inference.lines import LinesFile
from hiresattn.inference.options import ClassifyOptions
from hiresattn.inference.review import search_facts
from hiresattn.option_types import changed, check_types, did_you_mean

_log = logging.getLogger(__name__)
#: Share of cases whose prediction set may miss the class, unless another is asked for.
RISK = 0.1


@dataclass(frozen=True)
class EvaluateOptions:
    """How to evaluate.

    Raises:
        ConfigError: If a value is out of bounds, a name is unknown, or two options exclude each other.
    """

    split: str | None = None
    """Rows to evaluate: ``train``, ``val``, ``test`` or ``all``; None = ``test``, or ``val`` to calibrate."""
    fold: int | str | None = None
    """Evaluate the rows of this fold, in place of a split."""
    label_column: str | None = None
    """Column of the manifest that holds the label, or labels; None = ``label``, or ``labels``."""
    root: str | None = None
    """Folder that paths in the manifest are relative to; None = the manifest's."""
    budget: str | int = 64
    """What one image may cost: glimpses (``64``), bytes read (``"50MB"``) or seconds (``"2s"``)."""
    stop: float | str | None = 0.95
    """Probability of the class at which a search stops; None or "off" = spend the budget."""
    until_confidence: float | None = None
    """Confidence below which a search goes on beyond ``budget``; see ``ClassifyOptions``."""
    max_budget: str | int | None = None
    """What an image of which the model isn't sure may cost in all."""
    scorer: str | None = None
    """``random`` replaces the scorer by random scores (a control); None = the model's."""
    budgets: tuple[int, ...] = ()
    """Budgets, in glimpses, at which accuracy is also measured, by policy and without a stop."""
    policies: tuple[str, ...] = CURVE
    """Policies of ``budgets``: ``best-first`` (the model's), ``random``, ``lowres`` (root regions only) and
    ``exhaustive`` (every finest region)."""
    bootstrap: int = 1000
    """Resamples of the cases for 95 % intervals; 0 = no intervals."""
    calibrate: bool = False
    """Fit a temperature to the split, without a stop, and prediction sets with it; write both into the model's card."""
    risk: float | None = None
    """Share of cases whose prediction set may miss the class, to calibrate with; None = .1."""
    on_error: str = "skip"
    """Unreadable image: count it (``skip``), or ``raise``."""
    bands: tuple[int | str, ...] | None = None
    """Bands of the images, counted from 1; None = the model's."""
    value_range: tuple[float, float] | None = None
    """Stored values that are darkest and brightest; None = the model's."""
    mpp: float | None = None
    """Micrometres per level-0 px, in place of what the manifest and files say."""
    assume_mpp: float | None = None
    """The same, of images of which the manifest says none, and the file none that can be meant."""
    nodata: float | None = None
    """Stored value of px that were not measured, in place of what files say."""
    foreground: str | None = None
    """What is looked at below the root regions: ``tissue``, ``none`` or a mask's path, see ``ClassifyOptions``; None =
    as the model was trained."""
    strict: bool = False
    """Whether a tile that a file leaves out is an error; else it counts as not measured."""
    nms: float = 1.0
    """Largest overlap (intersection over union) of two chosen cells, or visited regions of a depth; 1 = any."""
    per_source: bool = False
    """Whether each image is a case of its own, also where the manifest names cases."""
    device: str = "auto"
    """Where the model runs: ``auto``, ``cpu``, ``cuda``, ``cuda:N`` or ``mps``."""
    seed: int = 0
    """Seed of random policies and of the resamples."""
    threads: int | None = None
    """Threads that read; None = the machine's cores, at most 8."""
    batch_images: int | str = "auto"
    """Images searched side by side, which share batches of the network."""

    def __post_init__(self) -> None:
        check_types(self)
        if self.fold is not None and self.split is not None:
            raise ConfigError("fold and split both choose the rows to evaluate; give one of them")
        if self.on_error not in ("skip", "raise"):
            raise ConfigError(f"on_error must be 'skip' or 'raise'; got {self.on_error!r}")
        if self.bootstrap < 0 or self.seed < 0:
            raise ConfigError("bootstrap and seed must be 0 or more")
        if self.risk is not None and not 0 < self.risk < 1:
            raise ConfigError(f"risk is a share of cases, above 0 and below 1; got {self.risk}")
        if self.risk is not None and not self.calibrate:
            raise ConfigError(
                "risk is what calibrate makes prediction sets for; add calibrate, or leave it out"
            )
        if self.budgets and min(self.budgets) < 1:
            raise ConfigError(f"budgets are glimpses, 1 or more; got {list(self.budgets)}")
        self.classify(spends=False)  # refuses the others
        for policy in self.policies:
            if policy not in CURVE:
                raise ConfigError(f"unknown policy {policy!r}{did_you_mean(policy, CURVE)}")

    def classify(self, *, spends: bool | None = None) -> ClassifyOptions:
        """How the images are classified; None = fitting a temperature needs searches that spend the budget."""
        same = (
            "budget", "scorer", "bands", "value_range", "mpp", "assume_mpp", "nodata", "foreground", "strict", "nms",
            "device", "seed", "threads", "batch_images", "per_source",
        )  # fmt: skip
        spends = self.calibrate if spends is None else spends
        return ClassifyOptions(
            stop=None if spends else self.stop,
            until_confidence=None if spends else self.until_confidence,
            max_budget=None if spends else self.max_budget,
            on_error="raise" if self.on_error == "raise" else "record",
            **{name: getattr(self, name) for name in same},
        )


def evaluate(
    model: Model | str | Path,
    manifest: str | Path | Iterable[Example],
    output: str | Path | None = None,
    options: EvaluateOptions | None = None,
    *,
    progress: Callable[[float, str], None] = lambda _share, _step: None,
    classify: Classify = classify_all,
    **changes: Any,
) -> Evaluation:
    """Measure how good a model is on labelled images: metrics with intervals, cost, accuracy against budget.

    Args:
        model: A model directory, a hub name (``hf:owner/name``) or a loaded model.
        manifest: A CSV or Parquet file, a folder of classes, or examples. What has no splits is split as the model's
            training split it.
        output: Directory for ``index.html`` (all of it, to look at), ``metrics.json``, ``predictions.jsonl``,
            ``predictions.csv``, ``review.csv`` (the cases that need review) and plots; made if missing. Those of an
            earlier evaluation are removed when the first image is classified. None = nothing is written.
        options: How to evaluate; None = the defaults.
        progress: Called with the share done, 0 to 1, and the pass that is running.
        classify: What classifies: ``hiresattn.cluster.classifier(client)`` does it on a cluster.
        changes: Fields of ``options`` to set, such as ``split="val"``.

    Returns:
        The report; its ``failures`` are the images that could not be classified.

    Raises:
        ConfigError: If an option, or a row of the manifest, can't be used.
        HiresattnError: If the model can't be loaded, or with ``on_error="raise"`` an image can't be read.
        WriteError: If ``output`` can't be written to.

    Examples:
        >>> found = hiresattn.evaluate("model", "slides.csv", "evaluation", budgets=(16, 64))
        >>> found.metrics["accuracy"].value
    """
    chosen = changed(options, changes, EvaluateOptions)
    if chosen.calibrate and (isinstance(model, Model) or str(model).startswith("hf:")):
        raise ConfigError("calibrate writes into the model's card; give the path of a model directory")
    loaded = model if isinstance(model, Model) else load_model(model)
    if chosen.calibrate and chosen.scorer not in (None, loaded.config.scorer):
        raise ConfigError("calibrate is for the model's own scorer; leave out scorer")
    split = chosen.split or ("val" if chosen.calibrate or chosen.fold is not None else "test")
    examples = checked(_examples(manifest, loaded, chosen), loaded, split)
    examples = with_scales(examples, loaded.config.input.mpp, chosen.mpp, chosen.assume_mpp)
    plain = replace(loaded, conformal=None) if chosen.calibrate else loaded
    cases = examples if chosen.per_source else cases_of(examples)
    curve, left_out = (
        passes(examples, loaded, chosen.budgets, chosen.policies) if chosen.budgets else ([], {})
    )
    folder = None if output is None else make_folder(output)
    count = 1 + len(curve) + chosen.calibrate
    done: list[tuple[Pass, list[Outcome]]] = []

    def run(one: Pass, model: Model, options: ClassifyOptions, log: LinesFile | None) -> list[Outcome]:
        kept: list[Outcome] = []
        for outcome in _run(cases, model, one, options, log, classify):
            kept.append(outcome)
            share = (len(done) + len(kept) / len(cases)) / count
            progress(share, f"{one.policy} {one.budget or ''}".strip())
        done.append((one, kept))
        return kept

    with ExitStack() as stack:
        log = None
        if folder is not None:
            file = LinesFile(folder / "predictions.jsonl", overwrite=True, when_full="evaluate anew")
            log = stack.enter_context(file)
        for one in (_search(chosen.classify(), chosen.budget), *curve):
            run(one, plain, chosen.classify(), None if done else log)
    found = summarize(
        done[0], done[1:], plain, split if chosen.fold is None else f"fold {chosen.fold}",
        options=chosen.classify(), resamples=chosen.bootstrap, seed=chosen.seed, left_out=left_out,
    )  # fmt: skip
    found = replace(
        found,
        manifest=str(manifest) if isinstance(manifest, str | Path) else "",
        scorer=chosen.scorer or loaded.config.scorer,
        trained_on=trained_on(examples, loaded),
    )
    first = done[0][1]
    if chosen.calibrate and found.classified:
        deployed = chosen.classify(spends=False)

        def again(model: Model) -> list[Outcome]:
            return run(_search(deployed, chosen.budget), model, deployed, None)

        # conformal prediction needs cases that had no part in the training: these chose its best epoch
        chose = loaded.training.get("val_accuracy") is not None and any(e.split == "val" for e in examples)
        found = _calibrated(found, first, plain, str(model), chosen, again, chose_epoch=chose)
    if folder is not None:
        write_report(folder, found, done)
    return found


def _search(options: ClassifyOptions, budget: str | int) -> Pass:
    """The pass of the model's own search."""
    stop = None if options.stop is None else float(options.stop)
    return Pass("best-first", str(budget), stop, goes_on=options.until_confidence is not None)


def _examples(
    manifest: str | Path | Iterable[Example], model: Model, options: EvaluateOptions
) -> Iterable[Example]:
    if not isinstance(manifest, str | Path):
        examples = listed_examples(manifest)
        return examples if options.fold is None else in_fold(examples, options.fold, "the examples")
    trained = model.training.get("options", {})
    if options.fold is not None and str(trained.get("fold", options.fold)) not in ("None", str(options.fold)):
        _log.warning(
            "%s was trained with fold %s: if that was this manifest, it was trained on fold %s",
            model.name, trained["fold"], options.fold,
        )  # fmt: skip
    seed = trained.get("seed", 0)
    examples = read_examples(
        manifest, multi=model.config.multi_label, fold=options.fold,
        root=options.root, label_column=options.label_column, seed=seed,
    )  # fmt: skip
    return with_validation(examples, trained.get("val_fraction", 0.0), seed)


def _run(
    cases: Sequence[Example | Case],
    model: Model,
    one: Pass,
    options: ClassifyOptions,
    log: LinesFile | None,
    classify: Classify,
) -> Iterable[Outcome]:
    """One pass; its predictions go to the log as they come. The first one replaces what an earlier run left."""
    for number, (outcome, prediction) in enumerate(outcomes(cases, model, one, options, classify=classify)):
        if log is not None:
            if number == 0:
                remove_report(log.path.parent)
            log.write(prediction.to_json())
        yield outcome


def _calibrated(
    found: Evaluation,
    kept: Sequence[Outcome],
    model: Model,
    path: str,
    options: EvaluateOptions,
    again: Callable[[Model], list[Outcome]],
    *,
    chose_epoch: bool,
) -> Evaluation:
    """The report with the calibration, which is written into the card; or why there is none.

    Prediction sets are of the search that is deployed: with its stop rule, at the new temperature.
    """
    try:
        facts = calibrated(kept, model)
        warm = replace(model, temperature=facts["temperature"])
        deployed = options.classify(spends=False)
        sets = None
        if not model.config.multi_label:
            same = deployed == options.classify()
            of_search = cooled(kept, warm.temperature / model.temperature) if same else again(warm)
            risk = RISK if options.risk is None else options.risk
            sets = conformal_sets(of_search, warm, risk, search_facts(deployed))
        set_calibration(path, warm.temperature, sets)
    except HiresattnError as error:  # the metrics are not lost
        return replace(found, calibration_error=str(error))
    facts |= {"conformal": None if sets is None else asdict(sets), "chose_epoch": chose_epoch}
    return replace(found, calibration=facts)
