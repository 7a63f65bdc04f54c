"""Boxes from image labels: look at every place, and keep those that explain the label."""

import math
from collections.abc import Iterable, Iterator
from dataclasses import replace

import numpy as np

from hiresattn.checkpoint import Model
from hiresattn.datasets.example import Example
from hiresattn.errors import ConfigError
from hiresattn.geometry import check_region
from hiresattn.inference.exhaustive import everywhere
from hiresattn.inference.torch_engine import TorchEngine
from hiresattn.pyramid import open_pyramid
from hiresattn.reading.fetch import CropFetcher

#: Least probability that a place shows the image's label, for it to be a box.
SURE = 0.5
#: Rounds in which an image's share of such places is estimated.
ROUNDS = 30


def locate(
    examples: Iterable[Example], model: Model, *, overlap: float = 0.0, sure: float = SURE, threads: int = 2
) -> Iterator[Example]:
    """Find where the evidence for images' labels lies, by looking at every place at the finest scale.

    A search then learns from these boxes where to look: exhaustive looks are spent on training images, once, and
    no box is drawn by hand. The model needs to know what single places show, not where to look. In an image without
    a label, places that show any class but the background are found, each with the class that the model sees.

    Args:
        examples: Images or windows, labelled or not.
        model: A model with a background class.
        overlap: Least share of its side that a place has in common with the next.
        sure: Least probability that a place shows the label; without one, any class but the background. How common
            such places are is estimated per image (expectation-maximisation of a mixture with the background).
        threads: Threads that read.

    Yields:
        The examples, with the places found as their boxes; without boxes where none is sure to show the label; with
        empty boxes where the label is the background. An image without a label in which nothing is found gets that
        label; in one of background a chance look-alike may still be found.

    Raises:
        ConfigError: If the model has no background class, a label is none of its classes, or an image has more
            places than ``exhaustive.MOST_PLACES``.
        HiresattnError: If an image can't be read.
    """
    engine = TorchEngine(model.net.eval())
    background = check(model, ())
    for example in examples:
        check(model, (example,))
        odd_classes = [i for i in range(len(model.classes)) if i != background]
        sought = odd_classes if example.label is None else [model.classes.index(example.label)]
        if sought == [background]:
            yield replace(example, boxes=())
            continue
        pyramid = open_pyramid(example.source)
        try:
            region = example.region or (0, 0, pyramid.height, pyramid.width)
            check_region(region, pyramid.height, pyramid.width, pyramid.source)
            with CropFetcher([pyramid], model.config.input, threads=threads) as fetch:
                found = everywhere(engine, fetch, np.array(region, np.int64), overlap=overlap)
        finally:
            if pyramid is not example.source:
                pyramid.close()
        measured = (found.coverage > 0).nonzero()[0]
        logits = found.glimpse_logits[measured]
        evidence = (
            np.logaddexp.reduce(logits[:, sought], axis=1) - math.log(len(sought)) - logits[:, background]
        )
        odd = _probabilities(evidence, known=example.label is not None) >= sure
        boxes = tuple(tuple(place) for place in found.region[measured][odd].tolist())
        if example.label is not None:
            yield replace(example, boxes=boxes or None)
        elif boxes or not len(measured):
            kinds = tuple(model.classes[sought[i]] for i in logits[odd][:, sought].argmax(1).tolist())
            yield replace(example, boxes=boxes or None, box_labels=kinds or None)
        else:
            yield replace(example, label=model.classes[background], boxes=())


def check(model: Model, examples: Iterable[Example]) -> int:
    """Refuse what can't be located; the index of the model's background class.

    Raises:
        ConfigError: If the model has no background class, or a label is several or none of its classes.
    """
    if model.net.background is None:
        raise ConfigError(f"model {model.name!r} has no background class; train one with --background CLASS")
    for example in examples:
        if isinstance(example.label, tuple):
            raise ConfigError(
                f"{example.source}: it has several labels; places are found for one label per image"
            )
        if example.label is not None and example.label not in model.classes:
            known = ", ".join(model.classes)
            raise ConfigError(
                f"{example.source}: label {example.label!r} is none of the model's classes ({known})"
            )
    return model.net.background


def _probabilities(evidence: np.ndarray, *, known: bool = True) -> np.ndarray:
    """Of each place to show the label, from log p(seen | label) / p(seen | background) ``[n]``.

    Unless it is ``known`` that some place does, one more that shows the background is counted: else the share of few
    places would follow the largest evidence, however small that is.
    """
    count = len(evidence) + (not known)
    share = 1 / max(count, 1)
    odd = np.zeros(0)
    for _ in range(ROUNDS):
        share = min(max(share, 1e-6), 1 - 1e-6)
        odd = np.exp(-np.logaddexp(0, -(evidence + math.log(share / (1 - share)))))
        share = float(odd.sum()) / max(count, 1)
    return odd
