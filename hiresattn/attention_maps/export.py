"""Attention maps of the training images: what a training accumulated, laid over each image."""

from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping, Sequence
from itertools import chain, count
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from hiresattn.attention_maps.memory import load_attention
from hiresattn.attention_maps.render import RegionMap, compose, write_attention
from hiresattn.checkpoint import Model, load_model
from hiresattn.config import did_you_mean
from hiresattn.datasets.example import Example
from hiresattn.errors import ConfigError, HiresattnError, OpenError, ReadError, WriteError
from hiresattn.model.net import GlimpseNet
from hiresattn.model.scorers import Scorer
from hiresattn.training.data import Batch, Loader
from hiresattn.training.samples import Item

_NO_MAPS = "the scorer {!r} doesn't tell classes apart; train with --scorer oaa, saol or evidence for maps of classes"


class Exported(NamedTuple):
    """What was written of one image."""

    name: str
    """Path of the image and, of a window, its place."""
    files: list[Path]
    remembered: bool
    """Whether every class of it was accumulated; else the last maps of the trained model stand in."""
    done: float
    """Share of the images done."""


def export_attention(
    folder: str | Path,
    examples: Sequence[Example],
    target: str | Path,
    *,
    kind: str | None = None,
    threads: int = 1,
    lost: Callable[[HiresattnError], None] | None = None,
) -> Iterator[Exported]:
    """Write where each training image speaks for its labels (or its boxes' classes), as pictures and as maps on it.

    Of a model whose scorer accumulates attention, that is the maximum over the whole training, from regions of all
    depths, joined as ``report.attention.compose`` says. Where a class was never accepted (the model never got it
    right), and of a scorer that tells classes apart without accumulating, it is what the trained model shows at first
    look.

    Args:
        folder: A model directory that ``fit`` made.
        examples: What it was trained on, in the same order; those of split ``train`` are written.
        target: Folder for the files; is made.
        kind: To compare with: these maps of the trained model at first look, by name, in place of what was
            accumulated; see ``Scorer.class_maps``. ``cam`` is plain class activation mapping.
        threads: Threads that read.
        lost: Is told why an image can't be read, which is then left out; None = that is an error.

    Yields:
        What was written, per image; see ``report.attention.write_attention`` for the files.

    Raises:
        ConfigError: If the model's scorer makes no maps of classes.
        CheckpointError: If the model or its memory can't be read.
        HiresattnError: If an image can't be read, or a file can't be written.
    """
    model, target = load_model(folder), Path(target)
    if type(model.net.scorer).class_maps is Scorer.class_maps:
        raise ConfigError(_NO_MAPS.format(model.config.scorer))
    remembered: dict[str, list[RegionMap]] = defaultdict(list)
    for file in sorted(Path(folder).glob("attention-*.npz"))[-1:] if kind is None else ():
        for key, values in load_attention(file):
            remembered[key.image].append((key.label, key.region, values.astype(np.float32) / 255))
    try:
        target.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise WriteError(f"{target}: can't be made ({error.strerror}); give another folder") from error
    loader = loader_of(model, threads, lost)
    try:
        items = loader.items([e for e in examples if e.split == "train"], model.classes)
        taken: set[str] = set()
        for number, item in enumerate(items):
            maps = remembered.get(item.name, [])
            missing = set(labels_of(item)) - {label for label, _, _ in maps}
            if missing:
                maps = maps + [one for one in first_look(model, loader, item, kind) if one[0] in missing]
            if not maps:  # it has no labels, or can't be read
                continue
            stem = _stem(item)
            stem = next(s for s in chain([stem], (f"{stem}-{n}" for n in count(2))) if s not in taken)
            taken.add(stem)
            attention = compose(maps, item.region, model.classes)
            try:
                files = write_attention(loader.source(item.example.source)[0], attention, target, stem)
            except (OpenError, ReadError) as error:
                if lost is None:
                    raise
                lost(error)
                continue
            yield Exported(item.name, files, not missing, (number + 1) / len(items))
    finally:
        loader.close()


def loader_of(model: Model, threads: int, lost: Callable[[HiresattnError], None] | None = None) -> Loader:
    """What reads images as a model was trained on them."""
    config = model.config
    return Loader(
        config.input,
        config.grid,
        threads=threads,
        finest=config.finest,
        root_size=config.root_size,
        overlap=config.overlap,
        lost=lost,
    )


def first_look(model: Model, loader: Loader, item: Item, kind: str | None = None) -> list[RegionMap]:
    """Where an image speaks for each of the classes at first look.

    Args:
        model: Its scorer makes maps of classes.
        loader: Of the model.
        item: The image.
        kind: Which of the scorer's maps; None = the first.

    Returns:
        A map per region of the first look and class; none of an image that can't be read and may be lost.

    Raises:
        ConfigError: If the scorer makes no such maps.
        HiresattnError: If the image can't be read.
    """
    net: GlimpseNet = model.net.eval()

    def look(batch: Batch) -> tuple[np.ndarray, Mapping[str, Tensor]]:
        assert batch.stored is not None  # noqa: S101 - a loader's batch has it
        roots = batch.roots[0]
        image = np.zeros(len(roots), np.int64)
        with torch.inference_mode():
            looked = net.glimpse(batch.fetch(image, roots), roots, batch.frames[image])
            return batch.stored(image, roots), net.scorer.class_maps(looked.scored)

    seen, _ = loader.attempt([item], look)
    if seen is None:
        return []
    where, maps = seen
    if not maps:
        raise ConfigError(_NO_MAPS.format(model.config.scorer))
    if kind is not None and kind not in maps:
        raise ConfigError(
            f"the scorer {model.config.scorer!r} makes no maps {kind!r}{did_you_mean(kind, maps)}"
        )
    values = maps[kind or next(iter(maps))].cpu().numpy()
    return [
        (label, (y, x, h, w), values[row, label])
        for row, (y, x, h, w) in enumerate(where.tolist())
        for label in range(values.shape[1])
    ]


def labels_of(item: Item) -> list[int]:
    """The indices of an image's classes; without a label, of its boxes' classes."""
    if isinstance(item.label, tuple):
        return np.flatnonzero(item.label).tolist()
    return [item.label] if item.label >= 0 else np.unique(np.array(item.kinds)).tolist()


def _stem(item: Item) -> str:
    """How the files of an image, or window, are named."""
    source, region = item.example.source, item.example.region
    stem = Path(str(source)).name.split(".")[0] if isinstance(source, str | Path) else "image"
    return stem if region is None else "_".join([stem, *map(str, region)])
