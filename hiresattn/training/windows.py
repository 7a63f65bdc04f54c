"""Small images out of large ones: windows that show the label, found from the coarse view first, then from nearer."""

import math
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np

from hiresattn.checkpoint import load_model
from hiresattn.datasets.example import Example
from hiresattn.errors import HiresattnError
from hiresattn.inference.lines import LinesFile
from hiresattn.inference.locator import Locator
from hiresattn.inference.options import LocateOptions
from hiresattn.training.options import TrainOptions
from hiresattn.training.sizes import FEW_REGIONS, GROWTH, Sized, finest_side

#: Windows of an image, at most: those that show its label likeliest.
MOST = 4


def coarser_sides(images: Sequence[Sized], options: TrainOptions) -> list[int]:
    """Sides of regions in which the label is looked for before the finest, coarsest first, px as of ``finest``.

    At the coarsest the median image has about ``GROWTH`` regions or less, by its area; each next one is half of it.
    There are none where images are small enough to teach by themselves, and without a background class, which windows
    are told from.
    """
    count = float(np.median([one.regions for one in images])) if images else 0
    if count <= FEW_REGIONS or options.background is None:
        return []
    halvings = math.ceil(math.log(count / GROWTH, GROWTH) - 1e-9)
    return [finest_side(options) << more for more in range(halvings, 0, -1)]


def windows_of(
    images: Sequence[Example],
    teacher: Path,
    file: Path,
    options: TrainOptions,
    *,
    on_message: Callable[[str], None],
    progress: Callable[[float], None],
) -> list[Example]:
    """Windows of images that show their labels, as a model finds them; of images of the background some at random.

    Of these as many are taken as the others have on average, so that labels stay about as common as they are.

    Args:
        images: The images; those without a label have no windows.
        teacher: Model with a background class; it looks at every one of its finest regions.
        file: Lines of what was found, image by image; those that are there aren't looked at again.
        options: ``background``, ``device``, ``threads``, ``seed``, ``per_source`` and ``on_error`` count.
        on_message: Called for each image that is left out.
        progress: Called with the share done, 0 to 1.

    Returns:
        The windows, each an image of its own with the image's label.

    Raises:
        HiresattnError: If an image can't be read.
    """
    how = LocateOptions(device=options.device, threads=options.threads)
    plain = [n for n, image in enumerate(images) if image.label == options.background]
    showing = [n for n, image in enumerate(images) if image.label not in (options.background, None)]
    with LinesFile(file, resume=True) as kept:
        found = {int(line["image"]): line["regions"] for line in kept.held}
        locator, most = None, MOST
        for count, number in enumerate([*showing, *plain]):
            if count == len(showing):
                most = max(round(sum(len(found[n]) for n in showing) / max(count, 1)), 1)
            if number not in found:
                locator = locator or Locator(load_model(teacher), how)
                image = replace(images[number], case=None) if options.per_source else images[number]
                rng = np.random.default_rng([options.seed, number])
                try:
                    found[number] = locator.windows(image, most, rng)
                except HiresattnError as error:
                    if options.on_error == "raise":
                        raise
                    on_message(f"Skipped: {error}")
                    found[number] = []
                kept.write({"image": number, "regions": found[number]})
            progress((count + 1) / (len(showing) + len(plain)))
    return [
        replace(
            image, region=tuple(region), case=None, group=image.group or image.case,
            boxes=None, box_labels=None, box_confidence=None,
        )
        for n, image in enumerate(images) for region in found.get(n, [])
    ]  # fmt: skip
