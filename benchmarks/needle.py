"""Accuracy on the needle task, by side of the scene and policy, of the model that ships or of another.

    python benchmarks/needle.py [-m MODEL] [--scenes 150]

Scenes are of the test split, rendered when read; none was trained on. `hit` counts the scenes in which a
visited region at native resolution holds the whole needle.
"""

import time
from importlib.resources import files

import click
import numpy as np
import torch
from store import store

from hiresattn import classify, load_model
from hiresattn.checkpoint import Model
from hiresattn.geometry import EXPAND_FROM
from hiresattn.needle import NeedlePyramid, NeedleScene
from hiresattn.report.record import Prediction

BUDGET = 80
SIDES = (64, 256, 1024, 4096, 16384, 32768, 65536, 262144)


def measure(model: Model, side: int, count: int, policy: str) -> dict[str, float | int | str]:
    """Classify scenes of one side."""
    scenes = [NeedleScene(number, side, split="test") for number in range(count)]
    started = time.process_time()
    found = list(
        classify(map(NeedlePyramid, scenes), model, budget=BUDGET, policy=policy, device="cpu", threads=1)
    )
    seconds = time.process_time() - started
    pairs = list(zip(found, scenes, strict=True))
    return {
        "side": side,
        "policy": policy,
        "scenes": count,
        "accuracy": float(np.mean([p.class_name == scene.label for p, scene in pairs])),
        "hit": float(np.mean([_hit(p, scene.box, model.config.input.size) for p, scene in pairs])),
        "glimpses": float(np.mean([p.cost.glimpses for p in found])),
        "confident": float(np.mean([p.cost.stop_reason == "confidence" for p in found])),
        "fraction_read": float(np.mean([p.cost.fraction_read for p in found])),
        "cpu_ms": 1000 * seconds / count,
    }


def _hit(found: Prediction, box: tuple[int, int, int, int], size: int) -> bool:
    y, x, height, width = box
    return any(
        r.y <= y and r.x <= x and r.y + r.height >= y + height and r.x + r.width >= x + width
        for r in found.regions
        if r.height < EXPAND_FROM * size
    )


@click.command()
@click.option("-m", "--model", help="Model directory; default: the one that ships.")
@click.option("--scenes", default=150)
@click.option("--name", default="needle", help="Name of the stored result.")
def main(model: str | None, scenes: int, name: str) -> None:
    """Measure and store."""
    torch.set_num_threads(1)
    loaded = load_model(model or str(files("hiresattn") / "demo_model"))
    measure(loaded, 256, 3, "best-first")  # compile the kernels
    rows = []
    for side in SIDES:
        policies = ("best-first", "top-k", "lowres", "random") if side == 1024 else ("best-first",)
        for policy in policies:
            rows.append(measure(loaded, side, scenes if side <= 16384 else min(scenes, 100), policy))
            print(rows[-1], flush=True)
    print(store(name, budget=BUDGET, stop=0.95, model=loaded.sha256, training=loaded.training, rows=rows))


if __name__ == "__main__":
    main()
