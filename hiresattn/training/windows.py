"""Small images out of large ones: windows that show the label, found from the coarse view first, then from nearer."""

import math
from collections import Counter
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np

from hiresattn.checkpoint import load_model
from hiresattn.datasets.example import Example
from hiresattn.datasets.manifest import read_manifest
from hiresattn.datasets.write import write_manifest
from hiresattn.inference.locator import Locator
from hiresattn.inference.options import LocateOptions
from hiresattn.training.options import TrainOptions
from hiresattn.training.sizes import FEW_REGIONS, GROWTH, Sized, finest_side

#: Windows of an image, at most: those that show its label likeliest.
MOST = 4


def coarser_sides(images: Sequence[Sized], options: TrainOptions) -> list[int]:
    """Sides of regions in which the label is looked for before the finest, coarsest first, px as of ``finest``.

    At the coarsest an image has about ``GROWTH`` regions; each next one is half of it. There are none where images are
    small enough to teach by themselves, and without a background class, which windows are told from.
    """
    count = float(np.median([one.regions for one in images])) if images else 0
    if count <= FEW_REGIONS or options.background is None:
        return []
    halvings = math.ceil(math.log(count / GROWTH, GROWTH) - 1e-9)
    return [finest_side(options) << more for more in range(halvings, 0, -1)]


def chance(val: Sequence[Sized]) -> float:
    """Accuracy of the commonest label of the validation images; 0 without any."""
    labels = Counter(one.examples[0].label for one in val)
    return max(labels.values(), default=0) / max(len(val), 1)


def windows_of(
    images: Sequence[Example],
    teacher: Path,
    table: Path,
    options: TrainOptions,
    *,
    on_message: Callable[[str], None],
    progress: Callable[[float], None],
) -> list[Example]:
    """Windows of images that show their labels, as a model finds them; of images of the background one at random.

    Args:
        images: The images.
        teacher: Model with a background class; it looks at every one of its finest regions.
        table: Manifest of the windows to write, where all images are files; one that is there is read instead.
        options: ``device``, ``threads``, ``seed`` and ``on_error`` count.
        on_message: Called for each image that is left out.
        progress: Called with the share done, 0 to 1.

    Returns:
        The windows, each an image with a label.

    Raises:
        HiresattnError: If an image can't be read.
    """
    if table.exists():
        return read_manifest(table)
    locator = Locator(load_model(teacher), LocateOptions(device=options.device, threads=options.threads))
    rng, found, most = np.random.default_rng(options.seed), list[Example](), MOST
    showing = [image for image in images if image.label != options.background]
    for count, image in enumerate(showing + [image for image in images if image.label == options.background]):
        if count == len(showing):  # as many of the background: labels stay as common as they are
            most = max(round(len(found) / max(count, 1)), 1)
        try:
            found += locator.windows(image, most, rng)
        except Exception as error:
            if options.on_error == "raise":
                raise
            on_message(f"Skipped: {error}")
        progress((count + 1) / len(images))
    if found and all(isinstance(image.source, str | Path) for image in images):
        write_manifest(table, found)
        return read_manifest(table)  # as a resumed run finds them
    return found
