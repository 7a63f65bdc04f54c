"""From records to two layers: ``scenes``, a row per source, and ``regions``, a row per region that was looked at."""

import json
import logging
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from hiresattn.errors import HiresattnError
from hiresattn.geo.extras import needed
from hiresattn.geo.outlines import LON_LAT, corners, lon_lat_polygons, place_of, polygons
from hiresattn.inference.record import CaseSource, Record, VisitedRegion

_log = logging.getLogger(__name__)

#: Types of columns; those not named are texts.
_TYPES = (
    dict.fromkeys(("scene", "region_id", "depth", "glimpses", "bytes_read"), "int64")
    | dict.fromkeys(("y", "x", "height", "width", "parent_id"), "Int64")  # may be empty
    | dict.fromkeys(("score", "mpp", "fraction_read", "seconds", "attention", "select_logp"), "float64")
    | dict.fromkeys(("needs_review", "out_of_domain"), "boolean")
)


_SCENE = (
    "scene", "source", "case", "status", "class_name", "score", "scores", "labels", "prediction_set", "needs_review",
    "review_reasons", "out_of_domain", "label", "y", "x", "height", "width", "mpp", "crs", "glimpses", "fraction_read",
    "bytes_read", "seconds", "stop_reason", "warnings", "error", "model", "model_sha256", "version",
)  # fmt: skip
_REGION = (
    "scene", "source", "case", "region_id", "parent_id", "depth", "attention", "select_logp", "scorer", "y", "x",
    "height", "width", "crs",
)  # fmt: skip


@dataclass
class Layers:
    """The rows of both layers, and where they lie."""

    scenes: dict[str, list[Any]] = field(default_factory=lambda: {name: [] for name in _SCENE})
    regions: dict[str, list[Any]] = field(default_factory=lambda: {name: [] for name in _REGION})
    places: "list[_Place]" = field(default_factory=list)
    """One per scene."""


@dataclass
class _Place:
    """Where a scene and its regions lie."""

    source: str
    crs: str | None
    footprint: np.ndarray | None
    """Corners ``[1 4 2]``; None = not known."""
    outlines: np.ndarray
    """Corners of the regions ``[n 4 2]``."""


def frames(records: Iterable[Record], *, lon_lat: bool = False) -> tuple[Any, Any]:
    """The layers ``scenes`` and ``regions`` of records.

    Both are in the sources' own coordinate reference system; where sources have different ones, in longitude and
    latitude (EPSG:4326), and the column ``crs`` has each one's own. Where no source has one, geometries are in level-0
    px (x, y), y down; where only some have, the others have no geometry. Nothing is opened: records say where their
    sources lie.

    Args:
        records: As ``classify`` returns them, or ``read_records`` reads them from a file.
        lon_lat: Whether geometries are in longitude and latitude in any case, as RFC 7946 wants them.

    Returns:
        Two GeoDataFrames. ``scenes`` has a row per source, its geometry what was classified of it; a source that failed
        has one, too, without a geometry where it couldn't be opened. ``regions`` has a row per region that was looked
        at. The column ``scene`` joins them.

    Raises:
        BackendMissingError: If GeoPandas isn't installed.

    Examples:
        >>> scenes, regions = hiresattn.geo.frames(hiresattn.classify_all(["a.tif", "b.tif"], "model"))
        >>> regions.explore("attention")
    """
    found = layers_of(records)
    crs, footprints, outlines = _placed(found.places, lon_lat=lon_lat)
    return _frame(found.scenes, footprints, crs), _frame(found.regions, outlines, crs)


def layers_of(records: Iterable[Record]) -> Layers:
    """The rows of both layers."""
    found = Layers()
    for record in records:
        regions: dict[int, list[VisitedRegion]] = {}
        for region in record.regions:
            regions.setdefault(region.source, []).append(region)
        unopened = CaseSource(record.source, record.region, mpp=record.mpp, error=record.error)
        for at, source in enumerate(record.sources or [unopened]):
            _add(found, record, source, regions.get(at, []))
    return found


