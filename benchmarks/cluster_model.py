"""Where a cluster saturates: a model of 1 to 1,000 workers and of 1 to 64 readers a GPU, from measured costs of a case.

    python benchmarks/cluster_model.py

Measured here: how long a case of small images reads and computes, what the client and the scheduler compute for a
task (both in one process, many empty tasks), how long a record takes to be written, and the bytes read. The model is a
closed queueing network: as many cases as there are workers are under way, and wait for what all share. It is solved by
mean value analysis. What can't be measured here is assumed, and said so: how much faster a GPU computes, and how fast
a store and a network deliver. Costs are CPU time, shared out between reading and computing as the clock was. The last
part compares the model with real runs of 1, 2 and 4 processes; on a machine that is busy it is left out.
"""

import argparse
import json
import os
import tempfile
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from cluster import MODEL, images, rate
from hiresattn.card import read_card
from hiresattn.cluster.connect import connected
from hiresattn.cluster.tasks import Care, Tasks
from hiresattn.inference.classify import classify_all
from hiresattn.inference.options import ClassifyOptions
from hiresattn.inference.records_file import RecordsFile
from store import store

WORKERS = (1, 2, 4, 8, 16, 32, 64, 125, 250, 500, 1000)
READERS = (1, 2, 4, 8, 16, 32, 64)
PROCESSES = (1, 2, 4)
#: Cases that warm up.
WARM = 3
#: Assumed: times that a GPU computes faster than a core; bytes a second of a store, and of a network.
GPU, STORE, NETWORK = 50.0, 2e9, 1.25e9


def throughput(customers: int, queues: Mapping[str, float], delay: float) -> tuple[float, str]:
    """Cases a second of a closed network, by mean value analysis.

    Args:
        customers: Cases under way.
        queues: Time that a case needs of each thing that all share, s, by name.
        delay: Time that it needs of what it has for itself, s.

    Returns:
        The rate, and what limits it: the most used queue where it is used to 90 % and more, else ``workers``.
    """
    waiting = dict.fromkeys(queues, 0.0)
    found = 0.0
    for number in range(1, customers + 1):
        times = {name: need * (1 + waiting[name]) for name, need in queues.items()}
        found = number / (delay + sum(times.values()))
        waiting = {name: found * spent for name, spent in times.items()}
    busiest = max(queues, key=lambda name: queues[name])
    return found, busiest if found * queues[busiest] >= 0.9 else "workers"


def nothing(case: int, topic: str | None) -> int:
    """A task that does nothing."""
    assert topic is None
    return case


def measured(paths: list[str], budget: int, tasks: int) -> dict[str, float]:
    """Costs of a case: seconds of reading, computing, scheduling and writing, and bytes."""
    options = ClassifyOptions(budget=budget, batch_images=1, threads=1, stop=None)
    coming = classify_all(paths, str(MODEL), options)
    for _ in range(WARM):
        next(coming)
    began = time.process_time()
    records = list(coming)
    whole = (time.process_time() - began) / len(records)
    assert all(record.status == "ok" for record in records)
    with connected(workers=2) as client:
        list(Tasks(client, nothing, Care()).run(range(50)))
        began = time.process_time()
        done = list(Tasks(client, nothing, Care()).run(range(tasks)))
        scheduling = (time.process_time() - began) / tasks
    assert sorted(done) == [(number, number) for number in range(tasks)]
    with (
        tempfile.TemporaryDirectory() as folder,
        RecordsFile(Path(folder) / "r.jsonl", read_card(MODEL), options) as file,
    ):
        began = time.process_time()
        for record, path in zip(records, paths[WARM:], strict=True):
            file.write(record, path)
        writing = (time.process_time() - began) / len(records)
    spent = [record.cost.seconds for record in records]
    reading = whole * sum(one.open + one.read for one in spent) / sum(one.total for one in spent)
    return {
        "read_s": reading,
        "compute_s": whole - reading,
        "schedule_s": scheduling,
        "write_s": writing,
        "bytes": sum(record.cost.bytes_read for record in records) / len(records),
    }


def on_workers(cost: Mapping[str, float], workers: int) -> tuple[float, str]:
    """Cases a second of so many workers, each with a core of its own."""
    shared = {
        "scheduler and client": cost["schedule_s"] + cost["write_s"],
        "store": cost["bytes"] / STORE,
        "network": cost["bytes"] / NETWORK,
    }
    return throughput(workers, shared, cost["read_s"] + cost["compute_s"])


def on_gpu(cost: Mapping[str, float], readers: int) -> tuple[float, str]:
    """Cases a second of so many readers that one GPU computes for; ``workers`` are the readers, the decoders."""
    shared = {"GPU": cost["compute_s"] / GPU, "scheduler and client": cost["schedule_s"] + cost["write_s"],
              "store": cost["bytes"] / STORE, "network": cost["bytes"] / NETWORK}  # fmt: skip
    found, limit = throughput(readers, shared, cost["read_s"])
    return found, "decoders" if limit == "workers" else limit


def here(cost: Mapping[str, float], processes: int, cores: int) -> float:
    """Cases a second of so many processes on this machine, whose cores client, scheduler and workers share."""
    need = cost["read_s"] + cost["compute_s"] + cost["schedule_s"] + cost["write_s"]
    return min(processes, cores) / need


def main() -> None:
    """Measure, predict, compare, and store the result."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--cases", type=int, default=60, help="images classified")
    parser.add_argument("--tasks", type=int, default=1000, help="empty tasks")
    parser.add_argument("--side", type=int, default=1024, help="side of an image, px")
    parser.add_argument("--budget", type=int, default=32)
    parser.add_argument("--check", action="store_true", help="print only")
    asked = parser.parse_args()
    cores = os.cpu_count() or 1
    with tempfile.TemporaryDirectory() as folder:
        paths = images(Path(folder), asked.cases, asked.side)
        cost = measured(paths, asked.budget, asked.tasks)
        load = os.getloadavg()[0]
        idle = load < 1.5 * cores  # what was measured before is load, too
        real = {count: rate(paths, count, asked.budget) for count in PROCESSES} if idle else {}
    result: dict[str, Any] = {
        "cases": asked.cases,
        "load": round(load, 2),
        "cost": {name: round(value, 6) for name, value in cost.items()},
        "assumed": {"gpu": GPU, "store": STORE, "network": NETWORK},
        "workers": [[count, *on_workers(cost, count)] for count in WORKERS],
        "readers": [[count, *on_gpu(cost, count)] for count in READERS],
        "check": [[count, found, here(cost, count, cores)] for count, found in real.items()],
    }
    print(json.dumps(result, indent=1))
    if not asked.check:
        store("cluster_model", **result)


if __name__ == "__main__":
    main()
