"""How many finest regions an image has, and whether they cover it. NumPy only."""

import numpy as np


def place_count(height: int, width: int, finest: int, overlap: float = 0.0) -> int:
    """How many finest regions cover a rectangle, spread evenly, without listing them."""
    side = min(height, width, finest)
    step = max(round(side * (1 - overlap)), 1)
    return (-(-(height - side) // step) + 1) * (-(-(width - side) // step) + 1)


def covered(regions: np.ndarray, frame: np.ndarray, finest: int) -> bool:
    """Whether regions cover a frame, by blocks of a quarter of ``finest`` px that lie in one region each."""
    block = max(finest // 4, 1)
    shape = -(-frame[2:] // block)
    corners = np.zeros((shape[0] + 1, shape[1] + 1), np.int32)
    start = -(-(regions[:, :2] - frame[:2]) // block)
    stop = regions[:, :2] + regions[:, 2:] - frame[:2]
    stop = np.where(stop >= frame[2:], shape, stop // block)
    start, stop = np.clip(start, 0, shape), np.clip(stop, 0, shape)
    stop = np.maximum(stop, start)
    for row, column, sign in ((start, start, 1), (start, stop, -1), (stop, start, -1), (stop, stop, 1)):
        np.add.at(corners, (row[:, 0], column[:, 1]), sign)
    return bool((corners.cumsum(0).cumsum(1)[:-1, :-1] > 0).all())
