"""Where are the islands? Maps of a model that was only ever told that there are some.

    python benchmarks/localisation.py ../shared [--seeds 0,1,2] [--encoders test_resnet,small-bn]
        [--keep FOLDER] [--picture]

The windows of `islands.py`, as the published methods see images: one look at the whole, 128 px for 1024, labels
without boxes, the scorer `oaa`. Compared are, for the class of the islands and in the windows that have some: `cam`,
the trained model's class activation maps; `accumulated`, what the training remembered (OAA), for training windows;
`integral`, the maps that learnt from memory (OAA+). `test_resnet` is timm's smallest with batch normalisation;
`small-bn` is ours. The islands are a few px wide, so attention below 0.8 counts as none (`floor`: of 0, 0.5 and 0.8
the best for seed 0; 0.5 is better than plain maps, too), and windows of open sea show none (`negatives`).

`pointed`: the largest value lies within 32 px of an island's box, 3 % of the window's side as in the pointing game.
`covered`: share of the boxes' px among the 1 % of the window's px with the largest values. `iou`: intersection over
union of boxes and map above the threshold (a share of the window's maximum, one for all windows) that is best for
this kind of map.
"""

import tempfile
from collections import defaultdict
from contextlib import closing
from dataclasses import replace
from itertools import product
from pathlib import Path
from typing import Any

import click
import numpy as np
import torch
from PIL import Image, ImageDraw

from hiresattn import load_model, open_pyramid
from hiresattn.attention_maps.export import accumulated_maps, export_attention, root_maps
from hiresattn.attention_maps.memory import image_name
from hiresattn.attention_maps.render import RegionMap, compose
from hiresattn.datasets.example import Example
from hiresattn.datasets.manifest import read_manifest
from hiresattn.training.fit import fit
from islands import LOOKING
from scenes.islands import write_manifest
from store import PICTURES, store

ENCODERS = {"test_resnet": (-3,), "small-bn": (-1,)}
OPTIONS = replace(
    LOOKING, scorer="oaa", crop_size=128, k=(0,), oversample=2, epochs=12, negatives="all", floor=0.8
)
STEP = 2
TOLERANCE = 32
TOP = 0.01
#: Of the picture: side of a window and the gap between two, px; windows in a row.
SIDE, GAP, COLUMNS = 240, 6, 4
THRESHOLDS = np.linspace(0.05, 0.95, 19)


