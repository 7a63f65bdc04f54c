"""From examples to batches: what to read, never more than that."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

import numpy as np

from hiresattn.config import InputConfig
from hiresattn.datasets.example import Example
from hiresattn.errors import HiresattnError, OpenError, ReadError
from hiresattn.geometry import Grid, check_region, depth_count, root_regions
from hiresattn.pyramid import Pyramid, open_pyramid
from hiresattn.reading.fetch import CropFetcher, Crops
from hiresattn.reading.prefetch import Held, OpenImages, source_key
from hiresattn.reading.squash import SquashFetcher, squashed, unsquashed
from hiresattn.training.augment import Change
from hiresattn.training.cutmix import Mix, Pastes, boxes_of, pastes_of
from hiresattn.training.samples import Item, box_classes_of, check_boxes, label_of

#: Images kept open, or as many as a batch has; the least recently used is closed first.
MOST_OPEN = 32
#: Bytes of decoded tiles kept over all open images.
CACHE_BYTES = 512 << 20


_Made = TypeVar("_Made")
_Reader = CropFetcher | SquashFetcher


class _UnreadableError(Exception):
    """Which image of a batch can't be read, and why."""

    def __init__(self, row: int, why: HiresattnError) -> None:
        super().__init__(str(why))
        self.row = row
        self.why = why


@dataclass(frozen=True)
class Batch:
    """What ``GlimpseNet.forward`` needs, and the labels."""

    fetch: Any
    roots: list[np.ndarray]
    frames: np.ndarray
    labels: np.ndarray
    """int64 ``[b]``, or of several labels ``[b c]``; see ``Item``."""
    boxes: list[np.ndarray | None]
    """Where the targets are, per image, as the network sees it; None = not known."""
    kinds: Sequence[np.ndarray | None] = ()
    """Class of each of them; see ``Item``."""
    items: Sequence[Item] = ()
    """What is in it."""
    changes: Sequence[Change] = ()
    """How each image is changed."""
    pastes: Pastes | None = None
    """What CutMix pasted into them; None = nothing."""
    stored: Callable[[np.ndarray, np.ndarray], np.ndarray] | None = None
    """``stored(image [n], regions [n 4])`` → where regions lie in the images as stored, level-0 px ``[n 4]``."""

    @property
    def main(self) -> np.ndarray:
        """The labels, per image; of a mixed one those of its larger part."""
        if self.pastes is None:
            return self.labels
        other = (self.pastes.share > 1 / 2).reshape(-1, *[1] * (self.labels.ndim - 1))
        return np.where(other, self.pastes.labels, self.labels)


