"""What scoring costs beside encoding: CPU time per glimpse of every scorer, EfficientNet-B0, crops of 224 px.

    python benchmarks/scorer_cost.py

One thread, evaluation mode; encoder and scorers take turns in one run, so that a busy machine slows them alike.
"""

import time
from typing import Any

import numpy as np
import torch

from hiresattn.config import InputConfig, ModelConfig
from hiresattn.geometry import Grid
from hiresattn.model.build import build_model
from hiresattn.model.scorers import ScorerInput
from store import store

#: Each way that a scorer can be asked for; classes as fMoW has them, and as ImageNet has.
SCORERS = ("location", "context", "mask", "saol", "ltpa", "oaa", "evidence", "random")
CLASSES = (62, 1000)
GLIMPSES, REPEATS = 8, 12


def seconds(work: Any) -> float:
    """CPU time of one call."""
    started = time.process_time()
    work()
    return time.process_time() - started


def main() -> None:
    """Measure and store."""
    torch.set_num_threads(1)
    torch.manual_seed(0)
    crops = torch.randn(GLIMPSES, 3, 224, 224)
    nets = {}
    for count in CLASSES:
        for name in SCORERS:
            config = ModelConfig(
                classes=tuple(map(str, range(count))),
                encoder="efficientnet_b0",
                scorer=name,
                input=InputConfig(size=224),
                grid=Grid(5, 0.34375),
            )
            nets[name, count] = build_model(config).eval()
    encoder = nets["location", CLASSES[0]].encoder
    with torch.inference_mode():
        seen = encoder(crops)
        view = ScorerInput(seen.stages, seen.features, torch.full((GLIMPSES,), 0.34375))
        taken: dict[Any, list[float]] = {"encoder": [], **{key: [] for key in nets}}
        for _ in range(REPEATS):
            taken["encoder"].append(seconds(lambda: encoder(crops)))
            for key, net in nets.items():
                taken[key].append(seconds(lambda net=net: net.scorer(view)))
    base = float(np.median(taken["encoder"]))
    rows = [
        {
            "scorer": name,
            "classes": count,
            "parameters": sum(p.numel() for p in nets[name, count].scorer.parameters()),
            "cpu_ms": 1000 * float(np.median(taken[name, count])) / GLIMPSES,
            "share": float(np.median(taken[name, count])) / base,
        }
        for name, count in nets
    ]
    for row in rows:
        print(row)
    print(
        store(
            "scorer_cost",
            encoder="efficientnet_b0",
            side=224,
            encoder_cpu_ms=1000 * base / GLIMPSES,
            rows=rows,
        )
    )


if __name__ == "__main__":
    main()
