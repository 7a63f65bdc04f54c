"""``hiresattn describe``: the parts of a model, the cost of one image, and what the card says. Needs no weights."""

from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from hiresattn.errors import ConfigError, counted, missing_package
from hiresattn.inference.lines import json_line
from hiresattn_cli import options
from hiresattn_cli.help import Command, group
from hiresattn_cli.output import printable

if TYPE_CHECKING:
    from hiresattn.card import Card
    from hiresattn.model.describe import Description

#: Classes of a preset that is for any data set.
CLASSES = 2


@click.command(
    cls=Command, short_help="Show a model's parts and cost.", example="hiresattn describe tnet-fmow"
)
@click.argument("name", metavar="PRESET|MODEL")
@group(
    "Options",
    click.option(
        "--input",
        "side",
        type=click.IntRange(min=1),
        metavar="PX",
        help="Side of a square image. [default: the preset's, or the smallest that has all depths]",
    ),
    click.option(
        "--locations",
        type=options.DEPTH_COUNTS,
        metavar="2,1",
        help="Cells visited per region, by depth; the last repeats; 0 = root regions only. [default: the model's]",
    ),
    click.option("--classes", type=click.IntRange(min=2), metavar="N", help="Classes of a preset."),
    options.as_json,
)
def describe(
    *, name: str, side: int | None, locations: tuple[int, ...] | None, classes: int | None, as_json: bool
) -> None:
    """Show a model's parts: shapes, parameters, and multiply-accumulates (MACs) for one image.

    PRESET is one of the paper's (tnet-imagenet, tnet-fmow, bagnet77, efficientnet-b0) or another of `train`
    (small, quick, timm, tnet-fmow-448); MODEL is a model directory, of which training and calibration are shown, too.
    No weights are read. The parts need PyTorch; what the card of a model directory says doesn't.
    """
    card, own_side = _model(name, side, classes)
    locations = card.k if locations is None else locations
    found: Description | None = None
    try:
        from hiresattn.model.describe import describe as describe_model

        found = describe_model(card.config, own_side, locations, card.training.get("encoder"))
    except ImportError as error:
        lost = missing_package(error, "the table of its parts")
        if lost is None or not card.path:
            raise
        click.echo(f"Note: {lost}", err=True)
    if as_json:
        parts = {} if found is None else found.to_json()
        about = {"model": _about(card)} if card.path else {}
        click.echo(json_line({"name": name, **parts, **about}))
    else:
        lines = [name] if found is None else list(_table(name, found, card.config.input.mpp))
        click.echo(printable("\n".join([*lines, *(_about_lines(card) if card.path else ())])))


def _model(name: str, side: int | None, classes: int | None) -> "tuple[Card, int]":
    """What is known of a preset or a model directory, and the side of the image."""
    from dataclasses import replace

    from hiresattn.card import Card, read_card
    from hiresattn.config import InputConfig
    from hiresattn.model import presets
    from hiresattn.option_types import did_you_mean
    from hiresattn.training.options import model_config
    from hiresattn.training.presets import PRESETS

    if name in presets.PRESETS:
        preset = presets.PRESETS[name]
        config = preset.at(side or preset.config.input.squash or preset.config.input.size)
        config = replace(config, classes=_names(classes or preset.classes))
        return Card(config, k=preset.k), config.input.squash or config.input.size
    if name in PRESETS:
        chosen = PRESETS[name]
        known = presets.PRESETS[chosen.architecture].classes if chosen.architecture else CLASSES
        rule = InputConfig(
            size=chosen.crop_size or InputConfig().size, squash=chosen.squash, filter=chosen.filter
        )
        card = Card(model_config(chosen, _names(classes or known), rule), k=chosen.k)
    elif Path(name).exists():
        if classes is not None:
            raise ConfigError(f"{name}: a trained model has its classes; leave out --classes")
        card = read_card(name)
    else:
        names = sorted({*presets.PRESETS, *PRESETS})
        raise ConfigError(f"{name}: neither a preset nor a model directory{did_you_mean(name, names)}")
    config = card.config
    if config.input.squash is not None:
        side = side or config.input.squash
        return replace(card, config=replace(config, input=replace(config.input, squash=side))), side
    return card, side or round(config.finest_side / config.grid.fraction ** len(card.k))


def _about(card: "Card") -> dict[str, Any]:
    """What the card of a trained model says besides its parts, as JSON types."""
    from dataclasses import asdict

    return {
        "classes": list(card.classes),
        **{key: card.training.get(key) for key in ("epochs", "val_accuracy", "distilled")},
        "temperature": card.temperature,
        "conformal": None if card.conformal is None else asdict(card.conformal),
        "onnx": card.onnx is not None,
    }


def _about_lines(card: "Card") -> Iterator[str]:
    """The same for people."""
    training, sets = card.training, card.conformal
    yield f"  classes     {', '.join(card.classes)}"
    if (accuracy := training.get("val_accuracy")) is not None:
        yield f"  trained     validation accuracy {accuracy:.3f} after {counted(training['epochs'], 'epoch')}"
    if (both := training.get("distilled")) is not None:
        teacher, student = both["teacher"], both["student"]
        everywhere = teacher.get("glimpses")
        looks = "" if everywhere is None else f" ({everywhere:.1f})"
        yield (
            f"  distilled   accuracy {student['accuracy']:.3f} at {student['glimpses']:.1f} looks, of the teacher that "
            f"looks everywhere{looks} {teacher['accuracy']:.3f}; {counted(both['images'], 'validation image')}"
        )
    if card.temperature == 1 and sets is None:
        yield "  calibrated  no; `hiresattn evaluate --calibrate` does"
    else:
        words = "no prediction sets"
        if sets is not None:
            of = "images of " if sets.search.get("per_source") else ""
            words = f"prediction sets at a risk of {sets.risk:g} from {of}{counted(sets.cases, 'case')}"
        yield f"  calibrated  temperature {card.temperature:.3g}; {words}"
    yield f"  runs with   PyTorch{', ONNX Runtime' if card.onnx is not None else ''}"


def _names(count: int) -> tuple[str, ...]:
    return tuple(str(number) for number in range(count))


def _table(name: str, found: "Description", mpp: float | None) -> Iterator[str]:
    """Lines for people."""
    from hiresattn.pyramid.mpp import scale_words

    scale = "" if mpp is None else f" at {scale_words(mpp)}"
    bands, height, width = found.crop
    locations = ",".join(map(str, found.locations)) or "none"
    crops = f"crops of {height} x {width} px, {counted(bands, 'band')}"
    yield name
    yield f"  image       {found.input} x {found.input} px{scale}, {crops}"
    yield f"  encoder     {found.encoder}"
    yield (
        f"  locations   {locations}: {' + '.join(map(str, found.glimpses))} = {counted(sum(found.glimpses), 'look')}"
    )
    yield f"  {'part':<20}{'output':>18}{'trainable':>13}{'total':>13}{'calls':>7}{'MACs':>17}"
    for part in found.parts:
        shape = " x ".join(map(str, part.output))
        yield (
            f"  {part.name:<20}{shape:>18}{part.params_trainable:>13,}{part.params_total:>13,}{part.calls:>7}"
            f"{part.macs:>17,}"
        )
    yield (f"  {'in all':<38}{found.params_trainable:>13,}{found.params_total:>13,}{'':>7}{found.macs:>17,}")
