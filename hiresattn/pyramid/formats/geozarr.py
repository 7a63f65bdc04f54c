"""Attributes of a Zarr group besides OME-Zarr's: georeference, nodata, and which px were measured."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from hiresattn.errors import OpenError


@dataclass(frozen=True, slots=True)
class Georeference:
    """Attributes of GeoZarr (``proj:``, ``spatial:``) and of ``hiresattn convert`` (``hiresattn``)."""

    crs: str | None = None
    """Authority code, else WKT."""
    transform: tuple[float, float, float, float, float, float] | None = None
    """Affine (a, b, c, d, e, f) of level-0 px (column, row) to coordinates."""
    nodata: float | None = None
    """Value that stands for "nothing measured here"."""
    valid: str | None = None
    """Path of a group with an array ``[y x]`` per level, not 0 where px are measured."""
    colors: tuple[str, ...] | None = None
    """What each band shows."""
    scales: tuple[float, ...] | None = None
    """Factor of each band's values."""
    offsets: tuple[float, ...] | None = None
    """What is added to each band's values."""
    bounds: tuple[int, ...] | None = None
    """The scanned part of a slide ``(y, x, height, width)``, level-0 px."""

    @classmethod
    def of(cls, attributes: dict[str, Any], source: str) -> "Georeference":
        """Read them.

        Raises:
            OpenError: If they aren't what they should be.
        """
        own = attributes.get("hiresattn") or {}
        crs = attributes.get("proj:code") or attributes.get("proj:wkt2")
        transform = attributes.get("spatial:transform")
        try:
            if transform is not None:
                a, b, c, d, e, f = (float(value) for value in transform)
                transform = a, b, c, d, e, f
            nodata = own.get("nodata")
            valid = own.get("valid")
            return cls(
                crs=None if crs is None else str(crs),
                transform=transform,
                nodata=None if nodata is None else float(nodata),
                valid=None if valid is None else str(valid),
                colors=_each(own.get("colors"), str),
                scales=_each(own.get("scales"), float),
                offsets=_each(own.get("offsets"), float),
                bounds=_each(own.get("bounds"), int),
            )
        except (AttributeError, TypeError, ValueError) as error:
            raise OpenError(
                f"{source}: its attributes of georeference or nodata are damaged ({error}); write the store again"
            ) from error

    def masks(self, node: Any, shapes: list[tuple[int, int]], source: str) -> list[Any]:
        """The arrays of ``valid``, one per level; none if the group has none.

        Raises:
            OpenError: If one is missing, or of another size than its level.
        """
        if self.valid is None:
            return []
        found = [node.get(f"{self.valid}/{k}") for k in range(len(shapes))]
        for k, (mask, shape) in enumerate(zip(found, shapes, strict=True)):
            if getattr(mask, "shape", None) != shape:
                raise OpenError(
                    f"{source}: its mask {self.valid}/{k} is missing or of another size than level {k}; copy the "
                    "whole store again"
                )
        return found


def _each(values: Any, kind: Callable[[Any], Any]) -> tuple[Any, ...] | None:
    return None if values is None else tuple(map(kind, values))
