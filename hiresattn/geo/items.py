"""Records as STAC items: a scene each, with its regions and its attention beside it."""

import json
import os
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np

from hiresattn.errors import ConfigError, WriteError
from hiresattn.files import atomic_write, make_folder
from hiresattn.geo.attention import write_attention
from hiresattn.geo.extras import needed
from hiresattn.geo.layers import frames
from hiresattn.geo.mlm import identifier
from hiresattn.geo.outlines import corners, lon_lat_polygons, place_of
from hiresattn.inference.record import CaseSource, Record
from hiresattn.pyramid.formats.quiet import quiet
from hiresattn.report.names import unique_names

_EXTENSIONS = (
    "https://stac-extensions.github.io/projection/v2.0.0/schema.json",
    "https://stac-extensions.github.io/processing/v1.2.0/schema.json",
)
_COG = "image/tiff; application=geotiff; profile=cloud-optimized"
_DECIMALS = 7
#: Characters that a code of an authority has at most; what is longer is WKT.
_LONGEST_CODE = 40
#: Name of the file that lists all items.
ITEMS = "items.json"


def write_items(
    records: Iterable[Record],
    folder: str | os.PathLike[str],
    *,
    model: str | None = None,
    acquired: str | None = None,
    overwrite: bool = False,
) -> list[Path]:
    """Write records as STAC items: of each scene what it is, where the model looked, and what it was made from.

    Of each scene ``NAME.json`` is the item, ``NAME.regions.parquet`` the regions, ``NAME.attention.tif`` the attention
    as a raster; ``items.json`` is a collection of all items. Items are linked to their source and to the model.

    Args:
        records: As ``classify`` returns them, or ``read_records`` reads them from a file.
        folder: Where; it is made if it isn't there.
        model: Path or address of the model's own item: see ``mlm_item``. None = no link.
        acquired: When scenes were taken that don't say it themselves, ISO 8601.
        overwrite: Replace what is there.

    Returns:
        The items' files, and ``items.json``.

    Raises:
        ConfigError: If a file is there, a scene has no coordinate system or no time, or there are none.
        WriteError: If a file can't be written.
        BackendMissingError: If a package that it needs isn't installed.

    Examples:
        >>> hiresattn.geo.write_items(hiresattn.classify_all(["a.tif", "b.tif"], "model"), "items")
    """
    needed("pyarrow")
    seen = [one for record in records if record.status != "error" for one in record.by_source()]
    if not seen:
        raise ConfigError("there are no scenes to make items of: all failed")
    folder = make_folder(folder)
    names = unique_names([_called(one) for one in seen])
    items = [_item(one, name, model, acquired) for one, name in zip(seen, names, strict=True)]
    files = [folder / f"{name}.json" for name in names]
    for file in (*files, folder / ITEMS):
        if file.exists() and not overwrite:
            raise ConfigError(f"{file}: is there already; overwrite replaces it, or give another folder")
    for one, name, item in zip(seen, names, items, strict=True):
        write_attention(one, folder / f"{name}.attention.tif")
        item["assets"]["attention"] |= _grid(folder / f"{name}.attention.tif")
        _, regions = frames([one])
        try:
            with atomic_write(folder / f"{name}.regions.parquet") as part:
                regions.to_parquet(part, compression="zstd", schema_version="1.1.0", write_covering_bbox=True)
        except OSError as error:
            raise WriteError(
                f"{folder}: can't be written ({error}); check the folder and the disk"
            ) from error
    for file, item in zip(files, items, strict=True):
        _write(file, item)
    _write(folder / ITEMS, {"type": "FeatureCollection", "features": items})
    return [*files, folder / ITEMS]


