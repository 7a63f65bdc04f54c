"""Searches single images for what shows their labels: every finest region of them."""

from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from typing import Any

import numpy as np

from hiresattn.checkpoint import Model
from hiresattn.datasets.example import Example, labels_of
from hiresattn.datasets.scales import opened
from hiresattn.errors import ConfigError
from hiresattn.inference.attention_regions import RegionScores, region_scores
from hiresattn.inference.bands import chosen, input_for
from hiresattn.inference.exhaustive import finest_regions
from hiresattn.inference.image_search import Holds
from hiresattn.inference.label_regions import label_regions
from hiresattn.inference.options import LocateOptions
from hiresattn.inference.torch_engine import TorchEngine, ready_net
from hiresattn.model.device import pick_device
from hiresattn.pyramid import Pyramid
from hiresattn.pyramid.rescaled import to_stored, window_of
from hiresattn.reading.fetch import CropFetcher
from hiresattn.reading.foreground import overview

_Opened = tuple[Pyramid, CropFetcher, np.ndarray, Holds | None]

#: Least probability of some region to show a class, for an image without a label to be no background.
SURE = 0.5


class Locator:
    """Searches images, one by one.

    Args:
        model: The model.
        options: How.
    """

    def __init__(self, model: Model, options: LocateOptions) -> None:
        self._engine = TorchEngine(ready_net(model.net, pick_device(options.device)))
        self._model, self._options = model, options

    def find(self, example: Example) -> Any:
        """The image with its boxes; by a model without a background class, its ``RegionScores``.

        Raises:
            ConfigError: If its label can't be used, or it has too many regions.
            HiresattnError: If it can't be read.
        """
        compute = _scores if self._model.net.background is None else _locate_one
        return compute(example, self._engine, self._model, self._options)

    def windows(
        self, example: Example, most: int, rng: np.random.Generator
    ) -> list[tuple[int, int, int, int]]:
        """Windows of an image that show its label: quarters of finest regions, or whole ones that it fills.

        Args:
            example: The image, labelled.
            most: How many, at most. The likeliest is always among them, but not of a case's image: another may be
                what shows the label. Of an image of the background class they are quarters drawn at random.
            rng: Draws them.

        Returns:
            ``(y, x, height, width)`` each, level-0 px of the file.

        Raises:
            ConfigError: If its label can't be used, or it has too many regions.
            HiresattnError: If it can't be read.
        """
        background, alone = check(self._model, (example,)), example.case is None
        assert background is not None  # noqa: S101 - no such model is asked
        label = self._model.classes.index(str(example.label))
        with _opened(example, self._model, self._options) as (pyramid, fetch, frame, holds):
            if label == background:
                regions = finest_regions(frame[None], self._engine.facts.finest, holds=holds)
                taken = _measured_quarters(regions, most, fetch, holds, rng)
            else:
                found = label_regions(
                    self._engine, fetch, frame, [label], known=alone, holds=holds, always=alone
                )
                if found is None:
                    return []
                order = np.argsort(-found.probability, kind="stable")[:most]
                sure = found.probability[order] >= SURE
                sure[:1] |= alone
                taken = found.region[order][sure]
            taken = np.unique(taken, axis=0)
            stored = to_stored(pyramid, taken)
            # rounded up by a px, a window would be several regions
            sides = np.maximum((taken[:, 2:] / pyramid.levels[0].downsample).astype(np.int64), 1)
            stored[:, 2:] = np.minimum(stored[:, 2:], sides)
        return [(y, x, height, width) for y, x, height, width in stored.tolist()]


def _measured_quarters(
    regions: np.ndarray, most: int, fetch: CropFetcher, holds: Holds | None, rng: np.random.Generator
) -> np.ndarray:
    """Quarters of regions, drawn at random, that hold foreground and px that were measured."""
    half = np.maximum(regions[:, 2:] // 2, 1)
    corners = [regions[:, :2] + (regions[:, 2:] - half) * at for at in ((0, 0), (0, 1), (1, 0), (1, 1))]
    quarters = np.concatenate([np.concatenate([corner, half], 1) for corner in corners])
    if holds is not None and (held := holds(quarters)).any():
        quarters = quarters[held]
    quarters, taken = rng.permutation(quarters), quarters[:0]
    for start in range(0, len(quarters), most):
        part = quarters[start : start + most]
        crops = fetch(np.zeros(len(part), np.int64), part)
        taken = np.concatenate([taken, part[crops.coverage.max((1, 2)) > 0]])
        if len(taken) >= most:
            break
    return taken[:most]


def check(model: Model, examples: Iterable[Example]) -> int | None:
    """Refuse what can't be located; the index of the model's background class, if it has one.

    Raises:
        ConfigError: If a label is none of its classes, several where it knows one, or missing where there is no
            background class.
    """
    for example in examples:
        if isinstance(example.label, tuple) and not model.config.multi_label:
            raise ConfigError(
                f"{example.source}: it has several labels, and {model.name!r} knows one per image; train it with "
                "multi_label"
            )
        if example.label is None and model.net.background is None:
            raise ConfigError(
                f"{example.source}: it has no label, which a model with a background class can do without, and "
                f"{model.name!r} has none"
            )
        for label in labels_of(example):
            if label not in model.classes:
                known = ", ".join(model.classes)
                raise ConfigError(
                    f"{example.source}: label {label!r} is none of the model's classes ({known})"
                )
    return model.net.background


@contextmanager
def _opened(example: Example, model: Model, options: LocateOptions) -> Iterator[_Opened]:
    """An image at the model's scale, what reads it, the rectangle searched, and which regions hold foreground."""
    rule = model.config.input
    example, bands = chosen(example, options.bands, model)
    with opened(example, rule.mpp, nodata=rule.nodata, assumed=options.assume_mpp) as pyramid:
        config = input_for(rule, pyramid, bands, options.value_range)
        window = window_of(pyramid, example.region)
        seen = config.foreground and overview(pyramid, window, config, threads=options.threads)
        with CropFetcher([pyramid], config, threads=options.threads) as fetch:
            yield pyramid, fetch, np.array(window, np.int64), seen.holds if seen else None


def _scores(example: Example, engine: TorchEngine, model: Model, options: LocateOptions) -> RegionScores:
    """How far the finest regions of one image speak for each class."""
    check(model, (example,))
    with _opened(example, model, options) as (pyramid, fetch, frame, holds):
        found = region_scores(engine, fetch, frame, holds)
        return found._replace(region=to_stored(pyramid, found.region))


def _locate_one(example: Example, engine: TorchEngine, model: Model, options: LocateOptions) -> Example:
    """One image with its boxes. That one of a case's images shows the label doesn't tell which."""
    background, known = check(model, (example,)), example.label is not None and example.case is None
    others = [i for i in range(len(model.classes)) if i != background]
    classes = others if example.label is None else [model.classes.index(str(example.label))]
    if classes == [background]:
        return replace(example, boxes=())
    with _opened(example, model, options) as (pyramid, fetch, frame, holds):
        found = label_regions(engine, fetch, frame, classes, known=known, holds=holds)
    if found is None:
        return replace(example, boxes=None)
    boxes: Any = tuple(map(tuple, to_stored(pyramid, found.region).tolist()))
    confidence = tuple(np.round(found.probability.astype(np.float64), 3).tolist())
    if example.label is not None:
        return replace(example, boxes=boxes or None, box_confidence=confidence or None)
    if boxes and max(confidence) >= SURE:
        names = tuple(model.classes[index] for index in found.class_index.tolist())
        return replace(example, boxes=boxes, box_labels=names, box_confidence=confidence)
    return replace(example, label=model.config.background, boxes=())
