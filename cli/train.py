"""``hiresattn train``: a manifest in, a model directory out."""

import os
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from hiresattn.errors import ConfigError, HiresattnError
from hiresattn_cli import options
from hiresattn_cli.progress import progress_bar
from hiresattn_cli.training_set import training_set

if TYPE_CHECKING:
    from collections.abc import Callable

    from hiresattn.datasets.manifest import Example
    from hiresattn.training.log import EpochRecord
    from hiresattn.training.options import TrainOptions


@click.command()
@click.argument("manifest", metavar="MANIFEST")
@click.option("-o", "--output", required=True, metavar="DIR", help="Directory of the model.")
@click.option("--preset", metavar="NAME", help="A named set of the options below; those given win.")
@click.option(
    "--config",
    metavar="FILE.toml",
    help="Options from a file, named as below (batch_size = 16); flags win over it, it wins over the preset.",
)
@click.option("--epochs", type=click.IntRange(min=1), metavar="N", help="Passes over the training images.")
@click.option(
    "--encoder",
    metavar="NAME",
    help="small, small-6 (built in), each with -bn for batch normalisation, bagnet77, or a timm backbone.",
)
@click.option("--pretrained", is_flag=True, default=None, help="Start from timm's pretrained weights.")
@click.option(
    "--init-from",
    metavar="MODEL",
    help="Start from the weights of a trained model with the same parts; its classes may differ.",
)
@click.option(
    "--scorer",
    metavar="NAME",
    help="What says which cells are interesting: location, context, evidence (learns from boxes what places "
    "show), mask, saol, ltpa, oaa or random.",
)
@click.option(
    "--area",
    type=click.FloatRange(0, 1, min_open=True),
    metavar="SHARE",
    help="For the scorer mask: share of a region's cells that may be open.",
)
@click.option(
    "--head",
    metavar="classifier|scorer",
    help="Which head predicts: the classifier of the pooled glimpses, or the scorer's own (saol, ltpa, oaa).",
)
@click.option(
    "--estimator",
    metavar="NAME",
    help="How the task reaches the scores: straight-through, reinforce (the paper's loss), reinforce-loo or none.",
)
@click.option(
    "--detach-scorer",
    is_flag=True,
    default=None,
    help="Let what trains the scorer end there, in place of going on into the encoder.",
)
@click.option(
    "--background",
    metavar="CLASS",
    help="The class that means that there is nothing to find: an answer then weighs each look against it.",
)
@click.option(
    "--coarse-encoder",
    is_flag=True,
    default=None,
    help="Give the looks from afar an encoder of their own: one says where, the other what.",
)
@click.option("--crop-size", type=click.IntRange(min=8), metavar="PX", help="Side of a crop.")
@click.option("--grid", type=click.IntRange(min=1), metavar="N", help="Cells along a side of a region.")
@click.option(
    "--fraction",
    type=click.FloatRange(0, 1, min_open=True, max_open=True),
    metavar="X",
    help="Side of a cell over the side of its region.",
)
@click.option(
    "--k",
    type=options.DEPTH_COUNTS,
    metavar="4,2",
    help="Cells chosen per region, by depth; 0 = the first look only.",
)
@click.option(
    "--finest",
    type=click.IntRange(min=1),
    metavar="PX",
    help="Side of the smallest region; default: --crop-size.",
)
@click.option(
    "--root-size",
    type=click.IntRange(min=1),
    metavar="PX",
    help="Largest region of the first look, level-0 px.",
)
@click.option(
    "--overlap",
    type=click.FloatRange(0, 1, max_open=True),
    metavar="X",
    help="Share of its side that a region of the first look has in common with the next.",
)
@click.option(
    "--squash",
    type=click.IntRange(min=8),
    metavar="PX",
    help="Resize whole images to squares of this side first, as the paper does; reads all of them.",
)
@click.option(
    "--oversample",
    type=click.FloatRange(1, 64),
    metavar="X",
    help="Stored px per px of a crop, at least; 2 or 4 where overviews lost small things.",
)
@click.option(
    "--augment",
    metavar="none|mirror|flips|turns",
    help="Turn the training images; only if a turned image has the same class.",
)
@click.option(
    "--jitter",
    type=click.FloatRange(min=0),
    metavar="X",
    help="Vary each training image's bands in brightness and contrast, such as 0.1; the same at every depth.",
)
@click.option(
    "--jpeg",
    type=click.FloatRange(0, 1),
    metavar="SHARE",
    help="Share of training images whose crops pass JPEG compression: for files compressed otherwise. 8-bit RGB.",
)
@click.option(
    "--cutmix",
    type=click.FloatRange(0, 1),
    metavar="P",
    help="Probability that a rectangle of another image is pasted into a training image, its label weighed by area.",
)
@click.option(
    "--epoch-images", type=click.IntRange(min=1), metavar="N", help="Images per epoch; default: all."
)
@click.option("--batch-size", type=click.IntRange(min=1), metavar="N", help="Images per step.")
@click.option(
    "--accumulate", type=click.IntRange(min=1), metavar="N", help="Batches whose gradients make one step."
)
@click.option("--optimizer", metavar="adamw|adam", help="What moves the weights.")
@click.option("--schedule", metavar="linear|cosine|step", help="How the learning rate falls.")
@click.option(
    "--warm-up",
    type=click.FloatRange(0, 1),
    metavar="X",
    help="Share of the training in which it first rises.",
)
@click.option(
    "--multi-label",
    is_flag=True,
    default=None,
    help="Images may have any number of labels, with | between; a column 'labels' says so itself.",
)
@click.option("--fold", metavar="N", help="The fold that validates; the manifest's other folds train.")
@click.option(
    "--class-weights", metavar="none|balanced", help="Let images count more, the rarer their class."
)
@click.option("--amp", is_flag=True, default=None, help="Compute in bfloat16 where that is safe; for CUDA.")
@click.option("--lr", type=click.FloatRange(min=0, min_open=True), metavar="X", help="Learning rate.")
@options.seed
@options.bands
@options.value_range
@click.option("--device", metavar="auto|cpu|cuda:N|mps", help="Where the model runs.")
@options.threads
@click.option(
    "--on-error",
    metavar="raise|skip",
    help="Stop at an image that can't be read, or leave it out and count it.",
)
@click.option(
    "--export-attention",
    metavar="MAPS",
    help="At the end, write where each training image speaks for its labels into this folder (scorers oaa and saol).",
)
@click.option("--resume", is_flag=True, help="Go on with the run that DIR holds.")
@click.option("--force", is_flag=True, help="Write into a directory that is not empty.")
@click.pass_context
def train(
    ctx: click.Context,
    /,
    manifest: str,
    *,
    output: str,
    preset: str | None,
    config: str | None,
    export_attention: str | None,
    resume: bool,
    force: bool,
    **given: Any,
) -> None:
    """Train a model on the images of MANIFEST, a CSV or Parquet file.

    Its columns: path,label[,split|fold][,y,x,height,width][,boxes]. Paths are relative to it; splits are train,
    val and test. A column labels in place of label holds any number of labels, with | between. boxes is JSON,
    [[y,x,height,width(,"class")],…], or names a GeoJSON file; with classes there, images to train on need no label.
    MANIFEST may also be a folder, with CLASS/… or {train,val,test}/CLASS/… in it. DIR gets model.safetensors,
    card.json, metrics.csv and curves.png. Options that are given neither here nor in --config keep the preset's
    values.

    Several processes share every batch, one per GPU: torchrun --no-python --nproc-per-node 2 hiresattn train …
    """
    folder = Path(output)
    leads = os.environ.get("RANK", "0") == "0"  # of the processes that torchrun starts
    if leads:
        _check_folder(folder, resume=resume, force=force)
    chosen = _options(preset, config, {name: value for name, value in given.items() if value is not None})
    examples = training_set(manifest, chosen)
    options.use_threads(given["threads"])

    from hiresattn.checkpoint import load_model
    from hiresattn.training.fit import fit

    if export_attention is not None:
        from hiresattn.attention_maps.export import check_exportable

        check_exportable(chosen, export_attention)

    def say(words: str) -> None:
        if ctx.obj >= 0:
            click.echo(words, err=True)

    last = None
    with progress_bar("Training", 1.0, wanted=leads and ctx.obj >= 0) as update:
        for record in fit(
            examples, folder, chosen, resume=resume, say=say, progress=lambda share: update(share, "")
        ):
            last = record
            update(record.epoch / record.epochs, "")
            if leads:
                say(_epoch_line(record))
    if export_attention is not None and leads:
        _export(folder, examples, export_attention, chosen, say, wanted=ctx.obj >= 0)
    if ctx.obj < 0 or not leads:
        return
    if last is None:
        click.echo("Nothing left to train", err=True)
    facts = load_model(folder).training  # the best on the validation images, which need not be the last
    if facts.get("val_accuracy") is None:
        right = facts["accuracy"]
        share = "" if right is None else f"; accuracy {right:.3f} on the images trained on"
        click.echo(f"Model in {folder}{share}", err=True)
    else:
        share = f"validation accuracy {facts['val_accuracy']:.3f}"
        click.echo(f"Model in {folder}; {share} (after epoch {facts['epochs']})", err=True)


