"""Layers in files, by suffix."""

import json
import os
import warnings
from collections.abc import Iterable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

from hiresattn.datasets.tables import csv_cell
from hiresattn.errors import ConfigError, HiresattnError, WriteError, reason
from hiresattn.files import atomic_write
from hiresattn.geo.extras import needed
from hiresattn.geo.layers import frames
from hiresattn.geo.style import add_style
from hiresattn.inference.record import Record

#: What is written, by suffix.
FORMATS = {
    ".gpkg": "GeoPackage",
    ".parquet": "GeoParquet",
    ".fgb": "FlatGeobuf",
    ".geojson": "GeoJSON",
    ".geojsonl": "GeoJSON, a feature a line",
    ".csv": "CSV, geometries as WKT",
}
#: Decimals of longitudes and latitudes: 1 cm.
_DECIMALS = 7


def export(records: Iterable[Record], path: str | os.PathLike[str], *, overwrite: bool = False) -> list[Path]:
    """Write records as layers, in the format that the suffix says: see ``frames``.

    A GeoPackage (``.gpkg``) holds both layers, and how QGIS draws ``regions``. Of the others (``.parquet``, ``.fgb``,
    ``.geojson``, ``.geojsonl``, ``.csv``) the file holds ``scenes``, and ``NAME.regions.SUFFIX`` beside it the regions.
    GeoJSON is in longitude and latitude, as RFC 7946 wants it, unless no source has a CRS: then it is in px.

    Args:
        records: As ``classify`` returns them, or ``read_records`` reads them from a file.
        path: The file. Files are written whole or not at all.
        overwrite: Replace what is there.

    Returns:
        The files written.

    Raises:
        ConfigError: If the suffix is another, a file is there, or there are no records.
        WriteError: If a file can't be written.
        BackendMissingError: If a package that it needs isn't installed.

    Examples:
        >>> hiresattn.geo.export(hiresattn.classify_all(["a.tif", "b.tif"], "model"), "out.gpkg")
    """
    path = Path(path)
    suffix = check_layers(path)
    files = files_of(path)
    for file in files:
        if file.is_dir():
            raise ConfigError(f"{file}: that is a folder; give the name of a file")
        if file.exists() and not overwrite:
            raise ConfigError(f"{file}: is there already; overwrite replaces it, or give another file")
    layers = frames(records, lon_lat=suffix.startswith(".geojson"))
    if layers[0].empty:
        raise ConfigError(f"{path}: there are no records to write")
    try:
        with ExitStack() as stack, warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of layers without a CRS, or without geometries
            parts = [stack.enter_context(atomic_write(file)) for file in files]
            if suffix == ".gpkg":
                _geopackage(parts[0], *layers)
            else:
                for part, layer in zip(parts, layers, strict=True):
                    _WRITERS[suffix](part, layer)
    except HiresattnError:
        raise
    except Exception as error:
        why = getattr(error, "strerror", None) or reason(error)
        raise WriteError(f"{path}: can't be written ({why}); check its folder and the disk") from error
    return files


def feature_lines(records: Iterable[Record], layer: str, *, collection: bool = False) -> Iterator[str]:
    """Records as GeoJSON: a feature a line, or lines that are one collection; in longitude and latitude, if any is.

    Args:
        records: As of ``export``.
        layer: ``scenes`` or ``regions``.
        collection: Whether they are one collection.

    Raises:
        ConfigError: If there are no records.
        BackendMissingError: If GeoPandas isn't installed.
    """
    scenes, regions = frames(records, lon_lat=True)
    if scenes.empty:
        raise ConfigError("there are no records to write")
    rows = scenes if layer == "scenes" else regions
    return _collection(rows) if collection else iter(_features(rows))


def files_of(path: Path) -> list[Path]:
    """The files that ``export`` writes."""
    if path.suffix.lower() == ".gpkg":
        return [path]
    return [path, path.with_name(f"{path.stem}.regions{path.suffix}")]


def is_layers(path: str | os.PathLike[str]) -> bool:
    """Whether a name is that of a file of layers; one that ends in a slash is a folder's."""
    return Path(path).suffix.lower() in FORMATS and not os.fspath(path).endswith(("/", os.sep))


