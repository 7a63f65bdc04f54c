"""Tables of the needle scenes: the demo, by side, in files, and against the strength of the hint."""

import math
from statistics import linear_regression
from typing import Any

from store import load
from tables.markdown import mean, percent, source, span, table


def demo(gigapixel: dict[str, Any]) -> str:
    """The demo's scene, over seeds."""
    g, rows = gigapixel, gigapixel["rows"]
    side = rows[0]["width"]
    body = [
        ["search (budget 80, stop at .95)", f"{g['accuracy']:.2f}", f"{g['glimpses']:.0f}",
         f"{100 * g['fraction_read']:.2f} %", f"{g['bytes_read'] / 1e6:.1f} MB of {g['bytes'] / 1e6:.0f} MB"],
        ["root region only", f"{g['lowres_accuracy']:.2f}", "1", "", ""],
        ["random regions, same budget", f"{g['random_accuracy']:.2f}", "up to 80", "", ""],
    ]  # fmt: skip
    head = [
        f"{len(rows)} scenes of {side:,} x {side:,} px",
        "accuracy",
        "glimpses",
        "pixels decoded",
        "bytes read",
    ]
    words = f"\n\nMedian time to an answer: {g['seconds']:.1f} s on two shared cores, the file's opening included."
    return table(head, body) + words + source(g, "gigapixel.py")


def needle(result: dict[str, Any]) -> str:
    """Accuracy and cost by side, over the models of three training seeds; the first is the one that ships."""
    runs = [result, *filter(None, (load(f"needle-seed{seed}") for seed in (1, 2)))]
    found = [row for run in runs for row in run["rows"]]
    best = [row for row in found if row["policy"] == "best-first"]
    sides = sorted({row["side"] for row in best})
    body = []
    for side in sides:
        same = [row for row in best if row["side"] == side]
        body.append(
            [f"{side:,}", span(same, "accuracy"), f"{mean(same, 'hit'):.2f}", f"{mean(same, 'glimpses'):.0f}",
             percent(mean(same, "fraction_read")), f"{mean(same, 'cpu_ms'):.0f}"]
        )  # fmt: skip
    head = ["side, px", "accuracy", "needle seen at full resolution", "glimpses", "pixels rendered", "CPU ms"]
    seconds = max(run["training"]["cpu_seconds"] for run in runs)
    words = (
        f"\n\nChance is .10. {len(runs)} models (mean, lowest to highest), each trained on sides up to 1,024 px in "
        f"{seconds:.0f} CPU-seconds or less; {best[0]['scenes']} scenes per side; budget {result['budget']}, stop at "
        f"{result['stop']} (a search that is sure from further away ends there). Scenes are rendered when read; one of "
        "262,144 px a side has 69 gigapixels. A side that is not 64 px times a power of 4, as 32,768 px, is seen at a "
        "scale between those of training first. From 1,024 px on, glimpses grow with the side to the power "
        f"{_slope(best, 'glimpses'):.2f}, CPU time to the power {_slope(best, 'cpu_ms'):.2f}.\n\n"
    )
    return table(head, body) + words + _alternatives(found) + source(result, "needle.py")


def _alternatives(found: list[dict[str, Any]]) -> str:
    """Accuracy by policy and side."""
    every = (load("exhaustive") or {"rows": []})["rows"]
    more = [row for row in (load("needle-files") or {"rows": []})["rows"] if row["policy"] == "exhaustive"]
    known = {row["side"] for row in every}
    found = [*found, *every, *(row for row in more if row["side"] not in known)]
    sides = sorted({row["side"] for row in found if row["policy"] == "lowres"})
    names = {
        "best-first": "best-first, up to 80 glimpses",
        "top-k": "top-k: the best 4, then 2 of each region's cells",
        "top-k, NMS": "top-k, without cells that overlap a better one",
        "random": "random cells, up to 80 glimpses",
        "lowres": "root region only",
        "exhaustive": "every region, gated attention",
    }
    body = []
    for policy, name in names.items():
        cells = []
        for side in sides:
            same = [row for row in found if (row["policy"], row["side"]) == (policy, side)]
            few = f", {same[0]['scenes']} scenes" if same and same[0]["scenes"] < 100 else ""
            looks = f" ({mean(same, 'glimpses'):,.0f}{few})" if same else ""
            cells.append(f"{mean(same, 'accuracy'):.2f}{looks}" if same else "")
        if any(cells):
            body.append([name, *cells])
    words = ""
    if every:
        seeds = len({row["seed"] for row in every})
        words = (
            f"\n\nEvery region: squares of 64 px that overlap by a quarter, the same encoder, "
            f"{max(row['training_cpu_seconds'] for row in every):.0f} CPU-seconds of training on sides up to 1,024 px, "
            f"{seeds} seed{'s' if seeds > 1 else ''}; at 16,384 px real files."
        )
    return table(["accuracy (glimpses)", *(f"{side:,} px" for side in sides)], body) + words


