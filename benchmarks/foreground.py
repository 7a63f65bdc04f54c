"""Slides that are mostly glass: how many looks fall on glass and ink, with the foreground and without.

    python benchmarks/foreground.py ../shared WORK [--seeds 0,1,2]

Slides are composed (``scenes/slides.py``): 70 % glass, a pen's strokes, a black margin, tissue of which half is pale,
and one cell of two classes, the label. Each seed's model is trained with the foreground, and used with it and without.
WORK keeps slides and models. A look is on glass or ink where no px of its region is tissue; root regions, which are
always looked at, don't count.
"""

from dataclasses import replace
from itertools import product
from pathlib import Path
from typing import Any

import click
import numpy as np

from hiresattn import classify, load_model, open_pyramid
from hiresattn.checkpoint import Model
from hiresattn.datasets.example import Example
from hiresattn.inference.record import Record
from hiresattn.pyramid.array import ArrayPyramid
from hiresattn.reading.fetch import CropFetcher
from hiresattn.reading.foreground import Foreground
from hiresattn.training.fit import fit
from hiresattn.training.options import TrainOptions
from scenes.slides import Slide, compose
from scenes.writers import write_tiff
from store import store

SIDE, BUDGET, LEAST = 768, 40, 0.1
COUNTS = {"train": 48, "val": 8, "test": 20}
EMPTY = 8
ALIKE: dict[str, Any] = {"budget": BUDGET, "stop": None, "device": "cpu", "threads": 1}
OPTIONS = TrainOptions(batch_size=8, epochs=5, crop_size=64, augment="turns", device="cpu", threads=1)


def written(folder: Path, seed: int, split: str, shared: Path, *, empty: bool = False) -> tuple[Path, Slide]:
    """A slide as a file with overviews, and what it shows."""
    slide = compose(seed, SIDE, split=split, shared=shared, empty=empty)
    path = folder / f"{split}{'-empty' if empty else ''}-{seed:03}.tif"
    if not path.exists():
        write_tiff(ArrayPyramid(slide.image), path, quality=85, subsampling="420")
    return path, slide


def looks(record: Record, slide: Slide) -> list[float]:
    """The share of tissue in each region below the root regions."""
    return [
        float(slide.tissue[r.y : r.y + r.height, r.x : r.x + r.width].mean())
        for r in record.regions
        if r.parent is not None
    ]


def is_hit(record: Record, slide: Slide) -> bool:
    """Whether a finest region holds the middle of the cell."""
    y, x, height, width = slide.box
    y, x = y + height // 2, x + width // 2
    return any(
        r.height < 96 and r.y <= y < r.y + r.height and r.x <= x < r.x + r.width for r in record.regions
    )


def measured(
    model: Model, slides: list[tuple[Path, Slide]], policy: str, foreground: str
) -> dict[str, float]:
    """What a model's looks at test slides are like."""
    found = [
        (classify(path, model, policy=policy, foreground=foreground, **ALIKE), slide)
        for path, slide in slides
    ]
    shares = np.concatenate([looks(record, slide) for record, slide in found])
    return {
        "accuracy": float(np.mean([record.class_name == slide.label for record, slide in found])),
        "hit": float(np.mean([is_hit(record, slide) for record, slide in found])),
        "off": float((shares == 0).mean()),
        "thin": float((shares < LEAST).mean()),
        "glimpses": float(np.mean([record.cost.glimpses for record, _ in found])),
        "seen": float(np.mean([record.cost.foreground_seen or 0 for record, _ in found])),
    }


def mask(model: Model, slides: list[tuple[Path, Slide]]) -> dict[str, float]:
    """The foreground by itself: cells that are lost, tiles read for it, and px of the crops that are glass or ink."""
    held, extra, wrong = [], [], []
    for path, slide in slides:
        with open_pyramid(path) as pyramid:
            roots = np.array([[0, 0, SIDE, SIDE]])
            found = Foreground(roots, model.config.input)
            with CropFetcher([pyramid], model.config.input, threads=0) as fetch:
                found.add(roots, fetch(np.zeros(1, np.int64), roots))
            side = SIDE // model.config.input.size
            places = np.stack(np.mgrid[:SIDE:side, :SIDE:side], -1).reshape(-1, 2)
            px = np.concatenate([places, np.full_like(places, side)], axis=1)
            bare = np.array([not slide.tissue[y : y + h, x : x + w].any() for y, x, h, w in px.tolist()])
            wrong.append(float(found.holds(px)[bare].mean()))
            held.append(bool(found.holds(np.array([slide.box])).all()))
        tiles = [
            classify(path, model, policy="lowres", foreground=name, device="cpu").cost.tiles
            for name in ("tissue", "none")
        ]
        extra.append(tiles[0] - tiles[1])
    return {
        "lost": float(1 - np.mean(held)),
        "tiles": float(np.max(extra)),
        "wrong_px": float(np.mean(wrong)),
    }


@click.command()
@click.argument("shared", type=click.Path(exists=True, path_type=Path))
@click.argument("work", type=click.Path(path_type=Path))
@click.option("--seeds", default="0,1,2")
def main(shared: Path, work: Path, seeds: str) -> None:
    """Write slides, train, measure and store."""
    folder = work / "slides"
    folder.mkdir(parents=True, exist_ok=True)
    slides = {
        split: [written(folder, n, split, shared) for n in range(count)] for split, count in COUNTS.items()
    }
    empty = [written(folder, n, "test", shared, empty=True)[0] for n in range(EMPTY)]
    examples = [
        Example(str(path), slide.label, split=split, boxes=(slide.box,))
        for split in ("train", "val")
        for path, slide in slides[split]
    ]
    rows: list[dict[str, Any]] = []
    masks: dict[str, float] = {}
    for seed in map(int, seeds.split(",")):
        output = work / f"model-{seed}"
        if not (output / "model.safetensors").exists():
            for record in fit(examples, output, replace(OPTIONS, seed=seed, foreground="tissue")):
                print(output.name, record.epoch, record.loss, record.val_accuracy, record.hit, flush=True)
        model = load_model(output)
        for foreground, policy in product(("none", "tissue"), ("best-first", "random")):
            row: dict[str, Any] = {"seed": seed, "foreground": foreground, "policy": policy}
            row |= measured(model, slides["test"], policy, foreground)
            rows.append(row)
            print(row, flush=True)
        if not masks:
            masks = mask(model, slides["test"])
            answers = [classify(path, model, device="cpu", threads=1).status for path in empty]
            masks["empty"] = answers.count("no_foreground") / EMPTY
            print(masks, flush=True)
    tissue = float(np.mean([slide.tissue.mean() for _, slide in slides["test"]]))
    print(
        store(
            "foreground",
            rows=rows,
            mask=masks,
            tissue=tissue,
            budget=BUDGET,
            counts=COUNTS,
            side=SIDE,
            empty=EMPTY,
        )
    )


if __name__ == "__main__":
    main()