class Loader:
    """Opens images when they are needed and hands out batches that read lazily.

    Args:
        config: How pixels become crops.
        grid: How regions are divided.
        finest: Side of the smallest region, level-0 px; None = a crop's side.
        root_size: Largest side of a region of the first look; None = the image's short side.
        overlap: Least share of its side that a region of the first look has in common with the next.
        threads: Threads that read.
        lost: Is told why an image can't be read, which is then left out; None = that is an error.
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
        lost: Callable[[HiresattnError], None] | None = None,
    ) -> None:
        self.config = config
        self.grid = grid
        self.finest = finest or config.size
        self.root_size = root_size
        self.overlap = overlap
        self.threads = threads
        self.lost = lost
        self._sources: set[str | int] = set()
        self._images = OpenImages(self._opened, MOST_OPEN)
        self._mixed: list[CropFetcher] = []

    def items(self, examples: Sequence[Example], classes: Sequence[str]) -> list[Item]:
        """Measure examples: every image is opened once, no pixel is read.

        Raises:
            ConfigError: If a label is missing or none of ``classes``, or a box lies outside its image.
            RegionError: If a window leaves its image.
            HiresattnError: If an image can't be opened or isn't what the model takes.
        """
        index = {name: i for i, name in enumerate(classes)}
        self._sources |= {source_key(example.source) for example in examples}
        made: list[Item] = []
        for number, example in enumerate(examples):
            label = label_of(example, index)
            try:
                pyramid = self.source(example.source)[0]
            except (OpenError, ReadError) as error:
                self._lose(error)
                continue
            region = example.region or (0, 0, pyramid.height, pyramid.width)
            check_region(region, pyramid.height, pyramid.width, pyramid.source)
            _, _, height, width = self.frame(region)
            roots = root_regions(height, width, root_size=self.root_size, overlap=self.overlap)
            depths = depth_count(roots, self.grid, self.finest)
            boxes = None if example.boxes is None else np.array(example.boxes, np.int64).reshape(-1, 4)
            check_boxes(example, pyramid)
            if boxes is not None and self.config.squash is not None:
                boxes = squashed(boxes, region, self.config.squash)
            coarse = min(region[2:]) / self.config.size
            step = max([round(has.downsample) for has in pyramid.levels if has.downsample <= coarse] or [1])
            name = str(example.source) if isinstance(example.source, str | Path) else f"array {number}"
            name = name if example.region is None else f"{name} {list(region)}"
            kinds = box_classes_of(example, label, index)
            made.append(Item(example, label, region, depths, len(roots), boxes, kinds, step, name))
        return made

    def attempt(
        self,
        items: Sequence[Item],
        work: Callable[[Batch], _Made],
        changes: Sequence[Change] | None = None,
    ) -> tuple[_Made | None, int]:
        """Do some work with a batch; where images may be lost, without those that can't be read.

        Args:
            items: What is in it.
            work: What to do; done again from its beginning where an image had to be left out.
            changes: See ``batch``.

        Returns:
            What the work made, None if no image was left; and how many were left out.

        Raises:
            HiresattnError: If an image can't be read, and none may be lost.
        """
        rows = list(range(len(items)))
        made = list(changes or [Change()] * len(items))
        while rows:
            try:
                batch = self.batch([items[row] for row in rows], [made[row] for row in rows])
                return work(batch), len(items) - len(rows)
            except _UnreadableError as error:
                row = rows[error.row]
                if made[row].mix is not None:  # perhaps it is the donor that can't be read
                    made[row] = made[row]._replace(mix=None)
                    continue
                self._images.forget(items[rows[error.row]].example.source)
                self._lose(error.why)
                del rows[error.row]
        return None, len(items)

    def batch(self, items: Sequence[Item], changes: Sequence[Change] | None = None) -> Batch:
        """A batch; reading happens in its ``fetch``.

        Args:
            items: What is in it.
            changes: How each is changed, at every depth; None = not at all. The network sees the turned image:
                its regions are of the turned frame. What was not measured stays 0.

        Returns:
            The batch.
        """
        changes = changes or [Change()] * len(items)
        turns = [change.turn for change in changes]
        mixes = [change.mix for change in changes]
        self._forget_mixed()
        fetchers, cleans = [], []
        at_once = len(items) + sum(mix is not None for mix in mixes)
        for row, (item, mix) in enumerate(zip(items, mixes, strict=True)):
            try:
                fetchers.append(self._fetcher(item, at_once, None if mix is None else mix.pasted, mix))
                cleans.append(fetchers[-1] if mix is None else self._fetcher(item, at_once, mix.clean, mix))
            except (OpenError, ReadError) as error:
                raise _UnreadableError(row, error) from error
        wholes = [self.frame(item.region) for item in items]
        frames = [turn.frame(whole) for turn, whole in zip(turns, wholes, strict=True)]
        size, bands, side = self.config.size, len(self.config.bands), self.config.squash
        ends = np.array(self.config.low, np.float32), np.array(self.config.high, np.float32)

        def laid(image: np.ndarray, regions: np.ndarray) -> np.ndarray:
            pairs = zip(image.tolist(), regions.tolist(), strict=True)
            return np.array([turns[i].stored(r, wholes[i]) for i, r in pairs], np.int64).reshape(-1, 4)

        def stored(image: np.ndarray, regions: np.ndarray) -> np.ndarray:
            out = laid(image, regions)
            if side is None:
                return out
            parts = zip(image.tolist(), out[:, None], strict=True)
            return np.concatenate([unsquashed(part, items[i].region, side) for i, part in parts])

        def fetch(image: np.ndarray, regions: np.ndarray, readers: Sequence[_Reader] = fetchers) -> Crops:
            pixels = np.empty((len(image), bands, size, size), np.float32)
            coverage = np.empty((len(image), size, size), np.float32)
            rows: dict[_Reader, list[int]] = {}
            where = laid(image, regions)
            for row, index in enumerate(image.tolist()):
                rows.setdefault(readers[index], []).append(row)
            for reader, mine in rows.items():
                try:
                    crops = reader(np.zeros(len(mine), np.int64), where[mine])
                except (OpenError, ReadError) as error:
                    raise _UnreadableError(int(image[mine[0]]), error) from error
                for row, seen, measured in zip(mine, *crops, strict=True):
                    turn = turns[image[row]]
                    pixels[row], coverage[row] = turn.crop(seen), turn.crop(measured)
            for row, index in enumerate(image.tolist()):
                change = changes[index]
                if change.tint is not None or change.jpeg is not None:
                    pixels[row] = np.where(coverage[row] > 0, change.colour(pixels[row], *ends), 0)
            return Crops(pixels, coverage)

        return Batch(
            fetch=fetch,
            roots=[
                root_regions(h, w, y, x, root_size=self.root_size, overlap=self.overlap)
                for y, x, h, w in frames
            ],
            frames=np.array(frames, np.int64),
            labels=np.array([item.label for item in items], np.int64),
            boxes=[
                None if boxes is None else turn.seen(boxes, whole)
                for boxes, turn, whole in zip(boxes_of(items, mixes, side), turns, wholes, strict=True)
            ],
            kinds=[item.kinds if mix is None else None for item, mix in zip(items, mixes, strict=True)],
            items=items,
            changes=changes,
            pastes=pastes_of(
                items, changes, wholes, side, lambda image, regions: fetch(image, regions, cleans)
            ),
            stored=stored,
        )

    def frame(self, region: tuple[int, int, int, int]) -> tuple[int, int, int, int]:
        """What the network takes for the whole: the window, or the square that it is squashed to."""
        side = self.config.squash
        return region if side is None else (0, 0, side, side)

    def _lose(self, why: HiresattnError) -> None:
        if self.lost is None:
            raise why
        self.lost(why)

    def _fetcher(
        self,
        item: Item,
        at_once: int,
        mixed: Callable[[Pyramid, Pyramid], Pyramid] | None = None,
        mix: Mix | None = None,
    ) -> _Reader:
        pyramid, fetcher = self.source(item.example.source, at_once)
        if mixed is not None and mix is not None:
            pyramid = mixed(pyramid, self.source(mix.donor.example.source, at_once)[0])
            share = CACHE_BYTES // (2 * at_once)
            fetcher = CropFetcher([pyramid], self.config, threads=self.threads, cache_bytes=share)
            self._mixed.append(fetcher)
        if self.config.squash is None:
            return fetcher
        return SquashFetcher(pyramid, self.config, item.region)

    def rescale(self, config: InputConfig) -> None:
        """Take another rule for values from now on."""
        self.close()
        self.config = config

    def expect(self, items: Sequence[Item], meanwhile: Sequence[Item]) -> None:
        """Have first looks at the next batch, probably ``items``, read while this one is worked on.

        Memory holds the next batch's images beside those kept open, and its first crops. With one thread, or
        images read whole, nothing is read ahead.
        """
        if self.threads < 2 or self.config.squash is not None:
            return
        looks = []
        for item in items:
            y, x, height, width = item.region
            roots = root_regions(height, width, y, x, root_size=self.root_size, overlap=self.overlap)
            looks.append((item.example.source, roots))
        self._images.expect(looks, [item.example.source for item in meanwhile])

    def source(self, source: Any, at_once: int = 1) -> tuple[Pyramid, CropFetcher]:
        """An open image and its fetcher; ``at_once`` images are needed open together."""
        return self._images.take(source, at_once)

    def _opened(self, source: Any, at_once: int) -> Held:
        pyramid = open_pyramid(source)
        share = CACHE_BYTES // max(min(len(self._sources), max(MOST_OPEN, at_once)), 1)
        fetcher = CropFetcher([pyramid], self.config, threads=self.threads, cache_bytes=share)
        return Held(pyramid, fetcher)

    def _forget_mixed(self) -> None:
        """Let go of what the last batch mixed."""
        while self._mixed:
            self._mixed.pop().close()

    def close(self) -> None:
        """Close every image."""
        self._forget_mixed()
        self._images.close()
