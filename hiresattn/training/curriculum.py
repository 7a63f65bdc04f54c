"""The curriculum: stages of images from small to large, and which images come next."""

from collections.abc import Sequence

import numpy as np

from hiresattn.geometry import Grid
from hiresattn.training.options import TrainOptions
from hiresattn.training.samples import Sample

#: Cases in a batch where nothing else is asked for, and of few cases at least; steps that an epoch of few has.
BATCH, LEAST_BATCH, STEPS = 32, 4, 16
#: Images that are one glimpse come in batches this many times larger.
SMALL_IMAGE_BATCH = 3
#: Root regions in a batch, about, where an image has many.
MOST_ROOTS = 2048


class Curriculum:
    """Draws the batches of each stage; the cost of a batch does not depend on the number of images.

    Args:
        samples: The training images.
        grid: How regions are divided.
        options: ``batch_size`` and ``seed`` count.
    """

    def __init__(self, samples: Sequence[Sample], grid: Grid, options: TrainOptions) -> None:
        self.stages = stages_of(samples, grid)
        self._sizes = [min(batch_size(stage, options), len(stage)) for stage in self.stages]
        self._seed = options.seed
        self._orders: dict[tuple[int, int], np.ndarray] = {}

    def draw(self, stage: int, drawn: list[int]) -> list[Sample]:
        """The next batch of a stage, which is shuffled anew after each pass.

        Args:
            stage: Which.
            drawn: Images drawn so far, per stage; counted on.
        """
        samples, out = self.stages[stage], list[Sample]()
        while len(out) < self._sizes[stage]:
            number, start = divmod(drawn[stage], len(samples))
            taken = self._order(stage, number)[start : start + self._sizes[stage] - len(out)]
            out += [samples[i] for i in taken.tolist()]
            drawn[stage] += len(taken)
        return out

    def upcoming(self, stage: int, drawn: Sequence[int]) -> list[Sample]:
        """What ``draw`` will give next."""
        return self.draw(stage, list(drawn))

    def _order(self, stage: int, number: int) -> np.ndarray:
        """The order of a stage's images in a pass; the last two passes of a stage are kept."""
        if (stage, number) not in self._orders:
            self._orders.pop((stage, number - 2), None)
            rng = np.random.default_rng([self._seed, stage, number])
            self._orders[stage, number] = rng.permutation(len(self.stages[stage]))
        return self._orders[stage, number]


def stages_of(samples: Sequence[Sample], grid: Grid) -> list[list[Sample]]:
    """Images from small to large, by depths and by root regions, in units of what one more depth adds.

    Sizes that cover under half of the classes join the next smaller stage, so that size doesn't predict the class.
    """
    sizes = [
        sample.depths + round(np.log(sample.root_count) / -np.log(grid.fraction) / 2) for sample in samples
    ]
    classes = len(_classes_in(samples))
    stages: list[list[Sample]] = []
    for size in sorted(set(sizes)):
        same = [sample for sample, own in zip(samples, sizes, strict=True) if own == size]
        covering = [2 * len(_classes_in(stage)) >= classes for stage in (*stages[-1:], same)]
        if stages and not all(covering):
            stages[-1] += same
        else:
            stages.append(same)
    return stages


def batch_size(samples: Sequence[Sample], options: TrainOptions) -> int:
    """Images per batch: more where an image is one glimpse, fewer where it has many root regions."""
    roots = max(sample.root_count for sample in samples)
    single = roots == max(sample.depths for sample in samples) == 1
    return min(
        (options.batch_size or BATCH) * (SMALL_IMAGE_BATCH if single else 1), max(MOST_ROOTS // roots, 2)
    )


def draw_k(options: TrainOptions, rng: np.random.Generator) -> tuple[int, ...]:
    """Cells visited per region and depth, for a batch."""
    if not options.vary_k:
        return options.k
    return tuple(int(rng.integers(1, most + 1)) if most else 0 for most in options.k)


def _classes_in(samples: Sequence[Sample]) -> set[int]:
    """The classes of images, and of their boxes."""
    labels = np.array([sample.label for sample in samples])
    of_images = np.unique(labels) if labels.ndim == 1 else np.flatnonzero(labels.any(0))
    of_boxes = (sample.box_classes.tolist() for sample in samples if sample.box_classes is not None)
    return set(of_images.tolist()).union(*of_boxes) - {-1}
