"""Scenes that are drawn at any resolution: the same nuclei on the same texture, as finer and coarser scanners see them.

All scenes have scattered small nuclei and dense patches, of large or of small ones that cover the same area: from afar
the classes look alike. Small nuclei at twice the resolution look, px for px, like large ones.
"""

import numpy as np

from hiresattn.datasets.example import Example
from hiresattn.pyramid.area import area_means
from hiresattn.pyramid.array import ArrayPyramid

#: Side of a scene, its texture's grain, and the spread of a patch, µm.
SIDE, GRAIN, SPREAD = 256.0, 4.0, 14.0
#: Class → radius of the patch's nuclei, µm. The scattered ones have the smaller.
RADIUS = {"large": 9.0, "small": 3.0}
#: Patches, nuclei scattered, and the area of those of a patch, µm².
PATCHES, SCATTERED, AREA = 3, 15, 800.0
#: Levels are stored down to this side, px.
LEAST = 48


class Scene:
    """One scene, by its number: what is where, in µm.

    Args:
        number: Even ones are ``large``.
        seed: Of the whole set.
    """

    def __init__(self, number: int, seed: int) -> None:
        rng = np.random.default_rng([seed, number])
        self.label = list(RADIUS)[number % 2]
        radius = RADIUS[self.label]
        self.centres = rng.uniform(40, SIDE - 40, (PATCHES, 2))
        many = round(AREA / (np.pi * radius**2))
        patch = rng.normal(self.centres[:, None], SPREAD, (PATCHES, many, 2)).reshape(-1, 2)
        scattered = rng.uniform(0, SIDE, (SCATTERED, 2))
        self.nuclei = [(*place, radius) for place in patch] + [
            (*place, RADIUS["small"]) for place in scattered
        ]
        self.texture = rng.normal(0, 7, (round(SIDE / GRAIN) + 2,) * 2)

    def drawn(self, mpp: float) -> np.ndarray:
        """The scene as px of some size, uint8 ``[h w 1]``."""
        side = round(SIDE / mpp)
        at = (np.arange(side) + 0.5) * mpp / GRAIN
        low = at.astype(np.int64)
        part = at - low
        rows = self.texture[low] * (1 - part)[:, None] + self.texture[low + 1] * part[:, None]
        image = 200 + rows[:, low] * (1 - part) + rows[:, low + 1] * part
        for y, x, radius in self.nuclei:
            reach = radius + 2 * mpp
            top, left = (max(int((place - reach) / mpp), 0) for place in (y, x))
            bottom, right = (min(int((place + reach) / mpp) + 2, side) for place in (y, x))
            if top >= bottom or left >= right:
                continue
            down, across = ((np.arange(*span) + 0.5) * mpp for span in ((top, bottom), (left, right)))
            away = np.hypot(down[:, None] - y, across - x)
            cover = np.clip((radius - away) / mpp + 0.5, 0, 1)  # of a px that the edge cuts
            image[top:bottom, left:right] -= 90 * cover
        return image.clip(0, 255).astype(np.uint8)[:, :, None]

    def example(self, mpp: float, split: str, *, known: bool = True) -> Example:
        """The scene stored with px of some size, each level the 2 x 2 means of the one before.

        Args:
            mpp: Micrometres per px.
            split: Of the data set.
            known: Whether the file says its scale.
        """
        levels = [self.drawn(mpp)]
        while min(levels[-1].shape[:2]) >= 2 * LEAST:
            edges = np.arange(levels[-1].shape[0] // 2 + 1) * 2.0
            means, _ = area_means(levels[-1], None, edges, edges)
            levels.append(np.rint(means).astype(np.uint8))
        start = (self.centres - 1.5 * SPREAD) / mpp
        side = round(3 * SPREAD / mpp)
        boxes = tuple((round(y), round(x), side, side) for y, x in start.tolist())
        pyramid = ArrayPyramid(levels, f"scene at {mpp:.3g}", mpp=mpp if known else None)
        return Example(pyramid, self.label, split, boxes=boxes)
