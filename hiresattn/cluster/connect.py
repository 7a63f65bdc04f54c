"""Schedulers of dask.distributed: found, or started here; and what their workers offer."""

import logging
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

from hiresattn.errors import BackendMissingError, ClusterError, ConfigError

#: Wait for a scheduler, and for its first worker, s.
_WAIT = 60
#: How often worker processes that are gone for good are replaced, s.
_REPLACED = 5
#: How often workers are looked for, s.
_TICK = 0.2


def distributed() -> Any:
    """The package ``distributed``.

    Raises:
        BackendMissingError: If it can't be imported.
    """
    try:
        import distributed as package
    except ImportError as error:
        raise BackendMissingError(
            f"work on a cluster needs distributed, which can't be imported ({error}); pip install 'hiresattn[cluster]'"
        ) from error
    return package


@contextmanager
def connected(
    address: str | None = None, *, scheduler_file: str | None = None, workers: int | None = None
) -> Iterator[Any]:
    """A client of a scheduler; closed at the end.

    Args:
        address: Of the scheduler, such as ``tcp://head:8786``.
        scheduler_file: File that the scheduler wrote its address to.
        workers: Start so many processes here, and use them; they end with the block.

    Raises:
        BackendMissingError: If distributed isn't installed.
        ClusterError: If the scheduler can't be reached.
    """
    package = distributed()
    for name in (
        "distributed",
        "distributed.client",
        "distributed.comm",
        "distributed.nanny",
        "distributed.worker",
    ):
        logging.getLogger(name).setLevel(
            logging.CRITICAL
        )  # what is lost, and what becomes of it, is said here
    if workers is None:
        try:
            client = package.Client(address, scheduler_file=scheduler_file, timeout=_WAIT)
        except (OSError, ValueError, TimeoutError) as error:
            raise ClusterError(
                f"{scheduler_file or address}: no scheduler answers there ({error}); start one with `dask scheduler`, "
                "or give workers, which start here"
            ) from error
        with client:
            yield client
        return
    cluster = package.LocalCluster(
        n_workers=workers,
        threads_per_worker=1,
        processes=True,
        silence_logs=logging.CRITICAL,
        # A worker that is lost is reported at once: `Tasks` counts, and tells the guilty case from its neighbours.
        scheduler_kwargs={"allowed_failures": 0, "dashboard": False, "dashboard_address": ":0"},
    )
    with cluster, package.Client(cluster) as client, _replaced(cluster, workers):
        yield client


@contextmanager
def _replaced(cluster: Any, workers: int) -> Iterator[None]:
    """Within this, worker processes that can't be started again by those that watch them are replaced.

    One that ends while it is still being started is given up by its nanny.
    """
    over = False

    def replace() -> None:
        if not over:
            cluster.scale(workers)
            cluster.loop.call_later(_REPLACED, replace)

    cluster.loop.add_callback(replace)
    try:
        yield
    finally:
        over = True


def check_workers(client: Any, resources: Mapping[str, float] | None) -> None:
    """Wait for a worker, and refuse resources that none has: dask would wait for one that has, without a word.

    Raises:
        ClusterError: If there is no worker.
        ConfigError: If none has the resources.
    """
    deadline = time.monotonic() + _WAIT
    while not (found := client.scheduler_info(n_workers=-1)["workers"]):
        if time.monotonic() > deadline:
            raise ClusterError(
                f"{client.scheduler.address}: no worker came within {_WAIT} s; start some with `dask worker "
                f"{client.scheduler.address} --nthreads 1`"
            )
        time.sleep(_TICK)
    if not resources:
        return
    offered = [one.get("resources") or {} for one in found.values()]
    if not any(all(one.get(name, 0) >= amount for name, amount in resources.items()) for one in offered):
        asked = " and ".join(f"{name}={amount:g}" for name, amount in resources.items())
        each = [", ".join(f"{name}={amount:g}" for name, amount in one.items()) for one in offered]
        offers = "; ".join(sorted({words or "nothing" for words in each}))
        raise ConfigError(
            f"resources {asked}: none of {len(offered)} workers has that; they offer {offers}. Start workers "
            f'with `dask worker {client.scheduler.address} --nthreads 1 --resources "{asked.replace(" and ", " ")}"`, '
            "or leave resources out"
        )
