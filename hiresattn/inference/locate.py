"""Boxes from image labels: visit every finest region, and keep those that explain the label."""

import logging
import math
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from hiresattn.checkpoint import Model, load_model
from hiresattn.datasets.example import Example
from hiresattn.datasets.manifest import read_manifest
from hiresattn.datasets.write import write_manifest
from hiresattn.errors import ConfigError
from hiresattn.geometry import check_region
from hiresattn.inference.exhaustive import everywhere
from hiresattn.inference.session import ready_net
from hiresattn.inference.torch_engine import TorchEngine
from hiresattn.pyramid import open_pyramid
from hiresattn.reading.fetch import CropFetcher

_log = logging.getLogger(__name__)

#: Least probability that a place shows the image's label, for it to be a box.
SURE = 0.5
#: Rounds in which an image's share of such places is estimated.
ROUNDS = 30


@dataclass(frozen=True)
class Located:
    """What ``locate`` found."""

    examples: tuple[Example, ...]
    """All rows of the manifest, with the boxes found."""
    searched: int
    """Images that were searched."""
    found: int
    """Of these, images in which boxes were found."""


def locate(
    manifest: str | Path | Iterable[Example],
    model: Model | str | Path,
    output: str | Path | None = None,
    *,
    overlap: float = 0.0,
    sure: float = SURE,
    threads: int = 2,
    progress: Callable[[float, str], None] = lambda _share, _step: None,
) -> Located:
    """Find boxes around what shows the label of each training image, by reading every finest region.

    A training on the manifest written then supervises the scorer with the boxes. Rows of other splits, and rows with
    boxes, stay as they are.

    Args:
        manifest: A CSV or Parquet file, or examples.
        model: A model with a background class: a directory, a hub name or a loaded model.
        output: Manifest to write, CSV; None = nothing is written.
        overlap: Least share of its side that a region has in common with the next, 0 to below 1.
        sure: Least probability that a region shows the label, for it to become a box; see ``located``.
        threads: Threads that read.
        progress: Called with the share done, 0 to 1, and the image's name.

    Returns:
        The rows with boxes, and how many images have some.

    Raises:
        ConfigError: If the model has no background class, a label is none of its classes, an image has too many
            regions, or ``output`` is the manifest itself.
        HiresattnError: If an image can't be read.

    Example:
        >>> hiresattn.locate("slides.csv", "patch-model", "slides-with-boxes.csv").found
    """
    if output is not None:
        _check_output(Path(output), manifest)
    rows = read_manifest(manifest) if isinstance(manifest, str | Path) else list(manifest)
    loaded = model if isinstance(model, Model) else load_model(model)
    searched = [n for n, example in enumerate(rows) if example.split == "train" and example.boxes is None]
    chosen = [rows[n] for n in searched]
    check(loaded, chosen)  # before anything is read
    for split, what in (("train", "any class but the background is located"), ("val", "training needs one")):
        bare = sum(row.label is None and row.split == split and row.boxes is None for row in rows)
        if bare:
            _log.warning("%d images of split %s have no label: %s", bare, split, what)
    found = 0
    for done, example in enumerate(located(chosen, loaded, overlap=overlap, sure=sure, threads=threads)):
        rows[searched[done]] = example
        found += bool(example.boxes)
        progress((done + 1) / len(searched), Path(str(example.source)).name)
    if output is not None:
        write_manifest(output, rows)
    return Located(tuple(rows), len(searched), found)