def needle_files(result: dict[str, Any]) -> str:
    """The same in real files, beside a model that looks at every region of the same files."""
    body = []
    for row in result["rows"] + (load("needle-files-65536") or {"rows": []})["rows"]:
        if row["policy"] != "best-first":
            continue
        every = [r for r in result["rows"] if (r["policy"], r["side"]) == ("exhaustive", row["side"])]
        ratio = f"{every[0]['cpu_ms'] / row['cpu_ms']:,.0f}" if every else ""
        body.append(
            [f"{row['side']:,}", str(row["scenes"]), f"{row['accuracy']:.2f}", f"{row['glimpses']:.0f}",
             f"{row['bytes_read'] / 1e3:,.0f} kB of {row['bytes'] / 1e6:,.1f} MB",
             percent(row["fraction_read"]), f"{row['cpu_ms']:.0f}",
             f"{every[0]['cpu_ms']:,.0f}" if every else "", ratio]
        )  # fmt: skip
    head = ["side, px", "files", "accuracy", "glimpses", "bytes read", "pixels decoded", "CPU ms",
            "every region, CPU ms", "ratio"]  # fmt: skip
    words = (
        "\n\nTiled JPEG pyramids, each opened anew. *Every region*: the model that pools all overlapping regions of "
        "64 px, run in full on three of the same files per side, in the same run; nothing is extrapolated."
    )
    return table(head, body) + words + source(result, "needle_files.py")


SEARCHES = {
    "as shipped": "the search as it is: up to 80 glimpses, stop at .95",
    "budget 200": "up to 200 glimpses",
    "budget 400": "up to 400 glimpses",
    "NMS .3": "passing over regions that overlap a visited one by .3",
    "NMS .1": "the same by .1",
    "stop .99": "stop at .99",
    "flatter": "scorer's logits halved",
    "sharper": "scorer's logits doubled",
    "4 at once": "4 regions at once",
    "top-k": "top-k (4, 2)",
}


TRAININGS = {
    "recipe": "trained by the recipe",
    "boxes": "trained with the needle's box",
    "clear first": "half of the training on rings of .16",
    "searched": "trained, then again with boxes from its own searches",
    "long": "trained twice as long",
    "wide": "trained with 8, 4 cells per region",
    "size128": "trained with crops of 128 px",
    "zoom2": "trained with cells of half a region's side",
    "deep": "trained on 4,096 px too",
    "wide long": "trained with 8, 4 cells per region, three times as long",
    "size128 long": "trained with crops of 128 px, three times as long",
}


def hints(result: dict[str, Any]) -> str:
    """Accuracy against the hint's strength, and what was tried at half of it."""
    sides = (1024, 4096, 16384)
    rows = [
        {"kind": "train", "hint": 0.16, "variant": "recipe", "split": "test", "seed": seed, **row}
        for seed, run in enumerate(load(f"needle{name}") for name in ("", "-seed1", "-seed2"))
        for row in (run or {"rows": []})["rows"]
        if row["policy"] == "best-first"
    ]
    rows += result["rows"]

    def cells(kind: str, split: str, at: tuple[int, ...] = sides, **key: Any) -> list[str]:
        out = []
        for side in at:
            asked = key | {"kind": kind, "split": split, "side": side}
            same = [row for row in rows if all(row.get(k) == v for k, v in asked.items())]
            out.append(f"{mean(same, 'accuracy'):.2f} ({mean(same, 'glimpses'):.0f})" if same else "")
        return out

    strengths = sorted({row["hint"] for row in rows if row["split"] == "test"}, reverse=True)
    body = []
    for hint in strengths:
        for kind, variant, name in (
            ("train", "recipe", ""),
            ("search", "trained at .16", ", the model trained at 0.16"),
            ("train", "clear first", ", half of the training at 0.16"),
            ("train", "long", ", trained twice as long"),
            ("train", "searched", ", boxes from its own searches"),
            ("train", "clear, searched", ", boxes from searches of the model trained at 0.16"),
            ("train", "boxes", ", given boxes"),
        ):
            asked = (kind, hint, variant, "test")
            seeds = {r["seed"] for r in rows if (r["kind"], r["hint"], r["variant"], r["split"]) == asked}
            found = cells(kind, "test", hint=hint, variant=variant)
            if any(found):
                body.append([f"{hint}{name}, {len(seeds)} seed{'s' if len(seeds) > 1 else ''}", *found])
    curve = table(["strength", *(f"{side:,} px" for side in sides)], body)
    tried = []
    ends = (sides[0], sides[-1])
    for kind, key, names in (("search", "search", SEARCHES), ("train", "variant", TRAININGS)):
        for name in dict.fromkeys(row[key] for row in rows if (row["kind"], row["split"]) == (kind, "val")):
            more = {"variant": "recipe"} if kind == "search" else {}
            tried.append([names.get(name, name), *cells(kind, "val", ends, hint=0.08, **{key: name}, **more)])
    head = [
        "tried at 0.08, 100 validation scenes (trainings 150), 1 seed",
        *(f"{side:,} px" for side in ends),
    ]
    attempts = table(head, tried)
    words = (
        "Accuracy (glimpses), by the rings' strength as a share of the value range, test scenes; trained at that "
        "strength unless said:"
    )
    return f"{words}\n\n{curve}\n\n{attempts}" + source(result, "hints.py")


def _slope(rows: list[dict[str, Any]], key: str) -> float:
    """Of a cost against the side, both as logarithms, from 1,024 px on."""
    sides = sorted({row["side"] for row in rows if row["side"] >= 1024})
    costs = [mean([row for row in rows if row["side"] == side], key) for side in sides]
    return linear_regression([math.log(side) for side in sides], [math.log(cost) for cost in costs]).slope
