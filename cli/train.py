"""``hiresattn train``: a manifest in, a model directory out."""

import os
from collections.abc import Callable
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from hiresattn.errors import ConfigError, HiresattnError, counted
from hiresattn_cli import options
from hiresattn_cli.groups import with_flags
from hiresattn_cli.help import Command, described_keys, group, toml
from hiresattn_cli.progress import progress_bar

if TYPE_CHECKING:
    from hiresattn.training.distil import StepRecord
    from hiresattn.training.options import TrainOptions


class _Option(click.Option):
    """An option that is a field of ``TrainOptions``: its help ends with the field's default."""

    def get_help_record(self, ctx: click.Context) -> tuple[str, str] | None:
        """Names, and help with the default."""
        from hiresattn.training.options import TrainOptions

        record = super().get_help_record(ctx)
        default = getattr(TrainOptions(), self.name or "", None)
        if record is None or default is None or self.is_flag:
            return record
        shown = ",".join(map(str, default)) if isinstance(default, tuple) else toml(default).strip('"')
        return record[0], f"{record[1]}  [default: {shown}]"


def _option(*names: str, **more: Any) -> Any:
    return click.option(*names, cls=_Option, **({"default": None} | more))


def _flag(name: str, text: str) -> Any:
    return click.option(name, is_flag=True, default=None, help=text)


def _help_all(ctx: click.Context, _: click.Parameter, wanted: bool) -> None:  # noqa: FBT001 - click's
    """Print the help, and every key of ``--config``."""
    if not wanted:
        return
    formatter = ctx.make_formatter()
    formatter.write_text("Keys of --config, a TOML file, such as: batch_size = 16")
    with formatter.section("Keys"):
        formatter.write_dl(
            [
                (one.option, f"{one.help}{f'  [default: {one.default}]' if one.default else ''}")
                for one in described_keys()
            ],
            col_max=26,
        )
    click.echo(f"{ctx.get_help()}\n\n{formatter.getvalue()}", nl=False)
    ctx.exit()