def located(
    examples: Iterable[Example], model: Model, *, overlap: float = 0.0, sure: float = SURE, threads: int = 2
) -> Iterator[Example]:
    """Find the regions that show the labels of images, by reading every finest region.

    The model must know what single regions show; it needs no scorer. In an image without a label, regions of any
    class but the background are found, each with the class that the model predicts.

    Args:
        examples: Images or windows, labelled or not.
        model: A model with a background class.
        overlap: Least share of its side that a region has in common with the next.
        sure: Least probability that a region shows the label; without one, any class but the background. How common
            such regions are is estimated per image (expectation-maximisation of a mixture with the background).
        threads: Threads that read.

    Yields:
        The examples, with the regions found as their boxes; without boxes where none shows the label; with
        empty boxes where the label is the background. An image without a label in which nothing is found gets that
        label; in one of background a chance look-alike may still be found.

    Raises:
        ConfigError: If the model has no background class, a label is none of its classes, or an image has more
            places than ``exhaustive.MOST_PLACES``.
        HiresattnError: If an image can't be read.
    """
    engine = TorchEngine(ready_net(model.net, model.net.device))
    background = check(model, ())
    for example in examples:
        check(model, (example,))
        odd_classes = [i for i in range(len(model.classes)) if i != background]
        sought = odd_classes if example.label is None else [model.classes.index(example.label)]
        if sought == [background]:
            yield replace(example, boxes=())
            continue
        pyramid = open_pyramid(example.source)
        try:
            region = example.region or (0, 0, pyramid.height, pyramid.width)
            check_region(region, pyramid.height, pyramid.width, pyramid.source)
            with CropFetcher([pyramid], model.config.input, threads=threads) as fetch:
                found = everywhere(engine, fetch, np.array(region, np.int64), overlap=overlap)
        finally:
            if pyramid is not example.source:
                pyramid.close()
        measured = (found.coverage > 0).nonzero()[0]
        logits = found.glimpse_logits[measured]
        evidence = (
            np.logaddexp.reduce(logits[:, sought], axis=1) - math.log(len(sought)) - logits[:, background]
        )
        odd = _probabilities(evidence, known=example.label is not None) >= sure
        boxes = tuple(tuple(place) for place in found.region[measured][odd].tolist())
        if example.label is not None:
            yield replace(example, boxes=boxes or None)
        elif boxes or not len(measured):
            kinds = tuple(model.classes[sought[i]] for i in logits[odd][:, sought].argmax(1).tolist())
            yield replace(example, boxes=boxes or None, box_labels=kinds or None)
        else:
            yield replace(example, label=model.classes[background], boxes=())


def check(model: Model, examples: Iterable[Example]) -> int:
    """Refuse what can't be located; the index of the model's background class.

    Raises:
        ConfigError: If the model has no background class, or a label is several or none of its classes.
    """
    if model.net.background is None:
        raise ConfigError(f"model {model.name!r} has no background class; train one with --background CLASS")
    for example in examples:
        if isinstance(example.label, tuple):
            raise ConfigError(
                f"{example.source}: it has several labels; places are found for one label per image"
            )
        if example.label is not None and example.label not in model.classes:
            known = ", ".join(model.classes)
            raise ConfigError(
                f"{example.source}: label {example.label!r} is none of the model's classes ({known})"
            )
    return model.net.background


def _check_output(output: Path, manifest: object) -> None:
    """Refuse before anything is read what can't be written after it."""
    if isinstance(manifest, str | Path) and output.resolve() == Path(manifest).resolve():
        raise ConfigError(f"{output}: that is the manifest itself; give another file")
    if not output.parent.is_dir():
        raise ConfigError(f"{output}: there is no folder {output.parent}; make it, or give another file")


def _probabilities(evidence: np.ndarray, *, known: bool = True) -> np.ndarray:
    """Of each place to show the label, from log p(seen | label) / p(seen | background) ``[n]``.

    Unless it is ``known`` that some place does, one more that shows the background is counted: else the share of few
    places would follow the largest evidence, however small that is.
    """
    count = len(evidence) + (not known)
    share = 1 / max(count, 1)
    odd = np.zeros(0)
    for _ in range(ROUNDS):
        share = min(max(share, 1e-6), 1 - 1e-6)
        odd = np.exp(-np.logaddexp(0, -(evidence + math.log(share / (1 - share)))))
        share = float(odd.sum()) / max(count, 1)
    return odd
