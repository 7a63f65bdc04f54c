"""Where an image has foreground, found on the crops of its root regions."""

from collections.abc import Sequence
from dataclasses import replace
from typing import Any, NamedTuple

import numpy as np

from hiresattn.config import InputConfig
from hiresattn.errors import ConfigError
from hiresattn.geometry import root_regions
from hiresattn.pyramid import Pyramid, open_pyramid
from hiresattn.reading.decode import FetchStats
from hiresattn.reading.estimate import check_first_look
from hiresattn.reading.fetch import CropFetcher, Crops
from hiresattn.reading.tissue import tissue_mask
from hiresattn.shapes import Bool, Float, Int64, UInt8

#: Px of a map; the crops of many root regions are averaged down to that.
MOST_PX = 1 << 24
#: Foreground that a region holds, as a share of itself, and px of the map that are enough however large it is.
LEAST, ENOUGH = 0.07, 2.0
#: As a share of a px of the map, of regions that are as small: of four that share one, one has a quarter or more.
LEAST_OF_PX = 0.2
#: Images with px of less than this are slides, µm.
SLIDE_MPP = 20.0
#: Side of the crops of an overview, px.
OVERVIEW = 512
#: Foreground below which there is none but for rounding, px of the map.
_ANY = 1e-6
#: Px of a mask along a side that are read at most, where it stores coarser levels.
_MASK_SIDE = 4096


class Foreground:
    """Where one image has foreground, by the crops of its root regions.

    Its map has one px per px of these crops, so what is much smaller than that may be missed; a region holds foreground
    where at least a share of it is, or some px of the map are.

    Args:
        roots: Root regions ``[r 4]``, level-0 px.
        config: How their px became crops.
    """

    def __init__(self, roots: Int64[np.ndarray, "r 4"], config: InputConfig) -> None:
        self._config = config
        self._waiting = set(map(tuple, np.asarray(roots).tolist()))
        least = np.sqrt(len(roots) * config.size**2 / MOST_PX)
        self._step = next(n for n in range(1, config.size + 1) if config.size % n == 0 and n >= least)
        self._regions: list[np.ndarray] = []
        self._pixels: list[np.ndarray] = []
        self._valid: list[np.ndarray] = []
        self._map: _Map | None = None
        self._least = 1.0
        self.read: FetchStats | None = None
        """What was read for it alone."""

    @classmethod
    def of_mask(
        cls,
        mask: Bool[np.ndarray, "h w"],
        rectangle: tuple[float, float, float, float],
        config: InputConfig,
        least: float = 1,
    ) -> "Foreground":
        """Foreground by a mask of a rectangle ``(y, x, height, width)``, level-0 px.

        ``least``: how much of what a region must otherwise hold is enough; 0 = any.
        """
        made = cls(np.zeros((0, 4), np.int64), config)
        made._least = least
        made._map = _Map.of(np.array([rectangle], np.float64), mask[None], np.ones((1, *mask.shape), bool))
        return made

    @property
    def waiting(self) -> bool:
        """Whether root regions are still to come."""
        return bool(self._waiting)

    def add(self, regions: Int64[np.ndarray, "n 4"], crops: Crops) -> None:
        """Take in crops; those of root regions count, each once."""
        rows = [row for row, region in enumerate(regions.tolist()) if tuple(region) in self._waiting]
        if not rows:
            return
        self._waiting -= set(map(tuple, regions[rows].tolist()))
        self._regions.append(regions[rows])
        self._pixels.append(_averaged(displayed(crops.pixels[rows], self._config), self._step))
        self._valid.append(_averaged(crops.coverage[rows], self._step) >= 1 / 2)
        self._map = None

    def holds(self, regions: Int64[np.ndarray, "n 4"]) -> Bool[np.ndarray, " n"]:
        """Which regions hold foreground."""
        held, own = self._made().areas(np.asarray(regions, np.int64).reshape(-1, 4))
        enough = np.clip(LEAST * own, LEAST_OF_PX * np.minimum(own, 1), ENOUGH)
        return held >= np.maximum(self._least * enough, _ANY)

    @property
    def share(self) -> float:
        """Share of the measured part of the image that is foreground, 0 to 1."""
        return self._made().share

    def share_in(self, regions: Int64[np.ndarray, "n 4"]) -> float:
        """Share of the foreground that lies in at least one of these regions, 0 to 1; 0 if there is none."""
        return self._made().share_in(np.asarray(regions, np.int64))

    def _made(self) -> "_Map":
        """The map of what was taken in so far."""
        if self._map is None:
            if self._regions:
                pixels, valid = np.concatenate(self._pixels), np.concatenate(self._valid)
                self._map = _Map.of(np.concatenate(self._regions), tissue_mask(pixels, valid), valid)
            else:
                none = np.zeros((0, 1, 1), bool)
                self._map = _Map.of(np.zeros((0, 4), np.int64), none, none)
        return self._map


