"""Options of a command whose work many processes share."""

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass, fields, replace
from functools import wraps
from typing import TYPE_CHECKING, Any, TypeVar

import click
from click.core import ParameterSource

from hiresattn.errors import ConfigError
from hiresattn_cli.help import group
from hiresattn_cli.records import ALL_FAILED, SOME_FAILED

if TYPE_CHECKING:
    from hiresattn.card import Card
    from hiresattn.cluster.claims import AnyShard
    from hiresattn.cluster.shards import Shard
    from hiresattn.cluster.tasks import Care
    from hiresattn.inference.options import ClassifyOptions
    from hiresattn.inference.records_file import RecordsFile

F = TypeVar("F", bound=Callable[..., Any])


class _Shard(click.ParamType[Any]):
    name = "shard"

    def convert(
        self, value: Any, param: click.Parameter | None, ctx: click.Context | None
    ) -> "Shard | AnyShard":
        """The shard of ``2/16``; or any of 16, of ``any/16``."""
        from hiresattn.cluster.claims import AnyShard
        from hiresattn.cluster.shards import Shard

        try:
            if isinstance(value, Shard | AnyShard):
                return value
            return AnyShard.parse(value) or Shard.parse(value)
        except ConfigError as error:
            self.fail(str(error), param, ctx)


shard = click.option(
    "--shard",
    type=_Shard(),
    metavar="I/N",
    help="Do the I-th of N equal shards only, I from 1, as a job of a job array; any/N: those that no other "
    "process does. `hiresattn merge` joins them.",
)


def shared(function: F) -> F:
    """Decorate a command, so that ``--shard any/N`` calls it for each shard that no other process does."""

    @wraps(function)
    def wrapped(ctx: click.Context, /, *args: Any, **values: Any) -> Any:
        asked, output = values["shard"], values["output"]
        if asked is None:
            return function(ctx, *args, **values)
        from hiresattn.cluster.claims import AnyShard, claimed
        from hiresattn.report.results import is_results_folder

        if not isinstance(asked, AnyShard):
            return function(ctx, *args, **values)
        if values["dry_run"] or values["overwrite"] or "-" in values["names"]:
            raise click.UsageError(
                f"--shard any/{asked.of} can't go with --dry-run, --overwrite or paths on stdin"
            )
        if output in (None, "-") or not is_results_folder(output):
            raise click.UsageError(f"--shard any/{asked.of} needs a folder that all processes share: -o DIR/")
        codes = []
        for one in claimed(f"{output}/claims", asked.of):
            try:
                function(ctx, *args, **values | {"shard": one})
            except click.exceptions.Exit as ended:
                codes.append(ended.exit_code)
                if ended.exit_code not in (0, SOME_FAILED, ALL_FAILED):
                    raise
        failed = SOME_FAILED if set(codes) != {ALL_FAILED} else ALL_FAILED
        return ctx.exit(failed if any(codes) else 0)

    return wrapped  # type: ignore[return-value]


class _Resources(click.ParamType[Any]):
    name = "resources"

    def convert(
        self, value: Any, param: click.Parameter | None, ctx: click.Context | None
    ) -> dict[str, float]:
        """The amounts of ``GPU=1,MEM=2``."""
        if isinstance(value, dict):
            return value
        found = {}
        for part in str(value).split(","):
            name, _, amount = part.partition("=")
            try:
                found[name.strip()] = float(amount)
            except ValueError:
                self.fail(f"{value!r}: names and amounts, such as GPU=1", param, ctx)
            if not (name.strip() and 0 < found[name.strip()] < float("inf")):
                self.fail(f"{value!r}: amounts are above 0, each with a name, such as GPU=1", param, ctx)
        return found


