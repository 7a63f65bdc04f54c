"""Tables of many workers: where they saturate, and what a soak leaves."""

from typing import Any

from tables.markdown import source, table


def cluster_model(result: dict[str, Any]) -> str:
    """Cases a second by workers, and by readers a GPU, with what limits them; and the model beside real runs."""
    cost, assumed = result["cost"], result["assumed"]
    rows = [[str(count), f"{rate:,.1f}", limit] for count, rate, limit in result["workers"]]
    text = table(["workers, a core each", "cases a second", "limited by"], rows)
    rows = [[str(count), f"{rate:,.1f}", limit] for count, rate, limit in result["readers"]]
    text += "\n\n" + table(["readers of a GPU", "cases a second", "limited by"], rows)
    ms = {name: 1000 * cost[f"{name}_s"] for name in ("read", "compute", "schedule", "write")}
    ms = {name: 1000 * cost[f"{name}_s"] for name in ("read", "compute", "schedule", "write")}
    text += (
        f"\n\nCPU time of a case: {ms['read']:.1f} ms of reading, {ms['compute']:.1f} ms of computing, "
        f"{ms['schedule']:.2f} ms of scheduler and client, {ms['write']:.2f} ms of writing; {cost['bytes'] / 1e6:.2f} "
        f"MB are read. Assumed: a GPU computes {assumed['gpu']:g} times as fast, the store gives "
        f"{assumed['store'] / 1e9:g} GB/s, the network {assumed['network'] / 1e9:g} GB/s."
    )
    if result["check"]:
        rows = [[str(count), f"{real:.2f}", f"{model:.2f}"] for count, real, model in result["check"]]
        text += "\n\n" + table(["processes here", "cases a second", "by the model"], rows)
    else:
        text += f" Not compared with real runs: the machine had other work (load {result['load']:g})."
    return text + source(result, "cluster_model.py")


def soak(result: dict[str, Any]) -> str:
    """Memory and open files of each process, at half and at the end."""
    rows = [
        [
            row["process"],
            f"{row['half']:.0f} MB",
            f"{row['end']:.0f} MB",
            f"{100 * row['growth']:.1f} %",
            f"{row['handles'][0]}, {row['handles'][1]}",
        ]
        for row in result["rows"]
    ]
    head = ["process", "memory at half", "at the end", "growth over the second half", "open files"]
    return table(head, rows) + source(result, "soak.py")


def cluster(result: dict[str, Any]) -> str:
    """Cases a second of local processes, and Dask's part of a case."""
    one = result["rate"]["1"]
    rows = [[count, f"{rate:.2f}", f"{rate / one:.2f}"] for count, rate in result["rate"].items()]
    text = table(["processes", "cases a second", "times one"], rows)
    text += f"\n\nDask adds {result['overhead_ms']:.1f} ms to a case, at {result['empty']:,} cases."
    return text + source(result, "cluster.py")
