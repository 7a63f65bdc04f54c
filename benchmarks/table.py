"""Write the README's tables from the stored results.

python benchmarks/table.py [--check]
"""

import re
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

from store import load

README = Path(__file__).parents[1] / "README.md"


def _table(head: list[str], rows: list[list[str]]) -> str:
    lines = [head, ["---"] * len(head), *rows]
    return "\n".join("| " + " | ".join(line) + " |" for line in lines)


def _source(result: dict[str, Any], script: str) -> str:
    return f"\n\n`benchmarks/{script}`, commit {result['commit']}, {result['date']}, {result['machine']}."


def demo(gigapixel: dict[str, Any]) -> str:
    """The demo's scene, over seeds."""
    g, rows = gigapixel, gigapixel["rows"]
    side = rows[0]["width"]
    body = [
        ["looking (budget 80, stop at .95)", f"{g['accuracy']:.2f}", f"{g['glimpses']:.0f}",
         f"{100 * g['fraction_read']:.2f} %", f"{g['bytes_read'] / 1e6:.1f} MB of {g['bytes'] / 1e6:.0f} MB"],
        ["first glance only", f"{g['lowres_accuracy']:.2f}", "1", "", ""],
        ["random places, same budget", f"{g['random_accuracy']:.2f}", "up to 80", "", ""],
    ]  # fmt: skip
    head = [
        f"{len(rows)} scenes of {side:,} x {side:,} px",
        "accuracy",
        "glimpses",
        "pixels decoded",
        "bytes read",
    ]
    words = f"\n\nMedian time to an answer: {g['seconds']:.1f} s on two shared cores, the file's opening included."
    return _table(head, body) + words + _source(g, "gigapixel.py")


def needle(result: dict[str, Any]) -> str:
    """Accuracy and cost by side, over the models of three training seeds; the first is the one that ships."""
    runs = [result, *filter(None, (load(f"needle-seed{seed}") for seed in (1, 2)))]
    rows = []
    for first in result["rows"]:
        same = [
            row
            for run in runs
            for row in run["rows"]
            if (row["side"], row["policy"]) == (first["side"], first["policy"])
        ]
        mean = {
            key: sum(row[key] for row in same) / len(same) for key in ("glimpses", "fraction_read", "cpu_ms")
        }
        rows.append(
            [f"{first['side']:,}", first["policy"], _span(same, "accuracy"), f"{mean['glimpses']:.0f}",
             f"{100 * mean['fraction_read']:.2g} %", f"{mean['cpu_ms']:.0f}", str(first["scenes"])]
        )  # fmt: skip
    head = ["side, px", "policy", "accuracy", "glimpses", "pixels rendered", "CPU ms", "scenes"]
    seconds = max(run["training"]["cpu_seconds"] for run in runs)
    words = (
        f"\n\nChance is .10. {len(runs)} models (mean, lowest to highest), each trained on sides up to 1,024 px in "
        f"{seconds:.0f} CPU-seconds or less; budget {result['budget']}, stop at {result['stop']}. Scenes are rendered "
        "when read; a scene of 262,144 px a side has 69 gigapixels."
    )
    return _table(head, rows) + words + _source(result, "needle.py")


def islands(result: dict[str, Any]) -> str:
    """Where models look, with and without boxes in training; mean and range over seeds."""
    rows = []
    for boxes in (True, False):
        for policy in ("best-first", "random", "lowres"):
            mine = [r for r in result["rows"] if r["boxes"] == boxes and r["policy"] == policy]
            looks = sum(r["glimpses"] for r in mine) / len(mine)
            rows.append(
                [
                    "yes" if boxes else "no",
                    policy,
                    _span(mine, "accuracy"),
                    _span(mine, "hit"),
                    f"{looks:.1f}",
                ]
            )
    head = ["boxes in training", "policy", "accuracy", "hit", "glimpses"]
    seeds = len({r["seed"] for r in result["rows"]})
    words = (
        f"\n\n{result['test']} test windows, {seeds} seeds (mean, lowest to highest), trained on {result['train']} "
        f"windows in {max(r['cpu_seconds'] for r in result['rows']):.0f} CPU-seconds or less. Hit: a visited region "
        f"at native resolution holds the centre of an island, spending a budget of {result['budget']}; accuracy and "
        "glimpses: with the stop rule. Splits are by place within one mosaic."
    )
    return _table(head, rows) + words + _source(result, "islands.py")


def _span(rows: list[dict[str, Any]], key: str) -> str:
    values = [row[key] for row in rows]
    return f"{sum(values) / len(values):.2f} ({min(values):.2f} to {max(values):.2f})"


def memory(result: dict[str, Any]) -> str:
    """Peak memory by size of the scene."""
    rows = [
        [r["scene"], f"{r['bytes'] / 1e6:,.0f} MB", f"{r['rss']:.0f} MB", str(r["glimpses"]), str(r["tiles"])]
        for r in result["rows"]
    ]
    return _table(["scene", "file", "peak memory of `classify`", "glimpses", "tiles"], rows) + _source(
        result, "memory.py"
    )


#: Block of the README → (stored result, how it is written).
BLOCKS: dict[str, tuple[str, Callable[[dict[str, Any]], str]]] = {
    "demo": ("gigapixel", demo),
    "needle": ("needle", needle),
    "islands": ("islands", islands),
    "memory": ("memory", memory),
}


def fill(text: str) -> str:
    """The README with every block written anew."""
    for block, (name, write) in BLOCKS.items():
        result = load(name)
        if result is None:
            continue
        pattern = rf"(<!-- table: {block} -->\n).*?(<!-- end -->)"
        text = re.sub(
            pattern, lambda m, r=result, w=write: f"{m[1]}\n{w(r)}\n\n{m[2]}", text, flags=re.DOTALL
        )
    return text


if __name__ == "__main__":
    before = README.read_text(encoding="utf-8")
    after = fill(before)
    if "--check" in sys.argv and before != after:
        sys.exit("README.md: a table is not what the stored results give; run python benchmarks/table.py")
    README.write_text(after, encoding="utf-8")