@click.command(
    cls=Command,
    short_help="Train a model on labelled images.",
    help="Train on MANIFEST: a table with path, label (or labels: a|b) [, split or fold] [, y,x,height,width] "
    "[, boxes]; or a folder of [SPLIT/]CLASS/.",
    example="hiresattn train slides.csv -o model --encoder small --epochs 30",
)
@click.argument("manifest", metavar="MANIFEST")
@group(
    "Data",
    _option("--root", metavar="DIR", help="Folder of relative paths. [default: MANIFEST's]"),
    _option("--label-column", metavar="NAME", help="Column that holds the label. [default: label]"),
    _option(
        "--bands", type=options.BANDS, metavar="1,2|NAMES", help="Bands: from 1, or red,nir. [default: all]"
    ),
    _option(
        "--value-range",
        type=options.VALUE_RANGE,
        metavar="LO,HI",
        help="Stored values that become -1 and +1.",
    ),
    _option("--nodata", type=float, metavar="VALUE", help="Stored value of px that were not measured."),
    _option("--mpp", type=options.MPP, metavar="X", help="µm/px to see all at, or off."),
    _option("--assume-mpp", type=float, metavar="X", help="µm/px of images that say no plausible one."),
    _flag("--multi-label", "Images may have any number of labels."),
    _option("--fold", metavar="N", help="Fold that validates; the others train."),
    _option("--foreground", metavar="NAME", help="tissue, none; auto: tissue of slides."),
    _option(
        "--val-fraction",
        type=click.FloatRange(0, 1),
        metavar="X",
        help="Validate on this share of the cases.",
    ),
    _option("--class-weights", metavar="NAME", help="none, or balanced by class."),
    _option("--on-error", metavar="NAME", help="Unreadable image: raise, or skip it."),
)
@group(
    "Model",
    click.option("--preset", metavar="NAME", help="Named set of options; flags and --config win over it."),
    click.option("--recipe", metavar="NAME", help="distil: where to look, learnt from image labels."),
    _option(
        "--encoder",
        metavar="NAME",
        help="small, a timm name, hf-hub:owner/name.",
    ),
    _flag("--pretrained", "Start a timm backbone from its published weights."),
    _flag("--freeze-encoder", "Keep a trained encoder as it is, and train the rest."),
    _option("--features", metavar="DIR", help="Features by `extract`: a head is trained on them."),
    _option("--init-from", metavar="MODEL", help="Start from the weights of a trained model."),
    _option("--scorer", metavar="NAME", help="location, context, evidence, …"),
    _option("--background", metavar="CLASS", help="Class of images with nothing to find."),
    _flag("--coarse-encoder", "A second encoder for regions that are divided further."),
    _option(
        "--crop-size",
        type=int,
        metavar="PX",
        help="Side of a crop. [default: the encoder's]",
    ),
    _option(
        "--finest",
        type=click.IntRange(min=1),
        metavar="PX",
        help="Side of the smallest region. [default: --crop-size]",
    ),
    _option(
        "--root-size",
        type=click.IntRange(min=1),
        metavar="PX",
        help="Largest side of a root region. [default: the image's]",
    ),
    _option("--k", type=options.DEPTH_COUNTS, metavar="4,2", help="Cells visited per region, by depth."),
)
@group(
    "Training",
    _option("--epochs", type=click.IntRange(min=1), metavar="N", help="Passes over the training images."),
    _option(
        "--batch-size",
        type=click.IntRange(min=1),
        metavar="N",
        help="Cases per step.  [default: 32; of few fewer]",
    ),
    _option(
        "--lr",
        type=click.FloatRange(min=0, min_open=True),
        metavar="X",
        help="Largest learning rate.  [default: 0.002; of few cases less]",
    ),
    _option("--weight-decay", type=click.FloatRange(min=0), metavar="X", help="Weight decay."),
    _option("--augment", metavar="NAME", help="auto, none, mirror, flips or turns."),
    _option(
        "--jitter", type=click.FloatRange(min=0), metavar="X", help="Random brightness, contrast; .1 is mild."
    ),
    _option(
        "--jpeg", type=click.FloatRange(0, 1), metavar="SHARE", help="Share of images whose crops pass JPEG."
    ),
    _option("--seed", type=click.IntRange(min=0), metavar="N", help="Seed of all random numbers."),
    _flag("--amp", "Compute in bfloat16 where that is safe."),
)
@group(
    "Run",
    click.option("-o", "--output", required=True, metavar="DIR", help="Directory of the model."),
    click.option("--config", metavar="TOML", help="File with any option; see --help-all."),
    _option("--device", metavar="NAME", help="auto, cpu, cuda, cuda:N or mps."),
    _option("--threads", type=click.IntRange(min=1), metavar="N", help="Threads that read and compute."),
    click.option("--resume", is_flag=True, help="Continue the run that DIR holds."),
    click.option("--overwrite", is_flag=True, help="Train anew in a directory that is not empty."),
    click.option(
        "--onnx/--no-onnx", default=None, help="A network for ONNX too. [default: if installed]"
    ),
    click.option(
        "--help-all", is_flag=True, is_eager=True, expose_value=False, callback=_help_all,
        help="Show this and every key of --config.",
    ),
)  # fmt: skip
@click.pass_context
def train(
    ctx: click.Context,
    /,
    manifest: str,
    *,
    output: str,
    preset: str | None,
    recipe: str | None,
    config: str | None,
    resume: bool,
    overwrite: bool,
    onnx: bool | None,
    **given: Any,
) -> None:
    """Train a model on labelled images."""
    folder = Path(output)
    leads = os.environ.get("RANK", "0") == "0"  # of the processes that torchrun starts
    settings = _settings(config) | {name: value for name, value in given.items() if value is not None}
    chosen = _options(preset, recipe, settings, folder if resume else None)
    options.use_threads(settings.get("threads"))

    from hiresattn.checkpoint import load_model
    from hiresattn.training.run import trainings
    from hiresattn.training.setup import read_training_set
    from hiresattn_cli.doubts import doubts

    def report(message: str) -> None:
        if ctx.obj >= 0:
            click.echo(with_flags(message, ctx.command), err=True)

    examples = read_training_set(manifest, chosen)
    cases = not chosen.per_source and any(example.case for example in examples)
    last = None
    with progress_bar("Training", 1.0, wanted=leads and ctx.obj >= 0) as update:
        for record in trainings(
            examples,
            folder,
            chosen,
            resume=resume,
            overwrite=overwrite,
            on_message=report,
            progress=update,
        ):
            last = record
            if leads:
                report(_epoch_line(record, "cases" if cases else "images"))
    if leads:
        _write_onnx(folder, report, asked=onnx)
    if ctx.obj < 0 or not leads:
        return
    if last is None:
        click.echo("Nothing left to train", err=True)
    elif last.epoch.skipped:
        left = counted(last.epoch.skipped, "image")
        click.echo(
            f"The last epoch left out {left} that can't be read; the lines `Skipped:` say why", err=True
        )
    model = load_model(folder)  # the best on the validation images, which need not be the last
    facts = model.training
    if facts.get("val_accuracy") is None:
        right = facts["accuracy"]
        share = "" if right is None else f"; accuracy {right:.3f} on the images trained on"
        click.echo(f"Model in {folder}{share}", err=True)
    else:
        share = f"validation accuracy {facts['val_accuracy']:.3f}"
        click.echo(f"Model in {folder}; {share} (after epoch {facts['epochs']})", err=True)
        for doubt in doubts(model):
            click.echo(doubt, err=True)