def judge(maps: list[RegionMap], example: Example, classes: tuple[str, ...]) -> dict[str, Any]:
    """How well maps lie on the boxes of a window."""
    assert example.region is not None
    y, x, height, width = example.region
    on = np.zeros((-(-height // STEP), -(-width // STEP)), bool)
    near = on.copy()
    for top, left, rows, columns in example.boxes or ():
        for plane, margin in ((on, 0), (near, TOLERANCE)):
            edges = [
                max((top - y - margin) // STEP, 0),
                max(-(-(top - y + rows + margin) // STEP), 0),
                max((left - x - margin) // STEP, 0),
                max(-(-(left - x + columns + margin) // STEP), 0),
            ]
            plane[edges[0] : edges[1], edges[2] : edges[3]] = True
    shown = compose(maps, example.region, classes, STEP)
    values = shown.values[0] if maps else np.zeros(on.shape, np.float32)
    best = values == values.max()
    order = np.argsort(values, axis=None, kind="stable")[::-1][: round(TOP * values.size)]
    above = [values >= threshold * max(values.max(), 1e-6) for threshold in THRESHOLDS]
    return {
        "pointed": float(near[best].mean())
        if values.max() > 0
        else 0.0,  # of equals, the share that is right
        "covered": float(on.flat[order].sum() / on.sum()),
        "iou": [float((on & plane).sum() / (on | plane).sum()) for plane in above],
    }


def measure(folder: Path, examples: list[Example], split: str) -> list[dict[str, Any]]:
    """Each kind of map on the windows of a split that have islands."""
    model = load_model(folder)
    label = model.classes.index("islands")
    windows = [example for example in examples if example.split == split]
    accumulated = accumulated_maps(folder)
    found: dict[str, list[dict[str, Any]]] = defaultdict(list)
    for number, example in enumerate(windows):
        if not example.boxes or example.region is None:
            continue
        with closing(open_pyramid(example.source)) as pyramid:
            kinds = {
                k: [m for m in root_maps(model, pyramid, example.region, k) if m[0] == label]
                for k in ("cam", "integral")
            }
        if split == "train":
            own = accumulated.get(image_name(example, number), [])
            kinds["accumulated"] = [m for m in own if m[0] == label]
        for name, maps in kinds.items():
            found[name].append(judge(maps, example, model.classes))
    rows = []
    for name, judged in found.items():
        iou = np.mean([one["iou"] for one in judged], axis=0)
        numbers = {n: float(np.mean([one[n] for one in judged])) for n in ("pointed", "covered")}
        best = int(iou.argmax())
        rows.append({"maps": name, **numbers, "iou": float(iou[best]), "threshold": float(THRESHOLDS[best])})
    return rows


def draw(folder: Path, examples: list[Example], path: Path) -> None:
    """The first four windows with islands (outlined): above what was accumulated, below plain activation maps."""
    windows = [example for example in examples if example.split == "train" and example.boxes][:COLUMNS]
    picture = Image.new("RGB", ((SIDE + GAP) * COLUMNS - GAP, 2 * SIDE + GAP), "white")
    pen = ImageDraw.Draw(picture)
    with tempfile.TemporaryDirectory() as temporary:
        for row, kind in enumerate((None, "cam")):
            for column, shown in enumerate(export_attention(folder, windows, temporary, map_name=kind)):
                left, top = column * (SIDE + GAP), row * (SIDE + GAP)
                with Image.open(shown.files[0]) as one:
                    picture.paste(one.resize((SIDE, SIDE)), (left, top))
                y0, x0, height, _ = windows[column].region or (0, 0, SIDE, SIDE)
                for y, x, h, w in windows[column].boxes or ():
                    scale = SIDE / height
                    middle = (left + (x + w / 2 - x0) * scale, top + (y + h / 2 - y0) * scale)
                    half = max(h, w) * scale / 2 + 4
                    pen.ellipse(
                        [at + sign * half for sign in (-1, 1) for at in middle], outline="cyan", width=2
                    )
    picture.quantize(64).save(path, optimize=True)


@click.command()
@click.argument("shared", type=click.Path(exists=True, path_type=Path))
@click.option("--seeds", default="0,1,2")
@click.option("--encoders", default=",".join(ENCODERS))
@click.option(
    "--keep", type=click.Path(path_type=Path), help="Keep the trained models there; use those there."
)
@click.option("--picture", is_flag=True, help="Draw three windows too, by the first model.")
def main(shared: Path, seeds: str, encoders: str, keep: Path | None, *, picture: bool) -> None:
    """Measure and store."""
    torch.set_num_threads(1)
    rows = []
    with tempfile.TemporaryDirectory() as temporary:
        folder = keep or Path(temporary)
        folder.mkdir(parents=True, exist_ok=True)
        manifest = folder / "islands.csv"
        write_manifest(shared.resolve(), manifest)
        examples = read_manifest(manifest)
        for encoder, seed in product(encoders.split(","), map(int, seeds.split(","))):
            output = folder / f"{encoder}-{seed}"
            if not (output / "metrics.csv").exists():
                told = [replace(example, boxes=None) for example in examples]
                options = replace(OPTIONS, encoder=encoder, encoder_stages=ENCODERS[encoder], seed=seed)
                *_, last = fit(told, output, options)
                print(last, flush=True)
            if picture and not rows:
                draw(output, examples, PICTURES / "localisation.png")
            seconds = load_model(output).training["cpu_seconds"]
            for split in ("train", "test"):
                for row in measure(output, examples, split):
                    facts = {
                        "encoder": encoder,
                        "split": split,
                        "seed": seed,
                        "training_cpu_seconds": seconds,
                    }
                    rows.append(facts | row)
                    print(rows[-1], flush=True)
    print(store("localisation", rows=rows, tolerance=TOLERANCE, top=TOP, epochs=OPTIONS.epochs))


if __name__ == "__main__":
    main()
