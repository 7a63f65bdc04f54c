"""What a classification costs with torch and with ONNX Runtime.

    python benchmarks/engines.py [--repeats 3] [--slide FILE] [--data FOLDER] [--only ""|torch|parts]

Fresh models whose scorers are not flat; 64 looks at a real slide, opened anew, one thread; CPU time of everything but
loading the model, the engines taking turns in one process. That both look at the same regions is checked.

Parts: what a look costs with ONNX Runtime, by part, at a tiled JPEG pyramid that is written for it, opened anew; and at
the same image held in memory, where nothing is opened or decoded.
"""

import argparse
import statistics
import tempfile
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from torch import nn

from hiresattn import ClassifyOptions, open_pyramid
from hiresattn.checkpoint import Model, load_model, save_model
from hiresattn.config import InputConfig, ModelConfig
from hiresattn.inference.classify import classify_in
from hiresattn.inference.onnx_engine import Network
from hiresattn.inference.onnx_export import export_onnx
from hiresattn.inference.session import start_session
from hiresattn.inference.sources import Opener
from hiresattn.model.build import build_model
from hiresattn.pyramid.array import ArrayPyramid
from hiresattn.reading.fetch import CropFetcher
from scenes.canvas import Canvas
from scenes.writers import write_tiff
from store import load, store

BUDGET = 64
#: Encoder, side of its crops.
ENCODERS = (("small", 64), ("efficientnet_b0", 224))
#: Side of the image whose parts are timed, px.
SIDE = 8192


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
            (record,) = classify_in(session, [str(slide)])
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


class Clock:
    """CPU time of methods, less that of those which they call and which are timed, too."""

    def __init__(self) -> None:
        self.spent: Counter[str] = Counter()
        self._inside: list[float] = []

    @contextmanager
    def on(self, parts: dict[str, tuple[Any, str]]) -> Iterator[None]:
        """Time methods, given as a part's name and the class and name of each, for as long as this lasts."""
        plain = {part: getattr(*method) for part, method in parts.items()}
        try:
            for part, (owner, name) in parts.items():
                setattr(owner, name, self._timed(part, plain[part]))
            yield
        finally:
            for part, (owner, name) in parts.items():
                setattr(owner, name, plain[part])

    def _timed(self, part: str, work: Any) -> Any:
        def run(*args: Any, **named: Any) -> Any:
            started = time.thread_time()
            self._inside.append(0.0)
            try:
                return work(*args, **named)
            finally:
                spent = time.thread_time() - started
                self.spent[part] += spent - self._inside.pop()
                if self._inside:
                    self._inside[-1] += spent

        return run


PARTS = {
    "opening": (Opener, "open"),
    "network": (Network, "__call__"),
    "decoding": (CropFetcher, "_decode"),
    "crops": (CropFetcher, "__call__"),
}


def parts_row(path: Path, where: str, image: Any, repeats: int) -> dict[str, Any]:
    """CPU ms a look of each part with ONNX Runtime: ``crops`` are planned and made of tiles, ``search`` is all else."""
    session = start_session(path, ClassifyOptions(engine="onnx", budget=BUDGET, stop=None, threads=1))
    runs: list[dict[str, float]] = []
    for _ in range(repeats + 2):
        clock = Clock()
        with clock.on(PARTS):
            started = time.process_time()
            (record,) = classify_in(session, [image])
            total = time.process_time() - started
        spent = {**clock.spent, "search": total - clock.spent.total()}
        runs.append({part: 1e3 * seconds / len(record.regions) for part, seconds in spent.items()})
    found = {part: statistics.median(run.get(part, 0.0) for run in runs[2:]) for part in (*PARTS, "search")}
    return {"encoder": path.name, "image": where, **found, "rest": found["crops"] + found["search"]}


def parts_rows(paths: list[Path], folder: Path, data: Path, repeats: int) -> list[dict[str, Any]]:
    """Every encoder's parts, of a file and of the same image in memory."""
    slide = folder / "slide.tif"
    write_tiff(Canvas(data, SIDE), slide, quality=80, subsampling="420")
    with open_pyramid(slide) as pyramid:
        levels = [
            pyramid.read(at, 0, 0, level.height, level.width) for at, level in enumerate(pyramid.levels)
        ]
    return [
        parts_row(path, where, image, repeats)
        for path in paths
        for where, image in (("file", str(slide)), ("memory", ArrayPyramid(levels)))
    ]


def main() -> None:
    """Measure, and store."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--slide", default="../shared/data/slides/CMU-1-Small-Region.svs")
    parser.add_argument("--data", default="../shared/data", help="What the image of the parts is made of.")
    parser.add_argument("--only", choices=("torch", "parts"))
    chosen = parser.parse_args()
    torch.set_num_threads(1)
    slide = Path(chosen.slide)
    results = {key: value for key, value in (load("engines") or {}).items() if key in ("rows", "parts")}
    with tempfile.TemporaryDirectory() as folder:
        home = Path(folder)
        paths = [fresh(home, encoder, size) for encoder, size in ENCODERS]
        if chosen.only != "parts":
            results["rows"] = [row(path, slide, chosen.repeats) for path in paths]
        if chosen.only != "torch":
            results["parts"] = parts_rows(paths, home, Path(chosen.data), 5 * chosen.repeats)
    for one in (*results["rows"], *results["parts"]):
        print(one)
    print(store("engines", slide=slide.name, budget=BUDGET, side=SIDE, **results))


if __name__ == "__main__":
    main()