class Foregrounds:
    """Where several images have foreground, by their index."""

    def __init__(self, images: Sequence[Foreground]) -> None:
        self.images = images

    def add(self, image: Int64[np.ndarray, " n"], regions: Int64[np.ndarray, "n 4"], crops: Crops) -> None:
        """Take in crops of images; see ``Foreground.add``."""
        for index in np.unique(image).tolist():
            if self.images[index].waiting:
                rows = image == index
                self.images[index].add(regions[rows], Crops(crops.pixels[rows], crops.coverage[rows]))

    def holds(
        self, image: Int64[np.ndarray, " n"], regions: Int64[np.ndarray, "n 4"]
    ) -> Bool[np.ndarray, " n"]:
        """Which regions of images hold foreground."""
        held = np.zeros(len(image), bool)
        for index in np.unique(image).tolist():
            held[image == index] = self.images[index].holds(regions[image == index])
        return held


class _Map(NamedTuple):
    """Foreground in the frame of level 0."""

    mask: Bool[np.ndarray, "h w"]
    sums: Float[np.ndarray, "h+1 w+1"]
    """Of the px above and left."""
    origin: Float[np.ndarray, " 2"]
    """Level-0 px."""
    side: Float[np.ndarray, " 2"]
    """Height and width of a px of the map, level-0 px."""
    share: float
    """Of the measured px."""

    @classmethod
    def of(
        cls,
        regions: Int64[np.ndarray, "r 4"],
        masks: Bool[np.ndarray, "r s s"],
        valid: Bool[np.ndarray, "r s s"],
    ) -> "_Map":
        """Lay the masks of regions of one size side by side; where they overlap, foreground counts."""
        if not len(regions):
            return cls(np.zeros((1, 1), bool), np.zeros((2, 2)), np.zeros(2), np.ones(2), 0.0)
        size = np.array(masks.shape[1:])
        side = regions[0, 2:] / size
        origin = regions[:, :2].min(axis=0)
        starts = np.rint((regions[:, :2] - origin) / side).astype(np.int64)
        whole = starts.max(axis=0) + size
        mask, measured = np.zeros(whole, bool), np.zeros(whole, bool)
        for (row, column), own, has in zip(starts.tolist(), masks, valid, strict=True):
            part = np.s_[row : row + size[0], column : column + size[1]]
            mask[part] |= own
            measured[part] |= has
        sums = np.zeros(whole + 1)
        sums[1:, 1:] = mask.cumsum(axis=0).cumsum(axis=1)
        return cls(mask, sums, origin.astype(np.float64), side, float(mask.sum() / max(measured.sum(), 1)))

    def areas(
        self, regions: Int64[np.ndarray, "n 4"]
    ) -> tuple[Float[np.ndarray, " n"], Float[np.ndarray, " n"]]:
        """Foreground of regions, and their own areas, px of the map."""
        start = (regions[:, :2] - self.origin) / self.side
        stop = (regions[:, :2] + regions[:, 2:] - self.origin) / self.side
        (top, left), (bottom, right) = start.T, stop.T
        inside = (
            self._sum(bottom, right) - self._sum(top, right) - self._sum(bottom, left) + self._sum(top, left)
        )
        return inside, (stop - start).prod(axis=1)

    def share_in(self, regions: Int64[np.ndarray, "n 4"]) -> float:
        """Share of the foreground in regions; px that several cover in part count as if these parts were apart."""
        covered = np.zeros(self.mask.shape)
        start = (regions[:, :2] - self.origin) / self.side
        stop = (regions[:, :2] + regions[:, 2:] - self.origin) / self.side
        for (top, left), (bottom, right) in zip(start.tolist(), stop.tolist(), strict=True):
            rows = np.arange(max(int(top), 0), min(int(np.ceil(bottom)), self.mask.shape[0]))
            columns = np.arange(max(int(left), 0), min(int(np.ceil(right)), self.mask.shape[1]))
            down = np.minimum(rows + 1, bottom) - np.maximum(rows, top)
            across = np.minimum(columns + 1, right) - np.maximum(columns, left)
            covered[np.ix_(rows, columns)] += np.outer(down, across)
        total = int(self.mask.sum())
        return float(np.minimum(covered[self.mask], 1).sum() / total) if total else 0.0

    def _sum(self, y: Float[np.ndarray, " n"], x: Float[np.ndarray, " n"]) -> Float[np.ndarray, " n"]:
        """Foreground above and left of points, px of the map, in-between ones interpolated."""
        height, width = self.mask.shape
        y, x = y.clip(0, height), x.clip(0, width)
        row, column = np.minimum(y.astype(np.int64), height - 1), np.minimum(x.astype(np.int64), width - 1)
        down, across = y - row, x - column
        upper = self.sums[row, column] * (1 - across) + self.sums[row, column + 1] * across
        lower = self.sums[row + 1, column] * (1 - across) + self.sums[row + 1, column + 1] * across
        return upper * (1 - down) + lower * down


