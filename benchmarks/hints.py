"""How faint may the hint be? Accuracy on the needle task against its strength, and what helps when it is faint.

    python benchmarks/hints.py train -o DIR --hint 0.08 [--variant size128] [--seed 0] [--split val]
    python benchmarks/hints.py search -m MODEL --hint 0.08

`train` trains on scenes of that strength by the recipe or one of its variants, and measures; `search` measures
other ways to search with a trained model. Variants are compared on scenes of the split `val`; what was chosen
is measured on `test`. Results are added to `results/hints.json`.
"""

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import click
import numpy as np
import torch

import needle
import needle_model
from hiresattn import classify_all, load_model
from hiresattn.checkpoint import Model
from hiresattn.datasets.example import Example
from hiresattn.demo.needle import NeedlePyramid, NeedleScene
from hiresattn.geometry import root_regions
from hiresattn.inference.budget import Budget
from hiresattn.inference.image_search import Policy
from hiresattn.inference.search import search
from hiresattn.inference.torch_engine import TorchEngine
from hiresattn.model.select import TopK
from hiresattn.reading.fetch import CropFetcher
from scenes import needle as needle_scenes
from store import load, store

SIDES = (1024, 4096, 16384)
#: Scenes of `val` begin here: those before chose the epoch in training.
FIRST = {"val": 1000, "test": 0}


@dataclass(frozen=True)
class Variant:
    """The recipe, changed. But for those called long and `searched`, training takes about as long as the recipe's."""

    options: Mapping[str, Any] = field(default_factory=dict)
    sides: Mapping[int, int] = field(default_factory=lambda: needle_scenes.SCENES)
    boxes: bool = False
    clear: float | None = None
    """Strength of the scenes that a first training of as many epochs sees."""
    searched: Mapping[int, int] | None = None
    """How many training scenes per side the first training's model searches: places that gave the right answer
    surely become boxes of a second training, from its weights."""


VARIANTS: dict[str, Variant] = {
    "recipe": Variant(),
    "boxes": Variant(boxes=True),
    "long": Variant({"epochs": 168}),
    "wide": Variant({"k": (8, 4), "epochs": 40}),
    "size128": Variant({"crop_size": 128, "epochs": 36}, {128: 6000, 256: 1000, 512: 6000, 1024: 12000}),
    "zoom2": Variant({"grid": 5, "fraction": 0.5, "k": (3, 2, 1), "epochs": 56}),
    "deep": Variant({"epochs": 70}, {**needle_scenes.SCENES, 4096: 12000}),
    "clear first": Variant({"epochs": 42}, clear=0.16),
    "searched": Variant(searched={64: 1000, 256: 1000, 512: 1000, 1024: 1500}),
    "clear, searched": Variant(clear=0.16, searched={64: 1000, 256: 1000, 512: 1000, 1024: 1500}),
    "wide long": Variant({"k": (8, 4), "epochs": 120}),
    "size128 long": Variant(
        {"crop_size": 128, "epochs": 108}, {128: 6000, 256: 1000, 512: 6000, 1024: 12000}
    ),
}


def fit(output: Path, hint: float, chosen: Variant, seed: int) -> float:
    """Train, unless that is done; CPU-seconds, those of earlier parts and of searching included."""
    done = output.with_name(f"{output.name}.seconds")
    if done.exists():
        return float(done.read_text(encoding="utf-8"))
    options = replace(needle_model.OPTIONS, seed=seed, **chosen.options)
    first, spent = output.with_name(f"{output.name}-first"), 0.0
    if chosen.clear is not None or chosen.searched is not None:
        spent = fit(first, chosen.clear or hint, replace(chosen, clear=None, searched=None), seed)
        options = replace(options, init_from=str(first))
    started = time.process_time()
    if chosen.searched is None:
        given = needle_scenes.examples(seed, hint, chosen.sides, boxes=chosen.boxes)
    else:
        given = found(load_model(first), needle_scenes.examples(seed, hint, chosen.searched))
    spent += time.process_time() - started + needle_model.train(given, output, options).cpu_seconds
    done.write_text(str(spent), encoding="utf-8")
    return spent


def found(model: Model, given: list[Example]) -> list[Example]:
    """Scenes whose answer was right and sure, with the finest place that decided it as their box; all of ``val``."""
    needle.warm_up(model)
    asked = [example for example in given if example.split == "train"]
    told = []
    for example, answer in zip(
        asked, classify_all(asked, model, budget=needle.BUDGET, device="cpu", threads=0), strict=True
    ):
        best = max(answer.regions, key=lambda region: region.attention)
        sure = answer.class_name == example.label and (answer.score or 0) >= 0.95
        if sure and best.height < 1.5 * model.config.finest_side:
            told.append(replace(example, boxes=((best.y, best.x, best.height, best.width),)))
    right = sum(_inside(e.source.scene.box, e.boxes[0]) for e in told if e.boxes)
    print(f"{len(told)} of {len(asked)} scenes, {right} rightly", flush=True)
    return [*told, *(example for example in given if example.split == "val")]


def _inside(box: tuple[int, ...], place: tuple[int, ...]) -> bool:
    return all(place[i] <= box[i] and box[i] + box[i + 2] <= place[i] + place[i + 2] for i in (0, 1))


def _no_change(_model: Model) -> None:
    pass


