"""Write the README's tables from the stored results.

python benchmarks/table.py
"""

import math
import re
from collections.abc import Callable
from itertools import product
from pathlib import Path
from statistics import fmean, linear_regression, stdev
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
    found = [row for run in runs for row in run["rows"]]
    best = [row for row in found if row["policy"] == "best-first"]
    sides = sorted({row["side"] for row in best})
    body = []
    for side in sides:
        same = [row for row in best if row["side"] == side]
        body.append(
            [f"{side:,}", _span(same, "accuracy"), f"{_mean(same, 'hit'):.2f}", f"{_mean(same, 'glimpses'):.0f}",
             _percent(_mean(same, "fraction_read")), f"{_mean(same, 'cpu_ms'):.0f}"]
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
    return _table(head, body) + words + _alternatives(found) + _source(result, "needle.py")


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
        "lowres": "first glance only",
        "exhaustive": "every place, gated attention",
    }
    body = []
    for policy, name in names.items():
        cells = []
        for side in sides:
            same = [row for row in found if (row["policy"], row["side"]) == (policy, side)]
            few = f", {same[0]['scenes']} scenes" if same and same[0]["scenes"] < 100 else ""
            looks = f" ({_mean(same, 'glimpses'):,.0f}{few})" if same else ""
            cells.append(f"{_mean(same, 'accuracy'):.2f}{looks}" if same else "")
        if any(cells):
            body.append([name, *cells])
    words = ""
    if every:
        seeds = len({row["seed"] for row in every})
        words = (
            f"\n\nEvery place: regions of 64 px that overlap by a quarter, the same encoder, "
            f"{max(row['training_cpu_seconds'] for row in every):.0f} CPU-seconds of training on sides up to 1,024 px, "
            f"{seeds} seed{'s' if seeds > 1 else ''}; at 16,384 px real files."
        )
    return _table(["accuracy (glimpses)", *(f"{side:,} px" for side in sides)], body) + words


def needle_files(result: dict[str, Any]) -> str:
    """The same in real files, beside looking at every place of the same files."""
    body = []
    for row in result["rows"] + (load("needle-files-65536") or {"rows": []})["rows"]:
        if row["policy"] != "best-first":
            continue
        every = [r for r in result["rows"] if (r["policy"], r["side"]) == ("exhaustive", row["side"])]
        ratio = f"{every[0]['cpu_ms'] / row['cpu_ms']:,.0f}" if every else ""
        body.append(
            [f"{row['side']:,}", str(row["scenes"]), f"{row['accuracy']:.2f}", f"{row['glimpses']:.0f}",
             f"{row['bytes_read'] / 1e3:,.0f} kB of {row['bytes'] / 1e6:,.1f} MB",
             _percent(row["fraction_read"]), f"{row['cpu_ms']:.0f}",
             f"{every[0]['cpu_ms']:,.0f}" if every else "", ratio]
        )  # fmt: skip
    head = ["side, px", "files", "accuracy", "glimpses", "bytes read", "pixels decoded", "CPU ms",
            "every place, CPU ms", "ratio"]  # fmt: skip
    words = (
        "\n\nTiled JPEG pyramids, each opened anew. *Every place*: the model that pools all overlapping regions of "
        "64 px, run in full on three of the same files per side, in the same run; nothing is extrapolated."
    )
    return _table(head, body) + words + _source(result, "needle_files.py")