def _add(found: Layers, record: Record, source: CaseSource, regions: Sequence[VisitedRegion]) -> None:
    """The rows of one source of a record."""
    place = place_of(source)
    crs = None if place is None else source.crs
    window = source.region
    if window is None and source.height is not None and source.width is not None:
        window = (0, 0, source.height, source.width)
    shared = {
        "scene": len(found.places),
        "source": source.source,
        "case": record.case,
        "crs": crs,
    }
    scene = shared | _scene(record, source, window)
    for name, column in found.scenes.items():
        column.append(scene[name])
    for region in regions:
        row = vars(region) | shared | {"region_id": region.id, "parent_id": region.parent}
        for name, column in found.regions.items():
            column.append(row[name])
    boxes = [(region.y, region.x, region.height, region.width) for region in regions]
    footprint = None if source.height is None else corners([window], place)
    found.places.append(_Place(source.source, crs, footprint, corners(boxes, place)))


def _scene(record: Record, source: CaseSource, window: tuple[int, int, int, int] | None) -> dict[str, Any]:
    """What a source's row says beside what its regions' say, too."""
    left_out = source.error is not None or source.empty
    label = record.label
    y, x, height, width = window or (None,) * 4
    answer = {
        "class_name": record.class_name,
        "score": record.score,
        "scores": json.dumps(dict(record.scores)) if record.scores else None,
        "labels": _joined(record.labels),
        "prediction_set": _joined(record.prediction_set),
        "out_of_domain": record.out_of_domain,
    }
    return (dict.fromkeys(answer) if left_out else answer) | {
        "status": "error" if left_out else record.status,
        "needs_review": record.needs_review,
        "review_reasons": "; ".join(record.review_reasons) or None,
        "label": _joined(label) if isinstance(label, tuple) else label,
        "y": y,
        "x": x,
        "height": height,
        "width": width,
        "mpp": source.mpp,
        "glimpses": source.glimpses,
        "fraction_read": source.fraction_read,
        "bytes_read": record.cost.bytes_read,
        "seconds": record.cost.seconds.total,
        "stop_reason": record.cost.stop_reason or None,
        "warnings": "; ".join(record.warnings) or None,
        "error": source.error or record.error,
        "model": record.model.get("name"),
        "model_sha256": record.model.get("sha256"),
        "version": record.version,
    }


def _joined(names: Sequence[str] | None) -> str | None:
    return None if names is None else "|".join(names)


def _placed(places: list[_Place], *, lon_lat: bool) -> tuple[str | None, list[Any], list[Any]]:
    """The CRS of both layers (None = px), the scenes' geometries and the regions'."""
    seen = [place for place in places if place.footprint is not None]
    codes = {place.crs for place in seen} - {None}
    moved = bool(codes) and (lon_lat or len(codes) > 1)
    crs = LON_LAT if moved else next(iter(codes), None)
    footprints: list[Any] = []
    outlines: list[Any] = []
    for place in places:
        whole: list[Any] = [None]
        parts: list[Any] = [None] * len(place.outlines)
        if place.footprint is not None and (place.crs is not None or crs is None):
            try:
                whole = _geometries(place, place.footprint, moved=moved)
                parts = _geometries(place, place.outlines, moved=moved)
            except HiresattnError as error:
                whole, parts = [None], [None] * len(place.outlines)
                _log.warning("%s: it has no geometry in longitude and latitude: %s", place.source, error)
        elif place.footprint is not None:
            _log.warning("%s: it has no coordinate system, others have; it has no geometry", place.source)
        footprints += whole
        outlines += parts
    return crs, footprints, outlines


def _geometries(place: _Place, outlines: np.ndarray, *, moved: bool) -> list[Any]:
    if moved and place.crs is not None:
        return lon_lat_polygons(outlines, place.crs)
    return polygons(outlines)


def _frame(columns: dict[str, list[Any]], geometry: list[Any], crs: str | None) -> Any:
    """A GeoDataFrame."""
    pandas, geopandas = needed("pandas"), needed("geopandas")
    series = {
        name: pandas.Series(values, dtype=_TYPES.get(name, "string")) for name, values in columns.items()
    }
    return geopandas.GeoDataFrame(series, geometry=geopandas.GeoSeries(geometry, crs=crs), crs=crs)
