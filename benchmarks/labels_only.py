"""The odd cell from image labels alone: ``train --recipe distil``, no boxes, no labelled cells.

    python benchmarks/labels_only.py ../shared WORK [--smallest 2 --smallest 4] [--frozen] [--seeds 0,1,2] [--split val]

Every scene has its label; the smallest that may train have 2 x 2, 4 x 4 or 16 x 16 cells. The teacher, which looks
everywhere, is measured beside the student, which searches, and beside random looks. WORK keeps the models and one
JSON file of measurements per run, so that an interrupted run goes on.
"""

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import click
import numpy as np
import torch
from safetensors.torch import load_file, save_file

from hiresattn import classify, load_model, register_encoder
from hiresattn.card import CARD
from hiresattn.config import InputConfig
from hiresattn.datasets.example import Example
from hiresattn.model.encoders.small import SmallEncoder
from hiresattn.reading.fetch import CropFetcher
from hiresattn.training.distil import STEPS, distil
from oddcell import BUDGETS, LOOKING, TEST, VALIDATION, WINDOW, measure, told
from scenes import smear
from scenes.cells import ZIP
from scenes.contrastive import train_contrastive
from store import commit, load, store, store_picture

OPTIONS = replace(LOOKING, scorer="evidence", weight_decay=0.1, lr=3e-3, epochs=30, epoch_images=1280)
#: Scenes to train on, by cells along a side, and their most odd cells.
TRAINING = {2: (8000, 4), 4: (8000, 8), 16: (1600, 16)}
#: As many of the largest where there are no smaller ones.
ALONE = 2400
#: Of them that have none: their label is the background.
EMPTY = 0.25
#: Scenes to validate on, of each size.
VALIDATED = 150
#: Test scenes, by cells along a side.
TESTED = {16: 200, 32: 150, 64: 60}


#: Unlabelled windows that the frozen encoder is trained on, how often it sees each, and its file.
UNLABELLED, UNLABELLED_EPOCHS, CONTRASTIVE = 4000, 12, "contrastive.safetensors"


def contrastive(zip_path: Path, file: Path) -> None:
    """Register the encoder that was told nothing; trained, unless its file is there."""

    def fresh(channels: int) -> SmallEncoder:
        return SmallEncoder(channels=channels, more=2, norm="batch")

    if not file.exists():
        torch.manual_seed(0)
        encoder = fresh(3)
        train_contrastive(encoder, unlabelled(zip_path), epochs=UNLABELLED_EPOCHS, on_epoch=print)
        save_file(encoder.state_dict(), file)

    def trained(channels: int) -> SmallEncoder:
        encoder = fresh(channels)
        encoder.load_state_dict(load_file(file))
        return encoder

    register_encoder("contrastive", trained)


def unlabelled(zip_path: Path) -> np.ndarray:
    """Windows of 2 x 2 cells, float32 ``[n c s s]``, -1 to 1."""
    several = TRAINING[2][1]
    scenes = smear.examples(zip_path, "train", UNLABELLED, grid=2, seed0=1, several=several, empty=EMPTY)
    whole = np.array([[0, 0, WINDOW, WINDOW]])
    with CropFetcher([], InputConfig(size=LOOKING.crop_size)) as fetch:
        return np.concatenate([fetch(np.array([fetch.add(scene.source)]), whole).pixels for scene in scenes])


def manifest(zip_path: Path, seed: int, smallest: int) -> list[Example]:
    """Scenes and their labels; nothing else is known of them."""
    found = []
    for grid in sorted({smallest, 16}):
        count, several = TRAINING[grid] if smallest < 16 else (ALONE, TRAINING[grid][1])
        first = 1_000_000 * (seed + 1)
        found += smear.examples(
            zip_path, "train", count, grid=grid, seed0=first, several=several, empty=EMPTY
        )
        most = several if grid < 16 else 1
        found += smear.examples(
            zip_path, "val", VALIDATED, grid=grid, seed0=VALIDATION, several=most, empty=EMPTY * (grid < 16)
        )
    return told(found)


def trained(zip_path: Path, seed: int, smallest: int, output: Path, *, frozen: bool) -> float:
    """Train, or go on; CPU-seconds of all steps."""
    spent: dict[str, float] = {}
    options = replace(OPTIONS, seed=seed)
    if frozen:
        options = replace(options, encoder="contrastive", freeze_encoder=True)
    for record in distil(
        manifest(zip_path, seed, smallest), output, options, resume=output.is_dir(), on_message=print
    ):
        one = record.epoch
        spent[record.step] = one.cpu_seconds
        print(
            f"{output.name} {record.step} {one.epoch}/{one.epochs} loss {one.loss:.3f} accuracy "
            f"{one.accuracy or 0:.3f} val {one.val_accuracy or 0:.3f} cpu {one.cpu_seconds:.0f} s",
            flush=True,
        )
    return sum(spent.values())