def _write_onnx(folder: Path, report: Callable[[str], None], *, asked: bool | None) -> None:
    """The network for ONNX Runtime, beside the weights; where none was asked for, what stands in the way is only told.

    It is there already where nothing was left to train.
    """
    if asked is False or (asked is None and not onnx_installed()):
        return
    from hiresattn.card import read_card
    from hiresattn.inference.onnx_export import export_onnx

    try:
        if read_card(folder).onnx is None:
            export_onnx(folder)
    except HiresattnError as error:
        if asked:
            raise
        report(f"No network for ONNX Runtime: {error}")


def onnx_installed() -> bool:
    """Whether a network can be written for ONNX Runtime; neither package is imported."""
    return all(find_spec(package) is not None for package in ("onnx", "onnxruntime"))


def _settings(config: str | None) -> dict[str, Any]:
    """What the file has."""
    if config is None:
        return {}
    from hiresattn.training.config_file import read_settings

    return read_settings(config)


def _options(
    preset: str | None, recipe: str | None, settings: dict[str, Any], run: Path | None
) -> "TrainOptions":
    """What flags and the file have, else what the preset, the recipe or the run to go on with has."""
    from dataclasses import replace

    from hiresattn.training.options import TrainOptions
    from hiresattn.training.presets import PRESETS, RECIPES
    from hiresattn.training.run import named

    preset, recipe = preset or settings.get("preset"), recipe or settings.get("recipe")
    given = {name: value for name, value in settings.items() if name != "preset"}
    if preset is not None and recipe is not None:
        raise ConfigError("a recipe has options of its own; leave out preset or recipe")
    start = TrainOptions()
    if recipe is not None:
        start = named(recipe, RECIPES, "recipe")
    elif preset is not None:
        start = named(preset, PRESETS, "preset")
    elif run is not None:
        from hiresattn.training.state import options_of_run

        start = options_of_run(run) or start
    return replace(start, **given)


def _epoch_line(one: "StepRecord", units: str) -> str:
    record = one.epoch
    parts = [f"{one.step}, epoch {record.epoch}/{record.epochs}".removeprefix(", ")]
    if record.stages > 1:
        parts.append(f"stage {record.stage}/{record.stages}")
    parts.append(f"{record.images} {units}, loss {record.loss:.3f}")
    if record.accuracy is not None:
        parts.append(f"accuracy {record.accuracy:.3f}")
    if record.val_accuracy is not None:
        parts.append(f"validation {record.val_accuracy:.3f}")
    if record.hit is not None:
        parts.append(f"target seen in {record.hit:.3f}")
    if record.skipped:
        parts.append(f"{record.skipped} skipped")
    parts.append(f"{record.seconds:.0f} s")
    return ", ".join(parts)