#: How the README says what `hints.py` tried.
SEARCHES = {
    "as shipped": "the search as it is: up to 80 glimpses, stop at .95",
    "budget 200": "up to 200 glimpses",
    "budget 400": "up to 400 glimpses",
    "NMS .3": "passing over places that overlap a visited one by .3",
    "NMS .1": "the same by .1",
    "stop .99": "stop at .99",
    "flatter": "scorer's logits halved",
    "sharper": "scorer's logits doubled",
    "4 at once": "4 regions at once",
    "top-k": "top-k (4, 2)",
}
TRAININGS = {
    "recipe": "trained by the recipe",
    "boxes": "trained with the needle's place",
    "clear first": "half of the training on rings of .16",
    "searched": "trained, then again with the places that its searches found",
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
            out.append(f"{_mean(same, 'accuracy'):.2f} ({_mean(same, 'glimpses'):.0f})" if same else "")
        return out

    strengths = sorted({row["hint"] for row in rows if row["split"] == "test"}, reverse=True)
    body = []
    for hint in strengths:
        for kind, variant, name in (
            ("train", "recipe", ""),
            ("search", "trained at .16", ", the model trained at 0.16"),
            ("train", "clear first", ", half of the training at 0.16"),
            ("train", "long", ", trained twice as long"),
            ("train", "searched", ", told where by its own searches"),
            ("train", "clear, searched", ", told where by searches of the model trained at 0.16"),
            ("train", "boxes", ", told where (boxes)"),
        ):
            asked = (kind, hint, variant, "test")
            seeds = {r["seed"] for r in rows if (r["kind"], r["hint"], r["variant"], r["split"]) == asked}
            found = cells(kind, "test", hint=hint, variant=variant)
            if any(found):
                body.append([f"{hint}{name}, {len(seeds)} seed{'s' if len(seeds) > 1 else ''}", *found])
    curve = _table(["strength", *(f"{side:,} px" for side in sides)], body)
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
    attempts = _table(head, tried)
    words = (
        "Accuracy (glimpses), by the rings' strength as a share of the value range, test scenes; trained at that "
        "strength unless said:"
    )
    return f"{words}\n\n{curve}\n\n{attempts}" + _source(result, "hints.py")


def islands(result: dict[str, Any]) -> str:
    """Where models look, with and without boxes in training, and the plain alternatives; over seeds."""
    names = {
        ("boxes", "best-first"): "best-first, boxes in training",
        ("boxes", "top-k"): "top-k, boxes in training",
        ("boxes", "random"): "random, boxes in training",
        ("labels", "best-first"): "best-first",
        ("labels", "top-k"): "top-k",
        ("labels", "random"): "random",
        ("thumbnail", "lowres"): "thumbnail of 64 px, own training",
        ("exhaustive", "exhaustive"): "every place, gated attention, own training",
    }
    seeds = len({r["seed"] for r in result["rows"]})
    body = []
    for (model, policy), name in names.items():
        mine = [r for r in result["rows"] if (r["model"], r["policy"]) == (model, policy)]
        if not mine:
            continue
        deep = [sum(r["hits"][d] for r in mine) / len(mine) for d in range(1, len(mine[0]["hits"]))]
        few = f" ({len(mine)} seed{'s' if len(mine) > 1 else ''})" if len(mine) < seeds else ""
        body.append(
            [name + few, _span(mine, "accuracy"), _span(mine, "hit"), " / ".join(f"{hit:.2f}" for hit in deep),
             f"{_mean(mine, 'glimpses'):.1f}",
             _percent(_mean(mine, "fraction_read")), f"{_mean(mine, 'bytes_read') / 1e3:.0f} kB",
             f"{_mean(mine, 'cpu_ms'):.0f}", f"{max(r['training_cpu_seconds'] for r in mine):.0f}"]
        )  # fmt: skip
    head = ["", "accuracy", "hit", "hit by depth", "glimpses", "pixels read", "bytes", "CPU ms",
            "training, CPU s"]  # fmt: skip
    words = (
        f"\n\n{result['test']} test windows, {seeds} seeds (mean, lowest to highest), trained on {result['train']} "
        "windows. Hit: of the windows with islands, in how many a visited region of at most 128 px holds the centre of "
        f"one, spending a budget of {result['budget']}; by depth: below the first glance. Accuracy and costs: with the "
        "stop rule (top-k has none). Pixels are many as finer levels are averaged (`--oversample 4`). Splits are by "
        "place within one mosaic."
    )
    return _table(head, body) + words + _source(result, "islands.py")


def oddcell(result: dict[str, Any]) -> str:
    """The odd cell: what training was told, against what was found."""
    told = {
        "boxes": "where (boxes)",
        "boxes-jpeg": "where (boxes), the last part with `--jpeg 0.5`",
        "distilled": "what; where, by looking everywhere once",
        "unlabelled": "no labels; where and what, by looking everywhere once",
        "single-cells": "no labels; all windows, by a classifier of single cells",
        "responsibilities": "what (responsibilities)",
        "leave-one-out": "what (leave-one-out rewards)",
        "glimpses": "what, on every glimpse",
        "everywhere": "what; all windows pooled by attention",
        **{f"thumbnail-{px}": f"what; a thumbnail of {px} px" for px in (64, 128, 256, 1024)},
    }
    body = []
    for grid in sorted({row["grid"] for row in result["rows"]}):
        for recipe, words in told.items():
            mine = [row for row in result["rows"] if (row["grid"], row["recipe"]) == (grid, recipe)]
            for policy in dict.fromkeys(row["policy"] for row in mine):
                if recipe != "boxes" and policy in ("whole budget", "top-k"):
                    continue
                same = [row for row in mine if row["policy"] == policy]
                looks = policy != "first look"
                body.append(
                    [f"{grid} x {grid}", words, policy if looks else "", _span(same, "accuracy"),
                     _span(same, "hit") if looks else "", f"{_mean(same, 'glimpses'):.0f}",
                     _percent(_mean(same, "fraction_read")), f"{_mean(same, 'cpu_ms'):.0f}",
                     f"{_mean(same, 'train_cpu_seconds'):.0f}", str(len(same))]
                )  # fmt: skip
    head = ["cells", "training is told", "policy", "accuracy", "hit", "glimpses", "pixels read", "CPU ms",
            "training, CPU-s", "seeds"]  # fmt: skip
    files = [
        [row["format"], f"{row['grid']} x {row['grid']}", str(row["scenes"]), told[row["recipe"]],
         *(f"{row[key]:.2f}" if row["scenes"] >= 20 else "" for key in ("accuracy", "hit")),
         f"{row['bytes_read'] / 1e6:.1f} of {row['bytes'] / 1e6:,.0f} MB", _percent(row["fraction_read"]),
         f"{row['glimpses']:.0f}", f"{row['cpu_ms']:.0f}"]
        for row in result["files"]
    ]  # fmt: skip
    scenes = sorted({row["scenes"] for row in result["rows"]})
    budgets = ", ".join(map(str, result["budgets"].values()))
    words = (
        f"\n\n{scenes[0]} test scenes per size, budgets {budgets}, stop at {result['stop']}; mean (lowest to "
        "highest). Every scene has an odd cell: the answer is the likeliest of the seven classes that one can have. "
        "Hit: a finest window visited holds the whole odd cell. Chance is .14.\n\n"
    )
    table = _table(
        ["file", "cells", "scenes", "training is told", "accuracy", "hit", "bytes read", "pixels decoded", "glimpses",
         "CPU ms"],
        files,
    )  # fmt: skip
    return _table(head, body) + words + table + _source(result, "oddcell.py")


def megamnist(result: dict[str, Any]) -> str:
    """Megapixel-MNIST: looking, beside all windows, random places and every digit shown."""
    body = []
    rows = [row for row in result["rows"] if row["recipe"] in ("location", "everywhere")]
    kinds = dict.fromkeys((row["side"], row["recipe"], row["policy"]) for row in rows)
    for side, recipe, policy in sorted(kinds, key=lambda kind: kind[0]):
        same = [r for r in rows if (r["side"], r["recipe"], r["policy"]) == (side, recipe, policy)]
        looks = policy not in ("every window", "first look")
        words = {"every window": "all windows, gated attention", "oracle": f"{recipe}, shown every digit"}
        cost = ["", ""]
        if policy != "oracle":
            cost = [_percent(_mean(same, "fraction_read")), f"{_mean(same, 'cpu_ms'):.0f}"]
        body.append(
            [f"{side:,}", words.get(policy, f"{recipe}, {policy}"), _span(same, "accuracy"),
             f"{_mean(same, 'hit'):.2f}" if looks else "", f"{_mean(same, 'seen'):.2f}" if looks else "",
             f"{_mean(same, 'glimpses'):.0f}", *cost,
             f"{_mean(same, 'train_cpu_seconds'):.0f}", str(len(same))]
        )  # fmt: skip
    head = ["side, px", "", "accuracy", "hit", "digits seen", "glimpses", "pixels read", "CPU ms",
            "training, CPU-s", "seeds"]  # fmt: skip
    counts = dict(sorted((row["side"], row["scenes"]) for row in rows))
    scenes = ", ".join(f"{count} test scenes of {side:,} px" for side, count in counts.items())
    words = (
        f"\n\n{scenes}; chance .10; mean (lowest to highest). Hit: a window visited at full resolution "
        "holds at least half of a digit; digits seen: share of the five of which one does. Searches spend their "
        "budget (no stop); glimpses count the regions of the first look. Trained on sides up to 768 px."
    )
    return _table(head, body) + words + _source(result, "megamnist.py")


def _mean(rows: list[dict[str, Any]], key: str) -> float:
    return float(sum(row[key] for row in rows) / len(rows))


def _percent(share: float) -> str:
    return f"{100 * share:.0f} %" if share >= 0.1 else f"{100 * share:.2g} %"


def _slope(rows: list[dict[str, Any]], key: str) -> float:
    """Of a cost against the side, both as logarithms, from 1,024 px on."""
    sides = sorted({row["side"] for row in rows if row["side"] >= 1024})
    costs = [_mean([row for row in rows if row["side"] == side], key) for side in sides]
    return linear_regression([math.log(side) for side in sides], [math.log(cost) for cost in costs]).slope


def _span(rows: list[dict[str, Any]], key: str) -> str:
    values = [row[key] for row in rows]
    ends = f" ({min(values):.2f} to {max(values):.2f})" if len(values) > 1 else ""
    return f"{sum(values) / len(values):.2f}{ends}"


def memory(result: dict[str, Any]) -> str:
    """Peak memory by size of the scene."""
    rows = [
        [r["scene"], f"{r['bytes'] / 1e6:,.0f} MB", f"{r['rss']:.0f} MB", str(r["glimpses"]), str(r["tiles"])]
        for r in result["rows"]
    ]
    return _table(["scene", "file", "peak memory of `classify`", "glimpses", "tiles"], rows) + _source(
        result, "memory.py"
    )


def reading(result: dict[str, Any]) -> str:
    """CPU ms per crop, pattern by pattern, beside the other readers."""
    shown = [row for row in result["rows"] if row["file"] == "slide"]
    ways = {
        "hiresattn": "ours",
        "hiresattn, ready for a network": "fused",
        "decoding alone (the floor)": "floor",
        "OpenSlide `read_region`": "loop",
    }
    rows = [[name, *(f"{row[key]['cpu_ms']:.2f}" for row in shown)] for name, key in ways.items()]
    absent = []
    for number, other in enumerate(shown[0]["others"]):
        if other.get("missing"):
            absent.append(other["name"])
        else:
            rows.append([other["name"], *(f"{row['others'][number]['cpu_ms']:.2f}" for row in shown)])
    head = [f"CPU ms per crop, {shown[0]['side']:,} px JPEG slide", *(row["pattern"] for row in shown)]
    faster = ", ".join(
        f"{row['pattern']} {row['speedup_over_loop']:.1f}" for row in result["rows"] if row["file"] == "zarr"
    )
    floor = ", ".join(f"{row['pattern']} {row['ratio_to_floor']:.2f}" for row in shown)
    fused = ", ".join(f"{row['fused']['ratio_to_floor']:.2f}" for row in shown)
    words = (
        f"\n\n500 crops of 224 px, one thread, pixels compared. Zarr 3 with 256-px chunks, times faster than "
        f"`z[y:y+h, x:x+w]`: {faster}. Times the floor: {floor}; ready for a network {fused}."
    )
    if absent:
        words += f" Not installed here: {', '.join(absent)}."
    return _table(head, rows) + words + _source(result, "reading.py")


def slide_profile(result: dict[str, Any]) -> str:
    """What a classification of a large slide spends its time on."""
    names = {
        "model": "network",
        "read": "reading crops",
        "open": "opening the file",
        "rest": "the rest: search, geometry, record",
        "total": "in all",
    }
    whole = result["rows"]["total"]["cpu"]
    rows = [
        [name, f"{1e3 * seconds['cpu']:.0f}", _percent(seconds["cpu"] / whole)]
        for key, name in names.items()
        for seconds in [result["rows"][key]]
    ]
    numba = result["numba"]
    words = (
        f"\n\n{result['budget']} looks at a JPEG slide of {result['side']:,} x {result['side']:,} px "
        f"({result['bytes'] / 1e6:.0f} MB), opened anew; EfficientNet-B0 (random weights), crops of 224 px, one "
        f"thread. Numba costs a second process {numba['import']:.2f} s for its import and {numba['kernels']:.2f} s for "
        "the compiled kernels."
    )
    return _table(["`classify`", "CPU ms", "share"], rows) + words + _source(result, "slide_profile.py")


def remote(result: dict[str, Any]) -> str:
    """Requests and bytes of a look over the network."""
    rows = [
        [
            f"{row['side']:,}",
            f"{row['bytes'] / 1e6:.0f} MB",
            f"{row['glance']['requests']}, {row['glance']['bytes'] / 1e6:.2f} MB",
            *(
                f"{row[policy]['requests']}, {row[policy]['bytes'] / 1e6:.2f} MB ({100 * row[policy]['share']:.1f} %)"
                for policy in ("best-first", "random")
            ),
        ]
        for row in result["rows"]
    ]
    looks = f"search, {result['budget']} looks"
    head = ["side, px", "file", "open and first glance", looks, "the same, anywhere"]
    doublings = math.log2(result["rows"][-1]["side"] / result["rows"][0]["side"])
    more = [
        result["rows"][-1][policy]["bytes"] - result["rows"][0][policy]["bytes"]
        for policy in ("best-first", "random")
    ]
    words = (
        f"\n\nRequests and bytes; the server answers after {result['latency_ms']} ms. When the side doubles, the file "
        f"grows fourfold, a search reads {more[0] / doublings / 1e6:.2f} MB more and looks anywhere "
        f"{more[1] / doublings / 1e6:.2f} MB more."
    )
    return _table(head, rows) + words + _source(result, "remote.py")


def tnet_speed(result: dict[str, Any]) -> str:
    """Time per image of TNet and of its encoder on the whole image."""

    def ratio(row: dict[str, Any], kind: str) -> str:
        middle, low, high = row[f"{kind}_ratio"]
        return f"{middle:.1f} ({low:.1f} to {high:.1f})" if row["locations"] else "1"

    rows = [
        [r["name"], f"{r['macs'] / 1e9:.2f} G", f"{r['alone_ms']:.0f}", ratio(r, "alone"),
         f"{r['reading_ms']:.0f}", ratio(r, "reading")]
        for r in result["rows"]
    ]  # fmt: skip
    head = ["one image", "MACs", "CPU ms, model alone", "times faster", "CPU ms with reading", "times faster"]
    words = (
        f"\n\nOne thread, batches of {result['images']}, {result['repeats']} repeats taking turns; ratios: median "
        "(10 to 90 %). Random weights, synthetic JPEG COGs, read lazily; TNet is compared at the same size of image."
    )
    return _table(head, rows) + words + _source(result, "tnet_speed.py")


def conversion(result: dict[str, Any]) -> str:
    """Ours beside dask's coarsening, level by level."""
    names = {"ours": "`hiresattn convert`", "dask": "`dask.array.coarsen`, level by level"}
    rows = [
        [names[key], f"{r['cpu_seconds']:.1f} s", f"{r['rss']:.0f} MB", f"{max(r['errors']):.2f}"]
        for key, r in result["rows"].items()
    ]
    side = f"{result['side']:,}"
    head = [f"{side} x {side} px to OME-Zarr", "CPU", "peak memory", "largest error, grey levels"]
    words = (
        f"\n\n{result['ratio']:.1f} times less CPU, reading back and comparing "
        f"{result['rows']['ours']['windows']} windows included. Same tiled JPEG, same reader, same chunks, shards and "
        "codec. Error: of a level's px against the exact mean of the level-0 px that it shows."
    )
    return _table(head, rows) + words + _source(result, "conversion.py")


#: Block of the README → (stored result, how it is written).
def localisation(result: dict[str, Any]) -> str:
    """Where maps of classes lie, by kind; over seeds."""
    names = {
        "cam": "activation maps (CAM)",
        "accumulated": "accumulated (OAA)",
        "integral": "integral (OAA+)",
    }
    body = []
    for encoder, split in sorted({(r["encoder"], r["split"]) for r in result["rows"]}, reverse=True):
        for kind, name in names.items():
            mine = [
                r for r in result["rows"] if (r["encoder"], r["split"], r["maps"]) == (encoder, split, kind)
            ]
            if mine:
                iou = [r["iou"] for r in mine]
                body.append(
                    [f"`{encoder}`, {split}", name, _span(mine, "pointed"), _span(mine, "covered"),
                     f"{sum(iou) / len(iou):.3f} ({min(iou):.3f} to {max(iou):.3f})"]
                )  # fmt: skip
    seeds = len({r["seed"] for r in result["rows"]})
    words = (
        f"\n\n{seeds} seeds (mean, lowest to highest), trained on labels only, one look of 128 px at 1,024. Windows "
        "with islands, half of whose boxes have 25 px or less. Pointed: the largest value lies within "
        f"{result['tolerance']} px of a box; covered: share of the boxes' px among the {100 * result['top']:.0f} % of "
        "px with the largest values; IoU: at the best common threshold."
    )
    head = ["encoder, windows", "maps of the islands", "pointed", "covered", "IoU"]
    return _table(head, body) + words + _source(result, "localisation.py")


def estimators(result: dict[str, Any]) -> str:
    """How the task reaches the scores: each estimator, over its seeds."""
    names = {
        "exhaustive": "every place, gated attention (441 looks)",
        "straight-through": "**straight-through Gumbel top-k** (default)",
        "straight-through-stopped": "same, its gradient stopped at the encoder",
        "reinforce-loo": "REINFORCE of sampled sets, the siblings as baseline",
        "published": "the published rule: best cells, normalised scores, running mean",
        "published-helped": "same, cells sampled, learned temperature, weight 1",
        "published-helped-longer": "same, 1 to k cells per batch, half as many epochs again",
        "random": "no estimator: random cells",
    }
    body = []
    for recipe, name in names.items():
        rows = [row for row in result["rows"] if row["recipe"] == recipe]
        if rows:
            first = [row["policies"].get("top-k") or row["policies"]["every place"] for row in rows]
            search = [row["policies"]["search"] for row in rows if "search" in row["policies"]]
            hit = "" if recipe == "exhaustive" else f"{_mean(first, 'hit'):.2f}"
            found = [_span(search, "accuracy"), f"{_mean(search, 'glimpses'):.0f}"] if search else ["", ""]
            seconds = f"{_mean(rows, 'training_cpu_seconds'):.0f}"
            body.append([name, str(len(rows)), seconds, _span(first, "accuracy"), hit, *found])
    head = [
        *("what trains the scorer", "seeds", "CPU-s of training", "accuracy (13 looks)", "needle seen"),
        *("with the search", "looks"),
    ]
    words = (
        f"\n\n{result['scenes']} scenes of 1,024 px, mean (lowest to highest seed); chance is .10. Same network, "
        "scenes and curriculum from 64 over 256 to 1,024 px. 13 looks: the best 4, then 2 cells; needle seen: at full "
        "resolution."
    )
    return _table(head, body) + words + _source(result, "estimators.py")


def fmow(result: dict[str, Any]) -> str:
    """The fMoW protocols, by size of the image."""
    real = "fMoW" if not result["synthetic"] else "synthetic tree"
    body = [
        [name, bucket["name"], str(bucket["rows"]), f"{bucket['top1']:.3f}", f"{bucket['macro']:.3f}",
         f"{bucket['glimpses']:.0f}"]
        for name, found in result["reports"].items()
        for bucket in (*found["buckets"], found["overall"])
    ]  # fmt: skip
    head = [f"protocol, {real}", "long side", "rows", "top-1", "macro", "looks"]
    words = (
        "\n\nB: whole frames of the test split, from JPEGs and from COGs made of them; C: crops of the validation "
        "split's boxes."
    )
    if result["synthetic"]:
        words = (
            "\n\n**Synthetic.** Drawn scenes with every quirk of the release's files and none of its content: they "
            "show that index, conversion, training, evaluation and both protocols run from end to end, and say "
            "nothing of accuracy on fMoW."
        ) + words
    return _table(head, body) + words + _source(result, "fmow_protocols.py")


def scorers(result: dict[str, Any]) -> str:
    """Accuracy and hits of every scorer and task, mean and standard deviation over training seeds."""
    rows = [row for row in result["rows"] if row["estimator"] == "default"]
    tasks = {"needle": "needle, 256 px", "needle-1024": "needle, 1,024 px", "oddcell": "odd cell, 5,760 px"}
    body = []
    for task, scorer in product(tasks, dict.fromkeys(row["scorer"] for row in rows)):
        same = [row for row in rows if (row["task"], row["scorer"]) == (task, scorer)]
        if not same:
            continue
        both = [_plus_minus([row[key] for row in same]) for key in ("accuracy", "hit")]
        body.append(
            [tasks[task], f"`{scorer}`", *both, f"{_mean(same, 'glimpses'):.1f}",
             _percent(_mean(same, "fraction_read")), f"{_mean(same, 'training_cpu_seconds'):.0f} s", str(len(same))]
        )  # fmt: skip
    head = ["task", "scorer", "accuracy", "hit", "looks", "pixels read", "training, CPU", "seeds"]
    words = (
        "\n\nMean ± standard deviation over training seeds; equal epochs, and at most 5, 20 and 20 looks without a "
        "stop rule, 200 test scenes (150 of 256 px). The needle is learnt from labels alone, of the odd cell training "
        "is told the boxes. Needles of 256 px are easy: they show that all learn. Settings of `mask`, `ltpa` and `oaa` "
        "were changed after they failed in short trainings at 1,024 px. `random` and `oracle` use the `location` model."
    )
    return _table(head, body) + words + _source(result, "scorers.py") + _scorers_of_digits(load("megamnist"))


def _plus_minus(values: list[float]) -> str:
    """Mean and standard deviation; the one value where there is no more."""
    return f"{fmean(values):.2f}" + (f" ± {stdev(values):.2f}" if len(values) > 1 else "")


def _scorers_of_digits(result: dict[str, Any] | None) -> str:
    """The same on Megapixel-MNIST, where there is a result."""
    if result is None:
        return ""
    rows = [row for row in result["rows"] if row["side"] == 768]
    kinds = [(name, "best-first") for name in dict.fromkeys(row["recipe"] for row in rows)]
    body = []
    for name, policy in [*kinds, ("location", "random"), ("location", "oracle")]:
        same = [row for row in rows if (row["recipe"], row["policy"]) == (name, policy)]
        if len(same) > 1:
            both = [_plus_minus([row[key] for row in same]) for key in ("accuracy", "hit", "seen")]
            body.append(
                [f"`{name if policy == 'best-first' else policy}`", *both, f"{_mean(same, 'glimpses'):.0f}",
                 "" if policy == "oracle" else _percent(_mean(same, "fraction_read")),
                 f"{_mean(same, 'train_cpu_seconds'):.0f} s", str(len(same))]
            )  # fmt: skip
    head = [
        "Megapixel-MNIST, 768 px",
        "accuracy",
        "hit",
        "digits seen",
        "looks",
        "pixels read",
        "training, CPU",
        "seeds",
    ]
    words = (
        "\n\nMean ± standard deviation over training seeds, equal epochs and looks; the recipe was chosen with "
        "`location`. `random` and `oracle` (shown every digit) use the `location` model."
    )
    return "\n\n" + _table(head, body) + words + _source(result, "megamnist.py")


def scorer_cost(result: dict[str, Any]) -> str:
    """What scoring costs beside encoding."""
    counts = sorted({row["classes"] for row in result["rows"]})
    by = {(row["scorer"], row["classes"]): row for row in result["rows"]}
    body = [
        [f"`{name}`", *(f"{100 * by[name, count]['share']:.1f} %" for count in counts)]
        for name in dict.fromkeys(row["scorer"] for row in result["rows"])
    ]
    head = ["CPU time per glimpse, share of the encoder's", *(f"{count} classes" for count in counts)]
    words = f"\n\n{result['encoder']}, crops of {result['side']} px, one thread, taking turns in one run."
    return _table(head, body) + words + _source(result, "scorer_cost.py")


BLOCKS: dict[str, tuple[str, Callable[[dict[str, Any]], str]]] = {
    "demo": ("gigapixel", demo),
    "needle": ("needle", needle),
    "needle-files": ("needle-files", needle_files),
    "hints": ("hints", hints),
    "islands": ("islands", islands),
    "oddcell": ("oddcell", oddcell),
    "localisation": ("localisation", localisation),
    "estimators": ("estimators", estimators),
    "scorers": ("scorers", scorers),
    "scorer_cost": ("scorer_cost", scorer_cost),
    "fmow": ("fmow-synthetic", fmow),
    "megamnist": ("megamnist", megamnist),
    "memory": ("memory", memory),
    "reading": ("reading", reading),
    "slide_profile": ("slide_profile", slide_profile),
    "remote": ("remote", remote),
    "conversion": ("conversion", conversion),
    "tnet_speed": ("tnet_speed", tnet_speed),
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
    README.write_text(fill(README.read_text(encoding="utf-8")), encoding="utf-8")
