"""What a search costs outside the network and reading, and what images searched side by side save.

    python benchmarks/search.py [--repeats 5] [--only outside|images]

Outside: a network and crops that are random arrays, drawn before; CPU time of the search less what these take. With
and without a stop rule, and with a background class, distractor suppression and evidence pooling. Images: files of
noise on disk (tiled JPEG TIFFs), a fresh model of random weights; CPU time of everything, opening and reading
included, the widths taking turns in one process. One torch thread, reading in the caller's thread. That images side
by side get the predictions that they get alone is checked.
"""

import argparse
import statistics
import tempfile
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch

from hiresattn import ClassifyOptions, classify_all
from hiresattn.checkpoint import Model
from hiresattn.config import InputConfig, ModelConfig
from hiresattn.geometry import Grid
from hiresattn.inference.batching import batch_images
from hiresattn.inference.budget import Budget
from hiresattn.inference.engine import NetFacts, Outputs
from hiresattn.inference.image_search import Policy
from hiresattn.inference.search import search
from hiresattn.inference.session import start_session
from hiresattn.model.build import build_model
from hiresattn.pyramid.array import ArrayPyramid
from hiresattn.reading.fetch import Crops
from scenes.writers import write_tiff
from store import load, store

GLIMPSES = (64, 512, 4000)
SIDE, WIDTH, CLASSES, IMAGES = 1 << 18, 128, 5, 16
#: Rows of random outputs that the stub takes turns with.
_ROWS = 512


class StubEngine:
    """Gives random outputs, drawn before.

    Args:
        background: Index of the background class; None = attention pooling.
    """

    def __init__(self, background: int | None) -> None:
        rng = np.random.default_rng(0)
        self.facts = NetFacts(Grid(7, 0.25), 64, background=background, prior_weight=0.5)
        looks = rng.standard_normal((_ROWS, 49, 32)).astype(np.float32)
        self._looks = looks / np.linalg.norm(looks, axis=2, keepdims=True)
        self._drawn = {
            "features": rng.standard_normal((_ROWS, WIDTH)).astype(np.float32),
            "cell_logits": 2 * rng.standard_normal((_ROWS, 49)).astype(np.float32),
            "value": 3 * rng.standard_normal(_ROWS).astype(np.float32),
            "class_logits": 0.1 * rng.standard_normal((_ROWS, CLASSES)).astype(np.float32),
            "weight_logits": rng.standard_normal(_ROWS).astype(np.float32),
        }
        self.seconds = 0.0
        self._next = 0

    def look(self, _pixels: Any, _coverage: Any, regions: np.ndarray, *_: Any, appearance: bool) -> Outputs:
        """The next random rows."""
        started = time.process_time()
        rows = (self._next + np.arange(len(regions))) % _ROWS
        self._next += len(regions)
        found = Outputs(
            **{name: values[rows] for name, values in self._drawn.items()},
            appearance=self._looks[rows] if appearance else None,
        )
        self.seconds += time.process_time() - started
        return found


def outside(glimpses: int, *, background: bool, stop: float | None) -> float:
    """CPU ms a glimpse of one search, less those of the stub."""
    engine = StubEngine(0 if background else None)
    crops = Crops(np.zeros((1, 1, 1, 1), np.float32), np.ones((1, 1, 1), np.float32))
    whole = np.array([[0, 0, SIDE, SIDE]])
    started = time.process_time()
    found, (reason,) = search(
        engine,
        lambda *_: crops,
        [whole],
        whole,
        budget=Budget(glimpses=glimpses),
        policy=Policy(stop=stop),
    )
    spent = time.process_time() - started - engine.seconds
    assert (len(found.image), reason) == (glimpses, "budget")
    return 1e3 * spent / glimpses


def outside_rows(repeats: int) -> list[dict[str, Any]]:
    """The median of every case."""
    cases = {
        "attention": {"background": False, "stop": None},
        "attention, stop rule": {"background": False, "stop": 0.999999},
        "evidence, suppression, stop rule": {"background": True, "stop": 0.999999},
    }
    rows = []
    for name, case in cases.items():
        for glimpses in GLIMPSES:
            outside(64, **case)
            runs = [outside(glimpses, **case) for _ in range(repeats)]
            rows.append({"case": name, "glimpses": glimpses, "ms": statistics.median(runs)})
            print(rows[-1], flush=True)
    return rows


def made_model(encoder: str, size: int) -> Model:
    """A model of random weights."""
    torch.manual_seed(0)
    rule = InputConfig(size=size, bands=(0, 1, 2), low=(0.0,) * 3, high=(255.0,) * 3)
    config = ModelConfig(classes=("a", "b"), input=rule, encoder=encoder)
    return Model(build_model(config).eval(), config, encoder, "")


def images_rows(folder: Path, repeats: int) -> list[dict[str, Any]]:
    """CPU ms a glimpse, one image at a time and side by side."""
    rng = np.random.default_rng(0)
    paths = []
    for number in range(IMAGES):
        coarse = rng.integers(0, 255, (128, 128, 3), np.uint8)
        pixels = coarse.repeat(32, axis=0).repeat(32, axis=1)
        path = folder / f"{number}.tif"
        write_tiff(ArrayPyramid(pixels), path)
        paths.append(str(path))
    rows = []
    for encoder, size, budget, widths in (
        ("small", 64, 64, (1, 4, 16)),
        ("tf_efficientnet_b0", 224, 8, (1, 4, "auto")),
    ):
        model = made_model(encoder, size)
        options = ClassifyOptions(budget=budget, stop=None, device="cpu", threads=0)
        chosen = batch_images(start_session(model, options), paths)
        spent: dict[Any, list[float]] = {width: [] for width in widths}
        alone: list[dict[str, float]] = []
        for _ in range(repeats + 1):
            for width in widths:
                started = time.process_time()
                found = list(classify_all(paths, model, replace(options, batch_images=width)))
                spent[width].append(1e3 * (time.process_time() - started) / (IMAGES * budget))
                scores = [dict(record.scores) for record in found]
                assert all(record.cost.glimpses == budget for record in found)
                alone = alone or scores
                assert np.allclose([[*s.values()] for s in scores], [[*s.values()] for s in alone], atol=1e-4)
        for width in widths:
            ratios = [one / many for one, many in zip(spent[1][1:], spent[width][1:], strict=True)]
            rows.append(
                {
                    "encoder": encoder,
                    "glimpses": budget,
                    "batch_images": width,
                    "auto": chosen,
                    "ms": statistics.median(spent[width][1:]),
                    "times_less": statistics.median(ratios),
                }
            )
            print(rows[-1], flush=True)
    return rows


def main() -> None:
    """Measure, and store."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--only", choices=("outside", "images"))
    options = parser.parse_args()
    torch.set_num_threads(1)
    results = {key: value for key, value in (load("search") or {}).items() if key in ("outside", "images")}
    measures: dict[str, Callable[[Path], list[dict[str, Any]]]] = {
        "outside": lambda _: outside_rows(options.repeats),
        "images": lambda folder: images_rows(folder, options.repeats),
    }
    for name, measure in measures.items():
        if options.only in (None, name):
            with tempfile.TemporaryDirectory() as folder:
                results[name] = measure(Path(folder))
    print(store("search", **results))


if __name__ == "__main__":
    main()
