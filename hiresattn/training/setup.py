"""What a training starts from: images, how their pixels become input, and weights of an earlier stage."""

import json
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import numpy as np
from safetensors import SafetensorError, safe_open

from hiresattn.checkpoint import Model
from hiresattn.config import InputConfig, ModelConfig
from hiresattn.datasets.example import Example, classes_in, names_of, unlabelled
from hiresattn.errors import CheckpointError, ConfigError, DomainError, HiresattnError, OpenError, ReadError
from hiresattn.model.net import GlimpseNet
from hiresattn.model.scorers import SCORERS
from hiresattn.pyramid import Pyramid, open_pyramid
from hiresattn.reading.bands import check_domain
from hiresattn.training.options import TrainOptions
from hiresattn.training.state import STATE

#: Half of the narrowest measured value range, grey levels: a flat, dark scene's noise isn't blown up.
LEAST_REACH = 16.0


class Lost:
    """Tells of images that are left out, of each cause once."""

    def __init__(self, say: Callable[[str], None]) -> None:
        self.say = say
        self._told: set[str] = set()

    def __call__(self, error: HiresattnError) -> None:
        """Tell, unless it was told."""
        if str(error) not in self._told:
            self._told.add(str(error))
            self.say(f"Skipped: {error}")


def sets_of(
    examples: Sequence[Example], options: TrainOptions
) -> tuple[list[Example], list[Example], TrainOptions]:
    """What is trained on and what is held out; labels are tuples in all or in none, and the options say so."""
    train = [e for e in examples if e.split == "train"]
    held_out = [e for e in examples if e.split == "val"]
    if not train:
        raise ConfigError("no examples with split 'train'; a manifest without a split column is all 'train'")
    for number in unlabelled(train + held_out):
        source = (train + held_out)[number].source
        raise ConfigError(f"{source}: no label; training needs one in every row, or boxes with classes")
    _check_box_labels(train, options)
    for example in train + held_out:
        boxes, kinds = example.boxes or (), example.box_labels
        if kinds is not None and len(kinds) != len(boxes):
            raise ConfigError(
                f"{example.source}: {len(boxes)} boxes and {len(kinds)} classes of boxes; each box needs one"
            )
    if options.multi_label or any(isinstance(e.label, tuple) for e in train):
        train, held_out = ([replace(e, label=names_of(e.label)) for e in part] for part in (train, held_out))
        options = replace(options, multi_label=True)
    return train, held_out, options


def _check_box_labels(train: Sequence[Example], options: TrainOptions) -> None:
    """Refuse classes of boxes where nothing could learn from them, and images without labels where one is needed."""
    told = [e for e in train if e.box_labels is not None]
    if not told:
        return
    if options.multi_label or options.cutmix or any(isinstance(e.label, tuple) for e in train):
        raise ConfigError(
            f"{told[0].source}: its boxes have classes; that goes neither with several labels per image nor with "
            "cutmix: leave the classes of the boxes out"
        )
    nameless = next((e for e in told if e.label is None), None)
    if nameless and options.estimator.startswith("reinforce"):
        raise ConfigError(
            f"{nameless.source}: no label; {options.estimator} rewards right answers, so it needs one in every "
            "row: give it, or take straight-through"
        )


def classes_of(examples: Sequence[Example]) -> Counter[str]:
    """How many examples have each label, of the image or of boxes in it."""
    return Counter(name for e in examples for name in classes_in(e))


def report_rare(train: Sequence[Example], scorer: str, say: Callable[[str], None]) -> None:
    """Tell of classes with a single example: nothing that was learnt of them can be told from chance.

    And of a class that reads like several labels, and of a scorer that learns from boxes where there are none.
    """
    if scorer in SCORERS and SCORERS[scorer].learns_from_boxes and not any(e.boxes for e in train):
        say(f"The scorer {scorer!r} learns from boxes, and no training image has any; give a column boxes")
    count = classes_of(train)
    rare = sorted(label for label, number in count.items() if number == 1)
    if rare:
        words = ", ".join(map(repr, rare[:5])) + (", …" if len(rare) > 5 else "")
        say(
            f"{len(rare)} of {len(count)} classes have one training image each: {words}; add more, or leave them out"
        )
    joint = [
        label
        for label in sorted(count)
        if len(parts := names_of(label) or ()) > 1 and set(parts) & set(count)
    ]
    if joint:
        say(f"{joint[0]!r} is trained as a class of its own; if it means several labels, add --multi-label")


