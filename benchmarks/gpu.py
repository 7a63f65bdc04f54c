"""Classifying on a GPU, and on the CPU for comparison: one script of less than six minutes.

    python benchmarks/gpu.py [--device auto] [--glimpses 32] [--seconds 300]

For encoders of random weights, and 1 to 256 searches side by side: images and crops a second, the network's share of
the time, and how far answers are from the CPU's (the same regions, scores within 1e-3). With products in bfloat16, too,
whose answers may be further apart. Without a GPU: the same with few searches on the CPU; that half is a test.
"""

import argparse
import time
from dataclasses import replace
from itertools import product
from typing import Any

import numpy as np
import torch

from hiresattn import ClassifyOptions
from hiresattn.checkpoint import Model
from hiresattn.config import InputConfig, ModelConfig
from hiresattn.inference.classify import classify_all
from hiresattn.inference.torch_engine import TorchEngine
from hiresattn.model.build import build_model
from store import store

#: Encoder, side of its crops.
ENCODERS = (("small", 64), ("efficientnet_b0", 224), ("vit_large_patch16_224", 224))
SIDE_BY_SIDE = (1, 4, 16, 64, 256)
#: Largest difference of scores from the CPU's.
APART = 1e-3


def fresh(encoder: str, size: int) -> Model:
    """A model of random weights whose scorer isn't flat."""
    torch.manual_seed(0)
    config = ModelConfig(classes=("a", "b"), input=InputConfig(size=size), encoder=encoder)
    net = build_model(config).eval()
    with torch.no_grad():
        for weight in [*net.scorer.parameters(), *net.position.parameters()]:  # type: ignore[union-attr]
            torch.nn.init.normal_(weight, std=0.3)
    return Model(net, config, encoder, "")


def scenes(count: int, side: int) -> list[np.ndarray]:
    """Images in memory ``[side side 3]``: what is measured is the network and the search, not a disk."""
    rng = np.random.default_rng(0)
    coarse = [rng.integers(0, 256, (side // 32, side // 32, 3), np.uint8) for _ in range(count)]
    return [np.kron(one, np.ones((32, 32, 1), np.uint8)) for one in coarse]


def timed(
    model: Model, images: list[np.ndarray], options: ClassifyOptions
) -> tuple[list[Any], dict[str, float]]:
    """Records of the images, and how long they took; the network's share of it is measured where it is called."""
    busy, plain = [0.0], TorchEngine.look

    def look(*given: Any, **named: Any) -> Any:
        started = time.perf_counter()
        try:
            return plain(*given, **named)  # copies the results back: the device is done then
        finally:
            busy[0] += time.perf_counter() - started

    TorchEngine.look = look  # type: ignore[method-assign]
    try:
        started = time.perf_counter()
        records = list(classify_all(images, model, options))
        seconds = time.perf_counter() - started
    finally:
        TorchEngine.look = plain  # type: ignore[method-assign]
    looks = sum(len(record.regions) for record in records)
    return records, {
        "seconds": seconds,
        "images_per_second": len(images) / seconds,
        "crops_per_second": looks / seconds,
        "network_share": busy[0] / seconds,
    }


def apart(found: list[Any], wanted: list[Any]) -> float:
    """Largest difference of scores; infinite where other regions were looked at."""
    worst = 0.0
    for one, other in zip(found, wanted, strict=True):
        places = [{(r.y, r.x, r.height) for r in record.regions} for record in (one, other)]
        if places[0] != places[1]:
            return float("inf")
        worst = max(worst, *(abs(one.scores[name] - other.scores[name]) for name in other.scores))
    return worst


def measure(
    encoder: tuple[str, int],
    device: str,
    counts: tuple[int, ...],
    *,
    glimpses: int,
    deadline: float,
    precision: str = "float32",
) -> list[dict[str, Any]]:
    """A row for each number of searches side by side, until the time is up; an encoder and the side of its crops."""
    model, side = fresh(*encoder), 16 * encoder[1]
    options = ClassifyOptions(
        device=device, engine="torch", budget=glimpses, stop=None, batch_images=1, precision=precision
    )
    few = scenes(2, side)
    reference = list(classify_all(few, model, replace(options, device="cpu", precision="float32")))
    found, _ = timed(model, few, options)
    agreement = apart(found, reference)
    rows = []
    for count in counts:
        if time.perf_counter() > deadline:
            break
        images = few * max(count // 2, 1)
        timed(model, images[:count], replace(options, batch_images=count))  # warm up
        _, times = timed(model, images, replace(options, batch_images=count))
        row = {"encoder": encoder[0], "precision": precision, "side_by_side": count, "images": len(images)}
        rows.append({**row, "apart": agreement, **times})
        print(rows[-1], flush=True)
    return rows


def main() -> None:
    """Measure, check and store."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--device", default="auto")
    parser.add_argument("--glimpses", type=int, default=32)
    parser.add_argument("--seconds", type=float, default=300, help="No new measurement starts later.")
    chosen = parser.parse_args()
    device = ("cuda" if torch.cuda.is_available() else "cpu") if chosen.device == "auto" else chosen.device
    encoders, counts = (ENCODERS, SIDE_BY_SIDE) if device != "cpu" else (ENCODERS[:1], SIDE_BY_SIDE[:2])
    deadline = time.perf_counter() + chosen.seconds
    rows: list[dict[str, Any]] = []
    for encoder, precision in product(encoders, ("float32", "bfloat16")):
        rows += measure(
            encoder, device, counts, glimpses=chosen.glimpses, deadline=deadline, precision=precision
        )
    kind = torch.cuda.get_device_name() if device.startswith("cuda") else device
    exact = [row["apart"] for row in rows if row["precision"] == "float32"]
    assert max(exact) <= APART, "it differs from the CPU"
    print(
        store("gpu" if device != "cpu" else "gpu-cpu-half", device=kind, glimpses=chosen.glimpses, rows=rows)
    )


if __name__ == "__main__":
    main()
