"""From samples to batches: images are opened when they are needed, and batches read lazily, all images in one call."""

from collections.abc import Callable, Sequence
from typing import Any, TypeVar

import numpy as np

from hiresattn.attention_maps.memory import image_name
from hiresattn.config import InputConfig
from hiresattn.datasets.example import Example
from hiresattn.errors import DomainError, HiresattnError, OpenError, ReadError
from hiresattn.geometry import Grid, depth_count, root_regions
from hiresattn.pyramid import Pyramid
from hiresattn.pyramid.rescaled import Scale, to_stored, window_of
from hiresattn.reading.estimate import check_first_look
from hiresattn.reading.fetch import Crops
from hiresattn.reading.foreground import Foreground, Foregrounds
from hiresattn.reading.images import ImagePool, OpenImage, source_key
from hiresattn.reading.squash import squash_reader, unsquashed
from hiresattn.training.augment import Augmentation, augment_crops
from hiresattn.training.batch import Batch, joined_cases
from hiresattn.training.cutmix import BatchPastes, mixed_boxes, pasted_rectangles
from hiresattn.training.samples import Sample, box_class_indices, case_samples, label_index, seen_boxes

#: Images kept open, or as many as a batch and the next one have; the least recently used is closed first.
MOST_OPEN = 32
#: Bytes of decoded tiles kept over all open images.
CACHE_BYTES = 512 << 20

_Made = TypeVar("_Made")
_Region = tuple[int, int, int, int]
#: ``read(image [n], regions [n 4] of the stored images)`` → crops.
_Read = Callable[[np.ndarray, np.ndarray], Crops]


class _UnreadableError(Exception):
    """Which image of a batch can't be read, and why."""

    def __init__(self, row: int, why: HiresattnError) -> None:
        super().__init__(str(why))
        self.row = row
        self.why = why


