"""From examples to batches: what to read, never more than that."""

from collections import OrderedDict
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from hiresattn.checkpoint import Domain
from hiresattn.config import InputConfig
from hiresattn.errors import ConfigError
from hiresattn.fetch import CropFetcher, Crops
from hiresattn.geometry import Grid, check_region, depth_count, root_regions
from hiresattn.manifest import Example
from hiresattn.predict import resolution
from hiresattn.pyramid import Pyramid, open_pyramid

#: Images kept open; the least recently used is closed first.
MOST_OPEN = 32
#: Images looked at to learn what the training images are like.
SAMPLE = 64


@dataclass(frozen=True)
class Item:
    """One labelled example, measured."""

    example: Example
    label: int
    region: tuple[int, int, int, int]
    depths: int
    """Depths from the whole down to native resolution."""


@dataclass(frozen=True)
class Batch:
    """What ``GlimpseNet.forward`` needs, and the labels."""

    fetch: Any
    roots: list[np.ndarray]
    frames: np.ndarray
    labels: np.ndarray


class Loader:
    """Opens images when they are needed and hands out batches that read lazily.

    Args:
        config: How pixels become crops.
        grid: How regions are divided.
        threads: Threads that read.
    """

    def __init__(self, config: InputConfig, grid: Grid, *, threads: int) -> None:
        self.config = config
        self.grid = grid
        self.threads = threads
        self._open: OrderedDict[Any, tuple[Pyramid, CropFetcher]] = OrderedDict()

    def items(self, examples: Sequence[Example], classes: Sequence[str]) -> list[Item]:
        """Measure examples: every image is opened once, no pixel is read.

        Raises:
            ConfigError: If a label is missing or none of ``classes``.
            RegionError: If a window leaves its image.
            HiresattnError: If an image can't be opened or isn't what the model takes.
        """
        index = {name: i for i, name in enumerate(classes)}
        made = []
        for example in examples:
            if example.label not in index:
                raise ConfigError(
                    f"{example.source}: label {example.label!r} is none of the classes {', '.join(classes)}"
                )
            pyramid = self.source(example.source)[0]
            region = example.region or (0, 0, pyramid.height, pyramid.width)
            check_region(region, pyramid.height, pyramid.width, pyramid.source)
            depths = depth_count(region[2], region[3], self.grid, self.config.size)
            made.append(Item(example, index[example.label], region, depths))
        return made

    def batch(self, items: Sequence[Item]) -> Batch:
        """A batch; reading happens in its ``fetch``."""
        fetchers = [self.source(item.example.source)[1] for item in items]
        size, bands = self.config.size, len(self.config.bands)

        def fetch(image: np.ndarray, regions: np.ndarray) -> Crops:
            pixels = np.empty((len(image), bands, size, size), np.float32)
            coverage = np.empty((len(image), size, size), np.float32)
            rows: dict[CropFetcher, list[int]] = {}
            for row, index in enumerate(image.tolist()):
                rows.setdefault(fetchers[index], []).append(row)
            for fetcher, mine in rows.items():
                crops = fetcher(np.zeros(len(mine), np.int64), regions[mine])
                pixels[mine], coverage[mine] = crops
            return Crops(pixels, coverage)

        return Batch(
            fetch=fetch,
            roots=[root_regions(h, w, y, x) for y, x, h, w in (item.region for item in items)],
            frames=np.array([item.region for item in items], np.int64),
            labels=np.array([item.label for item in items], np.int64),
        )

    def domain(self, items: Sequence[Item]) -> Domain:
        """What the images are like, from first glances at a sample of them."""
        sample = [items[i] for i in np.unique(np.linspace(0, len(items) - 1, SAMPLE).astype(int))]
        means, scales, grounds = [], [], []
        for item in sample:
            batch = self.batch([item])
            crops = batch.fetch(np.zeros(len(batch.roots[0]), np.int64), batch.roots[0])
            weight = crops.coverage.sum()
            if weight:
                means.append((crops.pixels * crops.coverage[:, None]).sum((0, 2, 3)) / weight)
            pyramid = self.source(item.example.source)[0]
            scales.append(pyramid.mpp)
            grounds.append(resolution(pyramid))
        low, high = np.array(self.config.low), np.array(self.config.high)
        native = (np.array(means) + 1) / 2 * (high - low) + low
        return Domain(
            mpp=_span(scales),
            resolution=_span(grounds),
            low=tuple(native.min(0).tolist()) if means else None,
            high=tuple(native.max(0).tolist()) if means else None,
        )

    def source(self, source: Any) -> tuple[Pyramid, CropFetcher]:
        """An open image and its fetcher."""
        key = source if isinstance(source, str) else id(source)
        if key in self._open:
            self._open.move_to_end(key)
            return self._open[key]
        while len(self._open) >= MOST_OPEN:
            _, old = self._open.popitem(last=False)
            _close(old)
        pyramid = open_pyramid(source)
        # In-process pyramids need no threads, and read what they need anew as fast as a cache would.
        self._open[key] = (pyramid, CropFetcher([pyramid], self.config, threads=self.threads))
        return self._open[key]

    def close(self) -> None:
        """Close every image."""
        for held in self._open.values():
            _close(held)
        self._open.clear()


def _close(held: tuple[Pyramid, CropFetcher]) -> None:
    pyramid, fetcher = held
    fetcher.close()
    pyramid.close()


def _span(values: Sequence[float | None]) -> tuple[float, float] | None:
    known = [v for v in values if v is not None]
    return (min(known), max(known)) if known else None
