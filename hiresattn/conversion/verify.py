"""Read a written image back, and compare it with what it was made from."""

from dataclasses import dataclass
from pathlib import Path

import numpy as np

from hiresattn.conversion.image import Image
from hiresattn.errors import HiresattnError, WriteError
from hiresattn.pyramid import Pyramid, open_pyramid

#: Windows of level 0, and of each other level, that are compared.
_WINDOWS, _PER_LEVEL = 16, 4

#: Side of a window, level-0 px (as far as one px of its level isn't more).
_SIDE, _AREA = 256, 512

#: Side of what is read at once for an average, px; a power of two, so that px of a level aren't parted.
_STEP = 1024

#: How far a band's mean over a window may be off after lossy compression, grey levels.
_LOSSY = 4.0


@dataclass(frozen=True, slots=True)
class Checked:
    """What was compared."""

    windows: int
    """Windows compared."""
    largest_error: float
    """Largest difference of a px of a level from the mean of the level-0 px that it shows, in their units."""


def verify(image: Image, path: Path, target: Path, count: int, *, lossy: bool, seed: int = 0) -> Checked:
    """Open a written file as any other, and compare its metadata and windows of every level.

    Args:
        image: What was written.
        path: The file or directory.
        target: What it will be called, for messages.
        count: Levels written.
        lossy: Whether values may have changed a little.
        seed: Which windows.

    Raises:
        WriteError: If it can't be read, or differs.
        ReadError: If the source can't be read any more.
    """
    try:
        with open_pyramid(path) as written:
            _compare_metadata(image, written, count)
            return _compare_pixels(image, written, np.random.default_rng(seed), lossy=lossy)
    except HiresattnError as error:
        if not isinstance(error, WriteError) and str(path) not in str(error):  # the source's
            raise
        message = str(error).replace(str(path), "it")
        raise WriteError(
            f"{target}: what was written is not what was read ({message}); nothing was left there"
        ) from error


def _compare_metadata(image: Image, written: Pyramid, count: int) -> None:
    source = image.pyramid
    pairs = {
        "size": ((image.height, image.width), (written.height, written.width)),
        "levels": (count, len(written.levels)),
        "bands": (image.channels, written.channels),
        "type": (image.dtype, written.dtype),
        "nodata": (str(image.mark), str(None if written.nodata is None else float(written.nodata))),
        "having a CRS": (source.crs is not None, written.crs is not None),
    }
    if image.mark is not None:
        pairs["nodata"] = (str(float(image.mark)), pairs["nodata"][1])
    for what, (meant, found) in pairs.items():
        if meant != found:
            raise WriteError(f"another {what}: {found} in place of {meant}")
    if not _close(image.transform, written.transform):
        raise WriteError(f"another transform: {written.transform} in place of {image.transform}")
    if source.mpp is not None and not _close((source.mpp,), (written.mpp,)):
        raise WriteError(f"another scale: {written.mpp} in place of {source.mpp} um per px")


def _close(meant: tuple[float, ...] | None, found: tuple[float | None, ...] | None) -> bool:
    if meant is None or found is None or None in found:
        return meant is found
    return bool(np.allclose(meant, np.array(found, float), rtol=1e-6, atol=0))


def _compare_pixels(image: Image, written: Pyramid, random: np.random.Generator, *, lossy: bool) -> Checked:
    worst, windows = 0.0, 0
    for level, has in enumerate(written.levels):
        factor = 2**level
        side = _SIDE if level == 0 else max(_AREA // factor, 1)
        height, width = min(side, has.height), min(side, has.width)
        for nth in range(_WINDOWS if level == 0 else _PER_LEVEL):
            # The first window is the lower right corner, where sides are rounded.
            y = int(random.integers(has.height - height + 1)) if nth else has.height - height
            x = int(random.integers(has.width - width + 1)) if nth else has.width - width
            found = written.read_by_band(level, y, x, height, width)
            valid = np.ones(found.data.shape, bool)
            if found.valid is not None:
                valid &= found.valid if found.valid.ndim == 3 else found.valid[:, :, None]
            mean, measured = _means(image, factor, y, x, height, width)
            where = f"level {level}, rows {y} to {y + height}, columns {x} to {x + width}"
            if found.missing_tiles or not np.array_equal(valid, measured):
                raise WriteError(f"other pixels are marked as measured, {where}")
            for band in range(image.channels):
                here = valid[:, :, band]
                if here.any():
                    values, means = found.data[:, :, band][here], mean[:, :, band][here]
                    worst = max(worst, _difference(values, means, level, where, lossy=lossy))
            windows += 1
    return Checked(windows, 0.0 if lossy else worst)


def _difference(found: np.ndarray, meant: np.ndarray, level: int, where: str, *, lossy: bool) -> float:
    """Largest difference of values ``[n]``; an error if it is more than rounding."""
    found = found.astype(np.float64)
    error = float(np.abs(found - meant).max())
    if lossy:
        wrong = abs(float(found.mean() - meant.mean())) > _LOSSY
    elif level == 0:
        wrong = error > 0
    else:
        size = float(np.abs(meant).max())
        # Half a grey level for whole numbers, or one where the average would have looked like nodata.
        wrong = error > 1 + 1e-6 if np.all(found == np.rint(found)) else error > 1e-3 * size + 1e-30
    if wrong:
        raise WriteError(f"values differ by {error:g}, {where}")
    return error


def _means(
    image: Image, factor: int, y: int, x: int, height: int, width: int
) -> tuple[np.ndarray, np.ndarray]:
    """Means ``[h w c]`` over ``factor`` x ``factor`` px of the source, and where there are any (``[h w c]``).

    The plain way: the oracle of the streaming one.
    """
    total = np.zeros((height, width, image.channels))
    weight = np.zeros((height, width, image.channels))
    top, left = y * factor, x * factor
    bottom, right = min((y + height) * factor, image.height), min((x + width) * factor, image.width)
    for row in range(top, bottom, _STEP):
        for column in range(left, right, _STEP):
            data, valid = image.read(row, column, min(_STEP, bottom - row), min(_STEP, right - column))
            ones = (
                np.ones((1, *data.shape[1:]), bool) if valid is None else np.broadcast_to(valid, data.shape)
            )
            values = data if valid is None else np.where(ones, data, data.dtype.type(0))
            for sums, parts in ((total, _sums(values, factor)), (weight, _sums(ones, factor))):
                first, second = (row - top) // factor, (column - left) // factor
                sums[first : first + parts.shape[0], second : second + parts.shape[1]] += parts
    measured = weight > 0
    return np.divide(total, weight, where=measured, out=total), measured


def _sums(values: np.ndarray, factor: int) -> np.ndarray:
    """Sums ``[h w c]`` over ``factor`` x ``factor`` px of ``[c h w]``, fewer at the lower and right edge."""
    height, width = (-(-side // factor) for side in values.shape[1:])
    spare = height * factor - values.shape[1], width * factor - values.shape[2]
    if any(spare):
        values = np.pad(values, ((0, 0), (0, spare[0]), (0, spare[1])))
    exact = np.int64 if values.dtype.kind in "bui" and values.dtype.itemsize < 8 else np.float64
    by_row = values.reshape(len(values), height, factor, -1).sum(2, dtype=exact)
    return np.moveaxis(by_row.reshape(len(values), height, width, factor).sum(3), 0, 2)
