"""Attention maps of the training images: the attention that a training accumulated, laid over each image."""

from collections import defaultdict
from collections.abc import Callable, Iterator, Sequence
from itertools import chain, count
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch

from hiresattn.attention_maps.memory import image_name, load_attention
from hiresattn.attention_maps.render import RegionMap, compose, write_attention
from hiresattn.checkpoint import Model, load_model
from hiresattn.datasets.example import Example, names_of
from hiresattn.datasets.scales import scale_of
from hiresattn.errors import ConfigError, HiresattnError, OpenError, ReadError, WriteError
from hiresattn.geometry import root_regions
from hiresattn.model.scorers import Scorer
from hiresattn.option_types import did_you_mean
from hiresattn.pyramid import Pyramid, open_pyramid
from hiresattn.pyramid.rescaled import Scale, at_scale, to_stored, window_of
from hiresattn.reading.fetch import CropFetcher
from hiresattn.reading.squash import SquashFetcher, unsquashed

_NO_MAPS = (
    "the scorer {!r} doesn't tell classes apart; train with scorer oaa, saol or evidence for maps of classes"
)


class Exported(NamedTuple):
    """The files of one image."""

    name: str
    """Path of the image and, of a window, its region."""
    files: list[Path]
    remembered: bool
    """Whether attention of every class of it was accumulated; else maps of the trained model stand in."""
    done: float
    """Share of the images done."""


def export_attention(
    folder: str | Path,
    examples: Sequence[Example],
    target: str | Path,
    *,
    map_name: str | None = None,
    threads: int = 1,
    on_skip: Callable[[HiresattnError], None] | None = None,
) -> Iterator[Exported]:
    """Write the attention of each training image for its labels (or its boxes' classes), as pictures and as rasters.

    Of a model whose scorer accumulates attention, that is the maximum over the whole training, from regions of all
    depths, joined as ``render.compose`` says. Where a class was never accepted (the model never predicted it), and of
    other scorers that tell classes apart, it is that of the trained model in the root regions.

    Args:
        folder: A model directory that a training made; it holds the accumulated attention.
        examples: What it was trained on, in the same order; those of split ``train`` are written.
        target: Folder for the files; is made.
        map_name: To compare with: these maps of the trained model in the root regions, by name, in place of what was
            accumulated; see ``Scorer.class_maps``. ``cam`` is plain class activation mapping.
        threads: Threads that read.
        on_skip: Called with the error of an image that can't be read, which is then left out; None = it is raised.

    Yields:
        What was written, per image; see ``render.write_attention`` for the files.

    Raises:
        ConfigError: If the model's scorer makes no maps of classes.
        CheckpointError: If the model or its memory can't be read.
        HiresattnError: If an image can't be read, or a file can't be written.
    """
    model, target = load_model(folder), Path(target)
    if type(model.net.scorer).class_maps is Scorer.class_maps:
        raise ConfigError(_NO_MAPS.format(model.config.scorer))
    accumulated = accumulated_maps(folder) if map_name is None else {}
    try:
        target.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise WriteError(f"{target}: can't be made ({error.strerror}); give another folder") from error
    train = [example for example in examples if example.split == "train"]
    stems: set[str] = set()
    for number, example in enumerate(train):
        name = image_name(example, number)
        maps, labels = accumulated.get(name, []), class_indices(example, model)
        missing = set(labels) - {label for label, _, _ in maps}
        try:
            pyramid = open_pyramid(example.source, nodata=model.config.input.nodata)
        except (OpenError, ReadError) as error:
            if on_skip is None:
                raise
            on_skip(error)
            continue
        try:
            region = example.region or (0, 0, pyramid.height, pyramid.width)
            if missing:
                found = root_maps(model, pyramid, region, map_name, threads, scale_of(pyramid, example))
                maps = maps + [one for one in found if one[0] in missing]
            if not maps:  # it has no labels
                continue
            stem = _stem(example)
            stem = next(s for s in chain([stem], (f"{stem}-{n}" for n in count(2))) if s not in stems)
            stems.add(stem)
            files = write_attention(pyramid, compose(maps, region, model.classes), target, stem)
        except (OpenError, ReadError) as error:
            if on_skip is None:
                raise
            on_skip(error)
            continue
        finally:
            if pyramid is not example.source:
                pyramid.close()
        yield Exported(name, files, not missing, (number + 1) / len(train))


