"""Heads on kept features: the first training, with extraction, beside the next ones; and a cohort of usual size.

    python benchmarks/features.py WORK

Scenes of 2,016 px are noise with a bright patch of one colour in one region, its class. The encoder is a ResNet-18 with
random weights at 224 px: what is measured is time. The cohort has random features, as wide as large encoders give them.
"""

import json
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import click
import numpy as np
import timm
from PIL import Image
from safetensors.torch import save_file

from hiresattn.datasets.example import Example
from hiresattn.datasets.feature_files import feature_file
from hiresattn.datasets.features import Features, write_features
from hiresattn.inference.extract import extract
from hiresattn.training.features import fit_features
from hiresattn.training.options import TrainOptions
from store import store

SIDE, REGION, CLASSES = 2016, 224, ("red", "green", "blue")
SCENES = 40
#: Images, regions of each, and width of a vector.
COHORT = (200, 1000, 1024)
OPTIONS = TrainOptions(epochs=40, batch_size=8, lr=1e-3, device="cpu", threads=2)


def scenes(folder: Path) -> list[Example]:
    """Scenes as JPEG, a quarter of them to validate on."""
    folder.mkdir(parents=True, exist_ok=True)
    rng = np.random.default_rng(0)
    found = []
    for number in range(SCENES):
        label = number % len(CLASSES)
        pixels = rng.integers(60, 120, (SIDE, SIDE, 3)).astype(np.uint8)
        y, x = REGION * rng.integers(SIDE // REGION, size=2)
        pixels[y : y + REGION, x : x + REGION, label] = 250
        path = folder / f"{number}.jpg"
        Image.fromarray(pixels).save(path, quality=90)
        found.append(Example(str(path), CLASSES[label], "val" if number % 4 == 0 else "train"))
    return found


def encoder(folder: Path) -> str:
    """A ResNet-18 in timm's format."""
    folder.mkdir(parents=True, exist_ok=True)
    body = timm.create_model("resnet18", num_classes=0)
    cfg = {"input_size": [3, REGION, REGION], "mean": [0.5] * 3, "std": [0.25] * 3, "num_classes": 0}
    config = {"architecture": "resnet18", "num_classes": 0, "pretrained_cfg": cfg}
    (folder / "config.json").write_text(json.dumps(config))
    save_file({k: v.contiguous() for k, v in body.state_dict().items()}, folder / "model.safetensors")
    return f"local-dir:{folder}"


def cohort(folder: Path, name: str) -> list[Example]:
    """Features of a cohort: the class is in one region of twenty."""
    folder.mkdir(parents=True, exist_ok=True)
    images, regions, width = COHORT
    rng = np.random.default_rng(0)
    found = []
    for number in range(images):
        label = number % len(CLASSES)
        vectors = rng.normal(size=(regions, width)).astype(np.float16)
        vectors[: regions // 20, 16 * label : 16 * label + 16] += 2
        where = np.stack([np.arange(regions) * 64, np.zeros(regions)] + [np.full(regions, 64)] * 2, 1)
        source = str(folder / f"{number}.svs")
        facts = {"source": source, "side": 64, "encoder": name}
        write_features(feature_file(folder, source), Features(vectors, where.astype(np.int64), facts))
        found.append(Example(source, CLASSES[label], "val" if number % 4 == 0 else "train"))
    return found


def head(examples: list[Example], folder: Path, output: Path, **more: Any) -> dict[str, float]:
    """Train a head; time and accuracy."""
    started, cpu = time.perf_counter(), time.process_time()
    options = replace(OPTIONS, features=str(folder), **more)
    *_, last = fit_features(examples, output, options, overwrite=True)
    return {
        "seconds": time.perf_counter() - started,
        "cpu_seconds": time.process_time() - cpu,
        "val_accuracy": last.val_accuracy or 0.0,
    }


@click.command()
@click.argument("work", type=click.Path(path_type=Path))
def main(work: Path) -> None:
    """Measure, and store."""
    given = scenes(work / "scenes")
    name = encoder(work / "encoder")
    times = []
    for _ in range(2):
        started, cpu = time.perf_counter(), time.process_time()
        records = list(extract(given, name, work / "features"))
        spent = {"seconds": time.perf_counter() - started, "cpu_seconds": time.process_time() - cpu}
        times.append({"status": records[0].status, "regions": sum(r.regions for r in records), **spent})
        print(times[-1], flush=True)
    small = head(given, work / "features", work / "head")
    print(small, flush=True)
    wide = encoder_of_width(work / "wide")
    large = head(cohort(work / "cohort", wide), work / "cohort", work / "cohort-head")
    print(large, flush=True)
    print(store("features", scenes=SCENES, cohort=COHORT, epochs=OPTIONS.epochs, extraction=times, head=small,
                cohort_head=large))  # fmt: skip


def encoder_of_width(folder: Path) -> str:
    """An encoder whose vectors are as wide as the cohort's: a ViT-L of one block."""
    folder.mkdir(parents=True, exist_ok=True)
    args = {"embed_dim": COHORT[2], "depth": 1, "num_heads": 16, "img_size": 224}
    body = timm.create_model("vit_large_patch16_224", num_classes=0, **args)
    cfg = {"input_size": [3, 224, 224], "mean": [0.5] * 3, "std": [0.5] * 3, "num_classes": 0}
    config = {
        "architecture": "vit_large_patch16_224",
        "num_classes": 0,
        "model_args": args,
        "pretrained_cfg": cfg,
    }
    (folder / "config.json").write_text(json.dumps(config))
    save_file({k: v.contiguous() for k, v in body.state_dict().items()}, folder / "model.safetensors")
    return f"local-dir:{folder}"


if __name__ == "__main__":
    main()
