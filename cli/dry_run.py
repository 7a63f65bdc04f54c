"""``classify --dry-run``: what each source would cost, before a pixel is read."""

from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

import click

from hiresattn_cli.output import one_line

if TYPE_CHECKING:
    from hiresattn.checkpoint import Model
    from hiresattn.datasets.example import Example
    from hiresattn.datasets.sources import Unusable
    from hiresattn.inference.budget import Budget


def planned(
    sources: "list[str | Example | Unusable]",
    model: "Model",
    *,
    budget: str,
    bands: tuple[int, ...] | None,
    value_range: tuple[float, float] | None,
) -> Iterator[dict[str, Any]]:
    """One record per source: ``source, region, status`` (``planned`` or ``error``), ``run``, ``advice``, ``error``.

    A budget in bytes ends the plan where it is spent; where the budget has no number of glimpses, 64 are assumed.
    """
    from hiresattn.datasets.sources import Unusable
    from hiresattn.errors import HiresattnError, OpenError
    from hiresattn.inference.budget import Budget

    spent = Budget.parse(budget)
    for source in sources:
        name = source if isinstance(source, str) else str(source.source)
        region = None if isinstance(source, str) else source.region
        record: dict[str, Any] = {
            "source": name,
            "region": region,
            "status": "planned",
            "run": None,
            "advice": None,
            "error": None,
        }
        try:
            if isinstance(source, Unusable):
                raise OpenError(source.error)
            record["run"], record["advice"] = _plan(name, region, model, spent, bands, value_range)
        except HiresattnError as error:
            record |= {"status": "error", "error": one_line(error)}
            click.echo(f"Error: {record['error']}", err=True)
        if record["advice"]:
            click.echo(f"Warning: {record['advice']}", err=True)
        yield record


def _plan(
    name: str,
    region: tuple[int, int, int, int] | None,
    model: "Model",
    spent: "Budget",
    bands: tuple[int, ...] | None,
    value_range: tuple[float, float] | None,
) -> tuple[dict[str, Any], str | None]:
    """What one image would cost, and advice."""
    from hiresattn.geometry import check_region
    from hiresattn.inference.sources import input_for
    from hiresattn.pyramid import open_pyramid
    from hiresattn.reading.bands import check_domain
    from hiresattn.reading.estimate import advice, preview

    rule = model.config
    with open_pyramid(name) as pyramid:
        if region is not None:
            check_region(region, pyramid.height, pyramid.width, pyramid.source)
        config = input_for(rule.input, pyramid, bands, value_range)
        check_domain(pyramid, config)
        run = preview(
            pyramid,
            budget=spent.glimpses or 64,
            config=config,
            grid=rule.grid,
            finest=rule.finest,
            root_size=rule.root_size,
            overlap=rule.overlap,
            region=region,
        ).to_json()
        if spent.bytes is not None and run["bytes"] > spent.bytes:
            share = spent.bytes / run["bytes"]
            whole = {
                key: max(1, round(value * share)) for key, value in run.items() if isinstance(value, int)
            }
            run |= {"fraction": run["fraction"] * share, **whole}
        return run, advice(pyramid)
