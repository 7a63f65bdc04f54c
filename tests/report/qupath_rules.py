"""What QuPath makes of a GeoJSON file: its reading rules (0.4 to 0.7), written anew; errors where it would throw."""

import gzip
import json
from dataclasses import dataclass, field
from uuid import UUID

TYPES = ("annotation", "detection", "tile", "cell", "tmaCore", "root")


@dataclass
class PathObject:
    kind: str
    ring: list
    id: UUID | None
    name: str | None
    path_class: str | None
    color: tuple | None
    locked: bool
    measurements: dict
    metadata: dict
    children: list = field(default_factory=list)

    def all(self):
        return [self, *(one for child in self.children for one in child.all())]


def read(path):
    """The objects at the top of a file, with those below them."""
    data = path.read_bytes()
    found = json.loads(gzip.decompress(data) if path.suffix == ".gz" else data)
    assert found["type"] == "FeatureCollection"
    assert "crs" not in found
    return [_object(feature) for feature in found["features"]]


def _object(feature):
    properties = feature["properties"]
    kind = properties.get("objectType", "annotation")
    assert kind in TYPES, "it would warn, and make an annotation"
    name = properties.get("name", "")
    assert isinstance(name, str), "null has no getAsString"
    path_class, color = _class(properties.get("classification"))
    measured = properties.get("measurements", {})
    assert all(isinstance(v, int | float) and not isinstance(v, bool) for v in measured.values())
    metadata = properties.get("metadata", {})
    assert all(isinstance(value, str) for value in metadata.values())
    return PathObject(
        kind,
        _ring(feature["geometry"]),
        UUID(feature["id"]),
        name or None,
        path_class,
        color,
        properties.get("isLocked", False),
        measured,
        metadata,
        [_object(child) for child in properties.get("childObjects", [])],
    )


def _class(found):
    """An object without a colour is an exception; several names are a derived class."""
    if found is None or isinstance(found, str):
        return found, None
    names = found["names"] if "names" in found else [found["name"]]
    assert names
    assert all(isinstance(name, str) and name for name in names)
    color = found["color"]
    assert len(color) in (3, 4)
    assert all(type(part) is int and 0 <= part <= 255 for part in color)
    return ": ".join(names), tuple(color)


def _ring(geometry):
    assert geometry["type"] == "Polygon"
    (ring,) = geometry["coordinates"]
    assert ring[0] == ring[-1]
    assert len(ring) == 5
    return ring