def _item(record: Record, name: str, model: str | None, acquired: str | None) -> dict[str, Any]:
    """The item of a record of one source."""
    (source,) = record.sources
    taken = source.acquired or acquired
    if source.crs is None or place_of(source) is None:
        raise ConfigError(
            f"{source.source}: it has no coordinate system, so that no item can say where it lies"
        )
    if taken is None:
        raise ConfigError(
            f"{source.source}: it doesn't say when it was taken, as items must; give the time, as 2020-01-31T10:00:00Z"
        )
    window = source.region or (0, 0, source.height or 0, source.width or 0)
    (outline,) = lon_lat_polygons(corners([window], place_of(source)), source.crs)
    west, south, east, north = outline.bounds
    if (
        outline.geom_type == "MultiPolygon"
    ):  # across the antimeridian: west of more than east, as RFC 7946 has it
        parts = [part.bounds for part in outline.geoms]
        west, east = max(part[0] for part in parts), min(part[2] for part in parts)
    links = [{"rel": "derived_from", "href": source.source}]
    if model is not None:
        links.append({"rel": "derived_from", "href": model, "type": "application/geo+json", "title": "model"})
    geometry = needed("shapely.geometry").mapping(outline)
    return {
        "type": "Feature",
        "stac_version": "1.1.0",
        "stac_extensions": list(_EXTENSIONS),
        "id": identifier(name),
        "geometry": {"type": geometry["type"], "coordinates": _rounded(geometry["coordinates"])},
        "bbox": [round(float(value), _DECIMALS) for value in (west, south, east, north)],
        "properties": {"datetime": taken} | _projection(source, window) | _answer(record, source, model),
        "links": links,
        "assets": {
            "attention": {
                "href": f"./{name}.attention.tif",
                "type": _COG,
                "roles": ["data"],
                "title": "Attention",
            },
            "regions": {
                "href": f"./{name}.regions.parquet",
                "type": "application/vnd.apache.parquet",
                "roles": ["data"],
                "title": "Regions that were looked at",
            },
        },
    }


def _projection(source: CaseSource, window: tuple[int, int, int, int]) -> dict[str, Any]:
    """Where the window lies, as the projection extension says it."""
    from rasterio.crs import CRS

    y, x, height, width = window
    crs = str(source.crs)
    code: dict[str, Any] = {"proj:code": crs, "proj:shape": [height, width]}
    if ":" not in crs or len(crs) > _LONGEST_CODE:
        code |= {"proj:code": None, "proj:wkt2": CRS.from_user_input(crs).to_wkt(version="WKT2_2019")}
    if source.transform is None:  # by ground control points, which are in a CRS but the px aren't
        return code | {"proj:code": None}
    a, b, c, d, e, f = source.transform
    return code | {"proj:transform": [a, b, a * x + b * y + c, d, e, d * x + e * y + f]}


def _grid(file: Path) -> dict[str, Any]:
    """The px of a raster that aren't its item's, as the projection extension says it."""
    import rasterio
    from rasterio.errors import NotGeoreferencedWarning

    with quiet(NotGeoreferencedWarning), rasterio.open(file) as raster:
        grid = {"proj:shape": list(raster.shape)}
        return grid if raster.gcps[0] else grid | {"proj:transform": list(raster.transform)[:6]}


def _answer(record: Record, source: CaseSource, model: str | None) -> dict[str, Any]:
    expression = (
        {} if model is None else {"processing:expression": {"format": "stac-mlm", "expression": model}}
    )
    answer = {
        "class_name": record.class_name,
        "score": record.score,
        "scores": dict(record.scores),
        "labels": None if record.labels is None else list(record.labels),
        "case": record.case,
        "glimpses": source.glimpses,
        "fraction_read": source.fraction_read,
        "model": record.model.get("name"),
        "model_sha256": record.model.get("sha256"),
        "region": None if source.region is None else list(source.region),
    }
    return {
        "processing:level": "L4",
        "processing:software": {"hiresattn": record.version},
        **expression,
        **{f"hiresattn:{name}": value for name, value in answer.items() if value is not None},
    }


def _called(record: Record) -> str:
    """What a record's item is named after: its source, and the window of it."""
    window = "".join(f"_{value}" for value in record.region or ())
    return f"{record.source.replace('#', '_')}{window}"


def _rounded(coordinates: Any) -> Any:
    return (
        np.round(coordinates, _DECIMALS).tolist()
        if isinstance(coordinates[0], float)
        else [_rounded(part) for part in coordinates]
    )


def _write(file: Path, content: dict[str, Any]) -> None:
    try:
        with atomic_write(file) as part:
            part.write_text(json.dumps(content, indent=2, allow_nan=False) + "\n", encoding="utf-8")
    except OSError as error:
        raise WriteError(
            f"{file}: can't be written ({error.strerror}); check its folder and the disk"
        ) from error
