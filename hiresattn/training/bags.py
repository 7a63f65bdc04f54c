"""The features of cases, in memory: what a head is trained on."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor, nn

from hiresattn.datasets.cases import cases_of, examples_of
from hiresattn.datasets.example import Example
from hiresattn.datasets.feature_files import FeatureFiles
from hiresattn.datasets.features import Features, read_features
from hiresattn.errors import ConfigError, DomainError, HiresattnError
from hiresattn.model.net import GlimpseNet
from hiresattn.training.options import TrainOptions
from hiresattn.training.samples import label_index


@dataclass(frozen=True, eq=False)
class Bag:
    """The features of one case, and its label."""

    vectors: Tensor
    """float16 ``[n d]``."""
    label: Any
    means: Tensor
    """The mean features of each image that they are of ``[images d]``."""


class Standard(NamedTuple):
    """Features less their mean, over their standard deviation: a head learns from them whatever an encoder's scale."""

    mean: Tensor
    spread: Tensor

    @classmethod
    def of(cls, bags: Sequence[Bag]) -> "Standard":
        """That of the training images' features, each image counting alike."""
        means = torch.stack([bag.vectors.float().mean(0) for bag in bags])
        squares = torch.stack([bag.vectors.float().square().mean(0) for bag in bags])
        mean = means.mean(0)
        spread = (squares.mean(0) - mean.square()).clamp(min=0).sqrt()
        return cls(mean, torch.where(spread > 1e-6 * spread.amax().clamp(min=1e-30), spread, 1))

    def __call__(self, vectors: Tensor) -> Tensor:
        """Standardised vectors, float16."""
        return ((vectors.float() - self.mean) / self.spread).half()

    def folded(self, net: GlimpseNet) -> GlimpseNet:
        """A network trained on standardised features, changed into one of features as the encoder gives them.

        All that sees them first is linear, so that this is exact.
        """
        aggregator: Any = net.aggregator
        with torch.no_grad():
            for layer in (net.classifier, *(getattr(aggregator, name, None) for name in ("content", "gate"))):
                if isinstance(layer, nn.Linear):
                    layer.weight.div_(self.spread)
                    layer.bias.sub_(layer.weight @ self.mean)
        return net


def read_bags(
    examples: Sequence[Example],
    files: FeatureFiles,
    classes: Sequence[str],
    options: TrainOptions,
    on_message: Callable[[str], None],
) -> tuple[list[Bag], list[dict[str, Any]]]:
    """The features of cases, in memory, and what is known of each image.

    Raises:
        ConfigError: If a file would be that of two images.
        HiresattnError: If features are missing or can't be read, and ``options.on_error`` doesn't leave them out.
    """
    index = {name: number for number, name in enumerate(classes)}
    bags, facts = [], []
    for item in examples if options.per_source else cases_of(examples):
        own = []
        for example in examples_of(item):
            try:
                path = files.of(str(example.source))
                found = _within(read_features(path, options.finest), example)
                if not len(found.vectors):
                    raise DomainError(f"{path}: no region has features, so there is nothing to learn from")
            except ConfigError:
                raise
            except HiresattnError as error:
                if options.on_error == "raise":
                    raise
                on_message(f"Skipped: {error}")
                continue
            own.append(found.vectors)
            facts.append({"mpp": example.mpp, **found.facts, "path": str(path)})
        if own:
            label = label_index(examples_of(item)[0], index)
            means = torch.stack([torch.from_numpy(vectors).float().mean(0) for vectors in own])
            bags.append(Bag(torch.from_numpy(np.concatenate(own)), label, means))
    return bags, facts


def _within(found: Features, example: Example) -> Features:
    """The features of an example's window: of the regions whose centre it holds."""
    if example.region is None:
        return found
    y, x, height, width = example.region
    centre = found.regions[:, :2] + found.regions[:, 2:] // 2 - [y, x]
    inside = ((centre >= 0) & (centre < [height, width])).all(1)
    return replace(found, vectors=found.vectors[inside], regions=found.regions[inside])