_CLUSTER = (
    click.option(
        "--workers",
        type=click.IntRange(min=1),
        metavar="N",
        help="Start N processes here, and share the cases among them.",
    ),
    click.option(
        "--scheduler",
        envvar="DASK_SCHEDULER_ADDRESS",
        metavar="ADDRESS",
        help="Share the cases among the workers of this Dask scheduler, such as tcp://head:8786; or "
        "DASK_SCHEDULER_ADDRESS in the environment.",
    ),
    click.option(
        "--scheduler-file", metavar="FILE", help="The same, by the file that it wrote its address to."
    ),
    click.option(
        "--resources",
        type=_Resources(),
        metavar="NAME=N",
        help="What a worker must have for a case, such as GPU=1.",
    ),
    click.option(
        "--retries",
        type=click.IntRange(min=0),
        metavar="N",
        help="How often a case whose worker was lost is tried again.  [default: 2]",
    ),
    click.option(
        "--timeout",
        type=click.FloatRange(min=0, min_open=True),
        metavar="S",
        help="Give a case up after so many seconds, and start its worker again. [default: never]",
    ),
)


@dataclass(frozen=True)
class Cluster:
    """What was asked for of a cluster."""

    workers: int | None = None
    scheduler: str | None = None
    scheduler_file: str | None = None
    resources: dict[str, float] | None = None
    retries: int | None = None
    timeout: float | None = None

    @property
    def care(self) -> "Care":
        """What is done about lost workers."""
        from hiresattn.cluster.tasks import Care

        return Care(
            retries=2 if self.retries is None else self.retries,
            timeout=self.timeout,
            resources=self.resources,
        )

    def connected(self) -> "AbstractContextManager[Any]":
        """A client of it, as a context manager."""
        from hiresattn.cluster.connect import connected

        return connected(self.scheduler, scheduler_file=self.scheduler_file, workers=self.workers)

    @contextmanager
    def working(self, make: str) -> "Iterator[Callable[..., Any]]":
        """What works on it, in order: ``classifier``, ``extractor`` or ``locator`` of ``hiresattn.cluster``."""
        import hiresattn.cluster

        with self.connected() as client:
            yield getattr(hiresattn.cluster, make)(client, **vars(self.care))


def cluster(function: F) -> F:
    """Decorate a command with the options of a cluster, which it gets as one: ``cluster``."""
    names = [one.name for one in fields(Cluster)]

    @wraps(function)
    def wrapped(ctx: click.Context, /, *args: Any, **values: Any) -> Any:
        asked = Cluster(**{name: values.pop(name) for name in names})
        return function(ctx, *args, cluster=_checked(ctx, asked), **values)

    return group("Cluster", *_CLUSTER)(wrapped)  # type: ignore[return-value]


def _checked(ctx: click.Context, asked: Cluster) -> Cluster | None:
    """The cluster, where one is asked for; None = none is."""
    if ctx.get_parameter_source("scheduler") == ParameterSource.ENVIRONMENT and (
        asked.workers or asked.scheduler_file
    ):
        asked = replace(asked, scheduler=None)
    places = ("workers", "scheduler", "scheduler_file")
    given = [f"--{name.replace('_', '-')}" for name in places if getattr(asked, name)]
    if len(given) > 1:
        raise click.UsageError(f"give one of {' and '.join(given)}")
    if given:
        return asked
    for name in ("resources", "retries", "timeout"):
        if getattr(asked, name) is not None:
            raise click.UsageError(
                f"--{name} is for a cluster; give --workers, --scheduler or --scheduler-file"
            )
    return None


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
    from hiresattn.report.run_file import run_facts

    facts = run_facts(model, options) | {"classes": list(model.config.classes)}
    write_shard(file, shard, cases, there, facts)


def classifying(
    client: Any, model: "tuple[str, Card]", options: "ClassifyOptions", cluster: Cluster, *, ordered: bool
) -> "Callable[[list[Any]], Iterator[Any]]":
    """What classifies cases on a cluster: records in order; else each with its position, as it is done."""
    from hiresattn.cluster.run import classify_on

    def work(cases: "list[Any]") -> "Iterator[Any]":
        name, card = model
        found = classify_on(client, cases, name, options, cluster.care, ordered=ordered, card=card)
        return (record for _, record in found) if ordered else found

    return work
