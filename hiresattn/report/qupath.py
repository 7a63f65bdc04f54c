"""What was looked at, as objects that QuPath opens: GeoJSON, one file per image."""

import gzip
import json
import math
import os
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any
from uuid import NAMESPACE_URL, uuid5

from hiresattn.errors import ConfigError, WriteError
from hiresattn.files import atomic_write, is_zarr, make_folder
from hiresattn.inference.record import Record, VisitedRegion
from hiresattn.report.colours import class_colours, depth_colour, rgb
from hiresattn.report.evidence import evidence
from hiresattn.report.names import unique_names

#: Objects from which on a file is compressed.
_MANY = 50_000


def write_qupath(
    records: Iterable[Record], folder: str | os.PathLike[str], *, overwrite: bool = False
) -> list[Path]:
    """Write a GeoJSON file for each image that was looked at, for QuPath: open the image, drop the file on it.

    Every look is an object, inside the one that it was chosen from. Those that carry the answer (see ``evidence``;
    where that isn't defined, the one of most weight) are annotations of the answer's class, the others detections.
    Coordinates are level-0 px as QuPath counts them, from the corner of a slide's scanned part.

    Args:
        records: As ``classify`` returns them. Several of one image go into one file.
        folder: Where to; it is made if it is missing.
        overwrite: Replace files that are there.

    Returns:
        The files, one per image. Above 50,000 objects they are compressed (``.geojson.gz``).

    Raises:
        ConfigError: If a file is there, or the folder can't be made.
        WriteError: If a file can't be written.
    """
    by_image: dict[str, list[Record]] = {}
    for record in records:
        for own in record.by_source():
            if own.regions:
                by_image.setdefault(own.source, []).append(own)
    folder = make_folder(folder)
    names = unique_names(list(by_image))
    written = []
    for name, some in zip(names, by_image.values(), strict=True):
        count = sum(len(record.regions) for record in some)
        path = folder / f"{name}.geojson{'.gz' if count > _MANY else ''}"
        if path.exists() and not overwrite:
            raise ConfigError(f"{path}: is there already; overwrite replaces it, or give another folder")
        features = [feature for record in some for feature in qupath_features(record)]
        text = json.dumps({"type": "FeatureCollection", "features": features}, allow_nan=False)
        data = text.encode("ascii")
        try:
            with atomic_write(path) as part:
                part.write_bytes(gzip.compress(data, mtime=0) if count > _MANY else data)
        except OSError as error:
            raise WriteError(
                f"{path}: can't be written ({error.strerror or error}); check its folder"
            ) from error
        written.append(path)
    return written


def qupath_features(record: Record) -> list[dict[str, Any]]:
    """The root regions of a record of one image as GeoJSON features; what was chosen from one is among its children."""
    bounds = record.sources[0].bounds if record.sources else None
    corner = (0, 0) if bounds is None or is_zarr(record.source) else bounds[:2]  # Zarr is shown whole
    evidence = _evidence(record)
    made: dict[int, dict[str, Any]] = {}
    roots = []
    for region in sorted(record.regions, key=lambda region: region.id):
        feature = _feature(record, region, corner, decisive=region.id in evidence)
        above = made.get(region.parent) if region.parent is not None else None
        if above is None:
            roots.append(feature)
        else:
            feature["properties"]["metadata"]["parent"] = above["id"]
            above["properties"].setdefault("childObjects", []).append(feature)
        made[region.id] = feature
    return roots


def _evidence(record: Record) -> Sequence[int]:
    """The looks that carry the answer."""
    if record.class_name is None and not record.labels:
        return ()
    known = {region.id for region in record.regions}
    if record.sufficient is not None and known.issuperset(record.sufficient):
        return evidence(record)
    best = max(record.regions, key=lambda region: (region.attention, region.depth), default=None)
    return () if best is None else (best.id,)


def _feature(
    record: Record, region: VisitedRegion, corner: tuple[int, ...], *, decisive: bool
) -> dict[str, Any]:
    top, left = region.y - corner[0], region.x - corner[1]
    bottom, right = top + region.height, left + region.width
    ring = [[left, top], [right, top], [right, bottom], [left, bottom], [left, top]]
    measured = {
        "Look": region.id,
        "Depth": region.depth,
        "Attention": region.attention,
        "Log-probability": region.select_logp,
    }
    if decisive:
        measured |= {f"p_{name}": share for name, share in record.scores.items()}
    measurements = {name: value for name, value in measured.items() if math.isfinite(value)}
    metadata = {"model": record.model.get("name", ""), "hiresattn": record.version, "answer": _answer(record)}
    place = (region.depth, region.y, region.x, region.height, region.width)
    key = [record.source, record.region, record.model.get("sha256"), region.id, *place]
    return {
        "type": "Feature",
        "id": str(uuid5(NAMESPACE_URL, json.dumps(key))),
        "geometry": {"type": "Polygon", "coordinates": [ring]},
        "properties": {
            "objectType": "annotation" if decisive else "detection",
            "name": f"look {region.id}",
            "classification": _class_of(record) if decisive else _depth_class(region.depth),
            "isLocked": True,
            "measurements": measurements,
            "metadata": {name: value for name, value in metadata.items() if value},
        },
    }


def _answer(record: Record) -> str:
    if record.labels is not None:
        return ", ".join(f"{name} {record.scores.get(name, 0):.3f}" for name in record.labels)
    return "" if record.class_name is None else f"{record.class_name} {record.score or 0:.3f}"


def _class_of(record: Record) -> dict[str, Any]:
    """The answer's class, in a colour of its own; of several labels the likeliest."""
    name = record.labels[0] if record.labels else str(record.class_name)
    colour = class_colours(record.scores).get(name) or class_colours((name,))[name]
    return {"name": name, "color": rgb(colour)}


def _depth_class(depth: int) -> dict[str, Any]:
    return {"names": ["look", f"depth {depth}"], "color": rgb(depth_colour(depth))}
