"""What a classification costs with torch and with ONNX Runtime.

    python benchmarks/engines.py [--repeats 3] [--slide FILE]

Fresh models whose scorers are not flat; 64 looks at a real slide, opened anew, one thread; CPU time of everything but
loading the model, the engines taking turns in one process. That both look at the same regions is checked.
"""

import argparse
import statistics
import tempfile
import time
from pathlib import Path
from typing import Any

import torch
from torch import nn

from hiresattn import ClassifyOptions
from hiresattn.checkpoint import Model, load_model, save_model
from hiresattn.config import InputConfig, ModelConfig
from hiresattn.inference.classify import _records
from hiresattn.inference.onnx_export import export_onnx
from hiresattn.inference.session import start_session
from hiresattn.model.build import build_model
from store import store

BUDGET = 64
#: Encoder, side of its crops.
ENCODERS = (("small", 64), ("efficientnet_b0", 224))


def fresh(folder: Path, encoder: str, size: int) -> Path:
    """A model of random weights with a network for ONNX Runtime; batch normalisation knows its inputs."""
    torch.manual_seed(0)
    config = ModelConfig(classes=("a", "b"), input=InputConfig(size=size), encoder=encoder)
    net = build_model(config).train()
    with torch.no_grad():
        for module in net.modules():
            if isinstance(module, nn.BatchNorm2d):
                module.momentum = None
        for _ in range(2):
            net.encoder(torch.rand(4, 3, size, size) * 2 - 1)
        for weight in [*net.scorer.parameters(), *net.position.parameters()]:  # type: ignore[union-attr]
            nn.init.normal_(weight, std=0.3)
    path = folder / encoder
    save_model(Model(net.eval(), config, encoder, ""), path)
    export_onnx(path)
    return path


def row(path: Path, slide: Path, repeats: int) -> dict[str, Any]:
    """One encoder's times."""
    options = {
        engine: ClassifyOptions(engine=engine, budget=BUDGET, stop=None, threads=1)
        for engine in ("torch", "onnx")
    }
    sessions = {
        engine: start_session(load_model(path) if engine == "torch" else path, one)
        for engine, one in options.items()
    }
    spent: dict[str, list[float]] = {engine: [] for engine in sessions}
    regions: dict[str, Any] = {}
    for _ in range(repeats + 1):
        for engine, session in sessions.items():
            started = time.process_time()
            (record,) = _records([str(slide)], session)
            spent[engine].append(time.process_time() - started)
            regions[engine] = [(one.y, one.x, one.height) for one in record.regions]
    assert regions["torch"] == regions["onnx"]
    times = {engine: statistics.median(values[1:]) for engine, values in spent.items()}
    ratios = [one / other for one, other in zip(spent["torch"][1:], spent["onnx"][1:], strict=True)]
    return {
        "encoder": path.name,
        "glimpses": len(regions["onnx"]),
        "torch_ms": 1e3 * times["torch"],
        "onnx_ms": 1e3 * times["onnx"],
        "times_less": statistics.median(ratios),
    }


def main() -> None:
    """Measure, and store."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--slide", default="../shared/data/slides/CMU-1-Small-Region.svs")
    chosen = parser.parse_args()
    torch.set_num_threads(1)
    rows = []
    with tempfile.TemporaryDirectory() as folder:
        for encoder, size in ENCODERS:
            rows.append(row(fresh(Path(folder), encoder, size), Path(chosen.slide), chosen.repeats))
            print(rows[-1], flush=True)
    print(store("engines", slide=Path(chosen.slide).name, budget=BUDGET, rows=rows))


if __name__ == "__main__":
    main()