def input_rule(source: Any, options: TrainOptions, start: Model | None = None) -> InputConfig:
    """How the pixels of the training images become the network's input, by one of them.

    Values are scaled as ``options.value_range`` says; else as the model that training starts from scales them,
    if it takes images like these.

    Raises:
        DomainError: If it has not the bands, or its value range has to be given.
        HiresattnError: If it can't be opened.
    """
    with _opened(source) as pyramid:
        palette = pyramid.palette is not None
        dtype = "uint8" if palette else str(pyramid.dtype)
        bands = (
            tuple(range(3 if palette else pyramid.channels))
            if options.bands is None
            else tuple(band - 1 for band in options.bands)
        )
        known = start and scale_of(start, bands, dtype)
        if options.value_range is None and dtype != "uint8" and not known:
            raise DomainError(
                f"{pyramid.source}: values are {dtype}; say which become darkest and brightest with "
                "--value-range LO,HI, for example 0,10000 for Sentinel-2"
            )
        low, high = options.value_range or (0.0, 255.0)
        count = len(bands)
        rule = InputConfig(
            size=options.crop_size,
            bands=bands,
            low=(low,) * count,
            high=(high,) * count,
            dtype=dtype,
            oversample=options.oversample,
            squash=options.squash,
            filter=options.filter,
            channels=None if options.bands else len(bands),
        )
        if options.value_range is None and known:
            rule = replace(rule, low=known[0], high=known[1])
        check_domain(pyramid, rule)
        return rule


def first_rule(
    sources: Sequence[Any],
    options: TrainOptions,
    start: Model | None,
    lost: Callable[[HiresattnError], None] | None,
) -> InputConfig:
    """``input_rule`` of the first image that can be opened; of the first where none may be lost."""
    for source in sources:
        try:
            return input_rule(source, options, start)
        except (OpenError, ReadError) as error:
            if lost is None:
                raise
            lost(error)
    raise ConfigError("none of the training images can be opened; check their paths")


def ranged(rule: InputConfig, measured: np.ndarray) -> InputConfig:
    """A rule whose values go from -1 to 1 where most of the images' px are: mean -/+ 2 standard deviations."""
    mean, spread = measured
    reach = np.maximum(2 * spread, LEAST_REACH)
    low, high = (tuple(np.round(v, 3).tolist()) for v in (mean - reach, mean + reach))
    return replace(rule, low=low, high=high)


def scale_of(
    start: Model, bands: tuple[int, ...], dtype: str
) -> tuple[tuple[float, ...], tuple[float, ...]] | None:
    """How a model scales images like these, low and high per band; None if it takes others."""
    rule = start.config.input
    return (rule.low, rule.high) if (rule.bands, rule.dtype) == (bands, dtype) else None


def start_from(net: GlimpseNet, config: ModelConfig, start: Model, source: str) -> str:
    """Give a fresh network the weights of a trained one. Other classes: their classifier stays fresh.

    Args:
        net: The fresh network.
        config: Its parts.
        start: The trained one.
        source: What the trained one is called in messages.

    Returns:
        What was taken, in words.

    Raises:
        CheckpointError: If the parts don't fit; names what differs.
    """
    wanted, given = net.state_dict(), dict(start.net.state_dict())
    words = f"Starts from the weights of {source}"
    if (config.classes, config.multi_label) != (start.config.classes, start.config.multi_label):
        given |= {name: value for name, value in wanted.items() if name.startswith("classifier.")}
        words += f"; its classes differ ({len(start.config.classes)} there), so the classifier is fresh"
    misfits = [
        name
        for name in sorted(wanted.keys() | given.keys())
        if name not in wanted or name not in given or wanted[name].shape != given[name].shape
    ]
    if misfits:
        there, here = (_flat(asdict(one)) for one in (start.config, config))
        free = ("classes", "input.low", "input.high")
        differing = [
            f"{name} is {there[name]!r} there and {here[name]!r} here"
            for name in here
            if there[name] != here[name] and name not in free
        ]
        raise CheckpointError(
            f"{source}: the weights don't fit the model asked for ({len(misfits)} of them, such as {misfits[0]}): "
            f"{'; '.join(differing)}. Ask for the same parts, or train without --init-from"
        )
    net.load_state_dict(given)
    return words


def baseline_of(path: str) -> float | None:
    """The running baseline of REINFORCE that the run of a model directory ended with; None if it kept none."""
    file = Path(path) / STATE
    if not file.is_file():
        return None
    try:
        with safe_open(file, framework="pt") as stored:
            kept = json.loads(stored.metadata()["state"]).get("baseline")
            return None if kept is None else float(kept)
    except (SafetensorError, AttributeError, KeyError, TypeError, ValueError) as error:
        raise CheckpointError(
            f"{file}: the training state is damaged ({error}); delete it, or copy it anew"
        ) from error


def _flat(values: Mapping[str, Any], above: str = "") -> dict[str, Any]:
    """Nested names and values with dots between the names."""
    flat: dict[str, Any] = {}
    for name, value in values.items():
        flat |= _flat(value, f"{above}{name}.") if isinstance(value, Mapping) else {above + name: value}
    return flat


@contextmanager
def _opened(source: Any) -> Iterator[Pyramid]:
    """An image, closed again if it was opened here."""
    pyramid = open_pyramid(source)
    try:
        yield pyramid
    finally:
        if pyramid is not source:
            pyramid.close()
