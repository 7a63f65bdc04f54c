"""fMoW end to end: index, convert, train, and protocols B (TNet's test) and C (crops of val), by size of the image.

    python benchmarks/fmow_protocols.py                     # on a synthetic tree, made on the spot
    python benchmarks/fmow_protocols.py /data/fmow-rgb      # on the release

Everything goes through the command line, the same on either. Protocol B is measured twice: on the JPEGs, of
which every look costs a whole decode, and on COGs made of them.
"""

import json
import shlex
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

import click

from scenes import fmow_tree
from store import store

#: How to train on the synthetic tree, shortly: that the tools run is what it shows. Its large images are of few
#: classes, as the release's are, so that the curriculum's last stage is one-sided.
QUICK = "--epochs 12 --batch-size 16 --lr 2e-3 --augment turns --root-size 256 --threads 1"
QUICK_CROPS = "--epochs 12 --batch-size 16 --lr 2e-3 --augment turns --root-size 128 --finest 128 --threads 1"


def hiresattn(*words: object) -> str:
    """Run a command; what it says on stdout."""
    line = [sys.executable, "-m", "hiresattn_cli.main", *map(str, words)]
    print("hiresattn", shlex.join(line[3:]), flush=True)
    return subprocess.run(line, check=True, stdout=subprocess.PIPE, text=True).stdout


def measure(
    root: Path, work: Path, training: tuple[str, str], searching: str, limit: int | None
) -> dict[str, Any]:
    """Both protocols on one release; `training` has the options for frames and for crops."""
    some = [] if limit is None else ["--limit", limit]
    index = ("fmow", "index", root, "-o")
    frames, crops, tiled = (work / f"{name}.csv" for name in ("frames", "crops", "frames-cog"))
    hiresattn(*index, frames)
    hiresattn(*index, crops, "--window", "jhu-baseline", "--splits", "train,val")
    hiresattn("fmow", "cog", root, "-o", work / "cogs", "--splits", "test")
    hiresattn(*index, tiled, "--splits", "test", "--images", work / "cogs")
    for manifest, given in zip((frames, crops), training, strict=True):
        train = ["train", manifest, "-o", work / f"{manifest.stem}-model", *shlex.split(given)]
        hiresattn(*train, *(["--resume"] if (work / f"{manifest.stem}-model").exists() else []))
    reports = {}
    for name, model, manifest, protocol in (
        ("B, JPEG", "frames-model", frames, "tnet-test"),
        ("B, COG", "frames-model", tiled, "tnet-test"),
        ("C, JPEG", "crops-model", crops, "val-crops"),
    ):
        evaluate = ("fmow", "evaluate", work / model, manifest, "--protocol", protocol)
        reports[name] = json.loads(hiresattn(*evaluate, "--json", *some, *shlex.split(searching)))
    return reports


def table(reports: dict[str, Any]) -> str:
    """Lines for people: every protocol by size of the image."""
    head = f"{'protocol':10}{'long side':>16}{'rows':>7}{'top-1':>7}{'macro':>7}{'looks':>7}{'px read':>9}"
    lines = [f"{head}{'decode ms':>11}{'model ms':>10}"]
    for name, found in reports.items():
        lines += [
            f"{name:10}{b['name']:>16}{b['rows']:>7}{b['top1']:>7.3f}{b['macro']:>7.3f}{b['glimpses']:>7.1f}"
            f"{100 * b['fraction_read']:>8.0f}%{b['decode_ms']:>11.1f}{b['model_ms']:>10.1f}"
            for b in (*found["buckets"], found["overall"])
        ]
    return "\n".join(lines)


@click.command()
@click.argument("root", required=False, type=click.Path(exists=True, file_okay=False, path_type=Path))
@click.option(
    "--work", type=click.Path(file_okay=False, path_type=Path), help="Keep manifests, COGs and models here."
)
@click.option(
    "--training", default=QUICK, show_default=True, help="Options of `hiresattn train`, for frames."
)
@click.option("--crop-training", default=QUICK_CROPS, show_default=True, help="The same for crops.")
@click.option("--searching", default="--threads 1", show_default=True, help="Options of `fmow evaluate`.")
@click.option("--places", default=8, show_default=True, help="Size of the synthetic tree.")
@click.option("--limit", type=int, help="Rows per protocol.")
def main(
    root: Path | None,
    work: Path | None,
    training: str,
    crop_training: str,
    searching: str,
    places: int,
    limit: int | None,
) -> None:
    """Measure and store."""
    with tempfile.TemporaryDirectory() as temporary:
        work = work or Path(temporary)
        work.mkdir(parents=True, exist_ok=True)
        synthetic = root is None
        if root is None:
            root = work / "fmow-rgb"
            print(f"{root}: a synthetic tree; its numbers say nothing about real scenes")
            fmow_tree.write_tree(root, places=places)
        reports = measure(root, work, (training, crop_training), searching, limit)
    for found in reports.values():
        found.pop("model")  # trained on the spot
    print(table(reports))
    name = "fmow-synthetic" if synthetic else "fmow"
    print(
        store(
            name,
            synthetic=synthetic,
            training=[training, crop_training],
            searching=searching,
            reports=reports,
        )
    )


if __name__ == "__main__":
    main()