def is_slide(pyramid: Pyramid, mpp: float | None = None) -> bool:
    """Whether an image is taken for a slide: three bands of uint8, a known size of a px below ``SLIDE_MPP``, no CRS.

    Args:
        pyramid: The image.
        mpp: Micrometres per px, in place of what the image says.
    """
    mpp = mpp or pyramid.mpp
    rgb = str(pyramid.dtype) == "uint8" and pyramid.channels == len("RGB")
    return rgb and pyramid.crs is None and mpp is not None and mpp < SLIDE_MPP


def overview(
    pyramid: Pyramid, region: tuple[int, int, int, int], config: InputConfig, *, threads: int = 1
) -> Foreground:
    """The foreground of a region by a coarse view of it, read for that: for what looks at every finest region.

    Args:
        pyramid: The image.
        region: ``(y, x, height, width)``, level-0 px.
        config: How its px become values; crops are larger here.
        threads: Threads that read.

    Raises:
        HiresattnError: If it can't be read, or decoding it would be out of proportion to its size.
    """
    y, x, height, width = region
    rule = replace(config, size=min(OVERVIEW, height, width), squash=None, filter="area")
    roots = root_regions(height, width, y, x)
    check_first_look(pyramid, roots, rule)
    found = Foreground(roots, rule)
    with CropFetcher([pyramid], rule, threads=threads) as fetch:
        for root in roots:
            found.add(root[None], fetch(np.zeros(1, np.int64), root[None]))
        found.read = fetch.stats[0]
    return found


def read_mask(source: Any, pyramid: Pyramid) -> Bool[np.ndarray, "h w"]:
    """The px above 0 of an image that masks the whole of another, at its coarsest stored level that is fine enough.

    Args:
        source: The mask: one band, of any size, in the proportions of the image.
        pyramid: The image.

    Raises:
        ConfigError: If it has several bands or other proportions.
        HiresattnError: If it can't be read.
    """
    with open_pyramid(source) as mask:
        if mask.channels != 1:
            raise ConfigError(f"{mask.source}: a mask has one band, and this image has {mask.channels}")
        ratio = mask.width / mask.height / (pyramid.width / pyramid.height)
        if abs(ratio - 1) > max(1 / min(mask.width, mask.height), 0.01):  # rounded sides
            raise ConfigError(
                f"{mask.source}: a mask shows the whole image, and {mask.height} x {mask.width} px have other "
                f"proportions than the {pyramid.height} x {pyramid.width} px of {pyramid.source}"
            )
        number = next(
            (n for n, one in enumerate(mask.levels) if max(one.width, one.height) <= _MASK_SIDE),
            len(mask.levels) - 1,
        )
        level = mask.levels[number]
        return np.asarray(mask.read(number, 0, 0, level.height, level.width)[..., 0] > 0)


def displayed(pixels: Float[np.ndarray, "n c s s"], config: InputConfig) -> UInt8[np.ndarray, "n s s c"]:
    """Crops as they would be shown: stored values of uint8 images; else the range that the model was trained with."""
    values = pixels.transpose(0, 2, 3, 1)
    if config.dtype == "uint8":
        low, high = np.array(config.low), np.array(config.high)
        values = (values + 1) / 2 * (high - low) + low
    else:
        values = (values + 1) * 127.5
    return np.rint(values).clip(0, 255).astype(np.uint8)


def _averaged(values: np.ndarray, step: int) -> np.ndarray:
    """Means of blocks of ``step x step`` px of ``[n h w ...]``, in its data type."""
    if step == 1:
        return values
    height, width = (side // step for side in values.shape[1:3])
    blocks = values[:, : height * step, : width * step]
    blocks = blocks.reshape(len(values), height, step, width, step, *values.shape[3:])
    return blocks.mean(axis=(2, 4)).astype(values.dtype)