def _export(
    folder: Path,
    examples: "list[Example]",
    target: str,
    chosen: "TrainOptions",
    say: "Callable[[str], None]",
    *,
    wanted: bool,
) -> None:
    """Write the attention of every training image."""
    from hiresattn.attention_maps.export import export_attention

    def lost(error: HiresattnError) -> None:
        say(f"Skipped: {error}")

    count = stood_in = 0
    with progress_bar("Writing maps", 1.0, wanted=wanted) as update:
        skip = lost if chosen.on_error == "skip" else None
        for one in export_attention(folder, examples, target, threads=chosen.threads, lost=skip):
            count, stood_in = count + 1, stood_in + (not one.remembered)
            update(one.done, "")
    instead = f"; {stood_in} without accumulated maps show the trained model's own" if stood_in else ""
    say(f"Maps of {count} images in {target}{instead}")


def _check_folder(folder: Path, *, resume: bool, force: bool) -> None:
    if folder.exists() and not folder.is_dir():
        raise ConfigError(f"{folder}: a file is in the way; give a directory with -o")
    filled = folder.is_dir() and any(folder.iterdir())
    if resume and not filled:
        raise ConfigError(f"{folder}: nothing to resume there; leave out --resume to start anew")
    if filled and not (resume or force):
        raise ConfigError(
            f"{folder}: the directory is not empty; --resume goes on with the run in it, "
            "--force writes over it, or give another with -o"
        )


def _options(preset: str | None, config: str | None, given: dict[str, Any]) -> "TrainOptions":
    """What was given, else what the file has, else what the preset has."""
    from dataclasses import replace

    from hiresattn.config import did_you_mean
    from hiresattn.training.options import PRESETS, TrainOptions

    if "bands" in given:
        given = given | {"bands": tuple(band + 1 for band in given["bands"])}
    if config is not None:
        from hiresattn.training.config_file import read_settings

        given = read_settings(config) | given
        own = given.pop("preset", None)
        preset = preset or own
    if preset is not None and preset not in PRESETS:
        raise ConfigError(f"unknown preset {preset!r}{did_you_mean(preset, PRESETS)}")
    return replace(PRESETS[preset] if preset else TrainOptions(), **given)


def _epoch_line(record: "EpochRecord") -> str:
    parts = [f"epoch {record.epoch}/{record.epochs}"]
    if record.stages > 1:
        parts.append(f"stage {record.stage}/{record.stages}")
    parts.append(f"{record.images} images, loss {record.loss:.3f}")
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
