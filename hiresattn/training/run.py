"""Train a model: one training, or the several of a recipe."""

from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

from hiresattn.checkpoint import Model, load_model
from hiresattn.datasets.example import Example, listed_examples
from hiresattn.errors import ConfigError
from hiresattn.option_types import changed, did_you_mean
from hiresattn.training.distil import StepRecord, distil
from hiresattn.training.features import fit_features
from hiresattn.training.fit import fit
from hiresattn.training.options import TrainOptions
from hiresattn.training.presets import PRESETS, RECIPES
from hiresattn.training.setup import read_training_set, validated
from hiresattn.training.state import options_of_run


def _ignore(*_: Any) -> None:
    """Report nothing."""


def train(
    manifest: str | Path | Iterable[Example],
    output: str | Path,
    options: TrainOptions | str | None = None,
    *,
    resume: bool = False,
    overwrite: bool = False,
    on_message: Callable[[str], None] = _ignore,
    progress: Callable[[float, str], None] = _ignore,
    **changes: Any,
) -> Model:
    """Train a model and return it: the best epoch on the validation images.

    Args:
        manifest: A manifest (CSV or Parquet) or a folder of classes; or the examples themselves.
        output: Model directory to make.
        options: How to train; or the name of a preset, or of a recipe, such as ``distil``. None = the defaults; with
            ``resume`` those of the run.
        resume: Go on from what the directory holds.
        overwrite: Train anew in a directory that isn't empty. Without either, it is refused.
        on_message: Called with sentences that are worth showing.
        progress: Called before every step with the share of the training that is done, and the recipe's step.
        **changes: Fields of ``TrainOptions`` that replace those of ``options``, such as ``epochs=40``.

    Raises:
        ConfigError: If an option is unusable.
        HiresattnError: What ``fit`` raises.

    Examples:
        >>> model = hiresattn.train("slides.csv", "model", epochs=40, augment="flips")
    """
    if isinstance(options, str):
        options = named(options, PRESETS | RECIPES, "preset")
    if options is None and resume:
        options = options_of_run(Path(output))
    options = changed(options, changes, TrainOptions)
    examples = (
        read_training_set(manifest, options)
        if isinstance(manifest, str | Path)
        else listed_examples(manifest)
    )
    for _ in trainings(
        examples,
        output,
        options,
        resume=resume,
        overwrite=overwrite,
        on_message=on_message,
        progress=progress,
    ):
        pass
    return load_model(output)


def trainings(
    examples: Sequence[Example],
    output: str | Path,
    options: TrainOptions,
    *,
    resume: bool = False,
    overwrite: bool = False,
    on_message: Callable[[str], None] = _ignore,
    progress: Callable[[float, str], None] = _ignore,
) -> Iterator[StepRecord]:
    """Run one training, or those of a recipe; see ``train``.

    Yields:
        A record per epoch; its ``step`` is empty without a recipe.
    """
    how: dict[str, Any] = {"resume": resume, "overwrite": overwrite, "on_message": on_message}
    examples = validated(examples, options, on_message)
    if options.recipe is not None:
        yield from distil(examples, output, options, progress=progress, **how)
        return
    if options.features is not None:
        if resume:
            raise ConfigError(
                "training on features takes seconds, so there is nothing to resume; use overwrite"
            )
        del how["resume"]
        for record in fit_features(
            examples, output, options, progress=lambda share: progress(share, ""), **how
        ):
            yield StepRecord("", record)
        return
    for record in fit(examples, output, options, progress=lambda share: progress(share, ""), **how):
        yield StepRecord("", record)


def named(name: str, known: dict[str, TrainOptions], what: str) -> TrainOptions:
    """The options of a preset or a recipe.

    Raises:
        ConfigError: If there is none of that name.
    """
    if name not in known:
        raise ConfigError(f"unknown {what} {name!r}{did_you_mean(name, known)}")
    return known[name]