def _temper(factor: float) -> Callable[[Model], None]:
    """Flatten (below 1) or sharpen what the scorer says."""

    def change(model: Model) -> None:
        model.net.scorer.log_temperature.data += float(np.log(factor))

    return change


#: Ways to search: how (None = the training's k cells per region), with how many glimpses, with what done to
#: the model.
SEARCHES: dict[str, tuple[Policy | None, int, Callable[[Model], None]]] = {
    "as shipped": (Policy(), 80, _no_change),
    "budget 200": (Policy(), 200, _no_change),
    "budget 400": (Policy(), 400, _no_change),
    "NMS .3": (Policy(max_overlap=0.3), 80, _no_change),
    "NMS .1": (Policy(max_overlap=0.1), 80, _no_change),
    "stop .99": (Policy(stop=0.99), 80, _no_change),
    "flatter": (Policy(), 80, _temper(0.5)),
    "sharper": (Policy(), 80, _temper(2.0)),
    "4 at once": (Policy(width=4), 80, _no_change),
    "top-k": (None, 0, _no_change),
}


def searched(model: Model, scene: NeedleScene, policy: Policy | None, budget: int) -> tuple[bool, bool, int]:
    """Search one scene: whether the answer is right, whether the needle was seen at native resolution, glimpses."""
    side = scene.side
    roots, frames = [root_regions(side, side)], np.array([[0, 0, side, side]])
    with CropFetcher([NeedlePyramid(scene)], model.config.input, threads=1) as fetch, torch.inference_mode():
        if policy is None:
            seen = model.net(fetch, roots, frames, select=TopK(), k=model.k)
        else:
            engine = TorchEngine(model.net)
            seen, _ = search(engine, fetch, roots, frames, budget=Budget(glimpses=budget), policy=policy)
    y, x, height, width = scene.box
    top, left, rows, columns = seen.region.T
    holds = (top <= y) & (left <= x) & (top + rows >= y + height) & (left + columns >= x + width)
    finest = rows < 1.5 * model.config.finest_side
    right = model.classes[int(seen.logits[0].argmax())] == scene.label
    return right, bool((holds & finest).any()), len(seen.image)


def scenes_of(side: int, hint: float, split: str, count: int) -> list[NeedleScene]:
    """Scenes that nothing was trained or stopped on."""
    return [NeedleScene(FIRST[split] + number, side, hint, split) for number in range(count)]


def add(rows: list[dict[str, Any]], **key: Any) -> None:
    """Add rows to the stored results; those of the same key are replaced."""
    kept = [row for row in (load("hints") or {}).get("rows", []) if any(row.get(k) != key[k] for k in key)]
    print(store("hints", budget=needle.BUDGET, stop=0.95, rows=[*kept, *({**key, **row} for row in rows)]))


@click.group()
def main() -> None:
    """Measure and store."""
    torch.set_num_threads(1)


@main.command()
@click.option("-o", "--output", required=True, type=click.Path(path_type=Path))
@click.option("--hint", required=True, type=float)
@click.option("--variant", default="recipe", type=click.Choice(list(VARIANTS)))
@click.option("--seed", default=0)
@click.option("--split", default="test", type=click.Choice(list(FIRST)))
@click.option("--scenes", default=150)
def train(output: Path, hint: float, variant: str, seed: int, split: str, scenes: int) -> None:
    """Train at a strength, unless that is done, and measure."""
    chosen = VARIANTS[variant]
    spent = fit(output, hint, chosen, seed)
    model = load_model(output)
    needle.warm_up(model)
    rows = []
    for side in SIDES:
        figures = needle.measure(model, scenes_of(side, hint, split, scenes))
        rows.append({**figures, "training_cpu_seconds": spent})
        print(rows[-1], flush=True)
    add(rows, kind="train", hint=hint, variant=variant, seed=seed, split=split)


@main.command("search")
@click.option("-m", "--model", "path", required=True)
@click.option("--hint", required=True, type=float)
@click.option("--search", "names", multiple=True, type=click.Choice(list(SEARCHES)))
@click.option("--sides", default="1024,16384")
@click.option("--split", default="val", type=click.Choice(list(FIRST)))
@click.option("--scenes", default=150)
@click.option("--variant", default="recipe", help="What the model was trained by.")
def compare(
    path: str, hint: float, names: tuple[str, ...], sides: str, split: str, scenes: int, variant: str
) -> None:
    """Measure ways to search with a trained model."""
    for name in names or tuple(SEARCHES):
        policy, budget, change = SEARCHES[name]
        model = load_model(path)
        change(model)
        rows = []
        for side in map(int, sides.split(",")):
            started = time.process_time()
            found = [searched(model, scene, policy, budget) for scene in scenes_of(side, hint, split, scenes)]
            spent = time.process_time() - started
            right, hit, glimpses = np.array(found, float).mean(0).tolist()
            rows.append(
                {"side": side, "scenes": scenes, "accuracy": right, "hit": hit, "glimpses": glimpses,
                 "cpu_ms": 1000 * spent / scenes}
            )  # fmt: skip
            print(name, rows[-1], flush=True)
        seed = model.training["seed"]
        add(rows, kind="search", hint=hint, variant=variant, search=name, seed=seed, split=split)


if __name__ == "__main__":
    main()
