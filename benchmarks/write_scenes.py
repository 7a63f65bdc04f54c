"""Write test scenes as files, to try the command line on.

python benchmarks/write_scenes.py smear ../shared OUT --count 20 --grid 16 --format tiff
python benchmarks/write_scenes.py islands ../shared islands.csv
python benchmarks/write_scenes.py fmow OUT --places 6
"""

import csv
import io
import json
from pathlib import Path

import click

from hiresattn.datasets.example import SPLITS
from hiresattn.files import atomic_write
from scenes import fmow_tree, islands
from scenes.cells import CLASSES, ZIP
from scenes.smear import BACKGROUND, SmearPyramid, SmearScene
from scenes.writers import WRITERS


@click.group()
def main() -> None:
    """Write test scenes as files."""


@main.command()
@click.argument("shared", type=click.Path(exists=True, file_okay=False, path_type=Path))
@click.argument("output", type=click.Path(file_okay=False, path_type=Path))
@click.option("--count", default=20, show_default=True, help="Scenes to write.")
@click.option("--grid", default=16, show_default=True, help="Cells along a side, of 360 px each.")
@click.option("--format", "form", type=click.Choice(list(WRITERS)), default="tiff", show_default=True)
@click.option("--split", type=click.Choice(SPLITS), default="test", show_default=True)
@click.option("--seed", default=0, show_default=True, help="Seed of the first scene; the others' follow it.")
@click.option("--background", type=click.Choice(CLASSES), default=BACKGROUND, show_default=True)
def smear(
    shared: Path, output: Path, count: int, grid: int, form: str, split: str, seed: int, background: str
) -> None:
    """Write scenes as files, and OUTPUT/manifest.csv: path, label, split, boxes ([[y, x, height, width]])."""
    output.mkdir(parents=True, exist_ok=True)
    write, suffix = WRITERS[form]
    rows = []
    for number in range(seed, seed + count):
        scene = SmearScene(number, grid, split, background)
        file = output / f"smear-{split}-{background}-{grid}-{number}{suffix}"
        write(SmearPyramid(shared / ZIP, scene), file)
        boxes = json.dumps([list(scene.box)])
        rows.append({"path": file.name, "label": scene.label, "split": split, "boxes": boxes})
        print(f"{file}: {scene.label} at {scene.box}", flush=True)
    write_manifest(output / "manifest.csv", rows)


@main.command("islands")
@click.argument("shared", type=click.Path(exists=True, file_okay=False, path_type=Path))
@click.argument("output", type=click.Path(dir_okay=False, path_type=Path))
def islands_command(shared: Path, output: Path) -> None:
    """Write a manifest of the satellite scene's island windows: west trains, east tests."""
    counts = islands.write_manifest(shared, output)
    print(f"{output}: {counts['train']} windows to train on, {counts['test']} to test on")


@main.command()
@click.argument("output", type=click.Path(file_okay=False, path_type=Path))
@click.option("--places", default=6, show_default=True, help="Sequences per category in train.")
@click.option("--seed", default=0, show_default=True)
@click.option("--archive/--no-archive", default=True, help="Pack the ground truth.")
def fmow(output: Path, places: int, seed: int, archive: bool) -> None:  # noqa: FBT001 - click
    """Write a synthetic tree of fMoW-rgb."""
    tree = fmow_tree.write_tree(output, places=places, seed=seed, archive=archive)
    print(f"{output}: {tree.views} synthetic views, {len(tree.boxes)} boxes")


def write_manifest(path: Path, rows: list[dict[str, str]]) -> None:
    """Write ``path,label,split,boxes``; rows of other files that are listed already stay."""
    kept = {}
    if path.is_file():
        kept = {row["path"]: row for row in csv.DictReader(path.read_text(encoding="utf-8").splitlines())}
    kept |= {row["path"]: row for row in rows}
    text = io.StringIO()
    table = csv.DictWriter(text, ["path", "label", "split", "boxes"], lineterminator="\n")
    table.writeheader()
    table.writerows(kept.values())
    with atomic_write(path) as part:
        part.write_text(text.getvalue(), encoding="utf-8")


if __name__ == "__main__":
    main()