class Loader:
    """Opens images when they are needed and makes batches that read lazily.

    Args:
        config: How pixels become crops.
        grid: How regions are divided.
        finest: Side of the smallest region, level-0 px, or px of ``config.mpp``; None = a crop's side.
        root_size: Largest side of a root region, px as of ``finest``; None = the image's short side.
        overlap: Smallest share of its side that a root region has in common with the next.
        threads: Threads that read.
        on_skip: Called with the error of an image that can't be read, which is then left out; None = it is raised.
    """

    def __init__(
        self,
        config: InputConfig,
        grid: Grid,
        *,
        threads: int,
        finest: int | None = None,
        root_size: int | None = None,
        overlap: float = 0.0,
        on_skip: Callable[[HiresattnError], None] | None = None,
    ) -> None:
        self.config = config
        self.grid = grid
        self.finest = finest or config.size
        self.root_size = root_size
        self.overlap = overlap
        self.threads = threads
        self.on_skip = on_skip
        self._scales: dict[str | int, Scale] = {}
        self._images = self._pool()
        self._mixed: list[int] = []

    def measure(
        self, examples: Sequence[Example], classes: Sequence[str], *, per_source: bool = False
    ) -> list[Sample]:
        """Make samples of examples, one per case: every image is opened once, no pixel is read.

        With ``per_source`` each image is a sample, also where it is of a case.

        Raises:
            ConfigError: If a label is missing or none of ``classes``, or a box lies outside its image.
            RegionError: If a window leaves its image.
            HiresattnError: If an image can't be opened or isn't what the model takes.
        """
        index = {name: i for i, name in enumerate(classes)}
        made: list[Sample] = []
        for number, example in enumerate(examples):
            label = label_index(example, index)
            try:
                self._scales[source_key(example.source)] = Scale(example.mpp, example.mpp_source)
                pyramid = self.pyramid(example.source)
                region = window_of(pyramid, example.region)
                roots = self._roots(self.frame(region))
                if self.config.squash is None:
                    check_first_look(pyramid, roots, self.config)
            except (OpenError, ReadError, DomainError) as error:
                self._skip(error)
                continue
            depths = depth_count(roots, self.grid, self.finest)
            boxes = seen_boxes(example, pyramid, region, self.config.squash)
            coarse = min(region[2:]) / self.config.size
            step = max([1, *(round(has.downsample) for has in pyramid.levels if has.downsample <= coarse)])
            box_classes = box_class_indices(example, label, index)
            sure = None if example.box_confidence is None else np.array(example.box_confidence, np.float32)
            name = image_name(example, number)
            made.append(
                Sample(example, label, region, depths, len(roots), boxes, box_classes, sure, step, name)
            )
        return made if per_source else case_samples(made)

    def process(
        self,
        samples: Sequence[Sample],
        work: Callable[[Batch], _Made],
        augmentations: Sequence[Augmentation] | None = None,
        upcoming: Sequence[Sample] = (),
    ) -> tuple[_Made | None, int]:
        """Do some work with a batch; where images may be skipped, without those that can't be read.

        Args:
            samples: The batch.
            work: What to do; done again from its beginning where an image had to be left out.
            augmentations: See ``batch``.
            upcoming: See ``batch``.

        Returns:
            What the work made, None if no image was left; and how many were left out.

        Raises:
            HiresattnError: If an image can't be read, and none may be skipped.
        """
        left = list(zip(samples, augmentations or [Augmentation()] * len(samples), strict=True))
        while left:
            try:
                batch = self.batch([sample for sample, _ in left], [how for _, how in left], upcoming)
                return work(batch), len(samples) - len(left)
            except _UnreadableError as error:
                owners = [row for row, (sample, _) in enumerate(left) for _ in sample.images]
                row = owners[error.row]
                sample, how = left[row]
                if how.cutmix is not None:  # perhaps it is the donor that can't be read
                    left[row] = (sample, how._replace(cutmix=None))
                    continue
                image = sample.images[error.row - owners.index(row)]
                self._images.forget(image.example.source)
                self._skip(error.why)
                others = [part for part in sample.images if part is not image]
                left[row : row + 1] = [(one, how) for one in case_samples(others)]
        return None, len(samples)

    def batch(
        self,
        samples: Sequence[Sample],
        augmentations: Sequence[Augmentation] | None = None,
        upcoming: Sequence[Sample] = (),
    ) -> Batch:
        """A batch; reading happens in its ``fetch``, of all its images in one call.

        Args:
            samples: The images.
            augmentations: Of each, the same at every depth; None = none. What was not measured stays 0.
            upcoming: The next batch, probably: its root regions are read meanwhile, in a thread. With one thread, or
                squashed images, nothing is read ahead.

        Returns:
            The batch.
        """
        augmentations = augmentations or [Augmentation()] * len(samples)
        images = [image for sample in samples for image in sample.images]
        if len(images) > len(samples):  # cases with several images
            pairs = zip(samples, augmentations, strict=True)
            each = [how for sample, how in pairs for _ in sample.images]
            return joined_cases(self.batch(images, each, upcoming), samples)
        orientations = [one.orientation for one in augmentations]
        mixes = [one.cutmix for one in augmentations]
        side = self.config.squash
        read, read_clean = self._readers(samples, augmentations)
        self._read_ahead(upcoming)
        wholes = [self.frame(sample.region) for sample in samples]
        frames = [way.frame(whole) for way, whole in zip(orientations, wholes, strict=True)]

        def in_frame(image: np.ndarray, regions: np.ndarray) -> np.ndarray:
            pairs = zip(image.tolist(), regions.tolist(), strict=True)
            return np.array([orientations[i].stored(r, wholes[i]) for i, r in pairs], np.int64).reshape(-1, 4)

        def stored(image: np.ndarray, regions: np.ndarray) -> np.ndarray:
            out = in_frame(image, regions)
            for number in np.unique(image).tolist():
                own, sample = image == number, samples[number]
                out[own] = (
                    to_stored(self.pyramid(sample.example.source), out[own])
                    if side is None
                    else unsquashed(out[own], sample.region, side)
                )
            return out

        def augmented(read: _Read, image: np.ndarray, regions: np.ndarray) -> Crops:
            crops = read(image, in_frame(image, regions))
            return augment_crops(crops, [augmentations[i] for i in image.tolist()], self.config)

        roots = [self._roots(frame) for frame in frames]
        foreground = None
        if self.config.foreground is not None:
            own = [in_frame(np.full(len(of_image), row), of_image) for row, of_image in enumerate(roots)]
            foreground = Foregrounds([Foreground(of_image, self.config) for of_image in own])

        def noted(image: np.ndarray, where: np.ndarray) -> Crops:
            crops = read(image, where)
            if foreground is not None:
                foreground.add(image, where, crops)
            return crops

        pastes = None
        if any(mixes) or any(one.in_mixed_batch for one in augmentations):
            rectangles = pasted_rectangles(samples, mixes, side)
            for row, (way, whole) in enumerate(zip(orientations, wholes, strict=True)):
                if mixes[row] is not None:
                    rectangles[row] = way.oriented(rectangles[row : row + 1], whole)[0]
            donors = [
                (own if mix is None else mix.donor).label for own, mix in zip(samples, mixes, strict=True)
            ]
            share = rectangles[:, 2:].prod(1) / np.array(wholes)[:, 2:].prod(1)
            pastes = BatchPastes(
                rectangles,
                np.array(donors, np.int64),
                share,
                lambda image, regions: augmented(read_clean, image, regions),
            )
        return Batch(
            fetch=lambda image, regions: augmented(noted, image, regions),
            roots=roots,
            frames=np.array(frames, np.int64),
            labels=np.array([sample.label for sample in samples], np.int64),
            boxes=[
                None if boxes is None else way.oriented(boxes, whole)
                for boxes, way, whole in zip(
                    mixed_boxes(samples, mixes, side), orientations, wholes, strict=True
                )
            ],
            box_classes=[
                own.box_classes if mix is None else None for own, mix in zip(samples, mixes, strict=True)
            ],
            box_confidence=[
                own.box_confidence if mix is None else None for own, mix in zip(samples, mixes, strict=True)
            ],
            foreground=foreground,
            holds=None
            if foreground is None
            else lambda image, regions: foreground.holds(image, in_frame(image, regions)),
            samples=samples,
            augmentations=augmentations,
            pastes=pastes,
            stored=stored,
        )

    def frame(self, region: _Region) -> _Region:
        """The rectangle that is classified: the window, or the square that it is squashed to."""
        side = self.config.squash
        return region if side is None else (0, 0, side, side)

    def pyramid(self, source: Any) -> Pyramid:
        """An open image."""
        return self._images.take(source).pyramid

    def rescale(self, config: InputConfig) -> None:
        """Use another rule for values from now on."""
        self.close()
        self.config = config
        self._images = self._pool()

    def close(self) -> None:
        """Close every image."""
        self._forget_mixed()
        self._images.close()

    def _pool(self) -> ImagePool:
        return ImagePool(
            self.config, threads=self.threads, most=MOST_OPEN, cache_bytes=CACHE_BYTES, scales=self._scales
        )

    def _skip(self, why: HiresattnError) -> None:
        if self.on_skip is None:
            raise why
        self.on_skip(why)

    def _roots(self, frame: _Region) -> np.ndarray:
        y, x, height, width = frame
        return root_regions(height, width, y, x, root_size=self.root_size, overlap=self.overlap)

    def _read_ahead(self, upcoming: Sequence[Sample]) -> None:
        if self.config.squash is None:
            images = (image for sample in upcoming for image in sample.images)
            self._images.expect((own.example.source, self._roots(own.region)) for own in images)

    def _readers(
        self, samples: Sequence[Sample], augmentations: Sequence[Augmentation]
    ) -> tuple[_Read, _Read]:
        """What reads the images of a batch with what is pasted into them; and the donors alone."""
        self._forget_mixed()
        sources = [sample.example.source for sample in samples]
        mixes = [one.cutmix for one in augmentations]
        self._images.begin([*sources, *(mix.donor.example.source for mix in mixes if mix is not None)])
        shown, alone = [], []
        for row, (source, mix) in enumerate(zip(sources, mixes, strict=True)):
            try:
                host = self._images.take(source)
                if mix is None:
                    shown.append(host)
                    alone.append(host)
                else:
                    donor = self.pyramid(mix.donor.example.source)
                    shown.append(self._add_mixed(mix.pasted(host.pyramid, donor)))
                    alone.append(self._add_mixed(mix.clean(host.pyramid, donor)))
            except (OpenError, ReadError) as error:
                raise _UnreadableError(row, error) from error
        return self._reader(samples, shown), self._reader(samples, alone)

    def _reader(self, samples: Sequence[Sample], images: Sequence[OpenImage]) -> _Read:
        """What reads images, by row of the batch."""
        fetch: _Read = self._images.fetch
        numbers = np.array([image.number for image in images])
        if self.config.squash is not None:
            regions = [sample.region for sample in samples]
            fetch = squash_reader([image.pyramid for image in images], regions, self.config)
            numbers = np.arange(len(samples))

        def read(image: np.ndarray, regions: np.ndarray) -> Crops:
            try:
                return fetch(numbers[image], regions)
            except (OpenError, ReadError) as error:
                rows = np.flatnonzero(numbers == error.image).tolist() or image.tolist()
                raise _UnreadableError(rows[0], error) from error

        return read

    def _add_mixed(self, pyramid: Pyramid) -> OpenImage:
        self._mixed.append(self._images.fetcher.add(pyramid))
        return OpenImage(pyramid, self._mixed[-1])

    def _forget_mixed(self) -> None:
        """Let go of the mixed images of the last batch."""
        while self._mixed:
            self._images.fetcher.remove(self._mixed.pop())
