"""Slides that are mostly glass: how many looks fall on glass and ink, with the foreground and without.

    python benchmarks/foreground.py ../shared WORK [--seeds 0,1,2]

Slides are composed (``scenes/slides.py``): 70 % glass, a pen's strokes, a black margin, tissue of which half is pale,
and one cell. Regions are chosen at random, so that nothing but the foreground keeps looks off what isn't tissue; the
weights don't matter. WORK keeps the slides. Root regions, which are always looked at, don't count.
"""

from pathlib import Path
from typing import Any

import click
import numpy as np
import torch

from hiresattn import classify, open_pyramid
from hiresattn.checkpoint import Model
from hiresattn.config import InputConfig, ModelConfig
from hiresattn.inference.record import Record
from hiresattn.model.build import build_model
from hiresattn.pyramid.array import ArrayPyramid
from hiresattn.reading.fetch import CropFetcher
from hiresattn.reading.foreground import Foreground
from scenes.slides import CLASSES, Slide, compose
from scenes.writers import write_tiff
from store import store

SIDE, BUDGET, LEAST = 768, 40, 0.1
SLIDES, EMPTY = 8, 4
ALIKE: dict[str, Any] = {"device": "cpu", "threads": 1, "seed": 0}


def written(folder: Path, seed: int, shared: Path, *, empty: bool = False) -> tuple[Path, Slide]:
    """A slide as a file with overviews, and what it shows."""
    slide = compose(seed, SIDE, split="test", shared=shared, empty=empty)
    path = folder / f"{'empty' if empty else 'slide'}-{seed:05}.tif"
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


def measured(model: Model, slides: list[tuple[Path, Slide]], foreground: str) -> dict[str, float]:
    """What looks at random regions are like."""
    found = [
        (
            classify(path, model, policy="random", budget=BUDGET, stop=None, foreground=foreground, **ALIKE),
            slide,
        )
        for path, slide in slides
    ]
    shares = np.concatenate([looks(record, slide) for record, slide in found])
    return {
        "off": float((shares == 0).mean()),
        "thin": float((shares < LEAST).mean()),
        "hit": float(np.mean([is_hit(record, slide) for record, slide in found])),
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
            classify(path, model, policy="lowres", foreground=name, **ALIKE).cost.tiles
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
    """Write slides, measure and store."""
    folder = work / "slides"
    folder.mkdir(parents=True, exist_ok=True)
    rows: list[dict[str, Any]] = []
    tissue = []
    for seed in map(int, seeds.split(",")):
        slides = [written(folder, 1000 * seed + n, shared) for n in range(SLIDES)]
        empty = [written(folder, 1000 * seed + n, shared, empty=True)[0] for n in range(EMPTY)]
        torch.manual_seed(seed)
        config = ModelConfig(classes=CLASSES, input=InputConfig(size=64, foreground="tissue"))
        model = Model(build_model(config), config, "untrained", "")
        row: dict[str, Any] = {"seed": seed} | mask(model, slides)
        answers = [classify(path, model, **ALIKE).status for path in empty]
        row["empty"] = answers.count("no_foreground") / EMPTY
        row |= {name: measured(model, slides, name) for name in ("none", "tissue")}
        rows.append(row)
        tissue += [float(slide.tissue.mean()) for _, slide in slides]
        print(row, flush=True)
    print(
        store("foreground", rows=rows, tissue=float(np.mean(tissue)), budget=BUDGET, slides=SLIDES, side=SIDE)
    )


if __name__ == "__main__":
    main()
