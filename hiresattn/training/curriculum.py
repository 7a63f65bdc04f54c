"""The curriculum: images from small to large, which of them come next, and how they are looked at."""

from collections.abc import Sequence

import numpy as np

from hiresattn.geometry import Grid
from hiresattn.training.augment import Change, changes_of
from hiresattn.training.cutmix import mixes_of
from hiresattn.training.options import TrainOptions
from hiresattn.training.samples import Item

#: Images that are one glimpse come in batches this many times larger.
SMALL_IMAGE_BATCH = 3
#: Regions of the first look in a batch, about, where an image has many.
MOST_AT_ONCE = 2048


def stages_of(items: Sequence[Item], grid: Grid) -> list[list[Item]]:
    """Images from small to large, by depths and, in units of what one more depth adds, regions of the first look.

    A size that shows fewer than half of the classes is no stage of its own, it would teach which class is large:
    its images join those one size smaller.
    """
    sizes = [item.depths + round(np.log(item.looks) / -np.log(grid.fraction) / 2) for item in items]
    classes = len(_shown(items))
    pools: list[list[Item]] = []
    for size in sorted(set(sizes)):
        same = [item for item, own in zip(items, sizes, strict=True) if own == size]
        shown = [2 * len(_shown(pool)) >= classes for pool in (*pools[-1:], same)]
        if pools and not all(shown):
            pools[-1] += same
        else:
            pools.append(same)
    return pools


def _shown(items: Sequence[Item]) -> set[int]:
    """The classes that items show: each its label, or all that it has, and those of its boxes."""
    labels = np.array([item.label for item in items])
    of_images = np.unique(labels) if labels.ndim == 1 else np.flatnonzero(labels.any(0))
    of_boxes = (item.kinds.tolist() for item in items if item.kinds is not None)
    return set(of_images.tolist()).union(*of_boxes) - {-1}


def batch_size(items: Sequence[Item], options: TrainOptions) -> int:
    """Images per step: more where an image is one glimpse, fewer where the first look has many regions."""
    looks = max(item.looks for item in items)
    single = looks == max(item.depths for item in items) == 1
    return min(options.batch_size * (SMALL_IMAGE_BATCH if single else 1), max(MOST_AT_ONCE // looks, 2))


def draw(pool: list[Item], number: int, size: int, seed: int, drawn: list[int]) -> list[Item]:
    """The next items of a pool, counted in ``drawn``: it is shuffled anew each time that it has been through."""
    out: list[Item] = []
    while len(out) < min(size, len(pool)):
        turn, place = divmod(drawn[number], len(pool))
        order = np.random.default_rng([seed, number, turn]).permutation(len(pool))
        taken = order[place : place + min(size, len(pool)) - len(out)]
        out += [pool[i] for i in taken]
        drawn[number] += len(taken)
    return out


def changes_for(
    drawn: Sequence[Item], bands: int, options: TrainOptions, rng: np.random.Generator
) -> list[Change]:
    """How the images of a batch are changed, and what is pasted into them."""
    plain = changes_of(
        len(drawn), bands, rng, turns=options.augment, jitter=options.jitter, jpeg=options.jpeg
    )
    mixes = mixes_of(drawn, options.cutmix, rng)
    return [change._replace(mix=mix) for change, mix in zip(plain, mixes, strict=True)]


def cells_for(options: TrainOptions, rng: np.random.Generator) -> tuple[int, ...]:
    """Cells visited per region and depth, for a batch."""
    if not options.vary_k:
        return options.k
    return tuple(int(rng.integers(1, most + 1)) if most else 0 for most in options.k)