def check_layers(path: str | os.PathLike[str]) -> str:
    """The suffix of a file of layers.

    Raises:
        ConfigError: If it is none.
        BackendMissingError: If a package that it needs isn't installed.
    """
    suffix = Path(path).suffix.lower()
    if suffix not in FORMATS:
        raise ConfigError(
            f"{os.fspath(path)}: layers are written as {', '.join(FORMATS)}, and this name ends in "
            f"{suffix or 'no suffix'}; give another"
        )
    needed("geopandas")
    if suffix in (".gpkg", ".fgb"):
        needed("pyogrio")
    if suffix == ".parquet":
        needed("pyarrow")
    return suffix


def _geopackage(part: Path, scenes: Any, regions: Any) -> None:
    _vector(part, scenes, layer="scenes", driver="GPKG")
    _vector(part, regions, layer="regions", driver="GPKG")
    add_style(part, max(regions["attention"], default=1.0))


def _vector(part: Path, rows: Any, **how: Any) -> None:
    types = set(rows.geom_type.dropna())
    kind = "MultiPolygon" if "MultiPolygon" in types else "Polygon"
    rows.to_file(part, engine="pyogrio", geometry_type=kind, promote_to_multi=len(types) > 1, **how)


def _flatgeobuf(part: Path, layer: Any) -> None:
    some_missing = bool(layer.geometry.isna().any())
    _vector(part, layer, driver="FlatGeobuf", SPATIAL_INDEX="NO" if some_missing or layer.empty else "YES")


def _parquet(part: Path, layer: Any) -> None:
    layer.to_parquet(part, compression="zstd", schema_version="1.1.0", write_covering_bbox=True)


def _csv(part: Path, layer: Any) -> None:
    table = needed("pandas").DataFrame(layer.drop(columns="geometry"))
    table["geometry"] = layer.geometry.to_wkt()
    for name in table.select_dtypes(exclude="number"):
        table[name] = table[name].map(csv_cell)
    table.columns = [csv_cell(name) for name in table.columns]
    table.to_csv(part, index=False)


def _geojson(part: Path, layer: Any) -> None:
    with part.open("w", encoding="ascii") as file:
        file.writelines(f"{line}\n" for line in _collection(layer))


def _geojson_lines(part: Path, layer: Any) -> None:
    with part.open("w", encoding="ascii") as file:
        file.writelines(f"{feature}\n" for feature in _features(layer))


def _collection(layer: Any) -> Iterator[str]:
    """Lines of a feature collection, a feature a line."""
    px = "" if layer.crs is not None else '"coordinates": "level-0 px (x, y), y down", '
    yield '{"type": "FeatureCollection", ' + px + '"features": ['
    yield ",\n".join(_features(layer))
    yield "]}"


def _features(layer: Any) -> list[str]:
    """The rows as GeoJSON; nothing in them is infinite or not a number."""
    mapping = needed("shapely.geometry").mapping
    columns = [name for name in layer.columns if name != "geometry"]
    found = []
    for row in layer.astype(dict.fromkeys(columns, object)).itertuples(index=False):
        values = {name: _plain(getattr(row, name)) for name in columns}
        geometry = None
        if row.geometry is not None:
            shape = mapping(row.geometry)
            geometry = {"type": shape["type"], "coordinates": _rounded(shape["coordinates"])}
        feature = {"type": "Feature", "geometry": geometry, "properties": values}
        found.append(json.dumps(feature, allow_nan=False))
    return found


def _plain(value: Any) -> Any:
    return None if needed("pandas").isna(value) else value


def _rounded(coordinates: Any) -> Any:
    if isinstance(coordinates[0], float):
        return [round(value, _DECIMALS) for value in coordinates]
    return [_rounded(part) for part in coordinates]


_WRITERS = {
    ".parquet": _parquet,
    ".fgb": _flatgeobuf,
    ".geojson": _geojson,
    ".geojsonl": _geojson_lines,
    ".csv": _csv,
}
