"""Parts of a model with their shapes, parameters and multiply-accumulates. Needs no weights."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode

from hiresattn.config import ModelConfig
from hiresattn.errors import ConfigError
from hiresattn.geometry import cell_regions, expandable
from hiresattn.model.build import build_model
from hiresattn.model.encoders import encoder_words
from hiresattn.model.net import GlimpseNet
from hiresattn.model.scorers import ScorerInput


@dataclass(frozen=True)
class Part:
    """A part of a network, and its cost for one image."""

    name: str
    output: tuple[int, ...]
    """Shape of its output for one glimpse (pooling, classifier: one image)."""
    params_trainable: int
    params_total: int
    """Includes the running statistics of batch normalisation."""
    calls: int
    """Number of forward passes for one image."""
    macs: int
    """Multiply-accumulates of all calls: convolutions and matrix products."""


@dataclass(frozen=True)
class Description:
    """A network and its cost for one square image."""

    input: int
    """Side of the image, px."""
    crop: tuple[int, int, int]
    """Bands, height and width of a crop."""
    encoder: str
    """What it is, where its weights come from, whether they were frozen in training, and the width of its vectors."""
    locations: tuple[int, ...]
    """Cells selected per region, by depth."""
    glimpses: tuple[int, ...]
    """Glimpses per depth; the first is the whole image."""
    parts: tuple[Part, ...]

    @property
    def params_trainable(self) -> int:
        """Of all parts."""
        return sum(part.params_trainable for part in self.parts)

    @property
    def params_total(self) -> int:
        """Of all parts, with running statistics."""
        return sum(part.params_total for part in self.parts)

    @property
    def macs(self) -> int:
        """Of all parts, for one image."""
        return sum(part.macs for part in self.parts)

    def to_json(self) -> dict[str, Any]:
        """The totals and the fields, as JSON types."""
        totals = {name: getattr(self, name) for name in ("params_trainable", "params_total", "macs")}
        return totals | asdict(self)


def describe(
    config: ModelConfig, side: int, k: Sequence[int], origin: Mapping[str, Any] | None = None
) -> Description:
    """Count the parameters of a model and the operations of one prediction, on the meta device.

    What a prediction needs is counted: every glimpse is encoded, gets its position and is pooled; cells are scored
    where some are selected, or in every glimpse with the scorer's head; else the classifier predicts once, or for
    every glimpse where evidence is pooled. A forward pass also records the scores of the finest regions' cells and
    each glimpse's own prediction, which cost little.

    Args:
        config: The model.
        side: Side of a square image, px (of the squashed one, where the model squashes).
        k: Cells per region and depth; the last one repeats; all of a region's if it has fewer. 0 or nothing = the
            root region only.
        origin: About the encoder's weights, as a model's card has it under ``training``; None = nothing is known.

    Returns:
        The description.

    Raises:
        ConfigError: If a part is unknown, or the encoder can't take crops of this size.
    """
    with torch.device("meta"):
        net = build_model(config).eval()
    if origin and origin.get("frozen"):
        net.freeze_encoder()
    locations, glimpses, scored, wide = _glimpses(net, side, list(k))
    bands, size = len(config.input.bands), config.input.size
    count = sum(glimpses)
    by_scorer = net.head == "scorer"
    scored = count if by_scorer else scored
    try:
        crop = torch.empty((1, bands, size, size), device="meta")
        coarse = 0 if net.coarse_encoder is None else wide
        parts = (
            []
            if net.coarse_encoder is None
            else _encoder_parts("coarse_encoder", net.coarse_encoder, crop, coarse)[1]
        )
        encoded, own = _encoder_parts("encoder", net.encoder, crop, count - coarse)
        parts += own
    except (RuntimeError, ValueError, AssertionError) as error:
        raise ConfigError(
            f"the encoder {config.encoder!r} can't take crops of {size} px: {str(error).splitlines()[0]}"
        ) from error
    features, width = encoded.features, encoded.features.shape[1]
    fraction = torch.full((1,), config.grid.fraction, device="meta")
    view = ScorerInput(encoded.stages, features, fraction)
    location, image = torch.zeros((1, 3), device="meta"), torch.zeros(1, dtype=torch.int64, device="meta")
    if scored or _params(net.scorer)[0]:
        parts.append(_part("scorer", net.scorer, (view,), scored, (config.grid.size,) * 2))
    if net.position is not None:
        parts.append(_part("position", net.position, (features, location), count, (width,)))
    if net.value is not None:
        parts.append(_part("value", net.value, (features,), count, (1,)))
    evidence = net.prior_weight is not None
    if count > 1 or _params(net.aggregator)[0]:
        calls = 0 if evidence else count
        parts.append(_part("pooling", net.aggregator, (features, image, 1), calls, (width,)))
    predictions = 0 if by_scorer else count if evidence else 1
    parts.append(_part("classifier", net.classifier, (features,), predictions, (len(config.classes),)))
    if evidence:
        parts.append(Part("prior_weight", (len(config.classes),), 1, 1, count, 0))
    return Description(
        input=side,
        crop=(bands, size, size),
        encoder=encoder_words(config.encoder, width, origin),
        locations=locations,
        glimpses=glimpses,
        parts=tuple(parts),
    )


def _glimpses(net: GlimpseNet, side: int, k: list[int]) -> tuple[tuple[int, ...], tuple[int, ...], int, int]:
    """Cells per region and depth, glimpses per depth, regions whose cells are scored, and those that have cells."""
    region = np.array([[0, 0, side, side]])
    glimpses, scored = [1], 0
    chosen: list[int] = []
    while k and expandable(region, net.finest)[0]:
        cells = cell_regions(region, net.grid, net.finest)
        number = min(k[min(len(chosen), len(k) - 1)], cells.shape[1])
        if not number:
            break
        chosen.append(number)
        scored += glimpses[-1]
        glimpses.append(glimpses[-1] * number)
        region = cells[:, 0]
    wide = sum(glimpses) if expandable(region, net.finest)[0] else sum(glimpses[:-1])
    return tuple(chosen), tuple(glimpses), scored, wide


def _encoder_parts(called: str, encoder: nn.Module, crop: Tensor, calls: int) -> tuple[Any, list[Part]]:
    """An encoder's output for a crop, and its parts in order of use."""
    shapes: dict[str, tuple[int, ...]] = {}
    pieces = dict(_pieces(encoder))

    def note(name: str) -> Any:
        def hook(_module: nn.Module, _inputs: Any, output: Any) -> None:
            if isinstance(output, Tensor):
                shapes[name] = tuple(output.shape[1:])

        return hook

    hooks = [piece.register_forward_hook(note(name)) for name, piece in pieces.items()]
    with FlopCounterMode(display=False) as counter, torch.no_grad():
        encoded = encoder(crop)
    for hook in hooks:
        hook.remove()
    counts, root = counter.get_flop_counts(), type(encoder).__name__
    macs = {name: sum(counts.get(f"{root}.{name}", {}).values()) // 2 for name in pieces}
    parts = [
        Part(
            f"{called}.{name.removeprefix('body.')}",
            shapes[name],
            *_params(pieces[name]),
            calls,
            macs[name] * calls,
        )
        for name in shapes
        if _params(pieces[name])[1] or macs[name]
    ]
    trainable, total = _params(encoder)
    rest = (  # pieces whose output is not a single tensor
        trainable - sum(part.params_trainable for part in parts),
        total - sum(part.params_total for part in parts),
        calls,
        counter.get_total_flops() // 2 * calls - sum(part.macs for part in parts),
    )
    if rest[1] or rest[3]:
        parts.append(Part(f"{called}.rest", tuple(encoded.features.shape[1:]), *rest))
    return encoded, parts


def _pieces(module: nn.Module, prefix: str = "", depth: int = 0) -> Iterator[tuple[str, nn.Module]]:
    """Children by name; of lists of modules, and of a backbone's ``body``, their children."""
    for name, child in module.named_children():
        here = f"{prefix}{name}"
        if depth < 2 and (name == "body" or isinstance(child, nn.ModuleList) or name in ("blocks", "stages")):
            yield from _pieces(child, f"{here}.", depth + (name != "body"))
        else:
            yield here, child


def _part(name: str, module: nn.Module, inputs: tuple[Any, ...], calls: int, output: tuple[int, ...]) -> Part:
    with FlopCounterMode(display=False) as counter, torch.no_grad():
        module(*inputs)
    return Part(name, output, *_params(module), calls, counter.get_total_flops() // 2 * calls)


def _params(module: nn.Module) -> tuple[int, int]:
    """Trainable, and with running statistics."""
    trainable = sum(p.numel() for p in module.parameters() if p.requires_grad)
    frozen = sum(p.numel() for p in module.parameters() if not p.requires_grad)
    kept = sum(value.numel() for key, value in module.state_dict().items() if "running_" in key)
    return trainable, trainable + frozen + kept
