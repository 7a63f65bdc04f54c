"""What classifying a source would cost, estimated from its header: no pixel is read."""

from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from hiresattn.card import Card
from hiresattn.datasets.example import Example
from hiresattn.datasets.scales import opened
from hiresattn.inference.bands import chosen, input_for
from hiresattn.inference.budget import Budget
from hiresattn.inference.options import ClassifyOptions
from hiresattn.option_types import changed
from hiresattn.pyramid.rescaled import stored_image, window_of
from hiresattn.reading.estimate import advice, preview

#: Glimpses that are assumed where the budget has no number of them.
GLIMPSES = 64


@dataclass(frozen=True)
class CostEstimate:
    """What one source would cost."""

    run: dict[str, Any]
    """``budget`` (glimpses), ``tiles``, ``bytes``, ``requests``, ``fraction`` and more; see ``reading.estimate``."""
    advice: str | None
    """How to make it cheaper, where that is possible."""


def estimate_cost(
    source: str | Path | Example, model: Card, options: ClassifyOptions | None = None, **changes: Any
) -> CostEstimate:
    """Estimate what ``classify`` would read of a source. A budget in bytes bounds the estimate.

    Args:
        source: A path, a URL, or an ``Example`` (a window of an image).
        model: A loaded model.
        options: Of ``classify``; used are ``budget``, ``bands``, ``value_range``, ``mpp`` and ``assume_mpp``.
        changes: Fields of ``options`` to set.

    Raises:
        ConfigError: If an option can't be used.
        HiresattnError: If the source can't be opened, or the model can't classify it.

    Examples:
        >>> estimate_cost("s3://bucket/slide.svs", model, budget=64).run["bytes"]
    """
    asked = changed(options, changes, ClassifyOptions)
    budget = Budget.parse(asked.budget)
    example = source if isinstance(source, Example) else Example(source)
    rule = model.config
    if asked.mpp is not None:
        example = replace(example, mpp=asked.mpp)
    example, bands = chosen(example, asked.bands, model)
    with opened(example, rule.input.mpp, nodata=asked.nodata, assumed=asked.assume_mpp) as pyramid:
        region = None if example.region is None else window_of(pyramid, example.region)
        config = input_for(rule.input, pyramid, bands, asked.value_range)
        run = preview(
            pyramid,
            budget=budget.glimpses or GLIMPSES,
            config=config,
            grid=rule.grid,
            finest=rule.finest,
            root_size=rule.root_size,
            overlap=rule.overlap,
            region=region,
        ).to_json()
        if budget.bytes is not None and run["bytes"] > budget.bytes:
            share = budget.bytes / run["bytes"]
            whole = {
                key: max(1, round(value * share)) for key, value in run.items() if isinstance(value, int)
            }
            run |= {"fraction": run["fraction"] * share, **whole}
        return CostEstimate(run, advice(stored_image(pyramid)))
