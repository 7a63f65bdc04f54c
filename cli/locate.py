"""``hiresattn locate``: boxes from image labels, for training."""

import csv
import io
import json
import os
from pathlib import Path
from typing import TYPE_CHECKING

import click

from hiresattn.errors import ConfigError
from hiresattn.files import atomic_write
from hiresattn_cli.help import Command, group
from hiresattn_cli.progress import progress_bar

if TYPE_CHECKING:
    from hiresattn.datasets.example import Example

COLUMNS = ("path", "label", "split", "y", "x", "height", "width", "boxes", "group", "mpp", "fold")


@click.command(cls=Command, example="hiresattn locate slides.csv -m patch-model -o slides-with-boxes.csv")
@click.argument("manifest", metavar="MANIFEST")
@group(
    "Options",
    click.option("-m", "--model", required=True, metavar="MODEL", help="A model with a background class."),
    click.option("-o", "--output", required=True, metavar="CSV", help="The manifest to write, with boxes."),
    click.option(
        "--overlap",
        type=click.FloatRange(0, 1, max_open=True),
        default=0.0,
        show_default=True,
        metavar="SHARE",
        help="Share of its side that a region has in common with the next.",
    ),
    click.option(
        "--sure",
        type=click.FloatRange(0, 1),
        default=0.5,
        show_default=True,
        metavar="P",
        help="Least probability that a region shows the image's label, for it to become a box.",
    ),
    click.option(
        "--threads",
        type=click.IntRange(min=1),
        default=2,
        show_default=True,
        metavar="N",
        help="Threads that read.",
    ),
)
@click.pass_context
def locate(
    ctx: click.Context,
    /,
    manifest: str,
    *,
    model: str,
    output: str,
    overlap: float,
    sure: float,
    threads: int,
) -> None:
    """Write boxes around what shows the label of each of MANIFEST's training images.

    Every finest region of these images is read. In an image without a label, regions of any class but the background
    are found, each with its class; without any, the image gets the background as its label. `hiresattn train CSV`
    then trains the scorer with these boxes. Rows of other splits, and rows with boxes, are copied.
    """
    from hiresattn.checkpoint import load_model
    from hiresattn.datasets.manifest import read_manifest
    from hiresattn.inference.locate import check
    from hiresattn.inference.locate import locate as find

    target = Path(output)
    if target.resolve() == Path(manifest).resolve():
        raise ConfigError(f"{output}: that is the manifest itself; give another file with -o")
    if not target.parent.is_dir():
        raise ConfigError(
            f"{output}: there is no folder {target.parent}; make it, or give another file with -o"
        )
    examples = read_manifest(manifest)
    loaded = load_model(model)
    wanted = [number for number, e in enumerate(examples) if e.split == "train" and e.boxes is None]
    check(loaded, (examples[number] for number in wanted))  # before the first look
    if ctx.obj >= 0:
        for split, what in (
            ("train", "any class but the background is located"),
            ("val", "training needs one"),
        ):
            bare = sum(e.label is None and e.split == split and e.boxes is None for e in examples)
            if bare:
                click.echo(f"{bare} images of split {split} have no label: {what}", err=True)
    found = 0
    with progress_bar("Locating", len(wanted), wanted=ctx.obj >= 0) as update:
        chosen = [examples[number] for number in wanted]
        for done, example in enumerate(find(chosen, loaded, overlap=overlap, sure=sure, threads=threads)):
            examples[wanted[done]] = example
            found += bool(example.boxes)
            update(done + 1, Path(str(example.source)).name)
    _write(target, examples)
    if ctx.obj >= 0:
        click.echo(f"Boxes for {found} of {len(wanted)} images in {output}", err=True)


def _write(target: Path, examples: "list[Example]") -> None:
    text = io.StringIO()
    table = csv.writer(text, lineterminator="\n")
    table.writerow(COLUMNS)
    for example in examples:
        source = str(example.source)
        if "://" not in source and not source.startswith("/vsi"):
            source = os.path.relpath(source, target.parent)
        kinds = [[label] for label in example.box_labels or ()] or [[]] * len(example.boxes or ())
        places = [[*box, *kind] for box, kind in zip(example.boxes or (), kinds, strict=True)]
        boxes = "" if example.boxes is None else json.dumps(places)
        window = example.region or [""] * 4
        more = (value or "" for value in (example.group, example.mpp, example.fold))
        table.writerow([source, example.label or "", example.split, *window, boxes, *more])
    with atomic_write(target) as part:
        part.write_text(text.getvalue(), encoding="utf-8")