def measured(zip_path: Path, model: Path, split: str) -> list[dict[str, Any]]:
    """Student, random looks and teacher on scenes of all sizes; the teacher on the smallest only."""
    facts = load_model(model).training["distilled"]
    teacher = model / facts["teacher"]["model"]
    seed0 = TEST if split == "test" else VALIDATION + 20_000
    rows = []
    for grid, count in TESTED.items():
        tests = smear.examples(zip_path, split, count, grid=grid, seed0=seed0)
        ways: dict[str, tuple[Path, dict[str, Any]]] = {
            "student": (model, {}),
            "random": (model, {"policy": "random"}),
        }
        if grid == min(TESTED):
            ways["teacher"] = (teacher, {"policy": "exhaustive"})
        for name, (path, how) in ways.items():
            rows.append({"grid": grid, "policy": name, **measure(path, tests, BUDGETS[grid], **how)})
            print(rows[-1], flush=True)
    return rows


def draw(zip_path: Path, model: Path) -> Path:
    """A picture of where a student looks in one scene of 32 x 32 cells, the odd one marked."""
    scene = smear.examples(zip_path, "test", 1, grid=32, seed0=TEST + 2)[0]
    found = classify(scene, load_model(model), budget=BUDGETS[32], device="cpu")
    return store_picture("oddcell", scene.source, found, scene.boxes or ())


@click.command()
@click.argument("shared", type=click.Path(path_type=Path))
@click.argument("work", type=click.Path(path_type=Path))
@click.option("--smallest", type=int, multiple=True, default=(2,), help="Cells along the smallest scenes.")
@click.option("--frozen", is_flag=True, help="Keep an encoder that was trained on unlabelled windows.")
@click.option("--seeds", default="0,1,2")
@click.option("--split", type=click.Choice(["val", "test"]), default="test")
def main(
    shared: Path, work: Path, smallest: tuple[int, ...], seeds: str, split: str, *, frozen: bool
) -> None:
    """Train what is missing in WORK, measure, and store what was measured on test scenes."""
    work.mkdir(parents=True, exist_ok=True)
    if frozen:
        contrastive(shared / ZIP, work / CONTRASTIVE)
    for size in smallest:
        for seed in map(int, seeds.split(",")):
            model = work / f"{'frozen-' * frozen}smallest-{size}-seed-{seed}"
            kept = work / f"{model.name}-{split}.json"
            if kept.exists():
                continue
            before = work / f"{model.name}.seconds"
            done = (model / CARD).is_file() and "distilled" in load_model(model).training
            spent = 0.0 if done else trained(shared / ZIP, seed, size, model, frozen=frozen)
            if not before.exists():  # steps that a resumed run skipped are counted by their models
                paths = [model, *(model / STEPS).iterdir()]
                spent = float(np.sum([load_model(p).training["cpu_seconds"] for p in paths if p.is_dir()]))
                before.write_text(f"{spent:.1f}")
            facts = {"smallest": size, "frozen": frozen, "seed": seed, "commit": commit()}
            rows = [
                facts | {"train_cpu_seconds": float(before.read_text())} | row
                for row in measured(shared / ZIP, model, split)
            ]
            kept.write_text(json.dumps(rows, indent=1) + "\n", encoding="utf-8")
    if split == "test":
        rows = [row for file in sorted(work.glob("*-test.json")) for row in json.loads(file.read_text())]
        new = {_run(row) for row in rows}
        old = (load("labels_only") or {"rows": []})["rows"]
        rows = [row for row in old if _run(row) not in new] + rows
        if not frozen:
            print(draw(shared / ZIP, work / f"smallest-{smallest[0]}-seed-{seeds.split(',', maxsplit=1)[0]}"))
        print(store("labels_only", budgets=BUDGETS, stop=0.95, training=TRAINING, alone=ALONE, rows=rows))


def _run(row: dict[str, Any]) -> tuple[int, bool, int]:
    """Which training a row is of."""
    return row["smallest"], row.get("frozen", False), row["seed"]


if __name__ == "__main__":
    main()
