"""Accuracy, hits and cost on the needle task, by side of the scene and policy, of one model.

    python benchmarks/needle.py [-m MODEL] [--scenes 150]
    python benchmarks/needle.py --picture

Scenes are of the test split, rendered when read; none was trained on. A region hits when it holds the whole
needle. `hits` has the share of scenes with a hit, by depth from the first look on; `hit` asks for native
resolution. A search that is sure before it got there counts as no hit.
"""

import time
from collections.abc import Sequence
from importlib.resources import files
from typing import Any

import click
import numpy as np
import torch

from hiresattn import classify, classify_all, load_model
from hiresattn.checkpoint import Model
from hiresattn.demo.needle import NeedlePyramid, NeedleScene
from hiresattn.geometry import EXPAND_FROM
from hiresattn.inference.record import Record
from store import store, store_picture

BUDGET = 80
SIDES = (64, 256, 1024, 4096, 16384, 32768, 65536, 262144)
#: Sides at which the plain alternatives are measured too.
COMPARED = (1024, 4096, 16384, 65536, 262144)
#: What a policy is called here → how `classify` is asked for it.
POLICIES: dict[str, dict[str, Any]] = {
    "best-first": {},
    "top-k": {"policy": "top-k"},
    "top-k, NMS": {"policy": "top-k", "nms": 0.3},
    "random": {"policy": "random"},
    "lowres": {"policy": "lowres"},
}


def measure(
    model: Model,
    scenes: Sequence[NeedleScene],
    sources: Sequence[Any] | None = None,
    **options: Any,
) -> dict[str, Any]:
    """Classify scenes of one side, rendered or (`sources`) from files."""
    asked = {"budget": BUDGET, "device": "cpu", "threads": 1} | options
    started = time.process_time()
    found = list(classify_all(map(NeedlePyramid, scenes) if sources is None else sources, model, **asked))
    seconds = time.process_time() - started
    return {"side": scenes[0].side, "scenes": len(scenes), **figures(found, scenes, model.config.finest_side),
            "cpu_ms": 1000 * seconds / len(scenes)}  # fmt: skip


def figures(found: Sequence[Record], scenes: Sequence[NeedleScene], finest: int) -> dict[str, Any]:
    """What searches found and what they cost."""
    pairs = list(zip(found, scenes, strict=True))
    deepest = max(r.depth for p in found for r in p.regions)
    hits = [[any(r.depth == d for r in holding(p, s.box)) for p, s in pairs] for d in range(deepest + 1)]
    hit = [any(r.height < EXPAND_FROM * finest for r in holding(p, s.box)) for p, s in pairs]
    costs = [p.cost for p in found]
    return {
        "accuracy": _mean([p.class_name == scene.label for p, scene in pairs]),
        "hit": _mean(hit),
        "hits": [_mean(at_depth) for at_depth in hits],
        "glimpses": _mean([cost.glimpses for cost in costs]),
        "confident": _mean([cost.stop_reason == "confidence" for cost in costs]),
        "fraction_read": _mean([cost.fraction_read for cost in costs]),
        "bytes_read": _mean([cost.bytes_read for cost in costs]),
    }


def holding(found: Record, box: tuple[int, int, int, int]) -> list[Any]:
    """The visited regions that hold all of a box."""
    y, x, height, width = box
    return [
        r
        for r in found.regions
        if r.y <= y and r.x <= x and r.y + r.height >= y + height and r.x + r.width >= x + width
    ]


def _mean(values: Sequence[float]) -> float:
    return float(np.mean(values))


@click.command()
@click.option("-m", "--model", help="Model directory; default: the one that ships.")
@click.option("--scenes", default=150)
@click.option("--name", default="needle", help="Name of the stored result.")
@click.option(
    "--picture", is_flag=True, help="Draw where it looks in one scene of 16,384 px; measure nothing."
)
def main(model: str | None, scenes: int, name: str, *, picture: bool) -> None:
    """Measure and store."""
    torch.set_num_threads(1)
    loaded = load_model(model or str(files("hiresattn.demo") / "model"))
    if picture:
        scene = NeedleScene(0, 16384, split="test")
        found = classify(NeedlePyramid(scene), loaded, budget=BUDGET, device="cpu", threads=1)
        print(store_picture(name, NeedlePyramid(scene), found, [scene.box]))
        return
    warm_up(loaded)
    rows = []
    for side in SIDES:
        asked = [NeedleScene(number, side, split="test") for number in range(scenes)]
        for policy, options in POLICIES.items():
            if policy == "best-first" or side in COMPARED:
                rows.append({"policy": policy, **measure(loaded, asked, **options)})
                print(rows[-1], flush=True)
    print(store(name, budget=BUDGET, stop=0.95, model=loaded.sha256, training=loaded.training, rows=rows))


def warm_up(model: Model) -> None:
    """Compile the kernels."""
    measure(model, [NeedleScene(number, 256, split="test") for number in range(3)])


if __name__ == "__main__":
    main()