def accumulated_maps(folder: str | Path) -> dict[str, list[RegionMap]]:
    """The attention that a training accumulated, by name of the image (see ``memory.image_name``).

    Args:
        folder: A model directory; where nothing was accumulated there are no images.

    Raises:
        CheckpointError: If its memory is damaged.
    """
    found: dict[str, list[RegionMap]] = defaultdict(list)
    for file in sorted(Path(folder).glob("attention-[0-9]*.npz"))[-1:]:
        for key, values in load_attention(file):
            found[key.image].append((key.label, key.region, values.astype(np.float32) / 255))
    return found


def root_maps(
    model: Model,
    pyramid: Pyramid,
    region: tuple[int, int, int, int],
    map_name: str | None = None,
    threads: int = 1,
    scale: Scale | None = None,
) -> list[RegionMap]:
    """The trained model's class maps in an image's root regions.

    Args:
        model: Its scorer makes maps of classes.
        pyramid: The image.
        region: What is classified, level-0 px.
        map_name: Which of the scorer's maps; None = the first.
        threads: Threads that read.
        scale: The image's; None = as it says.

    Returns:
        A map per root region and class.

    Raises:
        ConfigError: If the scorer makes no such maps.
        HiresattnError: If the image can't be read.
    """
    config = model.config
    pyramid = at_scale(pyramid, config.input.mpp, scale)
    region = window_of(pyramid, region)
    side = config.input.squash
    y, x, height, width = region if side is None else (0, 0, side, side)
    roots = root_regions(height, width, y, x, root_size=config.root_size, overlap=config.overlap)
    fetcher: CropFetcher | SquashFetcher = (
        CropFetcher([pyramid], config.input, threads=threads)
        if side is None
        else SquashFetcher(pyramid, config.input, region)
    )
    net = model.net.eval()
    with fetcher, torch.inference_mode():
        crops = fetcher(np.zeros(len(roots), np.int64), roots)
        frames = np.repeat(np.array([[y, x, height, width]]), len(roots), axis=0)
        maps = net.scorer.class_maps(net.glimpse(crops, roots, frames).scored)
    if not maps:
        raise ConfigError(_NO_MAPS.format(config.scorer))
    if map_name is not None and map_name not in maps:
        raise ConfigError(
            f"the scorer {config.scorer!r} makes no maps {map_name!r}{did_you_mean(map_name, maps)}"
        )
    values = maps[map_name or next(iter(maps))].cpu().numpy()
    where = to_stored(pyramid, roots if side is None else unsquashed(roots, region, side))
    return [
        (label, (y, x, h, w), values[row, label])
        for row, (y, x, h, w) in enumerate(where.tolist())
        for label in range(values.shape[1])
    ]


def class_indices(example: Example, model: Model) -> list[int]:
    """The indices of an image's classes; without a label, of its boxes' classes.

    Raises:
        ConfigError: If the model doesn't have one of them.
    """
    label = names_of(example.label) if model.config.multi_label else example.label
    names = label if isinstance(label, tuple) else (label,) if label is not None else example.box_labels or ()
    for name in names:
        if name not in model.classes:
            raise ConfigError(
                f"{example.source}: label {name!r} is none of the classes {', '.join(model.classes)}"
            )
    return sorted({model.classes.index(name) for name in names})


def _stem(example: Example) -> str:
    """How the files of an image, or window, are named."""
    source, region = example.source, example.region
    stem = Path(str(source)).name.split(".")[0] if isinstance(source, str | Path) else "image"
    return stem if region is None else "_".join([stem, *map(str, region)])
