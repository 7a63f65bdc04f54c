"""``hiresattn locate``: boxes from image labels, for training."""

import csv
import io
import json
import os
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from hiresattn.errors import ConfigError
from hiresattn.files import atomic_write
from hiresattn_cli import options
from hiresattn_cli.progress import progress_bar

if TYPE_CHECKING:
    from hiresattn.datasets.manifest import Example

COLUMNS = ("path", "label", "split", "y", "x", "height", "width", "boxes", "group", "mpp", "fold")


@click.command()
@click.argument("manifest", metavar="MANIFEST")
@click.option("-m", "--model", required=True, metavar="MODEL", help="A model with a background class.")
@click.option("-o", "--output", required=True, metavar="CSV", help="The manifest to write, with boxes.")
@click.option(
    "--overlap",
    type=click.FloatRange(0, 1, max_open=True),
    default=0.0,
    metavar="X",
    help="Share of its side that a place has in common with the next.",
)
@click.option(
    "--sure",
    type=click.FloatRange(0, 1),
    default=0.5,
    show_default=True,
    metavar="P",
    help="Least probability that a place shows the image's label, or any class where it has none.",
)
@options.threads
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
    threads: int | None,
) -> None:
    """Look at every place of MANIFEST's training images, and write where their labels show.

    In images without a label, places that show any class but the background are found, and their classes written;
    an image in which there is none gets the background as its label.
    `hiresattn train CSV` then learns from these boxes where to look, though nobody has drawn one. Rows of other
    splits, and those that have boxes, are copied.
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
    options.use_threads(threads)
    loaded = load_model(model)
    wanted = [number for number, e in enumerate(examples) if e.split == "train" and e.boxes is None]
    check(loaded, (examples[number] for number in wanted))  # before the first look
    if ctx.obj >= 0:
        for split, what in (
            ("train", "any class but the background is looked for"),
            ("val", "training needs one"),
        ):
            bare = sum(e.label is None and e.split == split and e.boxes is None for e in examples)
            if bare:
                click.echo(f"{bare} images of split {split} have no label: {what}", err=True)
    found = 0
    with progress_bar("Looking everywhere", len(wanted), wanted=ctx.obj >= 0) as update:
        chosen = [examples[number] for number in wanted]
        more: dict[str, Any] = {} if threads is None else {"threads": threads}
        for done, example in enumerate(find(chosen, loaded, overlap=overlap, sure=sure, **more)):
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
