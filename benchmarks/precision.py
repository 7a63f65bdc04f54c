"""Networks of 8 bits and products in bfloat16, on the CPU: time of a crop, and what becomes of the answers.

    python benchmarks/precision.py [--slide FILE]

Times are of the network alone, with crops one by one and 16 at a time, one thread, the ways taking turns; random
weights. Answers are of the demo's model, whose ranges of 8 bits are those of 20 scenes, on 100 others.
"""

import argparse
import shutil
import tempfile
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch

from end_to_end import DEMO
from engines import ENCODERS, fresh
from hiresattn import ClassifyOptions, classify_all, load_model
from hiresattn.card import read_card
from hiresattn.datasets.example import Example
from hiresattn.demo.needle import NeedlePyramid, NeedleScene
from hiresattn.inference.engine import Engine
from hiresattn.inference.onnx_engine import OnnxEngine
from hiresattn.inference.onnx_export import export_onnx
from hiresattn.inference.onnx_int8 import export_int8
from hiresattn.inference.torch_engine import TorchEngine, ready_net
from store import store

COUNTS = (1, 16)
TURNS = 7
#: Side of the demo's scenes, px; scenes whose values set the ranges, and scenes that are classified.
SIDE, RANGES, SCENES = 1024, 20, 100


def engines(path: Path) -> dict[str, Engine]:
    """What may run a model's network, by name."""
    card, net = read_card(path), load_model(path).net
    last = ready_net(net, torch.device("cpu"), channels_last=True)
    return {
        "onnx": OnnxEngine(card, device="cpu", threads=1),
        "onnx-int8": OnnxEngine(card, device="cpu", threads=1, int8=True),
        "torch": TorchEngine(net, 1),
        "bfloat16": TorchEngine(last, 1, precision="bfloat16"),
    }


def times(path: Path, size: int) -> dict[str, Any]:
    """CPU ms a crop by engine and number of crops: the least of some turns."""
    rng, ways = np.random.default_rng(0), engines(path)
    spent: dict[tuple[str, int], float] = {}
    for turn in range(TURNS + 1):
        for count in COUNTS:
            pixels = rng.uniform(-1, 1, (count, 3, size, size)).astype(np.float32)
            regions = np.tile(np.array([[0, 0, size, size]]), (count, 1))
            rest = np.ones((count, size, size), np.float32), regions, regions, np.zeros((count, 3), np.int64)
            for name, engine in ways.items():
                passes = 16 // count
                started = time.process_time()
                for _ in range(passes):
                    engine.look(pixels, *rest)
                ms = 1e3 * (time.process_time() - started) / (count * passes)
                if turn:  # the first one warms up
                    spent[name, count] = min(ms, spent.get((name, count), np.inf))
    return {
        "encoder": path.name,
        "size": size,
        **{f"{name}_{count}": ms for (name, count), ms in spent.items()},
    }


def answers(folder: Path) -> dict[str, Any]:
    """What 8 bits make of the demo's answers."""
    model = folder / "demo"
    shutil.copytree(DEMO, model)
    export_onnx(model)
    scenes = [NeedleScene(number, SIDE, 0.16, "val") for number in range(RANGES + SCENES)]
    examples = [Example(NeedlePyramid(scene), scene.label, "val") for scene in scenes]
    export_int8(model, examples[:RANGES])
    options = ClassifyOptions(engine="onnx", device="cpu")
    wanted = list(classify_all(examples[RANGES:], model, options))
    found = list(classify_all(examples[RANGES:], model, replace(options, engine="onnx-int8")))
    pairs = list(zip(wanted, found, strict=True))
    return {
        "scenes": SCENES,
        "same": sum(one.class_name == other.class_name for one, other in pairs),
        "right": sum(
            other.class_name == scene.label for other, scene in zip(found, scenes[RANGES:], strict=True)
        ),
        "apart": max(
            abs(one.scores[name] - other.scores[name]) for one, other in pairs for name in one.scores
        ),
    }


def main() -> None:
    """Measure and store."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--slide", default="../shared/data/slides/CMU-1-Small-Region.svs")
    chosen = parser.parse_args()
    torch.set_num_threads(1)
    rows = []
    with tempfile.TemporaryDirectory() as folder:
        for encoder, size in ENCODERS:
            path = fresh(Path(folder), encoder, size)
            export_int8(path, [chosen.slide])
            rows.append(times(path, size))
            print(rows[-1], flush=True)
        demo = answers(Path(folder))
        print(demo)
    print(store("precision", rows=rows, demo=demo))


if __name__ == "__main__":
    main()
