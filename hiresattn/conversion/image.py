"""What is converted: a pyramid's finest level, or a region of it, as planes of numbers."""

from dataclasses import dataclass
from typing import Any

import numpy as np

from hiresattn.errors import ReadError
from hiresattn.geometry import check_region
from hiresattn.pyramid import Pyramid
from hiresattn.pyramid.pixels import taken_for


@dataclass(frozen=True)
class Image:
    """Level 0 of a pyramid, or a region of it, and how what isn't measured is written.

    A palette image counts as the colours that it shows: an average of indices means nothing.
    """

    pyramid: Pyramid
    """The source."""
    region: tuple[int, int, int, int]
    """``(y, x, height, width)``, level-0 px of the source."""
    mark: float | None
    """Nodata value in the data; None = a mask says what was measured."""

    @classmethod
    def of(
        cls, pyramid: Pyramid, region: tuple[int, int, int, int] | None = None, *, masked: bool = False
    ) -> "Image":
        """The image of a pyramid.

        Args:
            pyramid: The source.
            region: ``(y, x, height, width)``, level-0 px; None = all of it.
            masked: Say by a mask what is measured, even if there is a nodata value.

        Raises:
            RegionError: If the region isn't inside the image.
        """
        whole = (0, 0, pyramid.height, pyramid.width)
        if region is not None:
            check_region(region, pyramid.height, pyramid.width, pyramid.source)
        mark = pyramid.nodata
        if masked or pyramid.palette is not None or not holds(mark, pyramid.dtype):
            mark = None
        return cls(pyramid, region or whole, mark)

    @property
    def height(self) -> int:
        """Rows."""
        return self.region[2]

    @property
    def width(self) -> int:
        """Columns."""
        return self.region[3]

    def per_band(self, name: str) -> tuple[Any, ...] | None:
        """A field of the source's metadata that has a value per band; None where it has none, or of other bands."""
        values: tuple[Any, ...] | None = getattr(self.pyramid.meta, name)
        return values if values is not None and len(values) == self.channels else None

    @property
    def channels(self) -> int:
        """Bands."""
        return self.pyramid.channels if self.pyramid.palette is None else 3

    @property
    def dtype(self) -> np.dtype[Any]:
        """Type of the px."""
        return self.pyramid.dtype if self.pyramid.palette is None else np.dtype(np.uint8)

    @property
    def sum_dtype(self) -> np.dtype[Any]:
        """A type in which sums over any 2**11 x 2**11 px of up to 31 bits are exact."""
        return np.dtype(np.uint32 if self.dtype == np.uint8 else np.float64)

    @property
    def in_strips(self) -> bool:
        """Whether the file is stored in rows as wide as the image."""
        level = self.pyramid.levels[0]
        return level.tile_width >= level.width and level.tile_height < level.height

    @property
    def transform(self) -> tuple[float, float, float, float, float, float] | None:
        """Affine transform (a, b, c, d, e, f) of px (column, row) of the region to coordinates."""
        if self.pyramid.transform is None:
            return None
        a, b, c, d, e, f = self.pyramid.transform
        y, x = self.region[:2]
        return a, b, c + a * x + b * y, d, e, f + d * x + e * y

    @property
    def by_band(self) -> bool:
        """Whether the px themselves can say what is measured, each band for itself: by nodata or NaN."""
        return self.mark is not None or self.dtype.kind == "f"

    def read(self, y: int, x: int, height: int, width: int) -> tuple[np.ndarray, np.ndarray | None]:
        """Pixels ``[c h w]`` of a window of the region, and where they are measured (None: everywhere).

        The mask is ``[c h w]`` with ``by_band``; else ``[1 h w]``: where every band is measured.

        Raises:
            ReadError: If a tile can't be decoded, or an index isn't in the palette.
        """
        read = self.pyramid.read_by_band if self.by_band else self.pyramid.read_masked
        pixels = read(0, self.region[0] + y, self.region[1] + x, height, width)
        data, palette, valid = pixels.data, self.pyramid.palette, pixels.valid
        if palette is not None:
            index = data[:, :, 0]
            unknown = (
                index >= len(palette) if pixels.valid is None else (index >= len(palette)) & pixels.valid
            )
            if unknown.any():
                raise ReadError(
                    f"{self.pyramid.source}: a pixel has colour {index[unknown].max()} of a palette of "
                    f"{len(palette)}; the file is damaged, export it again"
                )
            data = np.take(palette, index, axis=0, mode="clip")
        if valid is not None:
            valid = valid[None] if valid.ndim == 2 else np.moveaxis(valid, 2, 0)
            valid = np.broadcast_to(valid, (self.channels if self.by_band else 1, height, width))
        return np.ascontiguousarray(np.moveaxis(data, 2, 0)), valid

    def marked(self, data: np.ndarray, valid: np.ndarray | None) -> tuple[np.ndarray, np.ndarray | None]:
        """Pixels with marks where nothing is measured, and the mask that is still needed.

        Args:
            data: ``[c h w]``; changed in place.
            valid: As ``read`` returns it.

        Returns:
            The pixels, and ``[h w]``, True = measured; None = the pixels themselves say so.
        """
        if valid is None or valid.all():
            return data, None
        if self.mark is not None:
            np.copyto(data, data.dtype.type(self.mark), where=~valid & np.isfinite(data))
            return data, None
        some = np.asarray(valid.any(axis=0))
        if data.dtype.kind != "f":
            return data, some
        np.copyto(data, data.dtype.type(np.nan), where=~valid & some)
        return data, None if (some | ~np.isfinite(data).all(axis=0)).all() else some

    def kept_apart(self, data: np.ndarray, valid: np.ndarray | None) -> np.ndarray:
        """Averages that don't look like nodata by chance: such a value moves to the next one.

        And what isn't measured gets the nodata value; NaN, if it is a float without one.

        Args:
            data: ``[c h w]``; changed in place.
            valid: As ``read`` returns it.
        """
        if valid is not None and data.dtype.kind == "f":
            np.copyto(data, data.dtype.type(np.nan), where=~valid)
        if self.mark is None or not np.isfinite(self.mark):
            return data
        value = data.dtype.type(self.mark)
        low, high = taken_for(self.mark, data.dtype)
        alike = (data >= low) & (data <= high)
        if valid is not None:
            alike &= valid
            np.copyto(data, value, where=~valid)
        if alike.any():
            data[alike] = _next(low if value > 0 else high)
        return data


def holds(nodata: float | None, dtype: np.dtype[Any]) -> bool:
    """Whether px of a type can have this value, NaN included."""
    if nodata is None:
        return False
    if dtype.kind == "f":
        return bool(np.isnan(nodata) or abs(nodata) <= np.finfo(dtype).max)
    return float(nodata).is_integer() and bool(np.iinfo(dtype).min <= nodata <= np.iinfo(dtype).max)


def _next(value: Any) -> Any:
    """The value beside one, of the same type."""
    if value.dtype.kind == "f":
        return np.nextafter(value, value.dtype.type(0) if value else value.dtype.type(1))
    return value + 1 if value < np.iinfo(value.dtype).max else value - 1
