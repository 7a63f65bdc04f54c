"""Options of a command whose work many processes share."""

from typing import TYPE_CHECKING, Any

import click

from hiresattn.errors import ConfigError

if TYPE_CHECKING:
    from hiresattn.card import Card
    from hiresattn.cluster.shards import Shard
    from hiresattn.inference.options import ClassifyOptions
    from hiresattn.inference.records_file import RecordsFile


class _Shard(click.ParamType["Shard"]):
    name = "shard"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> "Shard":
        """The shard of ``2/16``."""
        from hiresattn.cluster.shards import Shard

        try:
            return value if isinstance(value, Shard) else Shard.parse(value)
        except ConfigError as error:
            self.fail(str(error), param, ctx)


shard = click.option(
    "--shard",
    type=_Shard(),
    metavar="I/N",
    help="Do the I-th of N equal shards only, I from 1, as a job of a job array; `hiresattn merge` joins them.",
)


def shard_output(output: str | None, shard: "Shard") -> str:
    """Where a shard's records go.

    Raises:
        click.UsageError: If they go nowhere that they could be merged from.
    """
    from hiresattn.cluster.shards import own_output
    from hiresattn.geo.outputs import is_layers
    from hiresattn.report.results import is_results_folder

    if output in (None, "-") or is_layers(str(output)):
        raise click.UsageError(
            "--shard writes a part of a run's records: give a folder that all shards have in common (-o DIR/), or a "
            "file for each (-o part-2.jsonl); hiresattn export makes layers of what hiresattn merge joined"
        )
    return own_output(str(output), shard, is_folder=is_results_folder(str(output)))


def note_shard(
    file: "RecordsFile",
    shard: "Shard",
    cases: "list[Any]",
    there: int,
    model: "Card",
    options: "ClassifyOptions",
) -> None:
    """Write beside a shard's records what it is of."""
    from hiresattn.cluster.shards import write_shard
    from hiresattn.report.results import run_facts

    facts = run_facts(model, options) | {"classes": list(model.config.classes)}
    write_shard(file, shard, cases, there, facts)
