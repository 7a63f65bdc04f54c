"""A level of a pyramid as a lazy Dask array."""

from pathlib import Path
from typing import Any

import numpy as np

from hiresattn.geometry import Level


def dask_level(pyramid: Any, has: Level, level: int) -> Any:
    """A ``dask.array.Array`` ``[h w c]`` of a pyramid's level, which is ``has``; its chunks are the tiles."""
    import dask.array as da
    from dask.base import tokenize

    return da.from_array(
        _LevelView(pyramid, level),
        chunks=(has.tile_height, has.tile_width, pyramid.channels),
        name=f"hiresattn-{tokenize(pyramid.source, pyramid.meta, level, _modified(pyramid.source))}",
        lock=False,
        meta=np.empty((0, 0, 0), pyramid.dtype),
    )


class _LevelView:
    """What ``dask.array.from_array`` needs: shape, dtype, ndim and slicing."""

    def __init__(self, pyramid: Any, level: int) -> None:
        self.pyramid = pyramid
        self.level = level
        has = pyramid.levels[level]
        self.shape = (has.height, has.width, pyramid.channels)
        self.dtype = pyramid.dtype
        self.ndim = 3

    def __getitem__(self, index: tuple[slice, slice, slice]) -> np.ndarray:
        (y, y_stop, _), (x, x_stop, _) = (
            part.indices(side) for part, side in zip(index[:2], self.shape[:2], strict=True)
        )
        if y_stop <= y or x_stop <= x:
            empty = (max(y_stop - y, 0), max(x_stop - x, 0), self.shape[2])
            return np.empty(empty, self.dtype)[:, :, index[2]]
        return self.pyramid.read(self.level, y, x, y_stop - y, x_stop - x)[:, :, index[2]]


def _modified(source: str) -> float | None:
    try:
        return Path(source).stat().st_mtime
    except OSError:
        return None
